#!/usr/bin/env python3
"""tamp against llama.cpp, on the same files, in one run: run.py [CASE ...]

Builds nothing: bench/peers/llamacpp.sh makes the peer, `make build/gcc/tamp
build/gcc/benchmark build/gcc/peak` our side. Every case measures both programs in each of
at least five rounds and prints how many times better tamp is (above 1: faster, smaller), as
the median and the spread of the rounds. Results go to build/bench/<time>/ as JSON lines and
SVG charts. Needs only Python's standard library.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
from typing import Any

import plot
from cases import ALONE, CASES, QUICK, NotHere, Setup
from client import RequestFailed
from measure import DISTURBED, HEADING, Result, Rounds
from programs import LlamaCpp, ProgramFailed, Tamp, own_seconds

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
MMPROJ = ROOT / "models" / "mmproj-dinov2-s14-smollm2.gguf"
PEERS = ROOT / "build" / "peers"
PEER_PROGRAMS = ("llama-bench", "llama-server", "llama-quantize")
BY_SIZE = ("prefill", "decode", "clients")
MIN_ROUNDS = 5


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; all when none is named")
    p.add_argument("--quick", action="store_true", help=f"one size each of {', '.join(QUICK)}")
    p.add_argument("--rounds", type=int, default=MIN_ROUNDS, help=f"at least {MIN_ROUNDS}")
    p.add_argument("--retries", type=int, default=2, help="of a measurement that other programs disturbed")
    p.add_argument("--threads", type=int, default=2, help="of each program")
    p.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "gcc", help="our programs")
    p.add_argument("--kernel", default="", help="our kernels: avx2, ...")
    p.add_argument("--peer", type=pathlib.Path, help="folder of llama-bench and llama-server (or LLAMACPP)")
    p.add_argument("--peer-avx2", type=pathlib.Path, default=PEERS / "llamacpp-avx2" / "bin", help="of the case avx2")
    p.add_argument("--peer-no-repack", action="store_true", help="llama.cpp without repacked weights and AMX")
    p.add_argument("--model", type=pathlib.Path, default=MODEL)
    p.add_argument("--mmproj", type=pathlib.Path, default=MMPROJ)
    p.add_argument("--out", type=pathlib.Path, help="folder for the results")
    p.add_argument("--if-present", action="store_true", help="without a peer, say how to get one and stop well")
    a = p.parse_args()
    unknown = [c for c in a.case if c not in CASES]
    if unknown:
        p.error(f"no case {unknown[0]}: {', '.join(CASES)}")
    if a.rounds < MIN_ROUNDS:
        p.error(f"--rounds: at least {MIN_ROUNDS}, or the median means little")
    return a


def has_programs(folder: pathlib.Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in PEER_PROGRAMS)


def peer_folder(given: pathlib.Path | None) -> pathlib.Path:
    named = given or os.environ.get("LLAMACPP")
    return pathlib.Path(named) if named else PEERS / "llamacpp" / "bin"


def machine() -> dict[str, Any]:
    cpu = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {"cpu": cpu, "cpus": os.cpu_count(), "kernel": platform.release()}


def commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def print_peak(peak: list[dict[str, Any]], threads: int) -> None:
    print(f"at most, {threads} threads: ", end="")
    mine = [p for p in peak if p["threads"] == threads]
    print(", ".join(f"{p['what']} ({p['how']}) {p['value']:.0f} {p['unit']}" for p in mine))


def write_charts(results: list[Result], out: pathlib.Path, title: str) -> None:
    compared = [r for r in results if not r.case.startswith("kernels")]
    if compared:
        bars = plot.ratio_bars(compared, f"How many times better than the peer: {title}")
        (out / "ratios.svg").write_text(bars)
    for case in dict.fromkeys(r.case for r in results if r.case.startswith("kernels")):
        mine = [r for r in results if r.case == case]
        (out / f"{case.replace(' ', '-')}.svg").write_text(plot.by_shape(mine, f"{case}: {title}"))
    for case in BY_SIZE:
        mine = [r for r in results if r.case == case and r.x.isdigit()]
        if len(mine) > 1:
            (out / f"{case}.svg").write_text(plot.by_size(mine, f"{case}: {title}"))


def line_of(result: Result, disturbed: float) -> str:
    notes = [f"{k}={v}" for k, v in result.extra.items() if k not in ("shape", "rows")]  # x says them
    if disturbed > DISTURBED:
        notes.append(f"(disturbed: other programs took up to {disturbed:.0%} of the processors)")
    return " ".join([result.line(), *notes])


def measure(s: Setup, names: list[str], out: pathlib.Path) -> tuple[list[Result], int]:
    """Results so far are on the disk after every line; a case that fails stops only itself."""
    results: list[Result] = []
    failed = 0
    print(HEADING)
    with open(out / "results.jsonl", "a") as file:
        for name in names:
            try:
                for result in CASES[name](s):
                    results.append(result)
                    disturbed = round(max(s.rounds.disturbance, default=0.0), 2)
                    file.write(json.dumps(result.to_json() | {"others_took": disturbed}) + "\n")
                    file.flush()
                    print(line_of(result, disturbed), flush=True)
            except NotHere as needs:
                print(f"{name:<15} left out: {needs}", flush=True)
            except (ProgramFailed, RequestFailed, OSError, ValueError, KeyError, IndexError) as error:
                failed += 1
                print(f"{name:<15} failed: {error}", flush=True)
    return results, failed


def main() -> int:
    a = arguments()
    names = a.case or list(QUICK if a.quick else CASES)
    folder = peer_folder(a.peer)
    has_peer = has_programs(folder)
    if not has_peer and not set(names) <= set(ALONE):
        print("compare: no llama.cpp here; bench/peers/llamacpp.sh builds it once, about 15 minutes")
        print("         (or name a folder with its programs: LLAMACPP=DIR, or --peer DIR)")
        return 0 if a.if_present else 1
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    out = a.out or ROOT / "build" / "bench" / now
    models = PEERS / "models"
    for made in (out, models):
        made.mkdir(parents=True, exist_ok=True)
    ours = Tamp(a.build, a.threads, out, a.kernel)
    peer = LlamaCpp(folder, a.threads, out, not a.peer_no_repack)
    peer_avx2 = LlamaCpp(a.peer_avx2, a.threads, out) if has_programs(a.peer_avx2) else None
    missing = [n for n in ("tamp", "benchmark", "peak") if not (a.build / n).is_file()]
    if missing:
        print(f"compare: build first: make {' '.join(str(a.build / n) for n in missing)}")
        return 1
    rounds = Rounds(a.rounds, a.retries, own_seconds)
    peak = rounds.calm(lambda _: ours.peak(), 0)
    print_peak(peak, a.threads)
    about = {"machine": machine(), "commit": commit(), "threads": a.threads, "rounds": a.rounds, "peak": peak}
    about |= {"kernel": a.kernel or "auto", "model": a.model.name}
    about |= {"peer": str(folder) if has_peer else "", "peer_repack": not a.peer_no_repack}
    (out / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    s = Setup(ours, peer, a.model, a.mmproj, models, rounds, a.quick, peak, peer_avx2)
    results, failed = measure(s, names, out)
    if results:
        write_charts(results, out, f"{a.model.name}, {a.threads} threads, {about['commit']}")
    print(f"results: {out}")
    return 1 if failed else 0


def interrupted(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # Whoever stops this, also in the background, must not leave servers behind.
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("compare: interrupted; what was measured is on the disk")
