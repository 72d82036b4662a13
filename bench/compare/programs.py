"""The two programs: how each is called, measured from outside, and stopped again."""

import http.client
import json
import os
import pathlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 20


class ProgramFailed(Exception):
    """A program ended badly or said something unexpected."""


def environment(program: str) -> dict[str, str]:
    """Ours, and the program's folder is searched for its libraries: llama.cpp's programs name
    the folder they were built in, which they may have left."""
    folders = [str(pathlib.Path(program).resolve().parent), os.environ.get("LD_LIBRARY_PATH", "")]
    return os.environ | {"LD_LIBRARY_PATH": ":".join(f for f in folders if f)}


def run(command: list[str]) -> str:
    """stdout of a program that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(command[0]))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ProgramFailed(f"{' '.join(command)}: status {done.returncode}: {last[:300]}")
    return done.stdout


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def status_field(pid: int, name: str) -> int:
    """Bytes of a field of /proc/PID/status; 0 if the process has none."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def children(pid: int) -> list[int]:
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(p) for p in task.read_text().split()]
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of its children that have ended; 0 if it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: pathlib.Path
    ready_ms: float

    def resident_bytes(self) -> int:
        """All resident memory of the server, the mapped model included, and of its children
        what they do not share with it."""
        total = status_field(self.process.pid, "VmRSS")
        return total + sum(status_field(p, "RssAnon") for p in children(self.process.pid))

    def cpu_seconds(self) -> float:
        """Processor time used until now, by its children too."""
        return sum(cpu_seconds(p) for p in (self.process.pid, *children(self.process.pid)))


running: list[Server] = []


def own_seconds() -> float:
    """Processor time of this program and of everything it started."""
    t = os.times()
    waited_for = t.user + t.system + t.children_user + t.children_system
    return waited_for + sum(server.cpu_seconds() for server in running)


def answers_health(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def serving(command: list[str], port: int, log: pathlib.Path) -> Iterator[Server]:
    """Start, wait until /health says ready, stop at the end whatever happened."""
    with open(log, "wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment(command[0])
        )
    try:
        while not answers_health(port):
            if process.poll() is not None:
                raise ProgramFailed(f"{command[0]} ended with {process.returncode}; see {log}")
            if time.perf_counter() - began > START_TIMEOUT_S:
                raise ProgramFailed(f"{command[0]} is not ready after {START_TIMEOUT_S} s; see {log}")
            time.sleep(0.002)
        server = Server(process, port, log, (time.perf_counter() - began) * 1e3)
        running.append(server)
        yield server
    finally:
        running[:] = [s for s in running if s.process is not process]
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Tamp:
    """Our programs in one build folder."""

    build: pathlib.Path
    threads: int
    out: pathlib.Path  # for logs
    kernel: str = ""

    def _kernel(self) -> list[str]:
        return ["--kernel", self.kernel] if self.kernel else []

    def bench(self, model: pathlib.Path, *case: str) -> dict[str, Any]:
        command = [str(self.build / "benchmark"), "--model", str(model), "--threads", str(self.threads)]
        line = run([*command, *self._kernel(), "--json", "--runs", "1", *case])
        got: dict[str, Any] = json.loads(line)
        return got

    def prefill(self, model: pathlib.Path, rows: int) -> float:
        """Rows a second."""
        r = self.bench(model, "--prefill", str(rows))
        return float(r["rows"] * 1e3 / r["prompt_ms"])

    def decode(self, model: pathlib.Path, tokens: int, context: int) -> float:
        """Tokens a second after `context` rows."""
        r = self.bench(model, "--decode", str(tokens), "--context", str(context))
        return float((r["tokens"] - 1) * 1e3 / r["predicted_ms"])

    def kernels(self) -> list[dict[str, Any]]:
        """Products by shape, a line each."""
        command = [str(self.build / "benchmark"), "kernels", "--threads", str(self.threads), "--json"]
        return [json.loads(line) for line in run([*command, *self._kernel()]).splitlines()]

    def peak(self) -> list[dict[str, Any]]:
        figures: list[dict[str, Any]] = json.loads(
            run([str(self.build / "peak"), "--json", "--threads", str(self.threads)])
        )
        return figures

    def serve(
        self, model: pathlib.Path, mmproj: pathlib.Path, parallel: int, rows: int, profile: str = "off"
    ) -> Any:
        """A server for `parallel` requests of `rows` rows each."""
        port = free_port()
        command = [str(self.build / "tamp"), "serve", "--model", str(model), "--mmproj", str(mmproj)]
        command += ["--threads", str(self.threads), "--parallel", str(parallel), "--ctx-size", str(rows)]
        command += ["--profile", profile, "--port", str(port), "--log-level", "warn", *self._kernel()]
        return serving(command, port, self.out / "tamp.log")

    def vision_ms(self, answer_timings: dict[str, Any]) -> float:
        """Resize, tower and projector of the request, as its timings say."""
        return float(answer_timings["vision_ms"])


# `0.02.997.330 I encoding mtmd batch...`: minutes, seconds, milli- and microseconds.
LOG_TIME = re.compile(r"^(\d+)\.(\d+)\.(\d+)\.(\d+) \w ")


def encode_times_ms(log: str) -> list[float]:
    """Time from each "encoding mtmd batch" to the "decoding image batch" after it: tower and
    projector in llama-server's log of level 4."""
    found, began = [], None
    for line in log.splitlines():
        stamp = LOG_TIME.match(line)
        if not stamp:
            continue
        minutes, seconds, milli, micro = map(int, stamp.groups())
        now = (minutes * 60 + seconds) * 1e3 + milli + micro / 1e3
        if "encoding mtmd batch" in line:
            began = now
        elif "decoding image batch" in line and began is not None:
            found.append(now - began)
            began = None
    return found


@dataclass(frozen=True)
class LlamaCpp:
    """llama.cpp's programs in one folder."""

    bin: pathlib.Path
    threads: int
    out: pathlib.Path
    repack: bool = True  # False: without its rearranged weights, and so without AMX

    def bench(self, model: pathlib.Path, prompt: int, gen: int, depth: int) -> float:
        """Tokens a second of one run. The warm-up is a run as long as the measured one, so
        long ones go without."""
        command = [str(self.bin / "llama-bench"), "-m", str(model), "-t", str(self.threads), "-r", "1"]
        command += ["-p", str(prompt), "-n", str(gen), "-d", str(depth), "-o", "jsonl"]
        if not self.repack:
            command += ["--repack", "0"]
        if prompt + depth > 1024:
            command.append("--no-warmup")
        lines = [json.loads(line) for line in run(command).splitlines() if line.startswith("{")]
        if len(lines) != 1:
            raise ProgramFailed(f"{' '.join(command)}: {len(lines)} results")
        return float(lines[0]["avg_ts"])

    def prefill(self, model: pathlib.Path, rows: int) -> float:
        return self.bench(model, rows, 0, 0)

    def decode(self, model: pathlib.Path, tokens: int, context: int) -> float:
        return self.bench(model, 0, tokens, context)

    def quantize(self, source: pathlib.Path, target: pathlib.Path, kind: str) -> None:
        if not target.is_file():
            part = target.with_name(target.name + ".part")
            run([str(self.bin / "llama-quantize"), "--allow-requantize", str(source), str(part), kind])
            part.rename(target)

    def serve(self, model: pathlib.Path, mmproj: pathlib.Path, parallel: int, rows: int) -> Any:
        port = free_port()
        command = [str(self.bin / "llama-server"), "-m", str(model), "--mmproj", str(mmproj)]
        command += ["-t", str(self.threads), "-np", str(parallel), "-c", str(rows * parallel)]
        command += ["--host", "127.0.0.1", "--port", str(port), "-lv", "4"]
        if not self.repack:
            command.append("--no-repack")
        return serving(command, port, self.out / "llama-server.log")
