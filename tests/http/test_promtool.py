#!/usr/bin/env python3
"""/metrics as Prometheus reads it: `promtool check metrics`, before and after requests."""

import shutil
import subprocess
import sys

from harness import CHAT, Server

QUESTION = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


def accepted(text: str) -> bool:
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    print((check.stdout + check.stderr).strip() or "clean")
    return check.returncode == 0 and not check.stderr.strip()


def main() -> int:
    if not shutil.which("promtool"):
        print("no promtool: make deps SET=test")
        print("0 passed, 0 failed, 2 skipped")
        return 0
    with Server(vision=False) as server:
        results = [accepted(server.request("GET", "/metrics").body.decode())]
        assert server.request("POST", CHAT, QUESTION).status == 200
        results.append(accepted(server.request("GET", "/metrics").body.decode()))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed, 0 skipped")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
