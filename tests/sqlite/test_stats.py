"""What a journal tells of itself: counted by indexes, exact, and by any connection that may read."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._clock import to_datetime
from durable_sqlite._records import IfExists, State
from durable_sqlite._sqlite import meter, statements, stats
from durable_sqlite._sqlite.meter import Meter
from durable_sqlite._sqlite.rows import Tables
from durable_sqlite._stats import CommitStats, JournalStats
from tests.sqlite.faults import faulty, opened
from tests.support.house import python
from tests.support.journals import (
    asked,
    awaits_answer,
    awaits_message,
    begin,
    completed,
    failed,
    new_message,
    new_question,
    new_run,
    rest,
    wait,
)


def look(path: Path) -> JournalStats:
    """As a command does that only looks."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as connection:
        return stats.stats(Tables(connection, statements.load()), str(path))


def test_it_needs_neither_an_engine_nor_the_types_of_the_application(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await begin(journal)
            looked = look(tmp_path / "j.db")
            assert looked.runs[State.RUNNING] == 1
            assert looked.workers == 1
            assert await journal.stats() == looked

    asyncio.run(main())
    code = "import json, sys; import durable_sqlite._sqlite.stats; print(json.dumps('pydantic' in sys.modules))"
    assert json.loads(python("-c", code)) is False


def test_runs_are_counted_by_state_and_all_states_are_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            assert (await journal.stats()).runs == dict.fromkeys(State, 0)
            for number in range(3):
                await journal.start(new_run(f"p{number}"), IfExists.ATTACH, drive=False)
            await journal.pause("p0", asked())
            for run_id, end in (("c", completed()), ("f", failed()), ("d", failed())):
                _, hold = await begin(journal, run_id)
                await journal.end(hold, end)
            await journal.discard("d", 70)
            held = await journal.stats()
            expected = {State.PENDING: 2, State.PAUSED: 1, State.COMPLETED: 1, State.FAILED: 2}
            assert held.runs == dict.fromkeys(State, 0) | expected
            assert held.dead_letters == 1

    asyncio.run(main())


def test_only_what_is_still_open_is_counted_as_open(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            _, asker = await begin(journal, "asker")
            await journal.ask(asker, new_question())
            await journal.suspend(asker, rest(awaits_answer(), awaits_message()))
            await journal.signal("asker", new_message("other"))
            _, waits = await begin(journal, "waits")
            await journal.suspend(waits, rest(wait(deadline=500)))
            _, over = await begin(journal, "over")
            await journal.signal("over", new_message())
            await journal.ask(over, new_question())
            held = await journal.stats()
            assert (held.waits, held.questions, held.messages) == (3, 2, 2)
            assert held.next_due_at == to_datetime(500)
            await journal.end(over, completed())  # it takes no message any more, and asks nothing
            await journal.pause("waits", asked())  # it waits for a person now
            held = await journal.stats()
            assert (held.waits, held.questions, held.messages) == (2, 1, 1)
            assert held.next_due_at is None

    asyncio.run(main())


def test_the_oldest_pending_run_is_found_also_among_the_suspects(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            assert (await journal.stats()).oldest_pending_at is None
            await journal.start(new_run("a", at=40), IfExists.ATTACH, drive=False)
            await journal.start(new_run("b", at=30, workflow="sail"), IfExists.ATTACH, drive=False)
            assert (await journal.stats()).oldest_pending_at == to_datetime(30)
            with closing(sqlite3.connect(tmp_path / "j.db")) as connection:
                connection.execute("UPDATE durable_runs SET deaths = 2 WHERE id = 'b'")
                connection.commit()
            assert (await journal.stats()).oldest_pending_at == to_datetime(30)

    asyncio.run(main())


def test_sizes_are_those_of_the_files_and_of_their_pages(tmp_path: Path) -> None:
    path = tmp_path / "j.db"

    async def main() -> None:
        async with opened(path, checkpoint_bytes=1 << 30) as journal:
            _, hold = await begin(journal)
            await journal.end(hold, completed())
            held = await journal.stats()
            assert held.file_bytes == path.stat().st_size
            assert held.wal_bytes == (tmp_path / "j.db-wal").stat().st_size > 0
            assert held.pages * held.page_bytes > held.file_bytes  # what is in the WAL counts as well
            assert held.free_pages == 0
            with closing(sqlite3.connect(path)) as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
            assert held.schema == version
        held = look(path)
        assert (held.wal_bytes, held.pages * held.page_bytes) == (0, path.stat().st_size)

    asyncio.run(main())


def test_a_copy_that_has_no_wal_can_be_looked_at(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            await begin(journal)
            await journal.backup(tmp_path / "copy.db", overwrite=False)

    asyncio.run(main())
    held = look(tmp_path / "copy.db")
    assert (held.wal_bytes, held.runs[State.RUNNING]) == (0, 1)
    assert not (tmp_path / "copy.db-wal").exists()


def test_a_journal_in_memory_has_pages_and_no_files() -> None:
    async def main() -> None:
        async with opened(":memory:") as journal:
            held = await journal.stats()
            assert (held.file_bytes, held.wal_bytes) == (0, 0)
            assert held.pages > 10

    asyncio.run(main())


def test_a_look_at_many_runs_walks_along_indexes_and_never_along_entries(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "j.db"):
            pass

    asyncio.run(main())
    plans: list[str] = []

    class Spy:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
            plans.extend(row[3] for row in self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))
            return self._connection.execute(sql, values)

    with closing(sqlite3.connect(tmp_path / "j.db")) as connection:
        spy: Any = Spy(connection)
        stats.stats(Tables(spy, statements.load()), str(tmp_path / "j.db"))
    of_tables = [plan for plan in plans if "durable_" in plan]
    assert len(of_tables) > 8
    assert all(" USING " in plan for plan in of_tables), of_tables
    assert not any("durable_entries" in plan for plan in plans)


# Commits -------------------------------------------------------------------------------------------------------------


def test_commits_are_timed_from_begin_to_the_end_of_commit(tmp_path: Path) -> None:
    async def main() -> None:
        now = 100.0

        def slow(sql: str, call: Callable[[], Any]) -> Any:
            nonlocal now
            if sql in {"BEGIN IMMEDIATE", "COMMIT"}:
                now += 0.25
            return call()

        async with opened(tmp_path / "j.db", monotonic=lambda: now, connection=faulty(slow)) as journal:
            assert journal.commits() == CommitStats(0, 0, 0, None, None, None)
            starts = [journal.start(new_run(f"r{n}"), IfExists.ATTACH, drive=False) for n in range(4)]
            assert journal.commits().waiting == 4
            await asyncio.gather(*starts)
            assert journal.commits() == CommitStats(1, 4, 0, 0.5, 0.5, 4.0)
            await journal.pause("r1", asked())
            assert journal.commits() == CommitStats(2, 5, 0, 0.5, 0.5, 2.5)

    asyncio.run(main())


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_KEPT", 100)


def test_of_a_hundred_commits_the_median_and_the_99th_are_told() -> None:
    noted = Meter()
    for number in range(100, 0, -1):
        noted.note(number / 100, 2)
    assert noted.read(7) == CommitStats(100, 200, 7, 0.5, 0.99, 2.0)


@pytest.mark.usefixtures("_short")
def test_only_the_last_commits_are_kept_while_all_are_counted() -> None:
    noted = Meter()
    for _ in range(1_000):
        noted.note(9.0, 50)
    for _ in range(99):
        noted.note(1.0, 1)
    assert noted.read(0) == CommitStats(1_099, 50_099, 0, 1.0, 1.0, 1.49)
    noted.note(1.0, 1)
    assert noted.read(0).batch == 1.0
