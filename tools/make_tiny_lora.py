#!/usr/bin/python3
"""Make small LoRA files with random weights for tests/golden/lora: make_tiny_lora.py [GOLDEN_DIR]

One for each of some models of GOLDEN_DIR/tiny (tools/make_tiny_gguf.py), with what a real
file may have: pairs for some matrices only, ranks that differ, F16 beside F32.
tools/export_llamacpp.py writes llama.cpp's logits with them.
Needs: numpy, gguf (tools/requirements.txt).
"""
import sys
from pathlib import Path

import gguf
import numpy as np

MODELS = ("llama-bpe", "qwen2")
ALPHA = 8.0
PARTS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def write(model: Path, path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reader = gguf.GGUFReader(model)
    shapes = {t.name: [int(n) for n in t.shape] for t in reader.tensors}
    writer = gguf.GGUFWriter(path, str(reader.fields["general.architecture"].contents()))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    writer.add_name(f"tamp test {path.stem}, random weights")
    layers = int(reader.fields[f"{reader.fields['general.architecture'].contents()}.block_count"].contents())
    for layer in range(layers):
        for i, part in enumerate(PARTS):
            if layer == 1 and i % 3:
                continue
            n_in, n_out = shapes[f"blk.{layer}.{part}.weight"]
            rank = 2 + (layer + i) % 4
            kind = np.float32 if (layer + i) % 2 else np.float16
            for which, shape, sigma in (("a", (rank, n_in), n_in**-0.5), ("b", (n_out, rank), 0.1)):
                data = (rng.standard_normal(shape) * sigma).astype(kind)
                writer.add_tensor(f"blk.{layer}.{part}.weight.lora_{which}", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(golden: Path) -> None:
    (golden / "lora").mkdir(exist_ok=True)
    for i, name in enumerate(MODELS):
        write(golden / f"tiny/{name}.gguf", golden / f"lora/{name}.gguf", i + 1)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden"))
