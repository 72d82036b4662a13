"""Second stage: batches of photos at one budget, several questions to each, through the
frozen language model. The rows of a photo are run once for all its questions: a question
sees what stands before it and itself, not the other questions, and all of them have the
positions that they would have alone.
"""
import random
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .language import Cache, LanguageModel
from .photos import Features
from .questions import OTHER_SYSTEMS, SYSTEM, Pair, after, before
from .tower import N_PATCH, Rows, pool

END = "<|im_end|>"


class Budget(NamedTuple):
    """What is left of the 256 rows: by ToMe, or by pooling where ratio is 1 and side < 16.
    The shares are of the batches, early and late: few rows cost little and are enough to
    learn to be read; then come those that are served."""

    name: str
    ratio: int
    side: int
    rows: int
    early: float
    late: float


def make_budgets() -> list[Budget]:
    tome = ((2, 0.0, 0.08), (4, 0.02, 0.18), (8, 0.1, 0.17), (16, 0.25, 0.14))
    pools = ((2, 0.2, 0.01), (3, 0.15, 0.02), (4, 0.15, 0.05), (5, 0.05, 0.03), (6, 0.05, 0.03), (8, 0.02, 0.07), (11, 0.0, 0.02))
    return [
        Budget("none", 1, 16, N_PATCH, 0.01, 0.2),
        *(Budget(f"tome {r}x", r, 16, N_PATCH // r, early, late) for r, early, late in tome),
        *(Budget(f"pool {n * n}", 1, n, n * n, early, late) for n, early, late in pools),
    ]


BUDGETS = make_budgets()


def rows_of(features: Features, budget: Budget, view: int, index: np.ndarray) -> Rows:
    rows = features.get(view, budget.ratio, index)
    return pool(rows.x, budget.side) if budget.side < 16 else rows


class Prefix(NamedTuple):
    length: int
    cache: Cache


class Batch(NamedTuple):
    """n photos with k questions each, every question padded to the same length."""

    ids: torch.Tensor  # [n, k, length] question and answer
    answer: torch.Tensor  # [n, k, length] True where the next token is one of the answer's


class Teacher:
    def __init__(self, lm: LanguageModel):
        self.lm = lm
        self.prefixes = [self._prefix(s) for s in (SYSTEM, *OTHER_SYSTEMS)]
        self.closing = torch.tensor(lm.ids("</img>"))
        self.pad = lm.ids(END)[0]
        self.known: dict[str, list[int]] = {}

    def _prefix(self, system: str) -> Prefix:
        ids = self.lm.ids(before(system)) + self.lm.ids("<img>")
        return Prefix(len(ids), self.lm.prefix(ids))

    def _ids(self, text: str) -> list[int]:
        if text not in self.known:
            self.known[text] = self.lm.ids(text)
        return self.known[text]

    def draw_prefix(self, rng: random.Random) -> Prefix:
        return self.prefixes[0] if rng.random() < 0.8 else rng.choice(self.prefixes[1:])

    def batch(self, pairs: list[list[Pair]]) -> Batch:
        """The token behind the answer's full stop is the end of the turn."""
        both = [[(self._ids(after(p.question)), self._ids(p.answer + END)) for p in photo] for photo in pairs]
        length = max(len(q) + len(a) for photo in both for q, a in photo)
        ids = torch.full((len(pairs), len(pairs[0]), length), self.pad)
        answer = torch.zeros(ids.shape, dtype=torch.bool)
        for i, photo in enumerate(both):
            for j, (q, a) in enumerate(photo):
                ids[i, j, : len(q) + len(a)] = torch.tensor(q + a)
                answer[i, j, len(q) - 1 : len(q) + len(a) - 1] = True
        return Batch(ids, answer)

    def _allowed(self, n_prefix: int, n_shared: int, k: int, length: int) -> torch.Tensor:
        """[n_shared + k length, n_prefix + the same]"""
        n = n_shared + k * length
        own = torch.ones(n, n, dtype=torch.bool).tril()
        which = torch.arange(k).repeat_interleave(length)
        own[n_shared:, n_shared:] &= which[:, None] == which
        return torch.cat([torch.ones(n, n_prefix, dtype=torch.bool), own], 1)

    def logits(self, x: torch.Tensor, first: torch.Tensor, b: Batch, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        """x [n, rows, width] from the adapter -> logits of the answers' tokens, the tokens."""
        n, k, length = b.ids.shape
        rows, closing = x.shape[1], len(self.closing)
        text = torch.cat([self.closing.expand(n, -1), b.ids.flatten(1)], 1)
        x = torch.cat([x.to(self.lm.dtype), self.lm.embed(text)], 1)
        start = prefix.length + N_PATCH
        tail = torch.cat([torch.arange(closing), closing + torch.arange(length).repeat(k)]) + start
        position = torch.cat([first + prefix.length, tail.expand(n, -1)], 1)
        allowed = self._allowed(prefix.length, rows + closing, k, length)
        hidden, _ = self.lm.run(x, position, allowed, prefix.cache)
        hidden = hidden[:, rows + closing :].reshape(n, k, length, -1)[b.answer]
        target = b.ids.roll(-1, 2)[b.answer]
        return F.linear(hidden, self.lm.output), target

    @torch.no_grad()
    def right(self, x: torch.Tensor, first: torch.Tensor, b: Batch) -> torch.Tensor:
        """[n, k]: would the greedy answer be this one, word for word? It would if every one
        of its tokens, the end included, has the largest logit behind those before it."""
        logits, target = self.logits(x, first, b, self.prefixes[0])
        wrong = torch.zeros(b.ids.shape, dtype=torch.bool)
        wrong[b.answer] = logits.argmax(-1) != target
        return ~wrong.any(-1)
