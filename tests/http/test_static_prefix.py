"""A profile's static prefix: computed at the start, in every prompt of the profile, paid by none.

A small model with random weights answers: this is about counts, not about what it says."""

from __future__ import annotations

import tempfile

from harness import Answer, Cases, Server, check, user

POLICY = (
    "You answer for a shop. Returns are free within thirty days, in the box they came in. "
    "Orders of more than 50 are sent for nothing, all others for 4.90. Ask for the number of "
    "the order before you promise anything."
)
CONFIG = f"""
prefix-cache-mb: 16
profile: shop
profiles:
  - name: shop
    from: off
    static_prefix: "{POLICY}"
  - name: merged
    from: shop
    set: "lm.method=static_prefix, lm.cutoff=1, min_text_rows=1"
  - name: plain
    from: off
"""


def counts(answer: Answer) -> tuple[int, int, int]:
    """Rows of the prompt, those of them that the cache had, and tokens before compression."""
    check(answer.status == 200, answer.text[:300])
    usage = answer.json["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return usage["prompt_tokens"], cached, usage["compression"]["original_tokens"]


def ask(server: Server, text: str, **more: object) -> Answer:
    return server.chat(user(text, max_tokens=4, temperature=0, **more))


def first_request_pays_nothing(server: Server) -> None:
    prompt, cached, _ = counts(ask(server, "Hello?"))
    check(cached > 64, f"{cached} rows were there, of {prompt}")
    longer, again, _ = counts(ask(server, "Hello, is it far to your shop?"))
    check(again == cached, f"{again} rows were there, before {cached}")
    check(longer > prompt, "the longer question has more rows")


def off_keeps_the_text(server: Server) -> None:
    shop = counts(ask(server, "Hello?"))
    off = counts(ask(server, "Hello?", compression="off"))
    plain = counts(ask(server, "Hello?", compression="plain"))
    check(off[2] == shop[2], f"{off[2]} tokens uncompressed, {shop[2]} with the profile")
    check(off[1] > 64, "uncompressed it is warm, too")
    check(plain[2] < shop[2] - 64 and plain[1] == 0, f"another profile has {plain}")


def merged_is_warm(server: Server) -> None:
    answer = ask(server, "Hello?", compression="merged")
    check(counts(answer)[1] > 64, answer.text[:300])
    lm = answer.json["usage"]["compression"]["lm"]
    check(lm["method"] == "static_prefix", str(lm))
    check(lm["rows_out"] < lm["rows_in"], str(lm))


def log_says_so(server: Server) -> None:
    log = server.log_text()
    for profile in ("shop", "merged"):
        check(f"profile={profile}" in log and "static prefix is warm" in log, log[-2000:])


def too_long_stops_the_start() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        f.write(f"profiles:\n  - name: long\n    static_prefix: \"{POLICY * 20}\"\n")
        f.flush()
        server = Server("--config", f.name, tiny=True, wait=False)
        status = server.process.wait(120)
        check(status != 0, "it started")
        check("static prefix of 'long'" in server.log_text(), server.log_text()[-500:])


def main() -> None:
    cases = Cases()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        f.write(CONFIG)
        f.flush()
        with Server("--config", f.name, tiny=True) as server:
            cases.run("the first request pays nothing", lambda: first_request_pays_nothing(server))
            cases.run("off keeps the text", lambda: off_keeps_the_text(server))
            cases.run("merged, it is warm too", lambda: merged_is_warm(server))
            cases.run("the log says so", lambda: log_says_so(server))
    cases.run("a text that is too long stops the start", too_long_stops_the_start)
    cases.end()


if __name__ == "__main__":
    main()
