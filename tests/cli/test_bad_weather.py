"""Acting while the disk, the file or its owner is against it: each command says what is wrong in words, and which way out."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from durable_sqlite.cli import main
from durable_sqlite.cli._commands import TABLE
from durable_sqlite.cli._journal import known_version
from tests.cli.stand import Stand
from tests.cli.support import traces
from tests.cli.test_each_command import GOOD
from tests.cli.test_harmless import spoilt

QUICK = """
from durable_sqlite import Engine
from shop import *

engine = Engine("runs.db", storage_patience=0.2)
"""
"""The shop, with an engine that does not wait long."""
WRITES = ("start", "resume", "answer", "signal")
"""What is done by the application's own engine, and so with its patience."""
WORDS = {
    "start": [*GOOD["start"].words[:1], "--input", '{"item": "cup"}', "--app", "quick:engine"],
    "resume": ["run-ready", "--app", "quick:engine"],
    **{name: [*GOOD[name].words, "--app", "quick:engine"] for name in ("answer", "signal")},
}
ACTING = [entry.name for entry in TABLE if entry.group in ("Act", "Care") and entry.name not in ("doctor", "migrate")]
LOOKING = [entry.name for entry in TABLE if entry.group == "Look"]
BECOMES = Path(__file__).with_name("weather.py")


@pytest.fixture
def there(stand: Stand, shop: Path) -> Stand:
    """The shop with its journal."""
    shutil.copy(shop, stand.folder / "runs.db")
    (stand.folder / "quick.py").write_text(QUICK)
    return stand


def words_of(name: str) -> list[str]:
    return [*name.split(), *WORDS.get(name, GOOD[name].words)]


def of_a_newer_version(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {known_version() + 1}")


def not_to_be_written(path: Path) -> None:
    path.chmod(0o400)
    path.parent.chmod(0o500)


def not_to_be_read(path: Path) -> None:
    path.chmod(0o000)


class Weather(NamedTuple):
    """What is against a command, and what it says then."""

    spoil: Callable[[Path], object] | None
    """Does something to the journal."""
    by: tuple[str, ...]
    """How the command is run."""
    codes: tuple[int, ...]
    told: str


FULL_AT_ONCE = Weather(None, ("33000",), (6, 75), "disk I/O error")
FULL_LATER = Weather(None, ("50000",), (0, 6, 75), "")  # where exactly the room ends depends on what is written
NEWER = Weather(of_a_newer_version, (), (6,), "upgrade durable_sqlite")
READ_ONLY = Weather(not_to_be_written, ("mortal",), (6,), "see that you may write the journal and its folder")
DENIED = Weather(not_to_be_read, ("mortal",), (6,), "see that you may read it")
BY_NAME = {
    "full-at-once": FULL_AT_ONCE,
    "full-later": FULL_LATER,
    "newer": NEWER,
    "read-only": READ_ONLY,
    "denied": DENIED,
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("weather", BY_NAME.values(), ids=list(BY_NAME))
def test_who_writes_in_bad_weather_is_told_what_it_is(there: Stand, name: str, weather: Weather) -> None:
    if weather is FULL_LATER and name == "resume":
        pytest.skip("a run that is driven waits for room, as a worker does")
    becomes: tuple[str | Path, ...] = (sys.executable, BECOMES, *weather.by) if weather.by else ()
    if weather.spoil is not None:
        weather.spoil(there.folder / "runs.db")
    try:
        said = there.type(*words_of(name), codes=weather.codes, by=becomes)
    finally:
        there.folder.chmod(0o700)
    assert weather.told in said.err


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*ACTING, *LOOKING, "doctor", "migrate"])
def test_every_command_keeps_to_words_where_it_may_not_write_or_read(there: Stand, name: str) -> None:
    path = there.folder / "runs.db"
    mortal: tuple[str | Path, ...] = (sys.executable, BECOMES, "mortal")
    try:
        not_to_be_written(path)
        there.type(*words_of(name), codes=(0, 1, 6), by=mortal)
        not_to_be_read(path)
        there.type(*words_of(name), codes=(1, 6), by=mortal)
    finally:
        there.folder.chmod(0o700)


@pytest.mark.thorough
def test_a_person_does_not_wait_for_ever_for_a_lock_that_somebody_else_holds(there: Stand) -> None:
    with closing(sqlite3.connect(there.folder / "runs.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        said = there.type("cancel", "run-sleeps", codes=(75,))  # it waits for its thirty seconds
        connection.execute("ROLLBACK")
    assert "for the write lock of" in said.err
    assert "could not be opened within 30 s; what it waited for is told above" in said.err
    there.type("cancel", "run-sleeps")


_LOSES = """
import os
from durable_sqlite import Engine, step, workflow

@step
def lose():
    os.rename("runs.db", "elsewhere.db")

@step
def after():
    pass

@workflow
async def loses():
    await lose()
    await after()

engine = Engine("runs.db", storage_patience=0.2)
"""


@pytest.mark.thorough
def test_a_journal_that_is_taken_away_while_a_run_is_driven_is_told_in_words(there: Stand) -> None:
    (there.folder / "loses.py").write_text(_LOSES)
    there.type("start", "loses", "--id", "lost", "--app", "loses:engine")
    said = there.type("resume", "lost", "--app", "loses:engine", codes=(6,))
    assert "was moved, replaced or deleted while it was open" in said.err
    assert "put them back, and start again" in said.err


@pytest.mark.parametrize("count", [8, pytest.param(150, marks=pytest.mark.thorough)])
def test_no_act_on_a_damaged_journal_shows_a_traceback(
    shop: Path, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DURABLE_SQLITE_DB", raising=False)
    for number in range(count):
        path = spoilt(shop, tmp_path, chance, number)
        for name in chance.sample([name for name in ACTING if name not in ("start", "resume")], 4):
            words = [*name.split(), *(f"{number}-copy.db" if word == "copy.db" else word for word in GOOD[name].words)]
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([*words, "--db", str(path)])
            assert code in (0, 2, 3, 6, 75), (words, code, err.getvalue())
            assert traces(out.getvalue() + err.getvalue()) == [], (words, err.getvalue())
            assert out.getvalue() + err.getvalue()


def test_a_traceback_of_ours_is_known_by_what_the_tests_look_for() -> None:
    assert traces("Task exception was never retrieved")
    assert traces(f'  File "{os.fspath(Path(main.__code__.co_filename))}", line 3')
    assert not traces("durable_sqlite: nothing is wrong")
