"""Completions and man pages: every flag is in them, and shells and man read them.

What the flags are is taken from --help, which the tests of the configuration check. A shell
or a checker that is not on this machine is one skipped test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TAMP_BINARY", str(ROOT / "tamp"))
counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(name: str, good: bool, detail: object = "") -> None:
    counts["passed" if good else "failed"] += 1
    if not good:
        print(f"FAILED {name}: {detail}")


def skip(name: str, tool: str) -> None:
    counts["skipped"] += 1
    print(f"skipped {name}: no {tool} here")


def command(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **more)


def tamp(*words: str) -> str:
    got = command(BINARY, *words)
    assert got.returncode == 0, (words, got.stderr)
    return got.stdout


COMMANDS = re.findall(r"^  ([a-z]+) ", tamp("help"), re.M)
FLAGS = {name: re.findall(r"^  --([a-z0-9-]+)", tamp("help", name), re.M) for name in COMMANDS}


def bash_completes(script: str, *words: str, folder: str = ".") -> list[str]:
    """What bash offers for the last word of a command line."""
    run = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_tamp; [ ${#COMPREPLY[@]} = 0 ] || printf "%s\\n" "${COMPREPLY[@]}"'
    )
    got = command("bash", "--norc", "-c", run, "bash", script, "tamp", *words, cwd=folder)
    assert got.stderr == "", got.stderr
    return got.stdout.splitlines()


def bash(share: Path) -> None:
    script = str(share / "bash-completion/completions/tamp")
    check("bash syntax", command("bash", "-n", script).returncode == 0)
    offered = set(bash_completes(script, ""))
    check("bash commands", offered == {*COMMANDS, "--help", "--version"}, offered)
    check("bash part of a command", bash_completes(script, "cal") == ["calibrate"])
    for name in COMMANDS:
        offered = {word.removeprefix("--").removeprefix("no-") for word in
                   bash_completes(script, name, "--")}
        check(f"bash flags of {name}", offered == {*FLAGS[name], "help"}, offered)
    values = ["f16", "q8_0"]
    check("bash values", bash_completes(script, "run", "--cache-type", "") == values)
    check("bash values after =", bash_completes(script, "run", "--cache-type", "=", "q") == ["q8_0"])
    check("bash values at =", bash_completes(script, "run", "--cache-type", "=") == values)
    check("bash free value", bash_completes(script, "run", "--seed", "-") == [])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a b.gguf").touch()
        Path(folder, "models").mkdir()
        for words in (["serve", "--model", "a"], ["inspect", "a"]):
            got = bash_completes(script, *words, folder=folder)
            check(f"bash file of {words[0]}", got == ["a b.gguf"], got)
        got = bash_completes(script, "calibrate", "--out", "", folder=folder)
        check("bash folder", got == ["models"], got)


def zsh(share: Path) -> None:
    script = share / "zsh/site-functions/_tamp"
    if not shutil.which("zsh"):
        skip("zsh syntax", "zsh")
        return
    got = command("zsh", "-n", str(script))
    check("zsh syntax", got.returncode == 0 and not got.stderr, got.stderr)
    started = command("zsh", "-fc", f"autoload -Uz compinit; compinit -D; source {script}; "
                      "print $_comps[tamp]")
    check("zsh loads it", started.stdout.strip() == "_tamp", started.stderr)


def fish(share: Path) -> None:
    script = share / "fish/vendor_completions.d/tamp.fish"
    if not shutil.which("fish"):
        skip("fish", "fish")
        return
    got = command("fish", "--no-execute", str(script))
    check("fish syntax", got.returncode == 0, got.stderr)

    def offered(line: str) -> set[str]:
        got = command("fish", "--no-config", "-c", f"source {script}; complete -C '{line}'")
        return {row.split("\t")[0] for row in got.stdout.splitlines()}

    check("fish commands", offered("tamp ") == set(COMMANDS), offered("tamp "))
    for name in COMMANDS:
        flags = {word.removeprefix("--").removeprefix("no-").rstrip("=")
                 for word in offered(f"tamp {name} --")}
        check(f"fish flags of {name}", flags == {*FLAGS[name], "help"}, flags)
    got = offered("tamp run --cache-type ")
    check("fish values", got == {"f16", "q8_0"}, got)


def man(share: Path) -> None:
    pages = sorted((share / "man/man1").iterdir())
    names = {"tamp.1", *(f"tamp-{name}.1" for name in COMMANDS)}
    check("a page for each command", {page.name for page in pages} == names)
    for page in pages:
        text = page.read_text()
        name = page.stem.removeprefix("tamp-")
        for flag in FLAGS.get(name, []):
            line = "\\fB\\-\\-" + flag.replace("-", "\\-") + "\\fR"
            check(f"{page.name} --{flag}", line in text)
        check(f"{page.name} exit status", all(f"\n.TP\n{n}\n" in text for n in (0, 1, 2, 74)))
    for tool, words in (("man", ["--warnings", "-l"]), ("mandoc", ["-Tlint", "-Werror"])):
        for page in pages:
            if not shutil.which(tool):
                skip(f"{tool} {page.name}", tool)
                continue
            got = command(tool, *words, str(page), env={**os.environ, "LC_ALL": "C.UTF-8"})
            check(f"{tool} {page.name}", got.returncode == 0 and not got.stderr,
                  got.stderr + got.stdout[:2000])


def mistakes() -> None:
    for words, says in (
        (["--completion", "tcsh"], "bash, zsh, fish"),
        (["--completion", "bash", "run"], "not also run"),
        (["--man", "nothing"], "no such command: nothing"),
        (["--man", "--yaml"], "one text at a time"),
    ):
        got = command(BINARY, "help", *words)
        check(f"help {words}", got.returncode == 2 and says in got.stderr and not got.stdout,
              got.stderr)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        share = Path(folder)
        got = command(str(ROOT / "tools/install_texts"), BINARY, folder)
        check("install_texts", got.returncode == 0, got.stderr)
        bash(share)
        zsh(share)
        fish(share)
        man(share)
    mistakes()
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    print(f"{counts['passed']} passed, {counts['failed']} failed{skipped}")
    return counts["failed"] > 0


sys.exit(main())
