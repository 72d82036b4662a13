#!/usr/bin/env python3
"""Accuracy kept against cost, for every method at every rate.

Starts a tamp of its own (with one thread, processor seconds are work and not waiting),
asks it the questions of cases.py under every plan, and appends each answer to a JSON-lines
file. The same command goes on where it was stopped; Ctrl-C loses nothing. Tables, charts
and docs/results.md are made of the file by page.py. Methods come from `tamp help
--methods`. Needs only the standard library.

    bench/quality/frontier.py --data ../shared/data/products --out build/frontier.jsonl
    bench/quality/frontier.py ... --suites photos,ten --until 15:30 --shard 0/2

Times to the first token need a quiet machine and all its threads:

    bench/quality/frontier.py --data ../shared/data/products --out build/times.jsonl --threads 0 \\
        --suites photos,ten,support,long --counts photos=20,ten=5,support=20,long=5
"""

import argparse
import contextlib
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import cases
import lib
import programs

ROOT = pathlib.Path(__file__).resolve().parents[2]
RATIOS = (2, 4, 8, 16)
# So many cases of a suite are asked without any cache, and what they cost is noted. Later
# ones only count for the answers, and may find a picture's rows in the cache.
COSTED = {"photos": 60, "ten": 12, "support": 60, "long": 20, "cutoff": 10**6}
SEEDS = range(1, 6)
# Choices besides the default one that are worth a line of their own.
CHOICES = {
    "prune": [{"score": "diversity"}, {"dropped": "discard"}, {"score": "diversity", "dropped": "discard"}],
    "tome": [{"counts": "adaptive"}],
    "cascade": [{"tokens": 4}],  # the first ones are "It is a", whatever the picture shows
}
PROFILES = ("balanced", "product_search", "customer_service")
# In front of the chats' plans: all text may merge but the question.
OPEN = {"profile": "customer_service", "image": "off", "text": "off"}
# A profile of the table of llm_slerp_generation: nothing is protected but the template's own tokens.
CONFIG = """profiles:
  - name: bare
    from: "off"
    set: "protect_system=false,protect_tail=0,min_text_rows=0"
"""


def words(method: str, options: dict[str, Any]) -> str:
    return " ".join([method, *(f"{k}={v}" for k, v in options.items())])


def picture_plans(methods: dict[str, Any]) -> dict[str, lib.Plan]:
    """Every method for pictures at every rate that it takes."""
    plans: dict[str, lib.Plan] = {}
    for name, m in methods.items():
        if "image" not in m["slots"] or name == "off":
            continue
        if name == "random":
            steps = [{"ratio": r, "seed": s} for r in RATIOS[1:] for s in SEEDS]
        elif "ratio" in m["options"]:
            steps = [{"ratio": r} for r in RATIOS]
            steps += [c | {"ratio": r} for c in CHOICES.get(name, []) for r in (4, 8, 16)
                      if set(c) <= set(m["options"])]
        elif "threshold" in m["options"]:
            steps = [{"threshold": t} for t in (0.99, 0.95, 0.9, 0.8)]
        else:
            steps = [{}]
        for options in steps:
            plans[words(name, options)] = {"profile": "off", "image": {"method": name} | options}
    return plans


def text_plans(methods: dict[str, Any], cutoffs: tuple[int, ...], ratios: tuple[float, ...]) -> dict[str, lib.Plan]:
    """Every method inside the decoder by cutoff and rate, and of those for embedded text one
    rate."""
    plans: dict[str, lib.Plan] = {}
    for name, m in methods.items():
        takes = m["options"]
        if "lm" in m["slots"] and "cutoff" in takes:
            for cut in cutoffs:
                for ratio in ratios if "ratio" in takes else (0,):
                    options = {"ratio": ratio} | ({"cutoff": cut}) if ratio else {"cutoff": cut}
                    plans[words("lm " + name, options)] = OPEN | {"lm": {"method": name} | options}
        if "text" in m["slots"] and "ratio" in takes:
            plans[words("text " + name, {"ratio": 1.5})] = OPEN | {"text": {"method": name, "ratio": 1.5}}
    return plans


def suites(a: argparse.Namespace, methods: dict[str, Any]) -> dict[str, tuple[list[Any], dict[str, lib.Plan]]]:
    """suite -> its cases and its plans; "off" is always asked first."""
    profiles = {f"profile {p}": p for p in a.profiles.split(",") if p}
    if "guard" in methods:
        profiles |= {f"{name} + guard{words('', g)}": {"profile": p, "guard": {"on": True} | g}
                     for name, p in profiles.items() for g in ({}, {"tokens": 4})}
    photos = picture_plans(methods)
    few = {k: v for k, v in photos.items()
           if re.fullmatch(r"(tome|pool|downscale|prune|cascade|stride) ratio=(4|8|16)|dedup threshold=0.9|random ratio=8 seed=1",
                           k)}
    both = {f"{name} + lm query ratio=2 cutoff=6":
            OPEN | {"image": photos[name]["image"], "lm": {"method": "query", "cutoff": 6, "ratio": 2}}
            for name in ("tome ratio=8", "pool ratio=16") if name in photos}
    cut = {words("lm slerp", {"cutoff": c} | more): {"profile": "bare", "lm": {"method": "slerp", "cutoff": c} | more}
           for c in (2, 4, 8, 12, 16, 20, 24, 28)
           for more in ({}, *([{"compat": True, "positions": "renumbered"}] if c % 8 == 4 else []))}
    made = {
        "photos": (cases.photo_cases(a.data, a.split, a.seed), profiles | photos),
        "ten": (cases.ten_cases(a.data, a.split, a.seed), profiles | few | both),
        "support": (cases.chat_cases("support", a.seed, 1, 1000), profiles | text_plans(methods, (6, 14, 20), (1.5, 2, 3))),
        "long": (cases.chat_cases("long", a.seed, 6, 300), text_plans(methods, (6, 14), (2,))),
        "cutoff": (cases.cutoff_cases(a.seed, 100), cut),
    }
    counts = dict(part.split("=") for part in a.counts.split(",")) if a.counts else {}
    return {name: (made[name][0][: int(counts.get(name, 10**6))], {"off": "off"} | made[name][1])
            for name in a.suites.split(",")}


def commit() -> str:
    got = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return got.stdout.strip() or "unknown"


@contextlib.contextmanager
def server(a: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """(url, pid) of a tamp of our own."""
    port = programs.free_port()
    log = a.out.with_suffix(f".{port}.log")
    config = a.out.with_suffix(f".{port}.yaml")
    config.write_text(CONFIG)
    command = [str(a.tamp), "serve", "--port", str(port), "--threads", str(a.threads), "--parallel", "1", "--baselines",
               "--config", str(config), "--log-level", "warn", *a.serve]
    try:
        with programs.serving(command, port, log) as s:
            yield f"http://127.0.0.1:{port}", s.process.pid
    finally:
        config.unlink()
        if log.exists() and log.stat().st_size == 0:
            log.unlink()


def measure(a: argparse.Namespace, url: str, pid: int) -> None:
    """Case by case under all plans, the suites in turn, so that whatever is there when it
    stops is a fair sample of all."""
    methods = lib.methods_of(a.tamp)
    answers = lib.Answers(a.out)
    about = {"commit": a.commit or commit(), "model": a.model_note}
    number, of = map(int, a.shard.split("/"))
    work = suites(a, methods)
    total = max(len(c) for c, _ in work.values())
    for i in range(total):
        for suite, (listed, plans) in work.items():
            for n in range(i * len(listed) // total, (i + 1) * len(listed) // total):
                if n % of == number and not ask_case(a, url, pid, answers, about, suite, n, listed[n], plans):
                    return
        lib.progress("case", i + 1, total)


def ask_case(a: argparse.Namespace, url: str, pid: int, answers: lib.Answers, about: dict[str, Any], suite: str,
             number: int, case: dict[str, Any], plans: dict[str, lib.Plan]) -> bool:
    """One case under every plan; False when the time is over."""
    messages = None
    costed = pid if number < COSTED[suite] else None
    for name, plan in plans.items():
        if a.until and time.strftime("%H:%M") >= a.until:
            return False
        key = lib.Answers.key(suite, case["id"], plan, a.label)
        if key in answers.known or (a.only and name != "off" and not re.search(a.only, name)):
            continue
        messages = messages or case["messages"]()
        answers.get(key, about | {"suite": suite, "kind": case["kind"], "case": case["id"], "plan": name,
                                  "answer": case["answer"], "label": a.label},
                    lambda m=messages, p=plan: lib.ask(url, m, p, 1 if suite == "cutoff" else 24, costed))
    return True


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", type=pathlib.Path, required=True, help="folder with labels.json")
    p.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "frontier.jsonl")
    p.add_argument("--tamp", type=pathlib.Path, default=ROOT / "build" / "gcc" / "tamp")
    p.add_argument("--suites", default="photos,ten,support,long,cutoff")
    p.add_argument("--counts", default="", help="at most so many cases of a suite: photos=300,ten=60")
    p.add_argument("--split", default="val")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--profiles", default=",".join(PROFILES))
    p.add_argument("--only", metavar="REGEX", help="only plans whose name matches, and off")
    p.add_argument("--label", default="", help="asks again what was asked under another label: after a change of a method")
    p.add_argument("--shard", default="0/1", metavar="I/N", help="every N-th case, beginning with the I-th")
    p.add_argument("--until", metavar="HH:MM", help="stop at this time of day")
    p.add_argument("--commit", help="what to note as the commit; the working tree's otherwise")
    p.add_argument("--model-note", default="", help="what to note about the model files")
    p.add_argument("--threads", type=int, default=1, help="of the server; more than one for times on a quiet machine")
    p.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="flags for the server; the last of ours")
    a = p.parse_args()
    a.out.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the server, too
    try:
        with server(a) as (url, pid):
            measure(a, url, pid)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
