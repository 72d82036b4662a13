#!/usr/bin/python3
"""Write llama.cpp's numbers for the golden tests: export_llamacpp.py [GOLDEN_DIR]

For each GOLDEN_DIR/tiny/NAME.gguf (from make_tiny_gguf.py):
  NAME.tokens.vec    strings -> ids
  NAME.pieces.vec    each id -> its bytes
  NAME.sequence.vec  a prompt and 8 greedy tokens after it
  NAME.logits.npy    logits after every position of that sequence
  NAME.tensors.vec   values of the quantised tensors (only where there are such)
For each GOLDEN_DIR/lora/NAME.gguf (from make_tiny_lora.py):
  NAME.logits.npy    logits after every position of the prompt of tiny/NAME.gguf, with this
                     adapter at a scale of 0.75
and, once, chat_templates.json and dequant/TYPE.{bin,npy}.

llama.cpp rounds activations to the type of the weights (F16, BF16, int8), which is its
choice of speed and not what the file says. So the logits are those of a temporary copy
with all weights as F32, one thread, F32 KV cache, no flash attention.

Needs: numpy, gguf and the Python binding llama-cpp-python 0.3.36 on PYTHONPATH (its
sdist), with LLAMA_CPP_LIB_PATH naming a folder with libllama.so and libggml-base.so.
"""
import ctypes
import json
import os
import struct
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp as llama
import numpy as np

from chats import CHATS

Q = gguf.GGMLQuantizationType
N_PROMPT, N_GREEDY = 52, 8
LORA_SCALE = 0.75
FLOATS = {Q.F32, Q.F16, Q.BF16}

STRINGS = [
    "", "a", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", " \n", "\n ", "\t", "\t\tx", "\r\n", "a\r\nb", " \n \n x",
    "Where is my order?", "where  is   my    order", " leading", "trailing ", "trailing  \n",
    "I'd like it; you've 30 days, they're free, it doesn't fit, we'll send, she's out, I'm in",
    "I'D LIKE IT; YOU'VE, THEY'RE, DOESN'T, WE'LL, SHE'S, I'M", "'s 't 're 've 'm 'll 'd 'x ''s", "o\u2019clock it\u2019s",
    "1", "12", "123", "1234", "12345", "1234567890", "12.03.2024", "3.14159 1,000,000", "a1b22c333d4444", "x 42 y", "٣٤٥ ५६ ½ Ⅻ ²",
    "size42 SKU-00123/AB #A-4711-XY", "100 pcs, 5% off!!!", "...", "!?!?", "!!!\n\n", " !!!\n next", "a.b,c;d:e", "$49.90 €20 £5",
    "def total(items):\n    return sum(item.price * item.count for item in items)\n\n\n",
    '{"order": 4711, "items": [{"sku": "A-1", "n": 2}], "paid": true}', "a/b?c=d&e=%20f#g", "snake_case CamelCase ALLCAPS kebab-case",
    "naïve café Größe können", "Où est ma commande? ¿Dónde está?", "你好，我想退货。", "这件衣服有红色的吗？", "こんにちは 世界", "한국어 텍스트",
    "Привет, как дела?", "مرحبا بالعالم", "देवनागरी लिपि", "ไทย", "e\u0301 n\u0303", "\u00a0nbsp\u2003em\u3000wide", "\u200bzero\u200dwidth", "\ufeffbom",
    "😀 🍌🍎", "👩\u200d👩\u200d👧", "🇩🇪", "𝒳 𝔘𝔫𝔦", "\u2581 lower one eighth", "\u0000nul\u0000", "\u0001\u0007\u001b[0m\u007f", "\U0010ffff\ud7ff\ufffd",
    "<|im_start|>user\nHi<|im_end|>\n", "<|begin_of_text|>x<|eot_id|>", "<s>x</s>", "<bos><start_of_turn>user\nHi<end_of_turn>\n", "<tool_call>{}</tool_call>",
    "<table> a  b\n\nc", "a <tool_call> b", "<|im_start", "<unk> <pad> <0x41>", " refund warehouse refund 789", "x" * 60, "ab " * 20, "the " + " " * 40 + "end",
]  # fmt: skip
PROMPT = (
    "Where is my order? I ordered a jacket, size 42, on 12.03.2024 and paid 149.90 euro. I'd like to return it: it doesn't fit. "
    "Können Sie mir helfen? The customer's parcel was delivered at 10:45. What kind of product is it?"
)

TEMPLATES = [
    "chatml", "llama2", "llama2-sys", "llama2-sys-bos", "llama2-sys-strip", "llama3",
    "mistral-v1", "mistral-v3", "mistral-v3-tekken", "mistral-v7", "mistral-v7-tekken", "gemma",
]  # fmt: skip
# The shortest Jinja text by which llama.cpp knows the template.
MARKS = {
    "chatml": "{{'<|im_start|>' + message['role']}}",
    "llama2": "{{ '[INST] ' + message['content'] }}",
    "llama2-sys": "{{ '[INST] <<SYS>>' }}",
    "llama2-sys-bos": "{{ bos_token + '[INST] <<SYS>>' }}",
    "llama2-sys-strip": "{{ bos_token + '[INST] <<SYS>>' + content.strip() }}",
    "llama3": "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}",
    "mistral-v1": "{{ ' [INST] ' + system_message }}",
    "mistral-v3": "{{ '[AVAILABLE_TOOLS]' }}{{ '[INST] ' }}",
    "mistral-v3-tekken": '{{ "[AVAILABLE_TOOLS]" }}{{ "[INST]" }}',
    "mistral-v7": "{{ '[SYSTEM_PROMPT] [INST]' }}",
    "gemma": "{{ '<start_of_turn>' + role }}",
}


# --- llama.cpp -------------------------------------------------------------------------


class Model:
    def __init__(self, path: Path, vocab_only: bool):
        params = llama.llama_model_default_params()
        params.vocab_only, params.n_gpu_layers = vocab_only, 0
        self.model = llama.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, path
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.n_vocab = llama.llama_vocab_n_tokens(self.vocab)

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        llama.llama_model_free(self.model)

    def tokenize(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        raw = text.encode("utf-8", "surrogatepass")
        out = (llama.llama_token * (len(raw) + 16))()
        n = llama.llama_tokenize(self.vocab, raw, len(raw), out, len(out), add_special, parse_special)
        assert n >= 0
        return list(out[:n])

    def piece(self, token: int) -> bytes:
        out = ctypes.create_string_buffer(256)
        n = llama.llama_token_to_piece(self.vocab, token, out, len(out), 0, True)
        assert n >= 0
        return out.raw[:n]

    def run(self, prompt: list[int], n_greedy: int, lora: Path | None = None) -> tuple[list[int], np.ndarray]:
        """The greedy tokens, and the logits after each of prompt + greedy."""
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 128
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0  # F32
        params.flash_attn_type = 0  # disabled
        context = llama.llama_init_from_model(self.model, params)
        assert context
        if lora:
            adapter = llama.llama_adapter_lora_init(self.model, str(lora).encode())
            assert adapter, lora
            adapters = (llama.llama_adapter_lora_p_ctypes * 1)(adapter)
            assert llama.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(LORA_SCALE)) == 0
        batch = llama.llama_batch_init(len(prompt), 0, 1)
        rows: list[np.ndarray] = []
        greedy: list[int] = []
        position, step = 0, prompt
        while step:
            batch.n_tokens = len(step)
            for i, token in enumerate(step):
                batch.token[i], batch.pos[i] = token, position + i
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, True
            assert llama.llama_decode(context, batch) == 0
            rows += [np.array(llama.llama_get_logits_ith(context, i)[: self.n_vocab], np.float32) for i in range(len(step))]
            position += len(step)
            step = [int(rows[-1].argmax())] if len(greedy) < n_greedy else []
            greedy += step
        llama.llama_batch_free(batch)
        llama.llama_free(context)
        return greedy, np.stack(rows)


def render(template: str, chat: list[dict[str, str]]) -> str:
    messages = (llama.llama_chat_message * len(chat))(
        *(llama.llama_chat_message(m["role"].encode(), m["content"].encode()) for m in chat)
    )
    out = ctypes.create_string_buffer(1 << 14)
    n = llama.llama_chat_apply_template(template.encode(), messages, len(chat), True, out, len(out))
    assert 0 <= n < len(out), template
    return out.raw[:n].decode()


# --- files -----------------------------------------------------------------------------


def numbers(values: list[int]) -> str:
    return " ".join(str(v) for v in [len(values), *values])


def hex_or_dash(raw: bytes) -> str:
    return raw.hex() or "-"


def write_lines(path: Path, comment: str, lines: list[str]) -> None:
    path.write_text(f"# {comment}\n" + "".join(f"{line}\n" for line in lines))


def expand(source: Path, target: Path) -> None:
    """The same GGUF with every tensor as F32; the metadata's bytes are copied as they are."""
    reader = gguf.GGUFReader(source)
    raw = source.read_bytes()
    head = raw[: reader.tensors[0].field.offset]
    arrays = [gguf.quants.dequantize(t.data, t.tensor_type).astype("<f4") for t in reader.tensors]
    offset, infos = 0, b""
    for t, array in zip(reader.tensors, arrays):
        name, dims = t.name.encode(), [int(n) for n in t.shape]
        infos += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, offset)
        offset += array.nbytes + -array.nbytes % 32
    head += infos
    with open(target, "wb") as file:
        file.write(head + bytes(-len(head) % 32))
        for array in arrays:
            file.write(array.tobytes() + bytes(-array.nbytes % 32))


def export_model(path: Path) -> None:
    stem = path.with_suffix("")
    with Model(path, vocab_only=True) as model:
        lines = []
        for text in STRINGS:
            both = model.tokenize(text, True, True), model.tokenize(text, False, False)
            raw = text.encode("utf-8", "surrogatepass")
            lines.append(f"{hex_or_dash(raw)} {numbers(both[0])} {numbers(both[1])}")
        write_lines(
            Path(f"{stem}.tokens.vec"),
            "text in hex, n, ids with special tokens parsed and BOS where the file asks for it, n, ids with neither",
            lines,
        )
        pieces = [f"{token} {hex_or_dash(model.piece(token))}" for token in range(model.n_vocab)]
        write_lines(Path(f"{stem}.pieces.vec"), "id, its bytes in hex (special tokens as their text)", pieces)
        prompt = model.tokenize(PROMPT, True, True)[:N_PROMPT]
    with tempfile.TemporaryDirectory() as folder:
        wide = Path(folder) / "f32.gguf"
        expand(path, wide)
        with Model(wide, vocab_only=False) as model:
            greedy, logits = model.run(prompt, N_GREEDY)
    write_lines(Path(f"{stem}.sequence.vec"), "n, prompt; n, greedy tokens after it", [numbers(prompt), numbers(greedy)])
    np.save(f"{stem}.logits.npy", logits.astype("<f4"))
    top = np.sort(logits, axis=1)[:, -2:]
    print(f"{path.name}: {logits.shape}, spread {logits.std(axis=1).mean():.2f}, least margin {(top[:, 1] - top[:, 0])[-N_GREEDY - 1 : -1].min():.3f}")
    export_tensors(path)


def export_lora(path: Path, tiny: Path) -> None:
    words = (tiny / path.with_suffix(".sequence.vec").name).read_text().splitlines()[1].split()
    prompt = [int(word) for word in words[1 : 1 + int(words[0])]]
    with tempfile.TemporaryDirectory() as folder:
        wide = Path(folder) / "f32.gguf"
        expand(tiny / path.name, wide)
        with Model(wide, vocab_only=False) as model:
            plain, logits = model.run(prompt, 0)[1], model.run(prompt, 0, path)[1]
    np.save(path.with_suffix(".logits.npy"), logits.astype("<f4"))
    print(f"lora/{path.name}: {logits.shape}, moved by {np.square(logits - plain).sum() / np.square(plain).sum():.3f}")


def export_tensors(path: Path) -> None:
    lines = []
    for t in gguf.GGUFReader(path).tensors:
        if t.tensor_type not in FLOATS:
            values = gguf.quants.dequantize(t.data, t.tensor_type).ravel()
            some = " ".join(f"{v:.9g}" for v in [*values[:16], *values[-16:]])
            wide = values.astype(np.float64)
            lines.append(f"{t.name} {t.tensor_type.name} {values.size} {wide.sum():.9g} {np.abs(wide).sum():.9g} {some}")
    if lines:
        comment = "name, type, n, sum, sum of magnitudes, the first 16 values, the last 16 (dequantised by gguf-py)"
        write_lines(path.with_suffix(".tensors.vec"), comment, lines)


def export_templates(path: Path) -> None:
    out: dict[str, object] = {"marks": [{"name": name, "source": MARKS[name]} for name in MARKS], "cases": []}
    for name, source in MARKS.items():
        assert all(render(source, chat) == render(name, chat) for chat in CHATS), name
    for name in TEMPLATES:
        for chat in CHATS:
            out["cases"].append({"name": name, "messages": chat, "prompt": render(name, chat)})  # type: ignore[attr-defined]
    path.write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")


HALVES = {  # where fp16 scales stand in a block
    Q.Q4_0: (18, [0]), Q.Q4_1: (20, [0, 2]), Q.Q5_0: (22, [0]), Q.Q5_1: (24, [0, 2]), Q.Q8_0: (34, [0]),
    Q.Q4_K: (144, [0, 2]), Q.Q5_K: (176, [0, 2]), Q.Q6_K: (210, [208]),
}  # fmt: skip
ODD = [0.0, -0.0, 1.0, -1.0, 6e-8, -6e-5, 0.5, -3.25]  # zero, both signs, subnormal


def export_dequant(folder: Path) -> None:
    """Random bits in 64 (or 8) blocks: 2048 values a type, by ggml's C and by gguf-py."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(42)
    base = ctypes.CDLL(os.path.join(os.environ["LLAMA_CPP_LIB_PATH"], "libggml-base.so"))
    n = 2048
    for kind in (Q.F16, Q.BF16, *HALVES):
        if kind in FLOATS:
            values = np.concatenate([ODD, [65504, 1e-7, 2.0**-14, 1 / 3], rng.standard_normal(n - 12) * np.exp(rng.uniform(-8, 8, n - 12))])
            values = np.clip(values, -65504, 65504).astype(np.float32)
            raw = gguf.quants.quantize(values, kind).view(np.uint8).ravel()
        else:
            size, places = HALVES[kind]
            count = n // (256 if size > 100 else 32)
            raw = rng.integers(0, 256, (count, size), np.uint8)
            for place in places:
                scale = np.concatenate([ODD, rng.standard_normal(count)])[:count].astype(np.float16)
                raw[:, place : place + 2] = scale.view(np.uint8).reshape(count, 2)
            raw = raw.ravel()
        name = {Q.F16: "ggml_fp16_to_fp32_row", Q.BF16: "ggml_bf16_to_fp32_row"}.get(kind, f"dequantize_row_{kind.name}".replace("_Q", "_q"))
        found = np.empty(n, np.float32)
        getattr(base, name)(raw.ctypes.data_as(ctypes.c_void_p), found.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(n))
        python = gguf.quants.dequantize(raw.view(np.float16) if kind == Q.F16 else raw, kind).ravel()
        print(f"{kind.name}: ggml and gguf-py differ by at most {np.abs(found - python).max():.3g} of {np.abs(found).max():.3g}")
        (folder / f"{kind.name}.bin").write_bytes(raw.tobytes())
        np.save(folder / f"{kind.name}.npy", found.astype("<f4"))


def main(golden: Path) -> None:
    silent = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silent, None)
    llama.llama_backend_init()
    export_templates(golden / "chat_templates.json")
    export_dequant(golden / "dequant")
    for path in sorted((golden / "tiny").glob("*.gguf")):
        export_model(path)
    for path in sorted((golden / "lora").glob("*.gguf")):
        export_lora(path, golden / "tiny")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden"))
