#!/usr/bin/env python3
"""Train the adapter between the picture tower and the language model, and the LoRA by which
the model reads it: `make adapter`

    train_adapter.py --data ../shared/data/products [STAGE...]

Stages, all of them by default, each going on where it was cut off:
  features  the frozen tower's rows of every photo, in several views and at several budgets
            (several processes may share this; training may begin when the first are there)
  warmup    the adapter learns what is in the photo, without the language model
  lessons   adapter and low-rank additions to the language model learn together: questions
            and answers; and where the question is about text, the model's own answers
  measure   shares of right answers on the val split
  export    models/adapter.npz and models/lora-dinov2-s14-smollm2.gguf

Only the train split is learned from; val only measures. Needs tools/requirements-train.txt.
What came out, from which data and with which seed: models/README.md.
"""
import argparse
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # threads that wait leave the processor to others

import torch
import torch.distributed as dist

from adapter import photos
from adapter.course import Course, Settings
from adapter.language import PLAIN, LanguageModel, fused
from adapter.lessons import BUDGETS
from adapter.lora import save_gguf
from adapter.network import save_npz
from adapter.tower import Tower

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
STAGES = ("features", "warmup", "lessons", "measure", "export")


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("stage", nargs="*", help=", ".join(STAGES))
    p.add_argument("--data", type=Path, required=True, help="folder with labels.json")
    p.add_argument("--out", type=Path, default=ROOT / "build/adapter", help="features, checkpoints, log.jsonl")
    p.add_argument("--export", type=Path, default=MODELS / "adapter.npz", help="the file that `export` writes")
    p.add_argument("--export-lora", type=Path, default=MODELS / "lora-dinov2-s14-smollm2.gguf", help="and this one")
    p.add_argument("--language", type=Path, default=MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf")
    p.add_argument("--mmproj", type=Path, default=MODELS / "mmproj-dinov2-s14-smollm2.gguf", help="the tower is taken out of it")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--workers", type=int, default=1, help="processes that average what they learned in warmup and lessons")
    p.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    p.add_argument("--views", type=int, default=8, help="variations of each photo, itself included")
    p.add_argument("--hidden", type=int, default=1024)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--warmup-steps", type=int, default=900)
    p.add_argument("--warmup-lr", type=float, default=2e-3)
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--decay", type=float, default=0.05, help="AdamW's weight decay")
    p.add_argument("--rank", type=int, default=8, help="of the low-rank additions to the language model")
    p.add_argument("--alpha", type=float, default=16)
    p.add_argument("--lora-lr", type=float, default=1e-3)
    p.add_argument("--every", type=int, default=1, help="measure only each N-th photo")
    p.add_argument("--plain", action="store_true", help="no compiled loops: slower, needs no C++ compiler")
    a = p.parse_args()
    if wrong := set(a.stage) - set(STAGES):
        p.error(f"unknown stage {', '.join(sorted(wrong))}: one of {', '.join(STAGES)}")
    return a


def make_features(a: argparse.Namespace) -> None:
    folder = a.out / "features"
    folder.mkdir(parents=True, exist_ok=True)
    tower = Tower(a.mmproj)
    train = [("train", *x) for x in photos.train_views(a.views)]
    val = [("val", *x) for x in photos.VAL_VIEWS]
    for split, view, ratio in train[:2] + val + train[2:]:
        began = time.monotonic()

        def say(done: int, total: int) -> None:
            each = (time.monotonic() - began) / done
            if sys.stdout.isatty() or done == total:
                end = "\n" if done == total else "\r"
                print(f"features {split} view {view} ratio {ratio}: {done}/{total}, {each * 1e3:.0f} ms a photo", end=end, flush=True)

        photos.make_features(tower, a.data, folder, split, view, ratio, a.seed, say)


def start_workers(a: argparse.Namespace) -> list[subprocess.Popen]:
    """The first process starts the others; they meet through a file."""
    meeting = a.out / "workers"
    others = []
    if a.worker == 0:
        meeting.unlink(missing_ok=True)
        for i in range(1, a.workers):
            # Linux may share the processor among sessions first, so each worker has its own.
            command = [sys.executable, *sys.argv, "--worker", str(i)]
            others.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True))
    dist.init_process_group("gloo", init_method=f"file://{meeting.resolve()}", rank=a.worker, world_size=a.workers)
    return others


def keep_memory() -> None:
    """glibc gives large pieces back at once and gets them again zeroed, page by page: a fifth
    of a step. Where there is no mallopt, training is that much slower."""
    trim_threshold, mmap_max = -1, -4
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 1 << 30)


def main() -> None:
    a = arguments()
    keep_memory()
    torch.set_num_threads(a.threads)
    stages = a.stage or list(STAGES)
    if "features" in stages and a.worker == 0:
        make_features(a)
    if stages == ["features"]:
        return
    settings = Settings(**{k: getattr(a, k) for k in Settings._fields})
    others = start_workers(a) if a.workers > 1 else []
    lm = LanguageModel(a.language, loops=PLAIN if a.plain else fused())
    course = Course(settings, lm, a.worker, a.workers)
    if "warmup" in stages:
        course.warm_up()
    if "lessons" in stages:
        course.teach()
    for other in others:
        other.wait()
    if a.worker > 0:
        return
    if "measure" in stages or "export" in stages:
        course.load("lessons") or course.load("warmup")
    if "measure" in stages:
        course.measure(BUDGETS, a.every)
    if "export" in stages:
        parts = {"adapter": {}, "lora": {}}
        for k, v in course.average.items():
            part, name = k.split(".", 1)
            parts[part][name] = v
        save_npz(parts["adapter"], a.export)
        save_gguf(parts["lora"], lm, a.alpha, a.export_lora)
        print(f"wrote {a.export} and {a.export_lora}")


if __name__ == "__main__":
    main()
