"""The official Python client: plain, streamed, pictures, error types, retry on 429."""

from __future__ import annotations

import threading
import time

import openai
from harness import PICTURE, Cases, Server, check, data_url, need_models

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def client(server: Server, **more: object) -> openai.OpenAI:
    settings: dict = {"max_retries": 0, "timeout": 120, **more}
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="unused", **settings)


def photo(detail: str = "auto") -> list[dict]:
    url = data_url(PICTURE.read_bytes())
    return [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url, "detail": detail}},
                {"type": "text", "text": "What kind of product is it?"},
            ],
        }
    ]


class Suite:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.api = client(server)

    def ask(self, messages: object = None, **more: object):  # type: ignore[no-untyped-def]
        fields = {"max_tokens": 8, "temperature": 0, **more}
        return self.api.chat.completions.create(
            model="default", messages=messages or QUESTION, **fields  # type: ignore[arg-type]
        )

    def plain(self) -> None:
        answer = self.ask()
        choice = answer.choices[0]
        check(choice.message.role == "assistant" and choice.message.content, "no answer")
        check(choice.message.refusal is None and choice.logprobs is None, "refusal, logprobs")
        check(choice.finish_reason in ("stop", "length"), str(choice.finish_reason))
        check(answer.id.startswith("chatcmpl-") and answer.object == "chat.completion", answer.id)
        usage = answer.usage
        check(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, "usage")
        extra = usage.model_extra
        check("compression" in extra and extra["compression"]["profile"] == "balanced", str(extra))
        check("timings" in answer.model_extra and "memory" in answer.model_extra, "timings")

    def streamed(self) -> None:
        whole = self.ask().choices[0].message.content
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        check(chunks[0].choices[0].delta.role == "assistant", "the first chunk is the role")
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        check(text == whole, f"{text!r}, not {whole!r}")
        check(len({(c.id, c.created) for c in chunks}) == 1, "one id and time throughout")
        check(all(c.usage is None for c in chunks[:-1]), "usage is null before the end")
        check(chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0, "usage chunk")
        check("compression" in chunks[-1].usage.model_extra, "compression")
        finish = [c.choices[0].finish_reason for c in chunks if c.choices]
        check(finish[-1] in ("stop", "length") and not any(finish[:-1]), str(finish))

    def stream_without_usage(self) -> None:
        chunks = list(self.ask(stream=True))
        check(all(c.choices for c in chunks), "no chunk without choices")
        check("timings" in chunks[-1].model_extra, "the last chunk has the bill")

    def pictures(self) -> None:
        packed = self.ask(photo())
        whole = self.ask(photo(), extra_body={"compression": "off"})
        check(packed.choices[0].message.content, "no answer")
        image = packed.usage.model_extra["compression"]["image"]
        check(image["rows_in"] == 256 and image["rows_out"] == 64, str(image))
        details = whole.usage.prompt_tokens_details.model_extra
        check(details["image_tokens"] == 256, str(details))
        check(whole.usage.prompt_tokens > packed.usage.prompt_tokens, "off is longer")
        check(whole.usage.model_extra["compression"]["ratio"] == 1, "off has ratio 1")

    def prefixes(self) -> None:
        def asked(question: str, **more: object) -> tuple[str, int, int]:
            messages = photo("high")
            messages[0]["content"][1]["text"] = question
            answer = self.ask(messages, **more)
            details = answer.usage.prompt_tokens_details
            timings = answer.model_extra["timings"]
            check(timings["cache_n"] == details.cached_tokens, "cache_n is cached_tokens")
            check(
                timings["prompt_n"] == answer.usage.prompt_tokens - details.cached_tokens,
                "prompt_n is what was run",
            )
            text = answer.choices[0].message.content
            return text, details.cached_tokens, answer.usage.prompt_tokens

        alone, cached, _ = asked("What does it cost?", extra_body={"cache_prompt": False})
        check(cached == 0, "cache_prompt false finds nothing")
        asked("Is it red?")
        text, cached, rows = asked("What does it cost?")
        check(text == alone, f"{text!r}, not {alone!r}")
        check(256 <= cached < rows, f"{cached} of {rows} cached")
        until = time.monotonic() + 20  # a request is counted behind its answer
        while self.server.metric("tamp_prefix_cache_hits_total") < cached:
            check(time.monotonic() < until, "hits are counted")
            time.sleep(0.01)
        check(self.server.metric("tamp_kv_cache_usage_ratio") <= 1, "a ratio")

    def detail(self) -> None:
        rows = {d: self.ask(photo(d)).usage.prompt_tokens for d in ("low", "auto", "high")}
        check(rows["low"] <= rows["auto"] < rows["high"], str(rows))

    def header(self) -> None:
        answer = self.ask(extra_headers={"X-Compression": "off"})
        check(answer.usage.model_extra["compression"]["profile"] == "off", "X-Compression")

    def choices(self) -> None:
        answer = self.ask(n=3, temperature=1, seed=1)
        check([c.index for c in answer.choices] == [0, 1, 2], "three choices")
        chunks = list(self.ask(n=2, stream=True))
        check({c.choices[0].index for c in chunks if c.choices} == {0, 1}, "two streams in one")

    def seeds(self) -> None:
        one, two = (
            self.ask(temperature=1.5, seed=7, max_tokens=16).choices[0].message.content
            for _ in range(2)
        )
        check(one == two, f"{one!r} and {two!r}")

    def stop(self) -> None:
        whole = self.ask(max_tokens=16).choices[0].message.content
        word = whole.split()[1]
        cut = self.ask(max_tokens=16, stop=[word]).choices[0]
        check(cut.finish_reason == "stop", str(cut.finish_reason))
        check(word not in cut.message.content, f"{word!r} in {cut.message.content!r}")
        check(whole.startswith(cut.message.content), "the beginning is the same")

    def logprobs(self) -> None:
        choice = self.ask(max_tokens=4, logprobs=True, top_logprobs=3).choices[0]
        content = choice.logprobs.content
        check(len(content) >= 1 and all(len(t.top_logprobs) == 3 for t in content), "top 3")
        check(all(t.logprob <= 0 for t in content), "logprobs are at most 0")
        check(all(t.logprob == t.top_logprobs[0].logprob for t in content), "greedy takes the best")

    def max_tokens(self) -> None:
        answer = self.ask(max_tokens=2)
        check(answer.usage.completion_tokens == 2, str(answer.usage.completion_tokens))
        check(answer.choices[0].finish_reason == "length", "length")

    def models(self) -> None:
        listed = self.api.models.list().data
        check(len(listed) == 1, "one model")
        check(self.api.models.retrieve(listed[0].id).id == listed[0].id, "by its id")
        self.api.chat.completions.create(
            model=listed[0].id, messages=QUESTION, max_tokens=1  # type: ignore[arg-type]
        )

    def errors(self) -> None:
        expect(openai.BadRequestError, "out_of_range", lambda: self.ask(temperature=9))
        expect(openai.NotFoundError, "model_not_found", lambda: self.api.models.retrieve("none"))
        expect(
            openai.BadRequestError,
            "context_length_exceeded",
            lambda: self.ask([{"role": "user", "content": "word " * 20000}]),
        )

    def raw_headers(self) -> None:
        raw = self.api.chat.completions.with_raw_response.create(
            model="default", messages=QUESTION, max_tokens=2  # type: ignore[arg-type]
        )
        for name in ("x-latency-ms", "x-mem-mb", "x-output-len", "x-request-id"):
            check(name in raw.headers, name)
        check(raw.headers["x-output-len"] == "2", raw.headers["x-output-len"])


def expect(kind: type[openai.APIStatusError], code: str, call) -> None:  # type: ignore[no-untyped-def]
    try:
        call()
    except kind as error:
        check(error.code == code, f"code {error.code}, not {code}")
        return
    raise AssertionError(f"no {kind.__name__}")


def keys() -> None:
    with Server("--api-key", "right-key", vision=False) as server:
        good = client(server).with_options(api_key="right-key")
        check(good.models.list().data, "the right key opens")
        bad = client(server).with_options(api_key="wrong")
        expect(openai.AuthenticationError, "invalid_api_key", bad.models.list)
        answer = server.request("GET", "/v1/models")
        check(answer.headers.get("www-authenticate") == "Bearer", "WWW-Authenticate")
        check(server.request("GET", "/health").status == 200, "/health is public")
        check(server.request("GET", "/metrics").status == 401, "/metrics is not")
        check(server.request("GET", "/nothing").status == 401, "auth comes before 404")
        check("right-key" not in server.log_text(), "the key is in the log")


def retries() -> None:
    """A full queue: the client is told when to come back, comes back, and is answered."""
    with Server("--parallel", "1", "--max-queue", "1", vision=False) as server:
        streams: list[threading.Thread] = []

        def occupy() -> None:
            # Long enough for the others to come meanwhile, also on a busy machine; drafts would
            # end these two sooner.
            fields = {"max_tokens": 500, "ignore_eos": True, "speculative.n_max": 0}
            server.chat({"messages": QUESTION, **fields}, timeout=120)

        for _ in range(2):
            streams.append(threading.Thread(target=occupy))
            streams[-1].start()
        until = time.monotonic() + 20
        # Both: the first one waits for a moment, too.
        while time.monotonic() < until and not (
            server.metric("tamp_num_requests_running") and server.metric("tamp_num_requests_waiting")
        ):
            time.sleep(0.01)
        refused = server.chat({"messages": QUESTION, "max_tokens": 1})
        check(refused.status == 429, f"status {refused.status}")
        check(1 <= int(refused.headers["retry-after"]) <= 60, refused.headers["retry-after"])
        expect(
            openai.RateLimitError,
            "queue_full",
            lambda: client(server).chat.completions.create(
                model="default", messages=QUESTION, max_tokens=1  # type: ignore[arg-type]
            ),
        )
        patient = client(server, max_retries=10).chat.completions.create(
            model="default", messages=QUESTION, max_tokens=1  # type: ignore[arg-type]
        )
        check(patient.choices, "answered after retries")
        for thread in streams:
            thread.join()
        check(server.metric_series('tamp_requests_rejected_total{reason="queue_full"}') >= 2, "counted")


def without_prefixes() -> None:
    with Server("--no-prefix-cache", vision=False) as server:
        long = [{"role": "system", "content": "Be brief. " * 60}, *QUESTION]
        for _ in range(2):
            answer = client(server).chat.completions.create(
                model="default", messages=long, max_tokens=1  # type: ignore[arg-type]
            )
            check(answer.usage.prompt_tokens_details.cached_tokens == 0, "nothing is kept")
        check(server.metric("tamp_prefix_cache_queries_total") == 0, "nothing is looked up")


def main() -> None:
    need_models()
    cases = Cases()
    with Server() as server:
        suite = Suite(server)
        for name in (
            "plain",
            "streamed",
            "stream_without_usage",
            "pictures",
            "prefixes",
            "detail",
            "header",
            "choices",
            "seeds",
            "stop",
            "logprobs",
            "max_tokens",
            "models",
            "errors",
            "raw_headers",
        ):
            cases.run(name.replace("_", " "), getattr(suite, name))
        cases.run("keys", keys)
        cases.run("no prefix cache", without_prefixes)
        cases.run("retry on 429", retries)
        cases.end(server)


if __name__ == "__main__":
    main()
