"""How a journal's file is created, recognised and refused."""

# pyright: reportPrivateUsage=false
# The promise is about connections, which no public name shows.
from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import IfExists, RunQuery
from durable_sqlite._sqlite import SqliteJournal, connect
from durable_sqlite.errors import (
    EngineClosed,
    JournalDamaged,
    JournalError,
    JournalMismatch,
    JournalTooNew,
    NotAJournal,
)
from tests.sqlite.faults import Naps, faulty, storage_error
from tests.support.journals import begin, entry, new_run


def open_and_close(path: Path | str, *, name: str = "w", **options: Any) -> None:
    async def main() -> None:
        journal = SqliteJournal(path, **options)
        await journal.open(name, 1)
        await journal.close(2)

    asyncio.run(main())


def traces(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1)
        for file in ("j.db", "j.db-wal", "j.db-shm"):
            assert (tmp_path / file).stat().st_mode & 0o777 == 0o600
        await journal.close(2)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["a b.db", "what?mode=ro.db", "50%20.db", "#1.db", "é.db", "a&b=c;.db"])
def test_any_file_name_means_exactly_that_file(tmp_path: Path, name: str) -> None:
    open_and_close(tmp_path / name)
    assert sorted(traces(tmp_path)) == [name, f"{name}-mark"]
    open_and_close(tmp_path / name)


def test_a_relative_path_stays_the_same_file_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    journal = SqliteJournal("j.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert journal.path == str(tmp_path / "j.db")


@pytest.mark.parametrize("content", [b"hello", b"x" * 5000, bytes(5000), b"SQLite format 3\0"])
def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j.db").write_bytes(content)
    with pytest.raises(NotAJournal):
        open_and_close(tmp_path / "j.db")
    assert traces(tmp_path) == {"j.db": content}


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_database_of_another_application_is_refused_untouched(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "j.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE theirs (x)")
        # What a crash of theirs left: a WAL that only they may recover.
        before = traces(tmp_path)
    with closing(sqlite3.connect(path)):
        pass
    for name in set(traces(tmp_path)) | set(before):
        (tmp_path / name).unlink(missing_ok=True)
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(NotAJournal, match="another application"):
        open_and_close(path)
    assert traces(tmp_path) == before


def test_a_file_whose_creation_was_cut_short_becomes_a_journal(tmp_path: Path) -> None:
    (tmp_path / "j.db").touch()
    open_and_close(tmp_path / "j.db")
    open_and_close(tmp_path / "j.db")


@pytest.mark.parametrize("left", [b"", b"SQLite format 3\0" + bytes(600), bytes(4096), b"any sector, or none" * 90])
def test_a_file_whose_creation_a_power_cut_left_in_pieces_becomes_a_journal(tmp_path: Path, left: bytes) -> None:
    _cut_creation_short(tmp_path / "j.db")
    (tmp_path / "j.db").write_bytes(left)
    open_and_close(tmp_path / "j.db")
    assert sorted(traces(tmp_path)) == ["j.db", "j.db-mark"]


@pytest.mark.parametrize("length", [0, 8, 20, 27])
def test_half_a_rollback_journal_makes_no_journal_of_a_strangers_file(tmp_path: Path, length: int) -> None:
    _cut_creation_short(tmp_path / "j.db")
    (tmp_path / "j.db").write_bytes(b"hello" * 100)
    journal = tmp_path / "j.db-journal"
    journal.write_bytes(bytes(8) + journal.read_bytes()[8:length])
    with pytest.raises(NotAJournal):
        open_and_close(tmp_path / "j.db")
    assert (tmp_path / "j.db").read_bytes() == b"hello" * 100


def _cut_creation_short(path: Path) -> None:
    """Leave what a process leaves that dies in its first transaction: a file, and the way back to nothing."""
    program = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN'); c.execute('CREATE TABLE t (x)'); "
        "c.executemany('INSERT INTO t VALUES (?)', [('x' * 3000,)] * 50); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    assert (path.parent / f"{path.name}-journal").stat().st_size


def test_a_checkpoint_that_was_cut_short_or_is_under_way_keeps_nobody_from_opening(tmp_path: Path) -> None:
    live, cut, whole = tmp_path / "live.db", tmp_path / "cut.db", tmp_path / "whole.db"

    def copy_to(target: Path) -> None:
        for suffix in ("", "-wal"):
            # Another process does it: to open the file in this one would drop the locks of the connection.
            subprocess.run(["cp", f"{live}{suffix}", f"{target}{suffix}"], check=True)

    async def main() -> None:
        journal = SqliteJournal(live)
        await journal.open("w", 1)
        with closing(sqlite3.connect(live, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM durable_runs").fetchall()  # no checkpoint comes past what it sees
            for n in range(1000):
                await journal.start(new_run(f"run-{n}"), IfExists.ATTACH, drive=False)
            copy_to(cut)
            copy_to(whole)
        await journal.close(2)

    asyncio.run(main())
    with closing(sqlite3.connect(whole)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    # A checkpoint writes the pages in their order, and the first says how many there are.
    first, short = whole.read_bytes()[:4096], cut.stat().st_size
    assert int.from_bytes(first[28:32], "big") * 4096 > short
    with cut.open("r+b") as file:
        file.write(first)
    open_and_close(cut, name="another")
    with closing(sqlite3.connect(cut)) as connection:
        assert connection.execute("SELECT count(*) FROM durable_runs").fetchall() == [(1000,)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_newer_journal_is_refused_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    open_and_close(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(JournalTooNew, match="upgrade"):
        open_and_close(path)
    assert path.read_bytes() == before


def test_a_journal_keeps_its_codec(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    open_and_close(path, codec="zip")
    open_and_close(path, codec="zip")
    for other in ("", "rot13"):
        with pytest.raises(JournalMismatch, match="zip"):
            open_and_close(path, codec=other)


def test_a_path_that_cannot_be_opened_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="folder"):
        open_and_close(tmp_path / "missing" / "j.db")
    with pytest.raises(JournalError):
        open_and_close(tmp_path)


def test_an_error_while_opening_is_told_at_once_and_in_our_words(tmp_path: Path) -> None:
    def full(sql: str, call: Callable[[], Any]) -> Any:
        if sql.startswith("CREATE TABLE"):
            raise storage_error(sqlite3.SQLITE_FULL, "SQLITE_FULL")
        return call()

    with pytest.raises(JournalError, match="SQLITE_FULL"):
        open_and_close(tmp_path / "j.db", connection=faulty(full))
    open_and_close(tmp_path / "j.db")


def test_opening_waits_for_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    open_and_close(path)
    refusals = iter(range(3))

    def busy(sql: str, call: Callable[[], Any]) -> Any:
        if sql.startswith("BEGIN") and next(refusals, None) is not None:
            raise storage_error(sqlite3.SQLITE_BUSY, "SQLITE_BUSY")
        return call()

    naps = Naps()
    open_and_close(path, connection=faulty(busy), sleep=naps, chance=lambda: 1.0)
    assert naps.taken == [0.02, 0.04, 0.08]


def test_a_file_system_without_wal_is_refused(tmp_path: Path) -> None:
    def stubborn(sql: str, call: Callable[[], Any]) -> Any:
        if "journal_mode" in sql:
            with closing(sqlite3.connect(":memory:")) as other:
                rows = other.execute("SELECT 'delete'").fetchall()

            class Answer:
                def fetchall(self) -> list[Any]:
                    return rows

            return Answer()
        return call()

    with pytest.raises(JournalError, match="WAL mode"):
        open_and_close(tmp_path / "j.db", connection=faulty(stubborn))


def test_an_sqlite_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(JournalError, match=r"3\.37"):
        open_and_close(tmp_path / "j.db")


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_connections_are_set_for_durability(tmp_path: Path, synchronous: connect.Synchronous) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db", synchronous=synchronous)
        await journal.open("w", 1)
        assert journal._writer is not None
        assert journal._reader is not None

        def told(name: str) -> Callable[[sqlite3.Connection], Any]:
            return lambda connection: connection.execute(f"PRAGMA {name}").fetchall()[0][0]

        for name, value in {
            "journal_mode": "wal",
            "synchronous": {"full": 2, "normal": 1}[synchronous],
            "foreign_keys": 1,
            "trusted_schema": 0,
            "cell_size_check": 1,
            "temp_store": 2,
            "wal_autocheckpoint": 0,
            "busy_timeout": 250,
            "query_only": 0,
            "application_id": connect.APPLICATION_ID,
        }.items():
            assert await journal._writer.link.run(told(name)) == value, name
        assert await journal._reader.link.run(told("query_only")) == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await journal._reader.link.run(lambda connection: connection.execute("DELETE FROM durable_runs"))
        await journal.close(2)

    asyncio.run(main())


def test_a_journal_in_memory_works_and_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        for _ in range(2):
            journal = SqliteJournal(":memory:")
            await journal.open("w", 1)
            assert await journal.count(RunQuery()) == 0
            started, hold = await begin(journal)
            await journal.record(hold, entry())
            assert await journal.entries(started.row.no) == [entry()]
            await journal.close(2)

    asyncio.run(main())
    assert traces(tmp_path) == {}


def test_a_journal_object_lives_once(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.close(1)
        journal.stop()
        with pytest.raises(EngineClosed, match="not open"):
            journal.start(new_run(), IfExists.ATTACH, drive=False)
        await journal.open("w", 1)
        with pytest.raises(JournalError, match="opened before"):
            await journal.open("w", 1)
        await journal.close(2)

    asyncio.run(main())


def test_an_opening_that_is_cancelled_leaves_nothing_open(tmp_path: Path) -> None:
    async def main() -> None:
        def busy(sql: str, call: Callable[[], Any]) -> Any:
            if sql.startswith("BEGIN"):
                raise storage_error(sqlite3.SQLITE_BUSY, "SQLITE_BUSY")
            return call()

        naps = Naps(lambda _count: opening.cancel())
        journal = SqliteJournal(tmp_path / "j.db", connection=faulty(busy), sleep=naps)
        opening = asyncio.create_task(journal.open("w", 1))
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert journal._writer is not None
        assert not journal._writer.link.is_open
        await journal.close(1)

    asyncio.run(main())


def test_a_journal_that_cannot_say_which_one_it_is_is_refused_as_damaged_and_left_as_it_is(tmp_path: Path) -> None:
    """Bytes where a text should be: a flipped bit in the header of a row makes them so, past what SQLite checks."""
    path = tmp_path / "j.db"
    open_and_close(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        (schema,) = shell.execute("SELECT sql FROM sqlite_schema WHERE name = 'durable_meta'").fetchone()
        shell.execute("PRAGMA writable_schema = ON")
        loose = "CREATE TABLE durable_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID"
        shell.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'durable_meta'", (loose,))
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("UPDATE durable_meta SET value = x'00' WHERE name = 'identity'")
        shell.execute("PRAGMA writable_schema = ON")
        shell.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'durable_meta'", (schema,))
    with pytest.raises(JournalDamaged, match="keeps of itself is damaged"):
        open_and_close(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as shell:
        assert shell.execute("SELECT count(*) FROM durable_workers").fetchone() == (0,)


def test_a_writer_that_goes_on_in_a_forked_child_ends_there_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio has no loop for it there, and says so to whatever waits; this is played here, as in the test below."""

    async def main() -> None:
        told: list[BaseException] = []
        journal = SqliteJournal(tmp_path / "j.db", broken=told.append)
        await journal.open("w", 1)
        assert journal._life is not None
        assert journal._writer is not None

        async def elsewhere() -> bool:
            raise RuntimeError("is bound to a different event loop")

        monkeypatch.setattr(journal._writer._news, "wait", elsewhere)
        journal._estate.inherited = True
        await asyncio.wait([journal._life])
        assert journal._life.exception() is None
        assert told == []
        await journal._let_go()  # what the parent does in its time

    asyncio.run(main())
    assert "broken" not in caplog.text


def test_a_forked_child_that_puts_away_its_parents_loop_writes_nothing(tmp_path: Path) -> None:
    """Its part is played here by the process itself; between real ones it is proved in the tests of forks."""

    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1)
        assert journal._life is not None
        await journal.sound()  # the writer is at its work by then
        journal._estate.inherited = True
        journal._life.cancel()
        await asyncio.wait([journal._life])
        assert not journal._life.cancelled()
        assert all(link.is_open for link in journal._links())
        await journal.close(2)
        assert all(link.is_open for link in journal._links())
        await journal._let_go()  # what the parent does in its time

    asyncio.run(main())
