"""The two stages of training, with progress, checkpoints and measuring on val."""
import json
import os
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from .language import LanguageModel
from .lessons import BUDGETS, Budget, Teacher, rows_of
from .lora import Lora
from .network import Adapter
from .photos import Features, read_labels
from .questions import KIND, NAME, draw, fill
from .tower import SIDE, pool
from .warmup import Classifier, start

WARMUP_BATCH = 64
WARMUP_SIDES = (2, 3, 4, 5, 6, 8)
TOKENS = 1500  # of a batch, about
TOKENS_OF_A_QUESTION = 22
TOKENS_OF_A_TEXT = 150
QUESTIONS = ((16, 2), (64, 3), (256, 4))  # up to so many rows, so many questions to a photo
EARLY = 0.55  # of the steps are weighted towards few rows
HOLD = 0.6  # of the steps have the full learning rate
KEEP_EVERY = 6  # steps: one teaches to answer questions about text as before
CLASS_WEIGHT = 0.4  # of the warm-up's loss beside the answers'
AVERAGE = 0.98
MEET_EVERY = 4  # steps of a worker by itself between two averages of the workers' weights
SAVE_EVERY_S = 120
SHOW_EVERY = 10


class Settings(NamedTuple):
    data: Path
    out: Path
    seed: int
    hidden: int
    dropout: float
    warmup_steps: int
    warmup_lr: float
    steps: int
    lr: float
    decay: float
    rank: int
    alpha: float
    lora_lr: float


class Course:
    """With several workers each draws batches of its own, and every few steps the mean of
    their weights is everybody's; the first one shows, saves and measures."""

    def __init__(self, s: Settings, lm: LanguageModel, worker: int = 0, workers: int = 1):
        self.s, self.lm = s, lm
        self.worker, self.workers = worker, workers
        self.train, self.val = (read_labels(s.data, split) for split in ("train", "val"))
        self.names = sorted({x["name"] for x in self.train})
        self.target = torch.tensor([self.names.index(x["name"]) for x in self.train])
        self.features = Features(s.out / "features", "train")
        torch.manual_seed(s.seed)
        self.adapter = Adapter(384, s.hidden, lm.width, s.dropout)
        self.classifier = Classifier(lm, self.names)
        start(self.adapter, lm)
        self.lora = Lora(lm, s.rank, s.alpha)
        self.learned = nn.ModuleDict({"adapter": self.adapter, "lora": self.lora})
        self.average = {k: v.clone() for k, v in self.learned.state_dict().items()}
        # Rare products are drawn more often, though not as often as if all were alike.
        weight = torch.bincount(self.target).double()[self.target] ** -0.5
        self.chance = (weight / weight.sum()).numpy()

    # -- what both stages share ----------------------------------------------------------

    def _weights(self) -> list[torch.Tensor]:
        return [*self.learned.parameters(), self.classifier.bias]

    def _optimizer(self, lr: float) -> torch.optim.AdamW:
        weights = [*self.adapter.parameters(), self.classifier.bias]
        return torch.optim.AdamW(
            [
                {"params": [w for w in weights if w.ndim > 1], "weight_decay": self.s.decay, "height": lr},
                {"params": [w for w in weights if w.ndim == 1], "weight_decay": 0.0, "height": lr},
                {"params": list(self.lora.parameters()), "weight_decay": 0.0, "height": self.s.lora_lr},
            ],
            lr=lr,
            betas=(0.9, 0.98),
        )

    @staticmethod
    def _rate(step: int, steps: int, hold: float) -> float:
        """Share of the learning rate: up in the first 4 %, its full height until so much of the
        steps, then down along a cosine."""
        rise = max(1, steps // 25)
        if step < rise:
            return (step + 1) / rise
        begin = max(rise, hold * steps)
        return 0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * max(0, step - begin) / max(1, steps - begin))))

    def _path(self, stage: str) -> Path:
        return self.s.out / f"{stage}.pt"

    def _save(self, stage: str, step: int, optimizer: torch.optim.AdamW) -> None:
        path = self._path(stage)
        state = {
            "step": step,
            "learned": self.learned.state_dict(),
            "average": self.average,
            "bias": self.classifier.bias.detach(),
            "optimizer": optimizer.state_dict(),
            "settings": {k: str(v) for k, v in self.s._asdict().items()},
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, stage: str, optimizer: torch.optim.AdamW | None = None) -> int:
        """The step to go on with; 0 when there is no checkpoint."""
        path = self._path(stage)
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        self.learned.load_state_dict(state["learned"])
        self.average = state["average"]
        self.classifier.bias.data.copy_(state["bias"])
        if optimizer:
            optimizer.load_state_dict(state["optimizer"])
        return state["step"]

    def _advance(self, loss: torch.Tensor, optimizer: torch.optim.AdamW, step: int, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["height"] * rate
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learned.parameters(), 1.0)
        optimizer.step()
        if self.workers > 1 and step % MEET_EVERY == MEET_EVERY - 1:
            self._meet()
        keep = min(AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            for k, v in self.learned.state_dict().items():
                self.average[k].lerp_(v, 1 - keep)

    def _meet(self) -> None:
        weights = [w for w in self._weights() if w.requires_grad]
        with torch.no_grad():
            mean = torch.cat([w.flatten() for w in weights])
            dist.all_reduce(mean)
            mean /= self.workers
            for w, part in zip(weights, mean.split([w.numel() for w in weights])):
                w.copy_(part.view_as(w))

    def _log(self, **values: Any) -> None:
        with open(self.s.out / "log.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")

    def _loop(self, stage: str, steps: int, lr: float, hold: float, one: Any) -> None:
        """one(rng, step, share of the steps done) -> loss and numbers to show. Every step has a
        seed of its own: a run that was cut off goes on with the batches that it would have had."""
        optimizer = self._optimizer(lr)
        at = self.load(stage, optimizer)
        self.adapter.train()
        began, saved, shown = time.monotonic(), time.monotonic(), []
        for step in range(at, steps):
            if (step - at) % 50 == 0:
                self.features.look()
            seed = f"{self.s.seed}/{stage}/{step}/{self.worker}"
            torch.manual_seed(random.Random(seed).getrandbits(62))
            loss, numbers = one(random.Random(seed), step, step / steps)
            self._advance(loss, optimizer, step, self._rate(step, steps, hold))
            if self.worker > 0:
                continue
            shown.append(numbers)
            if len(shown) == SHOW_EVERY or step + 1 == steps:
                keys = dict.fromkeys(k for x in shown for k in x)
                mean = {k: round(float(np.mean([x[k] for x in shown if k in x])), 4) for k in keys}
                each = (time.monotonic() - began) / (step + 1 - at)
                left = each * (steps - step - 1) / 60
                self._log(stage=stage, step=step + 1, seconds=round(each, 2), **mean)
                print(f"{stage} {step + 1}/{steps} {mean} {each:.2f} s a step, {left:.0f} min left", flush=True)
                shown = []
            if time.monotonic() - saved > SAVE_EVERY_S:
                self._save(stage, step + 1, optimizer)
                saved = time.monotonic()
        if self.worker == 0:
            self._save(stage, steps, optimizer)
        if self.workers > 1:
            dist.barrier()  # the next stage begins with what was saved

    def _draw_photos(self, rng: random.Random, count: int) -> np.ndarray:
        return np.random.default_rng(rng.getrandbits(62)).choice(len(self.train), count, replace=False, p=self.chance)

    # -- stage 1 -------------------------------------------------------------------------

    def _classify(self, rng: random.Random) -> torch.Tensor:
        """The warm-up's loss of a batch of photos."""
        index = self._draw_photos(rng, WARMUP_BATCH)
        view, ratio = rng.choice(sorted(self.features.rows))
        x = self.features.get(view, ratio, index).x
        if ratio == 1:
            x = pool(x, rng.choice(WARMUP_SIDES)).x
        return self.classifier.loss(self.adapter(x), self.target[index])

    def warm_up(self) -> None:
        self.lora.requires_grad_(False)

        def one(rng: random.Random, _step: int, _done: float) -> tuple[torch.Tensor, dict[str, float]]:
            loss = self._classify(rng)
            return loss, {"loss": loss.item()}

        self._loop("warmup", self.s.warmup_steps, self.s.warmup_lr, 0, one)

    # -- stage 2 -------------------------------------------------------------------------

    def _draw_budget(self, rng: random.Random, done: float) -> Budget:
        ready = [b for b in BUDGETS if self.features.views(b.ratio)]
        return rng.choices(ready, [b.early if done < EARLY else b.late for b in ready])[0]

    def teach(self) -> None:
        if not self._path("lessons").exists():
            self.load("warmup")
            self.learned.load_state_dict(self.average)
        self.lora.requires_grad_(True)
        teacher = Teacher(self.lm)

        def one(rng: random.Random, step: int, done: float) -> tuple[torch.Tensor, dict[str, float]]:
            budget = self._draw_budget(rng, done)
            lora, prefix = self.lora.layers(), teacher.draw_prefix(rng)
            view = rng.choice(self.features.views(budget.ratio))
            if step % KEEP_EVERY == KEEP_EVERY - 1:
                index = self._draw_photos(rng, max(2, TOKENS // (budget.rows + TOKENS_OF_A_TEXT)))
                rows = rows_of(self.features, budget, view, index)
                moved = teacher.keep(self.adapter(rows.x), rows.first, rng, prefix, lora)
                return moved, {"moved": moved.item()}
            k = next(k for rows, k in QUESTIONS if budget.rows <= rows)
            index = self._draw_photos(rng, max(2, TOKENS // (budget.rows + 4 + k * TOKENS_OF_A_QUESTION)))
            rows = rows_of(self.features, budget, view, index)
            batch = teacher.batch([draw(self.train[i], self.train, k, rng) for i in index])
            hidden, target = teacher.hidden(self.adapter(rows.x), rows.first, batch, prefix, lora)
            answers = teacher.loss(hidden, target)
            classes = self._classify(rng)
            return answers + CLASS_WEIGHT * classes, {"answers": answers.item(), "classes": classes.item()}

        self._loop("lessons", self.s.steps, self.s.lr, HOLD, one)

    # -- measuring -----------------------------------------------------------------------

    @torch.no_grad()
    def measure(self, budgets: list[Budget], every: int = 1) -> dict[str, dict[str, float]]:
        """Shares of right answers on val, word for word: {budget: {"grocery name": …}}."""
        self.learned.load_state_dict(self.average)
        adapter, lora = self.adapter.eval(), self.lora.layers()
        features = Features(self.s.out / "features", "val")
        features.look()
        teacher = Teacher(self.lm)
        index = np.arange(0, len(self.val), every)
        out: dict[str, dict[str, float]] = {}
        for budget in budgets:
            right = []
            size = max(2, 4 * TOKENS // (budget.rows + 4 + 2 * TOKENS_OF_A_QUESTION))
            for at in range(0, len(index), size):
                part = index[at : at + size]
                rows = rows_of(features, budget, 0, part)
                batch = teacher.batch([[fill(NAME, self.val[i]), fill(KIND, self.val[i])] for i in part])
                right.append(teacher.right(adapter(rows.x), rows.first, batch, lora))
            found = torch.cat(right).double()
            out[budget.name] = {}
            for kind_of_photo in ("grocery", "clothing"):
                here = torch.tensor([self.val[i]["set"] == kind_of_photo for i in index])
                for j, question in enumerate(("name", "kind")):
                    out[budget.name][f"{kind_of_photo} {question}"] = round(found[here, j].mean().item(), 4)
            print(f"val {budget.name}: {out[budget.name]}", flush=True)
        self._log(stage="measure", every=every, **out)
        return out
