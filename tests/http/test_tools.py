"""Calls of functions: required and named ones, sampled at temperature 1, must satisfy their
schemas; streamed they are the same; the official client and LangChain run whole loops.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
from harness import Cases, Server, check, check_error, need_models, user
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

ORDER = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": "Looks an order up.",
        "parameters": {
            "type": "object",
            "properties": {
                "number": {"type": "integer", "minimum": 1, "maximum": 9999},
                "with_items": {"type": "boolean"},
            },
            "required": ["number"],
            "additionalProperties": False,
        },
    },
}
COLOUR = {
    "type": "function",
    "function": {
        "name": "set_colour",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", 'deep "blue"', "grün"]}},
            "required": ["colour"],
        },
    },
}
TOOLS = [ORDER, COLOUR]
SCHEMAS = {t["function"]["name"]: t["function"]["parameters"] for t in TOOLS}


def judge(call: Any) -> None:
    """A call as plain JSON."""
    check(call["type"] == "function" and call["id"].startswith("call_"), str(call))
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMAS[call["function"]["name"]])


def ask(server: Server, **fields: Any) -> Any:
    body = {"tools": TOOLS, "max_tokens": 300, "temperature": 1.0, **fields}
    answer = server.chat(user("Where is order 12?", **body))
    check(answer.status == 200, answer.text[:300])
    return answer


def required(server: Server) -> None:
    names = set()
    for seed in range(6):
        one = ask(server, tool_choice="required", seed=seed, parallel_tool_calls=False).json
        choice = one["choices"][0]
        check(choice["finish_reason"] == "tool_calls", str(choice))
        check(choice["message"]["content"] is None, "no text beside required calls")
        check(len(choice["message"]["tool_calls"]) == 1, "one call, not in parallel")
        judge(choice["message"]["tool_calls"][0])
        names.add(choice["message"]["tool_calls"][0]["function"]["name"])
    check(names <= set(SCHEMAS), f"only what is there is called: {names}")


def named(server: Server) -> None:
    for name in SCHEMAS:
        chosen = {"type": "function", "function": {"name": name}}
        message = ask(server, tool_choice=chosen, seed=3).json["choices"][0]["message"]
        check([c["function"]["name"] for c in message["tool_calls"]] == [name], str(message))
        judge(message["tool_calls"][0])


def parallel(server: Server) -> None:
    most = 0
    for seed in range(4):
        choices = ask(server, tool_choice="required", seed=seed, n=2).json["choices"]
        for choice in choices:
            calls = choice["message"]["tool_calls"]
            if choice["finish_reason"] == "tool_calls":
                for call in calls:
                    judge(call)
                check(len({c["id"] for c in calls}) == len(calls), "ids differ")
                most = max(most, len(calls))
    check(most > 1, "several calls in one answer")


def joined(events: list[Any]) -> tuple[str, list[Any], str]:
    """Content, calls and finish_reason of a stream."""
    text, calls, finish = "", [], ""
    for event in events[:-1]:
        for choice in event["choices"]:
            text += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
            for piece in choice["delta"].get("tool_calls", []):
                if "id" in piece:
                    check(piece["index"] == len(calls), "indices count up")
                    calls.append(piece)
                else:
                    calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
    return text, calls, finish


def functions(message: Any) -> list[Any]:
    return [c["function"] for c in message.get("tool_calls", [])]


def streamed(server: Server) -> None:
    for seed in range(2):
        fields = {"tool_choice": "required", "seed": seed}
        whole = ask(server, **fields).json["choices"][0]
        text, calls, finish = joined(ask(server, **fields, stream=True).events())
        check(finish == whole["finish_reason"] and text == "", f"{finish}, {text!r}")
        told = functions(whole["message"])
        check([c["function"] for c in calls] == told, f"{calls}, not {told}")


def auto(server: Server) -> None:
    for seed in range(2):
        fields = {"seed": seed, "max_tokens": 40}
        whole = ask(server, **fields).json["choices"][0]
        text, calls, finish = joined(ask(server, **fields, stream=True).events())
        check(text == (whole["message"]["content"] or ""), "the same text streamed")
        check(finish == whole["finish_reason"], finish)
        check([c["function"] for c in calls] == functions(whole["message"]), "the same calls")


def none(server: Server) -> None:
    plain = server.chat(user("Where is order 12?", seed=1, max_tokens=5)).json
    told = ask(server, tool_choice="none", seed=1, temperature=1.0, max_tokens=5).json
    check(plain["usage"]["prompt_tokens"] == told["usage"]["prompt_tokens"], "nothing is told")
    check("tool_calls" not in told["choices"][0]["message"], "nothing is called")


def cut(server: Server) -> None:
    choice = ask(server, tool_choice="required", seed=1, max_tokens=12).json["choices"][0]
    check(choice["finish_reason"] == "length", str(choice))


def wrong(server: Server) -> None:
    bad = {**ORDER["function"], "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}
    answer = server.chat(user("x", tools=[{"type": "function", "function": bad}]))
    check_error(
        answer, 400, "unsupported_parameter", "tools[0].function.parameters.properties.a.not"
    )


def official_loop(server: Server) -> None:
    api = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="x", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "Where is order 12?"}]
    fields: dict[str, Any] = {"model": "default", "tools": TOOLS, "max_tokens": 200, "seed": 4}
    first = api.chat.completions.create(messages=messages, tool_choice="required", **fields)
    message = first.choices[0].message
    check(first.choices[0].finish_reason == "tool_calls", str(first.choices[0]))
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls or []:
        judge(call.model_dump())
        messages.append({"role": "tool", "tool_call_id": call.id, "content": '{"state": "sent"}'})
    second = api.chat.completions.create(messages=messages, tool_choice="none", **fields)
    check(second.choices[0].finish_reason in ("stop", "length"), str(second.choices[0]))
    check(second.usage.prompt_tokens > first.usage.prompt_tokens - 400, "the loop goes on")
    with api.chat.completions.stream(
        messages=messages[:1], tool_choice="required", **fields
    ) as stream:
        final = stream.get_final_completion()
    told = [c.function.arguments for c in message.tool_calls or []]
    check([c.function.arguments for c in final.choices[0].message.tool_calls or []] == told, "stream")


@tool
def find_order(number: int) -> str:
    """Looks an order up by its number."""
    return f"order {number} was sent on Monday"


@tool
def cancel_order(number: int, reason: str) -> str:
    """Cancels an order."""
    return f"order {number} is cancelled: {reason}"


def langchain_loop(server: Server) -> None:
    by_name = {t.name: t for t in (find_order, cancel_order)}
    model = ChatOpenAI(
        base_url=f"http://127.0.0.1:{server.port}/v1",
        api_key="x",  # type: ignore[arg-type]
        model="default",
        max_retries=0,
        max_tokens=300,  # type: ignore[call-arg]
        seed=2,
    )
    messages: list[Any] = [HumanMessage("Where is order 12?")]
    answer = model.bind_tools(list(by_name.values()), tool_choice="find_order").invoke(messages)
    check(answer.tool_calls and not answer.invalid_tool_calls, str(answer))
    messages.append(answer)
    for call in answer.tool_calls:
        result = by_name[call["name"]].invoke(call["args"])
        check(str(call["args"]["number"]) in result, result)
        messages.append(ToolMessage(result, tool_call_id=call["id"]))
    end = model.invoke(messages, max_tokens=8)
    check(not end.tool_calls and end.usage_metadata["output_tokens"] > 0, str(end))
    chunks = list(model.bind_tools(list(by_name.values()), tool_choice="any").stream(messages[:1]))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    check(whole.tool_calls and whole.tool_calls[0]["name"] in by_name, str(whole.tool_calls))


def main() -> None:
    need_models()
    cases = Cases()
    with Server("--parallel", "2", vision=False) as server:
        for case in (
            required,
            named,
            parallel,
            streamed,
            auto,
            none,
            cut,
            wrong,
            official_loop,
            langchain_loop,
        ):
            cases.run(case.__name__.replace("_", " "), lambda c=case: c(server))  # type: ignore[misc]
        cases.end(server)


if __name__ == "__main__":
    main()
