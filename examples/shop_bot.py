#!/usr/bin/env python3
"""A support bot of a small shop: python examples/shop_bot.py [--url URL] [--photo FILE]

Each turn of the customer goes the same way:

  1. the shop offers its functions, with a schema that knows this customer's own orders, so
     that the model can ask for nothing else; the answer is constrained to it
  2. what the function finds in the shop (SQLite) goes back as a message of role "tool"
  3. the model answers the customer in words

The policy is the same in every request and the photo comes again with every turn: that is
what tamp packs and remembers. The last lines are the bill.
"""

from __future__ import annotations

import argparse
import base64
import json
import sqlite3
from pathlib import Path
from typing import Any

from openai import OpenAI

POLICY = """You answer customers of a small clothes shop. Be brief and friendly.
Orders are sent within two working days; a parcel takes three more. Returns are free within
thirty days if nothing was worn; the money comes back to the card that paid. Damaged goods are
replaced at once, a photo is enough. Colours on a screen may differ a little from the cloth.
Never promise what the functions did not say."""

CONVERSATION = [
    ("Where is my parcel?", "find_order"),
    ("The shirt in the photo came with a hole. Can I send it back?", "start_return"),
    ("Do you have it in another size?", "find_sizes"),
]


def open_shop() -> sqlite3.Connection:
    shop = sqlite3.connect(":memory:")
    shop.executescript(
        """
        CREATE TABLE item (sku TEXT PRIMARY KEY, name TEXT, sizes TEXT);
        CREATE TABLE purchase (number INTEGER PRIMARY KEY, customer TEXT, sku TEXT, state TEXT);
        INSERT INTO item VALUES ('TS-100', 'T-shirt, white', 'S,L'), ('JK-7', 'Jacket, red', 'M');
        INSERT INTO purchase VALUES (1041, 'ada', 'TS-100', 'sent on Monday'),
                                    (1042, 'ada', 'JK-7', 'being packed'),
                                    (1043, 'bob', 'TS-100', 'delivered');
        """
    )
    return shop


class Shop:
    """The functions, and what they may be asked: only this customer's orders."""

    def __init__(self, customer: str) -> None:
        self.db = open_shop()
        self.orders = [
            row[0]
            for row in self.db.execute(
                "SELECT number FROM purchase WHERE customer = ? ORDER BY number", (customer,)
            )
        ]
        self.skus = [row[0] for row in self.db.execute("SELECT sku FROM item ORDER BY sku")]

    def tools(self) -> list[dict[str, Any]]:
        order = {"type": "integer", "enum": self.orders, "description": "number of the order"}
        return [
            function("find_order", "Where an order is.", {"number": order}),
            function(
                "start_return",
                "Begins a return.",
                {"number": order, "reason": {"enum": ["damaged", "wrong size", "not wanted"]}},
            ),
            function("find_sizes", "Sizes in stock.", {"sku": {"enum": self.skus}}),
        ]

    def run(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "find_sizes":
            query = "SELECT name, sizes FROM item WHERE sku = ?"
            item, sizes = self.db.execute(query, (arguments["sku"],)).fetchone()
            return {"item": item, "sizes": sizes.split(",")}
        query = (
            "SELECT item.name, purchase.state FROM purchase JOIN item USING (sku) WHERE number = ?"
        )
        item, state = self.db.execute(query, (arguments["number"],)).fetchone()
        if name == "find_order":
            return {"order": arguments["number"], "item": item, "state": state}
        self.db.execute(
            "UPDATE purchase SET state = 'coming back' WHERE number = ?", (arguments["number"],)
        )
        return {"item": item, "label": f"R-{arguments['number']}", "reason": arguments["reason"]}


def function(name: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


class Bill:
    """What the answers say about themselves, added up."""

    def __init__(self) -> None:
        self.whole = self.packed = self.cached = self.requests = 0

    def add(self, usage: Any) -> None:
        packing = usage.model_extra["compression"]
        self.whole += packing["original_tokens"]
        self.packed += packing["compressed_tokens"]
        self.cached += usage.prompt_tokens_details.cached_tokens
        self.requests += 1

    def __str__(self) -> str:
        run = self.packed - self.cached
        saved = 100 * (1 - run / self.whole)
        return (
            f"{self.requests} requests: {self.whole} prompt tokens as they came, "
            f"{self.packed} after packing, {self.cached} of these known from before, "
            f"{run} run: {saved:.0f} % saved"
        )


def customer_message(text: str, photo: bytes | None) -> dict[str, Any]:
    if photo is None:
        return {"role": "user", "content": text}
    kind = "png" if photo.startswith(b"\x89PNG") else "jpeg"
    url = f"data:image/{kind};base64,{base64.b64encode(photo).decode()}"
    return {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": text},
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--photo", type=Path)
    options = parser.parse_args()
    api = OpenAI(base_url=options.url, api_key="unused")
    photo = options.photo.read_bytes() if options.photo else None
    shop = Shop("ada")
    bill = Bill()
    messages: list[dict[str, Any]] = [{"role": "system", "content": POLICY}]
    for text, wanted in CONVERSATION:
        print(f"customer: {text}")
        messages.append(customer_message(text, photo))
        fields: dict[str, Any] = {"model": "default", "tools": shop.tools(), "temperature": 0}
        # A large model may choose ("auto"); for a small one the shop knows better.
        chosen = {"type": "function", "function": {"name": wanted}}
        asked = api.chat.completions.create(
            messages=messages, tool_choice=chosen, max_tokens=200, **fields  # type: ignore[arg-type]
        )
        bill.add(asked.usage)
        message = asked.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls or []:
            arguments = json.loads(call.function.arguments)
            result = json.dumps(shop.run(call.function.name, arguments))
            print(f"    {call.function.name}({json.dumps(arguments)}) -> {result}")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        said = api.chat.completions.create(
            messages=messages, max_tokens=60, model="default", temperature=0  # type: ignore[arg-type]
        )
        bill.add(said.usage)
        answer = (said.choices[0].message.content or "").strip()
        print(f"bot: {answer}")
        messages.append({"role": "assistant", "content": answer})
    print(bill)


if __name__ == "__main__":
    main()
