"""Odd words and odd journals: every command that acts ends with a known code, prints harmlessly, and shows no traceback."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest

from durable_sqlite.cli._commands import TABLE
from tests.cli.journals import HOSTILE
from tests.cli.stand import Stand
from tests.cli.support import durable_sqlite, traces
from tests.support.house import python

pytestmark = pytest.mark.thorough  # each test starts several processes: too many for every day

_TYPED = HOSTILE.replace("\x00", "")
_CODES = (0, 1, 2, 3, 4, 5, 6, 75)
_ACTS = [
    ["resume", "z"],
    ["resume", "x"],
    ["resume", "--due", "--stay", "0s"],
    ["resume", "z", "--app", _TYPED],
    ["answer", "z", f"{_TYPED}#1"],
    ["answer", "z", _TYPED, "{}"],
    ["answer", "z", _TYPED, f'{{"a": {_TYPED}}}'],
    ["signal", "z", _TYPED, json.dumps({_TYPED: _TYPED})],
    ["cancel", "z", "--reason", _TYPED, "--by", _TYPED],
    ["pause", "z", "--reason", _TYPED, "--by", _TYPED],
    ["terminate", "z", "--reason", _TYPED, "--by", _TYPED],
    ["start", _TYPED, "--app", "shop"],
    ["start", "order", "--app", "shop", "--input", json.dumps({_TYPED: 1})],
    ["dead-letters", "list"],
    ["dead-letters", "show", "x"],
    ["dead-letters", "redrive", "x", "y"],
    ["dead-letters", "discard", "--all", "--workflow", _TYPED],
    ["backup", f"nowhere/{_TYPED}"],
    ["prune", "--older-than", "1s", "--state", "failed"],
    ["export", "x"],
    ["migrate"],
    ["check", "--app", "shop"],
    ["check", "--app", _TYPED],
    ["check", "--app", "shop", "--workflow", _TYPED],
]


def _harmful(text: str) -> list[str]:
    risky = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return [char for char in text if char != "\n" and unicodedata.category(char) in risky]


@pytest.mark.parametrize("words", _ACTS, ids=lambda words: " ".join(words)[:30].encode("ascii", "replace").decode())
def test_what_a_stranger_wrote_or_typed_is_acted_on_harmlessly(hostile: Path, tmp_path: Path, words: list[str]) -> None:
    shutil.copy(hostile, tmp_path / "runs.db")
    said = Stand(tmp_path).type(*words, codes=_CODES, PYTHONUTF8="1")
    assert _harmful(said.out + said.err) == []
    assert said.out or said.err


_MANY = """
import contextlib, io, json, os, random, sys
from durable_sqlite.cli import main
from durable_sqlite.cli._commands import TABLE
chance = random.Random({seed})
odd = ["", "@", "nobody", "run-", "run-asks", "run-failed", "Review", "Paid", "{{", "[]", '{{"granted": 1}}', "null", "-1", "1s",
       "nan", "--", "--due", "--all", "--json", "--app", "--db", "none.db", "shop", "json", "os:path", "sys:exit",
       "--input", "--id", "--tag", "a=b", "--reason", "--by", "--key", "--retry", "--stay", "0s", "--older-than",
       "--state", "failed", "--overwrite", "--limit", "--workflow", "\\x1b[2J", "\\ud7ff", "9" * 400, "\\u202e", "--no"]
names = [entry.name.split() for entry in TABLE if entry.name not in ("demo", "watch", "worker")]
sys.stdin = io.StringIO("")
for number in range({rounds}):
    words = [*chance.choice(names), *chance.choices(odd, k=chance.randrange(6))]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    print(json.dumps([words, code, out.getvalue(), err.getvalue()]))
"""


def _odd_words(stand: Stand, shop: Path, *, seed: int, rounds: int) -> None:
    shutil.copy(shop, stand.folder / "runs.db")
    (stand.folder / "fuzz.py").write_text(
        "import os\n"
        f"os.chdir({str(stand.folder)!r})\n"
        "os.environ['DURABLE_SQLITE_DB'] = 'runs.db'\n" + _MANY.format(seed=seed, rounds=rounds)
    )
    lines = python(stand.folder / "fuzz.py").splitlines()
    assert len(lines) == rounds
    for line in lines:
        words, code, out, err = json.loads(line)
        assert code in _CODES, (words, code, out, err)
        assert traces(out + err) == [], words
        assert _harmful(out + err) == [], words


def test_odd_words_end_with_a_known_code_and_without_a_traceback(stand: Stand, shop: Path) -> None:
    _odd_words(stand, shop, seed=7, rounds=150)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(3))
def test_many_odd_words_end_with_a_known_code_and_without_a_traceback(stand: Stand, shop: Path, seed: int) -> None:
    _odd_words(stand, shop, seed=seed, rounds=400)


def test_help_of_each_command_names_what_it_takes(tmp_path: Path) -> None:
    said = durable_sqlite("--help", cwd=tmp_path)
    for entry in TABLE:
        assert entry.name in said.out
