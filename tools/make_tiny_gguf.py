#!/usr/bin/python3
"""Make the small GGUF files with random weights for tests/golden/tiny: make_tiny_gguf.py [OUT_DIR]

One file for each thing that a family or a tokenizer does differently, so that tamp can be
compared with llama.cpp (tools/export_llamacpp.py writes the expected numbers). Weights
come from a fixed seed; vocabularies are trained here on the text below, which is ours.
Half of the merges run across words, digits and line breaks, which no pre-tokenizer lets
happen in the text: one that splits wrongly is bound to give other ids.
Needs: numpy, gguf (tools/requirements.txt).
"""
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q

TEXT = """Where is my order? I ordered a jacket, size 42, on 12.03.2024 and paid 149.90 euro.
I'd like to return it: it doesn't fit. We'll send you a label; you've 30 days, they're free.
  - Item #A-4711-XY: 2 pcs at 19.99 each\n  - Item #B-0815: 100 pcs, 5% off!!!\n\n\tTotal: 1234567.89
Return policy: unused items within 30 days. Refunds take 3-5 working days... That's all.
def total(items):\n    return sum(item.price * item.count for item in items)\n\n\n
{"order": 4711, "items": [{"sku": "A-1", "n": 2}], "paid": true}\r\nThank you!\r\n
Der Mantel ist zu groß, können Sie mir helfen? Où est ma commande? ¿Dónde está? 你好，我想退货。
The customer's parcel was delivered to the neighbour's house at 10:45; she'd been out, he'd been in.
What kind of product is it? It is a pair of shorts. Is it available in red? It is available in blue and green.
"""
SPACE = "\u2581"  # SentencePiece writes a space as this
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
    "message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL1 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{% set system_message = message['content'] %}"
    "{% elif message['role'] == 'user' %}{{ ' [INST] ' + system_message + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + '</s>' }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{% for message in messages %}{{ '<start_of_turn>' + (message['role'] if message['role'] != 'assistant' else 'model')"
    " + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


# --- vocabularies ----------------------------------------------------------------------


class Vocab(NamedTuple):
    model: str  # tokenizer.ggml.model
    tokens: list[str]
    types: list[int]
    special: dict[str, int]  # bos, eos, eot, unk, pad -> id
    template: str
    pre: str = ""
    merges: Optional[list[str]] = None
    scores: Optional[list[float]] = None
    flags: dict[str, bool] = {}


def byte_letters() -> list[str]:
    """GPT-2's printable stand-in for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters, extra = {}, 0
    for byte in range(256):
        if byte in plain:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(256 + extra)
            extra += 1
    return [letters[byte] for byte in range(256)]


def merged(word: list[str], left: str, right: str) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == (left, right):
            out.append(left + right)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def train(words: list[list[str]], n_merges: int, longest: int) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Plain byte-pair encoding inside words; ties go to the pair that sorts first."""
    merges: list[tuple[str, str]] = []
    while len(merges) < n_merges:
        pairs = Counter(p for w in words for p in zip(w, w[1:]) if len(p[0]) + len(p[1]) <= longest)
        (left, right), count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        if count < 2:
            break
        merges.append((left, right))
        words = [merged(word, left, right) for word in words]
    return merges, words


def train_across(spell: Callable[[str], list[str]], n_inside: int, n_across: int) -> list[tuple[str, str]]:
    """First merges inside words, as a real vocabulary has them, then across everything."""
    inside, words = train([spell(word) for word in re.findall(r" ?[^\W\d]+|\d+|.|\n", TEXT)], n_inside, 12)
    across, _ = train([[symbol for word in words for symbol in word]], n_across, 8)
    return list(dict.fromkeys(inside + across))


def bpe_vocab(
    pre: str,
    control: list[str],
    special: dict[str, str],
    template: str,
    user: list[str] = [],
    first: bool = False,
    whole: list[str] = [],
    flags: dict[str, bool] = {},
) -> Vocab:
    """`first`: control tokens at the start (SmolLM) or at the end (Llama 3, Qwen).
    `whole`: tokens that no merge reaches; llama-bpe finds them as whole words."""
    letters = byte_letters()
    merges = train_across(lambda word: [letters[b] for b in word.encode()], 130, 130)
    tokens = letters + list(dict.fromkeys(a + b for a, b in merges))
    tokens += ["".join(letters[b] for b in word.encode()) for word in whole]
    types = [NORMAL] * len(tokens)
    extra, extra_types = control + user, [CONTROL] * len(control) + [USER_DEFINED] * len(user)
    tokens, types = (extra + tokens, extra_types + types) if first else (tokens + extra, types + extra_types)
    ids = {name: tokens.index(token) for name, token in special.items()}
    return Vocab("gpt2", tokens, types, ids, template, pre, [f"{a} {b}" for a, b in merges], None, flags)


def spm_vocab(control: list[str], special: dict[str, str], template: str, user: list[str], flags: dict[str, bool]) -> Vocab:
    """As SentencePiece's BPE: <unk>, control, 256 bytes, pieces with score -rank, letters.
    User-defined tokens are written with plain spaces, as llama.cpp's converter does."""
    merges = train_across(lambda word: list(word.replace(" ", SPACE)), 160, 100)
    pieces = [piece for piece in dict.fromkeys(a + b for a, b in merges) if piece.replace(SPACE, " ") not in user]
    letters = sorted(set(TEXT.replace(" ", SPACE)) - set("\n\r\t货"))  # those four must fall back to bytes
    tokens = ["<unk>", *control, *user, *(f"<0x{b:02X}>" for b in range(256)), *pieces, *letters]
    n_user = len(control) + len(user)
    types = [UNKNOWN, *[CONTROL] * len(control), *[USER_DEFINED] * len(user), *[BYTE] * 256]
    types += [NORMAL] * (len(tokens) - len(types))
    scores = [0.0] * (1 + n_user + 256) + [-float(rank) for rank in range(len(pieces) + len(letters))]
    ids = {name: tokens.index(token) for name, token in special.items()}
    return Vocab("llama", tokens, types, ids, template, "default", None, scores, flags)


# --- weights ---------------------------------------------------------------------------

K_QUANTS = {Q.Q4_K, Q.Q5_K, Q.Q6_K}
BLOCK_BYTES = {Q.Q4_K: 144, Q.Q5_K: 176, Q.Q6_K: 210}


def random_blocks(rng: np.random.Generator, kind: Q, n: int, sigma: float) -> np.ndarray:
    """n K-quant blocks of 256 with random bits and a scale that gives the values this
    spread: gguf has no K-quantiser, and random bits reach every code."""
    raw = rng.integers(0, 256, (n, BLOCK_BYTES[kind]), np.uint8)

    def with_scale(d: np.ndarray) -> np.ndarray:
        half = d.astype(np.float16)
        if kind == Q.Q6_K:
            raw[:, 208:210] = half.view(np.uint8).reshape(n, 2)
        else:
            raw[:, 0:2] = half.view(np.uint8).reshape(n, 2)
            raw[:, 2:4] = (half * np.float16(7.5)).view(np.uint8).reshape(n, 2)
        return raw

    spread = float(gguf.quants.dequantize(with_scale(np.full(n, 2.0**-10)), kind).std()) * 2.0**10
    return with_scale(rng.uniform(0.8, 1.2, n) * sigma / spread)


class Shape(NamedTuple):
    arch: str
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    types: tuple[Q, ...]  # of the matrices, in turn
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    rope_factors: bool = False
    rope_base: float = 10000.0
    eps: float = 1e-5
    extra: Callable[[gguf.GGUFWriter, str], None] = lambda writer, arch: None


def add_matrix(writer: gguf.GGUFWriter, rng: np.random.Generator, name: str, shape: tuple[int, int], kind: Q, sigma: float) -> None:
    if kind in K_QUANTS:
        blocks = random_blocks(rng, kind, shape[0] * shape[1] // 256, sigma)
        data = blocks.reshape(shape[0], -1)
    else:
        data = gguf.quants.quantize((rng.standard_normal(shape) * sigma).astype(np.float32), kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def add_weights(writer: gguf.GGUFWriter, s: Shape, n_vocab: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q_dim, kv_dim = s.n_head * s.head_dim, s.n_head_kv * s.head_dim
    turn = [0]

    def matrix(name: str, rows: int, columns: int, sigma: float) -> None:
        add_matrix(writer, rng, name + ".weight", (rows, columns), s.types[turn[0] % len(s.types)], sigma)
        turn[0] += 1

    def vector(name: str, n: int, mean: float, sigma: float) -> None:
        writer.add_tensor(name, (mean + sigma * rng.standard_normal(n)).astype(np.float32))

    into = s.n_embd**-0.5
    matrix("token_embd", n_vocab, s.n_embd, 0.4)
    vector("output_norm.weight", s.n_embd, 1, 0.1)
    if not s.tied:
        matrix("output", n_vocab, s.n_embd, 0.4)
    if s.rope_factors:
        writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, s.head_dim // 2, dtype=np.float32))
    for layer in range(s.n_layer):
        b = f"blk.{layer}."
        vector(b + "attn_norm.weight", s.n_embd, 1, 0.1)
        matrix(b + "attn_q", q_dim, s.n_embd, 1.5 * into)
        matrix(b + "attn_k", kv_dim, s.n_embd, 1.5 * into)
        matrix(b + "attn_v", kv_dim, s.n_embd, into)
        if s.qkv_bias:
            for name, n in (("q", q_dim), ("k", kv_dim), ("v", kv_dim)):
                vector(f"{b}attn_{name}.bias", n, 0, 0.5)
        if s.qk_norm:
            vector(b + "attn_q_norm.weight", s.head_dim, 1.2, 0.2)
            vector(b + "attn_k_norm.weight", s.head_dim, 1.2, 0.2)
        matrix(b + "attn_output", s.n_embd, q_dim, q_dim**-0.5)
        if s.post_norms:
            # 2.5, not 1: else the embedding outweighs the layers and the model repeats its input
            vector(b + "post_attention_norm.weight", s.n_embd, 2.5, 0.1)
            vector(b + "post_ffw_norm.weight", s.n_embd, 2.5, 0.1)
        vector(b + "ffn_norm.weight", s.n_embd, 1, 0.1)
        matrix(b + "ffn_gate", s.n_ff, s.n_embd, into)
        matrix(b + "ffn_up", s.n_ff, s.n_embd, into)
        matrix(b + "ffn_down", s.n_embd, s.n_ff, 2 * s.n_ff**-0.5)


def write(path: Path, s: Shape, v: Vocab, seed: int) -> None:
    writer = gguf.GGUFWriter(path, s.arch)
    writer.add_type("model")
    writer.add_name(f"tamp test {path.stem}, random weights")
    writer.add_license("the project's own")
    writer.add_context_length(512)
    writer.add_embedding_length(s.n_embd)
    writer.add_block_count(s.n_layer)
    writer.add_feed_forward_length(s.n_ff)
    writer.add_head_count(s.n_head)
    writer.add_head_count_kv(s.n_head_kv)
    writer.add_layer_norm_rms_eps(s.eps)
    writer.add_rope_freq_base(s.rope_base)
    if s.head_dim * s.n_head != s.n_embd:
        writer.add_key_length(s.head_dim)
        writer.add_value_length(s.head_dim)
    if s.arch == "llama":
        writer.add_vocab_size(len(v.tokens))
        writer.add_rope_dimension_count(s.head_dim)
    s.extra(writer, s.arch)
    writer.add_tokenizer_model(v.model)
    writer.add_tokenizer_pre(v.pre)
    writer.add_token_list(v.tokens)
    writer.add_token_types(v.types)
    if v.merges is not None:
        writer.add_token_merges(v.merges)
    if v.scores is not None:
        writer.add_token_scores(v.scores)
    for name, token in v.special.items():
        getattr(writer, f"add_{name}_token_id")(token)
    for name, on in v.flags.items():
        getattr(writer, f"add_{name}")(on)
    writer.add_chat_template(v.template)
    add_weights(writer, s, len(v.tokens), seed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gemma_extra(writer: gguf.GGUFWriter, arch: str) -> None:
    """A window of 16, which the test prompt exceeds; the layer pattern (five local, one
    global) and the local RoPE base (10000) are llama.cpp's defaults, as in real files."""
    writer.add_sliding_window(16)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)  # global layers only
    writer.add_rope_scaling_factor(8.0)
    writer.add_final_logit_softcapping(20.0)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    chatml = partial(bpe_vocab, control=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], template=CHATML)
    qwen = chatml("qwen2", special=dict(eos="<|im_end|>", pad="<|endoftext|>"), user=["<tool_call>"])
    write(
        out / "llama-bpe.gguf",
        Shape("llama", 4, 64, 4, 2, 16, 160, (Q.F16,), rope_factors=True, rope_base=500000.0),
        bpe_vocab(
            "llama-bpe",
            control=["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
            special=dict(bos="<|begin_of_text|>", eos="<|eot_id|>"),
            template=LLAMA3,
            whole=[" refund", "warehouse", "789"],
        ),
        1,
    )
    write(
        out / "llama-spm.gguf",
        Shape("llama", 3, 64, 4, 2, 24, 96, (Q.F32, Q.F16, Q.BF16)),
        spm_vocab(["<s>", "</s>"], dict(bos="<s>", eos="</s>", unk="<unk>"), MISTRAL1, [], dict(add_bos_token=True, add_eos_token=False)),
        2,
    )
    write(
        out / "smollm-legacy-quants.gguf",
        Shape("llama", 6, 64, 4, 2, 16, 160, (Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0), tied=True, rope_base=100000.0),
        chatml("smollm", special=dict(bos="<|im_start|>", eos="<|im_end|>", unk="<|endoftext|>", pad="<|im_end|>"), first=True),
        3,
    )
    write(
        out / "gpt2-k-quants.gguf",
        Shape("llama", 2, 256, 4, 1, 64, 256, (Q.Q6_K, Q.Q4_K, Q.Q5_K), tied=True),
        chatml("gpt-2", special=dict(bos="<|endoftext|>", eos="<|endoftext|>"), flags=dict(add_bos_token=False)),
        4,
    )
    write(out / "qwen2.gguf", Shape("qwen2", 4, 64, 4, 2, 16, 160, (Q.BF16,), tied=True, qkv_bias=True, rope_base=1e6, eps=1e-6), qwen, 5)
    write(out / "qwen3.gguf", Shape("qwen3", 4, 64, 4, 2, 32, 128, (Q.F16,), qk_norm=True, rope_base=1e6, eps=1e-6), qwen, 6)
    write(
        out / "gemma3.gguf",
        Shape("gemma3", 7, 64, 4, 1, 24, 64, (Q.BF16,), tied=True, qk_norm=True, post_norms=True, rope_base=1e6, eps=1e-6, extra=gemma_extra),
        spm_vocab(
            ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
            dict(bos="<bos>", eos="<eos>", eot="<end_of_turn>", unk="<unk>", pad="<pad>"),
            GEMMA,
            ["\n\n", "  ", "<table>"],
            dict(add_bos_token=True, add_eos_token=False, add_space_prefix=False),
        ),
        7,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/tiny"))
