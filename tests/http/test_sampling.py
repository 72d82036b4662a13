"""Every field that shapes an answer does what its name says: seen from outside, on a model with
random weights, whose greedy answers repeat themselves and whose sampled ones never do.
"""

from __future__ import annotations

from typing import Any

from harness import Cases, Server, check, user

N = 40


class Suite:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.greedy = self.ids(temperature=0)

    def ask(self, **fields: Any) -> Any:
        body = {"max_tokens": N, "ignore_eos": True, **fields}
        answer = self.server.chat(user("a red jacket and a blue jacket", **body))
        check(answer.status == 200, answer.text[:300])
        return answer

    def ids(self, **fields: Any) -> list[str]:
        """The tokens of the first choice, by their bytes."""
        choice = self.ask(logprobs=True, **fields).json["choices"][0]
        return [str(t["bytes"]) for t in choice["logprobs"]["content"]]

    def seed(self) -> None:
        first = self.ids(seed=1, temperature=1.0)
        check(self.ids(seed=1, temperature=1.0) == first, "the same seed, the same answer")
        check(self.ids(seed=2, temperature=1.0) != first, "another seed, another answer")
        check(self.ids(temperature=1.0) != self.ids(temperature=1.0), "no seed: drawn each time")

    def one_candidate(self) -> None:
        for field in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 0}):
            told = self.ids(**{"temperature": 1.0, "seed": 3, **field})
            check(told == self.greedy, f"{field} leaves the likeliest only")

    def biases(self) -> None:
        forced = self.ask(temperature=1.0, logit_bias={"70": 100}, max_tokens=6).json
        text = forced["choices"][0]["message"]["content"]
        again = self.ask(temperature=0, logit_bias={"70": 100}, max_tokens=6).json
        check(again["choices"][0]["message"]["content"] == text, "a bias of 100 forces a token")
        banned = self.ask(temperature=0, logit_bias={str(i): -100 for i in range(64, 128)}).json
        other = self.ask(temperature=0, logit_bias={str(i): 100 for i in range(64, 128)}).json
        check(
            banned["choices"][0]["message"]["content"] != other["choices"][0]["message"]["content"],
            "a bias of -100 bans",
        )

    def penalties(self) -> None:
        few = {"temperature": 0, "logit_bias": {str(i): 100 for i in range(64, 72)}}

        def most(**fields: Any) -> int:
            told = self.ids(**few, **fields)
            return max(told.count(t) for t in told)

        plain = most()
        check(plain > N / 4, f"one of eight tokens comes {plain} times")
        for field in ({"presence_penalty": 2.0}, {"frequency_penalty": 2.0}, {"repeat_penalty": 5.0}):
            check(most(**field, repeat_last_n=-1) < plain, f"{field}: it comes less often")
            check(most(**field, repeat_last_n=0) == plain, f"{field} looks nowhere")

    def choices(self) -> None:
        answers = self.ask(n=3, seed=5, temperature=1.0).json["choices"]
        check([c["index"] for c in answers] == [0, 1, 2], "three choices")
        check(len({c["message"]["content"] for c in answers}) == 3, "all different")

    def stops(self) -> None:
        whole = self.ask(temperature=0).json["choices"][0]["message"]["content"]
        stop = whole[5:7]
        cut = self.ask(temperature=0, stop=[stop]).json["choices"][0]
        check(cut["message"]["content"] == whole[: whole.index(stop)], "cut before the string")
        check(cut["finish_reason"] == "stop", cut["finish_reason"])

    def logprobs(self) -> None:
        answer = self.ask(temperature=0, logprobs=True, top_logprobs=5, max_tokens=8).json
        for token in answer["choices"][0]["logprobs"]["content"]:
            top = [t["logprob"] for t in token["top_logprobs"]]
            check(len(top) == 5 and top == sorted(top, reverse=True), "the five best, in order")
            check(token["logprob"] == top[0], "greedy takes the best")

    def usage(self) -> None:
        events = self.ask(stream=True, stream_options={"include_usage": True}).events()
        check(events[-2]["choices"] == [] and events[-2]["usage"]["completion_tokens"] == N, "usage")
        check(all(e["usage"] is None for e in events[:-2]), "and null before")

    def progress(self) -> None:
        events = self.ask(stream=True, return_progress=True, cache_prompt=False).events()
        told = [e["prompt_progress"] for e in events[:-1] if "prompt_progress" in e]
        check(told and told[-1]["processed"] == told[-1]["total"], "prefill is told of")

    def cache(self) -> None:
        def cached(**fields: Any) -> int:
            turns = ["a word " * 20, "yes", "another word"]
            messages = [{"role": "user", "content": t} for t in turns]
            answer = self.server.chat({"messages": messages, "max_tokens": 1, **fields})
            return answer.json["usage"]["prompt_tokens_details"]["cached_tokens"]

        cached()
        check(cached() > 0, "what was sent before is known")
        check(cached(cache_prompt=False) == 0, "cache_prompt false finds nothing")


def main() -> None:
    cases = Cases()
    with Server(tiny=True) as server:
        suite = Suite(server)
        for name in (
            "seed",
            "one_candidate",
            "biases",
            "penalties",
            "choices",
            "stops",
            "logprobs",
            "usage",
            "progress",
            "cache",
        ):
            cases.run(name.replace("_", " "), getattr(suite, name))
        cases.end(server)


if __name__ == "__main__":
    main()
