"""Children and crashes: wherever the process dies there is one child for each call, and what it came to is told once."""

from __future__ import annotations

import asyncio

import pytest

from durable_sqlite import (
    RunCancelled,
    RunFailed,
    Signal,
    State,
    Suspend,
    current_step,
    sleep,
    step,
    workflow,
)
from tests.support.crash_points import Teller, crash_everywhere
from tests.support.stage import ended

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


@step
async def act(what: str) -> str:
    effects.append(f"{current_step().run_id} {what}")
    return what


@step
async def refuse(why: str) -> None:
    effects.append(f"{current_step().run_id} refuses")
    raise LookupError(why)


@workflow
async def child(name: str, seconds: float) -> str:
    await act(f"{name} begins")
    try:
        await sleep(seconds)
        return await act(f"{name} is done")
    except asyncio.CancelledError:
        await act(f"{name} tidies up")
        raise


@workflow
async def fails(why: str) -> None:
    await act("try")
    await refuse(why)


@workflow
async def middle(name: str) -> str:
    return f"{await child(name, 5)}, {await act('middle')}"


# At every commit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unload_after", [0.0, 1_000.0])
def test_wherever_it_dies_there_is_one_child_for_each_call(unload_after: float) -> None:
    @workflow
    async def parent() -> list[str]:
        told = [await child("a", 10)]
        try:
            await fails("no tea")
        except RunFailed as failed:
            told.append(f"{failed.key}: {failed.reason}")
        return [*told, *await asyncio.gather(child("b", 20), child("c", 10))]

    async def story(teller: Teller) -> list[str]:
        return await (await parent.options(id="p").start())

    told = crash_everywhere(story, parent, child, fails, unload_after=unload_after, effects=effects)
    assert told.returned == ["a is done", "fails#1: retries_exhausted", "b is done", "c is done"]
    assert len(told.runs) == 5
    assert told.runs["p"].keys == ["child#1", "fails#1", "child#3", "child#2"]


@pytest.mark.parametrize("unload_after", [0.0, 1_000.0])
def test_wherever_it_dies_a_handle_tells_that_this_very_call_made_the_run(unload_after: float) -> None:
    @workflow
    async def parent() -> list[str]:
        mine = await child.options(id="mine").start("a", 5)
        found = await child.options(id="mine").start("a", 5)
        told = [f"{handle.id} {handle.created}" for handle in (mine, found)]
        return [*told, await act("beside it"), await mine.result()]

    async def story(teller: Teller) -> list[str]:
        return await (await parent.options(id="p").start())

    told = crash_everywhere(story, parent, child, unload_after=unload_after, effects=effects)
    assert told.returned == ["mine True", "mine False", "beside it", "a is done"]
    assert told.runs["p"].keys == ["child#1", "child#2", "act#1", "result#1"]


class Hint(Signal, name="child_crashes.hint"):
    text: str


class Guess(Suspend[int], name="child_crashes.guess"):
    what: str


@workflow
async def listener() -> str:
    first = await Hint.wait()
    number = await Guess(what="how many?")
    await sleep(100)
    return f"{first.text}, {number}, {[hint.text for hint in await Hint.drain()]}"


@pytest.mark.parametrize("unload_after", [0.0, 1_000.0])
def test_wherever_it_dies_what_is_told_through_a_handle_is_told_once(unload_after: float) -> None:
    @workflow
    async def parent() -> str:
        heard, unheard = await listener.options(id="heard").start(), await listener.options(id="unheard").start()
        await heard.signal(Hint(text="warm"))
        await sleep(10)  # until it has asked
        await heard.answer(Guess, 7, by="p")
        await heard.signal(Hint(text="warmer"))
        await unheard.cancel(reason="not needed")
        try:
            await unheard.result()
        except RunCancelled as cancelled:
            return f"{await heard.result()}; {cancelled.reason}"
        return "not reached"

    async def story(teller: Teller) -> str:
        return await (await parent.options(id="p").start())

    told = crash_everywhere(story, parent, listener, unload_after=unload_after, effects=effects)
    assert told.returned == "warm, 7, ['warmer']; not needed"
    assert told.runs["p"].keys[2:] == [
        "signal#1",
        "sleep#1",
        "answer#1",
        "signal#2",
        "cancel#1",
        "result#1",
        "result#2",
    ]


@pytest.mark.parametrize("unload_after", [0.0, 1_000.0])
def test_wherever_it_dies_grandchildren_are_told_once(unload_after: float) -> None:
    @workflow
    async def top() -> str:
        return f"{await middle.options(id='m')('a')}, {await act('top')}"

    async def story(teller: Teller) -> str:
        return await (await top.options(id="t").start())

    told = crash_everywhere(story, top, middle, child, unload_after=unload_after, downtime=100, effects=effects)
    assert told.returned == "a is done, middle, top"
    assert len(told.runs) == 3


@pytest.mark.parametrize("unload_after", [0.0, 1_000.0])
def test_wherever_it_dies_a_child_that_is_given_up_tidies_up_and_the_next_one_is_another(unload_after: float) -> None:
    @workflow
    async def parent() -> str:
        try:
            async with asyncio.timeout(10):
                await child.options(id="first")("a", 100)
        except TimeoutError:
            await act("too long")
        return await child.options(id="second")("b", 5)

    async def story(teller: Teller) -> str:
        said = await (await parent.options(id="p").start())
        with pytest.raises(RunCancelled):
            await teller.engine.run("first")
        return said

    told = crash_everywhere(story, parent, child, unload_after=unload_after, effects=effects)
    assert told.returned == "b is done"
    assert told.runs["first"].state is State.CANCELLED
    assert told.runs["first"].reason == "run p no longer waits for it"
    assert told.runs["first"].keys == ["act#1", "~cancel", "act#2"]


@pytest.mark.parametrize("unload_after", [0.0, 1_000.0])
def test_wherever_it_dies_a_cancelled_family_tidies_up_as_one(unload_after: float) -> None:
    @workflow
    async def parent() -> str:
        try:
            return await middle.options(id="m")("a")
        finally:
            await act("parent tidies up")

    async def story(teller: Teller) -> None:
        run = await parent.options(id="p").start()
        await teller.at(3)
        if (await run.info()).state is not State.CANCELLED:
            await run.cancel(reason="enough")
        for run_id in ("p", "m"):
            await ended(teller.engine.run(run_id), RunCancelled)
        await teller.engine.join()

    told = crash_everywhere(story, parent, middle, child, unload_after=unload_after, effects=effects)
    assert all((run.state, run.reason) == (State.CANCELLED, "enough") for run in told.runs.values())
    assert [run.keys for run in told.runs.values()] == [
        ["~cancel", "act#1"],
        ["~cancel"],
        ["act#1", "~cancel", "act#2"],
    ]


def test_wherever_it_dies_a_deadline_that_is_inherited_ends_both() -> None:
    @workflow
    async def parent() -> str:
        try:
            return await child.options(id="kid")("a", 100)
        finally:
            await act("parent tidies up")

    async def story(teller: Teller) -> list[str]:
        run = await parent.options(id="p", deadline=10).start()
        for run_id in ("p", "kid"):
            assert (await ended(teller.engine.run(run_id), RunFailed)).reason == "deadline"
        del run
        return [letter.run.id async for letter in teller.engine.dead_letters()]

    told = crash_everywhere(story, parent, child, effects=effects)
    assert told.returned == ["p"]
    assert [run.keys for run in told.runs.values()] == [["~cancel", "act#1"], ["act#1", "~cancel", "act#2"]]
