"""A WAL that grows because somebody is in the way: people are told why, rarely, and when it is over."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from durable_sqlite._sqlite.checkpoints import WAL_ALARM_BYTES
from tests.sqlite.faults import FULL, IOERR, Hours, Weather, faulty, opened
from tests.support.journals import begin, entry

OPTIONS = {"checkpoint_bytes": 50_000, "alarm_bytes": 200_000}


def test_people_are_told_from_64_mib_on() -> None:
    assert WAL_ALARM_BYTES == 64 * 1024 * 1024


def test_a_reader_that_stays_open_is_named_as_the_cause_of_a_wal_that_grows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        hours = Hours()
        async with opened(path, **OPTIONS, **hours.options) as journal:
            _, hold = await begin(journal)
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM durable_runs").fetchall()
                for seq in range(1, 101):
                    await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(4_000)))
                assert len(caplog.records) == 1  # once, however often it is looked at
                hours.now = 599.0
                await journal.record(hold, entry("s#101", seq=101))
                assert len(caplog.records) == 1
                hours.now = 600.0
                await journal.record(hold, entry("s#102", seq=102))
                assert len(caplog.records) == 2
            for seq in range(103, 240):
                await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(4_000)))

    asyncio.run(main())
    first, again, over = [record.getMessage() for record in caplog.records]
    assert "has grown to" in first
    assert "keeps a read transaction open" in first
    assert "Nothing is lost" in first
    assert "keeps a read transaction open" in again
    assert "is started anew" in over


def test_a_checkpoint_that_fails_is_named_as_the_cause(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        weather = Weather()
        async with opened(tmp_path / "j.db", connection=faulty(weather), **OPTIONS, **Hours().options) as journal:
            _, hold = await begin(journal)
            weather.bad(FULL, "PRAGMA wal_checkpoint(RESTART)")
            for seq in range(1, 101):
                await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(4_000)))
            weather.good()

    asyncio.run(main())
    (told,) = [record.getMessage() for record in caplog.records if "has grown" in record.getMessage()]
    assert "it could not be written back: there is no room" in told


def test_a_checkpoint_that_fails_half_way_leaves_no_transaction_open(tmp_path: Path) -> None:
    """It would keep every other writer out, and the next batch of this one would not begin."""
    path = tmp_path / "j.db"

    async def main() -> None:
        weather = Weather()
        async with opened(path, connection=faulty(weather), **OPTIONS, **Hours().options) as journal:
            _, hold = await begin(journal)
            weather.bad(IOERR, "ROLLBACK")
            for seq in range(1, 51):
                await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(4_000)))
            assert "ROLLBACK" in weather.seen
            with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
            weather.good()

    asyncio.run(main())


def test_a_wal_that_grows_in_one_large_commit_alarms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db", **OPTIONS, **Hours().options) as journal:
            _, hold = await begin(journal)
            for seq in (1, 2, 3):
                await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(1_000_000)))

    asyncio.run(main())
    assert caplog.records == []


def test_a_reader_in_the_way_is_not_asked_at_each_commit(tmp_path: Path) -> None:
    """Each try keeps writers waiting for a moment, and the reader may stay for hours."""
    path = tmp_path / "j.db"

    async def main() -> None:
        weather = Weather()
        async with opened(path, connection=faulty(weather), checkpoint_bytes=100_000, **Hours().options) as journal:
            _, hold = await begin(journal)
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM durable_runs").fetchall()
                for seq in range(1, 200):
                    await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(4_000)))
                size = (tmp_path / "j.db-wal").stat().st_size
                assert 1 < sum("RESTART" in sql for sql in weather.seen) <= size / 100_000 + 1

    asyncio.run(main())
