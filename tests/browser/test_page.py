#!/usr/bin/env python3
"""The page in a real browser: what people do with it, by mouse, by keyboard, on a phone."""

from __future__ import annotations

import json
import sys
from typing import Any, Callable

from browser import PHOTO, Watched, answered, ask, axe, chromium, no_sideways, pixels
from harness import Cases, Server, check, need_models

KEY = "a-key-of-the-tests"
CHAT = "**/v1/chat/completions"


def sse(*chunks: Any, done: bool = True) -> str:
    lines = [f"data: {json.dumps(c)}\n\n" for c in chunks]
    return ": ping\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else "")


def delta(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def instead(page: Any, **answer: Any) -> None:
    """The next chat requests are answered so, not by the server."""
    page.unroute(CHAT)
    page.route(CHAT, lambda route: route.fulfill(**answer))


# -- a chat ----------------------------------------------------------------------------


def chat_with_picture(w: Watched) -> None:
    page = w.open()
    ask(page, "What kind of product is it?")
    answered(page)
    check(page.inner_text(".answer .text").strip() != "", "no answer")
    body = w.chats()[0]
    parts = body["messages"][0]["content"]
    check(parts[0]["image_url"]["url"].startswith("data:image/jpeg;base64,"), "the picture was not sent as it is")
    check(parts[1]["text"] == "What kind of product is it?" and body["stream"] is True, str(body)[-200:])
    page.click(".bill summary")
    bill = page.inner_text(".bill")
    for part in ("256 → 64", "tome", "Prompt", "Unpacked it would have been", "keys and values"):
        check(part in bill, f"no '{part}' in the bill: {bill}")


def several_turns(w: Watched) -> None:
    page = w.open()
    ask(page, "Say yes.", picture=None)
    answered(page)
    first = page.inner_text(".answer .text").strip()
    page.keyboard.type("And again?")
    page.keyboard.press("Enter")
    answered(page, 2)
    said = w.chats()[1]["messages"]
    check([m["role"] for m in said] == ["user", "assistant", "user"], str(said))
    check(said[1]["content"].strip() == first, "the answer was not sent back as it was")
    page.click("[aria-label='Ask again'] >> nth=0")
    page.wait_for_function("() => document.querySelectorAll('.bill').length === 1")
    answered(page)
    check(len(w.chats()[2]["messages"]) == 1, "asking again did not go back to the first question")
    page.click("#new-chat")
    check(page.locator(".turn").count() == 0 and page.is_visible("#welcome"), "the old chat is still there")


def settings_are_sent(w: Watched) -> None:
    page = w.open()
    page.click("#show-settings")
    for name, value in (("temperature", "0.7"), ("max_tokens", "2"), ("seed", "11")):
        page.fill(f"#set-{name}", value)
    page.fill("#set-system", "Be short.")
    page.fill("#set-key", KEY)
    page.keyboard.press("Escape")
    page.select_option("#profile", "product_search")
    ask(page, "Name ten animals.", picture=None)
    answered(page)
    body = w.chats()[0]
    got = {k: body[k] for k in ("temperature", "max_tokens", "seed", "compression")}
    check(got == {"temperature": 0.7, "max_tokens": 2, "seed": 11, "compression": "product_search"}, str(got))
    check(body["messages"][0] == {"role": "system", "content": "Be short."}, str(body["messages"][0]))
    check("longest answer" in page.inner_text(".answer"), "a cut answer does not say so")
    stored = page.evaluate("JSON.stringify({...localStorage})")
    check(KEY not in stored and "Be short." in stored, stored)
    page.reload()
    page.click("#show-settings")
    check(page.input_value("#set-seed") == "11", "the settings are gone after loading again")


def stop(w: Watched, server: Server) -> None:
    page = w.open()
    page.click("#show-settings")
    page.fill("#set-max_tokens", "4000")
    page.keyboard.press("Escape")
    before = server.metric("tamp_requests_cancelled_total")
    ask(page, "Count from one to two thousand, in words.", picture=None)
    page.wait_for_function("() => document.querySelector('.answer .text').innerText.length > 20")
    check(page.get_attribute("#send", "aria-label") == "Stop", "the button does not say what it does")
    page.click("#send")
    page.wait_for_selector("text=Stopped.")
    page.wait_for_selector("#send[data-state=send]")
    for _ in range(600):
        if server.metric("tamp_requests_cancelled_total") > before:
            break
        page.wait_for_timeout(100)
    check(server.metric("tamp_requests_cancelled_total") > before, "the server goes on")


def copied(w: Watched) -> None:
    w.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = w.open()
    instead(page, body=sse(delta("**two** words", "stop")), content_type="text/event-stream")
    ask(page, "x", picture=None)
    page.click("[aria-label='Copy the answer']")
    page.wait_for_selector("[aria-label='Copied']")
    check(page.evaluate("navigator.clipboard.readText()") == "**two** words", "something else was copied")


# -- pictures in, packing shown ------------------------------------------------------------


def paste_and_drop(w: Watched) -> None:
    page = w.open()
    hand_over = """([kind, target, bytes]) => {
      const files = new DataTransfer();
      files.items.add(new File([new Uint8Array(bytes)], `${kind}.jpg`, {type: "image/jpeg"}));
      const event = kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: files, bubbles: true, cancelable: true})
        : new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true});
      document.querySelector(target).dispatchEvent(event);
    }"""
    data = list(PHOTO.read_bytes())
    page.evaluate(hand_over, ["paste", "#question", data])
    page.wait_for_selector("#thumbs li")
    page.evaluate(hand_over, ["dragover", "main", data])
    check(page.is_visible("#drop"), "nothing says that it can be dropped here")
    page.evaluate(hand_over, ["drop", "main", data])
    page.wait_for_selector("#thumbs li >> nth=1")
    check(not page.is_visible("#drop"), "the veil stays")
    page.click("[aria-label='Remove paste.jpg']")
    check(page.locator("#thumbs li").count() == 1, "it was not removed")
    text = """() => {
      const files = new DataTransfer();
      files.items.add(new File(["x"], "x.txt", {type: "text/plain"}));
      document.querySelector("main").dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
    }"""
    page.evaluate(text)
    page.wait_for_selector("text=Only pictures can be dropped here.")
    page.set_input_files("#files", [{"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture"}])
    page.wait_for_selector("text=notes.png is no picture")


def converted(w: Watched) -> None:
    """What the server does not take (WebP here) goes out as a JPEG."""
    page = w.open()
    webp = page.evaluate(
        """async () => {
      const canvas = new OffscreenCanvas(64, 48);
      canvas.getContext("2d").fillRect(8, 8, 20, 20);
      const blob = await canvas.convertToBlob({type: "image/webp"});
      return [...new Uint8Array(await blob.arrayBuffer())];
    }"""
    )
    page.set_input_files("#files", [{"name": "a.webp", "mimeType": "image/webp", "buffer": bytes(webp)}])
    page.wait_for_selector("#thumbs li")
    page.fill("#question", "What is it?")
    page.click("#send")
    answered(page)
    url = w.chats()[0]["messages"][0]["content"][0]["image_url"]["url"]
    check(url.startswith("data:image/jpeg;base64,"), url[:40])


def slider(w: Watched) -> None:
    page = w.open()
    page.set_input_files("#files", str(PHOTO))
    page.wait_for_selector("#packing figure")
    check("256 → 64" in page.inner_text("#packing figcaption"), page.inner_text("#packing figcaption"))
    check(page.input_value("#ratio") == "4", "the slider does not stand where the plan is")
    seen = {pixels(page, "#packing canvas")}
    page.focus("#ratio")
    for key, rows in (("End", "256 → 16"), ("Home", "256 → 256"), ("ArrowRight", "256 → 171")):
        page.keyboard.press(key)
        page.wait_for_selector(f"#packing figcaption:has-text('{rows}')")
        seen.add(pixels(page, "#packing canvas"))
    check(len(seen) == 4, f"{len(seen)} different pictures at four rates")
    check(page.inner_text("#packing output") == "1.5×", page.inner_text("#packing output"))
    ask(page, "What is it?", picture=None)
    answered(page)
    check(w.chats()[0]["compression"] == {"image": {"method": "tome", "ratio": 1.5}}, str(w.chats()[0]["compression"]))


def text_shaded(w: Watched) -> None:
    page = w.open()
    page.select_option("#profile", "customer_service")
    page.fill("#question", "very very very good shoes, order AB-1234, " * 12 + "what now?")
    page.wait_for_selector("#packing .pieces .merged")
    fixed = page.eval_on_selector_all("#packing .pieces .fixed", "all => all.map(n => n.textContent).join(' ')")
    check("1234" in fixed, f"the order's number is not marked as protected: {fixed}")
    whole = page.eval_on_selector("#packing .pieces", "n => n.textContent")
    check(whole.endswith("what now?") and "AB-1234" in whole, "the text is not the question")


def look_closely(w: Watched) -> None:
    page = w.open()
    page.set_input_files("#files", str(PHOTO))
    page.click("#thumbs .picture")
    page.wait_for_selector("#viewer .caption:has-text('256 patches in 64 rows')")
    before = pixels(page, "#viewer canvas")
    page.hover("#viewer canvas", position={"x": 20, "y": 20})
    page.wait_for_selector("#viewer .caption:has-text('patches became this one row')")
    check(pixels(page, "#viewer canvas") != before, "the row is not pointed out")
    page.mouse.move(1, 1)
    page.focus("#viewer canvas")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#viewer .caption:has-text('35 patches became this one row')")
    page.focus("#viewer-ratio")
    page.keyboard.press("End")
    page.wait_for_selector("#viewer .caption:has-text('256 patches in 16 rows')")
    axe(page, "viewer")
    page.keyboard.press("Escape")
    check(not page.is_visible("#viewer"), "Escape does not close it")


def side_by_side(w: Watched) -> None:
    page = w.open()
    page.click("#compare")
    page.select_option("#plan-B", label="pictures 8×")
    ask(page, "What kind of product is it?")
    page.wait_for_selector(".verdict")
    answered(page, 2)
    heads = page.locator(".answer .head").all_inner_texts()
    check(heads == ["A · off", "B · server's plan, pictures 8×"], str(heads))
    left, right = (page.locator(".answer").nth(i).bounding_box() for i in (0, 1))
    check(left["y"] == right["y"] and left["x"] < right["x"], "they are not next to each other")
    verdict = page.inner_text(".verdict")
    check("B read 75 rows instead of 299" in verdict and "began after" in verdict, verdict)
    check([b.get("cache_prompt") for b in w.chats()] == [False, False], "the second may profit from the first")
    page.check(".chooser input >> nth=1")
    chosen = page.locator(".answer .text").nth(1).inner_text().strip()
    page.click("#compare")
    ask(page, "Sure?", picture=None)
    answered(page, 3)
    check(w.chats()[2]["messages"][1]["content"].strip() == chosen, "it does not go on with B")


# -- what goes wrong ---------------------------------------------------------------------------


def key_asked_for(browser: Any) -> None:
    with Server("--api-key", KEY, tiny=True) as server:
        w = Watched(browser, server)
        page = w.open()
        ask(page, "Hello", picture=None)
        page.wait_for_selector(".error:has-text('wants an API key')")
        page.click(".error button")
        page.fill("#set-key", KEY)
        page.keyboard.press("Escape")
        page.click("[aria-label='Ask again']")
        answered(page)
        w.end(expected="401")


def server_gone(browser: Any) -> None:
    server = Server(tiny=True)
    w = Watched(browser, server)
    page = w.open()
    server.stop()
    ask(page, "Hello", picture=None)
    page.wait_for_selector(".error:has-text('cannot be reached')")
    check(page.is_visible(".error button:has-text('Try again')"), "nothing to do about it")
    w.end(expected="ERR_CONNECTION")


def refused_in_words(w: Watched) -> None:
    page = w.open()
    answers = {
        "busy": (429, {"error": {"message": "the queue is full", "code": "queue_full"}}, "The server is busy"),
        "long": (400, {"error": {"message": "9000 rows", "code": "context_length_exceeded"}}, "too long for the model"),
        "odd": (400, {"error": {"message": "no", "code": "x", "param": "seed"}}, "no (seed)"),
        "proxy": (502, None, "did not take this"),
    }
    for name, (status, body, words) in answers.items():
        text = json.dumps(body) if body else "<h1>Bad gateway</h1>"
        instead(page, status=status, body=text, headers={"Retry-After": "7"})
        ask(page, name, picture=None)
        page.wait_for_selector(f".turn:last-child .error:has-text('{words}')")
    check("wait 7 s" in page.inner_text(".error >> nth=0"), page.inner_text(".error >> nth=0"))


def broken_streams(w: Watched) -> None:
    page = w.open()
    failure = {"error": {"message": "numbers went bad", "code": "numerical_error"}}
    for body, words in (
        (sse(delta("one"), failure, done=False), "numbers went bad"),
        (sse(delta("one"), done=False), "broke off"),
    ):
        instead(page, body=body, content_type="text/event-stream")
        ask(page, "x", picture=None)
        page.wait_for_selector(f".turn:last-child .error:has-text('{words}')")
        check(page.inner_text(".turn:last-child .text").strip() == "one", "what came is lost")


def hostile_text(w: Watched) -> None:
    """Whatever a model writes, it stays text: by the renderer, and by the browser's rules."""
    page = w.open()
    evil = '<img src=x onerror="window.bad=1"><script>window.bad=1</script> [x](javascript:window.bad=1) ![p](https://example.org/p.png)\n\n```\n<b>\n```'
    instead(page, body=sse(delta(evil, "stop")), content_type="text/event-stream")
    ask(page, "x", picture=None)
    page.wait_for_selector("[aria-label='Copy the code']")
    tags = page.eval_on_selector_all(".text *", "all => all.map(n => n.localName)")
    check(not {"img", "script", "b"} & set(tags), str(tags))
    links = page.eval_on_selector_all(".text a", "all => all.map(a => [a.getAttribute('href'), a.rel])")
    check(links == [["https://example.org/p.png", "noopener noreferrer nofollow"]], str(links))
    check(page.evaluate("window.bad") is None, "it ran")
    refused = page.evaluate("(() => { try { document.body.innerHTML = '<p>x'; return false; } catch { return true; } })()")
    check(refused, "the browser would have made markup of a text")


# -- for everybody ------------------------------------------------------------------------------


def dark(browser: Any, server: Server) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    colours = {}
    for scheme in ("light", "dark"):
        w = Watched(browser, server, color_scheme=scheme)
        page = w.open()
        colours[scheme] = page.evaluate(paper)
        axe(page, scheme)
        ask(page, "What kind of product is it?")
        answered(page)
        page.click(".bill summary")
        page.wait_for_selector("#packing figure")
        page.click("#show-server")
        page.wait_for_selector("#server dl")
        axe(page, f"{scheme}, after an answer")
        page.click("#show-settings")
        axe(page, f"{scheme}, settings")
        page.keyboard.press("Escape")
        page.click("#theme")
        colours[f"not {scheme}"] = page.evaluate(paper)
        page.reload()
        page.wait_for_selector(".sample")
        check(page.evaluate(paper) == colours[f"not {scheme}"], "the choice is forgotten")
        page.click("#theme")
        check(page.evaluate(paper) == colours[scheme], "there is no way back")
        w.end()
    check(colours["light"] != colours["dark"], "both are the same")
    check(colours["light"] == colours["not dark"] and colours["dark"] == colours["not light"], str(colours))


def phone(browser: Any, server: Server) -> None:
    for width in (320, 390):
        w = Watched(browser, server, width, 700, has_touch=True, is_mobile=True, device_scale_factor=2)
        page = w.open()
        no_sideways(page, "welcome")
        page.tap("#compare")
        page.set_input_files("#files", str(PHOTO))
        page.wait_for_selector("#forecast:not([hidden])")
        no_sideways(page, "comparing")
        page.tap("#forecast")
        page.wait_for_selector("#packing figure")
        no_sideways(page, "packing")
        axe(page, f"{width} px, packing")
        page.tap("#packing [aria-label=Close]")
        check(not page.is_visible("#packing"), "the card stays over the chat")
        page.fill("#question", "What kind of product is it?")
        page.tap("#send")
        answered(page, 2)
        page.tap(".bill summary >> nth=1")
        no_sideways(page, "answers")
        axe(page, f"{width} px, answers")
        page.tap("#show-server")
        page.wait_for_selector("#server dl")
        no_sideways(page, "server")
        page.tap("#server [aria-label=Close]")
        page.tap("#show-settings")
        no_sideways(page, "settings")
        w.end()


def keyboard_only(w: Watched) -> None:
    page = w.open()
    check(page.evaluate("document.activeElement.id") == "question", "one cannot type at once")
    page.keyboard.type("Say yes.")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Only that.")
    page.keyboard.press("Enter")
    answered(page)
    check(w.chats()[0]["messages"][0]["content"] == "Say yes.\nOnly that.", "Shift+Enter is no new line")
    page.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        ring = "getComputedStyle(document.activeElement).outlineStyle !== 'none' || document.activeElement.id === 'question'"
        here = page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label') || document.activeElement.localName")
        check(here == "body" or page.evaluate(ring), f"no focus to be seen on {here}")
        reached.add(here)
    for name in ("question", "attach", "send", "compare", "show-packing", "show-server", "show-settings", "theme", "profile", "ratio", "summary", "Copy the answer", "Ask again"):
        check(name in reached, f"Tab does not reach {name}")
    page.focus("#show-settings")
    page.keyboard.press("Enter")
    check(page.evaluate("document.activeElement.closest('dialog')?.id") == "settings", "the focus is not in the dialog")
    page.keyboard.press("Escape")
    check(page.evaluate("document.activeElement.id") == "show-settings", "the focus is lost")


def live_panel(w: Watched) -> None:
    page = w.open()
    page.click("#show-server")
    page.wait_for_selector("#server dl")
    ask(page, "What kind of product is it?")
    answered(page)
    page.wait_for_function("() => document.querySelector('#server').innerText.includes('in the last minute')")
    shown = dict(zip(page.locator("#server dt").all_inner_texts(), page.locator("#server dd b").all_inner_texts()))
    for name in ("Running", "Waiting", "Answers", "First token, p50", "First token, p95", "Rows saved", "Picture cache", "Prompt cache"):
        check(shown.get(name), f"no {name}: {shown}")
    check(int(shown["Rows saved"].replace(",", "")) >= 192, str(shown))
    page.click("#show-server")
    page.wait_for_timeout(100)
    n = len(w.requests)
    page.wait_for_timeout(4500)
    late = [r.url for r in w.requests[n:] if r.url.endswith("/metrics")]
    check(len(late) == 0, "it goes on asking when nobody looks")


def size_and_paint(w: Watched) -> None:
    sizes: list[int] = []
    w.page.on("response", lambda r: sizes.append(len(r.body())) if "/v1/" not in r.url else None)
    page = w.open()
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    moved = page.evaluate("performance.getEntriesByType('resource').filter(e => !e.name.includes('/v1/')).reduce((n, e) => n + e.transferSize, 0)")
    check(sum(sizes) < 150_000, f"{sum(sizes)} bytes")
    print(f"      {sum(sizes) / 1000:.0f} kB, {moved / 1000:.0f} kB over the wire, first paint after {paint:.0f} ms")


def main() -> None:
    path = chromium()
    if path is None:
        print("skip  no chromium on PATH: make deps SET=test\n0 passed, 0 failed, 1 skipped")
        sys.exit(0)
    need_models()
    from playwright.sync_api import sync_playwright  # pylint: disable=import-outside-toplevel

    cases = Cases()
    with sync_playwright() as playwright, Server() as server:
        browser = playwright.chromium.launch(executable_path=path)

        def one(name: str, fn: Callable[..., None], *more: Any, expected: str | None = None) -> None:
            def run() -> None:
                w = Watched(browser, server)
                fn(w, *more)
                w.end(expected)

            if len(sys.argv) < 2 or any(part in name for part in sys.argv[1:]):
                cases.run(name, run)

        def own(name: str, fn: Callable[..., None], *more: Any) -> None:
            if len(sys.argv) < 2 or any(part in name for part in sys.argv[1:]):
                cases.run(name, lambda: fn(browser, *more))

        one("size and first paint", size_and_paint)
        one("a chat with a picture, and its bill", chat_with_picture)
        one("several turns, ask again, new chat", several_turns)
        one("settings", settings_are_sent)
        one("stop", stop, server)
        one("copy", copied)
        one("paste, drop, remove, and what is no picture", paste_and_drop)
        one("other formats", converted)
        one("the slider changes the overlay", slider)
        one("text by groups", text_shaded)
        one("a picture, large", look_closely)
        one("side by side", side_by_side)
        one("refusals in words", refused_in_words, expected="Failed to load resource")
        one("streams that break off", broken_streams)
        one("hostile text", hostile_text, expected="TrustedHTML")
        one("keyboard only", keyboard_only)
        one("the live panel", live_panel)
        own("a key is asked for", key_asked_for)
        own("the server is gone", server_gone)
        own("light and dark", dark, server)
        own("a phone", phone, server)
        browser.close()
        cases.end(server)


if __name__ == "__main__":
    main()
