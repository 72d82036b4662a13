#!/usr/bin/python3
"""Check an mmproj file against the reference rows: check_mmproj.py MMPROJ REFERENCE_DIR

A second, plain NumPy forward pass (ViT, LayerScale, erf GELU, adapter) that reads the
GGUF file through the `gguf` package, so that neither the converter nor the C code can be
wrong unnoticed. REFERENCE_DIR holds picture_{224,448}.png, vit_{224,448}.npy and
adapter_rows_224.npy, which belong to models/adapter-first.npz: `make check` makes
build/mmproj-first.gguf with it. Needs: numpy, pillow, gguf (tools/requirements.txt).
"""
import sys
from math import erf
from typing import Any

import numpy as np
from gguf import GGUFReader
from PIL import Image

Array = Any  # numpy.ndarray; NumPy's own types say more than this file needs
MINIMUM = 0.9999  # cosine of every row; F16 weights give 0.999999


def load(path: str) -> tuple[dict[str, Array], dict[str, Any]]:
    reader = GGUFReader(path)
    tensors = {t.name: np.asarray(t.data, np.float32) for t in reader.tensors}
    return tensors, {name: field.contents() for name, field in reader.fields.items()}


def layer_norm(x: Array, w: Array, b: Array, eps: float) -> Array:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w + b


def gelu(x: Array) -> Array:
    return (x * 0.5 * (1 + np.vectorize(erf, otypes=[np.float32])(x / np.sqrt(2)))).astype(np.float32)


def cubic_matrix(n_in: int, n_out: int) -> Array:
    """Bicubic as a matrix: a = -0.75, half-pixel centres, edges clamped."""
    a = -0.75
    m = np.zeros((n_out, n_in))
    for i in range(n_out):
        centre = (i + 0.5) * n_in / n_out - 0.5
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d = abs(centre - j)
            w = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4)
            m[i, min(max(j, 0), n_in - 1)] += w
    return m


def vit(t: dict[str, Array], keys: dict[str, Any], picture: str) -> Array:
    """(1 + n_patch, n_embd), class token first, after the last norm."""
    heads, eps = int(keys["clip.vision.attention.head_count"]), float(keys["clip.vision.attention.layer_norm_epsilon"])
    pixels = np.asarray(Image.open(picture).convert("RGB"), np.float32) / 255
    pixels = (pixels - np.float32(keys["clip.vision.image_mean"])) / np.float32(keys["clip.vision.image_std"])
    p, n = t["v.patch_embd.weight"].shape[-1], pixels.shape[0] // t["v.patch_embd.weight"].shape[-1]
    patches = pixels.reshape(n, p, n, p, 3).transpose(0, 2, 4, 1, 3).reshape(n * n, -1)
    x = patches @ t["v.patch_embd.weight"].reshape(-1, patches.shape[1]).T + t["v.patch_embd.bias"]
    full, width = t["v.position_embd_full.weight"], x.shape[1]
    if n * n + 1 == len(t["v.position_embd.weight"]):
        table = np.roll(t["v.position_embd.weight"], 1, axis=0)  # class token first again
    else:
        m = cubic_matrix(int((len(full) - 1) ** 0.5), n)
        grid = full[1:].reshape(m.shape[1], m.shape[1], width)
        table = np.concatenate([full[:1], np.einsum("yi,xj,ijc->yxc", m, m, grid, optimize=True).reshape(-1, width)])
    x = (np.concatenate([t["v.class_embd"].reshape(1, -1), x]) + table).astype(np.float32)
    for layer in range(int(keys["clip.vision.block_count"])):
        w = {k.split(".", 3)[3]: v for k, v in t.items() if k.startswith(f"v.blk.{layer}.")}
        y = layer_norm(x, w["ln1.weight"], w["ln1.bias"], eps)
        q, k, v = (
            (y @ w[f"attn_{s}.weight"].T + w[f"attn_{s}.bias"]).reshape(len(x), heads, -1).swapaxes(0, 1) for s in "qkv"
        )
        score = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        score = np.exp(score - score.max(-1, keepdims=True))
        y = (score / score.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(x.shape)
        x = x + w["ls1.weight"] * (y @ w["attn_out.weight"].T + w["attn_out.bias"])
        y = layer_norm(x, w["ln2.weight"], w["ln2.bias"], eps)
        y = gelu(y @ w["ffn_up.weight"].T + w["ffn_up.bias"])
        x = x + w["ls2.weight"] * (y @ w["ffn_down.weight"].T + w["ffn_down.bias"])
    return layer_norm(x, t["v.post_ln.weight"], t["v.post_ln.bias"], eps)


def adapter(t: dict[str, Array], x: Array) -> Array:
    mlp = "mm.model.mlp."
    x = layer_norm(x, t[mlp + "0.weight"], t[mlp + "0.bias"], 1e-5)
    x = gelu(x @ t[mlp + "1.weight"].T + t[mlp + "1.bias"])
    return x @ t[mlp + "3.weight"].T + t[mlp + "3.bias"]


def worst_cosine(a: Array, b: Array) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))).min())


def main(mmproj: str, reference: str) -> int:
    t, keys = load(mmproj)
    failed = 0
    for size in (224, 448):
        rows = vit(t, keys, f"{reference}/picture_{size}.png")
        found = {f"vit_{size}": rows}
        if size == 224:
            found["adapter_rows_224"] = adapter(t, rows[1:])
        for name, got in found.items():
            cosine = worst_cosine(got, np.load(f"{reference}/{name}.npy"))
            print(f"{name}: worst row cosine {cosine:.7f}")
            failed += cosine < MINIMUM
    return failed


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: check_mmproj.py MMPROJ REFERENCE_DIR")
    sys.exit(main(*sys.argv[1:]))
