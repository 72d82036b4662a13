#!/usr/bin/env python3
"""How often is the answer to a product photo right, under each compression plan?

Asks a running tamp (or any OpenAI-compatible server) one question about every N-th
labelled photo. "exact" counts the answers that are word for word the expected one,
"kind" those that name the right kind somewhere ("This is gala (apple)." for an apple).
Greedy, so a second run gives the same table. Needs only the standard library.

    bench/quality/photos.py --data ../shared/data/products --url http://127.0.0.1:8080
"""

import argparse
import json
import pathlib
import sys
import time

import lib
from cases import QUESTIONS

PLANS = {
    "off": "off",
    "tome 2x": {"image": {"method": "tome", "ratio": 2}},
    "tome 4x": {"image": {"method": "tome", "ratio": 4}},
    "tome 8x": {"image": {"method": "tome", "ratio": 8}},
    "tome 16x": {"image": {"method": "tome", "ratio": 16}},
}


def share(right: int, n: int) -> str:
    low, high = lib.wilson(right, n)
    return f"{right} = {right / n:.2f} ({low:.2f}-{high:.2f})"


def ask(url: str, picture: bytes, question: str, plan: object, key: str | None) -> tuple[str, dict]:
    body = {
        "model": "default",
        "temperature": 0,
        "max_tokens": 24,
        "messages": [{"role": "user", "content": [lib.picture_part(picture), lib.text_part(question)]}],
    }
    if plan is not None:
        body["compression"] = plan
    answer = lib.post(url + "/v1/chat/completions", body, key)
    return answer["choices"][0]["message"]["content"], answer


def spaced(photos: list[dict], count: int) -> list[dict]:
    count = min(count, len(photos))
    return [photos[i * len(photos) // count] for i in range(count)]


def choose(labels: list[dict], split: str, count: int, equal_sets: bool) -> list[dict]:
    """Evenly spaced over the list, so that every set and class has its share; or the same
    number of each set."""
    photos = [x for x in labels if x["split"] == split]
    if not equal_sets:
        return spaced(photos, count)
    names = sorted({x["set"] for x in photos})
    return [x for name in names for x in spaced([p for p in photos if p["set"] == name], count // len(names))]


def named_plan(text: str) -> tuple[str, object]:
    name, equals, plan = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=JSON")
    try:
        return name, json.loads(plan)
    except json.JSONDecodeError as e:
        raise argparse.ArgumentTypeError(f"{name}: {e}") from e


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", type=pathlib.Path, required=True, help="folder with labels.json")
    p.add_argument("--url", default="http://127.0.0.1:8080")
    p.add_argument("--split", default="val")
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--equal-sets", action="store_true", help="as many photos of each set")
    p.add_argument("--question", choices=sorted(QUESTIONS), default="kind")
    p.add_argument("--plans", help="comma-separated: " + ", ".join(PLANS))
    p.add_argument(
        "--plan",
        action="append",
        type=named_plan,
        default=[],
        metavar="NAME=JSON",
        help="another plan, as the request's compression field takes it; may be repeated.\n"
        "With it, only plans that are named are asked",
    )
    p.add_argument("--peer", action="store_true", help="send no compression field")
    p.add_argument("--key", help="API key")
    p.add_argument("--json", type=pathlib.Path, help="write the single answers here")
    a = p.parse_args()
    labels_file = a.data / "labels.json"
    if not labels_file.exists():
        print(f"{labels_file} is missing: --data must name the folder of the product photos")
        return 2
    photos = choose(json.loads(labels_file.read_text()), a.split, a.count, a.equal_sets)
    question, expected = QUESTIONS[a.question]
    if a.plans is None:
        a.plans = "" if a.plan else ",".join(PLANS)
    plans = {k: PLANS[k] for k in a.plans.split(",") if k} | dict(a.plan)
    if a.peer:
        plans = {"peer": None}
    exact = {k: 0 for k in plans}
    kind = {k: 0 for k in plans}
    rows = {k: 0 for k in plans}
    ms = {k: [] for k in plans}
    record = []
    progress = sys.stderr.isatty()
    for i, photo in enumerate(photos):
        picture = (a.data / photo["file"]).read_bytes()
        want = expected.format(**photo)
        for name, plan in plans.items():
            begin = time.monotonic()
            text, answer = ask(a.url, picture, question, plan, a.key)
            ms[name].append((time.monotonic() - begin) * 1e3)
            exact[name] += text.strip() == want
            kind[name] += photo["kind"].lower() in text.lower()
            rows[name] += answer["usage"]["prompt_tokens"]
            record.append({"file": photo["file"], "plan": name, "want": want, "got": text})
        if progress:
            print(f"\r{i + 1}/{len(photos)}", end="", file=sys.stderr)
    if progress:
        print(file=sys.stderr)
    print(f"{len(photos)} photos of {a.split}, \"{question}\"")
    print("| plan | exact (95 %) | kind (95 %) | prompt rows | median ms |")
    print("|---|---|---|---|---|")
    for name in plans:
        times = sorted(ms[name])
        print(
            f"| {name} | {share(exact[name], len(photos))} | {share(kind[name], len(photos))} "
            f"| {rows[name] / len(photos):.0f} | {times[len(times) // 2]:.0f} |"
        )
    if a.json:
        a.json.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
