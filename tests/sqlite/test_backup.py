# pyright: reportPrivateUsage=false
# The size of a piece has no public name.
"""Copies of a live journal: of one moment, and there under their name only when complete."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import RunQuery, State
from durable_sqlite._sqlite import SqliteJournal, backup
from durable_sqlite.errors import EngineClosed, JournalError, UsageError
from tests.sqlite.faults import BUSY, FULL, Script, faulty, opened
from tests.support.house import environment
from tests.support.journals import begin, bookings, completed, entry, inserts, make_bookings
from tests.support.stage import until

PATIENCE = 20.0


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_PAGES", 4)
    monkeypatch.setattr(backup, "_PAUSE", 0.0)


class Step:
    """Holds up a backup at a failpoint, the first time, until the test lets it go on."""

    def __init__(self, name: str = "backup.step") -> None:
        self.times = 0
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._there = asyncio.Event()
        self._go = threading.Event()

    def __call__(self, name: str) -> None:
        if name == self._name:
            self.times += 1
            self._loop.call_soon_threadsafe(self._there.set)
            assert self._go.wait(PATIENCE)

    async def reached(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._there.wait()

    def go_on(self) -> None:
        self._go.set()


def names(folder: Path) -> set[str]:
    """What is in a folder, side files and SQLite's own aside."""
    return {each.name for each in folder.iterdir() if not re.search(r"-(wal|shm|mark|worker-.*)$", each.name)}


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a copy holds, read where nothing may be written: no WAL, no lock."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(sql).fetchall()


def test_a_backup_is_one_file_for_its_owner_alone_that_opens_as_a_journal(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            _, hold = await begin(journal)
            await journal.record(hold, entry())
            await journal.backup(tmp_path / "copy.db", overwrite=False)
            assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
        assert rows(tmp_path / "copy.db", "SELECT key FROM durable_entries") == [("s#1",)]
        with closing(sqlite3.connect(f"file:{tmp_path / 'copy.db'}?mode=ro", uri=True)) as looking:
            assert looking.execute("SELECT id FROM durable_runs").fetchall() == [("a",)]
            # It needs no WAL to be read, so it can be read from where nothing can be written.
            assert not any((tmp_path / f"copy.db-{end}").exists() for end in ("wal", "shm", "journal"))
        async with opened(tmp_path / "copy.db") as copy:
            run = await copy.run("a")
            assert run is not None
            assert await copy.entries(run.no) == [entry()]

    asyncio.run(main())


def test_the_file_is_for_its_owner_alone_from_the_first_byte_on(tmp_path: Path) -> None:
    async def main() -> None:
        step = Step()
        async with opened(tmp_path / "j.db", failpoint=step) as journal:
            making = asyncio.create_task(journal.backup(tmp_path / "copy.db", overwrite=False))
            await step.reached()
            (part,) = (name for name in names(tmp_path) if name.endswith(".part"))
            assert (tmp_path / part).stat().st_mode & 0o777 == 0o600
            assert not (tmp_path / "copy.db").exists()
            step.go_on()
            await making
        assert names(tmp_path) == {"j.db", "copy.db"}

    asyncio.run(main())


def test_a_backup_is_of_one_moment_however_much_is_written_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        step = Step()
        async with opened(tmp_path / "j.db", failpoint=step) as journal:
            await make_bookings(journal)
            _, hold = await begin(journal)
            for seq in range(1, 40):  # each is a row and an entry in one commit
                await journal.transact_step(hold, entry(f"s#{seq}", seq=seq), inserts(f"{seq:03}" * 100))
            making = asyncio.create_task(journal.backup(tmp_path / "copy.db", overwrite=False))
            await step.reached()
            before = await bookings(journal)
            for seq in range(40, 80):  # acknowledged while the first pieces are copied: nobody waits for the backup
                await journal.transact_step(hold, entry(f"s#{seq}", seq=seq), inserts(f"{seq:03}" * 100))
            step.go_on()
            await making
            pages = (tmp_path / "copy.db").stat().st_size // 4096
            assert step.times == -(-pages // 4) > 3  # it does not begin anew after each commit
        booked = rows(tmp_path / "copy.db", "SELECT name FROM bookings ORDER BY rowid")
        recorded = rows(tmp_path / "copy.db", "SELECT seq FROM durable_entries ORDER BY seq")
        assert [name for (name,) in booked] == before
        assert recorded == [(seq,) for seq in range(1, 40)]

    asyncio.run(main())


def test_what_was_acknowledged_before_the_call_is_in_the_backup(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            _, hold = await begin(journal)

            async def write() -> None:
                for seq in range(1, 200):
                    await journal.record(hold, entry(f"s#{seq}", seq=seq))

            writing = asyncio.create_task(write())
            counts: list[tuple[int, int]] = []
            for number in range(4):
                acknowledged = len(await journal.entries(hold.run))
                await journal.backup(tmp_path / f"{number}.db", overwrite=False)
                found = rows(tmp_path / f"{number}.db", "SELECT seq FROM durable_entries ORDER BY seq")
                assert [seq for (seq,) in found] == list(range(1, len(found) + 1))  # no gap: one state of many
                counts.append((acknowledged, len(found)))
            await writing
            assert all(acknowledged <= copied for acknowledged, copied in counts), counts

    asyncio.run(main())


def test_a_target_that_exists_is_refused_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_bytes(b"theirs")
    target.chmod(0o644)

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            with pytest.raises(UsageError, match="overwrite=True"):
                await journal.backup(target, overwrite=False)
            assert target.read_bytes() == b"theirs"
            await journal.backup(target, overwrite=True)
            assert rows(target, "SELECT count(*) FROM durable_runs") == [(0,)]
            assert target.stat().st_mode & 0o777 == 0o600
            assert names(tmp_path) == {"j.db", "copy.db"}

    asyncio.run(main())


@pytest.mark.parametrize(
    "name",
    [
        "j.db",
        "j.db-wal",
        "j.db-shm",
        "j.db-journal",
        "j.db-mark",
        "j.db-worker-x",
        "link",
        "twin",
        "there/j.db",
        "sub/../j.db",
    ],
)
def test_a_target_that_belongs_to_the_journal_is_refused(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "there").symlink_to(tmp_path)
        (tmp_path / "link").symlink_to(tmp_path / "j.db")
        async with opened(tmp_path / "j.db") as journal:
            (tmp_path / "twin").hardlink_to(tmp_path / "j.db")
            inode = (tmp_path / "j.db").stat().st_ino
            with pytest.raises(UsageError, match="belongs to it"):
                await journal.backup(tmp_path / name, overwrite=True)
            await begin(journal)  # it is unharmed
            assert (tmp_path / "j.db").stat().st_ino == inode

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("nowhere/copy.db", None, "folder of the backup"),
        ("here", Path.mkdir, "is a folder"),
        ("copy.db-wal", Path.touch, "database of this name"),
        ("copy.db-journal", Path.touch, "database of this name"),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None] | None, why: str
) -> None:
    async def main() -> None:
        if make is not None:
            make(tmp_path / name)
        async with opened(tmp_path / "j.db") as journal:
            before = names(tmp_path)
            with pytest.raises(UsageError, match=why):
                await journal.backup(tmp_path / re.sub("-.*", "", name), overwrite=True)
            assert names(tmp_path) == before

    asyncio.run(main())


def test_a_file_that_somebody_makes_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        target = tmp_path / "copy.db"

        def failpoint(name: str) -> None:
            if name == "backup.synced":
                target.write_bytes(b"theirs")

        async with opened(tmp_path / "j.db", failpoint=failpoint) as journal:
            for _ in range(2):
                with pytest.raises(UsageError, match="by now"):
                    await journal.backup(target, overwrite=False)
                assert target.read_bytes() == b"theirs"
                assert names(tmp_path) == {"j.db", "copy.db"}
                target.unlink()
                monkeypatch.setattr(os, "link", _no_links)

    asyncio.run(main())


def _no_links(_old: object, _new: object) -> None:
    raise PermissionError(1, "not on this file system")


def test_a_file_system_without_second_names_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(os, "link", _no_links)
        async with opened(tmp_path / "j.db") as journal:
            await journal.backup(tmp_path / "copy.db", overwrite=False)
        assert names(tmp_path) == {"j.db", "copy.db"}

    asyncio.run(main())


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    async def main() -> None:
        events: list[str] = []
        target, sync = tmp_path / "copy.db", os.fsync

        def fsync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            whole = path.suffix == ".part" and rows(path, "SELECT count(*) FROM durable_runs") == [(1,)]
            events.append(f"{'folder' if path == tmp_path else path.suffix} {whole} {target.exists()}")
            sync(descriptor)

        async with opened(tmp_path / "j.db") as journal:
            await begin(journal)
            monkeypatch.setattr(os, "fsync", fsync)
            await journal.backup(target, overwrite=overwrite)
            events.append("acknowledged")
        assert events == [".part True False", "folder False True", "acknowledged"]

    asyncio.run(main())


def test_on_macos_the_disk_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)

    def tell(_descriptor: int, what: object) -> None:
        told.append(what)

    monkeypatch.setattr(fcntl, "fcntl", tell)

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await journal.backup(tmp_path / "copy.db", overwrite=False)

    asyncio.run(main())
    assert told == [51, 51]  # the file, then its folder


@pytest.mark.parametrize("point", ["backup.step", "backup.filled", "backup.synced"])
@pytest.mark.parametrize("error", [FULL, OSError(5, "Input/output error"), RuntimeError("a bug")])
def test_a_backup_that_fails_leaves_nothing_and_harms_nobody(tmp_path: Path, point: str, error: Exception) -> None:
    async def main() -> None:
        target = tmp_path / "copy.db"
        target.write_bytes(b"the last good one")
        broken = True

        def failpoint(name: str) -> None:
            if name == point and broken:
                raise error

        async with opened(tmp_path / "j.db", failpoint=failpoint) as journal:
            with pytest.raises(
                RuntimeError if isinstance(error, RuntimeError) else JournalError, match=str(error.args[-1])
            ):
                await journal.backup(target, overwrite=True)
            assert names(tmp_path) == {"j.db", "copy.db"}
            assert target.read_bytes() == b"the last good one"
            await begin(journal)
            broken = False
            await journal.backup(target, overwrite=True)
        assert rows(target, "SELECT id FROM durable_runs") == [("a",)]

    asyncio.run(main())


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            monkeypatch.setattr(tempfile, "mkstemp", refuse)
            with pytest.raises(JournalError, match=r"copy\.db was not made \(Permission denied\)"):
                await journal.backup(tmp_path / "copy.db", overwrite=False)

    asyncio.run(main())


_KILLED = """
import asyncio, os, sys
from pathlib import Path
from durable_sqlite._sqlite import SqliteJournal
folder, point = Path(sys.argv[1]), sys.argv[2]

def failpoint(name):
    if name == point:
        os._exit(9)

async def main():
    journal = SqliteJournal(folder / "j.db", failpoint=failpoint)
    await journal.open("w", 1)
    await journal.backup(folder / "copy.db", overwrite=False)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("point", "complete"),
    [("backup.step", False), ("backup.filled", False), ("backup.synced", False), ("backup.renamed", True)],
)
def test_a_kill_in_the_middle_leaves_no_file_of_the_name(tmp_path: Path, point: str, complete: bool) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path), point]
    assert subprocess.run(command, env=environment(), timeout=60, check=False).returncode == 9
    assert (tmp_path / "copy.db").exists() == complete
    assert len([each for each in names(tmp_path) if each.endswith(".part")]) == 1
    if complete:
        assert rows(tmp_path / "copy.db", "SELECT count(*) FROM durable_workers") == [(1,)]

    async def main() -> None:  # what is left is in nobody's way
        async with opened(tmp_path / "j.db") as journal:
            await journal.backup(tmp_path / "copy.db", overwrite=True)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["close", "stop", "cancel", "end of the loop"])
def test_a_backup_is_broken_off_where_its_journal_closes_or_nobody_waits_for_it(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        step = Step()
        journal = SqliteJournal(tmp_path / "j.db", failpoint=step)
        await journal.open("w", 1)
        making = asyncio.create_task(journal.backup(tmp_path / "copy.db", overwrite=False))
        await step.reached()
        ending = asyncio.create_task(journal.close(2) if how == "close" else asyncio.sleep(0))
        if how == "close":
            await until(journal._copier._closed.is_set)
        elif how == "stop":
            journal.stop()
            assert journal._copier._closed.is_set()  # at once: nobody may be left to do it later
        elif how == "end of the loop":
            assert journal._life is not None
            journal._life.cancel()
            await until(journal._copier._closed.is_set)
        else:
            making.cancel()
            await asyncio.sleep(0)
        step.go_on()
        with pytest.raises(asyncio.CancelledError if how == "cancel" else EngineClosed):
            await making
        assert names(tmp_path) == {"j.db"}
        if how == "close":
            await ending
            assert not (tmp_path / "j.db-wal").exists()  # nothing was in the way of the last checkpoint
            with pytest.raises(EngineClosed):
                await journal.backup(tmp_path / "copy.db", overwrite=False)
        await journal.close(2)
        assert names(tmp_path) == {"j.db"}

    before = set(threading.enumerate())
    asyncio.run(main())
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_a_journal_that_is_busy_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script)) as journal:
            _, hold = await begin(journal)
            script.before["SELECT 1 FROM sqlite_schema"] = [BUSY]
            await journal.backup(tmp_path / "copy.db", overwrite=False)
            assert script.before["SELECT 1 FROM sqlite_schema"] == []
            await journal.end(hold, completed())
        assert rows(tmp_path / "copy.db", "SELECT state FROM durable_runs") == [("running",)]

    asyncio.run(main())


def test_a_journal_in_memory_is_copied_by_the_connection_that_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(":memory:") as journal:
            _, hold = await begin(journal)
            await journal.record(hold, entry())
            await journal.backup(tmp_path / "copy.db", overwrite=False)
            await journal.record(hold, entry("s#2", seq=2))
        async with opened(tmp_path / "copy.db") as copy:
            (run,) = await copy.runs(RunQuery())
            assert (run.id, run.state) == ("a", State.RUNNING)
            assert len(await copy.entries(run.no)) == 1

    asyncio.run(main())
