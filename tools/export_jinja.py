#!/usr/bin/python3
"""Render the models' own chat templates with llama.cpp: export_jinja.py SERVER TEMPLATES [GOLDEN_DIR]

SERVER is llama.cpp's llama-server, TEMPLATES its folder models/templates. It runs the
Jinja in full, so the default system messages and trimming of each model show, which
chat_templates.json (fixed C code of llama.cpp) does not have. The templates themselves
belong to others and stay there: golden/jinja_templates.json names each, holds a mark by
which it can be told from the rest, its SHA-256, and the prompts. Standard library only.
"""
import hashlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple, Optional

from chats import CHATS


DATE = "26 Jul 2024"  # Llama 3.1's default; llama.cpp puts in the day of the export


class Case(NamedTuple):
    name: str
    template: str  # file in TEMPLATES; "" is the one in the model
    model: str  # its special tokens are the ones that the template asks for
    mark: str


CASES = [
    Case("smollm2", "", "models/SmolLM2-135M-Instruct.Q4_1.gguf", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    Case("qwen2.5", "Qwen-Qwen2.5-7B-Instruct.jinja", "tiny/qwen2.gguf", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    Case("qwen3", "Qwen-Qwen3-0.6B.jinja", "tiny/qwen3.gguf", "reasoning_content"),
    Case("llama3.1", "meta-llama-Llama-3.1-8B-Instruct.jinja", "tiny/llama-bpe.gguf", "Cutting Knowledge Date: December 2023"),
    Case("mistral-nemo", "mistralai-Mistral-Nemo-Instruct-2407.jinja", "tiny/llama-spm.gguf", '"[AVAILABLE_TOOLS]['),
    Case("gemma2", "google-gemma-2-2b-it.jinja", "tiny/gemma3.gguf", "System role not supported"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(url: str, body: dict[str, object]) -> Optional[str]:
    """The prompt; None where the template refuses the conversation."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(json.load(answer)["prompt"]).replace(time.strftime("%d %b %Y"), DATE)
    except urllib.error.HTTPError:
        return None


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(200):
        assert process.poll() is None, "llama-server ended"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)


def render(server: str, templates: Path, golden: Path, case: Case) -> dict[str, object]:
    source = templates / case.template if case.template else None
    model = golden / case.model if case.model.startswith("tiny/") else Path(case.model)
    port = free_port()
    command = [server, "--model", str(model), "--jinja", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--ctx-size", "256", "--threads", "1", "--parallel", "1", "--no-warmup"]
    command += ["--chat-template-file", str(source)] if source else []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/health", process)
            prompts = [post(f"http://127.0.0.1:{port}/apply-template", {"messages": chat}) for chat in CHATS]
        finally:
            process.terminate()
    if source:
        assert case.mark in source.read_text(), case.name
    return {
        "name": case.name,
        "template": case.template or "in " + model.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest() if source else "",
        "mark": case.mark,
        "cases": [{"messages": chat, "prompt": prompt} for chat, prompt in zip(CHATS, prompts)],
    }


def main(server: str, templates: Path, golden: Path) -> None:
    out = [render(server, templates, golden, case) for case in CASES]
    (golden / "jinja_templates.json").write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: export_jinja.py SERVER TEMPLATES [GOLDEN_DIR]")
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) == 4 else "tests/golden"))
