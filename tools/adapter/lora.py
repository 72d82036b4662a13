"""Low-rank additions to the language model's matrices (LoRA, arXiv 2106.09685), trained with
the adapter: y = W x + alpha / rank * B (A x).

Matrices with the same input share one A while they are learned; the file has a copy for
each, in llama.cpp's names. A acts on the norm's output with the norm's weights, as in the
file's own matrices, though the language model here has them folded into W.
"""
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from gguf import GGUFWriter
from torch import nn

from .language import LanguageModel, LayerLora, LoraPair, halves_first

INPUTS = ("qkv", "out", "gate_up", "down")


class Shape(NamedTuple):
    n_in: int
    n_out: int


class Lora(nn.Module):
    """B starts at zero: the model starts as it was."""

    def __init__(self, lm: LanguageModel, rank: int, alpha: float):
        super().__init__()
        self.lm, self.rank, self.alpha = [lm], rank, alpha  # in a list: not part of the state
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for layer in lm.layers:
            for name in INPUTS:
                n_out, n_in = getattr(layer, name).shape
                a = torch.empty(rank, n_in)
                nn.init.kaiming_uniform_(a, a=math.sqrt(5))
                self.down.append(nn.Parameter(a))
                self.up.append(nn.Parameter(torch.zeros(n_out, rank)))

    def layers(self) -> list[LayerLora]:
        """In the order, the scale and the number format in which LanguageModel.run wants them."""
        lm = self.lm[0]
        scale = self.alpha / self.rank
        made = []
        for i, norms in enumerate(lm.norms):
            pairs = []
            for j, name in enumerate(INPUTS):
                a, b = self.down[i * len(INPUTS) + j], self.up[i * len(INPUTS) + j] * scale
                if name == "qkv":
                    a, b = a * norms.attn, lm.order_qkv(b)
                elif name == "gate_up":
                    a = a * norms.ffn
                pairs.append(LoraPair(a.to(lm.dtype), b.to(lm.dtype)))
            made.append(LayerLora(*pairs))
        return made


def save_gguf(weights: dict[str, torch.Tensor], lm: LanguageModel, alpha: float, path: Path) -> None:
    """A LoRA file of llama.cpp: matrices fp16 under the names of those that they add to."""
    q = lm.heads * lm.dim
    kv = lm.kv_heads * lm.dim
    parts = {
        "qkv": (("attn_q", q), ("attn_k", kv), ("attn_v", kv)),
        "out": (("attn_output", None),),
        "gate_up": (("ffn_gate", lm.layers[0].down.shape[1]), ("ffn_up", lm.layers[0].down.shape[1])),
        "down": (("ffn_down", None),),
    }
    part = path.with_suffix(".part")
    writer = GGUFWriter(part, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_name("Product photos")
    for i in range(len(lm.layers)):
        for j, name in enumerate(INPUTS):
            a, b = (weights[f"{k}.{i * len(INPUTS) + j}"].detach() for k in ("down", "up"))
            at = 0
            for matrix, n_out in parts[name]:
                rows = b[at : at + n_out] if n_out else b
                at += len(rows)
                for what, x in (("a", a), ("b", rows)):
                    writer.add_tensor(f"blk.{i}.{matrix}.weight.lora_{what}", x.numpy().astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, path)
