"""Questions about a photo with the answers that its label gives, in the words and the frame
in which tamp puts them before the language model.

The frame (engine/prepare.c, projector internvl, SmolLM2's chat template):
    PREFIX <img> ROWS </img> QUESTION<|im_end|> ... assistant
with each piece between special tokens and rows tokenised by itself.
"""
import random
from typing import NamedTuple

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
OTHER_SYSTEMS = (
    "You are the assistant of an online shop. Answer in one short sentence.",
    "You help the customers of a supermarket. Look at the photo and answer the question.",
    "You are a helpful assistant.",
)
NAME = ("What product is this?", "This is {name}.")
KIND = ("What kind of product is it?", "It is {kind}.")
NAMES = (
    "What is this?", "Which product is this?", "Which product do you see?", "Name the product.",
    "What is shown in the photo?", "What product is in the picture?", "What is the name of this product?",
)  # fmt: skip
KINDS = (
    "What kind of product is this?", "What type of product is it?", "What sort of product is shown?",
    "Which kind of product do you see?", "What kind of item is it?",
)  # fmt: skip
DEPARTMENTS = (
    "Which department does it belong to?", "In which department is this product?", "What department sells it?",
)  # fmt: skip
IS_IT = ("Is this {kind}?", "Is it {kind}?", "Does the photo show {kind}?")


class Pair(NamedTuple):
    question: str
    answer: str


def fill(pair: tuple[str, str], label: dict) -> Pair:
    return Pair(pair[0], pair[1].format(**label))


def other_kind(label: dict, labels: list[dict], rng: random.Random) -> str:
    """A kind that it is not; half of them from the same department, if that has another."""
    near = rng.random() < 0.5 and any(
        x["kind"] != label["kind"] and x["department"] == label["department"] for x in labels
    )
    while True:
        other = rng.choice(labels)
        if other["kind"] != label["kind"] and (not near or other["department"] == label["department"]):
            return other["kind"]


def extra(label: dict, labels: list[dict], rng: random.Random) -> Pair:
    what = rng.random()
    if what < 0.25:
        return fill((rng.choice(NAMES), NAME[1]), label)
    if what < 0.5:
        return fill((rng.choice(KINDS), KIND[1]), label)
    if what < 0.7:
        return fill((rng.choice(DEPARTMENTS), "It belongs to {department}."), label)
    question = rng.choice(IS_IT)
    if rng.random() < 0.5:
        return Pair(question.format(**label), f"Yes, it is {label['kind']}.")
    wrong = other_kind(label, labels, rng)
    return Pair(question.format(kind=wrong), f"No, it is {label['kind']}.")


def draw(label: dict, labels: list[dict], count: int, rng: random.Random) -> list[Pair]:
    """Name and kind, mostly in their usual words, then others."""
    pairs = [fill(NAME, label), fill(KIND, label)]
    if rng.random() < 0.25:
        pairs[rng.randrange(2)] = extra(label, labels, rng)
    pairs += [extra(label, labels, rng) for _ in range(count - 2)]
    return [Pair("\n" + p.question, p.answer) if rng.random() < 0.1 else p for p in pairs[:count]]


def before(system: str) -> str:
    """What stands before <img>."""
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"


def after(question: str) -> str:
    """What stands between </img> and the answer."""
    return f"{question}<|im_end|>\n<|im_start|>assistant\n"
