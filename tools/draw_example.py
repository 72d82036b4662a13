#!/usr/bin/env python3
"""Draw the example photo of the README, a T-shirt on white, and the request that carries it.

    tools/draw_example.py PICTURE.png        draws
    tools/draw_example.py --request PICTURE  prints the JSON of docs/examples/photo.json

The picture is our own, drawn here with the standard library alone; the repository holds it
as JPEG: convert PICTURE.png -quality 85 docs/images/tshirt.jpg (ImageMagick).
"""
import base64
import json
import math
import random
import struct
import sys
import zlib
from pathlib import Path

SIZE, SUPER = 448, 3
CLOTH = (38, 74, 148)
Point = tuple[float, float]


def curve(*points: Point, steps: int = 24) -> list[Point]:
    """A Bezier curve through its control points' hull, end point left out."""
    def at(t: float) -> Point:
        level = list(points)
        while len(level) > 1:
            level = [((1 - t) * a[0] + t * b[0], (1 - t) * a[1] + t * b[1]) for a, b in zip(level, level[1:])]
        return level[0]
    return [at(i / steps) for i in range(steps)]


def mirrored(half: list[Point]) -> list[Point]:
    return half + [(1 - x, y) for x, y in reversed(half)]


def outline() -> list[Point]:
    """The right half from the neck to the hem, in units of the picture's side."""
    half = curve((0.50, 0.215), (0.565, 0.215), (0.60, 0.18), (0.605, 0.13))
    half += curve((0.605, 0.13), (0.68, 0.155), (0.75, 0.17), (0.79, 0.22))
    half += curve((0.79, 0.22), (0.86, 0.30), (0.89, 0.36), (0.925, 0.43))
    half += curve((0.925, 0.43), (0.88, 0.47), (0.83, 0.485), (0.785, 0.50), steps=8)
    half += curve((0.785, 0.50), (0.765, 0.45), (0.75, 0.42), (0.735, 0.395))
    half += curve((0.735, 0.395), (0.745, 0.55), (0.735, 0.72), (0.75, 0.895))
    half += curve((0.75, 0.895), (0.67, 0.92), (0.58, 0.92), (0.50, 0.92))
    return mirrored(half)


def back_of_neck() -> list[Point]:
    half = curve((0.50, 0.165), (0.55, 0.165), (0.58, 0.15), (0.607, 0.127))
    half += curve((0.607, 0.127), (0.61, 0.185), (0.57, 0.222), (0.50, 0.222))
    return mirrored(half)


def coverage(polygon: list[Point]) -> list[list[float]]:
    """How much of each pixel the polygon covers, by scan lines (even-odd rule)."""
    cover = [[0.0] * SIZE for _ in range(SIZE)]
    fine = SIZE * SUPER
    for row in range(fine):
        y = (row + 0.5) / fine
        crossings = sorted(
            a[0] + (y - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
            for a, b in zip(polygon, polygon[1:] + polygon[:1])
            if (a[1] <= y) != (b[1] <= y)
        )
        for left, right in zip(crossings[::2], crossings[1::2]):
            for column in range(max(0, round(left * fine)), min(fine, round(right * fine))):
                cover[row // SUPER][column // SUPER] += 1 / SUPER**2
    return cover


def blurred(cover: list[list[float]], radius: int) -> list[list[float]]:
    def rows(grid: list[list[float]]) -> list[list[float]]:
        result = []
        for row in grid:
            total = [0.0]
            for v in row:
                total.append(total[-1] + v)
            result.append([
                (total[min(SIZE, x + radius + 1)] - total[max(0, x - radius)]) / (2 * radius + 1) for x in range(SIZE)
            ])
        return result
    for _ in range(2):
        cover = rows([list(column) for column in zip(*rows(cover))])
        cover = [list(column) for column in zip(*cover)]
    return cover


def fold(x: float, y: float) -> float:
    """Light on the cloth: rounder at the sides, a few soft folds that run down from the arms."""
    side = 1 - 0.34 * abs((x - 0.5) / 0.30) ** 3 if abs(x - 0.5) < 0.26 else 0.86
    waves = math.sin(38 * (x - 0.5) + 6 * math.sin(5 * y)) * math.exp(-(((y - 0.75) / 0.22) ** 2))
    pull = math.sin(46 * (abs(x - 0.5) + 0.75 * y)) * math.exp(-(((y - 0.42) / 0.10) ** 2)) * min(1, 5 * abs(x - 0.5))
    return side * (1 + 0.055 * waves + 0.06 * pull) * (1.06 - 0.16 * y)


def seam(x: float, y: float) -> float:
    """Darker lines: hem, sleeve hems, collar."""
    dark = 1.0
    if abs(y - (0.885 - 0.2 * (x - 0.5) ** 2)) < 0.0022 and abs(x - 0.5) < 0.25:
        dark = 0.82
    if abs(abs(x - 0.5) - (0.262 - 0.35 * (y - 0.23))) < 0.0022 and 0.20 < y < 0.40:
        dark = min(dark, 0.80)
    collar = math.hypot((x - 0.5) / 1.28, y - 0.118)
    if 0.118 < collar < 0.122 and y > 0.135:
        dark = min(dark, 0.80)
    return dark


def draw() -> bytes:
    noise = random.Random(7)
    shirt, neck = coverage(outline()), coverage(back_of_neck())
    shadow = blurred(shirt, 9)
    rows = []
    for row in range(SIZE):
        line = bytearray([0])
        for column in range(SIZE):
            x, y = (column + 0.5) / SIZE, (row + 0.5) / SIZE
            ground = 250 - 70 * shadow[max(0, row - 8)][max(0, column - 4)]
            grain = noise.gauss(0, 2.2)
            light = fold(x, y) * seam(x, y)
            for channel in CLOTH:
                value = ground
                value += neck[row][column] * (0.55 * channel - value)
                value += shirt[row][column] * ((channel + 18) * light + grain - value)
                line.append(max(0, min(255, round(value))))
        rows.append(bytes(line))
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows), 9))
            + chunk(b"IEND", b""))


def request(picture: Path) -> str:
    kind = "png" if picture.suffix == ".png" else "jpeg"
    url = f"data:image/{kind};base64," + base64.b64encode(picture.read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What kind of product is it?"},
    ]
    body = {"model": "default", "temperature": 0, "max_tokens": 64, "messages": [{"role": "user", "content": content}]}
    return json.dumps(body, indent=1)


def main(arguments: list[str]) -> None:
    if len(arguments) == 2 and arguments[0] == "--request":
        print(request(Path(arguments[1])))
    elif len(arguments) == 1:
        Path(arguments[0]).write_bytes(draw())
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
