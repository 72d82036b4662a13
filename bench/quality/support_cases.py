"""Support chats with one exact answer each, made from a seed.

A case has a kind ("policy", "order", "chinese", "tools"), messages, and the answer that must
stand in the reply. The same seed and number give the same case on every machine, so a
result is repeated with `support.py --seed`. What is asked stands once in the prompt, among
facts that are like it and sentences that do not matter.
"""

import json
import random

ITEMS = (
    "shoes jackets headphones lamps backpacks watches tents blankets keyboards kettles "
    "chairs mirrors gloves bicycles cameras pillows scarves speakers umbrellas suitcases"
).split()
NAMES = "Anna Boris Carla David Elena Frank Greta Henry Irene Jonas Karin Louis".split()
CITIES = "Berlin Madrid Lisbon Vienna Prague Dublin Oslo Warsaw Athens Helsinki".split()
MONTHS = "January February March April May June July August September October".split()
COLOURS = "red blue green black white yellow purple orange".split()

# Sentence, question, answer; {item} and {v} are filled in. {v} is the answer.
FACTS = (
    ("Customers may return {item} within {v} days of delivery.",
     "Within how many days may I return {item}?", lambda r: str(r.randint(11, 89))),
    ("The warranty on {item} lasts {v} months.",
     "How many months does the warranty on {item} last?", lambda r: str(r.randint(13, 59))),
    ("Express delivery of {item} costs ${v}.",
     "How much does express delivery of {item} cost?",
     lambda r: f"{r.randint(3, 39)}.{r.choice(['25', '50', '75', '90'])}"),
    ("The repair of {item} is done by our workshop in {v}.",
     "In which city are {item} repaired?", lambda r: r.choice(CITIES)),
    ("Questions about {item} are answered by {v}.",
     "Who answers questions about {item}?", lambda r: r.choice(NAMES)),
    ("The discount code for {item} is {v}.",
     "What is the discount code for {item}?",
     lambda r: f"{r.choice(COLOURS).upper()}{r.randint(10, 99)}"),
    ("New {item} arrive on {v}.",
     "On which date do new {item} arrive?", lambda r: f"{r.choice(MONTHS)} {r.randint(2, 28)}"),
)
FILLER = (
    "We are a family business and we care about every single customer.",
    "Our team is friendly, patient and always happy to help.",
    "Please be polite and keep your answers short and clear.",
    "Last year we moved into a bright new building near the river.",
    "Many of our products are made from recycled materials.",
    "We believe that shopping should be a pleasant experience for everybody.",
    "If you are not sure, ask a colleague before you promise anything.",
    "Our newsletter tells customers about new collections and small events.",
    "The canteen serves soup every day, and the coffee is good.",
    "We thank all customers for their trust and their kind letters.",
)
HISTORY = (
    ("Hello, is anybody there?", "Hello! Yes, how can I help you today?"),
    ("Hi, I have a question about your shop.", "Of course, please ask."),
    ("Good morning!", "Good morning! What can I do for you?"),
    ("Thanks for the quick reply last time.", "You are welcome. What else would you like to know?"),
)

ORDER_LINES = (
    ("Order {n} of {item} was sent on {v}.", "On which date was order {n} sent?",
     lambda r: f"{r.choice(MONTHS)} {r.randint(2, 28)}"),
    ("Order {n} of {item} cost ${v}.", "How much did order {n} cost?",
     lambda r: f"{r.randint(12, 480)}.{r.randint(10, 99)}"),
    ("Order {n} of {item} was delivered to {v}.", "To which city was order {n} delivered?",
     lambda r: r.choice(CITIES)),
)

CHINESE_ITEMS = ("鞋子", "外套", "耳机", "台灯", "背包", "手表", "帐篷", "毯子", "键盘", "椅子")
CHINESE_FACTS = (
    ("{item}的价格是{v}元。", "{item}的价格是多少元？", lambda r: str(r.randint(101, 989))),
    ("{item}可以在{v}天内退货。", "{item}可以在几天内退货？", lambda r: str(r.randint(11, 89))),
    ("{item}的保修期是{v}个月。", "{item}的保修期是几个月？", lambda r: str(r.randint(13, 59))),
)
CHINESE_FILLER = (
    "我们非常重视每一位顾客。", "请用礼貌的语气回答。", "我们的商店在河边。",
    "很多商品使用环保材料。", "谢谢大家的支持。",
)


def facts_of(r, table, items, count):
    """`count` facts, no two about the same thing."""
    pairs = [(f, i) for f in range(len(table)) for i in items]
    facts = []
    for f, item in r.sample(pairs, count):
        sentence, question, value = table[f]
        v = value(r)
        number = str(r.randint(10000, 99999))
        facts.append((sentence.format(item=item, v=v, n=number),
                      question.format(item=item, n=number), v))
    return facts


def shuffled(r, facts, filler, n_filler):
    sentences = [f[0] for f in facts] + [r.choice(filler) for _ in range(n_filler)]
    r.shuffle(sentences)
    return sentences


def chat(r, system, question, history):
    messages = [{"role": "system", "content": system}]
    for user, assistant in r.sample(HISTORY, history):
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages + [{"role": "user", "content": question}]


def policy(r, scale):
    facts = facts_of(r, FACTS, ITEMS, 10 * scale)
    text = shuffled(r, facts, FILLER, 8 * scale)
    _, question, answer = r.choice(facts)
    system = "You answer customers of a shop. This is the policy.\n" + " ".join(text)
    return chat(r, system, question, r.randint(0, 2)), answer


def order(r, scale):
    orders = facts_of(r, ORDER_LINES, ITEMS, 6 * scale)
    rules = facts_of(r, FACTS, ITEMS, 4 * scale)
    text = shuffled(r, orders + rules, FILLER, 6 * scale)
    _, question, answer = r.choice(orders)
    system = "You answer customers of a shop. This is what you know.\n" + " ".join(text)
    return chat(r, system, question, r.randint(0, 2)), answer


def chinese(r, scale):
    facts = facts_of(r, CHINESE_FACTS, CHINESE_ITEMS, 6 * scale)
    text = shuffled(r, facts, CHINESE_FILLER, 4 * scale)
    _, question, answer = r.choice(facts)
    return chat(r, "你是商店的客服。\n" + "".join(text), question, 0), answer


def tools(r, scale):
    schema = {"name": "find_order", "parameters": {"type": "object", "properties": {
        "order_id": {"type": "string"}, "city": {"type": "string"}}}}
    facts = facts_of(r, FACTS, ITEMS, 8 * scale)
    text = shuffled(r, facts, FILLER, 6 * scale)
    _, question, answer = r.choice(facts)
    system = ("You answer customers of a shop. Tool:\n" + json.dumps(schema)
              + "\nThis is the policy.\n" + " ".join(text))
    return chat(r, system, question, r.randint(0, 1)), answer


KINDS = {"policy": policy, "order": order, "chinese": chinese, "tools": tools}
# Of ten cases: English facts most, because the small model answers these best.
MIX = ("policy", "order", "policy", "tools", "policy", "order", "policy", "chinese", "policy",
       "order")


def case(seed, number, scale):
    """One case: {"id", "kind", "messages", "answer"}. scale: length of the policy."""
    kind = MIX[number % len(MIX)]
    r = random.Random(f"{seed}/{number}/{scale}")
    messages, answer = KINDS[kind](r, scale)
    return {"id": f"{seed}/{number}/{scale}", "kind": kind, "messages": messages,
            "answer": answer}
