"""What the journal in memory does beyond the port: it dies on demand."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.journals import begin, bookings, entry, inserts, make_bookings
from tests.support.memory_journal import Disk, MemoryJournal


@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("delay", [None, 0.0])
def test_a_crash_at_a_commit_answers_nobody_and_the_next_life_finds_the_disk(lands: bool, delay: float | None) -> None:
    async def main() -> None:
        disk, crashes = Disk(), list[str]()
        journal = MemoryJournal(
            disk, delay=delay, crash_at=3, crash_lands=lands, on_crash=lambda: crashes.append("crash")
        )
        await journal.open("w", 1)
        started, hold = await begin(journal)
        last = journal.record(hold, entry())
        await asyncio.sleep(0.01)
        assert (crashes, journal.crashed, last.done()) == (["crash"], True, False)
        late, look = journal.record(hold, entry("s#2", seq=2)), asyncio.ensure_future(journal.run("a"))
        await asyncio.sleep(0.01)
        assert not late.done()
        assert not look.done()
        look.cancel()
        after = MemoryJournal(disk, delay=delay)
        await after.open("next", 2)
        assert await after.entries(started.row.no) == ([entry()] if lands else [])
        (freed,) = await after.take_over([journal.me], 5, b"{}", 3)
        assert freed.deaths == 1

    asyncio.run(main())


@pytest.mark.parametrize("lands", [True, False])
def test_a_crash_keeps_or_drops_the_rows_of_a_transaction_with_its_batch(lands: bool) -> None:
    async def main() -> None:
        disk = Disk()
        before = MemoryJournal(disk)
        await before.open("first", 1)
        await make_bookings(before)
        await before.close(2)
        journal = MemoryJournal(disk, crash_at=3, crash_lands=lands)
        await journal.open("w", 3)
        _, hold = await begin(journal)
        step, client = journal.transact_step(hold, entry(), inserts("a")), journal.transact(inserts("b"))
        await asyncio.sleep(0.01)
        assert not step.done()
        assert not client.done()
        after = MemoryJournal(disk)
        await after.open("next", 4)
        assert await bookings(after) == (["a", "b"] if lands else [])
        assert len(await after.entries(hold.run)) == int(lands)

    asyncio.run(main())


def test_a_broken_promise_stays_visible_on_the_disk() -> None:
    async def main() -> None:
        disk = Disk()
        journal = MemoryJournal(disk)
        await journal.open("w", 1)
        _, hold = await begin(journal)
        await journal.record(hold, entry())
        with pytest.raises(AssertionError, match="second outcome"):
            await journal.record(hold, entry())
        assert len(disk.violations) == 1

    asyncio.run(main())
