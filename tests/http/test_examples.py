"""The examples, run as their README says, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys

from harness import ROOT, Cases, Server, check, need_models


def shop_bot(server: Server) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "examples/shop_bot.py",
            "--url",
            f"http://127.0.0.1:{server.port}/v1",
            "--photo",
            "docs/images/tshirt.jpg",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    check(run.returncode == 0, run.stderr[-500:])
    calls = re.findall(r"^    (\w+)\((.*)\) -> (.*)$", run.stdout, re.M)
    names = [name for name, _, _ in calls]
    check(names == ["find_order", "start_return", "find_sizes"], run.stdout)
    check(run.stdout.count("\nbot: ") == 3, run.stdout)
    check("1043" not in run.stdout, "another customer's order was looked up")
    bill = re.search(r"6 requests: (\d+) .*, (\d+) after packing, (\d+) of .*: (\d+) % saved", run.stdout)
    check(bill is not None, run.stdout)
    whole, packed, cached, saved = (int(bill.group(i)) for i in range(1, 5))  # type: ignore[union-attr]
    check(packed < whole and 0 < cached < packed and saved > 20, run.stdout.splitlines()[-1])
    print(f"      {run.stdout.splitlines()[-1]}")


def main() -> None:
    need_models()
    cases = Cases()
    with Server() as server:
        cases.run("shop bot", lambda: shop_bot(server))
        cases.end(server)


if __name__ == "__main__":
    main()
