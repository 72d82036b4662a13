"""LoRA adapters as llama-server has them: /lora-adapters, and `lora` in a request.

A small model and a small adapter, both with random weights: whether the arithmetic is
llama.cpp's is tested elsewhere."""

from __future__ import annotations

from typing import Any

from harness import ROOT, Cases, Server, check, user

LORA = "tests/golden/lora/llama-bpe.gguf"


def said(server: Server, **more: Any) -> str:
    body = user("Where is my order?", max_tokens=12, temperature=0, ignore_eos=True, **more)
    answer = server.chat(body)
    check(answer.status == 200, answer.text)
    return str(answer.json["choices"][0]["message"]["content"])


def scales(server: Server) -> list[float]:
    answer = server.request("GET", "/lora-adapters")
    check(answer.status == 200, answer.text)
    return [adapter["scale"] for adapter in answer.json]


def listed(server: Server) -> None:
    adapters = server.request("GET", "/lora-adapters").json
    check([a["id"] for a in adapters] == [0, 1], str(adapters))
    check(adapters[0]["path"] == LORA and adapters[0]["scale"] == 0.5, str(adapters))
    check(adapters[0]["pictures_only"] is False, str(adapters))


def chosen_by_a_request(server: Server) -> None:
    plain = said(server, lora=[])
    check(said(server) == said(server, lora=[{"id": 0, "scale": 0.5}]), "the server's scale")
    check(said(server) != plain, "an adapter that changes nothing")
    check(said(server, lora=[{"id": 1, "scale": 0.5}]) == said(server), "the same file twice")
    check(scales(server) == [0.5, 0], "a request has changed the server")


def set_for_all(server: Server) -> None:
    answer = server.request("POST", "/lora-adapters", [{"id": 1, "scale": 1}])
    check(answer.status == 200 and answer.json[1]["scale"] == 1, answer.text)
    check(scales(server) == [0, 1], "what is not in the list is 0, as in llama-server")
    check(said(server) == said(server, lora=[{"id": 0, "scale": 1}]), "the new scale")


def refused(server: Server) -> None:
    before = scales(server)
    half_right = b'[{"id": 0, "scale": 1}, {"id": 2, "scale": 1}]'
    for body in (b"{}", b"[1]", half_right, b"[", b"[" + b" " * 70000 + b"]"):
        answer = server.request("POST", "/lora-adapters", body)
        check(answer.status in (400, 413), f"{body[:60]!r}: {answer.status}")
    deleted = server.request("DELETE", "/lora-adapters")
    check(deleted.status == 405, "DELETE")
    check(deleted.headers.get("allow") == "GET, HEAD, POST", str(deleted.headers))
    check(scales(server) == before, "a refused list has changed the scales")


def no_adapter() -> None:
    server = Server("--lora", "tests/golden/tiny/llama-bpe.gguf", tiny=True, wait=False)
    check(server.process.wait(60) == 1, "a model is no adapter")
    check('must be "adapter"' in server.log_text(), server.log_text())


def main() -> None:
    cases = Cases()
    with Server("--lora", f"{LORA}:0.5,{LORA}:0", tiny=True) as server:
        cases.run("the adapters are listed with their scales", lambda: listed(server))
        cases.run("a request chooses its own", lambda: chosen_by_a_request(server))
        cases.run("POST sets them for all", lambda: set_for_all(server))
        cases.run("wrong lists are refused whole", lambda: refused(server))
        cases.run("a file that is no adapter ends the start with the reason", no_adapter)
        cases.end(server)


if __name__ == "__main__":
    main()
