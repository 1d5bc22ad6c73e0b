"""What all commands share: that they start at once, find their journal, end with a code, and harm nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from durable_sqlite.cli._commands import TABLE, load
from tests.cli.support import durable_sqlite, environment
from tests.support.house import python

_LOADED = """
import json, runpy, sys
import contextlib, io
for words in {words}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from durable_sqlite.cli import main
        main(words)
print(json.dumps(sorted(sys.modules)))
"""


def test_help_and_wrong_words_import_neither_the_engine_nor_pydantic_nor_asyncio() -> None:
    words = [["--help"], [], ["lst"], *([*entry.name.split(), "--help"] for entry in TABLE)]
    loaded = set(json.loads(python("-c", _LOADED.format(words=words))))
    assert not {"pydantic", "pydantic_core", "asyncio", "aiosqlite", "durable_sqlite.engine"} & loaded


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name.replace(" ", "-"))
def test_each_line_of_the_table_is_a_command(entry: object) -> None:
    assert callable(load(entry).run)  # type: ignore[arg-type]
