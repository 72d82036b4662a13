"""What the measurements of quality share: the server, statistics, kept answers, charts.

A question is asked as a chat completion, greedy, nothing cached, and comes back as an
`Answer`: what was said, the likeliest first tokens, and its bill. Answers go to a JSON-lines
file under a key of everything that was sent, so that the same command goes on where it was
stopped. Needs only the standard library.
"""

import base64
import hashlib
import html
import json
import math
import pathlib
import random
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from typing import Any

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "compare"))

import plot  # noqa: E402
import programs  # noqa: E402

TIMEOUT_S = 3600  # a server that only gets idle time may be slow
Plan = Any  # the request's `compression` field
Answer = dict[str, Any]

# -- the server ------------------------------------------------------------------------------


def post(url: str, body: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """The JSON that a POST of JSON gets; an error names what the server said."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = "Bearer " + key
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer
    except urllib.error.HTTPError as e:
        raise RuntimeError(f"HTTP {e.code}: {e.read(500).decode(errors='replace')}") from e


def picture_part(data: bytes, detail: str | None = None) -> dict[str, Any]:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    url = f"data:image/{kind};base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def process_seconds(pid: int) -> float:
    """Processor time of a process and of the helpers that it runs, to the microsecond."""
    total = 0.0
    for p in (pid, *programs.children(pid)):
        try:
            total += time.clock_gettime((~p << 3) | 2)  # clock_getcpuclockid(3)
        except OSError:
            continue
    return total


def ask(url: str, messages: list[Any], plan: Plan, max_tokens: int, pid: int | None = None) -> Answer:
    """With the server's process number nothing is taken from its caches, and the answer says
    what it cost; without, the same answer may come from them."""
    body = {"model": "default", "temperature": 0, "max_tokens": max_tokens, "cache_prompt": pid is None,
            "logprobs": True, "top_logprobs": 20, "messages": messages, "compression": plan}
    spent = process_seconds(pid) if pid else None
    began = time.perf_counter()
    reply = post(url + "/v1/chat/completions", body)
    wall = time.perf_counter() - began
    choice, usage, timings = reply["choices"][0], reply["usage"]["compression"], reply["timings"]
    said = (choice["logprobs"] or {}).get("content") or []  # null when the answer is empty
    answer = {
        "text": choice["message"]["content"],
        "tokens": [t["token"] for t in said],
        "first": [[t["token"], t["logprob"]] for t in said[0]["top_logprobs"]] if said else [],
        "rows": reply["usage"]["prompt_tokens"],
        "original": usage["original_tokens"],
        "mean": usage["mean_rows_per_layer"],
        "stages": {m: [usage[m]["stage"], usage[m]["rows_in"], usage[m]["rows_out"]]
                   for m in ("image", "text", "lm") if usage.get(m)},
        "skipped": [s["reason"] for s in usage["skipped"]],
        "guard": usage.get("guard"),
    }
    if pid and spent is not None:
        answer["cost"] = {k: timings[k] for k in ("compress_ms", "prompt_ms", "vision_ms", "first_token_ms")} | {
            "wall_ms": wall * 1e3, "cpu_s": process_seconds(pid) - spent}
    return answer


class Answers:
    """What was asked before; new answers are appended at once, a line each."""

    def __init__(self, path: pathlib.Path | None):
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        for entry in read_lines(path, repair=True):
            self.known[entry["key"]] = entry

    @staticmethod
    def key(*parts: Any) -> str:
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def get(self, key: str, about: dict[str, Any], make: Callable[[], Answer]) -> Answer:
        if key not in self.known:
            entry = {"key": key} | about | {"reply": make()}
            self.known[key] = entry
            if self.path:
                with self.path.open("a") as f:
                    f.write(json.dumps(entry, ensure_ascii=False) + "\n")
        reply: Answer = self.known[key]["reply"]
        return reply


def read_lines(path: pathlib.Path | None, repair: bool = False) -> list[dict[str, Any]]:
    """Entries of a JSON-lines file; a last line that was cut off counts as not written.
    repair: take it out of the file, so that the next one begins on its own."""
    if not path or not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if repair and len(whole) < len(data):
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.decode().splitlines()]


def progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done}/{total}   ", end="\n" if done == total else "", file=sys.stderr)


# -- what was said ---------------------------------------------------------------------------


def stands_in(want: str, text: str) -> bool:
    """The answer stands in the text, and not as a part of a longer number or word. Chinese
    has no spaces, so there only longer numbers are told apart."""
    if any("一" <= c <= "鿿" for c in text):
        return re.search(rf"(?<![\d.]){re.escape(want)}(?!\d|\.\d)", text) is not None
    want = re.escape(want.lower())
    return re.search(rf"(?<![\w.]){want}(?!\w|[.,]\d)", text.lower()) is not None


def agreement(a: Sequence[str], b: Sequence[str]) -> float:
    """Share of a's tokens that b begins with."""
    n = 0
    while n < len(a) and n < len(b) and a[n] == b[n]:
        n += 1
    return n / len(a) if a else 1.0


def numbered(likeliest: list[Any]) -> list[tuple[tuple[str, int], float]]:
    """Tokens told apart by how often the same text came before: pieces of a character are
    all printed alike."""
    seen: dict[str, int] = {}
    found = []
    for token, logprob in likeliest:
        seen[token] = seen.get(token, 0) + 1
        found.append(((token, seen[token]), logprob))
    return found


def divergence(full: list[Any], other: list[Any]) -> float:
    """KL(full || other) in nats of the first token, from the 20 likeliest of each. What
    `other` does not list is at most as likely as its last one, and the rest of full's
    probability is one more token; so this is a lower bound."""
    if not full or not other:
        return 0.0
    listed = dict(numbered(other))
    least = min(listed.values())
    total = rest_p = rest_q = 0.0
    for token, logprob in numbered(full):
        q = listed.get(token, least)
        total += math.exp(logprob) * (logprob - q)
        rest_p += math.exp(logprob)
        rest_q += math.exp(q)
    p, q = 1 - rest_p, 1 - rest_q
    if p > 1e-6 and q > 1e-6:
        total += p * math.log(p / q)
    return max(total, 0.0)


# -- statistics ------------------------------------------------------------------------------


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z = 1.96
    p = right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) of n trials, each a success with probability p; in logarithms, because
    large n overflow otherwise."""
    if k <= 0 or p >= 1:
        return 1.0
    if p <= 0:
        return 0.0
    log_n = math.lgamma(n + 1)
    terms = (log_n - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
             for i in range(k, n + 1))
    return min(1.0, math.fsum(map(math.exp, terms)))


def lower_bound(kept: int, n: int, alpha: float = 0.05) -> float:
    """One-sided Clopper-Pearson bound of kept / n, by bisection."""
    low, high = 0.0, kept / n if n else 0.0
    for _ in range(60):
        p = (low + high) / 2
        low, high = (p, high) if binomial_tail(kept, n, p) < alpha else (low, p)
    return low


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p that flips from right to wrong and back are equally likely."""
    n = lost + won
    tail = sum(math.comb(n, k) for k in range(min(lost, won) + 1)) / 2**n
    return min(1.0, 2 * tail)


def paired_ratio(ours: Sequence[float], base: Sequence[float], draws: int = 1000) -> tuple[float, float, float]:
    """sum(ours) / sum(base) over the same requests, with its 95 % interval from a bootstrap
    over requests (fixed seed)."""
    r = random.Random(1)
    n = len(ours)
    if not n or not sum(base):
        return math.nan, math.nan, math.nan
    ratios = []
    for _ in range(draws):
        pick = [r.randrange(n) for _ in range(n)]
        ratios.append(sum(ours[i] for i in pick) / max(sum(base[i] for i in pick), 1e-12))
    ratios.sort()
    return sum(ours) / sum(base), ratios[int(0.025 * draws)], ratios[int(0.975 * draws)]


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else math.nan


# -- methods, as the program prints them ------------------------------------------------------


def methods_of(tamp: pathlib.Path) -> dict[str, dict[str, Any]]:
    """name -> {"slots": [...], "options": {name: [choices or range text]}} from `tamp help
    --methods`, so that a new method is measured without a word here; what is no method has
    no slots."""
    found: dict[str, dict[str, Any]] = {}
    for block in re.split(r"^#### ", programs.run([str(tamp), "help", "--methods"]), flags=re.MULTILINE)[1:]:
        name, _, text = block.partition("\n")
        slots = re.search(r"Slots: ([^;]*);", text)
        options = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE)}
        found[name.strip()] = {"slots": re.findall(r"`(\w+)`", slots[1]) if slots else [], "options": options}
    return found


# -- charts ----------------------------------------------------------------------------------

COLOURS = ("#1f6feb", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7d91", "#57606a",
           "#d4761a", "#2d333b")


def even_ticks(low: float, high: float) -> list[float]:
    """4 to 10 round numbers at equal distances."""
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= next(m for m in (1, 2, 5, 10, 20) if (high - low) / (step * m) <= 8)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def frontier_chart(title: str, x_name: str, y_name: str, series: dict[str, list[tuple[float, float, float, float]]],
                   level: float | None = None) -> str:
    """Lines of (x, y, lowest y, highest y), one a method. `level` is a dashed line: the
    uncompressed server, or a target."""
    left, right, top, bottom, width, height = 62, 190, 52, 52, 860, 440
    points = [p for s in series.values() for p in s]
    if not points:
        return plot.document(width, height, title + ": nothing measured", [])
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    x_low, x_high = x_low - 0.06 * (x_high - x_low) - 1e-9, x_high + 0.06 * (x_high - x_low) + 1e-9
    lows = [p[2] for p in points] + ([level] if level is not None else [])
    highs = [p[3] for p in points] + ([level] if level is not None else [])
    margin = max((max(highs) - min(lows)) * 0.05, 0.005)
    y_low, y_high = min(lows) - margin, max(highs) + margin

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        return (left + (width - left - right) * across,
                height - bottom - (height - top - bottom) * (y - y_low) / (y_high - y_low))

    parts = []
    for t in even_ticks(x_low, x_high):
        x, _ = at(t, y_low)
        parts += [plot.line(x, top, x, height - bottom), plot.text(x, height - bottom + 18, f"{t:g}", "middle")]
    for t in even_ticks(y_low, y_high):
        _, y = at(x_low, t)
        parts += [plot.line(left, y, width - right, y), plot.text(left - 8, y + 4, f"{t:.3g}", "end")]
    if level is not None:
        _, y = at(x_low, level)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width - right}" y2="{y:.1f}" stroke="#24292f" '
                     'stroke-dasharray="5 4"/>')
    for i, (name, s) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        dash = "" if i < len(COLOURS) else ' stroke-dasharray="4 3"'
        s = sorted(s)
        path = " ".join("{:.1f},{:.1f}".format(*at(p[0], p[1])) for p in s)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for x, y, low, high in s:
            (px, py), (_, p_low), (_, p_high) = at(x, y), at(x, low), at(x, high)
            parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>',
                      plot.line(px, p_low, px, p_high, colour, 0.7)]
        y_name_at = top + 10 + 17 * i
        parts += [f'<rect x="{width - right + 14}" y="{y_name_at - 9}" width="10" height="10" fill="{colour}"/>',
                  plot.text(width - right + 30, y_name_at, name)]
    parts += [plot.text((left + width - right) / 2, height - 14, x_name, "middle"), plot.text(16, top - 10, y_name)]
    return plot.document(width, height, title, parts)


def html_page(title: str, sections: list[tuple[str, str, str]]) -> str:
    """One self-contained page of (heading, text as HTML, SVG)."""
    body = "".join(f"<h2>{html.escape(h)}</h2>{text}{svg}" for h, text, svg in sections)
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
            "<style>body{font:15px sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#24292f}"
            "table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #d0d7de;padding:3px 7px;"
            "text-align:right}td:first-child,th:first-child{text-align:left}</style>"
            f"<h1>{html.escape(title)}</h1>{body}</html>\n")
