#!/usr/bin/python3
"""Turn the project's shared reference numbers into the small files under tests/golden/:
export_golden.py REFERENCE_DIR [OUT_DIR]

REFERENCE_DIR holds the originals (tokens.json, logits.json, vit_224.npy, ...), made with
PyTorch, ONNX Runtime and llama.cpp; its README says how. JSON that C cannot read well
(strings with a NUL, nested lists) becomes lines of plain numbers; wide arrays become fp16
or a sample of their columns. Nothing is computed here. Needs: numpy.
"""
import json
import shutil
import sys
from pathlib import Path

import numpy as np

LOGIT_STRIDE = 97  # prime, so that the sample walks through the whole vocabulary
LOGIT_TOP = 64


def hex_or_dash(text: str) -> str:
    return text.encode().hex() or "-"


def numbers(values: list[int]) -> str:
    return " ".join(str(v) for v in [len(values), *values])


def write_lines(path: Path, comment: str, lines: list[str]) -> None:
    path.write_text("".join(f"# {line}\n" for line in comment.splitlines()) + "".join(f"{line}\n" for line in lines))


def tokens(source: Path, out: Path) -> None:
    cases = json.loads((source / "tokens.json").read_text())
    write_lines(
        out / "tokens.vec",
        "SmolLM2: text in hex (- is empty), n, ids with special tokens parsed, n, ids with them as plain text",
        [f"{hex_or_dash(c['text'])} {numbers(c['tokens'])} {numbers(c['tokens_no_special'])}" for c in cases],
    )


def tome(source: Path, out: Path) -> None:
    lines = []
    for ratio, case in json.loads((source / "tome_224.json").read_text()).items():
        lines += [f"ratio {ratio}", f"rows {numbers(case['rows_after_each_layer'])}", f"groups {len(case['groups'])}"]
        lines += [numbers(group) for group in case["groups"]]
    write_lines(
        out / "tome_224.vec",
        "ToMe on picture_224.png. ratio R; rows: n, rows after each layer; groups m; then m lines: n, original patches",
        lines,
    )


def logits(source: Path, out: Path) -> None:
    """The top 64 of each row and every 97th logit: ids (int32) and values (fp16)."""
    rows = np.load(source / "logits_capital.npy")
    spread = np.arange(0, rows.shape[1], LOGIT_STRIDE)
    top = np.argsort(-rows.astype(np.float32), axis=1, kind="stable")[:, :LOGIT_TOP]
    ids = np.concatenate([top, np.broadcast_to(spread, (len(rows), len(spread)))], axis=1).astype("<i4")
    np.save(out / "logits_capital_ids.npy", ids)
    np.save(out / "logits_capital.npy", np.take_along_axis(rows, ids, axis=1).astype("<f2"))


def rows(source: Path, out: Path) -> None:
    for name in ("vit_224", "adapter_rows_224", "tome4_rows_224"):
        np.save(out / f"{name}.npy", np.load(source / f"{name}.npy").astype("<f2"))
    # Row 0 is the class token; 1024 = 32 x 32 patches, of which every fifth is enough.
    np.save(out / "vit_448_every5.npy", np.load(source / "vit_448.npy")[::5].astype("<f2"))


def main(source: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in ("logits.json", "templates.json", "picture_224.png", "picture_448.png"):
        shutil.copyfile(source / name, out / name)
    for step in (tokens, tome, logits, rows):
        step(source, out)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: export_golden.py REFERENCE_DIR [OUT_DIR]")
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) == 3 else "tests/golden"))
