# pyright: reportPrivateUsage=false
# Batches and connections have no public name.
"""How a journal ends, in order and otherwise."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.link import Guardian
from durable_sqlite.errors import EngineClosed, JournalError
from tests.sqlite.faults import FULL, Script, faulty, opened
from tests.support.journals import begin, entry

# Life ----------------------------------------------------------------------------------------------------------------


def test_a_writer_that_breaks_answers_everybody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        script = Script()
        journal = SqliteJournal(tmp_path / "j.db", connection=faulty(script))
        await journal.open("w", 1)
        _, hold = await begin(journal)
        script.before["COMMIT"] = [RuntimeError("a bug")]
        for _ in range(2):
            with pytest.raises(JournalError, match="broken"):
                await journal.record(hold, entry())
        with pytest.raises(JournalError, match="broken"):
            await journal.run("a")
        await journal.close(2)

    asyncio.run(main())
    assert "is broken" in caplog.text


def test_what_cannot_be_committed_at_the_end_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        for error in (FULL, RuntimeError("a bug")):
            script = Script()
            journal = SqliteJournal(tmp_path / f"{error}.db", connection=faulty(script))
            await journal.open("w", 1)
            _, hold = await begin(journal)
            script.before["COMMIT" if error is not FULL else "BEGIN"] = [error]
            write = journal.record(hold, entry())
            journal.stop()
            with pytest.raises(EngineClosed, match="let go"):
                await write

    asyncio.run(main())
    assert "1 writes to" in caplog.text
    assert "the last writes" in caplog.text


def test_the_end_of_the_loop_lets_the_connection_stop_and_commits_what_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = SqliteJournal(path)

    async def main() -> None:
        await journal.open("w", 1)
        _, hold = await begin(journal)
        journal.record(hold, entry())

    asyncio.run(main())
    assert journal._life is not None
    assert journal._life.done()
    assert not journal._life.cancelled()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT key FROM durable_entries").fetchall() == [("s#1",)]


def test_a_journal_may_be_stopped_when_its_loop_does_not_run(tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    journal = SqliteJournal(tmp_path / "j.db")
    loop.run_until_complete(journal.open("w", 1))
    journal.stop()
    assert journal._life is not None
    loop.run_until_complete(asyncio.wait([journal._life]))
    assert journal._writer is not None
    assert not journal._writer.link.is_open
    loop.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_journal_may_be_stopped_when_its_loop_was_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_sqlite._sqlite.door.Guardian", partial(Guardian, patience=0.01))
    before = set(threading.enumerate())
    loop = asyncio.new_event_loop()
    journal = SqliteJournal(tmp_path / "j.db")
    loop.run_until_complete(journal.open("w", 1))
    loop.close()
    with caplog.at_level(logging.DEBUG, "durable_sqlite.storage"):
        journal.stop()
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
    assert set(threading.enumerate()) <= before
    assert "nobody waits" in caplog.text
    # The task can no longer be finished, and its loop would complain about that.
    life, journal._life = journal._life, None
    assert life is not None
    life._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_close_that_is_cancelled_still_closes(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1)
        await begin(journal)
        closing_it = asyncio.create_task(journal.close(5))
        await asyncio.sleep(0)
        closing_it.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing_it
        await journal.close(6)
        async with opened(tmp_path / "j.db") as other:
            assert await other.workers() == []
            run = await other.run("a")
            assert run is not None
            assert run.updated_at == 5

    asyncio.run(main())
