#!/usr/bin/env python3
"""The pictures of docs/page.md: tests/browser/screenshots.py [OUT-FOLDER]

Writes page.png, page-dark.png, page-compare.png and page-phone.png (docs/images by
default) from a server of its own. Times in them are those of the machine it runs on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from browser import ROOT, Watched, answered, ask, chromium
from harness import Server, need_models

QUESTION = "What kind of product is it?"


def settled(page: Any) -> None:
    page.wait_for_selector("#packing [aria-busy=false]", state="attached")
    page.wait_for_timeout(400)


def chat(w: Watched, ratio: int | None) -> Any:
    page = w.open()
    page.set_input_files("#files", str(ROOT / "docs/images/tshirt.jpg"))
    page.wait_for_selector("#packing figure", state="attached")
    if ratio is not None:
        page.focus("#ratio")
        for _ in range(ratio):
            page.keyboard.press("ArrowRight")
    ask(page, QUESTION, picture=None)
    answered(page)
    return page


def main() -> None:
    need_models()
    path = chromium()
    if path is None:
        sys.exit("no chromium on PATH: make deps SET=test")
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/images"
    from playwright.sync_api import sync_playwright  # pylint: disable=import-outside-toplevel

    with sync_playwright() as playwright, Server() as server:
        browser = playwright.chromium.launch(executable_path=path)

        w = Watched(browser, server, 1280, 800)
        page = chat(w, 0)
        page.click(".bill summary")
        settled(page)
        page.screenshot(path=out / "page.png")
        w.end()

        w = Watched(browser, server, 1280, 800, color_scheme="dark")
        page = w.open()
        page.click("#show-packing")
        page.click("#show-server")
        page.wait_for_selector("#server dl")
        ask(page, QUESTION)
        answered(page)
        for n in (2, 3):
            ask(page, "And what is it made of?", picture=None)
            answered(page, n)
        page.wait_for_timeout(2500)
        page.screenshot(path=out / "page-dark.png")
        w.end()

        w = Watched(browser, server, 1280, 800)
        page = w.open()
        page.click("#compare")
        ask(page, QUESTION)
        page.wait_for_selector(".verdict")
        answered(page, 2)
        settled(page)
        page.screenshot(path=out / "page-compare.png")
        w.end()

        w = Watched(browser, server, 390, 760, has_touch=True, is_mobile=True)
        page = chat(w, None)
        page.tap(".bill summary")
        page.wait_for_timeout(600)
        page.evaluate("document.querySelector('#log').scrollTop = 0")
        page.screenshot(path=out / "page-phone.png")
        w.end()
        browser.close()


if __name__ == "__main__":
    main()
