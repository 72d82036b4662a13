#!/usr/bin/env python3
"""The systemd unit of the Debian package, without making the package: what systemd says of
it, and what must agree with the server."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "packaging/debian/tamp.service"
sys.path.insert(0, str(ROOT / "tests"))
sys.dont_write_bytecode = True

from plain import Skipped, run  # noqa: E402

MAX_EXPOSURE = 2.0


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def analyze(*arguments: str) -> str:
    if not shutil.which("systemd-analyze"):
        raise Skipped("no systemd-analyze")
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_exposure() -> None:
    text = analyze("security", "--offline=yes", str(UNIT))
    found = re.search(r"Overall exposure level for tamp\.service: ([0-9.]+)", text)
    assert found, text
    assert float(found[1]) <= MAX_EXPOSURE, text


def test_systemd_understands_it() -> None:
    text = analyze("verify", str(UNIT))
    about = [line for line in text.splitlines() if "tamp.service" in line]
    # The program is not installed where the tests run; anything else is a mistake.
    wrong = [line for line in about if "/usr/bin/tamp is not executable" not in line]
    assert not wrong, wrong


def test_filter_keeps_the_helpers_own_confinement() -> None:
    """What the helper that decodes pictures needs to lock itself up, and threads to be pinned."""
    allowed = set(settings("SystemCallFilter")[-1].split())
    assert {"seccomp", "prlimit64", "sched_setaffinity"} <= allowed, allowed
    assert settings("MemoryDenyWriteExecute") == ["yes"]


def test_stop_waits_for_the_drain() -> None:
    text = (ROOT / "config/tamp.yaml").read_text()
    drain = re.search(r"^#drain-timeout: (\d+)$", text, re.MULTILINE)
    assert drain and int(settings("TimeoutStopSec")[0]) > int(drain[1])


if __name__ == "__main__":
    sys.exit(run(globals()))
