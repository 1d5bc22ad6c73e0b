"""The documents' own code: every block is Python, and those of some pages print what stands below them."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakValueDictionary

import pytest

from durable_sqlite import _signals
from tests.support.house import ROOT

_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of code of a page."""

    language: str
    line: int
    text: str


def _blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found[2], text.count("\n", 0, found.start()) + 1, re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE)
        )
        for found in _FENCED.finditer(text)
    ]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_as_python_is_python(page: Path) -> None:
    for block in _blocks(page):
        if block.language == "python" and not block.text.startswith("--8<--"):  # a file that is put in there
            compile(block.text, f"{page.name}:{block.line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_files_that_pages_put_in_exist_and_no_formatter_has_spoilt_the_marks() -> None:
    texts = [page.read_text(encoding="utf-8") for page in _PAGES]
    marks = [mark for text in texts for mark in re.findall(r"^-*8 ?<.*$|^--8.*$", text, re.MULTILINE)]
    assert all(re.fullmatch(r'--8<--( ".+")?', mark) for mark in marks), marks
    put_in: list[str] = [
        file for text in texts for file in re.findall(r"^--8<--[ \n]\"?([\w./]+)\"?$", text, re.MULTILINE)
    ]
    assert sorted(put_in) == ["CHANGELOG.md", "examples/first.py"]


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("failure", 2),
        ("waiting", 8),
        ("children", 4),
        ("control", 4),
        ("exactly_once", 1),
        ("care", 5),
        ("damage", 2),
        ("replay", 1),
        ("spec", 1),
    ],
)
def test_a_page_prints_what_it_says_it_prints(name: str, outputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_signals, "_KNOWN", WeakValueDictionary[Any, Any]())  # a page is a program by itself
    blocks = _blocks(ROOT / "docs" / f"{name}.md")
    module = ModuleType(f"docs.{name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where pydantic looks for it
    compared = 0
    for number, block in enumerate(blocks):
        if block.language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, f"{name}.md:{block.line}", "exec"), vars(module))
        shown = blocks[number + 1] if number + 1 < len(blocks) else None
        if shown is not None and shown.language == "text":
            assert shown.text == printed.getvalue(), (
                f"{name}.md, line {shown.line}: this is what the block above prints"
            )
            compared += 1
        else:
            assert not printed.getvalue()
    assert compared == outputs
