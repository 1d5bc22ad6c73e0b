"""Retries: counted over restarts, waited for without holding anything, and told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from durable_sqlite import (
    DefinitionError,
    Engine,
    Permanent,
    Retry,
    RetryAfter,
    Run,
    RunCancelled,
    RunFailed,
    State,
    StepFailed,
    Unstorable,
    UsageError,
    current_step,
    step,
    workflow,
)
from tests.support.clock import START, ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import until

calls: list[tuple[int, int | None, bool]] = []
fail_until: list[int] = []


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    calls.clear()
    fail_until[:] = [99]


def note() -> int:
    info = current_step()
    calls.append((info.attempt, info.max_attempts, info.recovered))
    return info.attempt


@step(retry=Retry(max_attempts=3, initial_delay=10, jitter=0))
async def shaky() -> str:
    attempt = note()
    if attempt < fail_until[0]:
        raise ValueError(f"attempt {attempt}")
    return f"held at attempt {attempt}"


@workflow
async def try_it() -> str:
    return await shaky()


@workflow
async def try_and_catch() -> str:
    try:
        return await shaky()
    except StepFailed as failure:
        return f"{failure.type} {failure.message} {failure.attempts} {failure.reason}"


async def pass_by(engine: Engine, clock: ManualClock, *waits: float) -> None:
    for seconds in waits:
        await quiet(engine)
        clock.advance(seconds)
    await quiet(engine)


@pytest.mark.contradicts("crash", reason="it foretells whether a step was interrupted")
def test_a_step_is_called_exactly_max_attempts_times_and_its_run_fails_with_the_reason() -> None:
    clock = ManualClock()

    async def scenario() -> RunFailed:
        async with Engine(":memory:", clock=clock) as engine:
            run = await try_it.start()
            await pass_by(engine, clock, 10, 20, 40, 80)
            with pytest.raises(RunFailed) as failed:
                await run
            return failed.value

    failure = asyncio.run(scenario())
    assert calls == [(1, 3, False), (2, 3, False), (3, 3, False)]
    assert failure.reason == "retries_exhausted"
    assert failure.record is not None
    assert failure.record.key == "shaky#1"


def test_the_next_attempt_never_begins_early_and_there_is_no_wait_after_the_last() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await try_it.start()
            await pass_by(engine, clock, 9.999)
            assert len(calls) == 1
            await pass_by(engine, clock, 0.001)
            assert len(calls) == 2
            await pass_by(engine, clock, 19.999)
            assert len(calls) == 2
            await pass_by(engine, clock, 0.001)
            assert (await run.info()).state is State.FAILED

    asyncio.run(scenario())


def test_a_long_back_off_suspends_the_run_and_says_what_it_waits_for() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=0) as engine:
            run = await try_it.start()
            await quiet(engine)
            info = await run.info()
            assert info.state is State.SUSPENDED
            assert "next attempt of shaky (shaky#1)" in info.waiting_for[0]
            fail_until[0] = 2
            await pass_by(engine, clock, 10)
            assert await run == "held at attempt 2"
            (entry,) = await run.history()
            assert (entry.attempts, [failure.attempt for failure in entry.failures]) == (2, [1])
            assert entry.failures[0].error.message == "attempt 1"

    asyncio.run(scenario())


def test_a_step_that_is_still_being_tried_is_in_the_history() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await try_it.start()
            await quiet(engine)
            (entry,) = await run.history()
            assert (entry.key, entry.name, entry.outcome, entry.seq, entry.attempts) == ("shaky#1", "shaky", None, 0, 1)
            assert entry.recorded_at is None

    asyncio.run(scenario())


@pytest.mark.parametrize("ending", ["dies", "closes"])
def test_a_restart_between_attempts_keeps_their_count_and_the_remaining_wait(tmp_path: Path, ending: str) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db", clock=clock)
        async with engine:
            run = await try_it.options(id="x").start()
            await quiet(engine)
            if ending == "dies":
                await die(engine)
        clock.advance(4)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[try_it]) as engine:
            await pass_by(engine, clock, 5.9)
            assert len(calls) == 1
            await pass_by(engine, clock, 0.1)
            assert len(calls) == 2
            await pass_by(engine, clock, 20, 40)
            with pytest.raises(RunFailed):
                await engine.run("x")
        assert run.id == "x"

    asyncio.run(scenario())
    assert [attempt for attempt, _, _ in calls] == [1, 2, 3]


@pytest.mark.contradicts("crash", reason="it foretells whether a step was interrupted")
def test_a_death_in_the_middle_of_an_attempt_makes_that_attempt_again(tmp_path: Path) -> None:
    clock = ManualClock()
    began = asyncio.Event()

    @step(retry=Retry(max_attempts=2, initial_delay=0.1, jitter=0))
    async def slow() -> str:
        if note() == 1:
            raise ValueError
        began.set()
        if not current_step().recovered:
            await asyncio.sleep(3600)
        raise ValueError

    @workflow
    async def flow() -> None:
        await slow()

    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db", clock=clock)
        async with engine:
            await flow.options(id="x").start()
            await until(clock.armed)
            clock.advance(0.2)
            await began.wait()
            await die(engine)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            with pytest.raises(RunFailed):
                await engine.run("x")

    asyncio.run(scenario())
    assert calls == [(1, 2, False), (2, 2, False), (2, 2, True)]


def test_a_caught_failure_is_the_same_on_replay(tmp_path: Path) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run: Run[str] = await try_and_catch.options(id="x").start()
            await pass_by(engine, clock, 10, 20)
            assert await run == "builtins.ValueError attempt 3 3 retries_exhausted"

    asyncio.run(scenario())


def test_cancel_is_seen_during_a_back_off() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await try_it.start()
            await quiet(engine)
            await run.cancel(reason="enough")
            with pytest.raises(RunCancelled):
                await run.result(timeout=20)
            await pass_by(engine, clock, 10, 20)

    asyncio.run(scenario())
    assert len(calls) == 1


def test_a_call_says_it_before_its_step_and_that_before_the_engine() -> None:
    @step
    async def plain() -> None:
        note()
        raise ValueError

    @step(retry=Retry.fixed(0, max_attempts=2))
    async def twice() -> None:
        note()
        raise ValueError

    @workflow
    async def flow() -> None:
        for call in (plain, twice, twice.options(retry=Retry.none()), twice.options(key="k")):
            with pytest.raises(StepFailed):
                await call()

    async def scenario() -> None:
        async with Engine(":memory:", retry=Retry.fixed(0, max_attempts=3)):
            await flow()

    asyncio.run(scenario())
    assert [attempt for attempt, _, _ in calls] == [1, 2, 3, 1, 2, 1, 1, 2]


def test_permanent_and_unstorable_are_not_tried_again_and_retry_after_is_obeyed() -> None:
    clock = ManualClock()

    @step(retry=Retry.fixed(1))
    async def gone() -> None:
        note()
        raise Permanent("no such account")

    @step(retry=Retry.fixed(1))
    async def unstorable() -> int:
        note()
        return object()  # type: ignore[return-value]

    @step(retry=Retry.fixed(1))
    async def later() -> None:
        if note() == 1:
            raise OSError("busy") from RetryAfter(timedelta(hours=1))

    @workflow
    async def flow() -> list[str]:
        reasons: list[str] = []
        for call in (gone, unstorable):
            try:
                await call()
            except StepFailed as failure:
                reasons.append(f"{failure.reason} after {failure.attempts}")
        await later()
        return reasons

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await pass_by(engine, clock, 3599.9)
            assert len(calls) == 3
            await pass_by(engine, clock, 0.1)
            assert await run == ["permanent after 1", "permanent after 1"]

    asyncio.run(scenario())
    assert len(calls) == 4


@dataclass(frozen=True)
class Parcel:
    weight: int


@dataclass(frozen=True)
class Fragile(Parcel):
    layers: int


def test_arguments_that_do_not_come_back_as_they_are_fail_the_step_before_it_begins_and_are_not_tried_again() -> None:
    @step(retry=Retry.fixed(0))
    async def send(parcel: Parcel) -> None:
        note()

    @workflow
    async def flow() -> str:
        with pytest.raises(StepFailed) as failed:
            await send(Fragile(1, 2))
        return f"{failed.value.is_a(Unstorable)} {failed.value.reason} after {failed.value.attempts}"

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await flow() == "True permanent after 1"

    asyncio.run(scenario())
    assert calls == []


@pytest.mark.parametrize(("policy", "attempts"), [(Retry(on=OSError), 2), (Retry(on=OSError, unless=RetryAfter), 1)])
def test_retry_after_is_obeyed_whatever_on_says_unless_it_is_excluded(policy: Retry, attempts: int) -> None:
    @step(retry=policy)
    async def later() -> None:
        if note() == 1:
            raise RetryAfter(0)

    @workflow
    async def flow() -> None:
        with contextlib.suppress(StepFailed):
            await later()

    async def scenario() -> None:
        async with Engine(":memory:"):
            await flow()

    asyncio.run(scenario())
    assert len(calls) == attempts


def test_a_predicate_that_raises_is_told_and_nothing_is_tried_again() -> None:
    def broken(error: Exception) -> bool:
        raise KeyError("predicate")

    @step(retry=Retry(on=broken))
    async def failing() -> None:
        raise ValueError("original")

    @workflow
    async def flow() -> None:
        await failing()

    async def scenario() -> None:
        async with Engine(":memory:"):
            with pytest.raises(RunFailed) as failed:
                await flow()
            assert failed.value.record is not None
            assert failed.value.record.cause is not None
            assert failed.value.record.cause.type == "builtins.KeyError"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: step(timeout=0),
        lambda: step(timeout=float("nan")),
        lambda: step(timeout="1"),  # type: ignore[call-overload]
        lambda: step(retry=3),  # type: ignore[call-overload]
    ],
)
def test_wrong_values_are_refused_at_decoration(wrong: Callable[[], Callable[[object], object]]) -> None:
    async def fn() -> None: ...

    with pytest.raises(DefinitionError, match=r"@step fn: (timeout|retry)"):
        wrong()(fn)


def test_an_engine_takes_a_retry_and_nothing_else() -> None:
    with pytest.raises(UsageError, match="retry"):
        Engine(":memory:", retry=3)  # type: ignore[arg-type]
    assert START
