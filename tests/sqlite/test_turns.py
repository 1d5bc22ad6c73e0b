# pyright: reportPrivateUsage=false
# The link to the connection's thread has no public name.
"""The turns of the event loop that steps take, where the connection's thread answers at the loop's next turn."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from durable_sqlite import Engine, step, workflow
from durable_sqlite._sqlite import door
from durable_sqlite._sqlite.estate import Gate
from durable_sqlite._sqlite.link import Job, JobConnection

T = TypeVar("T")


class _Link:
    """A connection that does each job in a turn of the loop's own, so that no race decides how many turns pass."""

    def __init__(
        self,
        database: str,
        *,
        gate: Gate | None = None,
        connection: type[JobConnection] = JobConnection,
        farewell: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self._jobs: deque[Job] = deque()
        self._connection = connection(
            database, uri=True, isolation_level=None, jobs=self._jobs, farewell=farewell, gate=gate or Gate()
        )
        self.is_open = False

    async def open(self) -> None:
        self.is_open = True

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append(lambda connection: answer.set_result(job(connection)))
        asyncio.get_running_loop().call_soon(self._connection.commit)
        return await answer

    async def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._connection.close()


@pytest.fixture(autouse=True)
def no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "Link", _Link)


@contextmanager
def turns() -> Generator[list[int], None, None]:
    """Count the turns of the running loop: the list grows by one in each."""
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    handle: asyncio.Handle

    def turn() -> None:
        nonlocal handle
        seen.append(len(seen))
        handle = loop.call_soon(turn)

    handle = loop.call_soon(turn)
    try:
        yield seen
    finally:
        handle.cancel()


async def cost(run: Callable[[], Awaitable[object]]) -> int:
    """How many turns pass until a run has ended."""
    with turns() as seen:
        await run()
    return len(seen)


@step
async def increment(number: int) -> int:
    return number + 1


@workflow
async def one_by_one(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await increment(number)
    return number


@workflow
async def all_at_once(steps: int) -> int:
    return sum(await asyncio.gather(*[increment(0) for _ in range(steps)]))


def test_each_step_after_another_takes_six_turns_and_no_more_the_longer_the_run_is() -> None:
    """Its outcome is queued, handed to the thread, answered by it, told to who wrote it, and to the run; then the next begins."""

    async def main() -> None:
        async with Engine(":memory:"):
            await one_by_one(1)
            short = await cost(lambda: one_by_one(10))
            longer = await cost(lambda: one_by_one(30))
            longest = await cost(lambda: one_by_one(50))
        assert longer - short == longest - longer == 20 * 6

    asyncio.run(main())


def test_runs_side_by_side_take_no_more_turns_than_one_alone() -> None:
    """What all of them write in a turn is one commit, and all that it lets begin begins in one turn."""

    async def main() -> None:
        async with Engine(":memory:"):
            await one_by_one(1)
            short = await cost(lambda: asyncio.gather(*[one_by_one(10) for _ in range(20)]))
            longer = await cost(lambda: asyncio.gather(*[one_by_one(30) for _ in range(20)]))
        assert longer - short == 20 * 6

    asyncio.run(main())


def test_steps_that_were_called_at_once_share_their_turns() -> None:
    async def main() -> None:
        async with Engine(":memory:"):
            await all_at_once(1)
            assert await cost(lambda: all_at_once(2)) == await cost(lambda: all_at_once(50))

    asyncio.run(main())


@pytest.mark.parametrize("place", range(3))
def test_steps_begin_in_the_order_of_their_calls_also_beside_one_that_is_written_down_before_it_begins(
    place: int,
) -> None:
    """What was called before an at-most-once step waits for that intention as well, and yet does not begin after it."""
    began: list[int] = []

    @step
    async def plain(number: int) -> None:
        began.append(number)

    @step(at_most_once=True)
    async def careful(number: int) -> None:
        began.append(number)

    @workflow
    async def flow() -> None:
        await asyncio.gather(*[careful(number) if number == place else plain(number) for number in range(3)])

    async def main() -> None:
        async with Engine(":memory:"):
            await flow()

    asyncio.run(main())
    assert began == [0, 1, 2]
