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

from .language import LanguageModel
from .lessons import BUDGETS, Budget, Teacher, rows_of
from .network import Adapter
from .photos import Features, read_labels
from .questions import KIND, NAME, draw, fill
from .tower import SIDE, pool
from .warmup import Classifier, start

WARMUP_BATCH = 64
WARMUP_SIDES = (2, 3, 4, 5, 6, 8)
TOKENS = 1500  # of a batch, about
TOKENS_OF_A_QUESTION = 22
QUESTIONS = ((16, 2), (64, 3), (256, 4))  # up to so many rows, so many questions to a photo
EARLY = 0.55  # of the steps are weighted towards few rows
CLASS_WEIGHT = 0.4  # of the warm-up's loss beside the answers'
AVERAGE = 0.99
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


class Course:
    """With several workers each draws batches of its own, and their gradients are averaged;
    the first one shows, saves and measures."""

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
        self.average = {k: v.clone() for k, v in self.adapter.state_dict().items()}
        # Rare products are drawn more often, though not as often as if all were alike.
        weight = torch.bincount(self.target).double()[self.target] ** -0.5
        self.chance = (weight / weight.sum()).numpy()

    # -- what both stages share ----------------------------------------------------------

    def _weights(self) -> list[torch.Tensor]:
        return [*self.adapter.parameters(), self.classifier.bias]

    def _optimizer(self, lr: float) -> torch.optim.AdamW:
        weights = self._weights()
        return torch.optim.AdamW(
            [
                {"params": [w for w in weights if w.ndim > 1], "weight_decay": self.s.decay},
                {"params": [w for w in weights if w.ndim == 1], "weight_decay": 0.0},
            ],
            lr=lr,
            betas=(0.9, 0.98),
        )

    @staticmethod
    def _rate(step: int, steps: int) -> float:
        """Share of the learning rate: up in the first 4 %, then down along a cosine."""
        rise = max(1, steps // 25)
        if step < rise:
            return (step + 1) / rise
        return 0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * (step - rise) / max(1, steps - rise))))

    def _path(self, stage: str) -> Path:
        return self.s.out / f"{stage}.pt"

    def _save(self, stage: str, step: int, optimizer: torch.optim.AdamW) -> None:
        path = self._path(stage)
        state = {
            "step": step,
            "adapter": self.adapter.state_dict(),
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
        self.adapter.load_state_dict(state["adapter"])
        self.average = state["average"]
        self.classifier.bias.data.copy_(state["bias"])
        if optimizer:
            optimizer.load_state_dict(state["optimizer"])
        return state["step"]

    def _advance(self, loss: torch.Tensor, optimizer: torch.optim.AdamW, step: int, steps: int, lr: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = lr * self._rate(step, steps)
        optimizer.zero_grad()
        loss.backward()
        if self.workers > 1:
            for w in self._weights():
                dist.all_reduce(w.grad)
                w.grad /= self.workers
        torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), 1.0)
        optimizer.step()
        keep = min(AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            for k, v in self.adapter.state_dict().items():
                self.average[k].lerp_(v, 1 - keep)

    def _log(self, **values: Any) -> None:
        with open(self.s.out / "log.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")

    def _loop(self, stage: str, steps: int, lr: float, one: Any) -> None:
        """one(rng, share of the steps done) -> loss and numbers to show. Every step has a seed of its own, so a run
        that was cut off goes on as if nothing had happened."""
        optimizer = self._optimizer(lr)
        at = self.load(stage, optimizer)
        self.adapter.train()
        began, saved, shown = time.monotonic(), time.monotonic(), []
        for step in range(at, steps):
            if (step - at) % 50 == 0:
                self.features.look()
            seed = f"{self.s.seed}/{stage}/{step}/{self.worker}"
            torch.manual_seed(random.Random(seed).getrandbits(62))
            loss, numbers = one(random.Random(seed), step / steps)
            self._advance(loss, optimizer, step, steps, lr)
            if self.worker > 0:
                continue
            shown.append(numbers)
            if len(shown) == SHOW_EVERY or step + 1 == steps:
                mean = {k: round(float(np.mean([x[k] for x in shown])), 4) for k in shown[0]}
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
        def one(rng: random.Random, _: float) -> tuple[torch.Tensor, dict[str, float]]:
            loss = self._classify(rng)
            return loss, {"loss": loss.item()}

        self._loop("warmup", self.s.warmup_steps, self.s.warmup_lr, one)

    # -- stage 2 -------------------------------------------------------------------------

    def _draw_budget(self, rng: random.Random, done: float) -> Budget:
        ready = [b for b in BUDGETS if self.features.views(b.ratio)]
        return rng.choices(ready, [b.early if done < EARLY else b.late for b in ready])[0]

    def teach(self) -> None:
        if not self._path("lessons").exists():
            self.load("warmup")
            self.adapter.load_state_dict(self.average)
        teacher = Teacher(self.lm)

        def one(rng: random.Random, done: float) -> tuple[torch.Tensor, dict[str, float]]:
            budget = self._draw_budget(rng, done)
            k = next(k for rows, k in QUESTIONS if budget.rows <= rows)
            count = max(2, TOKENS // (budget.rows + 4 + k * TOKENS_OF_A_QUESTION))
            index = self._draw_photos(rng, count)
            rows = rows_of(self.features, budget, rng.choice(self.features.views(budget.ratio)), index)
            batch = teacher.batch([draw(self.train[i], self.train, k, rng) for i in index])
            logits, target = teacher.logits(self.adapter(rows.x), rows.first, batch, teacher.draw_prefix(rng))
            answers = torch.nn.functional.cross_entropy(logits.float(), target)
            classes = self._classify(rng)
            return answers + CLASS_WEIGHT * classes, {"answers": answers.item(), "classes": classes.item()}

        self._loop("lessons", self.s.steps, self.s.lr, one)

    # -- measuring -----------------------------------------------------------------------

    @torch.no_grad()
    def measure(self, budgets: list[Budget], every: int = 1) -> dict[str, dict[str, float]]:
        """Shares of right answers on val, word for word: {budget: {"grocery name": …}}."""
        adapter = Adapter(384, self.s.hidden, self.lm.width)
        adapter.load_state_dict(self.average)
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
                right.append(teacher.right(adapter(rows.x), rows.first, batch))
            found = torch.cat(right).double()
            out[budget.name] = {}
            for kind_of_photo in ("grocery", "clothing"):
                here = torch.tensor([self.val[i]["set"] == kind_of_photo for i in index])
                for j, question in enumerate(("name", "kind")):
                    out[budget.name][f"{kind_of_photo} {question}"] = round(found[here, j].mean().item(), 4)
            print(f"val {budget.name}: {out[budget.name]}", flush=True)
        self._log(stage="measure", every=every, **out)
        return out
