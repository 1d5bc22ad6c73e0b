"""Errors of steps: what the body gets, and what is no outcome at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import Engine, PayloadTooLarge, RunFailed, State, StepFailed, Unstorable, step, workflow
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended


class CardDeclined(Exception):
    def __init__(self, code: str, cents: int) -> None:
        super().__init__(code, cents)
        self.code = code


class Stubborn(BaseException):
    """Neither an Exception nor one of those that end a program."""


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


async def twice(path: Path, body: Callable[[], Any], stage: Stage) -> list[Any]:
    """What a body that calls `hold` after the errors got of them on the first pass and on the replay."""
    got: list[Any] = []

    @workflow
    async def flow() -> None:
        got.append(await body())
        await hold()

    @step
    async def hold() -> None:
        await stage.enter("hold")

    async with Engine(path) as engine:
        await flow.options(id="x").start()
        await stage.seen("hold")
        await die(engine)
    stage.let("hold")
    async with Engine(path, workflows=[flow]) as engine:
        await engine.run("x")
    assert len(got) == 2
    return got


def test_a_failed_step_is_equal_on_the_first_pass_and_on_replay(tmp_path: Path) -> None:
    runs: list[int] = []

    @step
    async def fail() -> None:
        runs.append(1)
        try:
            raise KeyError("inner")  # noqa: TRY301
        except KeyError as error:
            error.add_note("a note")
            raise ValueError("outer") from error

    async def body() -> StepFailed:
        try:
            await fail()
        except StepFailed as failed:
            return failed
        raise AssertionError

    first, second = asyncio.run(twice(tmp_path / "j.db", body, Stage()))
    assert first == second
    assert first is not second
    assert str(first) == str(second) == "step fail#1 failed: ValueError: outer"
    assert (first.key, first.type, first.message, first.attempts) == ("fail#1", "builtins.ValueError", "outer", 1)
    assert first.is_a(ValueError)
    assert first.is_a(Exception)
    assert not first.is_a(KeyError)
    assert first.record.cause is not None
    assert first.record.cause.is_a(KeyError)
    assert first.record.cause.notes == ("a note",)
    assert 'raise ValueError("outer")' in first.traceback
    assert runs == [1]


@pytest.mark.parametrize("where", ["loop", "thread"])
def test_a_declared_error_is_raised_as_its_own_class_with_its_arguments_on_both_passes(
    tmp_path: Path, where: str
) -> None:
    runs: list[int] = []

    @step(raises=(CardDeclined, LookupError))
    async def charge() -> None:
        runs.append(1)
        raise CardDeclined("51", 700)

    @step(raises=(CardDeclined,))
    def charge_in_a_thread() -> None:
        runs.append(1)
        raise CardDeclined("51", 700)

    async def body() -> CardDeclined:
        try:
            await (charge() if where == "loop" else charge_in_a_thread())
        except CardDeclined as declined:
            return declined
        raise AssertionError

    for declined in asyncio.run(twice(tmp_path / "j.db", body, Stage())):
        assert type(declined) is CardDeclined
        assert declined.args == ("51", 700)
        assert declined.code == "51"
    assert runs == [1]


def test_an_error_that_was_not_declared_is_a_fault(tmp_path: Path) -> None:
    @step(raises=(CardDeclined,))
    async def charge() -> None:
        raise LookupError("not declared")

    @step(raises=(CardDeclined,))
    async def charge_oddly() -> None:
        raise CardDeclined(object(), 1)  # type: ignore[arg-type]

    @step(raises=(CardDeclined,))
    async def charge_at_length() -> None:
        raise CardDeclined("x" * 2_000_000, 1)

    async def body() -> list[StepFailed]:
        failures: list[StepFailed] = []
        for call in (charge, charge_oddly, charge_at_length):
            try:
                await call()
            except StepFailed as failed:
                failures.append(failed)
        return failures

    first, second = asyncio.run(twice(tmp_path / "j.db", body, Stage()))
    assert first == second
    assert [failed.type.rpartition(".")[2] for failed in first] == ["LookupError", "CardDeclined", "CardDeclined"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Mute(), Mute),
        (Stubborn("x"), Stubborn),
        (BaseExceptionGroup("many", [Stubborn("x")]), BaseExceptionGroup),
        (ExceptionGroup("several", [ValueError("x" * 10_000_000)]), ExceptionGroup),
        (asyncio.CancelledError("my own"), asyncio.CancelledError),
        (GeneratorExit(), GeneratorExit),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
@pytest.mark.parametrize("payload_limit", [100, 1_048_576])
def test_whatever_a_step_raises_is_recorded(
    error: BaseException, kind: type[BaseException], payload_limit: int
) -> None:
    @step
    async def odd() -> None:
        raise error

    @workflow
    async def flow() -> None:
        await odd()

    async def scenario() -> None:
        async with Engine(":memory:", payload_limit=payload_limit):
            failed = await ended(await flow.start(), RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(StepFailed)
            assert failed.record.key == "odd#1"
            assert failed.record.cause is not None
            assert failed.record.cause.is_a(kind)

    asyncio.run(scenario())


def test_a_cancelled_error_out_of_a_thread_is_a_failure_of_the_step() -> None:
    @step
    def odd() -> None:
        raise asyncio.CancelledError

    @workflow
    async def flow() -> None:
        await odd()

    async def scenario() -> None:
        async with Engine(":memory:"):
            failed = await ended(await flow.start(), RunFailed)
            assert failed.record is not None
            assert failed.record.is_a(StepFailed)

    asyncio.run(scenario())


def test_a_result_that_cannot_be_stored_is_an_error_at_that_step_with_its_path() -> None:
    @step
    async def odd() -> Any:
        return {"a": [1, object()]}

    @step
    async def large() -> str:
        return "x" * 5_000

    @workflow
    async def flow() -> list[str]:
        told: list[str] = []
        for call, kind in ((odd, Unstorable), (large, PayloadTooLarge)):
            try:
                await call()
            except StepFailed as failed:
                assert failed.is_a(kind)  # noqa: PT017
                told.append(failed.message)
        return told

    async def scenario() -> None:
        async with Engine(":memory:", payload_limit=4_000):
            first, second = await flow()
            assert "$.a[1]" in first
            assert "payload_limit" in second

    asyncio.run(scenario())


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["loop", "thread", "body"])
def test_the_end_of_the_program_is_no_outcome_and_however_often_it_comes_parks_nothing(
    tmp_path: Path, ending: type[BaseException], where: str
) -> None:
    interrupt = [True]
    tries: list[str] = []

    def end_it() -> int:
        tries.append(where)
        if interrupt[0]:
            raise ending
        return 5

    @step
    async def on_the_loop() -> int:
        return end_it()

    @step
    def in_a_thread() -> int:
        return end_it()

    @workflow
    async def flow() -> int:
        if where == "body":
            return end_it()
        return await (on_the_loop() if where == "loop" else in_a_thread())

    async def program() -> None:
        async with Engine(tmp_path / "j.db", workflows=[flow]):
            await (await flow.options(id="x").start()).result(timeout=20)

    for _ in range(7):
        with pytest.raises(ending):
            asyncio.run(program())

    async def last_program() -> None:
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            run = engine.run("x")
            assert await run == 5
            assert len(await run.history()) == (where != "body")

    interrupt.clear()
    interrupt.append(False)
    asyncio.run(last_program())
    assert len(tries) == 8


@pytest.mark.contradicts("two", "crash", reason="it reaches into the engine that drives")
def test_a_cancellation_from_outside_of_the_task_that_runs_a_step_is_no_outcome(tmp_path: Path) -> None:
    stage = Stage()
    tasks: list[asyncio.Task[Any]] = []

    @step
    async def act() -> int:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await stage.enter("act")
        return 5

    @workflow
    async def flow() -> int:
        return await act()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await flow.options(id="x").start()
            await stage.seen("act")
            tasks[0].cancel()
            await quiet(engine)
            assert await run.history() == []
            assert not (await run.info()).state.stopped
        stage.let("act")
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x") == 5

    asyncio.run(scenario())


def test_an_error_of_the_body_may_be_handled_and_the_run_completes() -> None:
    @step
    async def fail() -> None:
        raise ValueError

    @workflow
    async def flow() -> str:
        try:
            await fail()
        except StepFailed:
            return "handled"
        return "not reached"

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == "handled"
            assert (await run.info()).state is State.COMPLETED
            entry = (await run.history())[0]
            assert entry.error is not None
            assert entry.value is None

    asyncio.run(scenario())
