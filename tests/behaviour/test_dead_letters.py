"""Dead letters: written with the end of the run, listed, resumed with a fresh budget, discarded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import (
    DeadLetter,
    Engine,
    Retry,
    RunFailed,
    RunParked,
    State,
    StepFailed,
    UnknownRun,
    UsageError,
    WrongState,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet

did: list[str] = []
down: set[str] = set()


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    did.clear()
    down.clear()


@step(retry=Retry.fixed(0, max_attempts=2))
async def act(what: str) -> str:
    did.append(what)
    if what in down:
        raise OSError(f"{what} is down")
    return what.upper()


@workflow
async def order(name: str) -> str:
    await act("reserve")
    try:
        charged = await act("charge")
    except StepFailed:
        await act("release")
        raise
    return f"{name} {charged}"


async def fails(name: str = "x") -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        await order.options(id=name, tags={"team": "eu"})(name)
    return failed.value


def test_a_letter_says_what_happened_and_is_there_as_soon_as_the_run_has_failed(tmp_path: Path) -> None:
    down.add("charge")

    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db")
        async with engine:
            await fails()
            await die(engine)
        async with Engine(tmp_path / "j.db", drive=False) as client:
            (letter,) = [letter async for letter in client.dead_letters()]
            assert (letter.run.id, letter.workflow, letter.state) == ("x", "order", State.FAILED)
            assert (letter.reason, letter.keys, letter.attempts) == ("retries_exhausted", ("act#2",), 2)
            assert letter.error is not None
            assert "charge is down" in str(letter.error)
            assert (letter.input, letter.tags) == ({"name": "x"}, {"team": "eu"})

    asyncio.run(scenario())


def test_resume_tries_the_failure_again_with_a_fresh_budget_and_forgets_what_came_of_it() -> None:
    down.add("charge")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await fails()
            assert did == ["reserve", "charge", "charge", "release"]
            assert await engine.run("x").resume() == ("act#2", "act#3")
            with pytest.raises(RunFailed):
                await engine.run("x")
            assert did[4:] == ["charge", "charge", "release"]
            down.clear()
            await engine.run("x").resume()
            assert await engine.run("x") == "x CHARGE"
            assert did[7:] == ["charge"]
            assert [letter async for letter in engine.dead_letters()] == []

    asyncio.run(scenario())


def test_a_failure_that_the_body_caught_stays_as_it_is() -> None:
    down.update(("first", "second"))

    @workflow
    async def tolerant() -> str:
        try:
            await act("first")
        except StepFailed:
            await act("instead")
        return await act("second")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(RunFailed):
                await tolerant.options(id="x")()
            down.clear()
            assert await engine.run("x").resume() == ("act#3",)
            assert await engine.run("x") == "SECOND"
            assert did == ["first", "first", "instead", "second", "second", "second"]

    asyncio.run(scenario())


def test_a_failure_that_was_caught_stays_even_if_what_was_tried_instead_failed_too() -> None:
    down.update(("first", "instead"))

    @workflow
    async def fallback() -> str:
        try:
            return await act("first")
        except StepFailed:
            return await act("instead")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(RunFailed):
                await fallback.options(id="x")()
            down.clear()
            assert await engine.run("x").resume() == ("act#2",)
            assert await engine.run("x") == "INSTEAD"

    asyncio.run(scenario())


def test_failures_in_groups_and_causes_are_tried_again_and_so_is_what_a_person_names() -> None:
    down.update(("left", "right"))

    @workflow
    async def both() -> list[str]:
        first = await act("first")
        results = await asyncio.gather(act("left"), act("right"), return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        if failures:
            raise RuntimeError("no way") from ExceptionGroup("both", failures)
        return [first, *map(str, results)]

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(RunFailed) as failed:
                await both.options(id="x")()
            assert failed.value.reason == "error"
            (letter,) = [letter async for letter in engine.dead_letters()]
            assert letter.keys == ("act#2", "act#3")
            down.clear()
            with pytest.raises(WrongState, match="act#9"):
                await engine.run("x").resume(retry=["act#9"])
            assert set(await engine.run("x").resume(retry=["act#1"])) == {"act#1", "act#2", "act#3"}
            assert await engine.run("x") == ["FIRST", "LEFT", "RIGHT"]

    asyncio.run(scenario())
    assert did.count("first") == 2


def test_of_two_who_resume_at_once_one_wins_and_the_other_is_told() -> None:
    down.add("charge")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await fails()
            down.clear()
            answers = await asyncio.gather(*(engine.run("x").resume() for _ in range(2)), return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["WrongState", "tuple"]
            await engine.run("x")

    asyncio.run(scenario())
    assert did.count("charge") == 3


@pytest.mark.contradicts("two", "crash", reason="it resumes in an engine that knows the code")
def test_a_corrected_input_is_taken_only_while_nothing_is_recorded() -> None:
    @workflow
    async def picky(count: int) -> int:
        if count < 0:
            raise ValueError("negative")
        return count

    down.add("charge")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(RunFailed):
                await picky.options(id="p")(-1)
            await engine.run("p").resume(input={"count": 7})
            assert await engine.run("p") == 7
            await fails()
            with pytest.raises(WrongState, match="recorded outcomes"):
                await engine.run("x").resume(input={"name": "y"})

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it resumes in an engine that knows the code")
def test_an_input_can_be_corrected_only_where_the_workflow_is_known(tmp_path: Path) -> None:
    @workflow
    async def local(count: int) -> int:
        raise ValueError(count)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db"):
            with pytest.raises(RunFailed):
                await local.options(id="x")(1)
        async with Engine(tmp_path / "j.db") as engine:
            with pytest.raises(UsageError, match="local"):
                await engine.run("x").resume(input={"count": 2})
            await engine.run("x").resume()
            assert "local" in (await engine.run("x").info()).waiting_for[0]

    asyncio.run(scenario())


def test_letters_are_found_by_reason_workflow_and_tag_and_redriven_in_bulk() -> None:
    down.add("charge")

    @workflow
    async def broken() -> None:
        raise ValueError("always")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            for name in "abc":
                await fails(name)
            with pytest.raises(RunFailed):
                await broken.options(id="b1")()
            assert [letter.run.id async for letter in engine.dead_letters()] == ["b1", "c", "b", "a"]
            assert [letter.run.id async for letter in engine.dead_letters(reason="error")] == ["b1"]
            assert [letter.run.id async for letter in engine.dead_letters(workflow=order, limit=2)] == ["c", "b"]
            assert [letter.run.id async for letter in engine.dead_letters(tags={"team": "us"})] == []
            down.clear()
            assert await engine.redrive(reason="retries_exhausted", limit=2) == ["a", "b"]
            await engine.join()
            assert await engine.count(state="completed") == 2
            assert [letter.run.id async for letter in engine.dead_letters(newest_first=False)] == ["c", "b1"]

    asyncio.run(scenario())


@pytest.mark.contradicts(
    "two", "crash", reason="the run may fail again between its two calls: another engine drives it"
)
def test_a_letter_that_somebody_else_has_just_redriven_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    down.add("charge")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await fails("a")
            (letter,) = [letter async for letter in engine.dead_letters()]
            resume = engine.resume

            async def beaten(run_id: str) -> object:
                await resume(run_id)
                return await resume(run_id)

            monkeypatch.setattr(engine, "resume", beaten)
            assert await engine.redrive() == []
            monkeypatch.undo()
            await quiet(engine)
            await letter.redrive()
            await quiet(engine)

    asyncio.run(scenario())


def test_a_discarded_letter_is_listed_no_longer_and_its_run_stays_as_it_is() -> None:
    down.add("charge")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await fails()
            (letter,) = [letter async for letter in engine.dead_letters()]
            await letter.discard()
            await engine.run("x").discard()
            assert [letter async for letter in engine.dead_letters()] == []
            assert (await engine.run("x").info()).state is State.FAILED
            await letter.redrive()
            with pytest.raises(RunFailed):
                await engine.run("x")
            assert len([letter async for letter in engine.dead_letters()]) == 1
            with pytest.raises(UnknownRun):
                await engine.run("y").discard()
            down.clear()
            await order.options(id="ok")("ok")
            with pytest.raises(WrongState, match="dead letter"):
                await engine.run("ok").discard()

    asyncio.run(scenario())


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_hook_is_told_after_the_commit_and_cannot_break_the_engine(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    down.add("charge")
    told: list[str] = []

    async def later(letter: DeadLetter) -> None:
        told.append(f"{letter.run.id} {letter.reason}")
        raise ValueError("the hook is broken")

    def at_once(letter: DeadLetter) -> None:
        told.append(f"{letter.run.id} {letter.reason}")
        raise ValueError("the hook is broken")

    async def scenario() -> None:
        async with Engine(":memory:", on_dead_letter=later if asynchronous else at_once) as engine:
            await fails()
            await quiet(engine)
            for _ in range(20):
                await asyncio.sleep(0.001)
            down.clear()
            assert await order.options(id="ok")("ok") == "ok CHARGE"

    asyncio.run(scenario())
    assert told == ["x retries_exhausted"]
    assert "the hook for dead letters failed at run x" in caplog.text


def test_a_parked_run_is_a_letter_too_and_resumes_where_it_stood(tmp_path: Path) -> None:
    clock = ManualClock()

    @workflow
    async def long_one() -> int:
        for number in range(5):
            await act(str(number))
        return 5

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, max_entries=3) as engine:
            with pytest.raises(RunParked):
                await long_one.options(id="x")()
            (letter,) = [letter async for letter in engine.dead_letters(reason="max_entries")]
            assert (letter.state, letter.keys, letter.attempts) == (State.PARKED, (), 0)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[long_one]) as engine:
            assert await engine.run("x").resume() == ()
            assert await engine.run("x") == 5

    asyncio.run(scenario())
    assert did == ["0", "1", "2", "3", "4"]
