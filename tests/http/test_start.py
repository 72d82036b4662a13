"""What cannot be served: broken model files, wrong pairs, wrong flags. Each ends with
one line that says what and where, and an exit status, never with a signal."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from harness import BINARY, MMPROJ, MODEL, ROOT, TINY, Cases, check, need_models

TINY_ARGS = ["--model", str(TINY), "--chat-template", "chatml"]
NO = "/no/such/file"

# (arguments, exit status, part of the line)
REFUSED: list[tuple[list[str], int, str]] = [
    (["serve", "--model", NO], 1, f"{NO}: cannot open it"),
    (["serve", "--model", "/dev/zero"], 1, "/dev/zero: not a regular file"),
    (["serve", "--model", "/"], 1, "not a regular file"),
    (["serve", "--model", str(MMPROJ)], 1, 'general.architecture is "clip"'),
    (["serve", *TINY_ARGS, "--mmproj", NO], 1, f"{NO}: cannot open it"),
    (["serve", *TINY_ARGS, "--mmproj", str(MODEL)], 1, "this is no vision file"),
    (["serve", *TINY_ARGS, "--mmproj", str(MMPROJ)], 1, "they are not a pair"),
    (["serve", "--model", str(TINY), "--chat-template", "none"], 1, "choose one with --chat-template NAME"),
    (["serve", "--mdoel", "x"], 2, "did you mean --model?"),
    (["serve", "--port", "99999"], 2, "give 0 to 65535"),
    (["serve", "--port", "x"], 2, "is not a whole number"),
    (["serve", "--model"], 2, "needs a value"),
    (["serve", "--profile", "none"], 2, "balanced"),
    (["serve", "--compression", "image.ratio=99"], 2, "from 1 to 16"),
    (["serve", "--config", NO], 2, f"cannot open {NO}"),
    (["serve", "--api-key-file", NO], 2, f"cannot open {NO}"),
    (["serve", "--host", "name.invalid", "--insecure", "--log-level", "error"], 1, "cannot listen on"),
    (["serve", "x"], 2, "flags begin with two dashes"),
    (["serv"], 2, "did you mean 'serve'?"),
    (["run", *TINY_ARGS, "--image", NO, "x"], 1, f"cannot open {NO}"),
    (["inspect", NO], 1, f"{NO}: cannot open it"),
    (["bench", "x"], 2, "'x' is no flag"),
    (["bench", *TINY_ARGS, "--rows", "7x"], 2, "'7x' is not a length"),
]


def tamp(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    port = ["--port", "0"] if arguments[0] == "serve" and "--port" not in arguments else []
    return subprocess.run(
        [BINARY, arguments[0], *port, *arguments[1:]],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=ROOT,
        timeout=120,
        check=False,
    )


def refused(arguments: list[str], status: int, part: str) -> None:
    got = tamp(arguments)
    check(got.returncode == status, f"exit status {got.returncode}: {got.stderr[:300]}")
    check(part in got.stderr, got.stderr[:300])
    check(got.stderr.count("\n") == 1, f"not one line: {got.stderr[:300]}")


def truncated() -> None:
    """The reader's own test cuts at every byte; here the whole program sees some cuts."""
    data = TINY.read_bytes()
    sizes = [0, 3, 4, 24, 25, *(len(data) * k // 12 for k in range(1, 12)), len(data) - 1]
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "cut.gguf"
        for n in sizes:
            cut.write_bytes(data[:n])
            refused(["inspect", str(cut)], 1, "cut.gguf: ")
            refused(["serve", "--model", str(cut), "--chat-template", "chatml"], 1, "cut.gguf: ")


def out_of_memory() -> None:
    """An allocation that fails while the program starts or answers: a line, no signal."""
    for n in [*range(1, 40, 3), *range(40, 2000, 97)]:
        got = subprocess.run(
            [BINARY, "run", *TINY_ARGS, "--max-tokens", "1", "--threads", "1", "hi"],
            capture_output=True,
            cwd=ROOT,
            env={"TAMP_FAIL_ALLOC": str(n)},
            timeout=120,
            check=False,
        )
        check(got.returncode in (0, 1, 2), f"allocation {n}: exit status {got.returncode}")
        check(got.returncode == 0 or got.stderr.startswith(b"tamp"), f"{n}: {got.stderr[:200]!r}")


def bench() -> None:
    """Every case once, as JSON: the rows asked for, and numbers that can be."""
    sizes = ["--rows", "200", "--context", "150", "--tokens", "4"]
    got = tamp(["bench", *TINY_ARGS, *sizes, "--runs", "2", "--json"])
    check(got.returncode == 0, got.stderr[:300])
    lines = [json.loads(line) for line in got.stdout.splitlines()]
    check([x["case"] for x in lines] == ["prompt", "answer"], got.stdout[:300])
    # Whole words of several tokens each: not always exactly as many rows.
    check(all(abs(x["rows"] - n) < 8 for x, n in zip(lines, (200, 150))), got.stdout[:300])
    for x in lines:
        check(0 < x["least"] <= x["median"] <= x["most"] and x["runs"] == 2, str(x))


def main() -> None:
    need_models()
    cases = Cases()
    cases.run("bench", bench)
    for arguments, status, part in REFUSED:
        name = " ".join(Path(a).name if "/" in a else a for a in arguments)
        cases.run(name, lambda a=arguments, s=status, p=part: refused(a, s, p))
    cases.run("model files cut at 17 places", truncated)
    cases.run("failing allocations", out_of_memory)
    cases.end()


if __name__ == "__main__":
    main()
