"""Checksums: whatever changes behind the journal's back does not fit any more, and whatever the journal does fits."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from durable_sqlite._findings import FindingKind, Verification
from durable_sqlite._records import FailedAttempt, IfExists, Intent, Resumption
from durable_sqlite._sqlite import SqliteJournal, statements
from durable_sqlite._sqlite.rows import Tables
from durable_sqlite._sqlite.sums import PARTS, Part, misfits
from durable_sqlite.errors import JournalDamaged
from tests.sqlite.faults import opened
from tests.support.journals import (
    awaits_message,
    begin,
    completed,
    entry,
    failed,
    new_answer,
    new_message,
    new_question,
    new_run,
    rest,
)


async def fill(journal: SqliteJournal) -> None:
    """Two runs, of which the first has a row of every kind."""
    started = await journal.start(new_run("full", deadline=1_000, tags={"team": "eu"}), IfExists.ATTACH, drive=True)
    hold = started.hold
    assert hold is not None
    await journal.record(hold, entry())
    await journal.record(hold, entry("s#2", seq=2, payload=b"second"))
    await journal.fail(hold, FailedAttempt("s#3", 1, 20, 30, 40, b"error"))
    await journal.intend(hold, Intent("s#4", "s", b"digest", 1, 30))
    await journal.ask(hold, new_question())
    await journal.answer("full", new_answer(name="sign", early=True))
    await journal.signal("full", new_message())
    await journal.signal("full", new_message("other"))
    await journal.record(hold, entry("paid#1", seq=3), [1])
    await journal.suspend(hold, rest(awaits_message("third", key="third#1")))
    _, hold = await begin(journal, "other")
    await journal.record(hold, entry())
    await journal.end(hold, completed())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sums") / "j.db"

    async def main() -> None:
        async with opened(path) as journal:
            await fill(journal)

    asyncio.run(main())
    return path


@contextmanager
def tampering(path: Path) -> Generator[sqlite3.Connection]:
    """A connection that writes past the journal, and whose rows are undone afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.rollback()


def unfit(connection: sqlite3.Connection, run: int) -> list[str]:
    return [each.part for each in misfits(Tables(connection, statements.load()), run)[0]]


COLUMNS = [(part, column) for part in PARTS for column in part.columns if (part.name, column) != ("run", "no")]


@pytest.mark.parametrize(("part", "column"), COLUMNS, ids=[f"{part.name}.{column}" for part, column in COLUMNS])
def test_a_value_that_changed_is_seen_wherever_it_stands(full: Path, part: Part, column: str) -> None:
    with tampering(full) as connection:
        assert unfit(connection, 1) == []
        own = part.where.format(row="")
        new = _another(connection, part.table, column)
        changed = connection.execute(
            f"UPDATE OR REPLACE {part.table} SET {column} = ? WHERE {part.run} = 1 AND {own}", (new,)
        )
        assert changed.rowcount
        assert part.name in unfit(connection, 1)
        if column not in ("run", "no"):
            assert unfit(connection, 2) == []


def _another(connection: sqlite3.Connection, table: str, column: str) -> object:
    """A value that is not there."""
    types = {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({table})")}
    return {"INTEGER": 77, "TEXT": "x", "BLOB": b"x"}[types[column]]


@pytest.mark.parametrize("part", PARTS, ids=[part.name for part in PARTS])
def test_a_row_that_is_lost_is_missed(full: Path, part: Part) -> None:
    with tampering(full) as connection:
        gone = connection.execute(f"DELETE FROM {part.table} WHERE {part.run} = 1 AND {part.where.format(row='')}")
        assert gone.rowcount
        assert unfit(connection, 1) == [part.name]
        assert unfit(connection, 2) == []


def test_an_entry_that_came_back_with_its_old_checksum_does_not_fit(full: Path) -> None:
    with tampering(full) as connection:
        columns = "key, seq, kind, name, digest, outcome, asked, started_at, recorded_at, attempts, payload, checksum"
        connection.execute(f"INSERT INTO durable_entries (run, {columns}) SELECT 2, {columns} FROM durable_entries "
                           "WHERE run = 1 AND key = 's#2'")  # fmt: skip
        assert unfit(connection, 2) == ["entries", "entries"]


def test_every_column_of_every_row_of_a_run_is_summed(full: Path) -> None:
    with closing(sqlite3.connect(full)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        of_runs = {"durable_runs"}
        for table in tables:
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            if "run" in columns and table != "durable_sums":
                of_runs.add(table)
            for part in PARTS:
                if part.table == table:
                    assert set(part.columns) == columns - {"checksum"}
        assert of_runs == {part.table for part in PARTS}


def test_a_run_that_is_replaced_leaves_no_sums_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            _, hold = await begin(journal, "a")
            await journal.record(hold, entry())
            await journal.fail(hold, FailedAttempt("s#3", 1, 20, 30, 40, b"error"))
            await journal.signal("a", new_message())
            await journal.end(hold, failed())
            await journal.start(new_run("a"), IfExists.REPLACE, drive=False)
            with closing(journal.connect()) as connection:
                assert connection.execute("SELECT run, part, number FROM durable_sums").fetchall() == [(2, "run", 1)]
            assert (await journal.verify(False)).ok

    asyncio.run(main())


def found_by(path: Path) -> Verification:
    async def main() -> Verification:
        async with opened(path) as journal:
            return await journal.verify(False)

    return asyncio.run(main())


def test_what_was_recorded_before_there_were_checksums_is_summed_when_the_journal_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with opened(path) as journal:
            await fill(journal)

    asyncio.run(main())
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("SELECT * FROM durable_sums WHERE number > 0").fetchall()
        connection.execute("DELETE FROM durable_sums")
        connection.execute("UPDATE durable_entries SET checksum = NULL")
        connection.execute("DELETE FROM durable_meta WHERE name = 'sums'")
        connection.commit()
    assert found_by(path).ok
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM durable_sums").fetchall() == before
        connection.execute("UPDATE durable_entries SET payload = x'00' WHERE run = 1 AND key = 's#2'")
        connection.commit()
    (finding,) = found_by(path).findings
    assert (finding.kind, finding.run, finding.key) == (FindingKind.ENTRY, "full", "s#2")


def test_a_journal_that_is_summed_is_not_summed_again(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(full.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE durable_runs SET reason = 'none' WHERE no = 1")
        connection.commit()
    for _ in range(2):
        (finding,) = found_by(path).findings
        assert finding.run == "full"


def test_what_is_accepted_is_right_from_then_on_and_nothing_else(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(full.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE durable_entries SET payload = x'00'")
        connection.execute("DELETE FROM durable_signals")
        connection.commit()

    async def main() -> None:
        async with opened(path) as journal:
            found = await journal.verify(["full"])
            assert {finding.run for finding in found.findings} == {"full", "other"}
            assert {finding.run for finding in (await journal.verify(True)).findings} == {"other"}
            assert (await journal.verify(False)).ok

    asyncio.run(main())


def test_a_schema_that_was_changed_by_hand_is_named(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(full.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX durable_runs_by_change")
        connection.execute("CREATE INDEX durable_runs_by_change ON durable_runs (changed, no)")
        connection.commit()
    (finding,) = found_by(path).findings
    assert finding.kind is FindingKind.SCHEMA


def test_rows_that_belong_to_nothing_are_named(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(full.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM durable_runs WHERE no = 2")
        connection.commit()
    reference, run = found_by(path).findings
    assert (reference.kind, run.kind) == (FindingKind.REFERENCE, FindingKind.ROWS)
    assert "durable_entries" in reference.what
    assert "run number 2: its own row is missing" in run.what


def test_a_journal_in_memory_can_be_verified_too() -> None:
    async def main() -> None:
        async with opened(":memory:") as journal:
            await fill(journal)
            found = await journal.verify(False)
            assert (found.ok, found.runs) == (True, 2)
            assert found.rows > 10

    asyncio.run(main())


def test_the_sums_hold_while_everything_is_forgotten_for_a_new_try(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            _, hold = await begin(journal, "a")
            await journal.record(hold, entry())
            await journal.record(hold, entry("s#2", seq=2, asked=1))
            await journal.amend(hold, [("s#1", "renamed", b"new digest")], ["s#2"])
            assert (await journal.verify(False)).ok
            await journal.end(hold, failed(keys=["s#1"]))
            await journal.resume("a", Resumption(50))
            assert [each.key for each in await journal.entries(hold.run)] == []
            assert (await journal.verify(False)).ok

    asyncio.run(main())


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE durable_runs SET result = x'00' WHERE id = 'child'",
        "UPDATE durable_signals SET payload = x'00'",
        "UPDATE durable_questions SET answer = x'00'",
    ],
)
def test_a_body_is_given_nothing_that_is_not_what_was_written(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with opened(path) as journal:
            _, hold = await begin(journal, "a")
            _, child = await begin(journal, "child")
            await journal.end(child, completed())
            await journal.signal("a", new_message())
            await journal.ask(hold, new_question())
            await journal.answer("a", new_answer())
            mail = await journal.mail(hold.run, ["child"])
            assert [len(mail.messages), len(mail.questions), len(mail.ended)] == [1, 1, 1]
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                assert connection.execute(sql).rowcount == 1
            with pytest.raises(JournalDamaged, match="not what was written"):
                await journal.mail(hold.run, ["child"])

    asyncio.run(main())


def test_a_run_that_cannot_be_taken_is_put_aside_and_its_neighbours_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with opened(path) as journal:
            for name in "abc":
                await journal.start(new_run(name), IfExists.ATTACH, drive=False)
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                # Not even parking it helps: whatever is summed of it has to be read.
                connection.execute("UPDATE durable_runs SET failed_keys = CAST(x'ff' AS TEXT) WHERE id = 'a'")
                connection.execute("UPDATE durable_runs SET failed_keys = 'no JSON' WHERE id = 'b'")
            claimed = await journal.claim(["ship"], 99, 9, suspects=False)
            assert [each.row.id for each in claimed] == ["c"]
            assert await journal.claim(["ship"], 99, 9, suspects=False) == []
            with closing(journal.connect()) as connection:
                states = connection.execute("SELECT state FROM durable_runs ORDER BY id").fetchall()
            assert states == [("pending",), ("parked",), ("running",)]

    asyncio.run(main())


def test_an_index_that_lies_gives_nobody_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j.db"
    schema = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema WHERE name = 'durable_runs_pending'"

    async def main() -> None:
        async with opened(path) as journal:
            for name in "ab":
                await journal.start(new_run(name), IfExists.ATTACH, drive=False)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            (row,) = connection.execute(schema).fetchall()
            connection.execute("DELETE FROM sqlite_schema WHERE name = 'durable_runs_pending'")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:  # which does not know of the index
            connection.execute("UPDATE durable_runs SET state = 'suspended' WHERE id = 'a'")
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(
                "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES (?, ?, ?, ?, ?)", row
            )
        async with opened(path) as journal:
            claimed = await journal.claim(["ship"], 99, 9, suspects=False)
            assert [each.row.id for each in claimed] == ["b"]
            assert any(each.kind is FindingKind.STRUCTURE for each in (await journal.verify(False)).findings)
        assert "names run number 1 as ready" in caplog.text

    asyncio.run(main())
