#!/usr/bin/env python3
"""bench/quality without a model: statistics beside SciPy's, judgement, kept answers, plans
made of the methods' table, charts. Nothing here measures anything."""

import json
import math
import os
import pathlib
import random
import re
import sys
import tempfile
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("TAMP_BINARY", ROOT / "build" / "gcc" / "tamp"))
sys.path[:0] = [str(ROOT / "bench" / "quality"), str(ROOT / "tests")]
sys.dont_write_bytecode = True

import cases  # noqa: E402
import frontier  # noqa: E402
import lib  # noqa: E402
import page  # noqa: E402
import resamples  # noqa: E402
from plain import Skipped, run  # noqa: E402


# -- statistics ---------------------------------------------------------------------------


def test_bounds_are_scipys() -> None:
    # scipy 1.17.1: beta.ppf(0.05, k, n - k + 1), binomtest(min, n).pvalue
    for k, n, want in ((200, 200, 0.985132960769), (297, 300, 0.974358606917), (990, 1000, 0.983096824879),
                       (3, 10, 0.0872644339142), (9990, 10000, 0.998304368546), (0, 5, 0.0)):
        assert abs(lib.lower_bound(k, n) - want) < 1e-9, (k, n)
    for lost, won, want in ((3, 1, 0.625), (10, 2, 0.03857421875), (0, 0, 1.0), (0, 5, 0.0625), (7, 7, 1.0)):
        assert abs(lib.mcnemar(lost, won) - want) < 1e-12


def test_divergence_of_whole_distributions_is_kl() -> None:
    def logs(**p: float) -> list[list[object]]:
        return [[token, math.log(v)] for token, v in p.items()]

    full, other = logs(a=0.6, b=0.3, c=0.1), logs(b=0.25, a=0.5, c=0.25)
    assert abs(lib.divergence(full, other) - 0.07246032792714363) < 1e-12  # numpy
    assert lib.divergence(full, full) == 0
    pieces = [["\ufffd", math.log(0.5)], ["\ufffd", math.log(0.3)], ["a", math.log(0.2)]]
    assert lib.divergence(pieces, pieces) == 0
    # A token that is not listed counts with the least of those that are: a lower bound.
    assert 0 < lib.divergence(logs(a=0.6, b=0.4), logs(a=0.7, d=0.2)) < 0.6 * math.log(0.6 / 0.7) + 0.4 * math.log(0.4 / 1e-3)


def test_paired_ratio_is_within_its_interval() -> None:
    r = random.Random(3)
    base = [r.uniform(1, 2) for _ in range(200)]
    ratio, low, high = lib.paired_ratio([0.5 * b for b in base], base)
    assert abs(ratio - 0.5) < 1e-12 and abs(low - 0.5) < 1e-12 and abs(high - 0.5) < 1e-12
    ratio, low, high = lib.paired_ratio([b * r.uniform(0.2, 0.8) for b in base], base)
    assert low < ratio < high and 0.4 < low and high < 0.6
    assert math.isnan(lib.paired_ratio([], [])[0])


# -- judgement ------------------------------------------------------------------------------


def test_an_answer_stands_in_the_text_as_a_whole() -> None:
    for want, text, found in (("July 3", "It is on july 3.", True), ("July 3", "It is on July 31.", False),
                              ("27.25", "It costs $27.25.", True), ("27", "It costs $27.25.", False),
                              ("25", "It costs $27.25.", False), ("158", "价格是158元。", True), ("58", "价格是158元。", False)):
        assert lib.stands_in(want, text) == found, (want, text)
    assert lib.agreement(["a", "b", "c", "d"], ["a", "b", "x", "d"]) == 0.5
    assert lib.agreement([], ["a"]) == 1.0


def test_cases_are_the_same_every_time() -> None:
    with tempfile.TemporaryDirectory() as name:
        data = pathlib.Path(name)
        photos = [{"split": "val", "set": "s", "file": f"{i}.jpg", "name": f"n{i}", "kind": f"k{i % 12}"} for i in range(24)]
        (data / "labels.json").write_text(json.dumps([*photos, {"split": "train", "file": "never.jpg"}]))
        for p in photos:
            (data / p["file"]).write_bytes(b"\xff\xd8" + p["file"].encode())
        first, second = (cases.ten_cases(data, "val", 1) for _ in range(2))
        for a, b in zip(first[:16], second):
            assert a["messages"]() == b["messages"]() and a["answer"] == b["answer"]
            assert len([p for p in a["messages"]()[0]["content"] if p["type"] == "image_url"]) == 10
        photo = cases.photo_cases(data, "val", 1)
        assert len(photo) == 48 and photo[0]["right"](photo[0]["answer"]) and not photo[0]["right"]("It is k.")
    chats = cases.chat_cases("support", 1, 1, 20)
    assert {c["kind"] for c in chats} == {"policy", "order", "chinese", "tools"}
    assert "chinese" not in {c["kind"] for c in cases.chat_cases("long", 1, 6, 10)}
    lengths = [len(c["messages"]()[0]["content"].split()) for c in cases.cutoff_cases(1, 2)]
    assert lengths == [40, 80, 160, 320, 640] * 2


# -- kept answers -----------------------------------------------------------------------------


def test_answers_go_on_behind_a_line_that_was_cut_off() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / "answers.jsonl"
        asked = []
        kept = lib.Answers(path)
        for i in range(3):
            kept.get(str(i), {"plan": "off"}, lambda i=i: asked.append(i) or {"text": "是" * i})
        path.write_bytes(path.read_bytes()[:-4])
        again = lib.Answers(path)
        assert sorted(again.known) == ["0", "1"]
        again.get("1", {}, lambda: asked.append("twice") or {})
        again.get("2", {}, lambda: asked.append(2) or {"text": "x"})
        assert asked == [0, 1, 2, 2]
        assert [e["key"] for e in lib.read_lines(path)] == ["0", "1", "2"]


def test_resamples_keep_no_plan_that_is_too_bad() -> None:
    r = random.Random(5)
    table = [[r.random() < p for _ in range(2000)] for p in (0.999, 0.985, 0.9, 0.5)]
    kept = [resamples.kept_plan(table, 0.95, 400, random.Random(i)) for i in range(20)]
    assert sum(k > 1 for k in kept) <= 1 and kept.count(1) > 5


# -- plans --------------------------------------------------------------------------------------


def test_plans_are_made_of_the_methods_table() -> None:
    if not BINARY.exists():
        raise Skipped("no binary")
    methods = lib.methods_of(BINARY)
    assert "image" in methods["tome"]["slots"] and "ratio" in methods["tome"]["options"]
    assert methods["query"]["slots"] == ["lm"]
    photos = frontier.picture_plans(methods)
    assert photos["pool ratio=4"] == {"profile": "off", "image": {"method": "pool", "ratio": 4}}
    assert sum(name.startswith("random ratio=8") for name in photos) == len(frontier.SEEDS)
    for name, m in methods.items():
        if "image" in m["slots"] and name != "off":
            assert any(p.split()[0] == name for p in photos), f"{name} is not measured"
    texts = frontier.text_plans(methods, (6,), (2,))
    for name, m in methods.items():
        if "lm" in m["slots"] and name != "off":
            assert any(p.split()[1] == name for p in texts), f"{name} is not measured"
    new = frontier.picture_plans({"brandnew": {"slots": ["image"], "options": {"ratio": "1 to 16"}}})
    assert "brandnew ratio=4" in new


def test_ticks_are_round_and_few() -> None:
    for low, high in ((0, 1), (43.2, 97), (0.61, 0.64), (-0.2, 1.4), (12, 13), (0.001, 0.9)):
        ticks = lib.even_ticks(low, high)
        assert 3 <= len(ticks) <= 10 and low <= ticks[0] and ticks[-1] <= high, (low, high, ticks)


# -- tables ---------------------------------------------------------------------------------------


def entry(case: str, plan: str, text: str, cpu: float, commit: str = "a", label: str = "") -> dict:
    cost = {"compress_ms": 1, "prompt_ms": 50, "vision_ms": 50, "first_token_ms": 80 * cpu, "cpu_s": cpu}
    return {"suite": "photos", "kind": "k", "case": case, "plan": plan, "answer": "yes", "commit": commit, "label": label,
            "reply": {"text": text, "tokens": text.split(), "first": [["yes", -0.1]], "rows": 10, "original": 20,
                      "mean": 20 * cpu, "stages": {"image": ["image-rows", 20, 10]}, "skipped": [], "guard": {"redone": 1},
                      "cost": cost}}


def test_a_row_counts_what_was_lost_and_won() -> None:
    right = {"1": (1, 1), "2": (1, 0), "3": (0, 1), "4": (1, 1), "5": (0, 0)}
    said = ("no", "yes")
    entries = [entry(c, "off", said[a], 1) for c, (a, _) in right.items()]
    entries += [entry(c, "pool ratio=4", said[b], 0.5) for c, (_, b) in right.items()]
    entries += [entry("1", "pool ratio=4", "twice", 9), entry("9", "pool ratio=4", "never asked uncompressed", 9)]
    entries += [entry("1", "off", "yes", 1.5, label="other kernel")]
    rows = page.tabulate(entries, [entry("1", "pool ratio=4", "yes", 0.25)])["photos"]
    r = rows["pool ratio=4"]
    assert (r.n, r.was, r.now, r.lost, r.won, r.guard) == (5, 3, 3, 1, 1, 5)
    assert r.kept == 1 and abs(r.still - 2 / 3) < 1e-12 and r.equal == 0.6
    assert abs(r.cpu[0] - 0.5) < 1e-12 and r.rows == 0.5 and r.first_ms == 20
    assert rows["off (other kernel)"].n == 1 and rows["off"].n == 5
    text = page.main_table(rows | {"off": rows["off"]})
    assert "| pool ratio=4 | 5 | 3 > 3 | 100.0 | 66.7" in text and "20 |" in text


def test_a_row_is_paired_with_the_same_program() -> None:
    entries = [entry("1", "off", "yes", 1), entry("1", "off", "yes", 2, commit="b"), entry("1", "pool ratio=4", "yes", 1, commit="b")]
    assert page.tabulate(entries, [])["photos"]["pool ratio=4"].cpu[0] == 0.5


# -- charts ---------------------------------------------------------------------------------------


def test_charts_are_xml_with_a_mark_for_each_point() -> None:
    series = {"tome <2>": [(64.0, 0.98, 0.95, 0.99), (32.0, 0.97, 0.94, 0.99)], "pool": [(64.0, 0.9, 0.8, 0.95)]}
    svg = lib.frontier_chart("kept & lost", "rows", "share", series, 1.0)
    tree = ET.fromstring(svg)
    assert len(tree.findall(".//{http://www.w3.org/2000/svg}circle")) == 3
    for circle in tree.findall(".//{http://www.w3.org/2000/svg}circle"):
        assert 0 < float(circle.get("cx")) < 860 and 0 < float(circle.get("cy")) < 440
    ET.fromstring(lib.frontier_chart("nothing", "x", "y", {}))
    page = lib.html_page("a <title>", [("h & h", "<p>text</p>", svg)])
    assert "a &lt;title&gt;" in page and re.search(r"<svg [^>]*>", page)


if __name__ == "__main__":
    sys.exit(run(globals()))
