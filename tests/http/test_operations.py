#!/usr/bin/env python3
"""What watches tamp, against the binary: Prometheus rules and the metrics that they name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from harness import ROOT, Cases, Server, Skip, check, user

PROMETHEUS = ROOT / "docker/prometheus"
RULES = PROMETHEUS / "tamp.rules.yml"
RULES_TEST = PROMETHEUS / "tamp.rules.test.yml"
CONFIG = PROMETHEUS / "prometheus.yml"
METRIC = re.compile(r"\b(?:tamp|process)_[a-z0-9_]+\b")


def promtool(*arguments: str | Path) -> None:
    path = f"{ROOT}/build/promtool/usr/bin:{os.environ['PATH']}"
    tool = shutil.which("promtool", path=path)
    if not tool:
        raise Skip("no promtool: make deps SET=test")
    run = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)
    check(run.returncode == 0, run.stdout + run.stderr)


def shown_metrics(text: str) -> dict[str, str]:
    """Name to kind, as a scrape shows them."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))


def unknown_metrics(expressions: str, kinds: dict[str, str]) -> set[str]:
    """Names in PromQL that no scrape of this binary has."""
    known = set()
    for name, kind in kinds.items():
        known |= {name + end for end in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return set(METRIC.findall(expressions)) - known


def without_comments(yaml: str) -> str:
    return re.sub(r"(?m)^\s*#.*$", "", yaml)


def rules_are_valid() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", "--syntax-only", CONFIG)
    check(f"- {RULES.name}" in CONFIG.read_text(), f"{CONFIG.name} does not load {RULES.name}")


def rules_fire() -> None:
    promtool("test", "rules", RULES_TEST)
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    fired = re.findall(r"- alertname: (\w+)\n\s+eval_time: \w+\n\s+exp_alerts:\n", RULES_TEST.read_text())
    check(alerts and alerts == set(fired), f"alerts without a test that fires them: {alerts ^ set(fired)}")


def main() -> None:
    cases = Cases()
    with Server(tiny=True) as server:
        server.chat(user("Hello", max_tokens=2))
        kinds = shown_metrics(server.request("GET", "/metrics").text)

        def rules_name_metrics() -> None:
            used = without_comments(RULES.read_text() + RULES_TEST.read_text())
            check(len(METRIC.findall(used)) > 20, "no metrics found: the pattern is wrong")
            check(not (lost := unknown_metrics(used, kinds)), f"not in /metrics: {sorted(lost)}")

        cases.run("rules and configuration are valid", rules_are_valid)
        cases.run("every alert fires in its test, none on a healthy server", rules_fire)
        cases.run("rules name metrics that /metrics has", rules_name_metrics)
    cases.end()


if __name__ == "__main__":
    main()
