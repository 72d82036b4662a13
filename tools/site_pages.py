"""A hook of MkDocs: the pages of the site are the repository's Markdown files, where they are.

MkDocs reads one folder. Ours has the texts beside what they describe, and they link to each
other by relative paths; so the hook hands it every Markdown file under its path from the
top, and the files that these link to (pictures, the licence, headers). The links then hold
on the site as they do in the repository, and strict mode finds those that hold in neither.
"""
from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {"build", "node_modules", ".git", ".cache"}
LINK = re.compile(r"\]\(([^)#\s]+)")


def markdown() -> list[Path]:
    """All Markdown files, in the order of their paths."""
    return sorted(p for p in ROOT.rglob("*.md") if not NOT_OURS & set(p.relative_to(ROOT).parts))


def linked(pages: list[Path]) -> set[Path]:
    """What the pages link to and is a file inside the repository, other pages left out."""
    targets = set()
    for page in pages:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.is_file() and target.is_relative_to(ROOT) and target.suffix != ".md":
                targets.add(target)
    return targets


def on_files(files: Files, config: MkDocsConfig) -> Files:
    theme = [file for file in files if file.src_dir != config.docs_dir]
    pages = markdown()
    ours = [
        File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
        for path in [*pages, *sorted(linked(pages))]
    ]
    return Files([*theme, *ours])
