"""`tamp calibrate` as operators use it: stopped, gone on with, and what it writes. With the
small model of random weights, whose answers are as good as any to compare."""

from __future__ import annotations

import difflib
import json
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from harness import BINARY, ROOT, TINY, Cases, check

# Merging nothing is the same answer; half of the rows of random weights is another one.
STEPS = ["--step", "lm.method=cosine,lm.threshold=1,lm.cutoff=0,protect_system=false,min_text_rows=0",
         "--step", "lm.method=slerp,lm.cutoff=0,protect_system=false,protect_tail=0,min_text_rows=0"]
N = 24  # 0.5 needs ten


def write_requests(folder: Path, n: int = N) -> Path:
    file = folder / "requests.jsonl"
    with file.open("w") as f:
        for i in range(n):
            r = random.Random(i)  # no digits: those are never merged
            text = " ".join(r.choice(("shoe", "lamp", "coat", "tea", "paper", "glass")) for _ in range(30))
            f.write(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n")
    return file


def command(data: Path, out: Path, *flags: str) -> list[str]:
    return [BINARY, "calibrate", "--model", str(TINY), "--chat-template", "chatml", "--data", str(data),
            "--out", str(out), "--target", "0.5", "--tokens", "4", *STEPS, *flags]


def run(data: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(data, out, *flags), capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)


def answers(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


def finds_the_plan() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = run(write_requests(folder), folder / "out")
        check(done.returncode == 0, done.stderr)
        check('With "lm.method=cosine' in done.stdout, done.stdout)
        profile = (folder / "out" / "profile.yaml").read_text()
        check("lm.method=cosine,lm.threshold=1" in profile, profile)
        report = (folder / "out" / "report.md").read_text()
        check("| kept |" in report and "| does not hold |" in report, report)
        # The profile is a configuration: another command takes it.
        again = subprocess.run([BINARY, "run", "--model", str(TINY), "--chat-template", "chatml", "--config",
                                str(folder / "out" / "profile.yaml"), "--max-tokens", "2", "Hello"],
                               capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
        check(again.returncode == 0, again.stderr)


def goes_on_where_it_was_stopped() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_requests(folder, 400)
        process = subprocess.Popen(command(data, folder / "out"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, cwd=ROOT)
        until = time.monotonic() + 120
        file = folder / "out" / "answers.jsonl"
        while (not file.exists() or file.read_text().count("\n") < 5) and time.monotonic() < until:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        check(process.returncode == 1 and "the same command goes on" in said, said)
        first = answers(folder / "out")
        check(5 <= len(first), f"{len(first)} answers were kept")
        check(not (folder / "out" / "profile.yaml").exists(), "a profile of half a calibration")
        done = run(data, folder / "out")
        check(done.returncode == 0 and f"goes on with the {len(first)} answers" in done.stderr, done.stderr)
        every = answers(folder / "out")
        check(every[: len(first)] == first, "the first answers were asked again")
        check(len({a["key"] for a in every}) == len(every), "an answer stands there twice")
        # Once more: nothing is left to ask, and the report is the same.
        report = (folder / "out" / "report.md").read_text()
        check(run(data, folder / "out").returncode == 0, "third run")
        check(len(answers(folder / "out")) == len(every), "it asked again")
        again = (folder / "out" / "report.md").read_text()
        change = difflib.unified_diff(report.split("## How")[0].splitlines(), again.split("## How")[0].splitlines(), lineterm="")
        check(again.split("## How")[0] == report.split("## How")[0], "another report: " + "; ".join(change))


def refuses_what_it_cannot_do() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = run(write_requests(folder, 9), folder / "out")
        check(few.returncode == 1 and "takes 10 or more" in few.stderr, few.stderr)
        check(not (folder / "out").exists(), "a folder for nothing")
        (folder / "requests.jsonl").write_text('{"messages": []}\n')
        bad = run(folder / "requests.jsonl", folder / "out")
        check(bad.returncode == 1 and "line 1" in bad.stderr, bad.stderr)
        none = subprocess.run([BINARY, "calibrate"], capture_output=True, text=True, cwd=ROOT, check=False)
        check(none.returncode == 2 and "--data" in none.stderr, none.stderr)


def main() -> None:
    cases = Cases()
    cases.run("finds the plan", finds_the_plan)
    cases.run("goes on where it was stopped", goes_on_where_it_was_stopped)
    cases.run("refuses what it cannot do", refuses_what_it_cannot_do)
    cases.end()


if __name__ == "__main__":
    main()
