"""The teller of stories is itself to be trusted: a run that a crash changes is caught, and so is a step that runs too often."""

from __future__ import annotations

import asyncio

import pytest

from durable_sqlite import Signal, State, Suspend, current_step, sleep, step, workflow
from tests.support.crash_points import Teller, crash_everywhere, tell

done: list[str] = []


class Whisper(Signal, name="crash-points.whisper"):
    n: int = 0


class Question(Suspend[int], name="crash-points.question"):
    pass


@step
async def act(what: str) -> str:
    done.append(what)
    return what


@workflow
async def listens(count: int) -> list[int]:
    got: list[int] = []
    for number in range(count):
        got.append((await Whisper.wait()).n)
        await act(f"heard {number}")
        await sleep(10)
    return got


@workflow
async def asks() -> int:
    return await Question().wait(key="the-question")


async def faithful(teller: Teller) -> list[int]:
    run = await listens.options(id="x").start(2)
    for number in range(2):
        await teller.at(100 * number)
        await run.signal(Whisper(n=number), dedupe=str(number))
    return await run.result()


def test_a_story_that_crashes_do_not_change_is_told_as_it_is_without_them() -> None:
    told = crash_everywhere(faithful, listens, effects=done)
    assert told == tell(faithful, listens)
    assert told.returned == [0, 1]
    assert told.runs["x"].state is State.COMPLETED
    assert told.runs["x"].keys == [
        "crash-points.whisper#1",
        "act#1",
        "sleep#1",
        "crash-points.whisper#2",
        "act#2",
        "sleep#2",
    ]
    assert told.commits > len(told.runs["x"].keys)


def test_an_answer_is_given_once_the_question_is_asked_and_not_again_after_a_crash() -> None:
    async def story(teller: Teller) -> int:
        await asks.options(id="x").start()
        await teller.answer("x", Question, 7, "the-question")
        return await asks.run("x").result()

    assert crash_everywhere(story, asks, downtime=1).returned == 7


def test_a_message_that_comes_twice_is_noticed() -> None:
    async def story(teller: Teller) -> list[int]:
        run = await listens.options(id="x").start(1)
        await run.signal(Whisper(n=1))  # without a name: after a crash it is another message
        return await run.result()

    with pytest.raises(AssertionError, match=r"after a crash just after commit .*untaken"):
        crash_everywhere(story, listens)


def test_what_a_crash_does_to_the_result_is_noticed() -> None:
    async def story(teller: Teller) -> bool:
        await (await listens.options(id="x").start(0)).result()
        return teller.retold

    with pytest.raises(AssertionError, match="after a crash before commit 1 of"):
        crash_everywhere(story, listens)


def test_a_step_that_runs_too_often_is_noticed() -> None:
    @step
    async def hasty() -> None:
        done.extend(["hasty"] * (3 if current_step().recovered else 1))

    @workflow
    async def flow() -> None:
        await hasty()

    async def story(teller: Teller) -> None:
        await (await flow.options(id="x").start()).result()

    with pytest.raises(AssertionError, match="done too often"):
        crash_everywhere(story, flow, effects=done)


def test_an_effect_that_only_a_crash_brings_about_is_noticed() -> None:
    async def story(teller: Teller) -> None:
        await (await listens.options(id="x").start(0)).result()
        if teller.retold:
            done.append("only after a crash")

    with pytest.raises(AssertionError, match="was done, not"):
        crash_everywhere(story, listens, effects=done)


def test_a_body_that_does_not_repeat_itself_is_noticed() -> None:
    passes: list[int] = []

    @workflow
    async def flow() -> int:
        await sleep(1)
        passes.append(1)
        return len(passes)

    async def story(teller: Teller) -> int:
        return await (await flow.options(id="x").start()).result()

    with pytest.raises(AssertionError, match="a finished run does not repeat itself"):
        tell(story, flow)


def test_a_story_that_waits_for_what_never_comes_is_told_off() -> None:
    async def story(teller: Teller) -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(AssertionError, match="undisturbed: the story waits for what does not come"):
        tell(story)
