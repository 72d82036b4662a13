"""What the comparison needs of GGUF files: how many operations and bytes a row costs, and a
copy of our mmproj file for larger pictures."""

import importlib.util
import pathlib
import struct
from dataclasses import dataclass
from typing import Any

# Bytes of each scalar value type; 8 is a string, 9 an array.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class Tensor:
    shape: tuple[int, ...]  # innermost first, as in the file
    type: int
    at: int  # where its description begins
    offset: int  # from the start of the data

    def elements(self) -> int:
        n = 1
        for d in self.shape:
            n *= d
        return n


class File:
    """A GGUF file of version 3, its tensors described but not read."""

    def __init__(self, path: pathlib.Path):
        self.bytes = path.read_bytes()
        magic, version, n_tensors, n_keys = struct.unpack_from("<4sIQQ", self.bytes)
        if magic != b"GGUF" or version != 3:
            raise ValueError(f"{path}: not a GGUF file of version 3")
        self.at = 24
        self.values: dict[str, Any] = {}
        self.value_at: dict[str, int] = {}
        for _ in range(n_keys):
            key = self._string()
            kind = self._number("I")
            self.value_at[key] = self.at
            self.values[key] = self._value(kind)
        self.tensors: dict[str, Tensor] = {}
        for _ in range(n_tensors):
            at = self.at
            name = self._string()
            shape = tuple(self._number("Q") for _ in range(self._number("I")))
            self.tensors[name] = Tensor(shape, self._number("I"), at, self._number("Q"))
        align = self.values.get("general.alignment", 32)
        self.data_at = self.at + -self.at % align
        self._sizes(align)

    def _number(self, code: str) -> Any:
        value = struct.unpack_from("<" + code, self.bytes, self.at)[0]
        self.at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        n = self._number("Q")
        self.at += n
        return self.bytes[self.at - n : self.at].decode()

    def _value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind == 8:
            return self._string()
        if kind != 9:
            raise ValueError(f"value type {kind} is not known")
        kind, n = self._number("I"), self._number("Q")
        if kind in SCALARS:  # read past: nobody here asks for an array
            self.at += n * struct.calcsize("<" + SCALARS[kind])
            return None
        for _ in range(n):
            self._value(kind)
        return None

    def _sizes(self, align: int) -> None:
        """Bytes of each tensor: up to where the next one begins, less than `align` too many."""
        order = sorted(self.tensors, key=lambda name: self.tensors[name].offset)
        ends = [self.tensors[name].offset for name in order[1:]] + [len(self.bytes) - self.data_at]
        self.size = {name: end - self.tensors[name].offset for name, end in zip(order, ends)}

    # -- what a row costs ---------------------------------------------------------------

    def _block_matrices(self) -> list[str]:
        return [n for n, t in self.tensors.items() if n.startswith("blk.") and len(t.shape) == 2]

    def ops_per_row(self) -> int:
        """Multiplications and additions of the linear layers for one row of a prompt (whose
        logits nobody needs)."""
        return sum(2 * self.tensors[name].elements() for name in self._block_matrices())

    def bytes_per_token(self) -> int:
        """Weight bytes that must be read to write one token: all blocks and the output."""
        head = "output.weight" if "output.weight" in self.tensors else "token_embd.weight"
        return sum(self.size[name] for name in [*self._block_matrices(), head])


def write_mmproj_for(source: pathlib.Path, side: int, target: pathlib.Path) -> None:
    """A copy of our mmproj file whose tower takes pictures of side x side pixels.

    llama.cpp does not resize the position table, so the copy carries one that fits: the
    trained table (`v.position_embd_full.weight`, class token first) resized as
    tools/convert_mmproj.py does it, patches first, class token last.
    """
    converter = pathlib.Path(__file__).resolve().parents[2] / "tools" / "convert_mmproj.py"
    spec = importlib.util.spec_from_file_location("convert_mmproj", converter)
    assert spec and spec.loader
    convert = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(convert)

    f = File(source)
    full = f.tensors["v.position_embd_full.weight"]
    width, rows = full.shape
    begin = f.data_at + full.offset
    first, rest = (f.bytes[begin : begin + 4 * width], f.bytes[begin + 4 * width : begin + 4 * width * rows])
    grid_full = round((rows - 1) ** 0.5)
    grid = side // f.values["clip.vision.patch_size"]
    table = convert.resized_positions(convert.Tensor((rows - 1, width), convert.F32, rest), grid_full, grid)
    table += first

    old = f.tensors["v.position_embd.weight"]
    begin, end = f.data_at + old.offset, f.data_at + old.offset + f.size["v.position_embd.weight"]
    table += bytes(-len(table) % 32)
    out = bytearray(f.bytes[:begin] + table + f.bytes[end:])
    struct.pack_into("<I", out, f.value_at["clip.vision.image_size"], side)
    grown = len(table) - (end - begin)
    for name, t in f.tensors.items():
        head = t.at + 8 + len(name.encode()) + 4  # name, number of dimensions
        if name == "v.position_embd.weight":
            struct.pack_into("<Q", out, head + 8, grid * grid + 1)
        if t.offset > old.offset:
            struct.pack_into("<Q", out, head + 8 * len(t.shape) + 4, t.offset + grown)
    part = target.with_name(target.name + ".part")
    part.write_bytes(out)
    part.rename(target)
