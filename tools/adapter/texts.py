"""Texts of a shop around a picture, to which the low-rank additions must leave the language
model's own answers: there the lesson is what the model without them would say.
"""
import random

SENTENCES = (
    "The shop opens at nine in the morning and closes at eight in the evening.",
    "Fresh bread is delivered twice a day by a small bakery in the same street.",
    "Fruit and vegetables come from farms that are less than two hours away.",
    "Anyone who finds a damaged package should show it to the staff before paying.",
    "Gift cards are sold at the counter and are valid for three years.",
    "The manager writes a short report about complaints every Friday afternoon.",
    "Parking is free for the first hour and costs two euros for each hour after that.",
    "Clothes can be tried on in the four cabins behind the stairs.",
    "Returned goods are inspected, cleaned and put back on the shelf if they are like new.",
    "A member of the loyalty programme collects one point for every euro.",
    "Orders above fifty euros are sent without a charge inside the country.",
    "Winter coats are moved to the front of the store at the end of September.",
    "Milk must be kept at a temperature between two and six degrees.",
    "Our telephone line is busy on Mondays, so an e-mail is often answered sooner.",
    "Complaints about taste are refunded at once, without asking for a receipt.",
    "The security guard locks the back door at a quarter past eight.",
    "New employees are trained for ten days by an experienced colleague.",
    "Water bottles made of glass can be given back for a deposit of fifteen cents.",
    "The shoe department was renovated last spring and now has its own entrance.",
    "Some customers prefer to pay in cash, and they are always welcome to do so.",
    "A tailor shortens trousers and skirts within a week for twelve euros.",
    "Products that contain nuts are marked with a red label on the front.",
    "The delivery van leaves the yard at seven and comes back around noon.",
    "Prices are checked against those of two other shops every month.",
    "Children under ten may not use the lift without an adult.",
    "The invoice number stands in the upper right corner of the letter.",
    "Lost items are kept in the office for thirty days and then given to charity.",
    "In summer the terrace behind the building is open for coffee and cake.",
)
QUESTIONS = (
    "What are the opening hours?", "Summarize the text in one sentence.", "How much does delivery cost?",
    "What happens with returned goods?", "Which of these rules is about children?", "Write a polite reply to a customer.",
    "What should I do with a damaged package?", "How many days are lost items kept?", "List the three most important rules.",
    "Where can I try on clothes?", "What is the capital of France?", "Explain why milk must be kept cold.",
    "How long are gift cards valid?", "Is there anything about payment?", "Thank you! Can you help me with something else?",
    "Translate the first sentence into French.", "Who answers complaints?", "Give me a short title for this text.",
)  # fmt: skip
BEGINNINGS = ("", "Yes. ", "According to the text: ", "Sure! ", "The answer is in the text. ", "Here is what I found. ")


def draw(rng: random.Random) -> tuple[str, str]:
    """What the customer writes behind the picture, and an answer."""
    told = rng.sample(SENTENCES, rng.randint(2, 8))
    asked = [rng.choice(QUESTIONS)]
    told = told if rng.random() < 0.8 else told[:1]
    parts = asked + told if rng.random() < 0.3 else told + asked
    answer = rng.choice(BEGINNINGS) + " ".join(rng.sample(told, min(len(told), rng.randint(1, 2))))
    return " ".join(parts), answer
