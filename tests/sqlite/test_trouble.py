# pyright: reportPrivateUsage=false
# Batches and connections have no public name.
"""What happens to writes and reads while the storage below them is in trouble."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import IfExists
from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.faults import Fault
from durable_sqlite._sqlite.link import JobConnection
from durable_sqlite._sqlite.patience import Patience, Pauses
from durable_sqlite._sqlite.writer import Writer
from durable_sqlite.errors import EngineClosed, JournalDamaged, JournalError, JournalGone, LeaseLost, NotAJournal
from tests.sqlite.faults import BUSY, FULL, IOERR, Naps, Script, faulty, opened, storage_error
from tests.support.journals import begin, entry, new_run
from tests.support.stage import until

CORRUPT = storage_error(sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT")


class Clinging(JobConnection):
    """Connections that say that they could not be closed, though they are."""

    def close(self) -> None:
        super().close()
        raise IOERR


def writer_of(journal: SqliteJournal) -> Writer:
    assert journal._writer is not None
    return journal._writer


# Obstacles -----------------------------------------------------------------------------------------------------------


def test_a_foreign_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as shell:
            naps = Naps(lambda _count: shell.execute("ROLLBACK"))
            async with opened(path, sleep=naps) as journal:
                started, hold = await begin(journal)
                shell.execute("BEGIN IMMEDIATE")
                await journal.record(hold, entry())
                assert len(naps.taken) == 1
                assert await journal.entries(started.row.no) == [entry()]

    asyncio.run(main())


def test_a_long_wait_for_a_lock_is_told_after_five_seconds_and_then_each_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        clock = 0.0

        async def sleep(seconds: float) -> None:
            nonlocal clock
            assert 0 < seconds <= 0.5
            clock += seconds

        patience = Patience(Pauses(lambda: clock, sleep, lambda: 1.0), "j.db")
        while clock < 130:
            await patience.wait(Fault.BUSY, IOERR)
        patience.over()

    with caplog.at_level(logging.INFO, "durable_sqlite.storage"):
        asyncio.run(main())
    told = [record.getMessage() for record in caplog.records]
    assert [message.split(" s ")[0] for message in told] == ["waiting for 5", "waiting for 65", "waiting for 125"]
    assert all("j.db" in message and "write lock" in message for message in told)


@pytest.mark.parametrize(
    "name", ["SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_NOMEM", "SQLITE_INTERRUPT"]
)
@pytest.mark.parametrize("where", ["BEGIN", "INSERT INTO durable_entries"])
def test_storage_trouble_is_waited_out_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, where: str
) -> None:
    async def main() -> None:
        script, naps = Script(), Naps()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal:
            started, hold = await begin(journal)
            script.before[where] = [storage_error(getattr(sqlite3, name), name) for _ in range(12)]
            await asyncio.gather(*(journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in (1, 2)))
            assert len(naps.taken) == 12
            assert max(naps.taken) <= 5
            assert len(await journal.entries(started.row.no)) == 2

    asyncio.run(main())
    told = [record.getMessage() for record in caplog.records if record.name == "durable_sqlite.storage"]
    assert len(told) == 2
    assert "storage stalled" in told[0]
    assert name in told[0]
    assert "works again" in told[1]


def test_a_real_size_limit_is_storage_trouble_that_heals(tmp_path: Path) -> None:
    """A database that may not grow answers SQLITE_FULL, as a full disk does."""

    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1)
        writer = journal._writer
        assert writer is not None

        def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
            return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()

        started, hold = await begin(journal)
        await writer.link.run(limit(1))
        write = journal.record(hold, entry(payload=bytes(100_000)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(write), 0.2)
        assert not write.done()
        await writer.link.run(limit(1_000_000))
        await write
        assert len(await journal.entries(started.row.no)) == 1
        await journal.close(2)

    asyncio.run(main())


def test_an_error_that_does_not_heal_is_the_answer(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script)) as journal:
            _, hold = await begin(journal)
            script.before["INSERT INTO durable_entries"] = [
                storage_error(sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"),
                storage_error(sqlite3.SQLITE_NOTADB, "SQLITE_NOTADB"),
                sqlite3.ProgrammingError("no code"),
            ]
            with pytest.raises(JournalError, match="damaged"):
                await journal.record(hold, entry())
            with pytest.raises(NotAJournal):
                await journal.record(hold, entry())
            with pytest.raises(JournalError, match="ProgrammingError"):
                await journal.record(hold, entry())

    asyncio.run(main())


# Doubt ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("landed", [True, False])
def test_after_a_doubtful_commit_the_journal_looks_and_only_then_decides(tmp_path: Path, landed: bool) -> None:
    async def main() -> None:
        script, naps = Script(), Naps()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal:
            started, hold = await begin(journal)
            (script.after if landed else script.before)["COMMIT"] = [IOERR]
            # A second application would be refused, and a forgotten one would be missing.
            writes = [journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in (1, 2)]
            client = journal.start(new_run("b"), IfExists.FAIL, drive=False)
            await asyncio.gather(*writes)
            assert (await client).created
            await journal.record(hold, entry("s#3", seq=3))
            assert [each.seq for each in await journal.entries(started.row.no)] == [1, 2, 3]
            assert len(naps.taken) == 1

    asyncio.run(main())


@pytest.mark.parametrize("landed", [True, False])
def test_a_worker_that_began_anew_knows_what_became_of_a_doubtful_commit(tmp_path: Path, landed: bool) -> None:
    async def program() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            for _ in range(5):
                await journal.sound()
            await journal.rejoin("anew", 20)
            started, hold = await begin(journal)
            (script.after if landed else script.before)["COMMIT"] = [IOERR]
            await journal.record(hold, entry())
            assert [each.key for each in await journal.entries(started.row.no)] == ["s#1"]

    asyncio.run(program())


@pytest.mark.parametrize("landed", [True, False])
def test_a_commit_with_which_a_worker_begins_anew_may_be_doubtful_too(tmp_path: Path, landed: bool) -> None:
    async def program() -> None:
        script = Script()
        async with (
            opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal,
            opened(tmp_path / "j.db") as other,
        ):
            await begin(journal)
            (script.after if landed else script.before)["COMMIT"] = [IOERR]
            await journal.rejoin("anew", 20)
            assert [each.name for each in await other.workers()] == ["anew"]
            (claimed,) = await journal.claim(["ship"], 30, 9, suspects=False)
            await journal.record(claimed.hold, entry())

    asyncio.run(program())


@pytest.mark.parametrize("landed", [True, False])
def test_doubt_about_one_of_the_operations_that_are_applied_apart(tmp_path: Path, landed: bool) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            started, hold = await begin(journal)
            await journal.record(hold, entry())
            writes = [journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in (2, 3)]
            twice = journal.record(hold, entry("s#1", seq=9))
            writes.append(journal.record(hold, entry("s#4", seq=4)))
            (script.after if landed else script.before)["COMMIT"] = [IOERR]
            await asyncio.gather(*writes)
            with pytest.raises(JournalError, match="nothing changed"):
                await twice
            assert [each.seq for each in await journal.entries(started.row.no)] == [1, 2, 3, 4]

    asyncio.run(main())


def test_doubt_lasts_until_the_file_can_be_opened_again(tmp_path: Path) -> None:
    async def main() -> None:
        script, naps = Script(), Naps()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal:
            _, hold = await begin(journal)
            script.after["COMMIT"] = [IOERR]
            script.before["PRAGMA synchronous"] = [IOERR, BUSY]
            await journal.record(hold, entry())
            assert len(naps.taken) == 3

    asyncio.run(main())


def test_doubt_lasts_while_the_file_cannot_be_opened(tmp_path: Path) -> None:
    """As where this process has too many files open; the file itself is in its place."""
    path = tmp_path / "j.db"
    refused: list[str] = []

    async def main() -> None:
        script = Script()

        class Refusing(faulty(script)):  # type: ignore[misc]  # the class is made by a function
            def __init__(self, *args: Any, **options: Any) -> None:
                if script.after.get("COMMIT") == [] and len(refused) < 3:
                    refused.append("SQLITE_CANTOPEN")
                    raise storage_error(sqlite3.SQLITE_CANTOPEN, "SQLITE_CANTOPEN")
                super().__init__(*args, **options)

        naps = Naps()
        async with opened(path, connection=Refusing, sleep=naps) as journal:
            started, hold = await begin(journal)
            script.after["COMMIT"] = [IOERR]
            await journal.record(hold, entry())
            assert len(refused) == 3
            assert len(naps.taken) == 4
            assert len(await journal.entries(started.row.no)) == 1

    asyncio.run(main())


def test_a_fenced_worker_in_doubt_applies_its_clients_writes_again(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as other:
                other.execute("DELETE FROM durable_workers")
            script.after["COMMIT"] = [IOERR]
            started = await journal.start(new_run(), IfExists.ATTACH, drive=False)
            assert not started.created
            assert started.row.id == "a"

    asyncio.run(main())


def test_a_rollback_that_fails_leads_to_a_fresh_connection(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            started, hold = await begin(journal)
            script.before["INSERT INTO durable_entries"] = [FULL]
            script.before["rollback()"] = [IOERR]
            await journal.record(hold, entry())
            assert len(await journal.entries(started.row.no)) == 1

    asyncio.run(main())


@pytest.mark.parametrize("landed", [True, False])
def test_a_commit_that_can_never_succeed_is_refused_to_its_caller_and_not_tried_for_ever(
    tmp_path: Path, landed: bool
) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            started, hold = await begin(journal)
            (script.after if landed else script.before)["COMMIT"] = [CORRUPT]
            if landed:
                await journal.record(hold, entry())
            else:
                with pytest.raises(JournalDamaged, match="damaged"):
                    await journal.record(hold, entry())
            assert len(await journal.entries(started.row.no)) == landed

    asyncio.run(main())


def test_of_writes_whose_commit_can_never_succeed_each_is_tried_alone(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            script.before["COMMIT"] = [CORRUPT, CORRUPT]
            starts = [journal.start(new_run(name), IfExists.ATTACH, drive=False) for name in "abc"]
            came = await asyncio.gather(*starts, return_exceptions=True)
            assert [isinstance(one, JournalDamaged) for one in came] == [True, False, False]
            assert await journal.run("a") is None
            assert all([await journal.run(name) for name in "bc"])

    asyncio.run(main())


def test_a_commit_of_a_fenced_worker_that_can_never_succeed_is_refused_too(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as other:
                other.execute("DELETE FROM durable_workers")
            script.before["COMMIT"] = [CORRUPT, CORRUPT, CORRUPT]
            with pytest.raises(JournalDamaged, match="damaged"):
                await journal.start(new_run("a"), IfExists.ATTACH, drive=False)
            script.before["COMMIT"].clear()
            assert await journal.run("a") is None

    asyncio.run(main())


def test_nobody_is_told_of_a_commit_that_can_never_succeed_who_waits_no_longer(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        naps = Naps(lambda _count: writer_of(journal).batch.keep(lambda _operation: False))
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal:
            script.before["COMMIT"] = [CORRUPT]
            start = journal.start(new_run("a"), IfExists.ATTACH, drive=False)
            await until(lambda: bool(naps.taken))
            await journal.start(new_run("b"), IfExists.ATTACH, drive=False)
            assert await journal.run("a") is None
            assert not start.done()
            start.cancel()

    asyncio.run(main())


def test_a_program_that_ends_in_doubt_claims_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        journal = SqliteJournal(tmp_path / "j.db", connection=faulty(script), sleep=Naps(lambda _count: journal.stop()))
        await journal.open("w", 1)
        _, hold = await begin(journal)
        script.before["COMMIT"] = [IOERR]
        with pytest.raises(EngineClosed, match="let go"):
            await journal.record(hold, entry())
        await journal.close(2)

    asyncio.run(main())


# Reads ---------------------------------------------------------------------------------------------------------------


def test_reads_wait_for_the_storage_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        script, naps = Script(), Naps()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal:
            await begin(journal)
            script.before["SELECT"] = [IOERR, IOERR, BUSY]
            run = await journal.run("a")
            assert run is not None
            assert len(naps.taken) == 3
            script.before["SELECT"] = [storage_error(sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT")]
            with pytest.raises(JournalError, match="damaged"):
                await journal.run("a")

    asyncio.run(main())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "storage stalled" in told[0]
    assert "works again" in told[1]


def test_files_that_are_back_by_the_time_the_writer_looks_are_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        naps = Naps()
        async with opened(path, sleep=naps) as journal:
            await begin(journal)
            assert journal._reader is not None
            settings = journal._reader._settings

            async def missing() -> None:
                path.with_name("away.db").rename(path)
                await settings.missing()

            journal._reader._settings = replace(settings, missing=missing)
            path.rename(path.with_name("away.db"))
            assert await journal.run("a") is not None
            assert len(naps.taken) == 1

    asyncio.run(main())


def test_a_file_system_that_gives_up_in_time_is_trouble_of_the_storage(tmp_path: Path) -> None:
    """As one on the network does: its error has the class of a time limit, and is none of ours."""

    async def main() -> None:
        script, naps = Script(), Naps()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal:
            await begin(journal)
            script.before["SELECT"] = [TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))] * 2
            assert await journal.run("a") is not None
            assert len(naps.taken) == 2

    asyncio.run(main())


def test_whoever_looks_keeps_the_connection_until_a_fresh_one_can_be_had(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        script, refused = Script(), list[str]()

        class Refusing(faulty(script), Clinging):  # type: ignore[misc]  # the class is made by a function
            def __init__(self, *args: Any, **options: Any) -> None:
                if script.before.get("BEGIN") and not refused:
                    refused.append("SQLITE_CANTOPEN")
                    raise storage_error(sqlite3.SQLITE_CANTOPEN, "SQLITE_CANTOPEN")
                super().__init__(*args, **options)

        async with opened(tmp_path / "j.db", connection=Refusing, sleep=Naps()) as journal:
            await begin(journal)
            assert journal._reader is not None
            worn = journal._reader.link
            script.before["BEGIN"] = [IOERR] * 6
            assert await journal.run("a") is not None
            assert refused
            assert journal._reader.link is not worn

    with caplog.at_level(logging.DEBUG, "durable_sqlite.storage"):
        asyncio.run(main())
    assert "no fresh connection" in caplog.text
    assert "could not be closed" in caplog.text


# Jobs between the batches --------------------------------------------------------------------------------------------


def test_beginning_anew_waits_out_a_storage_in_trouble_and_takes_a_fresh_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        script, naps = Script(), Naps()
        async with (
            opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal,
            opened(tmp_path / "j.db") as other,
        ):
            worn = writer_of(journal).link
            script.before["BEGIN IMMEDIATE"] = [IOERR] * 5
            await journal.rejoin("anew", 20)
            assert writer_of(journal).link is not worn
            assert len(naps.taken) == 5
            assert [row.name for row in await other.workers()] == ["anew"]

    asyncio.run(main())
    assert "works again" in caplog.text


def test_a_worker_that_cannot_begin_anew_for_a_reason_that_does_not_heal_is_told_and_the_writes_go_on(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), sleep=Naps()) as journal:
            started, hold = await begin(journal)
            script.before["BEGIN IMMEDIATE"] = [storage_error(sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT")]
            with pytest.raises(JournalError, match="damaged"):
                await journal.rejoin("anew", 20)
            await journal.record(hold, entry())
            assert len(await journal.entries(started.row.no)) == 1

    asyncio.run(main())


def test_a_worker_does_not_begin_anew_once_nobody_waits_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        naps = Naps(lambda _count: rejoining.cancel())
        async with (
            opened(tmp_path / "j.db", connection=faulty(script), sleep=naps) as journal,
            opened(tmp_path / "j.db") as other,
        ):
            before = [row.name for row in await other.workers()]
            script.before["BEGIN IMMEDIATE"] = [BUSY]
            rejoining = asyncio.ensure_future(journal.rejoin("anew", 20))
            await asyncio.wait([rejoining])
            await journal.sound()
            assert [row.name for row in await other.workers()] == before

    asyncio.run(main())


def test_a_worker_has_begun_anew_though_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    here, go_on = threading.Event(), threading.Event()
    held = False

    def plan(sql: str, call: Callable[[], Any]) -> Any:
        nonlocal held
        if held and sql == "COMMIT":
            held = False
            here.set()
            go_on.wait(20)
        return call()

    async def main() -> None:
        nonlocal held
        async with opened(tmp_path / "j.db", connection=faulty(plan)) as journal, opened(tmp_path / "j.db") as other:
            held = True
            rejoining = asyncio.ensure_future(journal.rejoin("anew", 20))
            await until(here.is_set)
            rejoining.cancel()
            await asyncio.wait([rejoining])
            go_on.set()
            _, hold = await begin(journal)
            await journal.record(hold, entry())
            assert [row.name for row in await other.workers()] == ["anew"]

    asyncio.run(main())


def test_whoever_waits_to_begin_anew_is_told_when_the_journal_ends(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()

        def end(_count: int) -> None:
            gone.cancel()
            journal.stop()

        naps = Naps(end)
        journal = SqliteJournal(tmp_path / "j.db", connection=faulty(script), sleep=naps)
        await journal.open("w", 1)
        script.before["BEGIN IMMEDIATE"] = [BUSY]
        first = asyncio.ensure_future(journal.rejoin("anew", 20))
        gone = asyncio.ensure_future(journal.rejoin("and again", 20))
        with pytest.raises(EngineClosed, match="let go"):
            await first
        assert journal._life is not None
        await asyncio.wait([gone, journal._life])
        assert gone.cancelled()
        assert journal._life.exception() is None
        await journal.close(2)

    asyncio.run(main())


def test_nobody_begins_anew_in_a_journal_that_is_closed_or_broken(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await journal.close(2)
            with pytest.raises(EngineClosed):
                await journal.rejoin("anew", 20)
        async with opened(tmp_path / "j.db") as journal:
            (tmp_path / "j.db").rename(tmp_path / "away.db")
            with pytest.raises(JournalGone):
                await journal.sound()
            with pytest.raises(JournalGone):
                await journal.rejoin("anew", 20)

    asyncio.run(main())


def test_a_worker_in_memory_begins_anew_too() -> None:
    async def main() -> None:
        async with opened(":memory:") as journal:
            _, hold = await begin(journal)
            before = writer_of(journal).batch.me
            await journal.rejoin("anew", 20)
            assert writer_of(journal).batch.me != before
            with pytest.raises(LeaseLost):
                await journal.record(hold, entry())
            (claimed,) = await journal.claim(["ship"], 30, 9, suspects=False)
            await journal.record(claimed.hold, entry())

    asyncio.run(main())


# Connections that fail even to close ---------------------------------------------------------------------------------


def test_a_connection_that_cannot_be_closed_holds_up_nobody_who_looks_for_a_doubtful_commit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        script = Script()

        class Both(faulty(script), Clinging):  # type: ignore[misc]  # the class is made by a function
            pass

        async with opened(tmp_path / "j.db", connection=Both, sleep=Naps()) as journal:
            started, hold = await begin(journal)
            script.after["COMMIT"] = [IOERR]
            await journal.record(hold, entry())
            assert len(await journal.entries(started.row.no)) == 1

    asyncio.run(main())
    assert "could not be closed" in caplog.text


def test_a_journal_whose_files_are_gone_is_left_alone_though_its_connections_cannot_be_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db", connection=Clinging) as journal:
            (tmp_path / "j.db").rename(tmp_path / "away.db")
            with pytest.raises(JournalGone):
                await journal.sound()

    asyncio.run(main())
    assert caplog.text.count("could not be closed") == 2


def test_a_journal_in_memory_is_over_where_its_connection_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to look into after a COMMIT that failed: a fresh connection has an empty database."""

    async def main() -> None:
        script = Script()
        async with opened(":memory:", connection=faulty(script), sleep=Naps()) as journal:
            _, hold = await begin(journal)
            script.before["COMMIT"] = [IOERR]
            with pytest.raises(JournalError, match="no such table"):
                await journal.record(hold, entry())
            with pytest.raises(JournalError, match="no such table"):
                await journal.record(hold, entry())

    asyncio.run(main())
    assert [record.levelname for record in caplog.records if record.levelname == "CRITICAL"] == ["CRITICAL"]
