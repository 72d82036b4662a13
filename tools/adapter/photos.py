"""Photos as tamp preprocesses them, with seeded variations, and the tower's rows of them,
kept on disk: the tower is frozen, so each (view, ratio) is computed once.

View 0 is the photo as it is served; the others are crops, flips and changes of light.
FOLDER/SPLIT-VIEW-RATIO.npy holds fp16 rows [n, 256 / ratio, 384] in the order of the labels,
with FOLDER/SPLIT-VIEW-RATIO-first.npy, the first patch of each row, where ratio > 1.
"""
import json
import os
import random
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from .tower import N_PATCH, Rows, Tower

SIZE = 224
BATCH = 16
RATIOS = (2, 4, 8, 16)
VAL_VIEWS = [(0, ratio) for ratio in (1, *RATIOS)]


def train_views(count: int) -> list[tuple[int, int]]:
    """(view, ratio): every view uncompressed and at one ratio, in turn."""
    turns = (4, 8, 16, 2)
    return [pair for v in range(count) for pair in ((v, 1), (v, turns[v % len(turns)]))]


def read_labels(data: Path, split: str) -> list[dict]:
    return [x for x in json.loads((data / "labels.json").read_text()) if x["split"] == split]


def vary(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A random crop, maybe mirrored, in another light."""
    width, height = picture.size
    area = width * height * rng.uniform(0.45, 1.0)
    aspect = width / height * 2 ** rng.uniform(-0.4, 0.4)
    w = min(width, round((area * aspect) ** 0.5))
    h = min(height, round((area / aspect) ** 0.5))
    x, y = rng.randint(0, width - w), rng.randint(0, height - h)
    picture = picture.crop((x, y, x + w, y + h))
    if rng.random() < 0.4:
        picture = ImageOps.mirror(picture)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = change(picture).enhance(rng.uniform(0.75, 1.3))
    return picture


def load(path: Path, seed: str, view: int) -> np.ndarray:
    """[3, 224, 224] in 0..1: turned by EXIF, squashed to the square bicubically."""
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if view > 0:
        picture = vary(picture, random.Random(f"{seed}/{view}/{path.name}"))
    picture = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


def file_of(folder: Path, split: str, view: int, ratio: int, what: str = "") -> Path:
    return folder / f"{split}-{view}-{ratio}{what}.npy"


def claim(path: Path) -> bool:
    """True for one of the processes that share the work: it holds PATH.busy until done."""
    try:
        os.close(os.open(f"{path}.busy", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def encode_photos(
    tower: Tower, paths: list[Path], seed: str, view: int, ratio: int, say: Callable[[int, int], None]
) -> Iterator[Rows]:
    for at in range(0, len(paths), BATCH):
        pixels = np.stack([load(p, seed, view) for p in paths[at : at + BATCH]])
        yield tower.encode((torch.from_numpy(pixels) - tower.mean) / tower.std, ratio)
        say(min(at + BATCH, len(paths)), len(paths))


def make_features(
    tower: Tower, data: Path, folder: Path, split: str, view: int, ratio: int, seed: int, say: Callable[[int, int], None]
) -> None:
    """Does nothing where the file is there or another process works on it."""
    path = file_of(folder, split, view, ratio)
    if path.exists() or not claim(path):
        return
    part = path.with_suffix(".part")
    try:
        paths = [data / x["file"] for x in read_labels(data, split)]
        shape = (len(paths), N_PATCH // ratio, tower.class_token.shape[-1])
        rows = np.lib.format.open_memmap(part, "w+", np.float16, shape)
        first = np.zeros(shape[:2], np.uint8)
        at = 0
        for found in encode_photos(tower, paths, str(seed), view, ratio, say):
            n = len(found.x)
            rows[at : at + n] = found.x.half().numpy()
            first[at : at + n] = found.first.numpy()
            at += n
        rows.flush()
        if ratio > 1:
            np.save(file_of(folder, split, view, ratio, "-first"), first)
        os.replace(part, path)
    finally:
        os.unlink(f"{path}.busy")


class Features:
    """What lies in the folder so far; more may come while it is used."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split = folder, split
        self.rows: dict[tuple[int, int], np.ndarray] = {}
        self.first: dict[tuple[int, int], np.ndarray] = {}

    def look(self) -> None:
        for path in sorted(self.folder.glob(f"{self.split}-*.npy")):
            parts = path.stem.split("-")
            key = int(parts[1]), int(parts[2])
            if len(parts) == 3 and key not in self.rows:
                self.rows[key] = np.load(path, mmap_mode="r")
                if key[1] > 1:
                    self.first[key] = np.load(file_of(self.folder, self.split, *key, "-first"))

    def views(self, ratio: int) -> list[int]:
        return [v for v, r in self.rows if r == ratio]

    def get(self, view: int, ratio: int, index: np.ndarray) -> Rows:
        """fp32 rows of these photos. The file is read in order, whatever the index's is."""
        key = view, ratio
        order = np.argsort(index, kind="stable")
        x = np.empty((len(index), *self.rows[key].shape[1:]), np.float32)
        for i in order:
            x[i] = self.rows[key][index[i]]
        first = self.first[key][index] if ratio > 1 else np.broadcast_to(np.arange(N_PATCH), x.shape[:2])
        return Rows(torch.from_numpy(x), torch.from_numpy(np.array(first, np.int64)))
