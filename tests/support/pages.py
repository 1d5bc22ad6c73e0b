"""The pages that people read, and the blocks of code in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.house import ROOT

__all__ = ["DOCS", "PAGES", "Block", "blocks"]

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_FENCED = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code of a page."""

    language: str
    options: str
    """What stands behind the language, such as a title."""
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    """All blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found[2],
            found[3],
            text.count("\n", 0, found.start()) + 1,
            re.sub(f"^{found[1]}", "", found[4], flags=re.MULTILINE),
        )
        for found in _FENCED.finditer(text)
    ]
