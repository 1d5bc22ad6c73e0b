"""The thread that lets an interpreter exit."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite._sqlite.link import Guardian, Link


def test_a_thread_that_ends_without_closing_its_journal_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    loop = asyncio.new_event_loop()
    journal = SqliteJournal(tmp_path / "j.db")
    owner = threading.Thread(target=lambda: loop.run_until_complete(journal.open("w", 1)))
    owner.start()
    owner.join()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
    assert journal._life is not None  # pyright: ignore[reportPrivateUsage] - the task of the loop that was left
    journal._life.cancel()  # pyright: ignore[reportPrivateUsage]
    loop.run_until_complete(asyncio.wait([journal._life]))  # pyright: ignore[reportPrivateUsage]
    loop.close()


def test_a_guardian_that_was_dismissed_goes_away_and_abandons_nothing() -> None:
    before, called = set(threading.enumerate()), threading.Event()
    guardian = Guardian(called.set, patience=0.001)
    (thread,) = set(threading.enumerate()) - before
    guardian.dismiss()
    thread.join(10)
    assert not thread.is_alive()
    assert not called.is_set()


def test_a_guardian_of_a_daemon_thread_waits_for_the_end_of_the_program() -> None:
    called, made = threading.Event(), list[Guardian]()
    owner = threading.Thread(target=lambda: made.append(Guardian(called.set, patience=0.001)), daemon=True)
    owner.start()
    owner.join()
    assert not called.wait(0.05)
    made[0].dismiss()


def test_a_link_may_be_closed_stopped_and_abandoned_in_any_order() -> None:
    async def main() -> None:
        for ends in (("close", "close"), ("stop", "close"), ("abandon", "stop", "close"), ("stop", "abandon")):
            link = Link(":memory:")
            await link.close()
            await link.open()
            assert await link.run(lambda connection: connection.execute("SELECT 1").fetchall()) == [(1,)]
            for end in ends:
                if end == "abandon":
                    await asyncio.to_thread(
                        link.abandon
                    )  # for threads that have no loop: else it would be told of the end
                elif (answer := getattr(link, end)()) is not None:
                    await answer
            await link.ended()
            assert not link.is_open

    asyncio.run(main())
