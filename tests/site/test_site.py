"""The documentation site: builds with every link, has every page, asks no other host.

build/venv-docs has MkDocs (make builds it); where it could not be had, one skipped test.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/http"), str(ROOT / "tests/browser")]
# pylint: disable=wrong-import-position
from browser import chromium  # noqa: E402
from harness import Cases, Skip, check  # noqa: E402

MKDOCS = ROOT / "build/venv-docs/bin/mkdocs"
SITE = ROOT / "build/site-test"
# Elements that a browser loads by itself, and where their address is.
LOADS = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "object": "data"}
LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest", "modulepreload"}
IN_STYLE = re.compile(r"""(?:@import\s+["']|url\(\s*["']?)((?:https?:)?//[^"')\s]+)""")


class Loads(HTMLParser):
    """The addresses that a page has loaded when it is only opened."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in LOADS:
            self.urls.append(values.get(LOADS[tag]) or "")
        if tag == "link" and LOADING_LINKS & set((values.get("rel") or "").split()):
            self.urls.append(values.get("href") or "")


def foreign_in(text: str, html: bool) -> list[str]:
    found = IN_STYLE.findall(text)
    if html:
        parser = Loads()
        parser.feed(text)
        found += [url for url in parser.urls if urlsplit(url).netloc]
    return found


def builds_strictly() -> None:
    run = subprocess.run(
        [MKDOCS, "build", "--strict", "--site-dir", SITE],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )
    check(run.returncode == 0, run.stderr[-2000:])


def has_every_page() -> None:
    """Each document of docs/ is a page; none is left out of the menu."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]:
        html = SITE / ("index.html" if page == "README.md" else page.replace(".md", ".html"))
        check(html.is_file(), f"{html} is missing")
        check(re.search(rf"[ -]{re.escape(page)}$", config, re.M), f"mkdocs.yml: nav does not name {page}")


def finds_foreign_hosts() -> None:
    """The check itself: what it must find, and what a reader only clicks."""
    for bad in ('<script src="//a.example/x.js">', '<link rel="stylesheet" href="https://a.example/x.css">',
                "<style>@font-face{src:url(https://a.example/f.woff)}</style>"):
        check(foreign_in(bad, True), f"not found: {bad}")
    check(not foreign_in('<a href="https://a.example/">a</a><img src="b.png">', True), "a link is no request")


def names_no_foreign_host() -> None:
    files = [p for p in SITE.rglob("*") if p.suffix in (".html", ".css")]
    check(len(files) > 10, f"{len(files)} files in {SITE}")
    for path in files:
        bad = foreign_in(path.read_text(encoding="utf-8"), path.suffix == ".html")
        check(not bad, f"{path.relative_to(SITE)} loads {bad[:3]}")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # pylint: disable=redefined-builtin
        pass


def asks_no_foreign_host() -> None:
    """Every page in Chromium, scripts included, with a search on the first."""
    path = chromium()
    if path is None:
        raise Skip("no chromium: make deps SET=test")
    from playwright.sync_api import sync_playwright  # pylint: disable=import-outside-toplevel

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = f"127.0.0.1:{server.server_port}"
    asked: list[str] = []
    missing: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda r: asked.append(r.url))
        page.on("response", lambda r: missing.append(r.url) if r.status >= 400 else None)
        for html in sorted(SITE.rglob("*.html")):
            if html.name != "404.html":
                page.goto(f"http://{own}/{html.relative_to(SITE).as_posix()}")
        page.goto(f"http://{own}/index.html")
        page.fill("input.md-search__input", "threshold")
        page.wait_for_selector(".md-search-result__item")
        browser.close()
    server.shutdown()
    bad = [u for u in asked if urlsplit(u).scheme in ("http", "https") and urlsplit(u).netloc != own]
    check(not bad, f"asked {sorted(set(bad))[:3]}")
    check(not missing, f"not there: {sorted(set(missing))[:3]}")


def main() -> None:
    cases = Cases()
    if not MKDOCS.exists():
        print("skip  the site: no MkDocs (make site)\n0 passed, 0 failed, 1 skipped")
        return
    shutil.rmtree(SITE, ignore_errors=True)
    cases.run("finds what loads from elsewhere", finds_foreign_hosts)
    if cases.run("builds with every link", builds_strictly):
        cases.run("has every page", has_every_page)
        cases.run("names no other host", names_no_foreign_host)
        cases.run("asks no other host", asks_no_foreign_host)
    cases.end()


if __name__ == "__main__":
    main()
