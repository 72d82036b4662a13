"""First stage, without the language model: the adapter learns what is in the photo.

The mean of a photo's rows is classified along fixed directions, one for each product
name, made of the language model's own embeddings of the name's tokens. This costs a
hundredth of a step through the language model, and its rows then already lie where that
model reads words.
"""
import torch
import torch.nn.functional as F

from .language import LanguageModel
from .network import Adapter

SHARPNESS = 0.25  # power of the singular values kept: names share most of their tokens
ROW_WEIGHT = 0.3


def name_directions(lm: LanguageModel, names: list[str]) -> tuple[torch.Tensor, float]:
    """[len(names), width] unit vectors, and the usual length of a token's embedding."""
    table = lm.embedding.float()
    bags = torch.stack([table[lm.ids(" " + n)].mean(0) for n in names])
    u, s, v = torch.linalg.svd(bags - bags.mean(0), full_matrices=False)
    keep = s > s[0] * 1e-4
    spread = (u[:, keep] * s[keep] ** SHARPNESS) @ v[keep]
    return F.normalize(spread, dim=1), float(table.norm(dim=1).mean())


class Classifier:
    """Rows -> loss and the photo's scores."""

    def __init__(self, lm: LanguageModel, names: list[str]):
        self.directions, length = name_directions(lm, names)
        self.sharp = 12.0 / length
        self.bias = torch.zeros(len(names), requires_grad=True)

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.float() @ self.directions.T * self.sharp + self.bias

    def loss(self, rows: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        each = self.scores(rows)
        whole = F.cross_entropy(each.mean(1), target, label_smoothing=0.05)
        flat = each[:, ::4].flatten(0, 1)
        single = F.cross_entropy(flat, target.repeat_interleave(each[:, ::4].shape[1]), label_smoothing=0.05)
        return whole + ROW_WEIGHT * single


def start(adapter: Adapter, lm: LanguageModel) -> None:
    """Rows begin at the middle of the embeddings."""
    with torch.no_grad():
        adapter.fc2.weight.mul_(0.1)
        adapter.fc2.bias.copy_(lm.embedding.float().mean(0))
