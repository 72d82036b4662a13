"""What the HTTP tests share: a real server as a child process, raw sockets, cases.

A test script makes one `Server`, runs its cases with `Cases`, and ends with the line
"N passed, N failed, N skipped" and the matching exit status. The binary is
$TAMP_BINARY, or ./tamp. Only the standard library is used here.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TAMP_BINARY", str(ROOT / "tamp"))
MODEL = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
MMPROJ = ROOT / "models/mmproj-dinov2-s14-smollm2.gguf"
# A small model with random weights, in the repository: for tests of the server alone.
TINY = ROOT / "tests/golden/tiny/llama-bpe.gguf"
PICTURE = ROOT / "tests/golden/picture_224.png"
CHAT = "/v1/chat/completions"
READY_S = 120  # loading on a busy machine


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Server:
    """`tamp serve` on a free port; ended with SIGTERM, its log kept for failures."""

    def __init__(self, *flags: str, wait: bool = True, vision: bool = True, tiny: bool = False) -> None:
        self.port = free_port()
        self.log = tempfile.NamedTemporaryFile(prefix="tamp-", suffix=".log")
        command = [BINARY, "serve", "--port", str(self.port)]
        command += ["--model", str(TINY if tiny else MODEL)]
        if tiny:
            command += ["--chat-template", "chatml"]
        elif vision:
            command += ["--mmproj", str(MMPROJ)]
        self.process = subprocess.Popen(
            command + list(flags), stdout=self.log, stderr=self.log, cwd=ROOT
        )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                if self.request("GET", "/health").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start:\n{self.log_text()}")

    def log_text(self) -> str:
        return Path(self.log.name).read_text(errors="replace")

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 120,
    ) -> "Answer":
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            head = dict(headers or {})
            data = body
            if body is not None and not isinstance(body, bytes):
                data = json.dumps(body).encode()
            if data is not None:
                head.setdefault("Content-Type", "application/json")
            connection.request(method, path, data, head)
            return Answer.read(connection.getresponse())
        finally:
            connection.close()

    def chat(self, body: Any, **more: Any) -> "Answer":
        return self.request("POST", CHAT, body, **more)

    def raw(self, data: bytes, timeout: float = 30, half_close: bool = False) -> bytes:
        """Sends bytes as they are and reads until the server closes or is silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as s:
            got = b""
            try:
                s.sendall(data)
                if half_close:
                    s.shutdown(socket.SHUT_WR)
                while chunk := s.recv(65536):
                    got += chunk
            except (TimeoutError, ConnectionError):
                pass
            return got

    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def peak_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def metric(self, name: str) -> float:
        """The sum over the series of one metric whose text begins with `name`."""
        total = 0.0
        for line in self.request("GET", "/metrics").text.splitlines():
            if line.startswith(name) and line[len(name)] in " {":
                total += float(line.rsplit(" ", 1)[1])
        return total

    def metric_series(self, series: str) -> float:
        for line in self.request("GET", "/metrics").text.splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def stop(self, timeout: float = 60) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -9

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self.log.close()


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @staticmethod
    def read(response: http.client.HTTPResponse) -> "Answer":
        headers = {k.lower(): v for k, v in response.getheaders()}
        return Answer(response.status, headers, response.read())

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The data of a stream, "[DONE]" as it is."""
        out: list[Any] = []
        for line in self.text.split("\n"):
            if line.startswith("data: "):
                data = line[6:]
                out.append(data if data == "[DONE]" else json.loads(data))
        return out


class Skip(Exception):
    pass


class Cases:
    """Runs cases, one line each, and counts."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = 0

    def run(self, name: str, fn: Callable[[], None]) -> bool:
        try:
            fn()
        except Skip as reason:
            self.skipped += 1
            print(f"skip  {name}: {reason}", flush=True)
        except Exception as error:  # pylint: disable=broad-except
            self.failed += 1
            print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)
            return False
        else:
            self.passed += 1
            print(f"ok    {name}", flush=True)
        return True

    def end(self, server: Server | None = None) -> None:
        if self.failed and server is not None:
            print("-- the last lines of the server's log")
            print("\n".join(server.log_text().splitlines()[-30:]))
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        sys.exit(1 if self.failed else 0)


def need_models() -> None:
    """Without the downloaded models there is nothing to serve: one skipped test."""
    for path in (MODEL, MMPROJ):
        if not path.exists():
            print(f"skip  {path.relative_to(ROOT)} is missing: run make models")
            print("0 passed, 0 failed, 1 skipped")
            sys.exit(0)


def check(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def check_error(answer: Answer, status: int, code: str | None, param: str | None = None) -> None:
    check(answer.status == status, f"status {answer.status}, not {status}: {answer.text[:300]}")
    check(answer.headers.get("x-request-id"), "no x-request-id")
    check(answer.headers.get("content-type") == "application/json", "not application/json")
    error = answer.json["error"]
    check(set(error) == {"message", "type", "param", "code"}, f"keys {sorted(error)}")
    check(isinstance(error["message"], str) and error["message"], "no message")
    if code is not None:
        check(error["code"] == code, f"code {error['code']}, not {code}: {error['message']}")
    if param is not None:
        check(error["param"] == param, f"param {error['param']}, not {param}")


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **fields}


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(data: bytes, question: str = "What is it?", **fields: Any) -> dict[str, Any]:
    return user(
        [
            {"type": "image_url", "image_url": {"url": data_url(data)}},
            {"type": "text", "text": question},
        ],
        **fields,
    )


def png_chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png(
    width: int, height: int, rows: bytes | None = None, colour: int = 2, depth: int = 8
) -> bytes:
    """A PNG of one grey, or of the given filtered rows."""
    if rows is None:
        rows = (b"\0" + b"\x80" * (3 * width)) * height
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", zlib.compress(rows, 9))
        + png_chunk(b"IEND", b"")
    )
