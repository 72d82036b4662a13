"""SmolLM2 out of its GGUF file in PyTorch, frozen, and its tokenizer, for training only.

The norms' weights are folded into the matrices behind them, and the rows of the query and
key matrices are put into the order in which RoPE turns halves instead of neighbours
(the scores are the same sums in another order).
"""
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL = 3  # GGUF's token type of control tokens


class Layer(NamedTuple):
    qkv: torch.Tensor
    out: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Norms(NamedTuple):
    """Weights of a layer's norms, which its matrices here already have in them."""

    attn: torch.Tensor
    ffn: torch.Tensor


class LoraPair(NamedTuple):
    """y = W x + b (a x)"""

    a: torch.Tensor
    b: torch.Tensor


class LayerLora(NamedTuple):
    qkv: LoraPair
    out: LoraPair
    gate_up: LoraPair
    down: LoraPair


Cache = list[tuple[torch.Tensor, torch.Tensor]]  # keys, values of each layer [1, kv_heads, n, 64]


def halves_first(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows (x0 y0 x1 y1 …) of each head -> (x0 x1 … y0 y1 …)."""
    rows, width = weight.shape
    return weight.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)


def product(x: torch.Tensor, weight: torch.Tensor, lora: LoraPair | None) -> torch.Tensor:
    """Linear layer, with its low-rank addition if there is one."""
    if lora is None:
        return F.linear(x, weight)
    flat = x.reshape(-1, x.shape[-1])
    return torch.addmm(flat @ weight.T, flat @ lora.a.T, lora.b.T).view(*x.shape[:-1], -1)


def unit(x: torch.Tensor, eps: float) -> torch.Tensor:
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """RoPE. x [B, heads, n, d]; cos, sin [B or 1, 1, n, d / 2]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def gated(x: torch.Tensor) -> torch.Tensor:
    """SiLU of the first half of a row times its second half."""
    gate, up = x.chunk(2, -1)
    return (F.silu(gate.float()) * up).to(x.dtype)


def weigh(score: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """score [B, kv_heads, queries to each, n, keys] -> attention weights."""
    return torch.softmax(score.float() + mask, -1).to(score.dtype)


class LoopFunctions(NamedTuple):
    """The elementwise parts of a layer, which cost more than its products when PyTorch
    runs them one operation at a time."""

    unit: Callable[..., torch.Tensor]
    turn: Callable[..., torch.Tensor]
    gated: Callable[..., torch.Tensor]
    weigh: Callable[..., torch.Tensor]


PLAIN = LoopFunctions(unit, turn, gated, weigh)


def fused() -> LoopFunctions:
    """Each compiled into one loop (needs a C++ compiler)."""
    return LoopFunctions(*(torch.compile(f, dynamic=True) for f in PLAIN))


class LanguageModel:
    def __init__(self, path: Path, dtype: torch.dtype = torch.bfloat16, loops: LoopFunctions = PLAIN):
        reader = GGUFReader(path)
        keys = {name: field.contents() for name, field in reader.fields.items()}
        t = {
            x.name: torch.from_numpy(np.array(dequantize(x.data, x.tensor_type), np.float32))
            for x in reader.tensors
        }
        self.dtype = dtype
        self.heads = int(keys["llama.attention.head_count"])
        self.kv_heads = int(keys["llama.attention.head_count_kv"])
        self.eps = float(keys["llama.attention.layer_norm_rms_epsilon"])
        base = float(keys["llama.rope.freq_base"])
        self.width = int(keys["llama.embedding_length"])
        self.dim = self.width // self.heads
        self.frequency = base ** (-torch.arange(0, self.dim, 2).float() / self.dim)
        self.embedding = t["token_embd.weight"].to(dtype)
        self.output = (t["token_embd.weight"] * t["output_norm.weight"]).to(dtype)
        n_layer = int(keys["llama.block_count"])
        self.layers = [self._layer(t, i) for i in range(n_layer)]
        self.norms = [Norms(*(t[f"blk.{i}.{k}_norm.weight"] for k in ("attn", "ffn"))) for i in range(n_layer)]
        self.loops = loops
        self.tokenizer = make_tokenizer(keys)

    def _layer(self, t: dict[str, torch.Tensor], i: int) -> Layer:
        w = {k.split(".", 2)[2]: v for k, v in t.items() if k.startswith(f"blk.{i}.")}
        qkv = torch.cat([w[f"attn_{x}.weight"] for x in "qkv"])
        qkv = self.order_qkv(qkv) * w["attn_norm.weight"]
        gate_up = torch.cat([w["ffn_gate.weight"], w["ffn_up.weight"]]) * w["ffn_norm.weight"]
        parts = (qkv, w["attn_output.weight"], gate_up, w["ffn_down.weight"])
        return Layer(*(p.to(self.dtype).contiguous() for p in parts))

    def order_qkv(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the file's query, key and value matrices -> as the attention here wants them."""
        q, k, v = rows.split([n * self.dim for n in (self.heads, self.kv_heads, self.kv_heads)])
        return torch.cat([halves_first(q, self.heads) * self.dim**-0.5, halves_first(k, self.kv_heads), v])

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embedding[ids]

    def empty_cache(self) -> Cache:
        nothing = torch.zeros(1, self.kv_heads, 0, self.dim, dtype=self.dtype)
        return [(nothing, nothing)] * len(self.layers)

    def _attend(self, qkv: torch.Tensor, turns: tuple, mask: torch.Tensor, past: tuple) -> tuple:
        """qkv [B, n, heads + 2 kv_heads, dim] -> mixed [B, n, width], keys, values. The
        queries that share a key head stand behind each other, so keys are not repeated."""
        n_batch, n, _, dim = qkv.shape
        heads, kv = self.heads, self.kv_heads
        turned, v = (x.transpose(1, 2) for x in qkv.split([heads + kv, kv], 2))
        q, k = self.loops.turn(turned, *turns).split([heads, kv], 1)
        keys, values = (torch.cat([p.expand(n_batch, -1, -1, -1), x], 2) for p, x in zip(past, (k, v)))
        score = q.reshape(n_batch, kv, heads // kv * n, dim) @ keys.transpose(2, 3)
        weight = self.loops.weigh(score.view(n_batch, kv, heads // kv, n, -1), mask)
        mixed = weight.view(n_batch, kv, heads // kv * n, -1) @ values
        return mixed.view(n_batch, heads, n, dim).transpose(1, 2).reshape(n_batch, n, heads * dim), k, v

    def run(
        self, x: torch.Tensor, position: torch.Tensor, allowed: torch.Tensor, past: Cache, lora: list[LayerLora] | None = None
    ) -> tuple[torch.Tensor, Cache]:
        """x [B, n, width], position [B or 1, n], allowed [n, past + n] -> normed rows and
        the keys and values of x."""
        nothing = LayerLora(None, None, None, None)
        n_batch, n, _ = x.shape
        angle = position[:, None, :, None].float() * self.frequency
        turns = angle.cos(), angle.sin()
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
        made: Cache = []
        for layer, before, low in zip(self.layers, past, lora or [nothing] * len(self.layers)):
            qkv = product(self.loops.unit(x, self.eps), layer.qkv, low.qkv)
            mixed, k, v = self._attend(qkv.view(n_batch, n, -1, self.dim), turns, mask, before)
            x = x + product(mixed, layer.out, low.out)
            wide = product(self.loops.unit(x, self.eps), layer.gate_up, low.gate_up)
            x = x + product(self.loops.gated(wide), layer.down, low.down)
            made.append((k, v))
        return self.loops.unit(x, self.eps), made

    def text(self, ids: torch.Tensor, lora: list[LayerLora] | None = None) -> tuple[torch.Tensor, Cache]:
        """Texts [B, n] that begin the prompt -> what run gives."""
        n = ids.shape[1]
        allowed = torch.ones(n, n, dtype=torch.bool).tril()
        return self.run(self.embed(ids), torch.arange(n)[None], allowed, self.empty_cache(), lora)

    def prefix(self, ids: list[int], lora: list[LayerLora] | None = None) -> Cache:
        """Keys and values of text that begins the prompt."""
        return self.text(torch.tensor([ids]), lora)[1]


def make_tokenizer(keys: dict) -> Tokenizer:
    """SmolLM2: byte-level BPE, every digit by itself."""
    tokens, merges = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.merges"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocabulary, [tuple(m.split(" ")) for m in merges]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    types = keys["tokenizer.ggml.token_type"]
    made.add_special_tokens([AddedToken(t, special=True) for t, kind in zip(tokens, types) if kind == CONTROL])
    return made
