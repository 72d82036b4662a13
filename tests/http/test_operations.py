#!/usr/bin/env python3
"""What watches tamp, against the binary: the rules of Prometheus, Grafana's dashboard, the
manual, and the metrics that they name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterator

from harness import ROOT, Cases, Server, Skip, check, user

PROMETHEUS = ROOT / "docker/prometheus"
RULES = PROMETHEUS / "tamp.rules.yml"
RULES_TEST = PROMETHEUS / "tamp.rules.test.yml"
CONFIG = PROMETHEUS / "prometheus.yml"
COMPOSE = ROOT / "docker/compose.yaml"
GRAFANA = ROOT / "docker/grafana"
DASHBOARD = GRAFANA / "dashboards/tamp.json"
MANUAL = ROOT / "docs/operations.md"
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


# -- the dashboard ----------------------------------------------------------------------


def dashboard() -> dict[str, Any]:
    loaded = json.loads(DASHBOARD.read_text())
    check(isinstance(loaded, dict), "not an object")
    return loaded


def every(node: Any, key: str) -> Iterator[Any]:
    """The values of a key, however deep they stand."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from every(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from every(item, key)


def dashboard_expressions() -> list[str]:
    """Its PromQL with Grafana's variables filled in."""
    found = list(every(dashboard(), "expr"))
    check(len(found) > 40, f"only {len(found)} expressions")
    filled = [e.replace("$__rate_interval", "5m").replace("$instance", ".*") for e in found]
    check(not (odd := [e for e in filled if "$" in e]), f"unknown variables: {odd}")
    return filled


def dashboard_is_whole() -> None:
    panels = dashboard()["panels"]
    check(len({p["id"] for p in panels}) == len(panels), "two panels have one id")
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        check(at["x"] >= 0 and at["x"] + at["w"] <= 24, f"{panel['title']} leaves the grid")
        check(not cells & taken, f"{panel['title']} lies over another panel")
        taken |= cells
        if panel["type"] != "row":
            refs = [t["refId"] for t in panel["targets"]]
            check(refs and len(set(refs)) == len(refs), f"{panel['title']}: refIds {refs}")
            check(panel["description"] and panel["datasource"], f"{panel['title']}: not explained")
    source = (GRAFANA / "provisioning/datasources/prometheus.yml").read_text()
    uids = {d["uid"] for d in every(dashboard(), "datasource")}
    check(all(re.search(rf"^    uid: {u}\b", source, re.M) for u in uids), f"not provisioned: {uids}")


def dashboard_parses() -> None:
    rules = [{"record": f"panel:{i}", "expr": e} for i, e in enumerate(dashboard_expressions())]
    with tempfile.TemporaryDirectory(prefix="tamp-") as folder:
        file = Path(folder) / "panels.yml"  # JSON is YAML
        file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
        promtool("check", "rules", file)


def compose_mounts_exist() -> None:
    text = COMPOSE.read_text()
    mounts = re.findall(r"- \./(\S+?):(\S+?):ro", text)
    check(len(mounts) >= 3, f"mounts {mounts}")
    for source, _ in mounts:
        check((ROOT / "docker" / source).exists(), f"docker/{source} is mounted and does not exist")
    provider = (GRAFANA / "provisioning/dashboards/tamp.yml").read_text()
    path = re.search(r"path: (\S+)", provider)
    check(path and ("grafana/dashboards", path[1]) in mounts, "Grafana looks elsewhere for dashboards")


# -- the text ---------------------------------------------------------------------------


def alerts_are_explained() -> None:
    headings = set(re.findall(r"(?m)^### (Tamp\w+)$", MANUAL.read_text()))
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    check(alerts == headings, f"only in one of rules and {MANUAL.name}: {alerts ^ headings}")


def main() -> None:
    cases = Cases()
    with Server(tiny=True) as server:
        server.chat(user("Hello", max_tokens=2))
        scrape = server.request("GET", "/metrics").text
        kinds = shown_metrics(scrape)

        def rules_name_metrics() -> None:
            used = without_comments(RULES.read_text() + RULES_TEST.read_text())
            check(len(METRIC.findall(used)) > 20, "no metrics found: the pattern is wrong")
            check(not (lost := unknown_metrics(used, kinds)), f"not in /metrics: {sorted(lost)}")

        def dashboard_names_metrics() -> None:
            text = "\n".join(dashboard_expressions())
            check(not (lost := unknown_metrics(text, kinds)), f"not in /metrics: {sorted(lost)}")
            records = set(re.findall(r"- record: (\S+)", RULES.read_text()))
            used = set(re.findall(r"\btamp:[\w:]+", text))
            check(used and used <= records, f"not recorded: {used - records}")

        def metrics_are_explained() -> None:
            told = re.findall(r"(?m)^# HELP (\S+) (.*)$", scrape)
            rows = [f"| `{name}` | {kinds[name]} | {meaning} |" for name, meaning in told]
            table = re.findall(r"(?m)^\| `\w+` \| (?:counter|gauge|histogram) \| .*$", MANUAL.read_text())
            check(table == rows, f"{MANUAL.name} differs: {sorted(set(table) ^ set(rows))}")

        cases.run("rules and configuration are valid", rules_are_valid)
        cases.run("every alert fires in its test, none on a healthy server", rules_fire)
        cases.run("rules name metrics that /metrics has", rules_name_metrics)
        cases.run("the dashboard is whole", dashboard_is_whole)
        cases.run("every expression of the dashboard parses", dashboard_parses)
        cases.run("the dashboard names metrics that /metrics has", dashboard_names_metrics)
        cases.run("what compose mounts is there", compose_mounts_exist)
        cases.run("every alert is explained", alerts_are_explained)
        cases.run("every metric is explained as /metrics does", metrics_are_explained)
    cases.end()


if __name__ == "__main__":
    main()
