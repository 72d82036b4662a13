"""The questions of the frontier: photos, ten photos, support chats, long chats.

A case is {"id", "suite", "kind", "messages", "answer", "right"}: `messages` is called when
it is asked, so that pictures are read then; `right(text)` judges the reply. The same seed
gives the same cases in the same order, spread so that every beginning of the list is a fair
sample.
"""

import json
import pathlib
import random
from typing import Any

import lib
import support_cases

QUESTIONS = {
    "kind": ("What kind of product is it?", "It is {kind}."),
    "name": ("What product is this?", "This is {name}."),
}


def labels(data: pathlib.Path, split: str) -> list[dict[str, Any]]:
    file = data / "labels.json"
    if not file.exists():
        raise SystemExit(f"{file} is missing: --data must name the folder of the product photos")
    return [x for x in json.loads(file.read_text()) if x["split"] == split]


def photo_cases(data: pathlib.Path, split: str, seed: int) -> list[dict[str, Any]]:
    """Both questions about each photo; the kind of case is the set and the question."""
    photos = labels(data, split)
    random.Random(seed).shuffle(photos)
    cases = []
    for photo in photos:
        for question, (text, expected) in QUESTIONS.items():
            want = expected.format(**photo)
            cases.append({
                "id": f"{photo['file']}/{question}", "suite": "photos", "kind": f"{photo['set']}-{question}",
                "answer": want,
                "messages": lambda p=photo, t=text: [{"role": "user", "content": [
                    lib.picture_part((data / p["file"]).read_bytes()), lib.text_part(t)]}],
                "right": lambda said, w=want: said.strip() == w,
            })
    return cases


# Of eight requests with ten photos. The small model cannot number photos ("which" is
# answered by chance), so most ask for the policy, as a shop's customers do.
TEN_MIX = ("policy", "last", "policy", "policy", "which", "policy", "last", "policy")


def ten_cases(data: pathlib.Path, split: str, seed: int) -> list[dict[str, Any]]:
    """The shop's case: ten photos, a policy and a question in one message. The question is
    about the policy, about the last photo (which then stands right before it), or which
    photo shows a thing."""
    photos = labels(data, split)
    cases = []
    for i in range(400):
        r = random.Random(f"{seed}/{i}")
        kind = TEN_MIX[i % len(TEN_MIX)]
        ten = r.sample(photos, 10)
        if kind == "which":  # ten different kinds, so that one number is right
            seen: set[str] = set()
            ten = [p for p in r.sample(photos, len(photos)) if not (p["kind"] in seen or seen.add(p["kind"]))][:10]
        which = r.randrange(10)
        support = support_cases.case(seed + 1000, i * len(support_cases.MIX), 1)  # of the kind "policy"
        policy = support["messages"][0]["content"]
        text, answer = {
            "policy": (f"\n{policy}\n{support['messages'][-1]['content']}", support["answer"]),
            "last": ("What kind of product is it?", ten[-1]["kind"]),
            "which": (f"\nWhich of the ten photos shows {ten[which]['kind']}? Say its number.", str(which + 1)),
        }[kind]
        cases.append({
            "id": f"{seed}/{i}/{kind}", "suite": "ten", "kind": kind, "answer": answer,
            "messages": lambda ten=ten, t=text: [{"role": "user", "content": [
                *(lib.picture_part((data / p["file"]).read_bytes()) for p in ten), lib.text_part(t)]}],
            "right": lambda said, a=answer: lib.stands_in(a, said),
        })
    return cases


def chat_cases(suite: str, seed: int, scale: int, count: int) -> list[dict[str, Any]]:
    """Support chats with `scale` times the policy; long ones are not Chinese, because so many
    Chinese facts there are not."""
    cases = []
    for i in range(count):
        if suite == "long" and support_cases.MIX[i % len(support_cases.MIX)] == "chinese":
            continue
        c = support_cases.case(seed, i, scale)
        cases.append({
            "id": c["id"], "suite": suite, "kind": c["kind"], "answer": c["answer"],
            "messages": lambda m=c["messages"]: m,
            "right": lambda said, a=c["answer"]: lib.stands_in(a, said),
        })
    return cases


def cutoff_cases(seed: int, per_length: int) -> list[dict[str, Any]]:
    """Texts for the table of llm_slerp_generation: what comes next after so many rows of a text. The
    kind is the length of the generated text in words."""
    cases = []
    for i in range(per_length):
        for words in (40, 80, 160, 320, 640):
            r = random.Random(f"cutoff/{seed}/{i}/{words}")
            facts = support_cases.facts_of(r, support_cases.FACTS, support_cases.ITEMS, 100)
            text = " ".join(support_cases.shuffled(r, facts, support_cases.FILLER, 60)).split()
            at = r.randint(0, len(text) - words) if len(text) > words else 0
            cases.append({
                "id": f"{seed}/{i}/{words}", "suite": "cutoff", "kind": str(words), "answer": "",
                "messages": lambda t=" ".join(text[at:at + words]): [{"role": "user", "content": t}],
                "right": lambda said: True,
            })
    return cases
