#!/usr/bin/env python3
"""Makes the pictures in this folder and what decoding each must give (NAME.ppm).

PNG: written here, sample by sample, because Pillow cannot write most of the kinds; the
expected pixels come from the samples by arithmetic (v * 255 / max, alpha on white), and
where Pillow reads the kind faithfully it is asked to agree within 1.
JPEG: written and decoded by Pillow (libjpeg-turbo).

    python3 make_images.py        # needs pillow >= 10.3 (keep_rgb, restart markers)
"""
import io
import os
import struct
import zlib

from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
W, H = 29, 21


def save(name, data):
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(data)


def save_ppm(name, width, height, rgb):
    save(name + ".ppm", b"P6\n%d %d\n255\n" % (width, height) + bytes(rgb))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_row(samples, bits):
    if bits == 16:
        return b"".join(struct.pack(">H", s) for s in samples)
    if bits == 8:
        return bytes(samples)
    out, acc, used = bytearray(), 0, 0
    for s in samples:
        acc = acc << bits | s
        used += bits
        if used == 8:
            out.append(acc)
            acc, used = 0, 0
    if used:
        out.append(acc << (8 - used))
    return bytes(out)


def filtered(rows, bits, channels):
    """Every filter type in turn, so that the decoder meets them all."""
    step = max(1, bits * channels // 8)
    out, prior = bytearray(), None
    for y, samples in enumerate(rows):
        row = pack_row(samples, bits)
        prior = prior or bytes(len(row))
        kind = y % 5
        out.append(kind)
        for i, v in enumerate(row):
            a = row[i - step] if i >= step else 0
            b = prior[i]
            c = prior[i - step] if i >= step else 0
            p = a + b - c
            pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
            paeth = a if pa <= pb and pa <= pc else b if pb <= pc else c
            out.append((v - [0, a, b, (a + b) // 2, paeth][kind]) & 255)
        prior = row
    return bytes(out)


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(pixel, colour, bits, extra=(), interlace=False, after=()):
    """pixel(x, y) -> tuple of samples."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = ADAM7 if interlace else [(0, 0, 1, 1)]
    raw = b""
    for x0, y0, dx, dy in passes:
        rows = [[s for x in range(x0, W, dx) for s in pixel(x, y)] for y in range(y0, H, dy)]
        if rows and rows[0]:
            raw += filtered(rows, bits, channels)
    packed = zlib.compress(raw, 9)
    half = len(packed) // 2
    return (b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, bits, colour, 0, 0, interlace))
            + b"".join(chunk(k, d) for k, d in extra)
            + chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:])
            + b"".join(chunk(k, d) for k, d in after) + chunk(b"IEND", b""))


def grey(x, y, top):
    return (x * 977 + y * 3571 + x * y * 131) % (top + 1)


def samples(n, bits):
    top = (1 << bits) - 1
    return lambda x, y: tuple(grey(x + 7 * c, y + 3 * c, top) for c in range(n))


def to_rgb(px, colour, bits, palette, key):
    """Exact colour on white of one pixel."""
    top = (1 << bits) - 1
    if colour == 3:
        r, g, b, a = palette[px[0]]
        c, a = [r, g, b], a / 255
    else:
        n = 3 if colour in (2, 6) else 1
        c = [v * 255 / top for v in px[:n]] * (3 // n)
        a = px[n] / top if colour in (4, 6) else 0.0 if key == px else 1.0
    return [int(v * a + 255 * (1 - a) + 0.5) for v in c]


def make_png(name, colour, bits, palette=None, key=None, interlace=False, extra=(), after=()):
    n = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    px = samples(n, bits)
    if palette:
        px = lambda x, y: (grey(x, y, 65535) % len(palette),)
    chunks = list(extra)
    if palette:
        chunks.append((b"PLTE", b"".join(bytes(p[:3]) for p in palette)))
        if any(p[3] != 255 for p in palette):
            chunks.append((b"tRNS", bytes(p[3] for p in palette)))
    if key is not None:
        key = px(*key)
        chunks.append((b"tRNS", struct.pack(">%dH" % n, *key)))
    data = png(px, colour, bits, chunks, interlace, after)
    rgb = [v for y in range(H) for x in range(W) for v in to_rgb(px(x, y), colour, bits, palette, key)]
    save(name + ".png", data)
    save_ppm(name, W, H, rgb)
    if bits <= 8:
        im = Image.open(io.BytesIO(data)).convert("RGBA")
        white = Image.new("RGBA", im.size, (255, 255, 255, 255))
        got = Image.alpha_composite(white, im).convert("RGB").tobytes()
        worst = max(abs(a - b) for a, b in zip(got, rgb))
        assert worst <= 1, (name, worst)


def make_pngs():
    colours = [((i * 37) % 256, (i * 91 + 40) % 256, (i * 151 + 80) % 256, 255) for i in range(256)]
    faded = [(r, g, b, (i * 53) % 256) for i, (r, g, b, _) in enumerate(colours)]
    for bits in (1, 2, 4, 8, 16):
        make_png("grey%d" % bits, 0, bits)
    for bits in (1, 2, 4, 8):
        make_png("palette%d" % bits, 3, bits, palette=colours[: 1 << bits])
    for bits in (8, 16):
        make_png("rgb%d" % bits, 2, bits)
        make_png("grey_alpha%d" % bits, 4, bits)
        make_png("rgba%d" % bits, 6, bits)
    make_png("palette8_trns", 3, 8, palette=faded)
    make_png("grey4_trns", 0, 4, key=(3, 5))
    make_png("rgb8_trns", 2, 8, key=(3, 5))
    make_png("rgb8_interlaced", 2, 8, interlace=True)
    make_png("rgba16_interlaced", 6, 16, interlace=True)
    make_png("palette4_interlaced", 3, 4, palette=colours[:16], interlace=True)
    frame = struct.pack(">IIIIIHHBB", 0, W, H, 0, 0, 1, 10, 0, 0)
    other = struct.pack(">IIIIIHHBB", 1, W, H, 0, 0, 1, 10, 0, 0)
    second = struct.pack(">I", 2) + zlib.compress(b"\0" * ((W * 3 + 1) * H))
    make_png("animated", 2, 8, extra=[(b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", frame)],
             after=[(b"fcTL", other), (b"fdAT", second)])


def smooth():
    """Smooth enough that chroma subsampling is not what a test measures."""
    im = Image.new("RGB", (W, H))
    im.putdata([(x * 8 % 256, (y * 11 + 30) % 256, (x * 3 + y * 5 + 60) % 256)
                for y in range(H) for x in range(W)])
    return im


def make_jpeg(name, im, expect=True, **how):
    out = io.BytesIO()
    im.save(out, "JPEG", quality=92, **how)
    save(name + ".jpg", out.getvalue())
    if expect:
        back = Image.open(io.BytesIO(out.getvalue())).convert("RGB")
        save_ppm(name, W, H, back.tobytes())
    return out.getvalue()


def make_jpegs():
    im = smooth()
    make_jpeg("baseline444", im, subsampling=0)
    make_jpeg("baseline420", im, subsampling=2)
    make_jpeg("baseline422", im, subsampling=1)
    make_jpeg("progressive", im, subsampling=0, progressive=True)
    make_jpeg("restart", im, subsampling=0, restart_marker_blocks=2)
    make_jpeg("grey", im.convert("L"))
    make_jpeg("adobe_rgb", im, keep_rgb=True, subsampling=0)
    make_jpeg("cmyk", im.convert("CMYK"), expect=False)
    for value in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = value
        out = io.BytesIO()
        im.save(out, "JPEG", quality=92, subsampling=0, exif=exif)
        save("orientation%d.jpg" % value, out.getvalue())
        up = ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue()))).convert("RGB")
        save_ppm("orientation%d" % value, up.width, up.height, up.tobytes())


def make_resized():
    """../resize: what Pillow makes of a picture with edges, shrunk and enlarged."""
    folder = os.path.join(HERE, "..", "resize")
    os.makedirs(folder, exist_ok=True)
    im = Image.new("RGB", (97, 61))
    im.putdata([((x * 5 + y * 3) % 256, 255 * ((x // 7 + y // 5) % 2), (x * y) % 256)
                for y in range(61) for x in range(97)])
    im.save(os.path.join(folder, "source.png"))
    for side in (28, 64, 112):
        small = im.resize((side, side), Image.Resampling.BICUBIC)
        save_ppm("../resize/stretched%d" % side, side, side, small.tobytes())


make_pngs()
make_jpegs()
make_resized()
