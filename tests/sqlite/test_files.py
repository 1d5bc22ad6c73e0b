# pyright: reportPrivateUsage=false
# Batches and connections have no public name.
"""The journal's files are taken away while they are open: nothing more is acknowledged, and nobody else's file is touched."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from durable_sqlite._records import IfExists
from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.files import Files
from durable_sqlite.errors import JournalError, JournalGone
from tests.sqlite.faults import IOERR, Hours, Weather, faulty
from tests.support.journals import begin, entry, new_run

SUFFIXES = ("", "-wal", "-shm")
FILES_OS = "durable_sqlite._sqlite.files.os"


def take_away(path: Path, suffix: str, how: str) -> None:
    """Delete, rename or replace one of the files."""
    target = Path(f"{path}{suffix}")
    if how == "deleted":
        target.unlink()
    else:
        target.rename(f"{target}.away")
    if how == "replaced":
        target.write_bytes(b"somebody else's")


def put_back(path: Path, suffix: str) -> None:
    target = Path(f"{path}{suffix}")
    Path(f"{target}.away").replace(target)


def others(path: Path) -> dict[str, tuple[int, ...]]:
    """What has the names of the journal's files now: which files, and when they were written.

    They are not opened: to close one of them again would drop SQLite's locks. What is in shared memory changes as it is left.
    """
    found: dict[str, tuple[int, ...]] = {}
    for suffix in SUFFIXES:
        with suppress(FileNotFoundError):
            now = Path(f"{path}{suffix}").stat()
            written = () if suffix == "-shm" else (now.st_size, now.st_mtime_ns)
            found[suffix] = (now.st_ino, *written)
    return found


async def opened_with_a_run(path: Path, broken: list[JournalError], **options: Any) -> tuple[SqliteJournal, Any]:
    journal = SqliteJournal(path, broken=broken.append, **options)
    await journal.open("w", 1)
    _, hold = await begin(journal)
    return journal, hold


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("how", ["deleted", "renamed", "replaced"])
def test_a_file_that_is_taken_away_stops_the_journal_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, how: str
) -> None:
    path, broken = tmp_path / "j.db", list[JournalError]()

    async def main() -> None:
        journal, hold = await opened_with_a_run(path, broken)
        take_away(path, suffix, how)
        left = others(path)
        writes: list[asyncio.Future[Any]] = [
            journal.record(hold, entry()),
            journal.start(new_run("b"), IfExists.ATTACH, drive=False),
            journal.record(hold, entry("s#2", seq=2)),
        ]
        for write in writes:
            with pytest.raises(JournalGone, match=r"moved, replaced or deleted .* start again"):
                await write
        if how != "deleted":
            put_back(path, suffix)  # too late: what was not acknowledged is nobody's
            left = others(path)
        with pytest.raises(JournalGone):
            await journal.record(hold, entry())
        with pytest.raises(JournalGone):
            await journal.run("a")
        await journal.close(2)
        assert others(path) == left

    asyncio.run(main())
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert len(broken) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whoever_looks_finds_it_too_where_nobody_writes(tmp_path: Path, suffix: str) -> None:
    path, broken = tmp_path / "j.db", list[JournalError]()

    async def main() -> None:
        journal, _ = await opened_with_a_run(path, broken)
        await journal.pulse()
        take_away(path, suffix, "replaced")
        left = others(path)
        with pytest.raises(JournalGone):
            await journal.pulse()
        assert len(broken) == 1
        await journal.close(2)
        assert others(path) == left

    asyncio.run(main())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_close_writes_nothing_into_files_that_are_others_by_now(tmp_path: Path, suffix: str) -> None:
    """Neither a checkpoint nor what SQLite does when the last connection closes: it deletes the WAL by its name."""
    path, broken = tmp_path / "j.db", list[JournalError]()

    async def main() -> None:
        journal, hold = await opened_with_a_run(path, broken)
        await journal.record(hold, entry())
        take_away(path, suffix, "replaced")
        left = others(path)
        await journal.close(2)
        assert others(path) == left

    asyncio.run(main())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_checkpoint_looks_first_whose_files_these_are(tmp_path: Path, suffix: str) -> None:
    path, broken, left = tmp_path / "j.db", list[JournalError](), dict[str, tuple[int, ...]]()

    def failpoint(name: str) -> None:
        if name == "checkpoint.before":
            take_away(path, suffix, "replaced")
            left.update(others(path))

    async def main() -> None:
        journal, hold = await opened_with_a_run(path, broken, failpoint=failpoint)
        await journal.record(hold, entry())
        await journal.close(2)
        assert others(path) == left

    asyncio.run(main())
    assert len(broken) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_end_of_a_program_writes_nothing_into_files_that_are_others_by_now(tmp_path: Path, suffix: str) -> None:
    path, broken = tmp_path / "j.db", list[JournalError]()

    async def main() -> None:
        journal, hold = await opened_with_a_run(path, broken)
        await journal.record(hold, entry())
        take_away(path, suffix, "replaced")
        left.update(others(path))
        journal.record(hold, entry("s#2", seq=2)).add_done_callback(lambda write: write.exception())

    left: dict[str, tuple[int, ...]] = {}
    asyncio.run(main())
    assert others(path) == left


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_acknowledged_that_went_into_a_file_which_lost_its_name_meanwhile(
    tmp_path: Path, suffix: str
) -> None:
    """Between the look and the commit: the last moment at which it can happen."""
    path, broken = tmp_path / "j.db", list[JournalError]()
    on = False

    def plan(sql: str, call: Callable[[], Any]) -> Any:
        if on and sql == "COMMIT":
            take_away(path, suffix, "deleted")
        return call()

    async def main() -> None:
        nonlocal on
        journal, hold = await opened_with_a_run(path, broken, connection=faulty(plan))
        on = True
        with pytest.raises(JournalGone):
            await journal.record(hold, entry())
        on = False
        await journal.close(2)

    asyncio.run(main())
    assert len(broken) == 1


def test_no_acknowledgement_is_given_where_the_time_of_the_folder_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that counts in whole seconds: the WAL is taken away in the one in which something else has changed."""
    path, broken = tmp_path / "j.db", list[JournalError]()
    hours, real = Hours(), os.stat

    class Coarse:
        """What stat says, but for the time of a folder: that does not move."""

        def __init__(self, found: os.stat_result) -> None:
            self._found = found
            self.st_ctime_ns = 1_000_000_000

        def __getattr__(self, name: str) -> Any:
            return getattr(self._found, name)

    def stat(name: str) -> Coarse:
        return Coarse(real(name))

    monkeypatch.setattr(FILES_OS, SimpleNamespace(stat=stat))

    async def main() -> None:
        journal, hold = await opened_with_a_run(path, broken, **hours.options)
        hours.now = 2.0  # the folder may have changed in the second in which the journal was opened
        await journal.record(hold, entry())
        take_away(path, "-wal", "replaced")
        with pytest.raises(JournalGone):
            await journal.record(hold, entry("s#2", seq=2))
        await journal.close(2)

    asyncio.run(main())


def test_a_folder_whose_time_was_put_back_hides_nothing(tmp_path: Path) -> None:
    path, broken = tmp_path / "j.db", list[JournalError]()
    hours, real = Hours(), os.stat

    async def main() -> None:
        journal, hold = await opened_with_a_run(path, broken, **hours.options)
        hours.now = 60.0
        await journal.record(hold, entry())
        before = real(tmp_path)
        take_away(path, "-wal", "replaced")
        os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(JournalGone):
            await journal.record(hold, entry("s#2", seq=2))
        await journal.close(2)

    asyncio.run(main())


def test_the_wal_is_left_alone_while_nothing_can_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look at it makes the next write to it dearer."""
    path, hours, looked = tmp_path / "j.db", Hours(), list[str]()
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").touch()

    real = os.stat

    def stat(name: str) -> os.stat_result:
        looked.append(str(name))
        return real(name)

    monkeypatch.setattr(FILES_OS, SimpleNamespace(stat=stat))
    files = Files(str(path), hours)
    files.remember()
    counts: list[int] = []
    for now in (0.0, 1.0, 2.0, 2.2, 2.3, 9.0):
        hours.now = now
        looked.clear()
        files.check(1)
        counts.append(looked.count(f"{path}-wal"))
    assert counts == [1, 1, 1, 1, 0, 0]
    (tmp_path / "something else").touch()
    looked.clear()
    files.check(1)
    assert looked.count(f"{path}-wal") == 1
    hours.now = 60.0
    files.check(1)
    looked.clear()
    for _ in range(64):
        files.check(1)
    assert looked.count(f"{path}-wal") == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_doubt_about_a_commit_ends_where_the_file_is_not_the_same_any_more(tmp_path: Path, suffix: str) -> None:
    path, broken = tmp_path / "j.db", list[JournalError]()

    async def main() -> None:
        weather, hours, left = Weather(), Hours(), list[dict[str, tuple[int, ...]]]()
        journal, hold = await opened_with_a_run(path, broken, connection=faulty(weather), **hours.options)

        def swap(_now: float) -> None:
            if not left:
                take_away(path, suffix, "replaced")
                left.append(others(path))

        hours.then = swap
        weather.bad(IOERR, "COMMIT", after=True)
        with pytest.raises(JournalGone):
            await journal.record(hold, entry())
        await journal.close(2)
        assert others(path) == left[0]

    asyncio.run(main())
    assert len(broken) == 1


def test_a_journal_that_was_overwritten_in_its_place_is_told_when_it_is_opened_again(tmp_path: Path) -> None:
    """The same file by its number, but no journal any more: as where somebody copied another file over it."""
    path, broken = tmp_path / "j.db", list[JournalError]()

    async def main() -> None:
        weather = Weather()
        journal, hold = await opened_with_a_run(path, broken, connection=faulty(weather), **Hours().options)
        weather.bad(IOERR, "COMMIT", after=True)
        weather.bad(storage(), "SELECT batch", "PRAGMA synchronous")
        with pytest.raises(JournalError, match="not an SQLite database"):
            await journal.record(hold, entry())
        with pytest.raises(JournalError, match="not an SQLite database"):
            await journal.run("a")
        await journal.close(2)

    def storage() -> sqlite3.Error:
        error = sqlite3.DatabaseError("file is not a database")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_NOTADB, "SQLITE_NOTADB"
        return error

    asyncio.run(main())
    assert len(broken) == 1


def test_files_that_cannot_be_looked_at_are_trouble_of_the_storage_and_not_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the commit it is in doubt whether the file is there: it is looked for, and nothing is applied twice."""
    path, broken = tmp_path / "j.db", list[JournalError]()
    real, refused = os.stat, list[str]()
    on = False

    def refusing(name: str) -> os.stat_result:
        if on and len(refused) < 5:
            refused.append(name)
            raise PermissionError(13, "not now", name)
        return real(name)

    monkeypatch.setattr(FILES_OS, SimpleNamespace(stat=refusing))

    def plan(sql: str, call: Callable[[], Any]) -> Any:
        nonlocal on
        answer = call()
        on = on or (sql == "COMMIT" and armed)
        return answer

    armed = False

    async def main() -> None:
        nonlocal armed
        journal, hold = await opened_with_a_run(path, broken, connection=faulty(plan), **Hours().options)
        armed = True
        await journal.record(hold, entry())
        assert len(refused) == 5
        assert len(await journal.entries(1)) == 1
        await journal.close(2)

    asyncio.run(main())
    assert broken == []


def test_a_reader_that_closes_last_leaves_everything_as_it_is(tmp_path: Path) -> None:
    """What the promise above rests on: SQLite's own clean-up needs a connection that may write."""
    path = tmp_path / "j.db"

    async def main() -> None:
        journal = SqliteJournal(path)
        await journal.open("w", 1)
        await begin(journal)
        await journal._let_go()
        assert journal._life is not None
        journal._life.cancel()
        await asyncio.wait([journal._life])

    asyncio.run(main())
    assert Path(f"{path}-wal").stat().st_size > 0
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id FROM durable_runs").fetchall() == [("a",)]


def test_a_journal_whose_checkpoint_was_cut_short_is_not_called_damaged(tmp_path: Path) -> None:
    """The first page was written back and says how large the database is; the others are in the WAL alone."""
    path = tmp_path / "j.db"

    async def left_behind() -> None:
        journal = SqliteJournal(path)
        await journal.open("w", 1)
        _, hold = await begin(journal)
        for seq in range(1, 30):
            await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(5_000)))
        await journal._let_go()
        assert journal._life is not None
        journal._life.cancel()
        await asyncio.wait([journal._life])

    async def main() -> None:
        journal = SqliteJournal(path)
        await journal.open("next", 2)
        assert len(await journal.entries(1)) == 29
        await journal.close(3)

    asyncio.run(left_behind())
    with path.open("r+b") as file:
        header = file.read(100)
        pages = int.from_bytes(header[28:32]) + 1_000
        file.seek(28)
        file.write(pages.to_bytes(4))
        file.seek(92)
        file.write(header[24:28])  # "the number of pages is valid"
    asyncio.run(main())
