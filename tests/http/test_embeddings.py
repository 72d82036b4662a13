"""/v1/embeddings: against llama.cpp's vectors, and as the official client asks for them."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import openai
from harness import PICTURE, ROOT, Cases, Server, check, check_error, need_models, picture

GOLDEN = json.loads((ROOT / "tests/golden/embeddings.json").read_text(encoding="utf-8"))
TEXTS = GOLDEN["texts"]
# Both sides round: llama.cpp's activations to 8 bits, tamp's to 12. With --precision f32 they
# still differ by the former.
ALIKE = 0.999


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def floats(text: str) -> list[float]:
    data = base64.b64decode(text, validate=True)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def golden(server: Server, pooling: str) -> None:
    got = server.request("POST", "/v1/embeddings", {"input": TEXTS}).json
    check([d["index"] for d in got["data"]] == list(range(len(TEXTS))), "in order")
    for entry, want in zip(got["data"], GOLDEN[pooling], strict=True):
        alike = cosine(entry["embedding"], floats(want))
        check(alike > ALIKE, f"{pooling}: {alike}")
        check(abs(sum(x * x for x in entry["embedding"]) - 1) < 1e-5, "length 1")


class Suite:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.api = openai.OpenAI(
            base_url=f"http://127.0.0.1:{server.port}/v1", api_key="unused", max_retries=0
        )

    def post(self, body: Any) -> Any:
        answer = self.server.request("POST", "/v1/embeddings", body)
        check(answer.status == 200, answer.text[:300])
        return answer.json

    def client(self) -> None:
        """The client asks for base64 and unpacks it itself."""
        got = self.api.embeddings.create(model="default", input=TEXTS)
        plain = self.post({"input": TEXTS, "encoding_format": "float"})
        check(got.object == "list" and len(got.data) == len(TEXTS), str(got.object))
        for a, b in zip(got.data, plain["data"]):
            check(max(abs(x - y) for x, y in zip(a.embedding, b["embedding"])) < 1e-8, "the same")
        check(got.usage.prompt_tokens == got.usage.total_tokens > 0, str(got.usage))

    def forms(self) -> None:
        one = self.post({"input": TEXTS[1]})["data"]
        ids = self.server.request("POST", "/tokenize", {"content": TEXTS[1]}).json["tokens"]
        for same in (ids, [ids], [TEXTS[1]]):
            check(self.post({"input": same})["data"] == one, "another vector")
        raw = self.post({"input": TEXTS[1], "encoding_format": "base64"})["data"][0]["embedding"]
        check(max(abs(x - y) for x, y in zip(floats(raw), one[0]["embedding"])) < 1e-8, "base64")
        size = len(one[0]["embedding"])
        check(self.post({"input": TEXTS[1], "dimensions": size})["data"] == one, "dimensions")

    def many(self) -> None:
        texts = [f"text number {i}" for i in range(40)]
        got = self.post({"input": texts})["data"]
        check([d["index"] for d in got] == list(range(40)), "in order")
        for i in (0, 17, 39):
            check(self.post({"input": texts[i]})["data"][0]["embedding"] == got[i]["embedding"], "i")

    def pictures(self) -> None:
        body = picture(PICTURE.read_bytes(), "A photo of a product.")
        whole = self.post({**body, "compression": "off"})
        packed = self.post({**body, "compression": "balanced"})
        text = self.post({"messages": [{"role": "user", "content": "A poem about the sea."}]})
        vectors = [r["data"][0]["embedding"] for r in (whole, packed, text)]
        check(packed["usage"]["compression"]["image"]["rows_out"] == 64, "rows")
        check(packed["usage"]["prompt_tokens"] < whole["usage"]["prompt_tokens"], "fewer rows")
        near, far = cosine(vectors[0], vectors[1]), cosine(vectors[0], vectors[2])
        check(near > far, f"{near} to its packed self, {far} to a text")

    def counted(self) -> None:
        firsts = self.server.metric("tamp_time_to_first_token_seconds_count")
        tokens = self.server.metric("tamp_prompt_tokens_total")
        used = self.post({"input": TEXTS})["usage"]["prompt_tokens"]
        check(self.server.metric("tamp_prompt_tokens_total") == tokens + used, "tokens")
        check(self.server.metric("tamp_time_to_first_token_seconds_count") == firsts, "no answer")

    def refused(self) -> None:
        def bad(code: str | None, param: str, **fields: Any) -> None:
            answer = self.server.request("POST", "/v1/embeddings", {"input": "x", **fields})
            check_error(answer, 400, code, param)

        bad("missing_required_parameter", "input", input=None)
        bad("invalid_type", "input", input={})
        bad("invalid_type", "input", input=[])
        bad("invalid_type", "input[1]", input=["a", {}])
        bad("out_of_range", "input[0][1]", input=[[1, -1]])
        bad("empty_prompt", "input[1]", input=["a", ""])
        bad("too_many_prompts", "input", input=["a"] * 2049)
        bad("context_length_exceeded", "input[0]", input="word " * 20000)
        bad("unsupported_dimensions", "dimensions", dimensions=64)
        bad("invalid_value", "encoding_format", encoding_format="hex")
        bad("invalid_type", "encoding_format", encoding_format=1)
        answer = self.server.request("POST", "/v1/embeddings", {"input": "x", "model": "no"})
        check_error(answer, 404, "model_not_found", "model")


def main() -> None:
    need_models()
    cases = Cases()
    with Server("--pooling", "mean", vision=False) as server:
        cases.run("mean, as llama.cpp", lambda: golden(server, "mean"))
    with Server() as server:
        suite = Suite(server)
        cases.run("last, as llama.cpp", lambda: golden(server, "last"))
        cases.run("the official client", suite.client)
        cases.run("a string, ids, lists", suite.forms)
        cases.run("many at a time", suite.many)
        cases.run("a chat with a picture", suite.pictures)
        cases.run("counted", suite.counted)
        cases.run("bad bodies are refused by name", suite.refused)
        cases.end(server)


if __name__ == "__main__":
    main()
