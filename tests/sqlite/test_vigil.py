"""The thread that keeps a worker's lease: when it writes, and when it says that the lease may be over."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import Hold, WorkerRow
from durable_sqlite._sqlite import SqliteJournal, statements
from durable_sqlite._sqlite.estate import Gate
from durable_sqlite._sqlite.vigil import Vigil, VigilSettings, since_boot
from durable_sqlite._sqlite.writer import Writer
from durable_sqlite.journal import Lease
from tests.sqlite.faults import IOERR, opened
from tests.support.journals import begin, entry, rest, wait
from tests.support.stage import until

LEASE = 15.0


class Watch:
    """A vigil that is turned by hand, over the journal of a worker."""

    def __init__(self, path: Path, journal: SqliteJournal) -> None:
        writer = journal._writer
        assert writer is not None
        self.now = 100.0
        self.told: list[str] = []
        self.ended = 0
        self.broken: sqlite3.Error | None = None
        self.broken_reads = False
        self.word = "BEGIN IMMEDIATE"
        """How the statements begin that are broken."""
        self.opened = 0
        self._path = path
        self.vigil = Vigil(
            VigilSettings(
                connect=self._connect,
                gate=Gate(),
                sql=statements.load(),
                lease=LEASE,
                me=lambda: writer.batch.me,
                commits=lambda: writer.batch.commits,
                at=lambda: 7_000,
                ticked=lambda: 6_000,
                lapsed=self.told.append,
                ended=self._end,
                needed=lambda: True,
                now=lambda: self.now,
            )
        )

    def _end(self) -> None:
        self.ended += 1

    def _connect(self) -> sqlite3.Connection:
        watch = self

        class Faulty(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                if watch.broken is not None and (watch.broken_reads or sql.startswith(watch.word)):
                    raise watch.broken
                return super().execute(sql, parameters)

        self.opened += 1
        return sqlite3.connect(self._path, isolation_level=None, timeout=0, factory=Faulty)

    def turn(self, seconds: float = LEASE / 5) -> float:
        """Let time pass, and turn once; seconds until the next turn."""
        self.now += seconds
        return self.vigil.turn()


async def _me(journal: SqliteJournal, other: SqliteJournal) -> WorkerRow:
    assert journal._writer is not None
    (row,) = [row for row in await other.workers() if row.no == journal._writer.batch.me]
    return row


def _over(tmp_path: Path, program: Callable[[Watch, SqliteJournal, SqliteJournal, Hold], Any]) -> None:
    async def main() -> None:
        path = tmp_path / "j.db"
        async with opened(path) as journal, opened(path) as other:
            _, hold = await begin(journal)
            watch = Watch(path, journal)
            try:
                await program(watch, journal, other, hold)
            finally:
                watch.vigil.close()

    asyncio.run(main())


def test_a_worker_that_is_silent_while_it_drives_runs_renews_its_lease(tmp_path: Path) -> None:
    async def program(watch: Watch, journal: SqliteJournal, other: SqliteJournal, _hold: Hold) -> None:
        before = await _me(journal, other)
        assert before.holds
        assert (before.beat_at, before.ticked_at) == (None, None)
        for _ in range(3):
            assert watch.turn() == LEASE / 5
        after = await _me(journal, other)
        assert after.moved == before.moved + 3
        assert (after.beat_at, after.ticked_at) == (7_000, 6_000)
        assert watch.told == []

    _over(tmp_path, program)


def test_a_worker_that_writes_has_renewed_its_lease_by_that(tmp_path: Path) -> None:
    async def program(watch: Watch, journal: SqliteJournal, other: SqliteJournal, hold: Hold) -> None:
        for number in range(1, 4):
            await journal.record(hold, entry(f"s#{number}", seq=number))
            watch.turn()
        assert (await _me(journal, other)).beat_at is None
        watch.turn()
        assert (await _me(journal, other)).beat_at == 7_000

    _over(tmp_path, program)


def test_a_worker_that_drives_nothing_takes_no_write_lock(tmp_path: Path) -> None:
    async def program(watch: Watch, journal: SqliteJournal, _other: SqliteJournal, hold: Hold) -> None:
        await journal.suspend(hold, rest(wait(), at=20))
        with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            for _ in range(20):
                assert watch.turn() == LEASE / 5
        assert watch.told == []

    _over(tmp_path, program)


def test_a_worker_whose_runs_were_taken_over_is_told_once(tmp_path: Path) -> None:
    async def program(watch: Watch, journal: SqliteJournal, other: SqliteJournal, _hold: Hold) -> None:
        me = await _me(journal, other)
        watch.turn()
        await other.take_over([me.no], 9, b"{}", 30)
        for _ in range(3):
            watch.turn()
        (why,) = watch.told
        assert "taken its runs over" in why

    _over(tmp_path, program)


def test_a_late_renewal_of_a_worker_that_was_struck_off_is_refused(tmp_path: Path) -> None:
    async def program(watch: Watch, journal: SqliteJournal, other: SqliteJournal, _hold: Hold) -> None:
        me = await _me(journal, other)
        state = watch._connect()
        with closing(state):
            looked = state.execute(statements.load()["lease"], {"me": me.no}).fetchall()
            assert looked == [(1,)]
            await other.take_over([me.no], 9, b"{}", 30)
            beat = {"me": me.no, "at": 1, "ticked": 1}
            assert state.execute(statements.load()["beat"], beat).rowcount == 0
        # The same where it was struck off between the look and the renewal.
        watch.vigil._connection = _SeesTheLeaseStill(watch._connect())  # type: ignore[assignment]
        watch.turn()
        (why,) = watch.told
        assert "taken its runs over" in why

    _over(tmp_path, program)


class _SeesTheLeaseStill:
    """A connection whose look came before the worker was struck off."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        if sql.startswith("SELECT EXISTS"):
            return self._connection.execute("SELECT 1")
        return self._connection.execute(sql, parameters)

    def close(self) -> None:
        self._connection.close()


def test_a_worker_that_began_anew_has_a_new_lease(tmp_path: Path) -> None:
    async def program(watch: Watch, journal: SqliteJournal, other: SqliteJournal, hold: Hold) -> None:
        me = await _me(journal, other)
        await other.take_over([me.no], 9, b"{}", 30)
        watch.turn()
        await journal.rejoin("anew", 40)
        again = await _me(journal, other)
        assert (again.name, again.no > me.no, again.holds) == ("anew", True, False)
        (claimed,) = await journal.claim(["ship"], 50, 9, suspects=False)
        assert claimed.hold.epoch > hold.epoch
        watch.turn()
        watch.turn()
        assert len(watch.told) == 1
        assert (await _me(journal, other)).beat_at == 7_000
        await other.take_over([again.no], 9, b"{}", 60)
        watch.turn()
        assert len(watch.told) == 2

    _over(tmp_path, program)


def test_a_foreign_write_lock_of_a_minute_costs_no_lease(tmp_path: Path) -> None:
    async def program(watch: Watch, journal: SqliteJournal, other: SqliteJournal, _hold: Hold) -> None:
        before = await _me(journal, other)
        watch.turn()
        with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            pause = watch.turn()
            assert pause < LEASE / 50, "as soon as writing is possible again it is to be tried"
            for _ in range(int(60 / pause)):
                watch.turn(pause)
        assert watch.told == []
        assert watch.turn(pause) == LEASE / 5
        assert (await _me(journal, other)).moved == before.moved + 2

    _over(tmp_path, program)


def test_a_worker_that_cannot_renew_its_lease_while_others_write_lets_go_before_it_ends(tmp_path: Path) -> None:
    async def program(watch: Watch, _journal: SqliteJournal, other: SqliteJournal, _hold: Hold) -> None:
        watch.turn()
        watch.broken = IOERR
        while not watch.told:
            await other.sound()
            watch.turn(0.5)
        assert LEASE / 2 < watch.now - 103.0 < LEASE * 0.75
        (why,) = watch.told
        assert "SQLITE_IOERR" in why

    _over(tmp_path, program)


def test_a_worker_that_cannot_even_look_lets_go_too(tmp_path: Path) -> None:
    async def program(watch: Watch, _journal: SqliteJournal, _other: SqliteJournal, _hold: Hold) -> None:
        watch.turn()
        watch.broken, watch.broken_reads = IOERR, True
        watch.turn(LEASE / 2)
        assert watch.told == []
        watch.turn(LEASE / 2)
        assert len(watch.told) == 1

    _over(tmp_path, program)


def test_a_renewal_that_works_again_in_time_keeps_the_lease(tmp_path: Path) -> None:
    async def program(watch: Watch, _journal: SqliteJournal, other: SqliteJournal, _hold: Hold) -> None:
        for _ in range(10):
            watch.broken = None
            watch.turn()
            watch.broken = IOERR
            await other.sound()
            watch.turn(LEASE / 2)
        assert watch.told == []

    _over(tmp_path, program)


def test_what_was_written_since_the_last_look_counts_from_that_look_on(tmp_path: Path) -> None:
    async def program(watch: Watch, journal: SqliteJournal, other: SqliteJournal, hold: Hold) -> None:
        await journal.record(hold, entry())  # at once after the vigil began, and nothing else
        watch.turn(LEASE / 3)
        watch.broken = IOERR
        await other.sound()
        watch.turn(LEASE / 2)
        assert len(watch.told) == 1

    _over(tmp_path, program)


def test_the_keeper_of_a_lease_ends_with_its_journal(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[str] = []
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1, Lease(100_000, "here", lambda: 5, lambda: None, told.append))
        _, hold = await begin(journal)
        async with opened(tmp_path / "j.db") as other:
            await until(lambda: _beats(tmp_path) > 0)
            (row,) = await other.workers()
            assert (row.host, row.lease, row.beat_at, row.holds) == ("here", 100_000, 5, True)
            await journal.record(hold, entry())
            await other.take_over([row.no], 9, b"{}", 30)
            await until(lambda: bool(told))
            refused = journal.record(hold, entry("s#2", seq=2))
            await asyncio.wait([refused])
            assert refused.exception() is not None
            await journal.close(9)

    asyncio.run(main())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j.db", "j.db-mark"]


def test_the_journal_is_closed_once_the_keeper_of_its_lease_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go = threading.Event()
    close, checkpoint = Vigil.close, Writer.checkpoint
    gone: list[bool] = []
    was_gone: list[bool] = []

    def close_late(self: Vigil) -> None:
        assert may_go.wait(20)
        gone.append(True)
        close(self)

    async def checkpoint_seen(self: Writer, mode: str) -> None:
        was_gone.append(bool(gone))
        await checkpoint(self, mode)

    monkeypatch.setattr(Vigil, "close", close_late)
    monkeypatch.setattr(Writer, "checkpoint", checkpoint_seen)

    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1, Lease(100_000, "here", lambda: 5, lambda: None, lambda _why: None))
        await begin(journal)
        await until(lambda: _beats(tmp_path) > 0)
        assert journal._life is not None
        closing = asyncio.ensure_future(journal.close(9))
        await asyncio.wait([journal._life])
        for _ in range(10):
            await asyncio.sleep(0)
        may_go.set()
        await closing

    asyncio.run(main())
    assert was_gone == [True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j.db", "j.db-mark"], "who closes last removes the WAL"


def _beats(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "j.db")) as connection:
        ((beats,),) = connection.execute("SELECT max(beats) FROM durable_workers").fetchall()
    return int(beats)


def test_the_end_of_the_loop_ends_the_keeper_too(tmp_path: Path) -> None:
    async def main() -> SqliteJournal:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1, Lease(100_000, "here", lambda: 5, lambda: None, lambda _why: None))
        return journal

    journal = asyncio.run(main())
    assert journal._vigil is not None
    assert journal._vigil._stop.is_set()


def test_a_lease_is_not_kept_for_an_event_loop_that_is_closed(tmp_path: Path) -> None:
    async def main() -> Vigil:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1, Lease(15_000_000, "here", lambda: 5, lambda: None, lambda _why: None))
        assert journal._vigil is not None
        assert journal._vigil._settings.needed()
        return journal._vigil

    settings = asyncio.run(main())._settings
    assert not settings.needed()
    left = Vigil(replace(settings, lease=0.001))
    left.begin()
    assert left.thread is not None
    left.thread.join(20)
    assert not left.thread.is_alive()


def test_the_end_of_its_thread_ends_the_keeper_of_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1, Lease(15_000_000, "here", lambda: 5, lambda: None, lambda _why: None))
        with monkeypatch.context() as patched:
            patched.setattr(journal, "_links", list)  # those are another test's
            journal._abandon()
        assert journal._vigil is not None
        assert journal._vigil.thread is not None
        journal._vigil.thread.join(20)
        assert not journal._vigil.thread.is_alive()
        await journal.close(9)

    asyncio.run(main())


def test_the_clock_of_a_lease_never_goes_back() -> None:
    assert since_boot() <= since_boot()


def test_a_renewal_whose_commit_fails_is_taken_back_and_tried_again(tmp_path: Path) -> None:
    async def program(watch: Watch, journal: SqliteJournal, other: SqliteJournal, hold: Hold) -> None:
        watch.turn()
        before = await _me(journal, other)
        watch.broken, watch.word = IOERR, "COMMIT"
        assert watch.turn() < LEASE / 50
        await journal.record(hold, entry())  # it would wait if a transaction were left open
        watch.broken = None
        assert (await _me(journal, other)).moved == before.moved + 1
        watch.turn(0.1)
        watch.turn(0.1)
        assert (await _me(journal, other)).moved == before.moved + 2
        assert watch.told == []

    _over(tmp_path, program)
