"""/v1/responses: as the official client parses it, against chat."""

from __future__ import annotations

from typing import Any

import openai
from harness import PICTURE, Cases, Server, check, check_error, data_url, need_models

QUESTION = "What is the capital of France?"
SYSTEM = "You answer in one word."
FIXED: dict[str, Any] = {"temperature": 0, "extra_body": {"compression": "off"}}
ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]


class Suite:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.api = openai.OpenAI(
            base_url=f"http://127.0.0.1:{server.port}/v1", api_key="unused", max_retries=0
        )

    def respond(self, given: Any, **more: Any) -> Any:
        fields = {**FIXED, "max_output_tokens": 12, **more}
        return self.api.responses.create(model="default", input=given, **fields)

    def chat(self, messages: Any) -> Any:
        return self.api.chat.completions.create(
            model="default", messages=messages, max_tokens=12, **FIXED
        )

    def as_a_chat(self) -> None:
        same = [
            (QUESTION, {}, [{"role": "user", "content": QUESTION}]),
            (
                [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
                {"instructions": SYSTEM},
                [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}],
            ),
            (
                [
                    {"type": "message", "role": "user", "content": "Hello"},
                    {
                        "type": "message",
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": "Hi!", "annotations": []}],
                    },
                    {"type": "reasoning", "id": "r", "summary": []},
                    {"role": "user", "content": QUESTION},
                ],
                {},
                [
                    {"role": "user", "content": "Hello"},
                    {"role": "assistant", "content": "Hi!"},
                    {"role": "user", "content": QUESTION},
                ],
            ),
        ]
        for given, more, messages in same:
            got, want = self.respond(given, **more), self.chat(messages)
            check(got.output_text == want.choices[0].message.content, got.output_text)
            check(got.usage.input_tokens == want.usage.prompt_tokens, str(got.usage))
            check(got.usage.output_tokens == want.usage.completion_tokens, str(got.usage))
            check(got.usage.total_tokens == want.usage.total_tokens, str(got.usage))
            check(got.instructions == more.get("instructions"), str(got.instructions))
            ended = {"stop": "completed", "length": "incomplete"}[want.choices[0].finish_reason]
            check(got.status == ended == got.output[0].status, got.status)

    def object(self) -> None:
        got = self.respond(QUESTION, metadata={"order": "7"}, top_p=0.5, store=True)
        check(got.id.startswith("resp_") and got.object == "response", got.id)
        check(got.output[0].id.startswith("msg_") and len(got.output) == 1, str(got.output))
        check(got.metadata == {"order": "7"} and got.top_p == 0.5, str(got.metadata))
        check(got.max_output_tokens == 12 and got.error is None, str(got))
        check(got.store is False, "nothing is stored, and the answer says so")
        cut = self.respond("Count from one to a hundred.", max_output_tokens=2)
        check(cut.status == "incomplete", cut.status)
        check(cut.incomplete_details.reason == "max_output_tokens", str(cut.incomplete_details))
        check(got.usage.model_extra["compression"]["profile"] == "off", "compression")

    def pictures(self) -> None:
        url = data_url(PICTURE.read_bytes())
        content = [
            {"type": "input_image", "image_url": url, "detail": "auto"},
            {"type": "input_text", "text": "What kind of product is it?"},
        ]
        got = self.respond([{"role": "user", "content": content}], extra_body={})
        image = got.usage.model_extra["compression"]["image"]
        check((image["rows_in"], image["rows_out"]) == (256, 64), str(image))
        content[0]["detail"] = "high"
        whole = self.respond([{"role": "user", "content": content}], extra_body={})
        check(whole.usage.input_tokens == got.usage.input_tokens + 192, "detail is honoured")

    def streamed(self) -> None:
        whole = self.respond(QUESTION)
        events = list(self.respond(QUESTION, stream=True))
        check([e.sequence_number for e in events] == list(range(len(events))), "numbered")
        kinds = [e.type for e in events]
        seen = [k for i, k in enumerate(kinds) if i == 0 or kinds[i - 1] != k]
        check(seen == [*ORDER, "response." + whole.status], str(seen))
        deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        last = events[-1].response
        check(deltas == whole.output_text == last.output_text, deltas)
        check(last.usage == whole.usage, str(last.usage))
        check(events[0].response.status == "in_progress" and not events[0].response.output, "first")
        check(len({e.response.id for e in events if hasattr(e, "response")}) == 1, "one id")
        ids = {e.item_id for e in events if hasattr(e, "item_id")}
        check(ids == {last.output[0].id}, str(ids))

    def with_helper(self) -> None:
        """The client's own accumulation of a stream."""
        with self.api.responses.stream(
            model="default", input=QUESTION, max_output_tokens=12, **FIXED
        ) as stream:
            for _ in stream:
                pass
            final = stream.get_final_response()
        check(final.output_text == self.respond(QUESTION).output_text, final.output_text)

    def counted(self) -> None:
        body = {"input": QUESTION, "instructions": SYSTEM, "model": "default"}
        answer = self.server.request("POST", "/v1/responses/input_tokens", body)
        got = answer.json
        check(got["object"] == "response.input_tokens", answer.text)
        used = self.respond(QUESTION, instructions=SYSTEM).usage.input_tokens
        check(got["input_tokens"] == used, f"{got['input_tokens']}, not {used}")

    def refused(self) -> None:
        def bad(code: str | None, param: str | None, **fields: Any) -> None:
            body = {"input": "hi", **fields}
            check_error(self.server.request("POST", "/v1/responses", body), 400, code, param)

        bad("missing_required_parameter", "input", input=None)
        bad("invalid_type", "input", input=3)
        bad("invalid_type", "input", input=[])
        bad("unsupported_parameter", "previous_response_id", previous_response_id="resp_1")
        bad("unsupported_parameter", "conversation", conversation="conv_1")
        bad("unsupported_parameter", "background", background=True)
        tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
        bad("unsupported_parameter", "tools", tools=[tool])
        bad("invalid_type", "instructions", instructions=3)
        bad("invalid_type", "max_output_tokens", max_output_tokens=1.5)
        bad("out_of_range", "max_output_tokens", max_output_tokens=0)
        bad("invalid_type", "metadata", metadata="x")
        bad("invalid_type", "text.format", text={"format": 1})
        bad("unsupported_parameter", "input[0].type", input=[{"type": "item_reference", "id": "x"}])

        def user(*content: Any) -> list[Any]:
            return [{"role": "user", "content": list(content)}]

        bad("invalid_value", "input[0].content[0].type", input=user({"type": "input_audio"}))
        bad("unsupported_parameter", None, input=user({"type": "input_image", "file_id": "f"}))
        bad(
            "url_fetch_disabled",
            "input[0].content[0].image_url.url",
            instructions=SYSTEM,
            input=user({"type": "input_image", "image_url": "http://x/y.png"}),
        )
        bad("invalid_value", "input[1].role", input=[*user({"type": "input_text", "text": "a"}),
                                                     {"role": "nobody", "content": "x"}])
        answer = self.server.request("POST", "/v1/responses", {"input": "hi", "model": "no"})
        check_error(answer, 404, "model_not_found", "model")


def main() -> None:
    need_models()
    cases = Cases()
    with Server() as server:
        suite = Suite(server)
        cases.run("the answer of the chat", suite.as_a_chat)
        cases.run("the response object", suite.object)
        cases.run("pictures", suite.pictures)
        cases.run("events in order", suite.streamed)
        cases.run("the client's own stream helper", suite.with_helper)
        cases.run("counted before it runs", suite.counted)
        cases.run("bad bodies are refused by name", suite.refused)
        cases.end(server)


if __name__ == "__main__":
    main()
