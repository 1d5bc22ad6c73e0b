"""A watchdog names what blocks the application's event loop, while it blocks it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, UsageError, current_step, step, workflow
from durable_sqlite._stats import LoopStats
from durable_sqlite._watchdog import Watchdog, _place, _stack
from tests.support.clock import START, ManualClock
from tests.support.gates import session_of
from tests.support.house import python

PATIENCE = 20.0
HERE = Path(__file__)


class Kennel:
    """A watchdog whose time is the test's, and whose thread looks when the test says so."""

    def __init__(self, limit: float | None = 1.0, body: Callable[[], str | None] = lambda: None) -> None:
        self.now = 100.0
        self.clock = ManualClock()
        self._rest = threading.Event()
        self.dog = Watchdog(
            "orders.db",
            asyncio.get_running_loop(),
            self.clock,
            limit,
            body,
            monotonic=lambda: self.now,
            wait=lambda _seconds: self._rest.wait(PATIENCE),  # its own thread does nothing
        )
        self.dog.start()

    def close(self) -> None:
        self.dog.stop()
        self._rest.set()

    def look(self, after: float = 0.25) -> None:
        """Let time pass, then let a thread look, while this one waits for it: so the loop is blocked here."""
        self.now += after
        looking = threading.Thread(target=self.dog.look)
        looking.start()
        looking.join(PATIENCE)
        assert not looking.is_alive()

    def block(self, seconds: float = 2.0) -> None:
        """Be blocked for so long, looked at four times a second."""
        for _ in range(round(seconds * 4)):
            self.look()


async def answered() -> None:
    """Let the loop turn."""
    for _ in range(3):
        await asyncio.sleep(0)


KENNEL: list[Kennel] = []


def line_of(mark: str) -> int:
    """The number of the line of this file that ends with this comment."""
    (number,) = (
        number
        for number, line in enumerate(HERE.read_text(encoding="utf-8").splitlines(), start=1)
        if line.endswith(f"# {mark}")
    )
    return number


@step
async def greedy() -> str:
    KENNEL[0].block()  # here it stands
    return current_step().name


@step
async def greedy_below() -> str:
    async def below() -> None:
        KENNEL[0].block()

    async with asyncio.TaskGroup() as group:
        group.create_task(below())
    return "done"


@workflow
async def blocks(below: bool) -> str:
    return await (greedy_below() if below else greedy.options(key="mine")())


@workflow
async def blocks_itself() -> str:
    KENNEL[0].block()
    return "done"


@asynccontextmanager
async def watched() -> AsyncGenerator[Engine]:
    async with Engine(":memory:", slow_loop=None) as engine:
        kennel = Kennel(body=session_of(engine).worker.pumped)
        KENNEL.append(kennel)
        try:
            yield engine
        finally:
            kennel.close()
            KENNEL.clear()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_step_that_blocks_the_loop_is_named_while_it_blocks_it(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with watched():
            KENNEL[0].look()
            await answered()
            run = await blocks.options(id="r1").start(below=False)
            assert await run.result(timeout=PATIENCE) == "greedy"  # its name, though its key is another
            told, over = warnings(caplog)
            assert told.startswith("run r1, step greedy, key mine blocks the event loop of orders.db, for 1 s by now")
            assert f"called from {HERE}:{line_of('here it stands')} in greedy: " in told
            assert f"at {threading.__file__}:" in told  # the innermost place: the test waits for its thread there
            assert "plain function" in told
            assert over == "the event loop of orders.db turns again: it was blocked for 1.75 s"

    asyncio.run(scenario())


def test_a_task_that_a_step_has_made_counts_as_the_step(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with watched():
            KENNEL[0].look()
            await answered()
            run = await blocks.options(id="r2").start(below=True)
            await run.result(timeout=PATIENCE)
            assert warnings(caplog)[0].startswith("run r2, step greedy_below, key greedy_below#1 blocks")

    asyncio.run(scenario())


def test_a_body_that_blocks_the_loop_is_named_by_its_run(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with watched():
            run = await blocks_itself.options(id="r3").start()
            await run.result(timeout=PATIENCE)
            told, over = warnings(caplog)
            assert told.startswith("the body of run r3 blocks the event loop")
            assert " in blocks_itself: " in told
            assert "turns again" in over

    asyncio.run(scenario())


def test_code_that_is_no_step_is_named_by_its_task_or_its_place_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        kennel = Kennel()
        asyncio.get_running_loop().call_soon(kennel.block)
        await answered()
        await asyncio.create_task(_spins(kennel), name="import of orders")
        await answered()
        kennel.close()
        first, _, second, _ = warnings(caplog)
        assert first.startswith("a callback blocks the event loop")
        assert " in Kennel.block" in first
        assert second.startswith("import of orders, which is no step, blocks the event loop")

    async def _spins(kennel: Kennel) -> None:
        kennel.block()

    asyncio.run(scenario())


def test_a_block_is_told_once_however_long_it_is_and_the_next_one_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        kennel = Kennel()
        for seconds in (1.0, 60.0, 2.0):
            kennel.block(seconds)
            await answered()
        kennel.close()
        # Asked a quarter of a second after it began; the first was over before anybody could say so.
        ends = [float(told.split("blocked for ")[1].split()[0]) for told in warnings(caplog) if "turns again" in told]
        assert ends == [59.8, 1.75]
        assert len(warnings(caplog)) == 4

    asyncio.run(scenario())


def test_a_loop_that_turns_in_time_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        kennel = Kennel()
        for _ in range(50):
            kennel.block(1.0)
            await answered()
        kennel.close()

    asyncio.run(scenario())
    assert warnings(caplog) == []


def test_what_was_over_before_anybody_could_look_is_told_without_a_culprit(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        kennel = Kennel()
        kennel.look()
        kennel.look(after=30.0)  # the thread was late itself: the process was stopped, or the lock was held
        await answered()
        kennel.close()

    asyncio.run(scenario())
    (told,) = warnings(caplog)
    assert told.startswith("the event loop of orders.db stood still for 30 s, and what held it up was not seen")


def test_a_loop_that_waits_for_events_is_not_blamed(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        kennel = Kennel()
        here = threading.get_ident()

        def look() -> None:
            while list(_stack(sys._current_frames()[here])):
                time.sleep(0.001)
            # It rests, so the thread has only missed its answer: this machine was asleep.
            kennel.dog._asked = kennel.dog._looked = kennel.now
            for _ in range(20):
                kennel.now += 0.25
                kennel.dog.look()
            kennel.dog._asked = None

        await asyncio.get_running_loop().run_in_executor(None, look)
        kennel.close()

    asyncio.run(scenario())
    assert warnings(caplog) == []


def test_a_loop_that_is_not_running_is_not_blocked(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()

    async def make() -> Kennel:
        return Kennel()

    try:
        kennel = loop.run_until_complete(make())
        kennel.block(10.0)  # nobody runs it, as between two cells of a notebook
        loop.run_until_complete(answered())
        assert warnings(caplog) == []
        assert kennel.dog.seen() == LoopStats(None, None)
        kennel.look()
        loop.run_until_complete(answered())
        assert kennel.dog.seen() == LoopStats(0.0, 0.0)
    finally:
        loop.close()
    kennel.look()
    assert kennel.dog._ended.is_set()  # a loop that is closed needs no watchdog
    kennel.close()


def test_nobody_is_blamed_where_the_loop_turned_while_it_was_looked_at(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        kennel = Kennel()
        kennel.look()
        who = kennel.dog._who

        def turned() -> str:
            kennel.dog._answer(kennel.now)  # between the look at the stack and the word about it
            return who()

        monkeypatch.setattr(kennel.dog, "_who", turned)
        kennel.block(1.25)
        kennel.close()

    asyncio.run(scenario())
    (told,) = warnings(caplog)
    assert "what held it up was not seen" in told  # what was seen may have been of the next moment


def test_it_knows_when_the_loop_last_turned_and_how_late_it_was() -> None:
    async def scenario() -> None:
        kennel = Kennel()
        assert kennel.dog.last_tick == START
        assert kennel.dog.seen() == LoopStats(None, None)
        for lag, worst in ((0.5, 0.5), (0.75, 0.75), (0.25, 0.75)):
            kennel.look()
            kennel.now += lag
            kennel.clock.advance(7)
            await answered()
            assert kennel.dog.seen() == LoopStats(lag, worst)
        assert kennel.dog.last_tick == START + 21_000_000
        kennel.now += 59.6
        assert kennel.dog.seen() == LoopStats(0.25, 0.25)  # the worst of the last minute, not of ever
        kennel.now += 60
        assert kennel.dog.seen() == LoopStats(0.25, None)
        kennel.look()
        await answered()
        assert kennel.dog.seen() == LoopStats(0.0, 0.0)
        kennel.close()

    asyncio.run(scenario())


def test_what_was_long_ago_is_forgotten_though_nobody_asks() -> None:
    async def scenario() -> None:
        kennel = Kennel()
        for lag in (0.9, 0.5, 0.25):
            kennel.look()
            kennel.now += lag
            await answered()
            kennel.now += 40.0
        kennel.close()
        assert len(kennel.dog._lags) == 2  # of the last minute, when the last one came

    asyncio.run(scenario())


def test_where_the_library_itself_blocks_the_loop_its_own_place_is_told() -> None:
    code = Watchdog.look.__code__
    assert _place([(code, 12)]) == f"at {code.co_filename}:12 in Watchdog.look"


@pytest.mark.parametrize("options", [{"slow_loop": None}, {"drive": False}])
def test_it_watches_only_where_it_is_to(options: dict[str, Any]) -> None:
    async def scenario() -> None:
        before = {thread.name for thread in threading.enumerate()}
        async with Engine(":memory:", **options) as engine:
            assert "durable_sqlite watchdog" not in {thread.name for thread in threading.enumerate()} - before
            assert session_of(engine).watchdog.last_tick is None
            assert (await engine.stats()).loop == LoopStats(None, None)

    asyncio.run(scenario())


@pytest.mark.parametrize("slow_loop", [0, -1.0, "soon", float("nan"), timedelta(0)])
def test_a_limit_that_makes_no_sense_is_refused(slow_loop: Any) -> None:
    with pytest.raises(UsageError, match="slow_loop"):
        Engine(":memory:", slow_loop=slow_loop)


def test_a_real_block_is_told_of_while_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    def named() -> list[str]:
        return [told for told in warnings(caplog) if told.startswith("run real, step stands, key stands#1 blocks")]

    @step
    async def stands() -> int:
        until = time.monotonic() + PATIENCE
        while not named() and time.monotonic() < until:
            time.sleep(0.001)  # noqa: ASYNC251 - that is the point
        return len(named())

    @workflow
    async def flow() -> int:
        return await stands()

    async def scenario() -> None:
        async with Engine(":memory:", slow_loop=timedelta(milliseconds=1)):
            run = await flow.options(id="real").start()
            assert await run.result(timeout=PATIENCE) == 1

    asyncio.run(scenario())
    assert ".stands: " in named()[0]


_ENDS = """
import asyncio
from durable_sqlite import Engine

async def main():
    await Engine(":memory:", slow_loop=0.01).__aenter__()

asyncio.run(main())
print("done")
"""


def test_a_program_that_never_closes_its_engine_is_not_held_up_by_it() -> None:
    assert python("-c", _ENDS) == "done\n"
