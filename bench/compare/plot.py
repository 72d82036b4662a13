"""Small charts as SVG: bars of ratios, and curves by size. No library needed."""

import html
import math
import statistics
from dataclasses import dataclass

from measure import Result

OURS, PEER, INK, FAINT = "#1f6feb", "#9a6700", "#24292f", "#d0d7de"
COLOURS = (OURS, "#1a7f37", PEER, "#8250df", "#cf222e", "#0a7ea4")
FONT = 'font-family="sans-serif" font-size="12"'


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = FAINT, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"/>'
    )


def document(width: int, height: int, title: str, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" {FONT}>'
    )
    background = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, background, text(16, 24, title), *parts, "</svg>", ""])


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between low and high."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [t for p in powers for t in (10.0**p, 2 * 10.0**p, 5 * 10.0**p) if low <= t <= high]


def ratio_bars(results: list[Result], title: str) -> str:
    """One bar for each result from 1 to the median ratio, whiskers for the spread; the axis
    is logarithmic, so that twice as fast and twice as slow are equally far from 1."""
    left, right, top, step = 250, 40, 56, 22
    width, height = 860, top + step * len(results) + 40
    every = [r for result in results for r in result.ratios()]
    low, high = min([0.5, *every]) / 1.1, max([2.0, *every]) * 1.1

    def at(ratio: float) -> float:
        return left + (width - left - right) * math.log(ratio / low) / math.log(high / low)

    parts = []
    for t in ticks(low, high):
        parts.append(line(at(t), top - 8, at(t), height - 34, INK if t == 1 else FAINT))
        parts.append(text(at(t), height - 16, f"{t:g}x", "middle"))
    for i, result in enumerate(results):
        y = top + step * i + step / 2
        ratios = result.ratios()
        middle = statistics.median(ratios)
        x1, x2 = sorted((at(1), at(middle)))
        colour = OURS if middle >= 1 else PEER
        parts.append(text(left - 10, y + 4, f"{result.case} {result.x}", "end"))
        parts.append(
            f'<rect x="{x1:.1f}" y="{y - 7:.1f}" width="{max(x2 - x1, 1):.1f}" height="14" fill="{colour}"/>'
        )
        parts.append(line(at(min(ratios)), y, at(max(ratios)), y, INK, 1.5))
    return document(width, height, title, parts)


@dataclass(frozen=True)
class Curve:
    name: str
    colour: str
    points: dict[float, list[float]]  # all figures of each x


def curves(series: list[Curve], unit: str, title: str) -> str:
    """Figures over a numeric x, both axes logarithmic; a point is the median, its vertical
    line the spread over the rounds. Names stand behind the last points, apart where two
    curves end together."""
    left, right, top, bottom, width, height = 80, 150, 50, 50, 790, 420
    xs = sorted({x for c in series for x in c.points})
    every = [v for c in series for values in c.points.values() for v in values]
    x_low, x_high = min(xs) / 1.2, max(xs) * 1.2
    y_low, y_high = min(every) / 1.3, max(every) * 1.3

    def at(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / x_low) / math.log(x_high / x_low)
        up = math.log(y / y_low) / math.log(y_high / y_low)
        return left + (width - left - right) * across, height - bottom - (height - top - bottom) * up

    parts = []
    for t in ticks(y_low, y_high):
        _, y = at(x_low, t)
        parts += [line(left, y, width - right, y), text(left - 8, y + 4, f"{t:g}", "end")]
    for x in xs:
        px, _ = at(x, y_low)
        parts += [line(px, top, px, height - bottom), text(px, height - bottom + 18, f"{x:g}", "middle")]
    parts.append(text(16, top - 8, unit))
    named: list[float] = []
    ends = {c.name: at(max(c.points), statistics.median(c.points[max(c.points)]))[1] for c in series}
    for c in sorted(series, key=lambda c: ends[c.name]):
        middle = [at(x, statistics.median(v)) for x, v in sorted(c.points.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in middle)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{c.colour}" stroke-width="2"/>')
        for (x, y), (x_value, v) in zip(middle, sorted(c.points.items())):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{c.colour}"/>')
            parts.append(line(x, at(x_value, min(v))[1], x, at(x_value, max(v))[1], c.colour, 1.5))
        named.append(max(ends[c.name] + 4, named[-1] + 14 if named else 0))
        parts.append(text(middle[-1][0] + 10, named[-1], c.name, "start", c.colour))
    return document(width, height, title, parts)


def by_size(results: list[Result], title: str) -> str:
    """Both programs over a numeric x."""
    ours = Curve("tamp", OURS, {float(r.x): r.ours for r in results})
    peer = Curve("peer", PEER, {float(r.x): r.peer for r in results})
    return curves([ours, peer], results[0].unit, title)


def by_shape(results: list[Result], title: str) -> str:
    """Products over the number of rows, a curve for each shape, and their limit."""
    shapes = list(dict.fromkeys(r.extra["shape"] for r in results))
    series = [
        Curve(shape, COLOURS[i % len(COLOURS)], {r.extra["rows"]: r.ours for r in results if r.extra["shape"] == shape})
        for i, shape in enumerate(shapes)
    ]
    peak = Curve("at most", INK, {r.extra["rows"]: r.peer for r in results})
    return curves([*series, peak], results[0].unit, title)
