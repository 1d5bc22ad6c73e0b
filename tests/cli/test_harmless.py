"""Whatever stands in a journal or was typed prints harmlessly, and no path shows a traceback of ours."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import unicodedata
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_sqlite.cli._commands import TABLE
from durable_sqlite.cli._text import age, cells, cut, instant, iso, length, pad, quote, safe
from tests.cli.journals import HOSTILE, SECOND
from tests.cli.support import durable_sqlite, environment, traces

_RUNS = ("x", "y", "z")
_LOOKS = [
    ["list"],
    ["stats"],
    ["doctor", "--quick"],
    ["watch", "--for", "0s"],
    ["watch", "x"],
    ["watch", "z", "--for", "0s"],
    *([name, run] for name in ("show", "why", "timeline") for run in _RUNS),
    ["show", "x", "--full", "--traceback", "--entries", "0"],
    ["timeline", "x", "--svg", "-"],
]
_CODES = (0, 1, 4)


def harmful(text: str) -> list[str]:
    """The characters in it that could do something to a terminal, or hide."""
    return [
        char
        for char in text
        if char != "\n" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    ]


@pytest.mark.parametrize("words", _LOOKS, ids=" ".join)
def test_what_a_stranger_wrote_prints_harmlessly(hostile: Path, words: list[str]) -> None:
    said = durable_sqlite(*words, "--db", hostile, cwd=hostile.parent, codes=_CODES, env={"PYTHONUTF8": "1"})
    assert harmful(said.out + said.err) == []
    if words[0] in ("list", "show"):
        assert "\\x1b[31mred\\x1b[0m\\u202egnp." in said.out  # it is shown, and not dropped


@pytest.mark.parametrize("words", [each for each in _LOOKS if "--svg" not in each], ids=" ".join)
def test_json_is_ascii_and_gives_back_what_was_written(hostile: Path, words: list[str]) -> None:
    said = durable_sqlite(*words, "--json", "--db", hostile, cwd=hostile.parent, codes=_CODES)
    assert said.out.isascii()
    assert harmful(said.out) == []
    if words[0] == "watch":
        assert all(json.loads(line) for line in said.out.splitlines())
    elif words[0] == "show":
        assert said.data["workflow"] == HOSTILE
    else:
        assert said.data


def test_a_picture_of_what_a_stranger_wrote_is_well_formed_and_runs_nothing(hostile: Path) -> None:
    said = durable_sqlite("timeline", "x", "--svg", "-", "--db", hostile, cwd=hostile.parent, env={"PYTHONUTF8": "1"})
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(said.out).iter()}
    assert tags <= {"svg", "title", "defs", "pattern", "rect", "style", "text", "line", "path"}
    assert "&lt;b&gt;&amp;" in said.out


def test_what_was_typed_is_harmless_too(shop: Path) -> None:
    for words in (
        ["show", HOSTILE.replace("\x00", "")],
        ["lsit\x1b[2J"],
        ["list", "--status", "\x1b]0;x\x07"],
        ["list", "--\u202e"],
    ):
        said = durable_sqlite(*words, "--db", shop, cwd=shop.parent, codes=(2, 3))
        assert harmful(said.out + said.err) == []


@given(st.text())
def test_safe_text_holds_no_harm_and_keeps_what_can_be_seen(text: str) -> None:
    made = safe(text)
    assert harmful(made) == []
    assert "\n" not in made
    if text.isprintable():
        assert made == text
    assert len(made) >= len(text)
    assert safe(made) == made


@given(st.text(st.characters(blacklist_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))), st.integers(1, 30))
def test_cut_and_padded_text_has_the_width_it_was_given(text: str, width: int) -> None:
    assert cells(cut(text, width)) <= width
    assert cells(pad(cut(text, width), width)) == width
    if cells(text) <= width:
        assert cut(text, width) == text


@pytest.mark.parametrize(
    ("span", "told", "short"),
    [
        (-5, "0 ms", "0 ms"),
        (1, "<1 ms", "<1 ms"),
        (15_000, "15 ms", "15 ms"),
        (3_240_000, "3.2 s", "3 s"),
        (59 * SECOND, "59 s", "59 s"),
        (60 * SECOND, "1 min", "1 min"),
        (250 * SECOND, "4 min 10 s", "4 min"),
        (2 * 3600 * SECOND, "2 h", "2 h"),
        ((2 * 86_400 + 3 * 3600 + 59) * SECOND, "2 d 3 h", "2 d"),
        (4_000 * 86_400 * SECOND, "4,000 d", "4,000 d"),
    ],
)
def test_lengths_of_time_read_well(span: int, told: str, short: str) -> None:
    assert (length(span), age(span)) == (told, short)


def test_times_read_well_for_people_and_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000 * SECOND
    assert iso(now + 5) == "2023-11-14T22:13:20.000005Z"
    assert iso(None) is iso(2**62) is iso(-(2**62)) is None
    assert instant(2**62, now) == "beyond the year 9999"
    assert len(instant(now, now)) == len("22:13:20")
    assert instant(now + 86_400 * SECOND, now)[10] == " "


def test_what_is_typed_into_a_shell_comes_out_of_it() -> None:
    for word in ("plain", "", "a b", "it's", '{"a": 1}', "$x", "`y`", "\\", "*"):
        said = subprocess.run(["sh", "-c", f"printf %s {quote(word)}"], capture_output=True, text=True, check=True)
        assert said.stdout == word


# Odd words and odd journals ------------------------------------------------------------------------------------------

_MANY = """
import contextlib, io, json, os, sys
from durable_sqlite.cli import main
for line in sys.stdin:
    words = json.loads(line)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except BaseException as error:
            code = repr(error)
    print(json.dumps([words, code, out.getvalue() + err.getvalue()]))
"""
_EXPECTED = {0, 1, 2, 3, 4, 5, 6, 75}
_WORDS = (
    "@", "x", "", "--", "-", "--json", "--help", "--db", "--db=", "--limit", "0", "-1", "1e9", "--since", "9999999d", "--tag",
    "=", "a=", "--status", "failed", "--entries", "--full", "--svg", "/nonexistent/x.svg", "--rows", "--quick", "\x00", "\ud800",
    "\x1b[2J", "run-done", "run-", "💥" * 50, "%s%n", "{}", "../..", "list", "--app", "--version",
)  # fmt: skip


def _told(lists: list[list[str]], folder: Path) -> list[tuple[list[str], object, str]]:
    text = "".join(json.dumps(words) + "\n" for words in lists)
    done = subprocess.run(
        [sys.executable, "-c", _MANY],
        input=text,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(words, code, said) for words, code, said in map(json.loads, done.stdout.splitlines())]


def _judge(told: list[tuple[list[str], object, str]]) -> None:
    wrong = [each for each in told if each[1] not in _EXPECTED or traces(each[2]) or harmful(each[2])]
    assert wrong == []


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=pytest.mark.thorough)])
def test_no_odd_words_show_a_traceback(shop: Path, tmp_path: Path, count: int) -> None:
    shutil.copy(shop, tmp_path / "shop.db")
    chance = random.Random(7)
    names = [entry.name for entry in TABLE if entry.module != "_demo"]
    lists: list[list[str]] = []
    for _ in range(count):
        words = chance.choices(_WORDS, k=chance.randrange(5))
        # A watch without an end would have none.
        words = [chance.choice([*names, chance.choice(_WORDS)]), *words]
        lists.append([*chance.choice(([], ["--db", "shop.db"], ["--json"])), *words])
        if "watch" in words:
            lists[-1] += ["--for", "0s"]
    told = _told(lists, tmp_path)
    assert len(told) == count
    _judge(told)
    assert {code for _, code, _ in told} >= {0, 2, 3}


def spoilt(shop: Path, folder: Path, chance: random.Random, number: int) -> Path:
    """A copy in which something is not as this library writes it."""
    path = folder / f"{number}.db"
    if number % 2:
        data = bytearray(shop.read_bytes())
        for _ in range(chance.choice((1, 3, 40))):
            # The first page's header is left, or it would be no journal any more.
            data[chance.randrange(100, len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), len(data), chance.randrange(512, len(data))))])
        return path
    shutil.copy(shop, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'durable_%'"
            )
        ]
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("PRAGMA foreign_keys = OFF")
        for _ in range(3):
            table = chance.choice(tables)
            columns = [(row[1], row[2]) for row in connection.execute(f"PRAGMA table_info({table})")]
            name, kind = chance.choice(columns)
            value = {
                "INTEGER": chance.choice((0, -1, 2**62, -(2**63), 2**63 - 1)),
                "TEXT": chance.choice(("", HOSTILE, "x" * 5_000, b"\xff\xfe".decode("latin-1"))),
                "BLOB": chance.choice((b"", b"\xff", b"[" * 50_000, b"null", b'{"error":3}', b'"\\ud800"', b"NaN")),
            }[kind]
            try:
                connection.execute(f"UPDATE {table} SET {name} = ?", (value,))
            except sqlite3.Error:
                connection.execute(
                    f"DELETE FROM {table} WHERE rowid % 2" if table == "durable_runs" else f"DELETE FROM {table}"
                )
    return path


@pytest.mark.parametrize("count", [40, pytest.param(1_000, marks=pytest.mark.thorough)])
def test_no_odd_journal_shows_a_traceback(shop: Path, tmp_path: Path, count: int) -> None:
    chance = random.Random(11)
    lists: list[list[str]] = []
    for number in range(count):
        path = str(spoilt(shop, tmp_path, chance, number))
        run = chance.choice(("run-done", "run-asks", "run-failed", "run-held", "@"))
        looks = [
            ["list"],
            ["stats"],
            ["doctor"],
            ["watch", "--for", "0s"],
            ["show", run],
            ["why", run],
            ["timeline", run],
        ]
        lists += [[*words, "--db", path] for words in looks]
    lists += [[*words, "--json"] for words in lists]
    told = _told(lists, tmp_path)
    assert len(told) == 14 * count
    _judge(told)
