"""What the browser tests share: Chromium from PATH, a page that is watched all the time.

Playwright drives the system's Chromium; it brings none of its own. Whatever a test does,
a page must not write errors to its console and must not ask another origin for anything:
`Watched.end` checks it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "http"))
# pylint: disable=wrong-import-position
from harness import ROOT, Server, Skip, check  # noqa: E402

AXE = ROOT / "tests/browser/node_modules/axe-core/axe.min.js"
# A busy machine answers late; nothing here asserts a time.
PATIENCE_MS = 120_000
PHOTO = ROOT / "docs/images/tshirt.jpg"


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Watched:
    """A page of its own context at a server's /, with everything it complains about."""

    def __init__(self, browser: Any, server: Server, width: int = 1280, height: int = 800, **context: Any) -> None:
        self.origin = f"http://127.0.0.1:{server.port}"
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.requests: list[Any] = []
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("request", self.asked)

    def asked(self, request: Any) -> None:
        self.requests.append(request)
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and f"{url.scheme}://{url.netloc}" != self.origin:
            self.foreign.append(request.url)

    def open(self) -> Any:
        self.page.goto(self.origin + "/")
        self.page.wait_for_selector(".sample")
        return self.page

    def chats(self) -> list[Any]:
        """The bodies of the chat requests so far."""
        return [r.post_data_json for r in self.requests if r.url.endswith("/v1/chat/completions")]

    def end(self, expected: str | None = None) -> None:
        """expected: what the console may say, because the test provoked it."""
        self.context.close()
        bad = [c for c in self.complaints if expected is None or expected not in c]
        check(not bad, f"the console says {bad[:3]}")
        check(not self.foreign, f"requests left the machine: {self.foreign[:3]}")


def ask(page: Any, text: str, picture: Path | None = PHOTO) -> None:
    if picture is not None:
        page.set_input_files("#files", str(picture))
        page.wait_for_selector("#thumbs li")
    page.fill("#question", text)
    page.click("#send")


def answered(page: Any, n: int = 1) -> None:
    """Until n answers have their bills, and nothing is being written any more."""
    page.wait_for_function("n => document.querySelectorAll('.bill').length === n", arg=n)
    page.wait_for_selector("#send[data-state=send]")


def pixels(page: Any, selector: str) -> str:
    """What a canvas shows, for comparing."""
    return str(page.eval_on_selector(selector, "c => c.toDataURL()"))


def no_sideways(page: Any, where: str) -> None:
    wide, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    check(wide <= room, f"{where}: {wide} px on {room} px")


def axe(page: Any, where: str) -> None:
    """No finding of axe that it calls serious or critical."""
    if not AXE.exists():
        raise Skip(f"{AXE.relative_to(ROOT)} is missing: make test brings it")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
    bad = [
        f"{v['id']} ({v['impact']}): {v['nodes'][0]['html'][:120]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    check(not bad, f"{where}: " + "; ".join(bad))
