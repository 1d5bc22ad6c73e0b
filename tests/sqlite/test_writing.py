# pyright: reportPrivateUsage=false
# Batches and connections have no public name.
"""How writes share commits, and what becomes of the others where one of them fails."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from durable_sqlite._records import End, IfExists, State
from durable_sqlite._sqlite import migrate
from durable_sqlite.errors import JournalError, LeaseLost
from tests.sqlite.faults import BUSY, FULL, Script, faulty, opened
from tests.support.journals import begin, entry, new_run


def size(path: str) -> int:
    return Path(path).stat().st_size


# Batches -------------------------------------------------------------------------------------------------------------


def test_what_is_queued_together_is_one_commit(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script)) as journal:
            _, hold = await begin(journal)
            script.seen.clear()
            await asyncio.gather(*(journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in range(1, 101)))
            assert script.seen.count("BEGIN IMMEDIATE") == script.seen.count("COMMIT") == 1

    asyncio.run(main())


def test_a_batch_has_a_largest_size_and_the_rest_follows(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script)) as journal:
            started, hold = await begin(journal)
            script.seen.clear()
            await asyncio.gather(*(journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in range(1, 1502)))
            assert script.seen.count("COMMIT") == 2
            assert len(await journal.entries(started.row.no)) == 1501

    asyncio.run(main())


def test_a_large_commit_is_answered_in_turns_and_others_on_the_loop_have_theirs_in_between(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            _, hold = await begin(journal)
            answered: list[int] = []
            writes = [journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in range(1, 301)]
            for write in writes:
                write.add_done_callback(lambda write: answered.append(writes.index(write)))
            most, before = 0, 0
            while len(answered) < 300:
                await asyncio.sleep(0)
                most, before = max(most, len(answered) - before), len(answered)
            assert answered == [*range(300)]
            assert most == 100

    asyncio.run(main())


def test_what_a_journal_that_closes_has_committed_is_answered_before_it_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            _, hold = await begin(journal)
            writes = [journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in range(1, 301)]
        assert all(write.done() for write in writes)

    asyncio.run(main())


def test_one_operation_that_fails_does_not_take_the_others_down(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            started, hold = await begin(journal)
            await journal.record(hold, entry())
            writes = [journal.record(hold, entry(f"s#{seq}", seq=seq)) for seq in (2, 3)]
            twice = journal.record(hold, entry("s#1", seq=9))
            illegal = journal.end(hold, End(State.COMPLETED, "", None, 50))
            unbindable = journal.record(hold, entry("\ud800", seq=8))
            writes.append(journal.record(hold, entry("s#4", seq=4)))
            with pytest.raises(JournalError, match="nothing changed"):
                await twice
            with pytest.raises(JournalError, match="CHECK"):
                await illegal
            with pytest.raises(UnicodeEncodeError):
                await unbindable
            await asyncio.gather(*writes)
            assert [each.seq for each in await journal.entries(started.row.no)] == [1, 2, 3, 4]

    asyncio.run(main())


def test_a_constraint_that_breaks_at_commit_is_somebodys_own_error(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script)) as journal:
            started, hold = await begin(journal)
            script.before["COMMIT"] = [sqlite3.IntegrityError("deferred"), sqlite3.IntegrityError("deferred")]
            one, two = journal.record(hold, entry()), journal.record(hold, entry("s#2", seq=2))
            with pytest.raises(JournalError):
                await one
            await two
            assert [each.key for each in await journal.entries(started.row.no)] == ["s#2"]

    asyncio.run(main())


def test_a_fenced_worker_may_not_drive_and_its_clients_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            started, hold = await begin(journal)
            await journal.record(hold, entry())
            with closing(sqlite3.connect(tmp_path / "j.db", isolation_level=None)) as other:
                other.execute("UPDATE durable_workers SET fenced = 1")
            lost = journal.record(hold, entry("s#2", seq=2))
            client = journal.start(new_run("b"), IfExists.ATTACH, drive=True)
            with pytest.raises(LeaseLost, match="struck off"):
                await lost
            assert (await client).hold is None
            assert len(await journal.entries(started.row.no)) == 1

    asyncio.run(main())


# Checkpoints ---------------------------------------------------------------------------------------------------------


def test_checkpoints_are_restart_while_writing_and_truncate_at_the_end(tmp_path: Path) -> None:
    async def main() -> int:
        script, wal = Script(), f"{tmp_path / 'j.db'}-wal"
        largest = 0
        async with opened(tmp_path / "j.db", connection=faulty(script), checkpoint_bytes=100_000) as journal:
            _, hold = await begin(journal)
            for seq in range(1, 200):
                await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(3_000)))
                largest = max(largest, size(wal))
        checkpoints = [sql for sql in script.seen if "wal_checkpoint" in sql]
        assert set(checkpoints) == {"PRAGMA wal_checkpoint(RESTART)", "PRAGMA wal_checkpoint(TRUNCATE)"}
        assert checkpoints.count("PRAGMA wal_checkpoint(TRUNCATE)") == 1
        assert not any("PASSIVE" in sql or "FULL)" in sql for sql in script.seen)
        return largest

    assert asyncio.run(main()) < 2_500_000


def test_a_reader_in_the_way_puts_a_checkpoint_off_and_stops_no_write(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        script = Script()
        async with opened(path, connection=faulty(script), checkpoint_bytes=100_000) as journal:
            _, hold = await begin(journal)
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM durable_runs").fetchall()
                for seq in range(1, 150):
                    await journal.record(hold, entry(f"s#{seq}", seq=seq, payload=bytes(4_000)))
                # Not after each commit: only where the WAL was looked at and had grown.
                assert 1 < sum("RESTART" in sql for sql in script.seen) < 75

    asyncio.run(main())


@pytest.mark.parametrize(("error", "told"), [(FULL, 1), (BUSY, 0)])
def test_a_checkpoint_that_fails_fails_no_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: sqlite3.Error, told: int
) -> None:
    async def main() -> None:
        script = Script()
        async with opened(tmp_path / "j.db", connection=faulty(script), checkpoint_bytes=1) as journal:
            _, hold = await begin(journal)
            script.before["PRAGMA wal_checkpoint"] = [error]
            for seq in range(1, 200):
                await journal.record(hold, entry(f"s#{seq}", seq=seq))
        assert script.before["PRAGMA wal_checkpoint"] == []

    asyncio.run(main())
    assert len(caplog.records) == told


# Failpoints ----------------------------------------------------------------------------------------------------------


def test_each_place_where_a_crash_is_tried_is_passed_by_name(tmp_path: Path) -> None:
    passed: list[str] = []

    async def main() -> None:
        async with opened(tmp_path / "j.db", failpoint=passed.append) as journal:
            await begin(journal)

    asyncio.run(main())
    assert passed == [
        "open.created",
        *("migrate.before_commit", "migrate.after_commit") * len(migrate.read(migrate.find())),
        "commit.before",
        "commit.after",
        "close.before_release",
        "commit.before",
        "commit.after",
        "close.after_release",
        "checkpoint.before",
        "checkpoint.after",
    ]
