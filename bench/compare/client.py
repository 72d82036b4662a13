"""A chat client that keeps the time of every token, and pictures nobody has cached."""

import base64
import http.client
import json
import random
import struct
import threading
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_S = 900
WORDS = ("red", "shoe", "paper", "tea", "glass", "coat", "lamp")


class RequestFailed(Exception):
    """The server answered with something that is not 200, or stopped in the middle."""


@dataclass
class Answer:
    began: float
    ended: float
    token_times: list[float] = field(default_factory=list)  # when each chunk with text came
    text: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)

    def first_token_ms(self) -> float:
        return ((self.token_times or [self.ended])[0] - self.began) * 1e3

    def gaps_ms(self) -> list[float]:
        return [(b - a) * 1e3 for a, b in zip(self.token_times, self.token_times[1:])]


def sse_events(lines: Any) -> Any:
    """The JSON of each `data:` line up to [DONE]."""
    for raw in lines:
        data = raw.decode().strip()
        if data == "data: [DONE]":
            return
        if data.startswith("data:"):
            yield json.loads(data[5:])


def chat(port: int, content: Any, max_tokens: int, extra: dict[str, Any]) -> Answer:
    """One user message, greedy, streamed, never ending early."""
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **extra,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    payload = json.dumps(body).encode()
    began = time.perf_counter()
    try:
        connection.request("POST", "/v1/chat/completions", payload, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise RequestFailed(f"HTTP {reply.status}: {reply.read(400).decode(errors='replace')}")
        answer = Answer(began, began)
        for event in sse_events(reply):
            if "error" in event:
                raise RequestFailed(json.dumps(event["error"]))
            piece = "".join(c.get("delta", {}).get("content") or "" for c in event.get("choices", []))
            if piece:
                answer.token_times.append(time.perf_counter())
                answer.text += piece
            answer.usage = event.get("usage") or answer.usage
            answer.timings = event.get("timings") or answer.timings
        answer.ended = time.perf_counter()
        if not answer.usage:
            raise RequestFailed("the stream ended without its usage")
        return answer
    finally:
        connection.close()


def chat_together(port: int, contents: list[Any], max_tokens: int, extra: dict[str, Any]) -> list[Answer]:
    """All at the same time, one client each."""
    answers: list[Answer | Exception] = [RequestFailed("not answered")] * len(contents)

    def ask(i: int) -> None:
        try:
            answers[i] = chat(port, contents[i], max_tokens, extra)
        except (OSError, ValueError, http.client.HTTPException, RequestFailed) as error:
            answers[i] = error

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(contents))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    good = []
    for a in answers:
        if isinstance(a, Exception):
            raise RequestFailed(str(a)) from a
        good.append(a)
    return good


def words(n: int, seed: object) -> str:
    """n words, each one token, in an order that no other seed has."""
    r = random.Random(str(seed))
    return "Words:" + "".join(" " + r.choice(WORDS) for _ in range(n))


def prompt_of(port: int, rows: int, extra: dict[str, Any]) -> int:
    """How many words make a prompt of `rows` rows with this server's chat template."""
    n = max(rows - 40, 1)
    return n + rows - chat(port, words(n, "size"), 1, extra).usage["prompt_tokens"]


def png(side: int, seed: object) -> bytes:
    """A picture of side x side pixels, 16 x 16 coloured squares; a seed has its own."""
    r = random.Random(str(seed))
    squares = [[r.randbytes(3) for _ in range(16)] for _ in range(16)]
    width = side // 16
    rows = b"".join(b"\0" + b"".join(s * width for s in squares[y // width]) for y in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def picture_part(side: int, seed: object) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(png(side, seed)).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
