"""Waits with a time limit: what was stored before the deadline wins, however late it is looked at, and nothing else does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import Engine, Outcome, Signal, SignalSuperseded, Suspend, workflow
from tests.support.clock import ManualClock
from tests.support.crash_points import Teller, crash_everywhere
from tests.support.gates import Gate, deaf
from tests.support.restarts import die, quiet

MOMENT = 0.000_001


class Letter(Signal):
    n: int = 0


class Riddle(Suspend[int]):
    pass


@workflow
async def reads() -> list[int | None]:
    """Waits for ten seconds, then for ever."""
    first = await Letter.wait(timeout=10)
    second = await Letter.wait()
    return [None if first is None else first.n, second.n]


@workflow
async def guesses() -> int | None:
    return await Riddle().wait(timeout=10)


@workflow
async def reads_and_asks() -> list[int | None]:
    """Reads, and asks something before it ends, so that it can be looked at until then."""
    got = await reads.fn()
    await Riddle()
    return got


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_wait_that_timed_out_gives_none_and_does_not_poison_the_next_one(unload_after: float) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock, unload_after=unload_after) as engine:
            run = await reads.start()
            await quiet(engine)
            clock.advance(10 - MOMENT)
            await quiet(engine)
            assert await run.history() == []
            clock.advance(MOMENT)
            await quiet(engine)
            (entry,) = await run.history()
            assert (entry.key, entry.outcome, entry.value) == ("Letter#1", Outcome.TIMEOUT, None)
            info = await run.info()
            assert [text.partition(" since ")[0] for text in info.waiting_for] == ["a message Letter (Letter#2)"]
            await run.signal(Letter(n=7))
            assert await run.result(timeout=20) == [None, 7]

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
@pytest.mark.parametrize("restart", [False, True])
def test_a_question_that_nobody_answers_times_out_wherever_its_body_is(
    tmp_path: Path, unload_after: float, restart: bool
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
            run = await guesses.options(id="x").start()
            await quiet(engine)
            clock.advance(10)
            if not restart:
                assert await run.result(timeout=20) is None
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[guesses], unload_after=unload_after) as engine:
            assert await guesses.run("x").result(timeout=20) is None

    asyncio.run(scenario())


def test_a_wait_says_until_when_it_waits() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run, other = await reads.start(), await guesses.start()
            await quiet(engine)
            times = "since 2023-11-14T22:13:20.000+00:00 until 2023-11-14T22:13:30.000+00:00"
            assert (await run.info()).waiting_for == (f"a message Letter (Letter#1) {times}",)
            assert (await other.info()).waiting_for == (f"an answer to Riddle (Riddle#1) {times}",)

    asyncio.run(scenario())


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(("after", "in_time"), [(9.0, True), (10 - MOMENT, True), (10.0, True), (10 + MOMENT, False)])
def test_a_message_stored_before_the_deadline_wins_though_nobody_was_there_and_one_stored_after_it_does_not(
    tmp_path: Path, after: float, in_time: bool, crash: bool
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await reads.options(id="x").start()
            await quiet(engine)
            if crash:
                await die(engine)
        clock.advance(after)
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            await client.run("x").signal(Letter(n=1))
        clock.advance(3600)
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            await client.run("x").signal(Letter(n=2))
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[reads]) as engine:
            assert await reads.run("x").result(timeout=20) == ([1, 2] if in_time else [None, 1])

    asyncio.run(scenario())


@pytest.mark.parametrize(("after", "in_time"), [(9.0, True), (10.0, True), (10 + MOMENT, False)])
def test_an_answer_stored_before_the_deadline_wins_though_nobody_was_there(
    tmp_path: Path, after: float, in_time: bool
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await guesses.options(id="x").start()
            await quiet(engine)
        clock.advance(after)
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            if in_time:
                await client.run("x").answer(Riddle, 0)
            else:
                with pytest.raises(SignalSuperseded):
                    await client.run("x").answer(Riddle, 0)
        clock.advance(3600)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[guesses]) as engine:
            assert await guesses.run("x").result(timeout=20) == (0 if in_time else None)

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="it decides what the one engine hears first")
@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_timeout_first_asks_the_journal_for_a_message_that_this_process_has_not_heard_of(
    tmp_path: Path, unload_after: float
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
            run = await reads.options(id="x").start()
            await quiet(engine)
            await deaf(engine)
            clock.advance(9)
            async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
                await client.run("x").signal(Letter(n=1))
            clock.advance(1)
            await quiet(engine)
            assert [entry.value for entry in await run.history()] == [{"n": 1}]
            await run.signal(Letter(n=2))
            assert await run.result(timeout=20) == [1, 2]

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 3600.0])
def test_a_timeout_first_asks_the_journal_for_an_answer_that_this_process_has_not_heard_of(
    tmp_path: Path, unload_after: float
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
            run = await guesses.options(id="x").start()
            await quiet(engine)
            await deaf(engine)
            clock.advance(9)
            async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
                await client.run("x").answer(Riddle, 0)
            clock.advance(1)
            assert await run.result(timeout=20) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(("late", "expected"), [(0.0, [1, 2]), (MOMENT, [None, 1])])
@pytest.mark.parametrize("crash", [False, True])
def test_signal_against_timeout_at_the_very_deadline_has_one_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: float, expected: list[int | None], crash: bool
) -> None:
    """The timeout is about to be written when the message is stored: in the moment of the deadline, or in the one after."""

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await reads_and_asks.options(id="x").start()
            await quiet(engine)
            gate = Gate(engine, "expire", monkeypatch, before=True)
            clock.advance(10 + late)
            await gate.reached()
            await run.signal(Letter(n=1))
            gate.open()
            await quiet(engine)
            assert (await run.history())[0].outcome is (Outcome.TIMEOUT if late else Outcome.VALUE)
            if crash:
                await die(engine)
        monkeypatch.undo()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[reads_and_asks]) as engine:
            run = reads_and_asks.run("x")
            await run.signal(Letter(n=2))
            await run.answer(Riddle, 0, early=True)
            assert await run.result(timeout=20) == expected

    asyncio.run(scenario())


def test_a_message_that_comes_while_a_timeout_is_being_written_goes_to_the_next_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await reads.start()
            await quiet(engine)
            gate = Gate(engine, "expire", monkeypatch)
            clock.advance(10)
            await gate.reached()  # it is written, and the body was not told yet
            await run.signal(Letter(n=1))
            gate.open()
            assert await run.result(timeout=20) == [None, 1]

    asyncio.run(scenario())


@pytest.mark.parametrize("before", [True, False], ids=["the answer first", "the timeout first"])
@pytest.mark.parametrize("crash", [False, True])
def test_answer_against_timeout_at_the_very_deadline_has_one_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool, crash: bool
) -> None:
    @workflow
    async def flow() -> tuple[int | None, int]:
        return await guesses.fn(), (await Letter.wait()).n

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            run = await flow.options(id="x").start()
            await quiet(engine)
            gate = Gate(engine, "expire", monkeypatch, before=before)
            clock.advance(10)
            await gate.reached()
            if before:
                await run.answer(Riddle, 0)
            else:
                with pytest.raises(SignalSuperseded):
                    await run.answer(Riddle, 0)
            gate.open()
            await quiet(engine)
            if crash:
                await die(engine)
        monkeypatch.undo()
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            run = flow.run("x")
            await run.signal(Letter(n=1))
            assert await run.result(timeout=20) == (0 if before else None, 1)

    asyncio.run(scenario())


def test_of_two_waits_with_one_deadline_the_one_that_asked_first_gets_the_only_message(tmp_path: Path) -> None:
    @workflow
    async def flow() -> list[int | None]:
        both = await asyncio.gather(Letter.wait(timeout=10), Letter.wait(timeout=10))
        return [None if letter is None else letter.n for letter in both]

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await flow.options(id="x").start()
            await quiet(engine)
        clock.advance(5)
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            await client.run("x").signal(Letter(n=1))
        clock.advance(5)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            assert await engine.run("x").result(timeout=20) == [1, None]

    asyncio.run(scenario())


def test_a_message_too_late_for_the_longest_wait_goes_to_one_that_is_still_in_time(tmp_path: Path) -> None:
    @workflow
    async def flow() -> list[int | None]:
        both = await asyncio.gather(Letter.wait(timeout=10), Letter.wait(timeout=30))
        return [None if letter is None else letter.n for letter in both]

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await flow.options(id="x").start()
            await quiet(engine)
        clock.advance(20)
        async with Engine(tmp_path / "j.db", clock=clock, drive=False) as client:
            await client.run("x").signal(Letter(n=1))
        clock.advance(20)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            assert await engine.run("x").result(timeout=20) == [None, 1]

    asyncio.run(scenario())


@pytest.mark.parametrize("timeout", [0, -1, -(10**13)])
def test_a_wait_without_any_time_gives_what_is_there_or_none_at_once(timeout: float) -> None:
    @workflow
    async def flow() -> list[int | None]:
        got: list[int | None] = []
        for _ in range(2):
            letter = await Letter.wait(timeout=timeout)
            got.append(None if letter is None else letter.n)
        return got

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()):
            run = await flow.start()
            assert await run.result(timeout=20) == [None, None]
            run = await flow.signal_with_start(Letter(n=7))
            assert await run.result(timeout=20) == ([7, None] if timeout == 0 else [None, None])

    asyncio.run(scenario())


def test_a_wait_of_centuries_waits(tmp_path: Path) -> None:
    @workflow
    async def flow() -> list[int | None]:
        letter = await Letter.wait(timeout=10**13)
        return [None if letter is None else letter.n, await Riddle().wait(timeout=10**13)]

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(tmp_path / "j.db", clock=clock) as engine:
            await flow.options(id="x").start()
            await quiet(engine)
        clock.advance(100 * 365 * 86_400)
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[flow]) as engine:
            run = engine.run("x")
            await quiet(engine)
            assert "until beyond the year 9999" in (await run.info()).waiting_for[0]
            await run.signal(Letter(n=1))
            await quiet(engine)
            await run.answer(Riddle, 2)
            assert await run.result(timeout=20) == [1, 2]

    asyncio.run(scenario())


def test_a_message_from_a_clock_that_is_ahead_does_not_make_the_run_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        slow, fast = ManualClock(), ManualClock()
        fast.advance(3600)
        async with Engine(tmp_path / "j.db", clock=slow) as engine:
            run = await reads.options(id="x").start()
            await quiet(engine)
            heard = Gate(engine, "news", monkeypatch)  # what the listener asks for
            heard.open()
            async with Engine(tmp_path / "j.db", clock=fast, drive=False) as client:
                await client.run("x").signal(Letter(n=1))
            await heard.reached()
            async with asyncio.timeout(5):
                await quiet(engine)
            slow.advance(10)
            assert await run.result(timeout=20) == [None, 1]

    asyncio.run(scenario())


def test_waits_with_deadlines_come_out_the_same_whenever_the_process_dies() -> None:
    @workflow
    async def flow() -> list[int | None]:
        got: list[int | None] = []
        for _ in range(4):
            letter = await Letter.wait(timeout=10)
            got.append(None if letter is None else letter.n)
        got.append(await Riddle().wait(timeout=10))
        got.append(await Riddle().wait(timeout=10))
        return got

    async def story(teller: Teller) -> list[int | None]:
        run = await flow.options(id="x").start()
        await teller.at(5)
        await run.signal(Letter(n=1), dedupe="1")
        await teller.at(20)
        await run.signal(Letter(n=2), dedupe="2")
        await teller.at(41)
        await teller.answer("x", Riddle, 3, "Riddle#2")
        return await run.result()

    for unload_after in (0.0, 3600.0):
        told = crash_everywhere(story, flow, unload_after=unload_after)
        assert told.returned == [1, None, 2, None, None, 3]
        assert told.runs["x"].keys == ["Letter#1", "Letter#2", "Letter#3", "Letter#4", "Riddle#1", "Riddle#2"]
