"""Guard, shadows and budgets over HTTP: what a client sends, what it is told, what is counted.

A small model with random weights answers: its answers are in doubt at a margin of 1, always."""

from __future__ import annotations

import time
from typing import Any

from harness import Cases, Server, check, user

LONG = "The order was sent to the old address, and the new one is not known to the shop. " * 8
MERGING = {"text": {"method": "cosine", "threshold": -1}}


def ask(server: Server, compression: Any, **fields: Any) -> Any:
    body = user(LONG, max_tokens=6, temperature=0, ignore_eos=True, **fields)
    answer = server.chat({**body, "compression": compression})
    check(answer.status == 200, answer.text[:300])
    return answer.json


def text_of(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


def main() -> None:
    cases = Cases()
    with Server("--shadow", "100", "--shadow-target", "0", tiny=True) as server:

        def redone() -> None:
            plain = ask(server, "off")
            merged = ask(server, MERGING)
            doubted = ask(server, {**MERGING, "guard": {"margin": 1}})
            check("guard" not in plain["usage"]["compression"], "nothing to guard")
            check("guard" not in merged["usage"]["compression"], "off unless switched on")
            report = doubted["usage"]["compression"]["guard"]
            check(text_of(doubted) == text_of(plain), "not the uncompressed answer")
            check(report["redone"] == 1 and len(report["attempts"]) == 2, f"{report}")
            check(report["attempts"][0]["doubt"] == "narrow_margin", f"{report}")
            rows = plain["usage"]["prompt_tokens"] + merged["usage"]["prompt_tokens"]
            check(doubted["usage"]["prompt_tokens"] == rows, "the bill has every row")
            check(server.metric_series('tamp_guard_reruns_total{reason="narrow_margin"}') == 1, "counted")

        def streamed() -> None:
            body = user(LONG, max_tokens=6, temperature=0, ignore_eos=True, stream=True)
            guarded = {**MERGING, "guard": {"margin": 1, "tokens": 4}}
            answer = server.chat({**body, "compression": guarded})
            said = "".join(
                event["choices"][0]["delta"].get("content", "")
                for event in answer.events()
                if event != "[DONE]" and event["choices"]
            )
            check(said == text_of(ask(server, "off")), "a stream has the redone answer alone")

        def compared() -> None:
            until = time.monotonic() + 30
            done = 'tamp_shadows_total{outcome="done"}'
            while server.metric_series(done) < 1 and time.monotonic() < until:
                ask(server, MERGING)
                time.sleep(0.05)
            check(server.metric_series(done) >= 1, "no shadow ran")
            tokens = server.metric("tamp_shadow_tokens_total")
            agreed = server.metric("tamp_shadow_tokens_agreed_total")
            check(0 <= agreed <= tokens and tokens >= 6, f"{agreed} of {tokens}")
            check(ask(server, MERGING)["usage"]["compression"]["rollout"] == "full", "the level")

        def budget() -> None:
            report = ask(server, {**MERGING, "budget_ms": 600000})["usage"]["compression"]
            check(report["budget"]["cap"] == 1 and report["budget"]["met"], f"{report}")
            check(report["ratio"] == 1, "a budget that nothing needs compresses nothing")
            check(server.metric_series('tamp_budgets_total{outcome="met"}') == 1, "counted")

        cases.run("a doubtful answer is the uncompressed one, and is billed", redone)
        cases.run("streams begin with the answer that is kept", streamed)
        cases.run("shadows run when nobody waits", compared)
        cases.run("a budget in milliseconds", budget)
        cases.end(server)


if __name__ == "__main__":
    main()
