"""Verifying in bad weather: what cannot be read is named, what heals by waiting is waited for, and the two are kept apart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._findings import FindingKind, Verification
from durable_sqlite._records import IfExists
from durable_sqlite._sqlite import SqliteJournal, past, statements, sums
from durable_sqlite._sqlite.mark import Seen
from durable_sqlite._sqlite.rows import Tables
from durable_sqlite.errors import JournalDamaged
from tests.sqlite.faults import IOERR, Hours, Weather, faulty, opened, storage_error
from tests.support.journals import begin, entry, new_run

CORRUPT = storage_error(sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT")
SQL = statements.load()
OF_ENTRIES = "SELECT run, key, seq"
"""How the entries of a run are read to be held against their sum."""


def tamper(path: Path, *statements: str) -> None:
    """Write past the journal."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for sql in statements:
            assert connection.execute(sql).rowcount, sql


def healing(weather: Weather) -> Hours:
    """A clock on which the weather is good again after five seconds."""
    return Hours(lambda now: weather.good() if now >= 5 else None)


def found_in(path: Path, error: sqlite3.Error, word: str, *tampering: str) -> Verification:
    """What is found in a journal of one run where statements that begin with a word fail, for five seconds."""

    async def main() -> Verification:
        weather = Weather()
        async with opened(path, connection=faulty(weather), **healing(weather).options) as journal:
            _, hold = await begin(journal)
            await journal.record(hold, entry())
            tamper(path, *tampering)
            weather.bad(error, word)
            found = await journal.verify(False)
            assert any(sql.startswith(word) for sql in weather.seen)
            weather.good()
            return found

    return asyncio.run(main())


LOOKS = {
    "the file": ("PRAGMA integrity_check", FindingKind.STRUCTURE, "it cannot be checked (SQLITE_CORRUPT"),
    "the schema": (SQL["own_shape"], FindingKind.SCHEMA, "the schema cannot be read (SQLITE_CORRUPT"),
    "a table": (
        "PRAGMA foreign_key_check(durable_runs)",
        FindingKind.STRUCTURE,
        "durable_runs cannot be read (SQLITE_",
    ),
    "the row that counts": (
        SQL["tick_now"],
        FindingKind.STRUCTURE,
        "the row of durable_ticks cannot be read (SQLITE_CORRUPT",
    ),
    "rows of a run": (OF_ENTRIES, FindingKind.ROWS, "run a: its entries cannot be read (SQLITE_CORRUPT"),
}


@pytest.mark.parametrize("what", list(LOOKS))
def test_what_cannot_be_read_is_named(tmp_path: Path, what: str) -> None:
    word, kind, told = LOOKS[what]
    (finding,) = found_in(tmp_path / "j.db", CORRUPT, word).findings
    assert finding.kind is kind
    assert told in finding.what


@pytest.mark.parametrize("word", [*(word for word, _kind, _told in LOOKS.values()), SQL["numbers"], SQL["sums"]])
def test_a_storage_in_trouble_is_waited_for_and_is_no_damage(tmp_path: Path, word: str) -> None:
    found = found_in(tmp_path / "j.db", IOERR, word)
    assert found.findings == ()
    assert found.runs == 1


def test_a_damaged_run_whose_id_cannot_be_read_is_named_by_its_number(tmp_path: Path) -> None:
    (finding,) = found_in(
        tmp_path / "j.db", CORRUPT, SQL["id_of"], "UPDATE durable_entries SET payload = x'00'"
    ).findings
    assert (finding.run, finding.kind, finding.key) == (None, FindingKind.ENTRY, "s#1")
    assert "run number 1: its entry s#1" in finding.what
    assert "accept" not in finding.next_move


def test_a_damaged_run_whose_id_can_be_read_later_is_named_by_it(tmp_path: Path) -> None:
    (finding,) = found_in(tmp_path / "j.db", IOERR, SQL["id_of"], "UPDATE durable_entries SET payload = x'00'").findings
    assert finding.run == "a"


def test_words_that_are_no_words_any_more_are_damage_of_their_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with opened(path) as journal:
            for name in "ab":
                _, hold = await begin(journal, name)
                await journal.record(hold, entry())
            tamper(path, "UPDATE durable_entries SET name = CAST(x'ff' AS TEXT) WHERE run = 1")
            (finding,) = (await journal.verify(False)).findings
            assert (finding.run, finding.kind, finding.key) == ("a", FindingKind.ENTRY, "s#1")

    asyncio.run(main())


def test_a_journal_that_lost_its_own_row_is_named_and_not_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with opened(path) as journal:
            await begin(journal)
            tamper(path, "CREATE TABLE kept AS SELECT * FROM durable_ticks", "DELETE FROM durable_ticks")
            (finding,) = (await journal.verify(False)).findings
            assert (finding.kind, finding.what) == (FindingKind.STRUCTURE, "the row of durable_ticks is missing")
            tamper(path, "INSERT INTO durable_ticks SELECT * FROM kept")
        tamper(path, "DELETE FROM durable_ticks")
        with pytest.raises(JournalDamaged, match=r"row of the journal's own is missing .*restore a backup"):
            await SqliteJournal(path).open("w", 1)

    asyncio.run(main())


def test_a_run_that_only_an_index_names_is_damage(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await begin(journal)

    asyncio.run(main())
    with closing(sqlite3.connect(tmp_path / "j.db")) as connection:
        tables = Tables(connection, SQL)
        assert tables.run(1).id == "a"
        with pytest.raises(
            JournalDamaged, match="run number 2 is named by an index and is not there: restore a backup"
        ):
            tables.run(2)


def test_what_the_mark_knows_better_is_told_by_who_only_looks(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await begin(journal)

    asyncio.run(main())
    with closing(sqlite3.connect(f"file:{tmp_path / 'j.db'}?mode=ro", uri=True)) as connection:
        tables = Tables(connection, SQL)
        ((identity,),) = tables.all("meta_value", {"name": "identity"})
        assert past.unfit(tables, Seen(0, ()), identity) == []
        lost, other = past.unfit(tables, Seen(10**9, ("beef",)), identity)
    assert (lost.kind, other.kind) == (FindingKind.WENT_BACK, FindingKind.OTHER_JOURNAL)
    assert "the journal went back by" in lost.what
    assert "beef" in other.what


# What reads in order to act ------------------------------------------------------------------------------------------


def test_a_run_that_cannot_be_taken_for_a_while_is_not_put_aside(tmp_path: Path) -> None:
    async def main() -> None:
        weather = Weather()
        async with opened(tmp_path / "j.db", connection=faulty(weather), **healing(weather).options) as journal:
            await journal.start(new_run(), IfExists.ATTACH, drive=False)
            weather.bad(IOERR, SQL["take"])
            claimed = await journal.claim(["ship"], 99, 9, suspects=False)
            assert [each.row.id for each in claimed] == ["a"]

    asyncio.run(main())


def test_a_damaged_run_that_cannot_be_put_aside_for_a_while_is_put_aside_then(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        weather = Weather()
        async with opened(path, connection=faulty(weather), **healing(weather).options) as journal:
            await journal.start(new_run(), IfExists.ATTACH, drive=False)
            tamper(path, "UPDATE durable_runs SET failed_keys = 'no JSON'")
            weather.bad(IOERR, SQL["quarantine"])
            assert await journal.claim(["ship"], 99, 9, suspects=False) == []
            with closing(journal.connect()) as connection:
                states = connection.execute("SELECT state, reason FROM durable_runs").fetchall()
            assert states == [("parked", "damaged")]

    asyncio.run(main())


def test_of_a_damaged_run_all_is_read_once_the_storage_is_well(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        weather = Weather()
        async with opened(path, connection=faulty(weather), **healing(weather).options) as journal:
            row, hold = await begin(journal)
            await journal.record(hold, entry())
            tamper(path, "UPDATE durable_entries SET payload = x'00'")
            weather.bad(IOERR, SQL["attempts"])
            memory = await journal.memory(row.row.no)
            assert memory.damage == "its entry s#1 is not what was recorded"
            assert [each.key for each in memory.entries] == ["s#1"]

    asyncio.run(main())


# Summing what was there before there were sums -----------------------------------------------------------------------


def unsummed(path: Path) -> None:
    """A journal with one run that was never summed."""

    async def main() -> None:
        async with opened(path) as journal:
            _, hold = await begin(journal)
            await journal.record(hold, entry())

    asyncio.run(main())
    tamper(path, "DELETE FROM durable_sums", "DELETE FROM durable_meta WHERE name = 'sums'")


class Watched(sqlite3.Connection):
    """A connection that tells of each statement before it is executed."""

    tell: Callable[[str], object]

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.tell(sql)
        return super().execute(sql, parameters)


def fill(path: Path, tell: Callable[[str], object] = str) -> None:
    """Sum a journal."""
    with closing(sqlite3.connect(path, isolation_level=None, factory=Watched)) as connection:
        connection.tell = tell
        try:
            sums.fill(Tables(connection, SQL))
        finally:
            assert not connection.in_transaction


def sums_of(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM durable_sums ORDER BY run, part").fetchall()


def test_two_processes_that_find_a_journal_without_sums_sum_it_once(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    unsummed(path)
    seen: list[str] = []

    def overtaken(sql: str) -> None:
        if sql == "BEGIN IMMEDIATE":
            fill(path)
        seen.append(sql)

    fill(path, overtaken)
    assert seen[-1] == "COMMIT"
    assert "DELETE FROM durable_sums" not in seen
    assert sums_of(path)


def test_a_journal_that_could_not_be_summed_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    unsummed(path)

    def at_the_end(sql: str) -> None:
        if sql == "COMMIT":
            raise IOERR

    with pytest.raises(sqlite3.OperationalError, match="injected"):
        fill(path, at_the_end)
    assert sums_of(path) == []
    fill(path)
    assert sums_of(path)
