"""/v1/compress and /v1/compression/methods: what is shown is what a chat does."""

from __future__ import annotations

import base64
from typing import Any

from harness import (
    PICTURE,
    Cases,
    Server,
    check,
    check_error,
    need_models,
    picture,
    user,
)

LETTER = (
    "I ordered a blue rain jacket last week and it still has not arrived. The tracking page "
    "says that it left the depot on 4 May, but nothing has changed since then. Größe 42, 🎉. "
    "Could you please check where it is? I need it before the weekend. "
) * 3
COUNTS = ("original_tokens", "compressed_tokens", "ratio", "profile", "mean_rows_per_layer")


class Suite:
    def __init__(self, server: Server) -> None:
        self.server = server

    def preview(self, body: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
        answer = self.server.request("POST", "/v1/compress", {**body, **fields})
        check(answer.status == 200, answer.text[:300])
        got = answer.json
        check(got["object"] == "compression.preview", got["object"])
        check(got["model"] == self.server.request("GET", "/v1/models").json["data"][0]["id"], "id")
        plans: list[dict[str, Any]] = got["plans"]
        return plans

    def methods(self) -> dict[str, Any]:
        answer = self.server.request("GET", "/v1/compression/methods")
        check(answer.status == 200, answer.text[:300])
        got: dict[str, Any] = answer.json
        return got

    def profiles(self) -> None:
        plans = self.preview(user(LETTER))
        known = [p["name"] for p in self.methods()["profiles"]]
        check([p["plan"] for p in plans] == known, str([p["plan"] for p in plans]))
        check([p["profile"] for p in plans] == known, "profile")
        check(plans[known.index("off")]["ratio"] == 1, "off is off")

    def as_a_chat(self) -> None:
        """Counts, reasons and drawings are those of a chat with the same plan."""
        wanted = [
            "off",
            "balanced",
            {"image": {"method": "tome", "ratio": 8}},
            {"profile": "off", "text": {"method": "cosine", "threshold": 0.3}},
            {"profile": "off", "lm": {"method": "slerp", "cutoff": 8}},
        ]
        body = picture(PICTURE.read_bytes(), LETTER, return_overlay=True)
        for plan, shown in zip(wanted, self.preview(body, plans=wanted), strict=True):
            chat = self.server.chat({**body, "compression": plan, "max_tokens": 1}).json
            usage = chat["usage"]["compression"]
            check(shown["plan"] == plan, str(shown["plan"]))
            for key in COUNTS:
                check(shown[key] == usage[key], f"{plan}: {key} {shown[key]}, not {usage[key]}")
            for slot in ("image", "text", "lm"):
                for key in ("method", "rows_in", "rows_out"):
                    a, b = (shown[slot] or {}).get(key), (usage[slot] or {}).get(key)
                    check(a == b, f"{plan}: {slot}.{key} {a}, not {b}")
            check(shown["skipped"] == usage["skipped"], str(shown["skipped"]))
            image = shown["images"][0]
            check((image["width"], image["height"]) == (224, 224), str(image["width"]))
            check(image["rows_out"] == usage["image"]["rows_out"], "rows of the picture")
            check(image["overlay"] == chat["overlay"][0], f"{plan}: another overlay")
            png = base64.b64decode(image["overlay"]["png"].split(",")[1])
            check(png.startswith(b"\x89PNG"), "a picture")

    def segments(self) -> None:
        body = {
            "messages": [
                {"role": "system", "content": "You help."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": LETTER}, {"type": "text", "text": "Well?"}],
                },
            ]
        }
        plan = {"profile": "off", "text": {"method": "cosine", "threshold": 0.2}}
        (shown,) = self.preview(body, plans=[plan])
        texts = {
            (s["message"], s["part"]): "".join(p["text"] for p in s["pieces"])
            for s in shown["segments"]
        }
        want = {(0, 0): "You help.", (1, 0): LETTER, (1, 1): "Well?"}
        check({k: v.strip() for k, v in texts.items()} == {k: v.strip() for k, v in want.items()},
              str(texts))
        pieces = [p for s in shown["segments"] for p in s["pieces"]]
        groups = [p["group"] for p in pieces]
        check(groups == sorted(groups), "rows are in the order of the text")
        merged = [p for p in pieces if groups.count(p["group"]) > 1]
        check(merged and not any(p["protected"] for p in merged), "what is protected stands alone")
        fixed = "".join(p["text"] for p in pieces if p["protected"])
        check("You help." in fixed and "42" in fixed and "Well?" in fixed, fixed)
        lost = sum(p["tokens"] for p in pieces) - len(set(groups))
        saved = shown["original_tokens"] - shown["compressed_tokens"]
        check(saved <= lost <= saved + sum(p["tokens"] - 1 for p in pieces), f"{lost}, {saved}")

    def live(self) -> None:
        """A second look costs no pass of the tower."""
        body = picture(PICTURE.read_bytes(), "live?")
        plans = [{"image": {"method": "tome", "ratio": r}} for r in (2, 4, 8, 16)]
        first = self.preview(body, plans=plans)
        queries = self.server.metric("tamp_image_cache_queries_total")
        hits = self.server.metric("tamp_image_cache_hits_total")
        check(queries >= len(plans), "pictures are looked up")
        again = self.preview(body, plans=plans)
        check([p["images"][0]["rows_out"] for p in again] == [128, 64, 32, 16], "rows")
        asked = self.server.metric("tamp_image_cache_queries_total") - queries
        found = self.server.metric("tamp_image_cache_hits_total") - hits
        check(asked == found == len(plans), f"{found} of {asked} were known")
        for a, b in zip(first, again):
            check(a["compressed_tokens"] == b["compressed_tokens"], "counts")
        costs = [p["estimated"]["cost_ratio"] for p in again]
        check(costs == sorted(costs) and costs[0] > 1, f"more merged, more saved: {costs}")
        for p in again:
            e = p["estimated"]
            check(0 < e["first_token_ms"] <= e["cpu_ms"] and e["kv_bytes"] > 0, str(e))

    def leaves_nothing(self) -> None:
        before = self.server.metric("tamp_prompt_tokens_total")
        self.preview(user(LETTER + "and nothing"))
        check(self.server.metric("tamp_prompt_tokens_total") == before, "prompt tokens counted")
        answer = self.server.chat(user(LETTER + "and nothing", max_tokens=1))
        check(answer.json["usage"]["prompt_tokens_details"]["cached_tokens"] < 100, "cached")
        series = 'tamp_requests_total{endpoint="compress",status="200"}'
        check(self.server.metric_series(series) > 0, "requests are counted")

    def one_plan(self) -> None:
        (shown,) = self.preview(user(LETTER), compression="customer_service")
        check(shown["plan"] == "customer_service", str(shown["plan"]))
        head = {"X-Compression": "product_search"}
        body = user(LETTER, plans=[{"text": {"method": "off"}}], stream=True)
        answer = self.server.request("POST", "/v1/compress", body, headers=head)
        check(answer.json["plans"][0]["profile"] == "product_search", answer.text[:200])

    def refused(self) -> None:
        def post(**fields: Any) -> Any:
            return self.server.request("POST", "/v1/compress", user("hi", **fields))

        check_error(post(plans=[]), 400, "invalid_value", "plans")
        check_error(post(plans="off"), 400, "invalid_type", "plans")
        check_error(post(plans=["off", 3]), 400, "invalid_type", "plans[1]")
        check_error(post(plans=["off"] * 17), 400, "too_many_plans", "plans")
        check_error(post(plans=["off", "nothing"]), 400, "unknown_name", "plans[1]")
        wrong = [{"image": {"method": "tome", "ratio": 0}}]
        check_error(post(plans=wrong), 400, None, "plans[0].image.ratio")
        check_error(post(model="other"), 404, "model_not_found", "model")
        check_error(post(temperature=9), 400, "out_of_range", "temperature")
        for method, path in (("GET", "/v1/compress"), ("POST", "/v1/compression/methods")):
            answer = self.server.request(method, path)
            check_error(answer, 405, "method_not_allowed")

    def tables(self) -> None:
        """Every option takes what the list says, and no more."""
        listed = self.methods()
        for m in listed["methods"]:
            if m["baseline"]:
                continue
            for o in m["options"]:
                for slot in o["slots"]:
                    self.option(m["name"], slot, o)

    def option(self, method: str, slot: str, o: dict[str, Any]) -> None:
        good = [o["default"]] if o["default"] is not None else []
        bad: list[Any] = [[]]
        if o["type"] == "string":
            good += o["choices"]
            bad += ["none of these"]
        elif o["type"] != "boolean":
            good += [o["min"], o["max"]] + (["auto"] if o["auto"] else [])
            bad += [o["max"] + 1, o["min"] - 1]
        body = user("hi")
        for value in good:
            plan = {slot: {"method": method, o["name"]: value}}
            answer = self.server.request("POST", "/v1/compress", {**body, "plans": [plan]})
            check(answer.status == 200, f"{plan}: {answer.text[:200]}")
        for value in bad:
            plan = {slot: {"method": method, o["name"]: value}}
            answer = self.server.request("POST", "/v1/compress", {**body, "plans": [plan]})
            check(answer.status == 400, f"{plan} was taken")


def main() -> None:
    need_models()
    cases = Cases()
    with Server() as server:
        suite = Suite(server)
        cases.run("without plans: every profile", suite.profiles)
        cases.run("what is shown is what a chat does", suite.as_a_chat)
        cases.run("pieces are the text, groups its rows", suite.segments)
        cases.run("a second look needs no tower", suite.live)
        cases.run("a preview leaves nothing behind", suite.leaves_nothing)
        cases.run("one plan, by field or by header", suite.one_plan)
        cases.run("bad plans are refused by name", suite.refused)
        cases.run("options take what their list says", suite.tables)
        cases.end(server)


if __name__ == "__main__":
    main()
