"""What docs/cli.md shows of the shop's journal is what is printed."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.support import durable_sqlite
from tests.support.house import ROOT
from tests.support.sessions import plainly

_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
_SHOWN = [
    (line, below)
    for block in re.findall(r"^```console\n(.*?)^```$", _PAGE, re.DOTALL | re.MULTILINE)
    for line, below in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]


@pytest.mark.parametrize(("line", "below"), _SHOWN, ids=[line for line, _ in _SHOWN])
def test_the_page_shows_what_is_printed(shop: Path, tmp_path: Path, line: str, below: str) -> None:
    shutil.copy(shop, tmp_path / "shop.db")
    program, *words = shlex.split(line)
    assert program == "durable_sqlite"
    env = {"COLUMNS": "90", "PYTHONUTF8": "1", "DURABLE_SQLITE_DB": "shop.db"}
    said = durable_sqlite(*words, cwd=tmp_path, env=env)
    assert plainly(said.out) == plainly(below), said.out
