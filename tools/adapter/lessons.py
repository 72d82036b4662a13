"""Second stage: batches of photos at one budget, several questions to each, through the
frozen language model. The rows of a photo are run once for all its questions: a question
sees what stands before it and itself, not the other questions, and all of them have the
positions that they would have alone.
"""
import math
import random
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from . import texts
from .language import LanguageModel, LayerLora
from .photos import Features
from .questions import OTHER_SYSTEMS, SYSTEM, Pair, after, before
from .tower import N_PATCH, Rows, pool

END = "<|im_end|>"
SAMPLE = 4096  # tokens that no answer of a batch has


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
    tome = ((2, 0.0, 0.06), (4, 0.1, 0.2), (8, 0.2, 0.2), (16, 0.3, 0.2))
    pools = ((2, 0.05, 0.0), (3, 0.1, 0.03), (4, 0.2, 0.1), (6, 0.03, 0.03), (8, 0.02, 0.06), (11, 0.0, 0.02))
    return [
        Budget("none", 1, 16, N_PATCH, 0.0, 0.1),
        *(Budget(f"tome {r}x", r, 16, N_PATCH // r, early, late) for r, early, late in tome),
        *(Budget(f"pool {n * n}", 1, n, n * n, early, late) for n, early, late in pools),
    ]


BUDGETS = make_budgets()


def rows_of(features: Features, budget: Budget, view: int, index: np.ndarray) -> Rows:
    rows = features.get(view, budget.ratio, index)
    return pool(rows.x, budget.side) if budget.side < 16 else rows


KEPT_POSITIONS = 192  # of a batch of texts


class Batch(NamedTuple):
    """n photos with k questions each, every question padded to the same length."""

    ids: torch.Tensor  # [n, k, length] question and answer
    answer: torch.Tensor  # [n, k, length] True where the next token is one of the answer's


class Teacher:
    def __init__(self, lm: LanguageModel):
        self.lm = lm
        self.prefixes = [lm.ids(before(s)) + lm.ids("<img>") for s in (SYSTEM, *OTHER_SYSTEMS)]
        self.closing = torch.tensor(lm.ids("</img>"))
        self.pad = lm.ids(END)[0]
        self.known: dict[str, list[int]] = {}

    def _ids(self, text: str) -> list[int]:
        if text not in self.known:
            self.known[text] = self.lm.ids(text)
        return self.known[text]

    def draw_prefix(self, rng: random.Random) -> list[int]:
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

    def hidden(
        self, x: torch.Tensor, first: torch.Tensor, b: Batch, prefix: list[int], lora: list[LayerLora] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [n, rows, width] from the adapter -> what the answers' tokens are told from, the tokens."""
        n, k, length = b.ids.shape
        rows, closing = x.shape[1], len(self.closing)
        text = torch.cat([self.closing.expand(n, -1), b.ids.flatten(1)], 1)
        x = torch.cat([x.to(self.lm.dtype), self.lm.embed(text)], 1)
        start = len(prefix) + N_PATCH
        tail = torch.cat([torch.arange(closing), closing + torch.arange(length).repeat(k)]) + start
        position = torch.cat([first + len(prefix), tail.expand(n, -1)], 1)
        allowed = self._allowed(len(prefix), rows + closing, k, length)
        hidden, _ = self.lm.run(x, position, allowed, self.lm.prefix(prefix, lora), lora)
        hidden = hidden[:, rows + closing :].reshape(n, k, length, -1)[b.answer]
        return hidden, b.ids.roll(-1, 2)[b.answer]

    def loss(self, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over the tokens of this batch's answers and a sample of the others,
        which stands for all of them: a tenth of the work of the whole vocabulary."""
        n_vocab = len(self.lm.output)
        own, place = target.unique(return_inverse=True)
        others = torch.randint(n_vocab, (SAMPLE,))
        others = others[~torch.isin(others, own)]
        logits = F.linear(hidden, self.lm.output[torch.cat([own, others])]).float()
        weight = math.log((n_vocab - len(own)) / len(others))
        logits = torch.cat([logits[:, : len(own)], logits[:, len(own) :] + weight], 1)
        return F.cross_entropy(logits, place)

    def keep(
        self, x: torch.Tensor, first: torch.Tensor, rng: random.Random, prefix: list[int], lora: list[LayerLora]
    ) -> torch.Tensor:
        """How far the answers to questions about text move from those that the model without
        lora gives without the picture (Kullback-Leibler divergence of the next token)."""
        pairs = [texts.draw(rng) for _ in x]
        ids = [self.lm.ids(after(question) + answer + END) for question, answer in pairs]
        length = max(len(i) for i in ids)
        text = torch.tensor([i + [self.pad] * (length - len(i)) for i in ids])
        real = torch.arange(length) < torch.tensor([[len(i)] for i in ids])
        n, rows, start = len(x), x.shape[1], len(prefix)

        def run(before: torch.Tensor, at: torch.Tensor, begin: int, lora: list[LayerLora] | None) -> torch.Tensor:
            both = torch.cat([before.to(self.lm.dtype), self.lm.embed(text)], 1)
            position = torch.cat([at, (begin + torch.arange(length)).expand(n, -1)], 1)
            allowed = self._allowed(start, both.shape[1], 0, 0)
            hidden, _ = self.lm.run(both, position, allowed, self.lm.prefix(prefix, lora), lora)
            return hidden[:, before.shape[1] :][real]

        closing = self.lm.embed(self.closing.expand(n, -1))
        with torch.no_grad():
            own = run(x[:, :0], first[:, :0], start, None)
        shown = torch.cat([x.to(self.lm.dtype), closing], 1)
        at = torch.cat([first + start, (start + N_PATCH + torch.arange(len(self.closing))).expand(n, -1)], 1)
        found = run(shown, at, start + N_PATCH + len(self.closing), lora)
        some = torch.randperm(len(own))[:KEPT_POSITIONS]
        want, have = (F.log_softmax(F.linear(h[some], self.lm.output).float(), -1) for h in (own, found))
        return F.kl_div(have, want, reduction="batchmean", log_target=True)

    @torch.no_grad()
    def right(
        self, x: torch.Tensor, first: torch.Tensor, b: Batch, lora: list[LayerLora] | None = None
    ) -> torch.Tensor:
        """[n, k]: would the greedy answer be this one, word for word? It would if every one
        of its tokens, the end included, has the largest logit behind those before it."""
        hidden, target = self.hidden(x, first, b, self.prefixes[0], lora)
        logits = F.linear(hidden, self.lm.output)
        wrong = torch.zeros(b.ids.shape, dtype=torch.bool)
        wrong[b.answer] = logits.argmax(-1) != target
        return ~wrong.any(-1)
