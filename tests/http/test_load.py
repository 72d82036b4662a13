"""1,000 requests from 8 clients, one in ten leaving early: every one is answered or
counted, nothing leaks. TAMP_LOAD_REQUESTS changes the number.

A small model with random weights answers: this measures the server, not arithmetic."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from pathlib import Path

from harness import CHAT, Cases, Server, check, user

N_REQUESTS = int(os.environ.get("TAMP_LOAD_REQUESTS", "1000"))
N_CLIENTS = 8
MIB = 1 << 20


class Load:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.lock = threading.Lock()
        self.todo = N_REQUESTS
        self.answered = self.refused = self.left = 0
        self.wrong: list[str] = []

    def client(self, seed: int) -> None:
        rng = random.Random(seed)
        while True:
            with self.lock:
                if self.todo == 0:
                    return
                self.todo -= 1
            try:
                self.one(rng)
            except Exception as error:  # pylint: disable=broad-except
                with self.lock:
                    self.wrong.append(f"{type(error).__name__}: {error}")

    def one(self, rng: random.Random) -> None:
        body = user("Say " + "something " * rng.randint(1, 8), max_tokens=rng.randint(1, 8))
        body["stream"] = rng.random() < 0.5
        if rng.random() < 0.1:
            self.leave(body, rng.random() * 0.05)
            return
        answer = self.server.chat(body)
        if answer.status == 429:
            check("retry-after" in answer.headers, "429 without Retry-After")
            with self.lock:
                self.refused += 1
            return
        check(answer.status == 200, f"{answer.status}: {answer.text[:200]}")
        if body["stream"]:
            check(answer.events()[-1] == "[DONE]", "a stream without [DONE]")
        else:
            check(answer.json["choices"][0]["finish_reason"], "no finish_reason")
        with self.lock:
            self.answered += 1

    def leave(self, body: dict, after: float) -> None:
        data = json.dumps(body).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", self.server.port)) as s:
            s.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            time.sleep(after)
        with self.lock:
            self.left += 1

    def run(self) -> None:
        threads = [threading.Thread(target=self.client, args=(i,)) for i in range(N_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def threads_of(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def settle(server: Server) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if server.metric("tamp_num_requests_running") + server.metric("tamp_num_requests_waiting") == 0:
            return
        time.sleep(0.05)


def main() -> None:
    cases = Cases()
    with Server(tiny=True) as server:
        warm = Load(server)
        warm.todo = min(100, N_REQUESTS)
        warm.run()
        settle(server)
        before = server.resident_bytes(), descriptors(server), threads_of(server)
        chat = 'tamp_requests_total{endpoint="chat"'
        counted_before = count(server, chat)
        load = Load(server)
        began = time.monotonic()
        load.run()
        took = time.monotonic() - began
        settle(server)
        print(
            f"{N_REQUESTS} requests in {took:.1f} s: {load.answered} answered, "
            f"{load.refused} refused with 429, {load.left} left, {len(load.wrong)} wrong"
        )

        def all_answered() -> None:
            check(not load.wrong, "; ".join(load.wrong[:3]))
            check(load.answered + load.refused + load.left == N_REQUESTS, "requests are missing")

        def all_counted() -> None:
            until = time.monotonic() + 10
            while count(server, chat) - counted_before < N_REQUESTS and time.monotonic() < until:
                time.sleep(0.05)
            counted = count(server, chat) - counted_before
            check(counted == N_REQUESTS, f"{counted:.0f} of {N_REQUESTS} in tamp_requests_total")

        def flat() -> None:
            grown = server.resident_bytes() - before[0]
            # 8 clients' worth of heap arenas that malloc keeps; a leak of 10 kB a
            # request would show as 10 MiB and more.
            check(grown < 8 * MIB, f"resident memory grew by {grown / MIB:.1f} MiB")

        def same_handles() -> None:
            until = time.monotonic() + 10
            while descriptors(server) > before[1] and time.monotonic() < until:
                time.sleep(0.1)
            now = descriptors(server), threads_of(server)
            check(now[0] <= before[1], f"{before[1]} descriptors became {now[0]}")
            check(now[1] <= before[2], f"{before[2]} threads became {now[1]}")

        cases.run("every request was answered, refused with Retry-After, or left", all_answered)
        cases.run("every request was counted", all_counted)
        cases.run("resident memory is flat", flat)
        cases.run("descriptors and threads are as before", same_handles)
        cases.end(server)


def count(server: Server, prefix: str) -> float:
    total = 0.0
    for line in server.request("GET", "/metrics").text.splitlines():
        if line.startswith(prefix):
            total += float(line.rsplit(" ", 1)[1])
    return total


if __name__ == "__main__":
    main()
