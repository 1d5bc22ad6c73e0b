"""At-most-once steps: never silently begun again; in doubt a probe or a person decides."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    DefinitionError,
    Done,
    Engine,
    NotDone,
    Retry,
    RunFailed,
    RunParked,
    Unknown,
    UnknownRun,
    Unstorable,
    WrongState,
    current_step,
    step,
    workflow,
)
from tests.support.restarts import die
from tests.support.stage import Stage, ended

stage = Stage()
probed: list[tuple[int, str]] = []
answers: list[Any] = []


@pytest.fixture(autouse=True)
def a_fresh_stage() -> None:
    stage.__init__()  # type: ignore[misc]
    probed.clear()
    answers.clear()


async def ask_the_bank(cents: int) -> Any:
    probed.append((cents, current_step().key))
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


@step(at_most_once=True)
async def transfer(cents: int) -> str:
    await stage.enter("transfer")
    return f"sent {cents}"


@step(at_most_once=True, probe=ask_the_bank)
async def probed_transfer(cents: int) -> str:
    await stage.enter("transfer")
    return f"sent {cents}"


@step
async def note(what: str) -> str:
    return f"noted {what}"


@workflow
async def pay(cents: int) -> str:
    return await note(await transfer(cents))


@workflow
async def pay_with_probe(cents: int) -> str:
    return await note(await probed_transfer(cents))


async def killed_in_the_middle(path: Path, flow: Any, *, kill: bool = True) -> None:
    engine = Engine(path)
    async with engine:
        await flow.options(id="x").start(5)
        await stage.seen("transfer")
        if kill:
            await die(engine)
    stage.forget()


async def parked(path: Path, flow: Any = pay) -> RunParked:
    async with Engine(path, workflows=[flow]) as engine:
        return await ended(engine.run("x"), RunParked)


def test_without_trouble_it_is_a_step_like_any_other() -> None:
    stage.let("transfer")

    async def scenario() -> None:
        async with Engine(":memory:"):
            assert await pay(5) == "noted sent 5"

    asyncio.run(scenario())


@pytest.mark.parametrize("kill", [True, False])
def test_after_a_crash_or_a_close_in_the_middle_the_run_is_parked_and_the_step_not_begun_again(
    tmp_path: Path, kill: bool
) -> None:
    async def scenario() -> None:
        await killed_in_the_middle(tmp_path / "j.db", pay, kill=kill)
        error = await parked(tmp_path / "j.db")
        assert error.reason == "ambiguous"
        assert "run.settle('transfer#1', value)" in str(error)

    asyncio.run(scenario())
    assert stage.began == ["transfer"]


def test_a_person_decides_that_it_was_done_and_the_decision_has_an_author(tmp_path: Path) -> None:
    async def scenario() -> None:
        await killed_in_the_middle(tmp_path / "j.db", pay)
        await parked(tmp_path / "j.db")
        async with Engine(tmp_path / "j.db", workflows=[pay]) as engine:
            run = engine.run("x")
            with pytest.raises(Unstorable):
                await run.settle("transfer#1", object())
            await run.settle("transfer#1", "sent 5 by hand", by="ada")
            assert await run == "noted sent 5 by hand"
            first, second = await run.history()
            assert (first.key, first.decided_by, first.value) == ("transfer#1", "ada", "sent 5 by hand")
            assert second.decided_by is None

    asyncio.run(scenario())
    assert stage.began == ["transfer"]


@pytest.mark.parametrize("of_the_same_name", ["before", "after"])
def test_a_decided_value_is_stored_as_the_step_of_that_name_that_takes_it(
    tmp_path: Path, of_the_same_name: str
) -> None:
    def others(when: str) -> list[object]:
        async def send() -> None: ...

        return [step(at_most_once=True)(send) for _ in range(9)] if when == of_the_same_name else []

    keep = others("before")

    @step(at_most_once=True)
    async def send() -> str:
        await stage.enter("send")
        return "sent"

    keep += others("after")

    @workflow
    async def flow() -> str:
        return await send()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("send")
            await die(engine)
        await parked(tmp_path / "j.db", flow)
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            await engine.run("x").settle("send#1", "sent by hand")
            assert await engine.run("x") == "sent by hand"

    asyncio.run(scenario())
    assert len(keep) == 9


def test_a_person_decides_that_it_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        await killed_in_the_middle(tmp_path / "j.db", pay)
        await parked(tmp_path / "j.db")
        stage.let("transfer")
        async with Engine(tmp_path / "j.db", workflows=[pay]) as engine:
            await engine.run("x").settle("transfer#1", retry=True, by="ada")
            assert await engine.run("x") == "noted sent 5"
            (entry, _) = await engine.run("x").history()
            assert entry.attempts == 2
            assert "ada decided" in entry.failures[0].error.message

    asyncio.run(scenario())
    assert stage.began == ["transfer", "transfer"]


def test_resume_alone_decides_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        await killed_in_the_middle(tmp_path / "j.db", pay)
        await parked(tmp_path / "j.db")
        async with Engine(tmp_path / "j.db", workflows=[pay]) as engine:
            await engine.run("x").resume()
            assert (await ended(engine.run("x"), RunParked)).reason == "ambiguous"

    asyncio.run(scenario())
    assert stage.began == ["transfer"]


def test_a_value_can_be_decided_where_the_step_is_not_defined(tmp_path: Path) -> None:
    @step(at_most_once=True, name="somewhere_else")
    async def local(cents: int) -> str:
        await stage.enter("transfer")
        return "sent"

    @workflow
    async def flow(cents: int) -> str:
        return await local(cents)

    async def scenario() -> None:
        await killed_in_the_middle(tmp_path / "j.db", flow)
        await parked(tmp_path / "j.db", flow)
        nonlocal local
        spec = local._spec
        local = note  # type: ignore[assignment]
        async with Engine(tmp_path / "j.db", drive=False) as client:
            await client.run("x").settle("somewhere_else#1", "by hand")
        assert spec.name == "somewhere_else"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("answer", "result", "began"),
    [(Done("sent 5 already"), "noted sent 5 already", 1), (NotDone(), "noted sent 5", 2), (NotDone, "noted sent 5", 2)],
)
def test_a_probe_is_asked_with_the_same_arguments_and_believed(
    tmp_path: Path, answer: object, result: str, began: int
) -> None:
    async def scenario() -> None:
        await killed_in_the_middle(tmp_path / "j.db", pay_with_probe)
        stage.let("transfer")
        answers.append(answer)
        async with Engine(tmp_path / "j.db", workflows=[pay_with_probe]) as engine:
            assert await engine.run("x") == result

    asyncio.run(scenario())
    assert probed == [(5, "probed_transfer#1")]
    assert stage.began == ["transfer"] * began


@pytest.mark.parametrize("answer", [Unknown(), "nonsense", Done(object()), OSError("the bank is closed")])
def test_where_the_probe_cannot_tell_a_person_must(
    tmp_path: Path, answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        await killed_in_the_middle(tmp_path / "j.db", pay_with_probe)
        answers.append(answer)
        assert (await parked(tmp_path / "j.db", pay_with_probe)).reason == "ambiguous"

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert stage.began == ["transfer"]
    assert ("the probe failed" in caplog.text) == (not isinstance(answer, (Unknown, str)))


def test_a_probe_that_cancels_itself_cannot_tell(tmp_path: Path) -> None:
    async def quitting_probe(cents: int) -> Done[str]:
        raise asyncio.CancelledError(cents)

    @step(at_most_once=True, probe=quitting_probe)
    async def moved(cents: int) -> str:
        await stage.enter("transfer")
        return f"sent {cents}"

    @workflow
    async def flow(cents: int) -> str:
        return await moved(cents)

    async def scenario() -> None:
        await killed_in_the_middle(tmp_path / "j.db", flow)
        assert (await parked(tmp_path / "j.db", flow)).reason == "ambiguous"

    asyncio.run(scenario())
    assert stage.began == ["transfer"]


def test_a_plain_function_may_be_a_probe(tmp_path: Path) -> None:
    def plain_probe(cents: int) -> Done[str]:
        return Done(f"sent {cents} long ago")

    @step(at_most_once=True, probe=plain_probe)
    async def moved(cents: int) -> str:
        await stage.enter("transfer")
        return "sent"

    @workflow
    async def flow(cents: int) -> str:
        return await moved(cents)

    async def scenario() -> None:
        await killed_in_the_middle(tmp_path / "j.db", flow)
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            assert await engine.run("x") == "sent 5 long ago"

    asyncio.run(scenario())


def test_an_error_is_an_outcome_and_is_not_tried_again() -> None:
    @step(at_most_once=True)
    async def failing() -> None:
        stage.began.append("failing")
        raise OSError("refused")

    @workflow
    async def flow() -> None:
        await failing()

    async def scenario() -> None:
        async with Engine(":memory:", retry=Retry.fixed(0)) as engine:
            error = await ended(await flow.options(id="x").start(), RunFailed)
            assert error.reason == "retries_exhausted"
            await engine.run("x").resume()
            await ended(engine.run("x"), RunFailed)

    asyncio.run(scenario())
    assert stage.began == ["failing", "failing"]  # the second time a person asked for it


def test_other_steps_in_flight_land_before_the_run_is_parked(tmp_path: Path) -> None:
    @step
    async def beside() -> str:
        await stage.enter("beside")
        return "beside"

    @workflow
    async def both(cents: int) -> tuple[str, str]:
        async def later() -> str:
            await note("first")
            return await transfer(cents)

        return await asyncio.gather(beside(), later())

    async def scenario() -> None:
        engine = Engine(tmp_path / "j.db")
        async with engine:
            await both.options(id="x").start(5)
            await stage.seen("transfer", "beside")
            await die(engine)
        stage.forget()
        async with Engine(tmp_path / "j.db", workflows=[both]) as engine:
            assert (await ended(engine.run("x"), RunParked)).reason == "ambiguous"

    asyncio.run(scenario())
    assert stage.began.count("transfer") == 1


def test_only_what_is_in_doubt_can_be_settled(tmp_path: Path) -> None:
    stage.let("transfer")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await pay.options(id="x")(5)
            with pytest.raises(WrongState, match="ambiguous"):
                await engine.run("x").settle("transfer#1", "again")
            with pytest.raises(UnknownRun):
                await engine.run("y").settle("transfer#1", "again")
        stage.close("transfer")
        stage.forget()
        await killed_in_the_middle(tmp_path / "j.db", pay)
        await parked(tmp_path / "j.db")
        async with Engine(tmp_path / "j.db", workflows=[pay]) as engine:
            with pytest.raises(WrongState, match="note#1"):
                await engine.run("x").settle("note#1", "again")

    asyncio.run(scenario())


def test_wrong_definitions_are_refused() -> None:
    async def fn() -> None: ...

    with pytest.raises(DefinitionError, match="probe"):
        step(probe=ask_the_bank)(fn)
    with pytest.raises(DefinitionError, match="one attempt"):
        step(at_most_once=True, retry=Retry())(fn)
    with pytest.raises(DefinitionError, match="one attempt"):
        transfer.options(retry=Retry())
    assert transfer.options(retry=Retry.none())
