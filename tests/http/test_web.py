"""The page's files over HTTP: types, compression, caching, the headers that keep it safe,
keys, and switching it off."""

from __future__ import annotations

import gzip
import re

from harness import ROOT, Cases, Server, check, check_error

PAGE = (ROOT / "web/index.html").read_bytes()
KEY = "a-key-of-the-tests"


def page(server: Server) -> None:
    answer = server.request("GET", "/")
    check(answer.status == 200 and answer.body == PAGE, f"status {answer.status}, {len(answer.body)} bytes")
    check(answer.headers["content-type"] == "text/html; charset=utf-8", answer.headers["content-type"])
    check("content-encoding" not in answer.headers, "compressed without being asked")


def everything_linked(server: Server) -> None:
    """Every file that the page, its styles and its modules name is there, with a type."""
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "jpg": "image/jpeg"}
    todo, seen = ["/"], set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = server.request("GET", path)
        check(answer.status == 200, f"{path}: {answer.status}")
        kind = kinds.get(path.rsplit(".", 1)[-1], "text/html")
        check(answer.headers["content-type"].startswith(kind), f"{path}: {answer.headers['content-type']}")
        if kind != "image/jpeg":
            todo += re.findall(r'["(](/web/[\w.-]+)[")]', answer.text)
            todo += [f"/web/{name}" for name in re.findall(r'from "\./([\w.-]+)"', answer.text)]
    files = {f"/web/{p.name}" for p in (ROOT / "web").iterdir()} - {"/web/index.html"}
    check(files <= seen, f"nothing uses {files - seen}")


def compressed(server: Server) -> None:
    answer = server.request("GET", "/web/app.js", headers={"Accept-Encoding": "gzip, br"})
    check(answer.headers.get("content-encoding") == "gzip", "not compressed")
    check("Accept-Encoding" in answer.headers.get("vary", ""), "no Vary")
    check(gzip.decompress(answer.body) == (ROOT / "web/app.js").read_bytes(), "other bytes")
    picture = server.request("GET", "/web/tshirt.jpg", headers={"Accept-Encoding": "gzip;q=0"})
    check("content-encoding" not in picture.headers, "a refused encoding was used")


def cached(server: Server) -> None:
    for encoding in ("identity", "gzip"):
        head = {"Accept-Encoding": encoding}
        first = server.request("GET", "/web/style.css", headers=head)
        etag = first.headers["etag"]
        again = server.request("GET", "/web/style.css", headers={**head, "If-None-Match": f'"x", W/{etag}'})
        check(again.status == 304 and again.body == b"", f"{encoding}: {again.status}, {len(again.body)} bytes")
        check(again.headers["etag"] == etag, "another ETag")
        other = server.request("GET", "/web/style.css", headers={**head, "If-None-Match": '"x"'})
        check(other.status == 200 and other.body == first.body, f"{encoding}: {other.status}")
    both = {server.request("GET", "/", headers={"Accept-Encoding": e}).headers["etag"] for e in ("identity", "gzip")}
    check(len(both) == 2, "two forms share an ETag")


def head(server: Server) -> None:
    answer = server.request("HEAD", "/")
    check(answer.status == 200 and answer.body == b"", f"{answer.status}, {len(answer.body)} bytes")
    check(int(answer.headers["content-length"]) == len(PAGE), answer.headers["content-length"])
    check_error(server.request("POST", "/", {}), 405, "method_not_allowed")


def safe(server: Server) -> None:
    for path in ("/", "/web/app.js", "/web/icon.svg"):
        headers = server.request("GET", path).headers
        policy = dict(d.strip().split(" ", 1) for d in headers["content-security-policy"].split(";"))
        check(policy["default-src"] == "'none'", policy["default-src"])
        check(policy["script-src"] == "'self'" and policy["style-src"] == "'self'", "more than our own files")
        check(policy["connect-src"] == "'self'" and policy["frame-ancestors"] == "'none'", str(policy))
        check("unsafe" not in headers["content-security-policy"], "something unsafe is allowed")
        check("http" not in headers["content-security-policy"], "another origin is allowed")
        check(headers["x-content-type-options"] == "nosniff", "sniffing")
        check(headers["referrer-policy"] == "no-referrer", "referrer")
    check(b" style=" not in PAGE and b" onclick=" not in PAGE and b"<style" not in PAGE, "something is inline")


def absent(server: Server) -> None:
    for path in ("/web/", "/web/none.js", "/web/../config.c", "/web/%61pp.js", "/web/app.js/", "/index.html"):
        check_error(server.request("GET", path), 404, "unknown_route")


def with_key() -> None:
    """The page asks for the key, so it must come without one; what it asks for does not."""
    with Server("--api-key", KEY, tiny=True) as server:
        check(server.request("GET", "/").status == 200, "the page wants a key")
        check_error(server.request("GET", "/v1/models"), 401, "invalid_api_key")
        check_error(server.request("GET", "/metrics"), 401, "invalid_api_key")


def switched_off() -> None:
    with Server("--no-web", tiny=True) as server:
        check_error(server.request("GET", "/"), 404, "unknown_route")
        check_error(server.request("GET", "/web/app.js"), 404, "unknown_route")
        check(server.request("GET", "/health").status == 200, "the rest is there")


def main() -> None:
    cases = Cases()
    with Server(tiny=True) as server:
        for name, fn in (
            ("the page", page),
            ("everything that it names is there, and nothing else", everything_linked),
            ("gzip", compressed),
            ("304", cached),
            ("HEAD and other methods", head),
            ("headers", safe),
            ("what is not there", absent),
        ):
            cases.run(name, lambda fn=fn: fn(server))
        cases.run("with a key", with_key)
        cases.run("switched off", switched_off)
        cases.end(server)


if __name__ == "__main__":
    main()
