#!/usr/bin/python3
"""Make small vision files with random weights and llama.cpp's rows for them:
make_tiny_mmproj.py [GOLDEN_DIR]

One file for each projector that tamp has (mlp, idefics3, internvl with pixel shuffle),
each with other options of the picture tower, and one drawn picture of the files' own size,
so that resizing plays no part. Writes into GOLDEN_DIR/vision: NAME.gguf, NAME.rows.npy
(n_rows, 64) fp32, picture_56.png. Weights are F32, because llama.cpp rounds activations to
the type of the weights. GOLDEN_DIR/tiny/qwen2.gguf is the language model that libmtmd asks
for. Needs: numpy, pillow and the binding, as export_llamacpp.py does, and MTMD_CPP_LIB
naming the same folder as LLAMA_CPP_LIB_PATH.
"""
import ctypes
import sys
from pathlib import Path
from typing import NamedTuple

import llama_cpp as llama
import numpy as np
from llama_cpp import mtmd_cpp as mtmd
from PIL import Image

from convert_mmproj import F32, Tensor, write_gguf

IMAGE, PATCH, N_EMBD, N_FF, N_HEAD, N_LAYER, N_OUT = 56, 14, 32, 64, 2, 3, 64
N_PATCH = (IMAGE // PATCH) ** 2


class Tower(NamedTuple):
    projector: str
    seed: int
    gelu: bool  # else llama.cpp's default, the quick GELU x * sigmoid(1.702 x)
    scale: int = 1  # side of the pixel shuffle
    class_token: bool = False
    layer_scale: bool = False
    pre_norm: bool = False
    post_norm: bool = False


TOWERS = {
    # Of mlp (LLaVA) the last block does not run: its rows are those of the last but one.
    "mlp": Tower("mlp", 11, gelu=False, pre_norm=True),
    "idefics3": Tower("idefics3", 12, gelu=True, scale=2, post_norm=True),
    "internvl": Tower("internvl", 13, gelu=True, scale=2, class_token=True, layer_scale=True),
}


def draw() -> np.ndarray:
    y, x = np.mgrid[0:IMAGE, 0:IMAGE]
    rng = np.random.default_rng(10)
    noise = rng.integers(0, 60, (IMAGE // 4, IMAGE // 4, 3)).repeat(4, 0).repeat(4, 1)
    disc = ((x - 20) ** 2 + (y - 30) ** 2 < 200)[..., None] * np.array([120, -40, 30])
    picture: np.ndarray = np.clip(np.stack([x * 3, y * 3, 180 - x - y], -1) + noise + disc, 0, 255).astype(np.uint8)
    return picture


def build(t: Tower) -> dict[str, Tensor]:
    rng = np.random.default_rng(t.seed)
    out: dict[str, Tensor] = {}

    def add(name: str, shape: tuple[int, ...], mean: float, sigma: float) -> None:
        out[name] = Tensor(shape, F32, (mean + sigma * rng.standard_normal(shape)).astype("<f4").tobytes())

    def linear(name: str, n_out: int, n_in: int, gain: float = 1.0, bias: bool = True) -> None:
        add(name + ".weight", (n_out, n_in), 0, gain * n_in**-0.5)
        if bias:
            add(name + ".bias", (n_out,), 0, 0.2)

    def norm(name: str, n: int) -> None:
        add(name + ".weight", (n,), 1, 0.2)
        add(name + ".bias", (n,), 0, 0.2)

    add("v.patch_embd.weight", (N_EMBD, 3, PATCH, PATCH), 0, 2 * (3 * PATCH * PATCH) ** -0.5)
    add("v.patch_embd.bias", (N_EMBD,), 0, 0.2)
    add("v.position_embd.weight", (N_PATCH + t.class_token, N_EMBD), 0, 0.5)
    if t.class_token:
        add("v.class_embd", (N_EMBD,), 0, 1)
    if t.pre_norm:
        norm("v.pre_ln", N_EMBD)
    for layer in range(N_LAYER):
        b = f"v.blk.{layer}."
        norm(b + "ln1", N_EMBD)
        linear(b + "attn_q", N_EMBD, N_EMBD, 1.5)
        linear(b + "attn_k", N_EMBD, N_EMBD, 1.5)
        linear(b + "attn_v", N_EMBD, N_EMBD)
        linear(b + "attn_out", N_EMBD, N_EMBD)
        norm(b + "ln2", N_EMBD)
        linear(b + "ffn_up", N_FF, N_EMBD)
        linear(b + "ffn_down", N_EMBD, N_FF, 2)
        if t.layer_scale:
            add(b + "ls1.weight", (N_EMBD,), 0.7, 0.2)
            add(b + "ls2.weight", (N_EMBD,), 0.7, 0.2)
    if t.post_norm:
        norm("v.post_ln", N_EMBD)
    n_in = N_EMBD * t.scale**2
    if t.projector == "mlp":
        linear("mm.0", 48, n_in)
        linear("mm.2", N_OUT, 48)
    elif t.projector == "idefics3":
        linear("mm.model.fc", N_OUT, n_in, bias=False)
    else:
        norm("mm.model.mlp.0", n_in)
        linear("mm.model.mlp.1", 96, n_in)
        linear("mm.model.mlp.3", N_OUT, 96)
    return out


def keys(name: str, t: Tower) -> list[tuple[str, object]]:
    v = "clip.vision."
    out: list[tuple[str, object]] = [
        ("general.architecture", "clip"),
        ("general.name", f"tamp test {name}, random weights"),
        ("clip.has_vision_encoder", True),
        ("clip.projector_type", t.projector),
        ("clip.use_gelu", t.gelu),
        (v + "image_size", IMAGE),
        (v + "patch_size", PATCH),
        (v + "embedding_length", N_EMBD),
        (v + "feed_forward_length", N_FF),
        (v + "block_count", N_LAYER),
        (v + "attention.head_count", N_HEAD),
        (v + "attention.layer_norm_epsilon", 1e-5),
        (v + "projection_dim", N_OUT),
        (v + "image_mean", [0.5, 0.45, 0.4]),
        (v + "image_std", [0.25, 0.3, 0.35]),
    ]
    return out + ([(v + "projector.scale_factor", t.scale)] if t.scale > 1 else [])


def rows(mmproj: Path, model: object, picture: np.ndarray) -> np.ndarray:
    """The first image chunk of a prompt that is nothing but the picture."""
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.n_threads, params.warmup = False, 1, False
    params.flash_attn_type = 0
    context = mtmd.mtmd_init_from_file(str(mmproj).encode(), model, params)
    assert context, mmproj
    data = np.ascontiguousarray(picture)
    bitmap = mtmd.mtmd_bitmap_init(IMAGE, IMAGE, data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    text = mtmd.mtmd_input_text()
    marker = mtmd.mtmd_default_marker()
    text.text, text.text_len, text.add_special, text.parse_special = marker, len(marker), False, True
    chunks = mtmd.mtmd_input_chunks_init()
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(text), bitmaps, 1) == 0
    for i in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, i)
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE:
            assert mtmd.mtmd_encode_chunk(context, chunk) == 0
            n = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
            return np.array(mtmd.mtmd_get_output_embd(context)[: n * N_OUT], np.float32).reshape(n, N_OUT)
    raise ValueError("no image chunk")


def main(golden: Path) -> None:
    silent = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silent, None)
    mtmd.mtmd_log_set(silent, None)
    llama.llama_backend_init()
    out = golden / "vision"
    out.mkdir(exist_ok=True)
    picture = draw()
    Image.fromarray(picture).save(out / "picture_56.png")
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(str(golden / "tiny" / "qwen2.gguf").encode(), params)
    for name, tower in TOWERS.items():
        path = out / f"{name}.gguf"
        with open(path, "wb") as file:
            write_gguf(file, keys(name, tower), build(tower))
        found = rows(path, model, picture)
        np.save(out / f"{name}.rows.npy", found.astype("<f4"))
        print(f"{name}: {found.shape}, spread {found.std():.2f}, between rows {found.std(axis=0).mean():.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden"))
