#!/usr/bin/env python3
"""Does the promise of `tamp calibrate` hold on measured answers?

Takes the answers of frontier.py as the whole world: how often a plan agrees in it is known.
Draws calibrations from it (with replacement), keeps a plan by the rule of docs/calibration.md
and counts how often one was kept that agrees less than promised. At most one of 20 may.

    bench/quality/resamples.py build/frontier.jsonl --suite photos --target 0.9 \\
        --ladder "tome ratio=2,tome ratio=4,tome ratio=8,tome ratio=16"
"""

import argparse
import pathlib
import random
import sys

import lib

ALPHA = 0.05


def agreement_of(entries: list[dict], suite: str, plan: str) -> dict[str, bool]:
    """case -> answered by the plan as without compression."""
    full = {e["case"]: e["reply"]["text"] for e in entries if e["suite"] == suite and e["plan"] == "off"}
    return {e["case"]: e["reply"]["text"] == full[e["case"]] for e in entries
            if e["suite"] == suite and e["plan"] == plan and e["case"] in full}


def holds(agree: list[bool], target: float) -> bool:
    return lib.lower_bound(sum(agree), len(agree), ALPHA) >= target


def kept_plan(table: list[list[bool]], target: float, n: int, r: random.Random) -> int:
    """One calibration with n requests a half: the step that is kept, -1 if none."""
    halves = [[r.randrange(len(table[0])) for _ in range(n)] for _ in range(2)]
    chosen = -1
    for step, agree in enumerate(table):
        if not holds([agree[i] for i in halves[0]], target):
            break
        chosen = step
    while chosen >= 0 and not holds([table[chosen][i] for i in halves[1]], target):
        chosen -= 1
    return chosen


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("answers", type=pathlib.Path, nargs="+")
    p.add_argument("--suite", default="photos")
    p.add_argument("--ladder", default="tome ratio=2,tome ratio=4,tome ratio=8,tome ratio=16")
    p.add_argument("--target", type=float, default=0.9)
    p.add_argument("--requests", type=int, default=300, help="in a half")
    p.add_argument("--resamples", type=int, default=20)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    entries = [e for path in a.answers for e in lib.read_lines(path)]
    ladder = a.ladder.split(",")
    agree = [agreement_of(entries, a.suite, plan) for plan in ladder]
    cases = sorted(set.intersection(*(set(x) for x in agree)))
    if not cases:
        print(f"no case of {a.suite} was asked under all of these plans", file=sys.stderr)
        return 2
    table = [[x[c] for c in cases] for x in agree]
    truth = [sum(x) / len(x) for x in table]
    print(f"{len(cases)} measured requests; " + ", ".join(f"{n}: {t:.3f}" for n, t in zip(ladder, truth)))
    r = random.Random(a.seed)
    kept = [kept_plan(table, a.target, a.requests, r) for _ in range(a.resamples)]
    broken = sum(k >= 0 and truth[k] < a.target for k in kept)
    print("kept: " + ", ".join(f"{n} {kept.count(i)}x" for i, n in [*enumerate(ladder), (-1, "none")]))
    print(f"the promise of {a.target:g} held in {a.resamples - broken} of {a.resamples} calibrations")
    return 1 if broken > a.resamples // 20 else 0


if __name__ == "__main__":
    sys.exit(main())
