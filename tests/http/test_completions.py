"""/v1/completions, and the routes that count and look, against chat and against each other."""

from __future__ import annotations

import json
from typing import Any

import openai
from harness import PICTURE, Cases, Server, check, check_error, need_models, picture, user

QUESTION = "What is the capital of France?"
UNICODE = "Größe 42 🎉 漢字 <|im_start|>"
FIXED = {"temperature": 0, "max_tokens": 12, "extra_body": {"compression": "off"}}


class Suite:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.api = openai.OpenAI(
            base_url=f"http://127.0.0.1:{server.port}/v1", api_key="unused", max_retries=0
        )

    def post(self, path: str, body: Any) -> Any:
        answer = self.server.request("POST", path, body)
        check(answer.status == 200, f"{path}: {answer.status} {answer.text[:300]}")
        return answer.json

    def complete(self, prompt: Any, **more: Any) -> Any:
        return self.api.completions.create(model="default", prompt=prompt, **{**FIXED, **more})

    # -- tokens ------------------------------------------------------------------------------

    def tokens(self) -> None:
        plain = self.post("/tokenize", {"content": UNICODE, "parse_special": False})["tokens"]
        special = self.post("/tokenize", {"content": UNICODE})["tokens"]
        check(len(special) < len(plain), "a special token is one token")
        for ids in (plain, special):
            back = self.post("/detokenize", {"tokens": ids})
            check(back == {"content": UNICODE, "prompt": UNICODE}, str(back))
        pieces = self.post("/tokenize", {"content": UNICODE, "with_pieces": True})["tokens"]
        check([p["id"] for p in pieces] == special, "the same ids")
        raw = b"".join(
            p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces
        )
        check(raw == UNICODE.encode(), str(pieces))
        check(any(isinstance(p["piece"], list) for p in pieces), "parts of characters are bytes")

    def as_vllm(self) -> None:
        got = self.post("/tokenize", {"prompt": "Hello world", "return_token_strs": True})
        check("".join(got["token_strs"]) == "Hello world", str(got))
        check(got["count"] == len(got["tokens"]), str(got))
        check(got["max_model_len"] == self.props()["default_generation_settings"]["n_ctx"], "len")
        chat = self.post("/tokenize", user(QUESTION))
        text = self.post("/apply-template", user(QUESTION))["prompt"]
        check(self.post("/detokenize", {"tokens": chat["tokens"]})["content"] == text, text)
        check(text.endswith("<|im_start|>assistant\n"), text)
        closed = self.post("/apply-template", user(QUESTION, add_generation_prompt=False))["prompt"]
        check(text.startswith(closed) and len(closed) < len(text), closed)

    def counted(self) -> None:
        for body in (user(QUESTION), picture(PICTURE.read_bytes(), QUESTION)):
            for plan in ("off", "balanced"):
                ask = {**body, "compression": plan, "max_tokens": 1}
                got = self.post("/v1/chat/completions/input_tokens", ask)
                usage = self.server.chat(ask).json["usage"]
                check(got["input_tokens"] == usage["compression"]["original_tokens"], str(got))
                check(got["compressed_tokens_at_most"] >= usage["prompt_tokens"], str(got))
                if plan == "off":
                    check(got["input_tokens"] == usage["prompt_tokens"], str(got))
                    image = usage["prompt_tokens_details"]["image_tokens"]
                    check(got["input_tokens_details"]["image_tokens"] == image, str(got))
        marked = self.post("/apply-template", picture(PICTURE.read_bytes(), QUESTION))["prompt"]
        check(marked.count("<__media__>") == 1, marked)

    def props(self) -> Any:
        answer = self.server.request("GET", "/props")
        check(answer.status == 200, answer.text)
        return answer.json

    def properties(self) -> None:
        got = self.props()
        check(got["modalities"] == {"vision": True, "audio": False}, str(got))
        check(got["bos_token"] == "<|im_start|>" and got["eos_token"] == "<|im_end|>", str(got))
        check(got["total_slots"] >= 1 and got["chat_template"] == "smollm2", str(got))
        check("/" not in got["model_path"], "a path is nobody's business")

    def refused_tokens(self) -> None:
        def post(path: str, body: Any) -> Any:
            return self.server.request("POST", path, body)

        check_error(post("/tokenize", {}), 400, "missing_required_parameter", "content")
        check_error(post("/tokenize", {"content": 1}), 400, "invalid_type", "content")
        check_error(post("/tokenize", {"content": "x" * (1 << 21)}), 400, "text_too_large")
        check_error(post("/tokenize", {"content": "x", "with_pieces": 1}), 400, "invalid_type")
        check_error(post("/tokenize", {"content": "x", "model": "no"}), 404, "model_not_found")
        for bad in ([1.5], [-1], [10**9], ["a"]):
            check_error(post("/detokenize", {"tokens": bad}), 400, None, "tokens[0]")
        check_error(post("/detokenize", {"tokens": 1}), 400, "invalid_type", "tokens")
        check_error(post("/detokenize", {}), 400, "missing_required_parameter", "tokens")
        check_error(post("/apply-template", {}), 400, "missing_required_parameter", "messages")
        check_error(post("/apply-template", user(1)), 400, "invalid_type", "messages[0].content")

    # -- completions ---------------------------------------------------------------------------

    def as_a_chat(self) -> None:
        """The template's text, or its tokens, give the answer that the chat gives."""
        chat = self.api.chat.completions.create(
            model="default", messages=[{"role": "user", "content": QUESTION}], **FIXED
        )
        text = self.post("/apply-template", user(QUESTION))["prompt"]
        ids = self.post("/tokenize", user(QUESTION))["tokens"]
        for prompt in (text, ids, [text], [ids]):
            got = self.complete(prompt)
            check(got.object == "text_completion" and got.id.startswith("cmpl-"), got.id)
            check(got.choices[0].text == chat.choices[0].message.content, got.choices[0].text)
            check(got.usage.prompt_tokens == chat.usage.prompt_tokens, str(got.usage))
            check(got.choices[0].finish_reason == chat.choices[0].finish_reason, "finish")

    def batch(self) -> None:
        prompts = ["The capital of France is", "Two plus two is", "Once upon a time"]
        alone = [self.complete(p).choices[0].text for p in prompts]
        together = self.complete(prompts)
        check([c.text for c in together.choices] == alone, "in company as alone")
        check([c.index for c in together.choices] == [0, 1, 2], "indices")
        check(together.usage.completion_tokens <= 36, str(together.usage))
        twice = self.complete(prompts[:2], n=2, best_of=2)
        check([c.text for c in twice.choices] == [alone[0]] * 2 + [alone[1]] * 2, "prompt by prompt")

    def streamed(self) -> None:
        prompts = ["The capital of France is", "Two plus two is"]
        whole = self.complete(prompts, echo=True)
        check(all(c.text.startswith(p) for c, p in zip(whole.choices, prompts)), "echo")
        chunks = list(
            self.complete(prompts, echo=True, stream=True, stream_options={"include_usage": True})
        )
        texts = ["", ""]
        ends: list[str | None] = [None, None]
        for chunk in chunks:
            for c in chunk.choices:
                texts[c.index] += c.text
                ends[c.index] = c.finish_reason or ends[c.index]
        check(texts == [c.text for c in whole.choices], str(texts))
        check(ends == [c.finish_reason for c in whole.choices], str(ends))
        check(chunks[-1].choices == [] and chunks[-1].usage == whole.usage, "the last has usage")
        bill = list(self.complete("Once", stream=True))[-1]
        check("timings" in bill.model_extra, "without include_usage the last one has the bill")

    def default_length(self) -> None:
        got = self.post("/v1/completions", {"prompt": "Once upon a time", "ignore_eos": True})
        check(got["usage"]["completion_tokens"] == 16, "sixteen, as OpenAI")

    def logprobs(self) -> None:
        got = self.complete("The capital of France is", logprobs=3, max_tokens=6)
        l = got.choices[0].logprobs
        check(len(l.tokens) == len(l.token_logprobs) == len(l.text_offset) == 6, str(l))
        check("".join(l.tokens) == got.choices[0].text, str(l.tokens))
        for token, value, top, at in zip(
            l.tokens, l.token_logprobs, l.top_logprobs, l.text_offset
        ):
            check(len(top) == 3 and top[token] == value == max(top.values()), str(top))
            check(got.choices[0].text[at:].startswith(token), "offset")
        chat = self.api.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": QUESTION}],
            logprobs=True,
            top_logprobs=3,
            **FIXED,
        )
        text = self.post("/apply-template", user(QUESTION))["prompt"]
        same = self.complete(text, logprobs=3).choices[0].logprobs
        check(
            [t.logprob for t in chat.choices[0].logprobs.content] == same.token_logprobs,
            "those of the chat",
        )
        chunks = list(self.complete(text, logprobs=3, stream=True))
        offsets = [o for c in chunks for o in (c.choices[0].logprobs or _none).text_offset]
        check(offsets == same.text_offset, "offsets go on from chunk to chunk")

    def compressed(self) -> None:
        text = "I ordered a blue rain jacket last week and it still has not arrived. " * 8
        plan = {"profile": "off", "text": {"method": "cosine", "threshold": 0.3}}
        ids = self.post("/tokenize", {"prompt": text})["tokens"]
        got = [
            self.complete(p, extra_body={"compression": plan}).usage.model_extra["compression"]
            for p in (text, ids)
        ]
        check(got[0]["compressed_tokens"] < got[0]["original_tokens"] == len(ids), str(got[0]))
        for key in ("compressed_tokens", "original_tokens", "skipped"):
            check(got[0][key] == got[1][key], "tokens are read as their text")

    def refused(self) -> None:
        def bad(code: str | None, param: str | None, **fields: Any) -> None:
            body = {"prompt": "x", **fields}
            check_error(self.server.request("POST", "/v1/completions", body), 400, code, param)

        bad("missing_required_parameter", "prompt", prompt=None)
        bad("invalid_type", "prompt", prompt=3)
        bad("invalid_type", "prompt", prompt=[])
        bad("invalid_type", "prompt[1]", prompt=["a", 3])
        bad("out_of_range", "prompt[1]", prompt=[1, 2.5])
        bad("out_of_range", "prompt[0][0]", prompt=[[10**9]])
        bad("too_many_prompts", "prompt", prompt=["a"] * 65)
        bad("too_many_prompts", "prompt", prompt=["a"] * 33, n=4)
        bad("empty_prompt", "prompt", prompt="")
        bad("unsupported_parameter", "suffix", suffix="end")
        bad("unsupported_parameter", "best_of", best_of=2)
        bad("unsupported_parameter", "echo", echo=True, logprobs=1)
        bad("invalid_type", "logprobs", logprobs=True)
        bad("out_of_range", "logprobs", logprobs=21)
        ids = json.dumps([1] * 9000)
        answer = self.server.request("POST", "/v1/completions", f'{{"prompt":{ids}}}'.encode(),
                                     headers={"Content-Type": "application/json"})
        check_error(answer, 400, "context_length_exceeded")


class _none:  # a chunk without logprobs
    text_offset: list[int] = []


def main() -> None:
    need_models()
    cases = Cases()
    with Server() as server:
        suite = Suite(server)
        cases.run("tokens there and back", suite.tokens)
        cases.run("tokenize as vLLM has it", suite.as_vllm)
        cases.run("what is counted is what is billed", suite.counted)
        cases.run("properties", suite.properties)
        cases.run("bad bodies of these are refused", suite.refused_tokens)
        cases.run("a completion of the template is the chat", suite.as_a_chat)
        cases.run("several prompts", suite.batch)
        cases.run("streamed, with echo", suite.streamed)
        cases.run("sixteen tokens where nothing is said", suite.default_length)
        cases.run("logprobs in the old form", suite.logprobs)
        cases.run("compression, by text or by tokens", suite.compressed)
        cases.run("bad completions are refused by name", suite.refused)
        cases.end(server)


if __name__ == "__main__":
    main()
