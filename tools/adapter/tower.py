"""The picture tower of tamp's mmproj file in PyTorch, with tamp's ToMe, for training only.

Mirrors vision/vit.c and compress/tome.c: rows leave the tower after its final norm, in
raster order of their first patch. tests/tools/test_train_adapter.py compares both with
the reference rows in tests/golden.
"""
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gguf import GGUFReader

SIDE = 16  # patches along one side at 224 px
N_PATCH = SIDE * SIDE


class Rows(NamedTuple):
    """x [B, n, width], first [B, n] the first patch of each row, ascending."""

    x: torch.Tensor
    first: torch.Tensor


def scheduled_rows(n: int, target: int, layer: int, n_layer: int) -> int:
    """compress/tome.c, constant schedule: rows after block `layer`, rounded half up, and
    never more than the later blocks can still halve down to the target."""

    def plain(at: int) -> int:
        return n - (2 * (at + 1) * (n - target) + n_layer) // (2 * n_layer)

    reachable = target
    for later in range(n_layer - 2, layer - 1, -1):
        reachable = min(2 * reachable, plain(later))
    return min(plain(layer), reachable)


def merge(
    x: torch.Tensor, mass: torch.Tensor, first: torch.Tensor, metric: torch.Tensor, n_merge: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One ToMe step (arXiv 2210.09461). Row 0 is the class token and stands apart; of the
    others the even ones (A) may merge into the odd ones (B)."""
    if n_merge <= 0:
        return x, mass, first
    unit = F.normalize(metric.float(), dim=-1)
    score, partner = (unit[:, 1::2] @ unit[:, 2::2].transpose(1, 2)).max(-1)
    order = score.argsort(dim=1, descending=True, stable=True)
    source, rest = order[:, :n_merge], order[:, n_merge:].sort(1).values
    target = partner.gather(1, source)

    def split(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        a, b = t[:, 1::2], t[:, 2::2]
        return t[:, :1], a.gather(1, rest), a.gather(1, source), b

    weighted = x * mass[..., None]
    wide = (-1, -1, x.shape[-1])
    a = weighted[:, 1::2]
    sums = weighted[:, 2::2].scatter_add(
        1, target[..., None].expand(*wide), a.gather(1, source[..., None].expand(*wide))
    )
    class_mass, rest_mass, source_mass, b_mass = split(mass)
    b_mass = b_mass.scatter_add(1, target, source_mass)
    class_first, rest_first, source_first, b_first = split(first)
    b_first = b_first.scatter_reduce(1, target, source_first, "amin")
    kept = x[:, 1::2].gather(1, rest[..., None].expand(*wide))
    return (
        torch.cat([x[:, :1], kept, sums / b_mass[..., None]], 1),
        torch.cat([class_mass, rest_mass, b_mass], 1),
        torch.cat([class_first, rest_first, b_first], 1),
    )


class Tower:
    """DINOv2 ViT-S/14, frozen. pixels [B, 3, 224, 224], normalised."""

    def __init__(self, mmproj: Path, dtype: torch.dtype = torch.bfloat16):
        reader = GGUFReader(mmproj)
        t = {x.name: torch.from_numpy(np.array(x.data, np.float32)) for x in reader.tensors}
        keys = {name: field.contents() for name, field in reader.fields.items()}
        self.dtype = dtype
        self.heads = int(keys["clip.vision.attention.head_count"])
        self.eps = float(keys["clip.vision.attention.layer_norm_epsilon"])
        self.mean = torch.tensor(keys["clip.vision.image_mean"])[:, None, None]
        self.std = torch.tensor(keys["clip.vision.image_std"])[:, None, None]
        self.class_token = t["v.class_embd"].reshape(1, 1, -1)
        self.positions = t["v.position_embd.weight"].roll(1, 0)  # class token first
        self.patch = (t["v.patch_embd.weight"], t["v.patch_embd.bias"])
        self.post = (t["v.post_ln.weight"], t["v.post_ln.bias"])
        self.layers = [self._layer(t, i) for i in range(int(keys["clip.vision.block_count"]))]

    def _layer(self, t: dict[str, torch.Tensor], i: int) -> dict[str, torch.Tensor]:
        w = {k.split(".", 3)[3]: v for k, v in t.items() if k.startswith(f"v.blk.{i}.")}
        for part in ("weight", "bias"):
            w[f"qkv.{part}"] = torch.cat([w.pop(f"attn_{s}.{part}") for s in "qkv"])
        return {k: v if k.startswith(("ln", "ls")) else v.to(self.dtype) for k, v in w.items()}

    def _linear(self, w: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.to(self.dtype), w[f"{name}.weight"], w[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor, ratio: int = 1) -> Rows:
        """ratio 1: all 256 patches; else ToMe down to 256 / ratio rows."""
        weight, bias = self.patch
        x = F.conv2d(pixels, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
        n_batch, n, width = x.shape
        x = torch.cat([self.class_token.expand(n_batch, 1, width), x], 1) + self.positions
        mass = torch.ones(n_batch, n + 1)
        first = torch.arange(-1, n).expand(n_batch, n + 1)
        for i, w in enumerate(self.layers):
            y = self._linear(w, "qkv", self._norm(x, w["ln1.weight"], w["ln1.bias"]))
            q, k, v = y.view(n_batch, -1, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            bias = mass.log()[:, None, None].to(q.dtype).expand(-1, 1, q.shape[2], -1) if ratio > 1 and i else None
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            x = x + w["ls1.weight"] * self._linear(w, "attn_out", y.transpose(1, 2).flatten(2))
            if ratio > 1:
                goal = scheduled_rows(n, n // ratio, i, len(self.layers))
                x, mass, first = merge(x, mass, first, k.float().mean(1), x.shape[1] - 1 - goal)
            y = F.gelu(self._linear(w, "ffn_up", self._norm(x, w["ln2.weight"], w["ln2.bias"])))
            x = x + w["ls2.weight"] * self._linear(w, "ffn_down", y)
        x = self._norm(x, *self.post)[:, 1:]
        order = first[:, 1:].argsort(1)
        return Rows(x.gather(1, order[..., None].expand_as(x)), first[:, 1:].gather(1, order))


def pool(x: torch.Tensor, side: int) -> Rows:
    """All 256 rows -> adaptive averages of a side x side grid, each at its first patch."""
    n_batch, n, width = x.shape
    grid = x.transpose(1, 2).reshape(n_batch, width, SIDE, SIDE)
    rows = F.adaptive_avg_pool2d(grid, side).flatten(2).transpose(1, 2)
    starts = torch.arange(side) * SIDE // side
    first = (starts[:, None] * SIDE + starts).flatten()
    return Rows(rows, first.expand(n_batch, -1))
