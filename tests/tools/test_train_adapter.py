#!/usr/bin/env python3
"""tools/train_adapter.py without training: what it teaches is what the server asks, its
tower, ToMe and language model are the server's. The tests that need PyTorch and the model
files are skipped where those are not (`make adapter` makes build/venv-train)."""

import ast
import hashlib
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
MODELS = ROOT / "models"
MMPROJ = MODELS / "mmproj-dinov2-s14-smollm2.gguf"
LANGUAGE = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]
sys.dont_write_bytecode = True

import convert_mmproj  # noqa: E402
from adapter import questions  # noqa: E402
from plain import Skipped, run  # noqa: E402

LABELS = [
    {"name": "granny smith (apple)", "kind": "apple", "department": "fruit"},
    {"name": "banana", "kind": "banana", "department": "fruit"},
    {"name": "a shirt", "kind": "a shirt", "department": "clothing"},
]


def need_torch() -> Any:
    try:
        import gguf  # noqa: F401
        import tokenizers  # noqa: F401
        import torch
    except ImportError as e:
        raise Skipped(f"{e.name} is not installed") from e
    return torch


def need_models() -> None:
    for path in (MMPROJ, LANGUAGE):
        if not path.is_file():
            raise Skipped(f"no models/{path.name}: make models")


# -- without PyTorch ------------------------------------------------------------------------


def test_every_tool_is_python() -> None:
    for path in [ROOT / "tools/train_adapter.py", *sorted((ROOT / "tools/adapter").glob("*.py"))]:
        ast.parse(path.read_text(), str(path))


def test_frame_is_the_chat_templates() -> None:
    """Without a picture, frame and question make what the golden template makes."""
    golden = json.loads((GOLDEN / "templates.json").read_text())
    hi = next(x for x in golden if [m["role"] for m in x["messages"]] == ["user"])
    text = hi["messages"][0]["content"]
    assert questions.before(questions.SYSTEM) + questions.after(text) == hi["prompt"]


def test_answers_follow_from_the_label() -> None:
    rng = random.Random(1)
    for _ in range(300):
        label = rng.choice(LABELS)
        for pair in questions.draw(label, LABELS, 4, rng):
            answer = pair.answer
            assert answer.endswith(".") and "{" not in answer + pair.question, pair
            assert any(label[k] in answer for k in ("name", "kind", "department")), (label, pair)
            if answer.startswith("Yes"):
                assert label["kind"] in pair.question, pair
            if answer.startswith("No"):
                asked = next(x["kind"] for x in LABELS if f" {x['kind']}?" in pair.question)
                assert asked != label["kind"], pair


def test_usual_questions_come_most() -> None:
    rng = random.Random(2)
    asked = [p.question for _ in range(400) for p in questions.draw(LABELS[0], LABELS, 2, rng)]
    usual = sum(q.strip() in (questions.NAME[0], questions.KIND[0]) for q in asked)
    assert 0.8 < usual / len(asked) < 0.97, usual


def test_shipped_adapter_fits_the_converter() -> None:
    adapter = convert_mmproj.read_npz(str(MODELS / "adapter.npz"))
    hidden = adapter["fc1.bias"].shape[0]
    shapes = {
        "ln.weight": (384,), "ln.bias": (384,), "fc1.weight": (hidden, 384), "fc1.bias": (hidden,),
        "fc2.weight": (576, hidden), "fc2.bias": (576,),
    }  # fmt: skip
    assert {k: v.shape for k, v in adapter.items()} == shapes
    for name, tensor in adapter.items():
        assert tensor.type == (convert_mmproj.F16 if len(tensor.shape) == 2 else convert_mmproj.F32), name


def test_shipped_adapter_and_lora_have_the_pinned_hashes() -> None:
    found = hashlib.sha256((MODELS / "adapter.npz").read_bytes()).hexdigest()
    assert f'ADAPTER_SHA256 = "{found}"' in (ROOT / "tools/fetch_models").read_text()
    assert found in (MODELS / "README.md").read_text()
    lora = hashlib.sha256((MODELS / "lora-dinov2-s14-smollm2.gguf").read_bytes()).hexdigest()
    assert lora in (MODELS / "README.md").read_text()


def test_another_kind_is_found_where_the_department_has_no_other() -> None:
    rng = random.Random(3)
    kinds = {questions.other_kind(LABELS[2], LABELS, rng) for _ in range(50)}
    assert kinds == {"apple", "banana"}


def test_a_file_with_its_own_adapter_again_is_the_same_file() -> None:
    """convert_mmproj.py takes the tower out of an mmproj file as it was put in."""
    need_models()
    known = (ROOT / "tools/fetch_models").read_text()
    found = hashlib.sha256(MMPROJ.read_bytes()).hexdigest()
    if found in known and f'\nMMPROJ_SHA256 = "{found}"' not in known:
        raise Skipped(f"{MMPROJ.name} has an older adapter: make models")
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.gguf"
        convert_mmproj.convert(str(MMPROJ), str(MODELS / "adapter.npz"), str(again))
        assert again.read_bytes() == MMPROJ.read_bytes()


def test_file_with_the_first_adapter_has_its_old_hash() -> None:
    """The reference rows were made with it; tools/fetch_models knows it and renews it."""
    need_models()
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first.gguf"
        convert_mmproj.convert(str(MMPROJ), str(MODELS / "adapter-first.npz"), str(first))
        found = hashlib.sha256(first.read_bytes()).hexdigest()
    assert found == "75d68d6a48c7c685f959ea01548ffac30d913c40e81ea4c34a6ee25146cc6682"


# -- with PyTorch ---------------------------------------------------------------------------


def golden_groups() -> dict[int, list[int]]:
    """ratio -> first patch of each group, ascending."""
    found: dict[int, list[int]] = {}
    for line in (GOLDEN / "tome_224.vec").read_text().splitlines():
        words = line.split()
        if words[0] == "ratio":
            ratio = int(words[1])
            found[ratio] = []
        elif words[0] not in ("rows", "groups", "#"):
            found[ratio].append(min(int(w) for w in words[1:]))
    return {k: sorted(v) for k, v in found.items()}


def test_tower_and_tome_are_the_servers() -> None:
    torch = need_torch()
    need_models()
    import numpy as np
    from adapter import photos
    from adapter.tower import Tower

    tower = Tower(MMPROJ, torch.float32)
    pixels = torch.from_numpy(photos.load(GOLDEN / "picture_224.png", "", 0))
    pixels = ((pixels - tower.mean) / tower.std)[None]
    want = torch.from_numpy(np.load(GOLDEN / "vit_224.npy").astype(np.float32))[1:]
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(tower.encode(pixels).x[0], want, dim=-1).min() > 0.9999
    for ratio, first in golden_groups().items():
        assert tower.encode(pixels, ratio).first[0].tolist() == first, ratio


def test_pooling_is_the_mean_of_cells() -> None:
    torch = need_torch()
    from adapter.tower import pool

    x = torch.arange(256.0).reshape(1, 256, 1)
    rows = pool(x, 8)
    assert rows.first[0, :9].tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 32]
    assert rows.x[0, 0, 0] == (0 + 1 + 16 + 17) / 4


def test_language_model_and_tokenizer_are_the_servers() -> None:
    torch = need_torch()
    need_models()
    from adapter.language import LanguageModel

    lm = LanguageModel(LANGUAGE, torch.float32)
    for line in (GOLDEN / "tokens.vec").read_text().splitlines():
        if not line.startswith("#"):
            text, count, *ids = line.split()
            want = [int(w) for w in ids[: int(count)]]
            raw = b"" if text == "-" else bytes.fromhex(text)
            assert lm.ids(raw.decode()) == want, raw
    for case in json.loads((GOLDEN / "logits.json").read_text())["cases"]:
        ids, begin = case["tokens"], 7
        n = len(ids)
        allowed = torch.ones(n - begin, n, dtype=torch.bool).tril(begin)
        rows = lm.embed(torch.tensor([ids[begin:]]))
        hidden, _ = lm.run(rows, torch.arange(begin, n)[None], allowed, lm.prefix(ids[:begin]))
        assert (hidden[0] @ lm.output.T).argmax(-1).tolist() == case["top1"][begin:], case["name"]


def test_questions_packed_together_do_not_see_each_other() -> None:
    torch = need_torch()
    need_models()
    from adapter.language import LanguageModel
    from adapter.lessons import Teacher

    teacher = Teacher(LanguageModel(LANGUAGE, torch.float32))
    torch.manual_seed(1)
    rows = torch.randn(1, 9, 576)
    first = torch.arange(0, 90, 10)[None]
    pairs = [questions.fill(questions.KIND, LABELS[0]), questions.fill(questions.NAME, LABELS[1])]

    def hidden(*asked: Any) -> Any:
        return teacher.hidden(rows, first, teacher.batch([list(asked)]), teacher.prefixes[0], None)[0]

    assert torch.allclose(hidden(*pairs), torch.cat([hidden(p) for p in pairs]), atol=1e-3)


def random_lora(lm: Any) -> Any:
    torch = need_torch()
    from adapter.lora import Lora

    torch.manual_seed(2)
    lora = Lora(lm, rank=4, alpha=8)
    for up in lora.up:
        torch.nn.init.normal_(up, std=0.3)
    return lora


def test_lora_file_adds_what_was_learned() -> None:
    """The file's pairs, added to the matrices of the model's file, make the model that the
    training saw: order of RoPE's rows, folded norms and scale included."""
    torch = need_torch()
    need_models()
    import numpy as np
    from adapter.language import LanguageModel
    from adapter.lora import save_gguf
    from gguf import GGUFReader
    from gguf.quants import dequantize

    lm = LanguageModel(LANGUAGE, torch.float32)
    lora = random_lora(lm)
    ids = torch.tensor([lm.ids("Which product do you see? It is a red apple.")])
    with torch.no_grad():
        plain, learned = lm.text(ids)[0], lm.text(ids, lora.layers())[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lora.gguf"
        save_gguf(lora.state_dict(), lm, lora.alpha, path)
        reader = GGUFReader(path)
        pairs = {t.name: torch.from_numpy(np.array(t.data, np.float32)) for t in reader.tensors}
        alpha = float(reader.fields["adapter.lora.alpha"].contents())
    tensors = {
        t.name: torch.from_numpy(np.array(dequantize(t.data, t.tensor_type), np.float32))
        for t in GGUFReader(LANGUAGE).tensors
    }
    names = {name.rsplit(".lora_", 1)[0] for name in pairs}
    assert len(names) == 7 * len(lm.layers) and len(pairs) == 2 * len(names)
    for name in names:
        a, b = pairs[f"{name}.lora_a"], pairs[f"{name}.lora_b"]
        tensors[name] += alpha / len(a) * b @ a
    lm.layers = [lm._layer(tensors, i) for i in range(len(lm.layers))]
    with torch.no_grad():
        merged = lm.text(ids)[0]
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(plain, learned, dim=-1).min() < 0.99, "the addition is too small to be seen"
    assert cosine(merged, learned, dim=-1).min() > 0.9995


def test_lora_begins_as_nothing() -> None:
    torch = need_torch()
    need_models()
    from adapter.language import LanguageModel
    from adapter.lora import Lora

    lm = LanguageModel(LANGUAGE, torch.float32)
    ids = torch.tensor([lm.ids("What is this?")])
    with torch.no_grad():
        assert torch.equal(lm.text(ids)[0], lm.text(ids, Lora(lm, 4, 8).layers())[0])


def test_sampled_loss_is_near_the_whole_vocabularys() -> None:
    torch = need_torch()
    need_models()
    from adapter.language import LanguageModel
    from adapter.lessons import Teacher

    teacher = Teacher(LanguageModel(LANGUAGE, torch.float32))
    torch.manual_seed(3)
    hidden = 0.1 * torch.randn(16, 576)  # likelihoods without a few that outweigh all others
    target = torch.randint(49152, (16,))
    whole = torch.nn.functional.cross_entropy(hidden @ teacher.lm.output.T, target)
    sampled = torch.stack([teacher.loss(hidden, target) for _ in range(20)]).mean()
    assert abs(sampled - whole) < 0.05 * whole, (sampled, whole)


if __name__ == "__main__":
    sys.exit(run(globals()))
