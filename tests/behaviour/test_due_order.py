"""Timers by the hundred and by the century: in due order, in bounded batches, never early, none lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from durable_sqlite import Engine, Retry, Run, Signal, State, now, sleep, sleep_until, step, workflow
from durable_sqlite._clock import to_datetime
from durable_sqlite._records import Claimed
from durable_sqlite._sqlite import SqliteJournal
from tests.support.clock import START, ManualClock
from tests.support.gates import deaf, session_of
from tests.support.restarts import cut, die, quiet
from tests.support.stage import until

BEGIN = to_datetime(START)
MANY = 300
LEASE = 3600.0
"""Seconds: after a stand-still of the machine, steps wait until the lease is seen to be in force, each for itself."""
BATCH = 100
"""How many runs are claimed in one transaction at the most."""

woken: list[int] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    woken.clear()


class DueMessage(Signal):
    number: int


@step
async def wake(number: int) -> None:
    woken.append(number)


@workflow
async def naps(number: int, seconds: float) -> str:
    await sleep(seconds)
    await wake(number)
    return str(now())


@workflow
async def naps_until(number: int, moment: datetime) -> None:
    await sleep_until(moment)
    await wake(number)


def claims_from_now_on(patch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """The limit of each claim that any engine makes, and the ids of the runs that it took."""
    seen: list[tuple[int, list[str]]] = []
    claim: Callable[..., asyncio.Future[list[Claimed]]] = SqliteJournal.claim

    def noted(
        journal: SqliteJournal, workflows: Any, at: int, limit: int, **which: Any
    ) -> asyncio.Future[list[Claimed]]:
        write = claim(journal, workflows, at, limit, **which)
        write.add_done_callback(lambda done: seen.append((limit, [one.row.id for one in done.result()])))
        return write

    patch.setattr(SqliteJournal, "claim", noted)
    return seen


def taken(claims: list[tuple[int, list[str]]]) -> list[str]:
    """The ids of the runs that were taken, in order."""
    return [run_id for _, ids in claims for run_id in ids]


async def comes(look: Callable[[], Awaitable[object]]) -> None:
    """Wait until a look at the journal finds what it is to find."""
    async with asyncio.timeout(20):
        while not await look():  # noqa: ASYNC110 - it may be another process that writes
            await asyncio.sleep(0.001)


async def has_completed(run: Run[Any]) -> bool:
    return (await run.info()).state is State.COMPLETED


async def all_sleep(engine: Engine, number: int) -> bool:
    return await engine.count(state="suspended") == number


async def sleepers(path: Path, clock: ManualClock, seconds: list[float]) -> None:
    """Let so many runs fall asleep, each for its time, and close."""
    async with Engine(path, clock=clock, synchronous="normal", unload_after=0) as engine:
        await asyncio.gather(
            *(naps.options(id=f"n{number}").start(number, each) for number, each in enumerate(seconds))
        )
        await quiet(engine)
        assert await engine.count(state="suspended") == len(seconds)


# Many at once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [10_000, 7])
def test_hundreds_that_are_due_at_the_same_moment_are_driven_in_bounded_batches_the_oldest_first(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        await sleepers(tmp_path / "j.db", clock, [100.0] * MANY)
        async with Engine(
            tmp_path / "j.db", clock=clock, workflows=[naps], synchronous="normal", max_resident=room, lease=LEASE
        ) as engine:
            await quiet(engine)
            claims = claims_from_now_on(monkeypatch)
            clock.advance(99.999_999)
            await quiet(engine)
            assert taken(claims) == []
            clock.advance(0.000_001)
            await until(lambda: session_of(engine).worker._claims.under_way)
            await quiet(engine)
            assert await engine.count(state="completed") == MANY
            assert all(len(ids) <= limit <= min(BATCH, room) for limit, ids in claims)
            assert taken(claims) == [f"n{number}" for number in range(MANY)]

    asyncio.run(scenario())
    assert sorted(woken) == list(range(MANY))
    if room > MANY:
        assert woken == list(range(MANY))


@pytest.mark.contradicts("two", "crash", reason="it counts what one engine claims")
@pytest.mark.parametrize("unload_after", [0.0, 1e6], ids=["unloaded", "resident"])
def test_those_that_are_overdue_are_driven_in_the_order_of_their_deadlines(
    tmp_path: Path, unload_after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    seconds = [float(number) for number in range(1, MANY + 1)]
    Random(7).shuffle(seconds)
    due_order = sorted(range(MANY), key=lambda number: seconds[number])

    async def scenario() -> None:
        if unload_after:
            async with Engine(
                tmp_path / "j.db", clock=clock, synchronous="normal", unload_after=unload_after, lease=LEASE
            ) as engine:
                await asyncio.gather(
                    *(naps.options(id=f"n{number}").start(number, each) for number, each in enumerate(seconds))
                )
                await quiet(engine)
                clock.advance(7 * 86_400)
                await until(lambda: len(woken) == MANY)
                await quiet(engine)
                return
        await sleepers(tmp_path / "j.db", clock, seconds)
        clock.advance(7 * 86_400)
        claims = claims_from_now_on(monkeypatch)
        async with Engine(
            tmp_path / "j.db", clock=clock, workflows=[naps], synchronous="normal", lease=LEASE
        ) as engine:
            await until(lambda: len(woken) == MANY)
            await quiet(engine)
            assert all(len(ids) <= BATCH for _, ids in claims)
            assert taken(claims) == [f"n{number}" for number in due_order]

    asyncio.run(scenario())
    assert woken == due_order


def test_what_is_pending_and_what_is_due_take_turns_by_the_time_since_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backlog of one kind does not starve the other."""
    clock = ManualClock()

    async def scenario() -> None:
        await sleepers(tmp_path / "j.db", clock, [10.0, 30.0, 50.0])
        async with Engine(tmp_path / "j.db", clock=clock, drive=False):
            for number in (3, 4, 5):
                clock.advance(20)
                await naps.options(id=f"n{number}").start(number, 0)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[naps]) as engine:
            await until(lambda: len(woken) == 6)
            await quiet(engine)

    asyncio.run(scenario())
    assert woken == [0, 3, 1, 4, 2, 5]


def test_each_of_many_wakes_at_its_own_moment_and_none_before() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            for number, seconds in enumerate((3, 1, 2, 2, 5)):
                await naps.start(number, seconds)
            await quiet(engine)
            shown: list[list[int]] = []
            for _ in range(5):
                clock.advance(1)
                await quiet(engine)
                shown.append(sorted(woken))
            assert shown == [[1], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4]]

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 1e6], ids=["unloaded", "resident"])
def test_an_alarm_is_set_for_the_very_microsecond_and_nothing_looks_in_between(
    unload_after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            await naps.start(1, 1000)
            await quiet(engine)
            assert START + 1_000_000_000 in clock.armed()
            claims = claims_from_now_on(monkeypatch)
            for _ in range(999):
                clock.advance(1)
            await quiet(engine)
            assert claims == []
            clock.advance(0.999_999)
            await quiet(engine)
            assert claims == []
            clock.advance(0.000_001)
            await quiet(engine)
            assert woken == [1]

    asyncio.run(scenario())


# Long and short ------------------------------------------------------------------------------------------------------


def test_a_run_that_sleeps_thirty_days_ends_at_once_when_its_process_comes_back_after_sixty(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await naps.options(id="x").start(1, 30 * 86_400)
            await quiet(engine)
        clock.advance(60 * 86_400)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[naps]) as engine:
            assert await engine.run("x").result(timeout=20) == str(BEGIN + timedelta(days=60))

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 1e12], ids=["unloaded", "resident"])
def test_a_sleep_of_three_centuries_is_slept_to_its_end(tmp_path: Path, unload_after: float) -> None:
    clock = ManualClock()
    year = 365 * 86_400

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
            run = await naps.options(id="x").start(1, 300 * year)
            await quiet(engine)
            assert "until 2323-" in (await run.info()).waiting_for[0]
            clock.advance(300 * year - 1)
            await quiet(engine)
            assert (await run.info()).state is State.SUSPENDED
            clock.advance(1)
            await quiet(engine)
            assert (await run.info()).state is State.COMPLETED

    asyncio.run(scenario())


def test_the_last_moment_of_the_calendar_can_be_slept_until(tmp_path: Path) -> None:
    clock = ManualClock()
    last = datetime.max.replace(tzinfo=UTC)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await naps_until.options(id="x").start(1, last)
            await quiet(engine)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[naps_until]) as engine:
            await quiet(engine)
            info = await engine.run("x").info()
            assert info.state is State.SUSPENDED
            assert info.waiting_for[0].endswith("until 9999-12-31T23:59:59.999+00:00")

    asyncio.run(scenario())


def test_a_moment_is_an_instant_whatever_its_time_zone() -> None:
    clock = ManualClock()
    moment = BEGIN + timedelta(seconds=10)

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            for number, hours in enumerate((-12, 0, 5.5, 14)):
                zone = timedelta(hours=hours)
                local = (moment + zone).replace(tzinfo=None)
                await naps_until.start(number, datetime.fromisoformat(f"{local}{zone_of(zone)}"))
            await quiet(engine)
            clock.advance(9.999_999)
            await quiet(engine)
            assert woken == []
            clock.advance(0.000_001)
            await quiet(engine)

    asyncio.run(scenario())
    assert sorted(woken) == [0, 1, 2, 3]


def zone_of(offset: timedelta) -> str:
    minutes = offset // timedelta(minutes=1)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_none_is_refused_in_a_wait_like_in_a_sleep(wrong: float) -> None:
    @workflow
    async def flow() -> int:
        refused = 0
        for call in (lambda: sleep(wrong), lambda: DueMessage.wait(timeout=wrong)):
            with pytest.raises(ValueError, match="finite"):
                call()
            refused += 1
        with pytest.raises(ValueError, match="time zone"):
            _ = sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001
        return refused

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == 2
            assert await run.history() == []

    asyncio.run(scenario())


@pytest.mark.parametrize(("timeout", "taken"), [(0, 7), (timedelta(0), 7), (-5, None), (timedelta(days=-1), None)])
def test_a_wait_that_may_take_no_time_takes_what_was_sent_by_its_deadline_and_else_returns_at_once(
    timeout: float | timedelta, taken: int | None
) -> None:
    @workflow
    async def flow() -> list[int | None]:
        given: list[int | None] = []
        for _ in range(2):
            message = await DueMessage.wait(timeout=timeout)
            given.append(None if message is None else message.number)
        return given

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()):
            run = await flow.start()
            assert await run.result(timeout=20) == [None, None]
            run = await flow.options(id="x").signal_with_start(DueMessage(number=7))
            assert await run.result(timeout=20) == [taken, None]

    asyncio.run(scenario())


def test_sleeps_of_no_time_in_a_row_take_none_and_are_recorded_each() -> None:
    @workflow
    async def flow() -> None:
        for seconds in (0, -1, 0.0, -1e300):
            await sleep(seconds)
        await sleep_until(BEGIN - timedelta(days=400_000 / 24))
        await sleep(timedelta(0))

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()):
            run = await flow.start()
            await run.result(timeout=20)
            history = await run.history()
            assert [entry.key for entry in history] == [f"sleep#{number}" for number in range(1, 7)]
            assert {entry.recorded_at for entry in history} == {BEGIN}

    asyncio.run(scenario())


def test_the_shortest_sleep_is_a_microsecond_and_rounds_up() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            await naps.start(1, 1e-9)
            await quiet(engine)
            assert woken == []
            clock.advance(0.000_001)
            await quiet(engine)
            assert woken == [1]

    asyncio.run(scenario())


# At the moment of hand-over ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unload_after", [0.0, 1e6], ids=["unloaded", "resident"])
@pytest.mark.parametrize(
    "dies", ["before it looks", "while it looks", "before its commit", "after its commit", "later"]
)
def test_a_timer_fires_once_though_its_process_dies_at_the_very_moment(
    tmp_path: Path, dies: str, unload_after: float
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after)
        async with engine:
            await naps.options(id="x").start(1, 100)
            await quiet(engine)
            clock.advance(100)
            if dies == "while it looks":
                for _ in range(3):
                    await asyncio.sleep(0)
            elif dies == "before its commit":
                cut(engine)
                for _ in range(20):
                    await asyncio.sleep(0)
            elif dies == "after its commit":
                await comes(engine.run("x").history)
            elif dies == "later":
                await quiet(engine)
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[naps]) as after:
            assert await after.run("x").result(timeout=20) == str(BEGIN + timedelta(seconds=100))
            assert [entry.key for entry in await after.run("x").history()] == ["sleep#1", "wake#1"]

    asyncio.run(scenario())
    assert 1 <= len(woken) <= 2
    if dies in ("before it looks", "before its commit", "later"):
        assert len(woken) == 1


@pytest.mark.parametrize("unload_after", [0.0, 1e6], ids=["unloaded", "resident"])
def test_a_timer_that_two_processes_see_come_due_fires_in_one_of_them(tmp_path: Path, unload_after: float) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with (
            Engine(path, clock=clock, unload_after=unload_after) as one,
            Engine(path, clock=clock, unload_after=unload_after, workflows=[naps]) as two,
        ):
            for number in range(20):
                await naps.options(id=f"n{number}", engine=one).start(number, 100)
            await quiet(one)
            await session_of(two)._hear()
            await quiet(two)
            clock.advance(100)
            for number in range(20):
                await comes(partial(has_completed, two.run(f"n{number}")))
                assert await keys(two.run(f"n{number}")) == ["sleep#1", "wake#1"]

    asyncio.run(scenario())
    assert sorted(woken) == list(range(20))


async def keys(run: Run[Any]) -> list[str]:
    return [entry.key for entry in await run.history()]


@pytest.mark.parametrize("ends", ["killed", "closed"])
def test_a_timer_that_one_process_has_written_rings_in_another_when_the_first_is_gone(
    tmp_path: Path, ends: str
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        path = tmp_path / "j.db"
        async with Engine(path, clock=clock, workflows=[naps]) as second:
            listener = session_of(second)._listener
            assert listener is not None
            listener.cancel()  # from now on it hears when the test says so, and not by chance after the timer is due
            async with Engine(path, clock=clock) as first:
                await naps.options(id="x", engine=first).start(1, 100)
                await quiet(first)
                if ends == "killed":
                    await die(first)
            await session_of(second)._hear()
            await quiet(second)
            clock.advance(100)
            await second.run("x").result(timeout=5)

    asyncio.run(scenario())
    assert woken == [1]


def test_a_retry_that_is_due_takes_its_place_in_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()

    @step(retry=Retry.fixed(20, max_attempts=2))
    async def shaky(number: int) -> None:
        if clock.now() < START + 20_000_000:
            raise ConnectionError
        woken.append(number)

    @workflow
    async def tries(number: int) -> None:
        await shaky(number)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=0) as engine:
            await naps.options(id="n0").start(0, 10)
            await tries.options(id="n1").start(1)
            await naps.options(id="n2").start(2, 30)
            await comes(partial(all_sleep, engine, 3))
        clock.advance(100)
        claims = claims_from_now_on(monkeypatch)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[naps, tries]):
            await until(lambda: len(woken) == 3)
            assert taken(claims) == ["n0", "n1", "n2"]

    asyncio.run(scenario())


def test_a_run_that_comes_to_rest_overdue_after_the_look_is_found_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=0) as engine:
            await deaf(engine)  # else it looks again because of what it has written itself
            run = await overdue_nap.start()
            await quiet(engine)
            with monkeypatch.context() as patched:
                looks = _blind(engine, patched, looks=2)
                clock.advance(61)
                assert await run.result(timeout=20) == "awake"
                assert looks == [0, 1]

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it counts what one engine claims")
def test_a_run_that_is_due_and_can_never_be_taken_does_not_keep_the_engine_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=0) as engine:
            run = await overdue_nap.start()
            await quiet(engine)
            with monkeypatch.context() as patched:
                looks = _blind(engine, patched, looks=1_000)
                clock.advance(61)
                for _ in range(20):
                    await quiet(engine)
                assert 2 <= len(looks) <= 10
            clock.advance(11)
            assert await run.result(timeout=20) == "awake"

    asyncio.run(scenario())


@workflow
async def overdue_nap() -> str:
    await sleep(60)
    return "awake"


def _blind(engine: Engine, patched: pytest.MonkeyPatch, *, looks: int) -> list[int]:
    """Let the next claims find nothing; a list that grows with each of them."""
    journal, taken = session_of(engine).journal, list[int]()
    claim = journal.claim

    def blind(*args: Any, **kwargs: Any) -> asyncio.Future[list[Claimed]]:
        if len(taken) >= looks:
            return claim(*args, **kwargs)
        taken.append(len(taken))
        nothing: asyncio.Future[list[Claimed]] = asyncio.get_running_loop().create_future()
        nothing.set_result([])
        return nothing

    patched.setattr(journal, "claim", blind)
    return taken
