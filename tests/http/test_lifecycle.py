"""Start, stop and who leaves when: loading, drain, port in use, vanished clients."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time

from harness import BINARY, CHAT, MODEL, ROOT, Cases, Server, check, check_error, need_models, user

LONG = {**user("Tell me a long story."), "max_tokens": 2000, "ignore_eos": True}


def http_request(body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def eventually(condition, what: str, seconds: float = 20) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < until, f"not within {seconds} s: {what}")
        time.sleep(0.02)


def running(server: Server) -> float:
    return server.metric("tamp_num_requests_running")


def start_stream(server: Server, fields: dict | None = None) -> tuple[socket.socket, bytes]:
    s = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    s.sendall(http_request({**LONG, "stream": True, **(fields or {})}))
    got = b""
    while got.count(b"data: ") < 3:
        chunk = s.recv(4096)
        check(chunk, f"the stream ended: {got[:300]!r}")
        got += chunk
    return s, got


def loading() -> None:
    server = Server(wait=False)
    try:
        seen = set()
        until = time.monotonic() + 60
        while 200 not in seen and time.monotonic() < until:
            try:
                answer = server.request("GET", "/health")
            except OSError:
                continue
            seen.add(answer.status)
            if answer.status == 503:
                check_error(answer, 503, "loading")
                check("retry-after" in answer.headers, "Retry-After")
                refused = server.chat(user("hi", max_tokens=1))
                if refused.status == 503:
                    check_error(refused, 503, "loading")
        check(seen == {200, 503}, f"statuses {seen}")
    finally:
        check(server.stop() == 0, "exit status")


def port_in_use() -> None:
    with Server(vision=False) as server:
        began = time.monotonic()
        second = subprocess.run(
            [BINARY, "serve", "--port", str(server.port), "--model", str(MODEL)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            check=False,
        )
        check(second.returncode != 0, "it started")
        check("cannot listen" in second.stderr, second.stderr)
        check(time.monotonic() - began < 30, "slow")
        check(server.request("GET", "/health").status == 200, "the first one lives on")


def beyond_loopback() -> None:
    got = subprocess.run(
        [BINARY, "serve", "--host", "0.0.0.0", "--port", "0", "--model", str(MODEL)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    check(got.returncode != 0, "it started without a key")
    check("--insecure" in got.stderr, got.stderr)


def drain() -> None:
    """SIGTERM: the listener goes, the stream in flight ends whole, exit 0."""
    with Server(vision=False) as server:
        s, got = start_stream(server, {"max_tokens": 30})
        kept = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        check(b" 200 " in kept.recv(4096), "health before")
        server.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
                return False
            except OSError:
                return True

        eventually(refused, "the listener is closed")
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            text = kept.recv(4096)
            check(not text or b" 503 " in text, f"{text[:60]!r}")
            check(not text or b"shutting_down" in text, f"{text!r}")
        except ConnectionError:
            pass  # the drain was over before
        while chunk := s.recv(65536):
            got += chunk
        check(b"data: [DONE]" in got, "the stream was cut")
        check(server.process.wait(30) == 0, "exit status")


def drain_timeout() -> None:
    """What does not end in time is ended with an error event, without [DONE]."""
    with Server("--drain-timeout", "1", vision=False) as server:
        s, got = start_stream(server)
        server.process.send_signal(signal.SIGTERM)
        while chunk := s.recv(65536):
            got += chunk
        check(b'"code":"shutting_down"' in got, f"{got[-300:]!r}")
        check(b"[DONE]" not in got, "[DONE] after an error")
        check(server.process.wait(30) == 0, "exit status")


def second_signal() -> None:
    with Server(vision=False) as server:
        s, _ = start_stream(server)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        check(server.process.wait(10) != 0, "exit status of a forced stop")
        s.close()


class Leaving:
    """A client that goes frees its slot, whatever it was doing."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def freed(self) -> None:
        eventually(lambda: running(self.server) == 0, "the slot is free")
        check(self.server.chat(user("hi", max_tokens=1)).status == 200, "the next request")

    def streaming(self) -> None:
        s, _ = start_stream(self.server)
        check(running(self.server) == 1, "it runs")
        s.close()
        self.freed()

    def streaming_reset(self) -> None:
        s, _ = start_stream(self.server)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
        self.freed()

    def waiting(self) -> None:
        before = self.server.metric("tamp_requests_cancelled_total")
        s = socket.create_connection(("127.0.0.1", self.server.port))
        s.sendall(http_request(LONG))
        eventually(lambda: running(self.server) == 1, "it runs")
        s.close()
        self.freed()
        eventually(
            lambda: self.server.metric("tamp_requests_cancelled_total") > before, "it is counted"
        )

    def prefilling(self) -> None:
        s = socket.create_connection(("127.0.0.1", self.server.port))
        s.sendall(http_request({**LONG, **user("word " * 3000)}))
        eventually(lambda: running(self.server) == 1, "it runs")
        s.close()
        self.freed()

    def queued(self) -> None:
        sockets = [start_stream(self.server)[0] for _ in range(4)]
        s = socket.create_connection(("127.0.0.1", self.server.port))
        s.sendall(http_request(LONG))
        waiting = "tamp_num_requests_waiting"
        eventually(lambda: self.server.metric(waiting) == 1, "it waits")
        s.close()
        eventually(lambda: self.server.metric(waiting) == 0, "it left the queue")
        for other in sockets:
            other.close()
        self.freed()

    def slow_header(self) -> None:
        s = socket.create_connection(("127.0.0.1", self.server.port), timeout=40)
        began = time.monotonic()
        s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(1):
                try:
                    s.sendall(b"X: y\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        got = b""
        try:
            while chunk := s.recv(4096):
                got += chunk
        except OSError:
            pass
        stop.set()
        thread.join()
        took = time.monotonic() - began
        check(14 < took < 25, f"closed after {took:.1f} s")
        check(not got or b" 408 " in got, f"{got[:60]!r}")


def main() -> None:
    need_models()
    cases = Cases()
    cases.run("503 while loading, then 200", loading)
    cases.run("port in use", port_in_use)
    cases.run("beyond loopback without a key", beyond_loopback)
    cases.run("SIGTERM drains", drain)
    cases.run("drain time-out", drain_timeout)
    cases.run("second SIGTERM", second_signal)
    with Server(vision=False) as server:
        leaving = Leaving(server)
        cases.run("leaving while streaming", leaving.streaming)
        cases.run("leaving with a reset", leaving.streaming_reset)
        cases.run("leaving while waiting for a whole answer", leaving.waiting)
        cases.run("leaving during prefill", leaving.prefilling)
        cases.run("leaving the queue", leaving.queued)
        cases.run("headers byte by byte", leaving.slow_header)
        cases.end(server)


if __name__ == "__main__":
    main()
