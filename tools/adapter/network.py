"""The adapter itself: y = fc2(GELU_erf(fc1(LayerNorm(x)))), as vision/projector.c has it."""
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Adapter(nn.Module):
    def __init__(self, n_in: int, n_hidden: int, n_out: int, dropout: float = 0.0):
        super().__init__()
        self.ln = nn.LayerNorm(n_in, eps=1e-5)
        self.fc1 = nn.Linear(n_in, n_hidden)
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(n_hidden, n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.fc2(self.drop(nn.functional.gelu(self.fc1(self.ln(x)))))


def save_npz(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Matrices fp16, vectors fp32: what tools/convert_mmproj.py reads."""
    arrays = {k: v.detach().numpy().astype(np.float16 if v.ndim == 2 else np.float32) for k, v in weights.items()}
    part = path.with_suffix(".part.npz")
    np.savez(part, **arrays)
    os.replace(part, path)


def load_npz(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as archive:
        return {k: torch.from_numpy(archive[k].astype(np.float32)) for k in archive.files}
