"""Bad HTTP, JSON, fields, pictures: each row has its status and code, nothing crashes,
memory stays within its budget, and the next good request works."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

from harness import (
    CHAT,
    PICTURE,
    Answer,
    Cases,
    Server,
    check,
    check_error,
    data_url,
    need_models,
    picture,
    png,
    png_chunk,
    user,
)

HI = '"messages":[{"role":"user","content":"hi"}]'
URL = "messages[0].content[0].image_url.url"
MIB = 1 << 20

# -- HTTP as bytes: (name, request, status) -----------------------------------------------

GOOD_BODY = b"{" + HI.encode() + b',"max_tokens":1}'


def post(headers: str, body: bytes = GOOD_BODY, version: str = "HTTP/1.1") -> bytes:
    return f"POST {CHAT} {version}\r\n{headers}\r\n".encode() + body


JSON_HEADERS = "Host: localhost\r\nContent-Type: application/json\r\n"
LENGTH = f"Content-Length: {len(GOOD_BODY)}\r\n"
# What a smuggler would hide in the body: it must never be run.
HIDDEN = b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSE = "Connection: close\r\n"

RAW: list[tuple[str, bytes, int]] = [
    ("length and chunked", post(JSON_HEADERS + LENGTH + "Transfer-Encoding: chunked\r\n", HIDDEN), 400),
    ("two lengths", post(JSON_HEADERS + LENGTH + LENGTH), 400),
    ("length +5", post(JSON_HEADERS + "Content-Length: +5\r\n", b"{}   "), 400),
    ("length -1", post(JSON_HEADERS + "Content-Length: -1\r\n"), 400),
    ("length 5,5", post(JSON_HEADERS + "Content-Length: 5,5\r\n", b"{}   "), 400),
    ("encoding gzip", post(JSON_HEADERS + "Transfer-Encoding: gzip\r\n", HIDDEN), 400),
    ("encoding chunked, identity", post(JSON_HEADERS + "Transfer-Encoding: chunked, identity\r\n", HIDDEN), 400),
    ("encoding xchunked", post(JSON_HEADERS + "Transfer-Encoding: xchunked\r\n", HIDDEN), 400),
    ("two hosts", post(JSON_HEADERS + "Host: localhost\r\n" + LENGTH), 400),
    ("no host", post("Content-Type: application/json\r\n" + LENGTH), 400),
    ("two authorizations", post(JSON_HEADERS + LENGTH + "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), 400),
    ("unknown expectation", post(JSON_HEADERS + LENGTH + "Expect: 200-ok\r\n"), 417),
    ("foreign host", post("Host: evil.example\r\nContent-Type: application/json\r\n" + LENGTH), 403),
    ("no content type", post("Host: localhost\r\n" + LENGTH), 415),
    ("wrong content type", post("Host: localhost\r\nContent-Type: text/plain\r\n" + LENGTH), 415),
    ("compressed body", post(JSON_HEADERS + LENGTH + "Content-Encoding: gzip\r\n"), 415),
    ("no length", post(JSON_HEADERS, b""), 411),
    ("empty body", post(JSON_HEADERS + "Content-Length: 0\r\n", b""), 400),
    ("length beyond the limit", post(JSON_HEADERS + "Content-Length: 99999999999\r\n", b"{"), 413),
    ("trace", b"TRACE /health HTTP/1.1\r\nHost: localhost\r\n" + CLOSE.encode() + b"\r\n", 405),
    ("unknown path", b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n" + CLOSE.encode() + b"\r\n", 404),
    ("double slash", b"GET //v1/models HTTP/1.1\r\nHost: localhost\r\n" + CLOSE.encode() + b"\r\n", 404),
    ("dot dot", b"GET /v1/../health HTTP/1.1\r\nHost: localhost\r\n" + CLOSE.encode() + b"\r\n", 404),
    ("escaped path", b"GET /v1/%6dodels HTTP/1.1\r\nHost: localhost\r\n" + CLOSE.encode() + b"\r\n", 404),
    ("wrong method", f"GET {CHAT} HTTP/1.1\r\nHost: localhost\r\n{CLOSE}\r\n".encode(), 405),
    ("plain good request", post(JSON_HEADERS + LENGTH + CLOSE), 200),
    ("HTTP/1.0", post(JSON_HEADERS + LENGTH, version="HTTP/1.0"), 200),
    (
        "chunked good request",
        post(
            JSON_HEADERS + CLOSE + "Transfer-Encoding: chunked\r\n",
            b"".join(b"1\r\n" + GOOD_BODY[i : i + 1] + b"\r\n" for i in range(len(GOOD_BODY)))
            + b"0\r\n\r\n",
        ),
        200,
    ),
]

# Bytes for which any refusal or a closed connection will do; the server must live on.
GARBAGE: list[tuple[str, bytes]] = [
    ("bad chunk size", post(JSON_HEADERS + "Transfer-Encoding: chunked\r\n", b"zz\r\n{}\r\n0\r\n\r\n")),
    ("HTTP/0.9", b"GET /health\r\n\r\n"),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64)),
    ("header flood", b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20000 + b"\r\n"),
    ("endless header", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * MIB + b"\r\n\r\n"),
    ("endless path", b"GET /" + b"a" * MIB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("space in a name", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX Y: 1\r\nConnection: close\r\n\r\n"),
    ("nothing but newlines", b"\r\n" * 100),
]

# -- bodies: (name, body, code, param) ------------------------------------------------------

BODIES: list[tuple[str, bytes, str, str | None]] = [
    ("not JSON", b"hello", "invalid_json", None),
    ("trailing bytes", b"{" + HI.encode() + b"}x", "invalid_json", None),
    ("byte-order mark", b"\xef\xbb\xbf{" + HI.encode() + b"}", "invalid_json", None),
    ("array", b"[]", "invalid_type", None),
    ("number", b"1", "invalid_type", None),
    ("null", b"null", "invalid_type", None),
    ("depth 65", b"[" * 65 + b"]" * 65, "json_too_deep", None),
    ("10 MB of brackets", b"[" * 10_000_000, "json_too_deep", None),
    ("10 MB of objects", b'{"a":' * 2_000_000, "json_too_deep", None),
    ("300,000 values", b"[" + b"0," * 300_000 + b"0]", "json_too_large", None),
    ("bad UTF-8", b'{"a":"\xff"}', "invalid_utf8", "a"),
    ("overlong UTF-8", b'{"a":"\xc0\xaf"}', "invalid_utf8", "a"),
    ("lone surrogate", b'{"a":"\\ud800"}', "invalid_utf8", "a"),
    ("escaped NUL", b'{"a":"\\u0000"}', "invalid_string", "a"),
    ("raw control character", b'{"a":"\x01"}', "invalid_json", "a"),
    ("duplicate key", b'{"model":"a","model":"b"}', "duplicate_key", "model"),
    ("nested duplicate key", b'{"messages":[{"role":"user","role":"user"}]}', "duplicate_key", "messages"),
    ("400 digits", b'{"seed":' + b"9" * 400 + b"}", "out_of_range", "seed"),
]

FIELDS: list[tuple[dict[str, Any] | str, str, str]] = [
    ('"temperature":1e999', "out_of_range", "temperature"),
    ('"max_tokens":1.0', "invalid_type", "max_tokens"),
    ('"max_tokens":-0', "invalid_type", "max_tokens"),
    ('"seed":9007199254740993', "out_of_range", "seed"),
    ({"max_tokens": "5"}, "invalid_type", "max_tokens"),
    ({"max_tokens": True}, "invalid_type", "max_tokens"),
    ({"max_tokens": -1}, "out_of_range", "max_tokens"),
    ({"max_tokens": 0}, "out_of_range", "max_tokens"),
    ({"max_tokens": 1 << 31}, "out_of_range", "max_tokens"),
    ({"temperature": -1}, "out_of_range", "temperature"),
    ({"temperature": 1e6}, "out_of_range", "temperature"),
    ({"top_p": 0}, "out_of_range", "top_p"),
    ({"top_p": 2}, "out_of_range", "top_p"),
    ({"top_k": 2147483647}, "out_of_range", "top_k"),
    ({"repeat_last_n": 2147483647}, "out_of_range", "repeat_last_n"),
    ({"n": 0}, "out_of_range", "n"),
    ({"n": 1000}, "out_of_range", "n"),
    ({"logprobs": True, "top_logprobs": 99}, "out_of_range", "top_logprobs"),
    ({"logit_bias": {"-1": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"99999999": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"abc": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {str(i): 1 for i in range(2000)}}, "invalid_value", "logit_bias"),
    ({"stop": ""}, "invalid_value", "stop"),
    ({"stop": ["x"] * 10000}, "invalid_value", "stop"),
    ({"stop": "x" * MIB}, "invalid_value", "stop"),
    ({"stop": 5}, "invalid_type", "stop"),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
    ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    ({"response_format": {"type": "json"}}, "invalid_value", "response_format.type"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
        "unsupported_parameter",
        "response_format.json_schema.schema.not",
    ),
    ({"grammar": "root ::= x"}, "invalid_value", "grammar"),
    ({"model": "no-such-model"}, "model_not_found", "model"),
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": None}, "missing_required_parameter", "messages"),
    ({"messages": [{"content": "x"}]}, "missing_required_parameter", "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "invalid_type", "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "movie"}]}]},
        "invalid_value",
        "messages[0].content[1].type",
    ),
    ({"messages": [{"role": "user", "content": "x"}] * 20000}, "invalid_value", "messages"),
    ({"messages": [{"role": "user", "content": "word " * 20000}]}, "context_length_exceeded", "messages"),
    ({"compression": {"image": {"method": "tome", "ratio": 0}}}, "bad_option_value", "compression.image.ratio"),
    ({"compression": {"image": {"method": "tome", "ratio": -4}}}, "bad_option_value", "compression.image.ratio"),
    ({"compression": {"image": {"method": "nothing"}}}, "", "compression.image.method"),
    ({"compression": "nothing"}, "", "compression"),
]

# -- pictures: (name, url, code) ---------------------------------------------------------------

GOOD = PICTURE.read_bytes()


def bomb_20k() -> bytes:
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * 20000)
    data = b"".join(packer.compress(row) for _ in range(20000)) + packer.flush()
    head = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def bomb_inflate() -> bytes:
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(512 * MIB), 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def bad_crc() -> bytes:
    return GOOD[:-20] + bytes([GOOD[-20] ^ 1]) + GOOD[-19:]


PICTURES: list[tuple[str, str, str | None]] = [
    ("no comma", "data:image/png;base64", "invalid_data_url"),
    ("no ;base64", "data:image/png,%89PNG", "invalid_data_url"),
    ("nothing", "data:", "invalid_data_url"),
    ("empty", "data:image/png;base64,", "invalid_data_url"),
    ("white space", "data:image/png;base64,iVBO Rw0K", "invalid_base64"),
    ("URL-safe letters", "data:image/png;base64,iVBO_w0-", "invalid_base64"),
    ("missing padding", "data:image/png;base64,iVBORw0KGg", "invalid_base64"),
    ("loose bits", "data:image/png;base64,iVBORw0KGh==", "invalid_base64"),
    ("garbage in the middle", data_url(GOOD)[:2000] + "*" + data_url(GOOD)[2001:], "invalid_base64"),
    ("text/html", data_url(GOOD, "text/html"), "unsupported_image"),
    ("unknown magic", data_url(b"hello, world" * 10), "unsupported_image"),
    ("GIF", data_url(b"GIF89a" + bytes(100), "image/gif"), "unsupported_image"),
    ("WebP", data_url(b"RIFF\x64\0\0\0WEBPVP8 " + bytes(90), "image/webp"), "unsupported_image"),
    ("SVG", data_url(b"<svg xmlns='x'/>", "image/svg+xml"), "unsupported_image"),
    ("BMP", data_url(b"BM" + bytes(100), "image/bmp"), "unsupported_image"),
    ("TIFF", data_url(b"II*\0" + bytes(100), "image/tiff"), "unsupported_image"),
    ("PDF", data_url(b"%PDF-1.4" + bytes(100), "application/pdf"), None),
    ("1 x 1", data_url(png(1, 1)), "image_too_small"),
    ("10000 x 1", data_url(png(10000, 1)), None),
    ("1 x 10000", data_url(png(1, 10000)), None),
    ("65535 x 65535", data_url(png(65535, 65535, b"")), "image_too_large"),
    ("2^31 wide", data_url(png(0x7FFFFFFF, 16, b"")), "image_too_large"),
    ("0 wide", data_url(png(0, 16, b"")), None),
    ("bomb: 20k x 20k", data_url(bomb_20k()), None),
    ("bomb: inflates to 512 MiB", data_url(bomb_inflate()), None),
    ("truncated", data_url(GOOD[: len(GOOD) // 2]), "image_truncated"),
    ("no IEND", data_url(GOOD[:-12]), "image_truncated"),
    ("bad CRC", data_url(bad_crc()), None),
    ("http", "http://127.0.0.1/x.png", "url_fetch_disabled"),
    ("https", "https://example.org/x.png", "url_fetch_disabled"),
    ("file", "file:///etc/passwd", "unsupported_url_scheme"),
    ("relative", "x.png", "unsupported_url_scheme"),
]


class Suite:
    def __init__(self, server: Server, cases: Cases) -> None:
        self.server = server
        self.cases = cases

    def good(self) -> None:
        answer = self.server.chat(user("hi", max_tokens=1))
        check(answer.status == 200, f"the next request got {answer.status}: {answer.text[:200]}")

    def row(self, name: str, answer: Answer, code: str | None, param: str | None, status: int) -> None:
        check_error(answer, status, code or None, param)
        self.good()

    def raw_row(self, data: bytes, status: int) -> None:
        got = self.server.raw(data)
        check(got.startswith(b"HTTP/1."), f"answer {got[:60]!r}")
        head = got.split(b"\r\n", 1)[0]
        check(f" {status} ".encode() in head + b" ", f"{head!r}, not {status}")
        check(got.count(b"x-request-id: ") <= 1, "a second request was run")
        body = got.split(b"\r\n\r\n", 1)[1]
        # What libmicrohttpd refuses by itself has a page of its own as body.
        if status >= 400 and body.startswith(b"{"):
            error = json.loads(body)["error"]
            check(set(error) == {"message", "type", "param", "code"}, f"keys {sorted(error)}")
        self.good()

    def garbage_row(self, data: bytes) -> None:
        got = self.server.raw(data, timeout=20)
        if got.startswith(b"HTTP/1."):
            status = int(got.split(b" ", 2)[1])
            check(status >= 400, f"status {status}")
        self.good()

    def field_row(self, fields: dict[str, Any] | str, code: str, param: str) -> None:
        if isinstance(fields, str):
            body: Any = ("{" + HI + "," + fields + "}").encode()
        else:
            body = {**user("hi"), **fields}
        status = 404 if code == "model_not_found" else 400
        self.row(param, self.server.chat(body), code, param, status)

    def run(self) -> None:
        run = self.cases.run
        for name, data, status in RAW:
            run(f"http: {name}", lambda d=data, s=status: self.raw_row(d, s))
        for name, data in GARBAGE:
            run(f"http: {name}", lambda d=data: self.garbage_row(d))
        for name, body, code, param in BODIES:
            run(f"json: {name}", lambda b=body, c=code, p=param: self.row("", self.server.chat(b), c, p, 400))
        for fields, code, param in FIELDS:
            text = fields if isinstance(fields, str) else json.dumps(fields)
            run(f"field: {text[:60]}", lambda f=fields, c=code, p=param: self.field_row(f, c, p))
        for name, url, code in PICTURES:
            body = user([{"type": "image_url", "image_url": {"url": url}}])
            run(f"picture: {name}", lambda b=body, c=code: self.row("", self.server.chat(b), c, None, 400))
        self.run_single()

    def run_single(self) -> None:
        run = self.cases.run
        run("http: pipelined requests are answered in order", self.pipelined)
        run("http: body beyond the limit while it comes", self.long_chunked)
        run("http: 100-continue", self.expect_continue)
        run("http: request ids", self.request_ids)
        run("http: allow of a 405", self.allow)
        run("http: NUL in a header", self.nul_in_header)
        run("json: a chat of 64,000 parts costs no more than its bytes", self.many_parts)
        run("picture: truncated at every 5 %", self.truncations)
        run("picture: wrong media type, right magic", self.wrong_type)
        run("picture: too many", self.too_many)
        run("picture: in a system message", self.in_system)
        run("picture: unknown detail", self.unknown_detail)

    def pipelined(self) -> None:
        one = b"GET /v1/models/none%d HTTP/1.1\r\nHost: localhost\r\nx-request-id: r%d\r\n\r\n"
        data = b"".join(one % (i, i) for i in range(99))
        data += b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        got = self.server.raw(data)
        order = [line for line in got.split(b"\r\n") if line.startswith(b"x-request-id: r")]
        wanted = [b"x-request-id: r%d" % i for i in range(99)]
        check([o for o in order if not o.startswith(b"x-request-id: req_")] == wanted, "order")

    def long_chunked(self) -> None:
        chunk = b"100000\r\n" + b" " * MIB + b"\r\n"
        got = self.server.raw(post(JSON_HEADERS + "Transfer-Encoding: chunked\r\n", chunk * 70))
        check(b" 413 " in got.split(b"\r\n", 1)[0], f"{got[:80]!r}")
        self.good()

    def expect_continue(self) -> None:
        got = self.server.raw(post(JSON_HEADERS + LENGTH + CLOSE + "Expect: 100-continue\r\n"))
        check(got.startswith(b"HTTP/1.1 100 "), f"{got[:60]!r}")
        check(b"HTTP/1.1 200 " in got, "no 200")
        refused = post("Host: localhost\r\nContent-Type: text/plain\r\nExpect: 100-continue\r\n" + LENGTH, b"")
        got = self.server.raw(refused)
        check(got.startswith(b"HTTP/1.1 415 "), f"{got[:60]!r}")

    def request_ids(self) -> None:
        for sent, kept in [("my-id_1.2", True), ("a b", False), ("x" * 200, False), ("<script>", False)]:
            answer = self.server.request("GET", "/health", headers={"x-request-id": sent})
            got = answer.headers["x-request-id"]
            check((got == sent) == kept, f"{sent[:20]} -> {got[:40]}")

    def allow(self) -> None:
        answer = self.server.request("GET", CHAT)
        check(answer.status == 405 and answer.headers.get("allow") == "POST", str(answer.headers))

    def nul_in_header(self) -> None:
        """libmicrohttpd ends the value there and says nothing; what follows is not used."""
        self.server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n" + CLOSE.encode() + b"\r\n")
        self.good()

    def many_parts(self) -> None:
        """Seconds where it was minutes, when every part was looked for among all."""
        message = {"role": "user", "content": [{"type": "text", "text": "a"}] * 64}
        answer = self.server.chat({"messages": [message] * 1000}, timeout=15)
        check_error(answer, 400, "context_length_exceeded", "messages")

    def truncations(self) -> None:
        for percent in range(5, 100, 5):
            body = picture(GOOD[: len(GOOD) * percent // 100], max_tokens=1)
            check_error(self.server.chat(body), 400, None)
        self.good()

    def wrong_type(self) -> None:
        url = data_url(GOOD, "image/jpeg")
        body = user([{"type": "image_url", "image_url": url}], max_tokens=1)
        check(self.server.chat(body).status == 200, "not accepted")

    def too_many(self) -> None:
        part = {"type": "image_url", "image_url": {"url": data_url(png(32, 32))}}
        self.row("", self.server.chat(user([part] * 100)), "too_many_images", None, 400)

    def in_system(self) -> None:
        part = {"type": "image_url", "image_url": {"url": data_url(GOOD)}}
        body = {"messages": [{"role": "system", "content": [part]}, {"role": "user", "content": "x"}]}
        self.row("", self.server.chat(body), "image_input_unsupported", None, 400)

    def unknown_detail(self) -> None:
        part = {"type": "image_url", "image_url": {"url": data_url(GOOD), "detail": "ultra"}}
        code, param = "invalid_value", "messages[0].content[0].image_url.detail"
        self.row("", self.server.chat(user([part])), code, param, 400)


def main() -> None:
    need_models()
    cases = Cases()
    with Server() as server:
        suite = Suite(server, cases)
        cases.run("a picture is answered before", lambda: picture_works(server))
        before = server.peak_bytes()
        suite.run()

        def memory() -> None:
            # Four bodies of the limit may be in memory at once, and one picture decoded.
            grown = server.peak_bytes() - before
            check(grown < 320 * MIB, f"peak memory grew by {grown / MIB:.0f} MiB")

        cases.run("peak memory stayed within 320 MiB of the start", memory)
        cases.run("a picture is answered after", lambda: picture_works(server))
        cases.run("the server is alive", lambda: check(server.process.poll() is None, "it died"))
        cases.end(server)


def picture_works(server: Server) -> None:
    answer = server.chat(picture(GOOD, max_tokens=1))
    check(answer.status == 200, f"{answer.status}: {answer.text[:200]}")


if __name__ == "__main__":
    main()
