"""Schemas of every kind that is kept: sampled answers of a model with random weights must
satisfy them, in the judgement of the `jsonschema` package. The schemas are made from a seed.
"""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from harness import Cases, Server, check, check_error, user
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

N_SCHEMAS = 200
MAX_TOKENS = 900
Schema = dict[str, Any]


class Maker:
    """Random schemas, small enough that a random model comes to an end."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def word(self) -> str:
        return "".join(self.rng.choice("abcdxyz_é") for _ in range(self.rng.randint(1, 5)))

    def value(self) -> Any:
        return self.rng.choice([None, True, 0, -7, 2.5, "x", 'a"b\\c\n', "é€😀", [1, "a"], {"k": []}])

    def string(self) -> Schema:
        low = self.rng.randint(0, 4)
        return self.rng.choice(
            [
                {"type": "string", "maxLength": 12},
                {"type": "string", "minLength": low, "maxLength": low + self.rng.randint(0, 9)},
                {"type": "string", "pattern": self.pattern()},
                {"type": "string", "format": self.rng.choice(FORMATS)},
            ]
        )

    def pattern(self) -> str:
        return self.rng.choice(
            [
                r"^[A-Z]{3}-\d{2,4}$",
                r"^(red|green|blue)( light)?$",
                r"^\w{1,8}@\w{1,8}\.(org|de)$",
                r"^[^\s\"]{1,6}$",
                r"^(?:\+49|0)[1-9][0-9]{1,6}$",
                r"^a?b{0,3}(c|[d-f]){2}$",
                r"^\\[nt]$|^/x/$",
                r"^.{0,5}$",
            ]
        )

    def number(self) -> Schema:
        kind = self.rng.choice(["integer", "number"])
        low = self.rng.randint(-50, 50)
        high = low + self.rng.randint(1, 400)
        schema: Schema = {"type": kind}
        if self.rng.random() < 0.7:
            schema[self.rng.choice(["minimum", "exclusiveMinimum"])] = low
        if self.rng.random() < 0.7:
            schema[self.rng.choice(["maximum", "exclusiveMaximum"])] = high + 1
        if kind == "number" and self.rng.random() < 0.3:
            schema = {"type": "number", "minimum": low / 8, "maximum": high / 8 + 0.01}
        return schema

    def scalar(self) -> Schema:
        return self.rng.choice(
            [
                self.string,
                self.number,
                lambda: {"type": "boolean"},
                lambda: {"type": "null"},
                lambda: {"enum": [self.value() for _ in range(3)]},
                lambda: {"const": self.value()},
                lambda: {"type": ["integer", "null"]},
                lambda: {"enum": [1, 5, 9, "z"], "minimum": 4},
            ]
        )()

    def array(self, depth: int) -> Schema:
        low = self.rng.randint(0, 2)
        return self.rng.choice(
            [
                {"type": "array", "items": self.any(depth), "minItems": low, "maxItems": low + 2},
                {"type": "array", "prefixItems": [self.any(depth), self.scalar()], "items": False},
                {
                    "type": "array",
                    "prefixItems": [self.scalar()],
                    "items": self.scalar(),
                    "minItems": 2,
                    "maxItems": 3,
                },
                {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "maxItems": 1},
            ]
        )

    def object(self, depth: int) -> Schema:
        names = list(dict.fromkeys(self.word() for _ in range(self.rng.randint(1, 4))))
        schema: Schema = {
            "type": "object",
            "properties": {name: self.any(depth) for name in names},
            "required": [n for n in names if self.rng.random() < 0.6],
        }
        kind = self.rng.random()
        if kind < 0.6:
            schema["additionalProperties"] = False
        elif kind < 0.7:
            schema["minProperties"] = len(schema["required"])
            schema["maxProperties"] = len(names)
        elif kind < 0.8:
            schema["required"] = schema["required"] + ["also"]
        return schema

    def map(self, depth: int) -> Schema:
        return self.rng.choice(
            [
                {"type": "object", "additionalProperties": self.scalar()},
                {
                    "type": "object",
                    "patternProperties": {"^[a-c]{1,3}$": self.any(depth)},
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {"ab": {"const": 1}, "abc": {"const": 2}, "é": {"const": 3}},
                    "additionalProperties": {"type": "boolean"},
                },
            ]
        )

    def combined(self, depth: int) -> Schema:
        return self.rng.choice(
            [
                {"anyOf": [self.any(depth), self.scalar()]},
                {"oneOf": [{"type": "string", "maxLength": 3}, self.number(), {"type": "null"}]},
                {
                    "oneOf": [
                        {
                            "type": "object",
                            "properties": {"kind": {"const": kind}, "v": self.scalar()},
                            "required": ["kind", "v"],
                        }
                        for kind in ("a", "b")
                    ]
                },
                {
                    "allOf": [
                        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                        {"properties": {"a": {"minimum": 3, "maximum": 88}, "b": self.scalar()}},
                    ]
                },
                {"allOf": [{"type": "integer", "minimum": -5}, {"maximum": 70}]},
                {
                    "type": "object",
                    "properties": {"a": self.scalar(), "b": self.scalar()},
                    "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
                },
            ]
        )

    def any(self, depth: int) -> Schema:
        if depth <= 0 or self.rng.random() < 0.3:
            return self.scalar()
        return self.rng.choice([self.array, self.object, self.map, self.combined])(depth - 1)

    def referring(self) -> Schema:
        return self.rng.choice(
            [
                {"$defs": {"x/y": self.any(1)}, "type": "array", "items": {"$ref": "#/$defs/x~1y"}, "maxItems": 2},
                {
                    "$defs": {
                        "list": {
                            "type": "object",
                            "properties": {
                                "v": self.scalar(),
                                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/list"}]},
                            },
                            "required": ["v", "next"],
                        }
                    },
                    "$ref": "#/$defs/list",
                },
                {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "maxLength": 4},
                        "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1},
                    },
                    "required": ["name"],
                },
                {"definitions": {"n": {"type": "integer"}}, "$ref": "#/definitions/n", "maximum": 9},
            ]
        )

    def schema(self, index: int) -> Schema:
        makers: list[Callable[[], Schema]] = [
            self.scalar,
            lambda: self.array(1),
            lambda: self.object(2),
            lambda: self.map(1),
            lambda: self.combined(1),
            self.referring,
            self.string,
            self.number,
        ]
        return makers[index % len(makers)]()


FORMATS = ["date", "time", "date-time", "email", "ipv4", "ipv6", "uuid", "hostname", "uri", "duration"]

REFUSED: list[tuple[Schema, str]] = [
    ({"not": {"type": "null"}}, "not"),
    ({"if": {"type": "null"}, "then": {}}, "if"),
    ({"type": "array", "contains": {"const": 1}}, "contains"),
    ({"type": "array", "items": {}, "uniqueItems": True}, "uniqueItems"),
    ({"type": "integer", "multipleOf": 7}, "multipleOf"),
    ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"type": "object", "dependentSchemas": {"a": {}}}, "dependentSchemas"),
    ({"type": "string", "pattern": "(?!x)y"}, "pattern"),
    ({"type": "string", "format": "idn-email"}, "format"),
    ({"oneOf": [{"minimum": 1}, {"maximum": 3}]}, "oneOf"),
    ({"properties": {"deep": {"items": {"not": {}}}}}, "properties.deep.items.not"),
    ({"$ref": "other.json#/x"}, "$ref"),
]


def ask(server: Server, schema: Schema, **fields: Any) -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    body = user("Answer.", response_format=form, max_tokens=MAX_TOKENS, **fields)
    return server.chat(body)


def judge(schema: Schema, text: str) -> None:
    validator_for(schema, Draft202012Validator)(
        schema, format_checker=Draft202012Validator.FORMAT_CHECKER
    ).validate(json.loads(text))


def one(server: Server, index: int) -> bool:
    """True: the answer came to its end and was judged."""
    schema = Maker(1000 + index).schema(index)
    answer = ask(server, schema, seed=index, temperature=1.0 if index % 3 else 0)
    check(answer.status == 200, f"{answer.text[:300]} for {json.dumps(schema)}")
    choice = answer.json["choices"][0]
    if choice["finish_reason"] != "stop":
        return False
    try:
        judge(schema, choice["message"]["content"])
    except Exception as error:
        text = choice["message"]["content"]
        raise AssertionError(f"{text!r} for {json.dumps(schema)}: {error}") from error
    return True


def valid(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        whole = list(pool.map(lambda i: one(server, i), range(N_SCHEMAS)))
    print(f"      {sum(whole)} of {N_SCHEMAS} answers came to their end, all valid")
    check(sum(whole) >= 0.9 * N_SCHEMAS, f"only {sum(whole)} of {N_SCHEMAS} came to an end")


def refused(server: Server) -> None:
    for schema, keyword in REFUSED:
        answer = ask(server, schema)
        path = f"response_format.json_schema.schema.{keyword}"
        check_error(answer, 400, "unsupported_parameter", path)
        check(keyword.split(".")[-1] in answer.json["error"]["message"], "the keyword is named")


def objects(server: Server) -> None:
    whole = 0
    for seed in range(12):
        body = user("Answer.", response_format={"type": "json_object"}, max_tokens=400, seed=seed)
        choice = server.chat({**body, "logit_bias": {}}).json["choices"][0]
        if choice["finish_reason"] == "stop":
            check(isinstance(json.loads(choice["message"]["content"]), dict), "an object")
            whole += 1
    check(whole >= 3, f"only {whole} came to an end")


def choices_and_streams(server: Server) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"type": "integer"}}}
    several = ask(server, schema, n=4, seed=5, temperature=1.0, logprobs=True, top_logprobs=1).json
    for choice in several["choices"]:
        judge(schema, choice["message"]["content"])
        told = b"".join(bytes(t["bytes"]) for t in choice["logprobs"]["content"])
        check(told.decode() == choice["message"]["content"], "logprobs tell the text")
    events = ask(server, schema, seed=5, temperature=1.0, stream=True).events()
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1] if e["choices"])
    check(text == several["choices"][0]["message"]["content"], "streamed, the same answer")


def lengths(server: Server) -> None:
    cut = ask(server, {"type": "string", "minLength": 50}, seed=1).json["choices"][0]
    check(len(json.loads(cut["message"]["content"])) >= 50, "as long as it must be")
    body = user("Answer.", grammar='root ::= "one, two, three, four"', max_tokens=2)
    choice = server.chat(body).json["choices"][0]
    check(choice["finish_reason"] == "length", "cut by max_tokens")
    body["max_tokens"] = 100
    choice = server.chat(body).json["choices"][0]
    check(choice["message"]["content"] == "one, two, three, four", choice["message"]["content"])
    check(choice["finish_reason"] == "stop", "ends by itself")


def main() -> None:
    cases = Cases()
    with Server("--parallel", "4", tiny=True) as server:
        for case in (valid, refused, objects, choices_and_streams, lengths):
            cases.run(case.__name__.replace("_", " "), lambda c=case: c(server))  # type: ignore[misc]
        cases.end(server)


if __name__ == "__main__":
    main()
