"""Products alone against what this machine can do at most, and which limit is theirs."""

from typing import Any

# The instruction of each kernel set's integer loops, and of its products in fp32.
INTEGER = {
    "amx": "avx512 vpdpbusd",
    "vnni": "avx512 vpdpbusd",
    "avxvnni": "avx vpdpbusd",
    "avx2": "avx2 vpmaddubsw",
}
FLOAT = {"amx": "avx512 fma", "vnni": "avx512 fma", "avxvnni": "avx2 fma", "avx2": "avx2 fma"}
TILES = "amx tdpbf16ps"  # what prompts and pictures go through on AMX
FEW_ROWS = 8  # and fewer: reading of weights is the limit, too


def limit_of(line: dict[str, Any]) -> str:
    """The instruction whose peak bounds a line of `benchmark kernels`; "" = none is measured
    (portable loops)."""
    if line["type"] == "F32":
        return FLOAT.get(line["kernel"], "")
    if line["bulk"]:
        return TILES
    is_half = line["type"] in ("F16", "BF16")
    return (FLOAT if is_half else INTEGER).get(line["kernel"], "")


def peak_of(peak: list[dict[str, Any]], how: str, threads: int) -> float:
    """GOPS or GB/s of the figure with this `how`; 0 = not measured."""
    found = [float(p["value"]) for p in peak if p["threads"] == threads and p["how"] == how]
    return max(found, default=0.0)


def name_of(line: dict[str, Any]) -> tuple[str, str]:
    """The case and what varies in it."""
    return f"kernels {line['type']}", f"{line['n_out']}x{line['n_in']} x {line['rows']}"
