#!/usr/bin/env python3
"""Do tamp and llama-server write the same greedy tokens from the same two files?

Both servers run already, on the same GGUF files. Ten text prompts and ten photos
(resized here to the tower's own size, so that the resizers play no part), uncompressed,
greedy, the first 16 tokens. Where they differ, the margin between the two best tokens
at that place is printed: below 0.05 the two are tied as far as arithmetic goes.
Needs Pillow.

    llama-server -m MODEL --mmproj MMPROJ --port 8090
    tamp serve --model MODEL --mmproj MMPROJ --port 8080
    bench/peers/agreement.py --data ../shared/data/products
"""

import argparse
import base64
import io
import json
import pathlib
import sys
import urllib.request

from PIL import Image

TEXTS = [
    "What is the capital of France?",
    "Write one sentence about rain.",
    "How do I wash a wool jumper?",
    "Name three fruits that are yellow.",
    "My order 4711 has not arrived. What should I do?",
    "Translate 'good morning' into French.",
    "What is 12 + 30?",
    "Explain what a zip fastener is.",
    "Give me a short recipe for an apple cake.",
    "Why is the sky blue?",
]
QUESTION = "What kind of product is it?"


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(
        url + "/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.load(reply)


def greedy(url: str, content: object, n: int, extra: dict) -> list[tuple[str, float]]:
    """Token texts and the margin to the second best, in nats."""
    body = {
        "model": "default",
        "temperature": 0,
        "max_tokens": n,
        "logprobs": True,
        "top_logprobs": 2,
        "messages": [{"role": "user", "content": content}],
        **extra,
    }
    answer = post(url, body)
    out = []
    # llama-server lists the end-of-turn token with an empty text; OpenAI and tamp do not.
    for item in answer["choices"][0]["logprobs"]["content"]:
        if item["token"] == "":
            continue
        top = item["top_logprobs"]
        margin = top[0]["logprob"] - top[1]["logprob"] if len(top) > 1 else float("inf")
        out.append((item["token"], margin))
    return out


def photo_parts(path: pathlib.Path, side: int) -> list[dict]:
    picture = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    png = io.BytesIO()
    picture.save(png, "PNG")
    url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUESTION}]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--data", type=pathlib.Path, required=True, help="folder with labels.json")
    p.add_argument("--tamp", default="http://127.0.0.1:8080")
    p.add_argument("--peer", default="http://127.0.0.1:8090")
    p.add_argument("--tokens", type=int, default=16)
    p.add_argument("--photos", type=int, default=10)
    p.add_argument("--side", type=int, default=224)
    a = p.parse_args()
    labels = json.loads((a.data / "labels.json").read_text())
    val = [x for x in labels if x["split"] == "val"]
    cases: list[tuple[str, object]] = [(t, t) for t in TEXTS]
    for i in range(a.photos):
        photo = val[i * len(val) // a.photos]
        cases.append((photo["file"], photo_parts(a.data / photo["file"], a.side)))
    same = tied = 0
    for name, content in cases:
        ours = greedy(a.tamp, content, a.tokens, {"compression": "off"})
        theirs = greedy(a.peer, content, a.tokens, {"cache_prompt": False})
        at = next(
            (i for i, (x, y) in enumerate(zip(ours, theirs)) if x[0] != y[0]),
            None if len(ours) == len(theirs) else min(len(ours), len(theirs)),
        )
        if at is None:
            same += 1
            print(f"same   {len(ours):2} tokens  {name}")
            continue
        margin = min(x[at][1] for x in (ours, theirs) if at < len(x))
        tied += margin < 0.05
        got = ours[at][0] if at < len(ours) else "(end)"
        want = theirs[at][0] if at < len(theirs) else "(end)"
        print(f"differ at {at:2}, margin {margin:.3f}: {got!r} against {want!r}  {name}")
    print(f"{same} of {len(cases)} the same, {tied} near-tied, {len(cases) - same - tied} differ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
