#!/usr/bin/env python3
"""Tables and charts of what frontier.py measured: one HTML page, and docs/results.md.

    bench/quality/page.py build/frontier.jsonl --html build/frontier.html
    bench/quality/page.py build/frontier.jsonl --times build/times.jsonl --docs docs

Accuracy and processor seconds come from the answers, first-token times only from a file
that was measured on a quiet machine (--times). Needs only the standard library.
"""

import argparse
import collections
import html
import pathlib
import re
import statistics
import sys
from dataclasses import dataclass, field
from typing import Any

import lib

Entry = dict[str, Any]
# The image plans of the shipped profiles, and what every method must beat.
DEFAULTS = ("tome ratio=4", "tome ratio=8", "tome ratio=2")
BASELINES = ("pool ratio=4", "pool ratio=8", "pool ratio=16", "downscale ratio=4", "downscale ratio=8", "random ratio=8 seed=1",
             "stride ratio=8")


@dataclass
class Row:
    """One plan of one suite, against no compression on the same cases."""

    plan: str
    n: int
    was: int  # right without compression
    now: int
    lost: int
    won: int
    equal: float  # share of answers that are the same text
    agree: float  # share of tokens until the first that differs
    kl: float
    rows: float  # mean rows a layer, against no compression
    cpu: tuple[float, float, float]  # ratio and its 95 % interval
    cpu_s: float
    compress: float  # share of the time to the first token
    stages: str
    guard: int
    first_ms: float | None = None
    kinds: dict[str, tuple[int, int, int]] = field(default_factory=dict)  # kind -> n, was, now

    @property
    def kept(self) -> float:
        return self.now / self.was if self.was else float("nan")

    @property
    def still(self) -> float:
        """Of those right without compression, how many still are."""
        return (self.was - self.lost) / self.was if self.was else float("nan")


def is_right(e: Entry) -> bool:
    said = e["reply"]["text"]
    return said.strip() == e["answer"] if e["suite"] == "photos" else lib.stands_in(e["answer"], said)


def group_name(e: Entry) -> str:
    """Seeds of the lot are one row; another label (another kernel, another file) is another."""
    name = re.sub(r" seed=\d+", "", e["plan"])
    return f"{name} ({e['label']})" if e.get("label") else name


def tabulate(entries: list[Entry], times: list[Entry]) -> dict[str, dict[str, Row]]:
    """suite -> plan -> row; a plan's row has the cases that were also asked uncompressed."""
    plain = [e for e in entries if e["plan"] == "off" and not e.get("label")]
    full = {(e["suite"], e["case"], None): e for e in plain} | {(e["suite"], e["case"], e["commit"]): e for e in plain}
    by: dict[str, dict[str, list[Entry]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    seen = set()
    for e in entries:
        name = group_name(e)
        what = (e["suite"], e["case"], e["plan"], name)
        if (e["suite"], e["case"], None) in full and what not in seen:
            by[e["suite"]][name].append(e)
            seen.add(what)
    timed: dict[tuple[str, str], list[Entry]] = collections.defaultdict(list)
    for e in times:
        timed[e["suite"], group_name(e)].append(e)

    def base(e: Entry) -> Entry:
        """Uncompressed, by the same program if it was asked."""
        return full.get((e["suite"], e["case"], e["commit"])) or full[e["suite"], e["case"], None]

    return {suite: {plan: row_of(plan, [(base(e), e) for e in listed], timed[suite, plan])
                    for plan, listed in plans.items()} for suite, plans in by.items()}


def row_of(plan: str, pairs: list[tuple[Entry, Entry]], timed: list[Entry]) -> Row:
    was = [is_right(f) for f, _ in pairs]
    now = [is_right(e) for _, e in pairs]
    kinds: dict[str, tuple[int, int, int]] = {}
    for (f, _), a, b in zip(pairs, was, now):
        n, x, y = kinds.get(f["kind"], (0, 0, 0))
        kinds[f["kind"]] = (n + 1, x + a, y + b)
    replies = [(f["reply"], e["reply"]) for f, e in pairs]
    costs = [(f["cost"], e["cost"]) for f, e in replies if "cost" in f and "cost" in e]
    spent = [e["cost"] for e in (t["reply"] for t in timed) if "cost" in e]
    firsts = [c["first_token_ms"] for c in spent]
    shares = spent or [c for _, c in costs]
    return Row(
        plan=plan, n=len(pairs), was=sum(was), now=sum(now),
        lost=sum(a and not b for a, b in zip(was, now)), won=sum(b and not a for a, b in zip(was, now)),
        equal=lib.mean(f["text"] == e["text"] for f, e in replies),
        agree=lib.mean(lib.agreement(f["tokens"], e["tokens"]) for f, e in replies),
        kl=lib.mean(lib.divergence(f["first"], e["first"]) for f, e in replies),
        rows=sum(e["mean"] for _, e in replies) / max(sum(f["mean"] for f, _ in replies), 1e-9),
        cpu=lib.paired_ratio([e["cpu_s"] for _, e in costs], [f["cpu_s"] for f, _ in costs]),
        cpu_s=lib.mean(e["cpu_s"] for _, e in costs),
        compress=sum(c["compress_ms"] for c in shares) / max(sum(c["prompt_ms"] + c["vision_ms"] for c in shares), 1e-9),
        stages=stages_of([e for _, e in replies]),
        guard=sum((e.get("guard") or {}).get("redone", 0) > 0 for _, e in replies),
        first_ms=statistics.median(firsts) if firsts else None, kinds=kinds)


def stages_of(replies: list[Entry]) -> str:
    """"image 256>64, lm 299>150", mean rows into and out of each stage that did something."""
    parts = []
    for slot in ("image", "text", "lm"):
        both = [r["stages"][slot] for r in replies if slot in r["stages"]]
        before, after = lib.mean(b[1] for b in both), lib.mean(b[2] for b in both)
        if both and before - after > 0.5:
            parts.append(f"{slot} {before:.0f}>{after:.0f}")
    return ", ".join(parts)


# -- tables ------------------------------------------------------------------------------------


def percent(x: float) -> str:
    return "" if x != x else f"{100 * x:.1f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(r) + " |" for r in rows)]) + "\n"


def as_html(markdown: str) -> str:
    """Tables and paragraphs of ours, nothing more of Markdown."""
    out = []
    for block in markdown.strip().split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            cells = [[html.escape(c.strip()) for c in line.strip("|").split("|")] for line in lines if "|---" not in line]
            out.append("<table>" + "".join("<tr>" + "".join(f"<td>{c}</td>" for c in r) + "</tr>" for r in cells) + "</table>")
        else:
            out.append(f"<p>{html.escape(block)}</p>")
    return "".join(out)


def main_table(rows: dict[str, Row]) -> str:
    timed = any(r.first_ms is not None for r in rows.values())
    guard = any(r.guard for r in rows.values())
    rows = {k: r for k, r in rows.items() if r.n >= min(24, rows["off"].n // 3)}
    head = ["plan", "cases", "right", "kept %", "still right %, at least", "lost, won", "p", "same answer %", "tokens agree %",
            "KL", "rows %", "processor % (95 %)", "compressor %", *(["first token ms"] if timed else []),
            *(["redone"] if guard else []), "rows in > out"]
    body = []
    for r in sorted(rows.values(), key=lambda r: (r.plan != "off", method_of(r.plan), -r.rows)):
        off = r.plan == "off"
        still = "" if off or not r.was else f"{percent(r.still)}, {percent(lib.lower_bound(r.was - r.lost, r.was))}"
        cpu = "" if r.cpu[0] != r.cpu[0] else "100" if off else f"{100 * r.cpu[0]:.0f} ({100 * r.cpu[1]:.0f}-{100 * r.cpu[2]:.0f})"
        body.append([r.plan, str(r.n), f"{r.was} > {r.now}" if not off else str(r.was), "" if off else percent(r.kept), still,
                     "" if off else f"{r.lost}, {r.won}", "" if off else f"{lib.mcnemar(r.lost, r.won):.2g}",
                     "" if off else percent(r.equal), "" if off else percent(r.agree), "" if off else f"{r.kl:.3f}",
                     percent(r.rows), cpu, percent(r.compress),
                     *([f"{r.first_ms:.0f}" if r.first_ms is not None else ""] if timed else []),
                     *([str(r.guard)] if guard else []), r.stages])
    return table(head, body)


def duels(entries: list[Entry], suite: str) -> str:
    """The default against what usually wins: both asked the same cases."""
    by: dict[str, dict[str, Entry]] = collections.defaultdict(dict)
    for e in entries:
        if e["suite"] == suite and not e.get("label"):
            by[e["plan"]][e["case"]] = e
    body = []
    for ours in DEFAULTS:
        for other in BASELINES:
            cases = sorted(set(by[ours]) & set(by[other]) & set(by["off"]))
            if len(cases) < 20:
                continue
            triples = [(by["off"][c], by[ours][c], by[other][c]) for c in cases]
            right = [(is_right(a), is_right(b)) for _, a, b in triples]
            same = [(a["reply"]["text"] == f["reply"]["text"], b["reply"]["text"] == f["reply"]["text"]) for f, a, b in triples]
            costs = [(a["reply"]["cost"]["cpu_s"], b["reply"]["cost"]["cpu_s"]) for _, a, b in triples
                     if "cost" in a["reply"] and "cost" in b["reply"]]
            cpu = lib.paired_ratio([a for a, _ in costs], [b for _, b in costs])
            line = [f"{ours} : {other}", str(len(cases))]
            for pairs in (right, same):
                only = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
                line += [f"{sum(a for a, _ in pairs)} : {sum(b for _, b in pairs)}", f"{lib.mcnemar(*only):.2g}"]
            body.append([*line, f"{100 * cpu[0]:.0f} ({100 * cpu[1]:.0f}-{100 * cpu[2]:.0f})"])
    return table(["default : baseline", "cases", "right", "p", "same answer as uncompressed", "p", "processor, % of the baseline"],
                 body) if body else ""


def kinds_table(rows: dict[str, Row], plans: list[str]) -> str:
    kinds = sorted({k for r in rows.values() for k in r.kinds})
    body = []
    for plan in plans:
        if plan in rows:
            r = rows[plan]
            body.append([plan, *(f"{r.kinds[k][1]} > {r.kinds[k][2]} of {r.kinds[k][0]}" if k in r.kinds else "" for k in kinds)])
    return table(["plan", *kinds], body)


def method_of(plan: str) -> str:
    """"tome", "prune diversity": the series that a plan belongs to."""
    words = [w for w in plan.split() if not re.match(r"(ratio|rows|threshold|cutoff)=", w)]
    return " ".join(w.split("=")[-1] if "=" in w else w for w in words)


def cutoff_tables(entries: list[Entry]) -> str:
    """That of llm_slerp_generation: agreement of the next token by cutoff and length, and cost by cutoff."""
    full = {e["case"]: e for e in entries if e["suite"] == "cutoff" and e["plan"] == "off"}
    cells: dict[tuple[str, int], list[tuple[Entry, Entry]]] = collections.defaultdict(list)
    for e in entries:
        if e["suite"] == "cutoff" and e["plan"] != "off" and e["case"] in full:
            cells[e["plan"], int(e["kind"])].append((full[e["case"]]["reply"], e["reply"]))
    lengths = sorted({n for _, n in cells})
    plans = sorted({p for p, _ in cells}, key=lambda p: ("compat" in p, int(re.search(r"cutoff=(\d+)", p)[1])))  # type: ignore[index]

    def rows_of(value: Any) -> list[list[str]]:
        return [[p.replace("lm slerp ", ""), *(value(cells[p, n]) if cells.get((p, n)) else "" for n in lengths)] for p in plans]

    def rows_in(n: int) -> str:
        originals = [f["original"] for p in plans for f, _ in cells.get((p, n), [])]
        return f"{lib.mean(originals):.0f} rows" if originals else ""

    head = ["cutoff", *map(rows_in, lengths)]
    top1 = rows_of(lambda c: f"{lib.mean(f['tokens'] == e['tokens'] for f, e in c):.2f} ({len(c)})")
    top5 = rows_of(lambda c: f"{lib.mean(f['tokens'][:1] <= [t for t, _ in e['first'][:5]] and (f['tokens'] or [''])[0] in [t for t, _ in e['first'][:5]] for f, e in c):.2f}")
    cpu = rows_of(lambda c: f"{sum(e['cost']['cpu_s'] for _, e in c) / sum(f['cost']['cpu_s'] for f, _ in c):.2f}")
    return ("Next token as without merging (texts):\n\n" + table(head, top1) + "\nThe unmerged model's token among the five likeliest:\n\n"
            + table(head, top5) + "\nProcessor time of the prompt, against no merging:\n\n" + table(head, cpu))


# -- charts --------------------------------------------------------------------------------------


def chart(title: str, rows: dict[str, Row], x: str) -> str:
    """Accuracy kept over processor time, or over rows, or over first-token time."""
    series: dict[str, list[tuple[float, float, float, float]]] = collections.defaultdict(list)
    base = rows["off"].first_ms if "off" in rows else None
    for r in rows.values():
        if r.plan.startswith("off") or not r.was or r.plan.startswith("profile") or r.n < 0.5 * rows["off"].n:
            continue
        across = {"cpu": r.cpu[0], "rows": r.rows, "first": (r.first_ms or float("nan")) / base if base else float("nan")}[x]
        if across == across:
            spread = 1.96 * (r.lost + r.won) ** 0.5 / r.was
            series[method_of(r.plan)].append((100 * across, r.kept, r.kept - spread, r.kept + spread))
    name = {"cpu": "processor time, % of uncompressed", "rows": "rows a layer, % of uncompressed",
            "first": "time to the first token, % of uncompressed"}[x]
    return lib.frontier_chart(title, name, "right answers, against uncompressed (dashed: as many)", series, 1.0)


TITLES = {
    "photos": "One photo: what kind of product, which product",
    "ten": "Ten photos, a policy and a question",
    "support": "Support chats",
    "long": "Long support chats",
}
SLICES = {
    "photos": ["tome ratio=4", "tome ratio=8", "tome ratio=16", "pool ratio=4", "pool ratio=16", "downscale ratio=4",
               "prune ratio=8", "random ratio=8"],
    "ten": ["tome ratio=4", "tome ratio=8", "tome ratio=16", "pool ratio=16", "downscale ratio=16"],
}


def sections(entries: list[Entry], times: list[Entry]) -> list[tuple[str, str, str, dict[str, str]]]:
    """(suite, heading, Markdown, {file name: SVG})."""
    made = []
    tables = tabulate(entries, times)
    for suite, title in TITLES.items():
        rows = tables.get(suite)
        if not rows or "off" not in rows:
            continue
        text = f"{rows['off'].n} cases.\n\n" + main_table(rows)
        if len({k for r in rows.values() for k in r.kinds}) > 1:
            plans = SLICES.get(suite, [p for p in rows if p != "off" and rows[p].n >= 0.5 * rows["off"].n])
            text += "\nBy kind, right without and with compression:\n\n" + kinds_table(rows, plans)
        if duel := duels(entries, suite):
            text += "\nThe default against the baselines, on the same cases:\n\n" + duel
        kinds = ["cpu", "rows", *(["first"] if any(r.first_ms for r in rows.values()) else [])]
        charts = {f"frontier-{suite}-{x}.svg": chart(title, rows, x) for x in kinds if rows["off"].was}
        made.append((suite, title, text, charts))
    if any(e["suite"] == "cutoff" for e in entries):
        made.append(("cutoff", "SLERP by cutoff and length (the table of llm_slerp_generation)", cutoff_tables(entries), {}))
    return made


def machine() -> str:
    cpu = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    sets = [s for s in ("avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16") if s in flags]
    return f"{cpu[1] if cpu else 'unknown processor'} ({', '.join(sets)})"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("answers", type=pathlib.Path, nargs="+")
    p.add_argument("--times", type=pathlib.Path, action="append", default=[], help="answers of a quiet machine")
    p.add_argument("--html", type=pathlib.Path)
    p.add_argument("--docs", type=pathlib.Path, help="folder that gets results.md and images/frontier-*.svg")
    p.add_argument("--reading", type=pathlib.Path, default=pathlib.Path(__file__).with_name("reading.md"),
                   help="what people concluded, put in front of the tables")
    a = p.parse_args()
    entries = [e for path in a.answers for e in lib.read_lines(path)]
    times = [e for path in a.times for e in lib.read_lines(path)]
    made = sections(entries, times)
    if not made:
        print("nothing was measured yet", file=sys.stderr)
        return 2
    commits = ", ".join(sorted({e["commit"] for e in entries}))
    models = ", ".join(sorted({e["model"] for e in entries if e.get("model")}))
    about = (f"Machine: {machine()}. Commits: {commits}. Models: {models or 'the default ones'}. {len(entries)} answers.")
    legend = ("Each plan is compared with no compression on the same cases. right: right answers without > with it; kept: the "
              "second as a share of the first; still right: of those right without, how many are right with it, and the one-sided "
              "95 % bound of that; lost, won: right to wrong and back, p: McNemar's exact test that both are as likely; tokens "
              "agree: share of the answer until the first token that differs; KL: of the first token, from the 20 likeliest, in nats; "
              "rows: mean over the decoder's layers; processor: seconds of the whole request, pictures and answer included, "
              "95 % interval from a bootstrap over requests; compressor: its share of the time for pictures and prompt; redone: requests that cascade or guard ran again.")
    if a.html:
        a.html.write_text(lib.html_page("What compression costs and keeps", [
            (title, as_html(about + "\n\n" + legend + "\n\n" + text), "".join(charts.values())) for _, title, text, charts in made]))
    if a.docs:
        reading = a.reading.read_text() if a.reading.exists() else ""
        parts = [f"# Results\n<!-- written by bench/quality/page.py; the text in front is bench/quality/reading.md -->\n\n{reading}\n## The run\n{about}\n\n{legend}\n"]
        (a.docs / "images").mkdir(exist_ok=True)
        for _, title, text, charts in made:
            for name, svg in charts.items():
                (a.docs / "images" / name).write_text(svg)
            parts.append(f"\n## {title}\n{text}" + "".join(f"\n![{title}](images/{name})\n" for name in charts))
        (a.docs / "results.md").write_text("".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
