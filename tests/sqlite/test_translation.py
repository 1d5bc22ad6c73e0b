# pyright: reportPrivateUsage=false
# Connections have no public name.
"""Nothing raw from sqlite3 reaches a person: every code, at every place where it can come up, is told in this library's words."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine
from durable_sqlite._records import RunQuery
from durable_sqlite._sqlite import SqliteJournal, connect
from durable_sqlite._sqlite.faults import Fault, fault_of, translate
from durable_sqlite._sqlite.link import JobConnection
from durable_sqlite.errors import DurableError, JournalDamaged, JournalError, NotAJournal, StorageStalled
from tests.sqlite.faults import Hours, Weather, faulty, opened, storage_error
from tests.support.journals import begin, entry, new_message, statement

CODES = {
    name: code
    for name, code in vars(sqlite3).items()
    if name.startswith("SQLITE_")
    and isinstance(code, int)
    and name.removeprefix("SQLITE_").split("_")[0]
    in {
        *("ABORT", "AUTH", "BUSY", "CANTOPEN", "CONSTRAINT", "CORRUPT", "EMPTY", "ERROR", "FORMAT", "FULL", "INTERNAL"),
        *(
            "INTERRUPT",
            "IOERR",
            "LOCKED",
            "MISMATCH",
            "MISUSE",
            "NOLFS",
            "NOMEM",
            "NOTADB",
            "NOTFOUND",
            "PERM",
            "PROTOCOL",
        ),
        *("RANGE", "READONLY", "SCHEMA", "TOOBIG"),
    }
}
"""The result codes that are errors, extended ones included, by their names."""

KINDS = {name: code for name, code in CODES.items() if code < 256 or name == "SQLITE_CORRUPT_VTAB"}
"""Those that are told differently: what an extended code says besides makes a difference nowhere but there."""

EACH = pytest.mark.parametrize(
    "codes", [pytest.param(KINDS, id="each kind"), pytest.param(CODES, id="each code", marks=pytest.mark.thorough)]
)
"""Every day each kind is told at each place, and each code at one; all of them everywhere takes a while."""

HEALING = {
    *("BUSY", "LOCKED", "PROTOCOL", "FULL", "IOERR", "READONLY", "CANTOPEN", "NOMEM", "PERM", "INTERRUPT"),
}


def heals(name: str) -> bool:
    return name.removeprefix("SQLITE_").split("_")[0] in HEALING


def is_told(error: BaseException, path: Path, name: str) -> None:
    """It is of this library, and says which file, what SQLite said, and what to do."""
    assert isinstance(error, DurableError)
    assert not isinstance(error, sqlite3.Error)
    text = str(error)
    assert str(path) in text or "the journal" in text
    assert name in text or isinstance(error, NotAJournal)
    moves = ("try again", "restore a backup", "report it", "not touched", "nothing changed", "ask again", "more memory")
    assert any(move in text.lower() for move in moves), text


def test_the_codes_are_all_there() -> None:
    assert {"SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY_RECOVERY", "SQLITE_IOERR_FSYNC", "SQLITE_FULL"} <= CODES.keys()
    assert len(CODES) > 80


@pytest.mark.parametrize("name", list(CODES))
def test_each_code_is_told_with_facts_and_the_next_move(name: str, tmp_path: Path) -> None:
    error = storage_error(CODES[name], name)
    is_told(translate(error, path=str(tmp_path)), tmp_path, name)
    assert (fault_of(error) in (Fault.BUSY, Fault.STALLED)) == heals(name)


def test_an_error_without_a_code_is_told_as_well(tmp_path: Path) -> None:
    told = translate(sqlite3.ProgrammingError("Cannot operate on a closed database."), path=str(tmp_path))
    is_told(told, tmp_path, "ProgrammingError")
    assert told.__cause__ is not None


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("Could not decode to UTF-8 column 'id' with text 'x'"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
)
def test_text_that_is_none_is_told_as_damage(error: sqlite3.Error | UnicodeDecodeError, tmp_path: Path) -> None:
    told = translate(error, path=str(tmp_path))
    assert isinstance(told, JournalDamaged)
    assert f"{tmp_path} is damaged ({error}): restore a backup" in str(told)


# Where they come up --------------------------------------------------------------------------------------------------

Place = tuple[Callable[[SqliteJournal, Any], Awaitable[object]], str]

PLACES: dict[str, Place] = {
    "a client's write": (lambda journal, hold: journal.signal("a", new_message()), "BEGIN"),
    "a client's statement": (lambda journal, hold: journal.signal("a", new_message()), "INSERT INTO durable_signals"),
    "a transaction": (lambda journal, hold: journal.transact(statement("SELECT 1")), "SAVEPOINT"),
    "a read": (lambda journal, hold: journal.run("a"), "BEGIN"),
    "a statement of a read": (lambda journal, hold: journal.runs(RunQuery()), "SELECT"),
    "a long read": (lambda journal, hold: journal.memory(1), "SELECT"),
}


@EACH
@pytest.mark.parametrize("place", list(PLACES))
def test_no_code_comes_out_raw_of_any_verb(tmp_path: Path, place: str, codes: dict[str, int]) -> None:
    act, word = PLACES[place]

    path = tmp_path / "j.db"

    async def main() -> None:
        weather = Weather()
        async with opened(path, connection=faulty(weather), **Hours().options) as journal:
            _, hold = await begin(journal)
            for name, code in codes.items():
                weather.bad(storage_error(code, name), word)
                with pytest.raises(DurableError) as caught:
                    await act(journal, hold)
                weather.good()
                is_told(caught.value, path, name)
                assert isinstance(caught.value, StorageStalled) == heals(name)
            await journal.record(hold, entry())  # it has come through all of that

    asyncio.run(main())


def new_journal(path: Path) -> bytes:
    """What a journal is that nothing was written into: made once, since to make one takes longer than all the rest."""

    async def main() -> None:
        journal = SqliteJournal(path)
        await journal.open("w", 1)
        await journal.close(2)

    asyncio.run(main())
    return path.read_bytes()


OPENING = [
    "PRAGMA page_count",
    "PRAGMA journal_mode",
    "PRAGMA synchronous",
    "PRAGMA user_version",
    "BEGIN",
    "INSERT INTO durable_workers",
]


@EACH
@pytest.mark.parametrize("word", [*OPENING, "COMMIT", "PRAGMA schema_version", "PRAGMA query_only = ON"])
def test_no_code_comes_out_raw_of_an_opening(tmp_path: Path, word: str, codes: dict[str, int]) -> None:
    fresh = new_journal(tmp_path / "fresh.db")

    async def main() -> None:
        for name, code in codes.items():
            if fault_of(storage_error(code, name)) is Fault.BUSY:
                continue  # that is waited for
            path, weather = tmp_path / f"{name}.db", Weather()
            path.write_bytes(fresh)
            weather.bad(storage_error(code, name), word)
            with pytest.raises(DurableError) as caught:
                async with opened(path, connection=faulty(weather), **Hours().options):
                    pass
            is_told(caught.value, path, name)

    asyncio.run(main())


@pytest.mark.parametrize(
    "name", ["SQLITE_BUSY", "SQLITE_BUSY_RECOVERY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED", "SQLITE_PROTOCOL"]
)
@pytest.mark.parametrize("word", ["PRAGMA journal_mode", "BEGIN", "PRAGMA schema_version"])
def test_an_opening_waits_for_a_lock_whatever_its_kind(
    tmp_path: Path, name: str, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        weather = Weather()
        hours = Hours(lambda now: weather.good() if now >= 60 else None)
        weather.bad(storage_error(CODES[name], name), word)
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options):
            assert hours.now >= 60

    asyncio.run(main())
    assert any("write lock" in record.getMessage() for record in caplog.records)


def test_a_storm_of_locks_of_all_kinds_fails_no_write_and_no_read(tmp_path: Path) -> None:
    kinds = [name for name in CODES if fault_of(storage_error(CODES[name], name)) is Fault.BUSY]

    async def main() -> None:
        weather = Weather()
        storm = [storage_error(CODES[name], name) for name in kinds * 7]

        def next_gust(_now: float) -> None:
            weather.good()
            if storm:
                weather.bad(storm.pop(), "BEGIN", "SELECT")

        hours = Hours(next_gust)
        async with opened(tmp_path / "j.db", connection=faulty(weather), **hours.options) as journal:
            _, hold = await begin(journal)
            next_gust(0)
            writes = [journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in range(1, 9)]
            await journal.memories([1])
            await asyncio.gather(*writes)
            assert len(await journal.entries(1)) == 8
            assert not storm

    asyncio.run(main())
    assert len(kinds) >= 6


class Cruel(JobConnection):
    """Connections that cannot be closed."""

    def close(self) -> None:
        super().close()
        raise storage_error(sqlite3.SQLITE_IOERR, "SQLITE_IOERR")


def test_no_code_comes_out_raw_of_a_close(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        weather = Weather()
        journal = SqliteJournal(tmp_path / "j.db", connection=faulty(weather))
        await journal.open("w", 1)
        weather.bad(
            storage_error(sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"),
            "PRAGMA wal_checkpoint",
            "PRAGMA busy_timeout",
        )
        await journal.close(2)
        journal = SqliteJournal(tmp_path / "j.db", connection=Cruel)
        await journal.open("w", 1)
        await journal.close(2)

    asyncio.run(main())
    assert "checkpoint of" in caplog.text
    assert "could not be closed" in caplog.text


@pytest.mark.parametrize("name", list(CODES))
def test_no_code_comes_out_raw_where_the_application_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Refusing(connect.OwnConnection):
        def execute(self, *args: Any) -> Any:
            raise storage_error(CODES[name], name)

    monkeypatch.setattr(connect, "OwnConnection", Refusing)
    path = tmp_path / "j.db"
    path.touch()
    with pytest.raises(JournalError) as caught:
        connect.for_the_application(str(path), synchronous="full")
    is_told(caught.value, path, name)


def test_a_file_that_is_not_there_any_more_is_told_where_the_application_connects(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            (tmp_path / "j.db").rename(tmp_path / "elsewhere.db")
            with pytest.raises(JournalError, match=r"moved|cannot be opened"):
                engine.connect()

    asyncio.run(main())
