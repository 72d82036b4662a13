#!/usr/bin/env python3
"""Does a compressed support chat still give the exact answer?

Generates support chats (support_cases.py), asks a running tamp each of them uncompressed,
and those it answers right again under every plan. Reported per plan: how many of the right
answers stay right (and how many wrong ones become right, with McNemar's exact test), how
many greedy tokens agree from the start, rows at each stage, mean rows per layer. Answers go
to a JSON-lines file; the same command goes on where it was stopped. Needs only the
standard library.

    bench/quality/support.py --url http://127.0.0.1:8080 --seed 1 --count 100 \\
        --plans off,cosine-1.5,query-2 --out build/support.jsonl
"""

import argparse
import collections
import concurrent.futures
import json
import pathlib
import sys

import lib
import support_cases

BASE = {"profile": "customer_service", "image": "off", "text": "off"}


def lm(method, **options):
    return BASE | {"lm": {"method": method} | options}


PLANS = {"off": "off"}
for cut in (7, 14, 19):
    PLANS[f"slerp-{cut}"] = lm("slerp", cutoff=cut)
    for rate in (1.5, 2, 3):
        PLANS[f"cosine-{cut}-{rate}"] = lm("cosine", cutoff=cut, ratio=rate, max_group=16)
        PLANS[f"concept-{cut}-{rate}"] = lm("concept", cutoff=cut, ratio=rate)
for cut in (4, 6, 8, 10, 12):
    for rate in (1.5, 2, 3, 4, 6):
        PLANS[f"query-{cut}-{rate}"] = lm("query", cutoff=cut, ratio=rate)


def ask(url, case, plan, max_tokens):
    body = {"model": "default", "temperature": 0, "max_tokens": max_tokens, "logprobs": True,
            "messages": case["messages"], "compression": plan}
    answer = lib.post(url + "/v1/chat/completions", body)
    choice = answer["choices"][0]
    usage = answer["usage"]["compression"]
    stages = {m: [usage[m]["rows_in"], usage[m]["rows_out"]]
              for m in ("text", "lm") if usage.get(m)}
    return {"text": choice["message"]["content"],
            "tokens": [t["token"] for t in choice["logprobs"]["content"]],
            "original": usage["original_tokens"], "mean": usage["mean_rows_per_layer"],
            "stages": stages, "skipped": usage["skipped"],
            "compress_ms": answer["timings"]["compress_ms"],
            "prompt_ms": answer["timings"]["prompt_ms"],
            "first_token_ms": answer["timings"]["first_token_ms"]}


def known_or_asked(answers, url, case, name, plan, max_tokens):
    key = lib.Answers.key(case["id"], case["messages"], plan, max_tokens)
    about = {"case": case["id"], "kind": case["kind"], "plan": name, "answer": case["answer"]}
    return answers.get(key, about, lambda: ask(url, case, plan, max_tokens))


def ask_all(a, answers, cases, name):
    """Replies in the order of the cases; as many at a time as there are clients."""
    plan = a.plan[name]
    with concurrent.futures.ThreadPoolExecutor(a.clients) as pool:
        jobs = [pool.submit(known_or_asked, answers, a.url, c, name, plan, a.max_tokens) for c in cases]
        for i, _ in enumerate(concurrent.futures.as_completed(jobs)):
            lib.progress(name, i + 1, len(jobs))
        return [j.result() for j in jobs]


def right(case, reply):
    return lib.stands_in(case["answer"], reply["text"])


def row_of(name, cases, full, replies):
    was = [right(c, r) for c, r in zip(cases, full)]
    now = [right(c, r) for c, r in zip(cases, replies)]
    both = sum(w and n for w, n in zip(was, now))
    lost, won = sum(was) - both, sum(now) - both
    kept = [(f, r) for w, f, r in zip(was, full, replies) if w]
    n = max(len(kept), 1)
    stages = collections.Counter()
    for _, r in kept:
        for slot, (before, after) in r["stages"].items():
            stages[slot, "in"] += before
            stages[slot, "out"] += after
    return {
        "plan": name, "right": sum(was), "kept": both, "lost": lost, "won": won,
        "bound": lib.lower_bound(both, sum(was)), "p": lib.mcnemar(lost, won),
        "agree": sum(lib.agreement(f["tokens"], r["tokens"]) for f, r in kept) / n,
        "fewer": 1 - sum(r["mean"] for _, r in kept) / max(sum(f["mean"] for f, _ in kept), 1),
        "stages": " ".join(f"{s} {stages[s, 'in'] / n:.0f}>{stages[s, 'out'] / n:.0f}"
                           for s in ("text", "lm") if stages[s, "in"]),
        "compressor": sum(r["compress_ms"] for _, r in kept)
        / max(sum(r["prompt_ms"] for _, r in kept), 1e-9),
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--url", default="http://127.0.0.1:8080")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--count", type=int, default=100, help="cases before asking which are right")
    p.add_argument("--scale", type=int, default=1, help="length of the policy, 1 to 10")
    p.add_argument("--kinds", default=",".join(support_cases.KINDS))
    p.add_argument("--plans", default="off,slerp-14,cosine-14-1.5,concept-14-1.5,query-6-2",
                   help="comma-separated names; --list prints them")
    p.add_argument("--plan", action="append", default=[], metavar="NAME=JSON",
                   help="one more plan: the `compression` field of the request")
    p.add_argument("--clients", type=int, default=4, help="requests at the same time")
    p.add_argument("--max-tokens", type=int, default=24)
    p.add_argument("--all", action="store_true", help="also cases answered wrong uncompressed")
    p.add_argument("--out", type=pathlib.Path, help="JSON lines; goes on with what is there")
    p.add_argument("--list", action="store_true", help="print the plans and stop")
    a = p.parse_args()
    extra = dict(x.split("=", 1) for x in a.plan)
    a.plan = PLANS | {k: json.loads(v) for k, v in extra.items()}
    if a.list:
        for name, plan in a.plan.items():
            print(name, json.dumps(plan))
        return 0
    names = [x for x in a.plans.split(",") if x] + list(extra)
    unknown = [x for x in names if x not in a.plan]
    if unknown:
        print(f"no plan {unknown[0]}: --list prints them", file=sys.stderr)
        return 2
    kinds = a.kinds.split(",")
    cases = [support_cases.case(a.seed, i, a.scale) for i in range(a.count)]
    cases = [c for c in cases if c["kind"] in kinds]
    answers = lib.Answers(a.out)
    full = ask_all(a, answers, cases, "off")
    by_kind = collections.Counter(c["kind"] for c in cases)
    good = collections.Counter(c["kind"] for c, r in zip(cases, full) if right(c, r))
    print("right uncompressed: "
          + ", ".join(f"{k} {good[k]}/{n}" for k, n in sorted(by_kind.items())))
    if not a.all:
        pairs = [(c, r) for c, r in zip(cases, full) if right(c, r)]
        cases, full = [c for c, _ in pairs], [r for _, r in pairs]
    print(f"{len(cases)} cases of seed {a.seed}, "
          f"{sum(r['original'] for r in full) / max(len(full), 1):.0f} rows on average")
    print("| plan | fewer rows | kept | at least (95 %) | lost, won | McNemar p | tokens agree "
          "| rows | compressor |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        r = row_of(name, cases, full, ask_all(a, answers, cases, name))
        print(f"| {name} | {r['fewer']:.1%} | {r['kept']}/{r['right']} = "
              f"{r['kept'] / max(r['right'], 1):.3f} | {r['bound']:.3f} | {r['lost']}, {r['won']} "
              f"| {r['p']:.2f} | {r['agree']:.3f} | {r['stages']} | {r['compressor']:.1%} |",
              flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
