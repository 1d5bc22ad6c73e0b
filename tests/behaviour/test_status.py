"""What a run says of itself, and what the engine says of it: status, progress, and what it waits for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Progress,
    Retry,
    Run,
    RunCancelled,
    RunFailed,
    Signal,
    State,
    Suspend,
    UsageError,
    each,
    set_progress,
    set_status,
    sleep,
    sleep_until,
    step,
    workflow,
)
from durable_sqlite._clock import to_datetime
from tests.support.clock import START, ManualClock
from tests.support.gates import session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, ended, until

BEGIN = to_datetime(START)

effects: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    effects.clear()


class StatusPaid(Signal):
    number: int


class StatusReview(Suspend[bool]):
    what: str


@step
async def act(what: str) -> str:
    effects.append(what)
    return what


async def said(run: Run[Any]) -> tuple[str | None, Progress | None]:
    info = await run.info()
    return info.status, info.progress


def counting(engine: Engine, patch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the engine calls each verb of its journal that writes, from now on."""
    calls: Counter[str] = Counter()
    journal = session_of(engine).journal

    def counted(verb: str) -> None:
        call = getattr(journal, verb)

        def count(*args: Any, **options: Any) -> Any:
            calls[verb] += 1
            return call(*args, **options)

        patch.setattr(journal, verb, count)

    for verb in ("report", "record", "suspend", "end", "reclaim"):
        counted(verb)
    return calls


# Status and progress -------------------------------------------------------------------------------------------------


def test_what_a_body_says_is_shown_before_the_step_that_follows_begins() -> None:
    stage = Stage()

    @step
    async def slow(name: str) -> None:
        await stage.enter(name)

    @workflow
    async def flow() -> None:
        set_status("reading")
        await slow("one")
        set_progress(1, 3)
        await slow("two")
        set_status(None)
        set_progress(3, 3)

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await stage.seen("one")
            assert await said(run) == ("reading", None)
            stage.let("one")
            await stage.seen("two")
            assert await said(run) == ("reading", Progress(1, 3))
            stage.let("two")
            await run
            assert await said(run) == (None, Progress(3, 3))

    asyncio.run(scenario())


def test_a_run_that_has_said_nothing_shows_nothing() -> None:
    @workflow
    async def flow() -> None:
        await act("only")

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await run
            assert await said(run) == (None, None)

    asyncio.run(scenario())


def test_saying_something_is_an_ordinary_call_and_no_entry() -> None:
    @workflow
    async def flow() -> list[object]:
        answers: list[object] = [set_status("s"), set_progress(0, 0)]  # type: ignore[func-returns-value]
        await act("only")
        return answers

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == [None, None]
            assert [entry.key for entry in await run.history()] == ["act#1"]

    asyncio.run(scenario())


def test_of_several_at_once_the_newest_counts_and_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        for number in range(1000):
            set_status(f"number {number}")
            set_progress(number, 1000)
        await slow()
        set_status("number 999")  # nothing new
        set_progress(999, 1000)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            calls = counting(engine, monkeypatch)
            run = await flow.start()
            await stage.seen("slow")
            assert await said(run) == ("number 999", Progress(999, 1000))
            stage.let("slow")
            await run
            assert calls["report"] == 1

    asyncio.run(scenario())


def test_the_last_branch_that_says_something_is_the_one_that_is_heard() -> None:
    async def branch(name: str, seconds: float) -> None:
        await sleep(seconds)
        set_status(name)

    @workflow
    async def flow() -> None:
        await asyncio.gather(branch("slow", 20), branch("fast", 10))
        await sleep(100)

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            for seconds, shown in ((10, "fast"), (10, "slow")):
                await quiet(engine)
                clock.advance(seconds)
                await quiet(engine)
                assert await said(run) == (shown, None)

    asyncio.run(scenario())


@pytest.mark.parametrize("ends", ["killed", "closed"])
def test_what_was_said_last_before_the_process_ended_is_there_before_and_after_the_next_pass(
    tmp_path: Path, ends: str
) -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        set_status("first")
        await act("first")
        set_status("second")
        set_progress(1, 2)
        await slow()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("slow")
            if ends == "killed":
                await die(engine)
        stage.forget()
        async with Engine(tmp_path / "j.db", drive=False) as client:
            assert await said(client.run("x")) == ("second", Progress(1, 2))
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            await stage.seen("slow")
            assert await said(engine.run("x")) == ("second", Progress(1, 2))
            stage.let("slow")
            await engine.run("x")

    asyncio.run(scenario())


@pytest.mark.parametrize("wake", ["the same process", "the next process"])
def test_a_body_that_replays_says_nothing_and_writes_nothing_of_it(
    tmp_path: Path, wake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()

    @workflow
    async def flow() -> None:
        for number in range(5):
            set_status(f"at {number}")
            set_progress(number, 5)
            await act(str(number))
        set_status("asleep")
        await sleep(100)
        await sleep(100)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=0) as engine:
            calls = counting(engine, monkeypatch)
            run = await flow.options(id="x").start()
            await quiet(engine)
            assert calls["report"] == 6
            before = await run.info()
            if wake == "the same process":
                calls.clear()
                await replays(engine, calls)
        if wake == "the next process":
            async with Engine(tmp_path / "j.db", clock=clock, unload_after=0, workflows=[flow]) as engine:
                await quiet(engine)
                assert await engine.run("x").info() == before
                await replays(engine, counting(engine, monkeypatch))

    async def replays(engine: Engine, calls: Counter[str]) -> None:
        """Wake the body, which was not in memory, and see what it writes."""
        clock.advance(100)
        await quiet(engine)
        assert calls == {"record": 1, "suspend": 1}  # the sleep that is over, and the one that begins
        assert (await engine.run("x").info()).status == "asleep"

    asyncio.run(scenario())


def test_a_body_that_strays_while_it_replays_does_not_bring_back_what_it_said_long_ago(tmp_path: Path) -> None:
    stage = Stage()
    given = ["one"]

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        set_status("first")
        await act(given[0])
        set_status("second")
        await slow()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            await flow.options(id="x").start()
            await stage.seen("slow")
            await die(engine)
        given[0] = "another argument"
        async with Engine(tmp_path / "j.db", workflows=[flow]) as engine:
            await quiet(engine)
            info = await engine.run("x").info()
            assert (info.state, info.status) == (State.PARKED, "second")

    asyncio.run(scenario())


def test_what_clean_up_code_says_is_shown_and_what_unloading_code_says_is_not() -> None:
    clock = ManualClock()

    @workflow
    async def flow() -> None:
        try:
            await sleep(100)
        finally:
            set_status("cleaning up")
            await act("clean up")
            set_progress(1, 1)

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock, unload_after=0) as engine:
            run = await flow.start()
            await quiet(engine)
            assert await said(run) == (None, None)  # its body was unloaded, so `finally` has run
            await run.cancel()
            await ended(run, RunCancelled)
            assert await said(run) == ("cleaning up", Progress(1, 1))

    asyncio.run(scenario())


def test_what_a_body_says_last_stays_with_a_run_that_fails() -> None:
    @workflow
    async def flow() -> None:
        await act("first")
        set_status("about to fail")
        raise ValueError

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            await ended(run, RunFailed)
            assert await said(run) == ("about to fail", None)

    asyncio.run(scenario())


def test_a_question_may_say_what_the_run_is_at() -> None:
    @workflow
    async def flow() -> bool:
        return await StatusReview(what="a large order").wait(status="waiting for a person")

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await quiet(engine)
            assert await said(run) == ("waiting for a person", None)
            await run.answer(StatusReview, True)
            assert await run

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "text", ["", "x" * 1000, "\N{SNOWMAN} \N{GRINNING FACE}", "'; DROP TABLE runs", "a\0b", "\x1b[31m"]
)
def test_a_text_of_up_to_a_thousand_characters_is_shown_as_it_is(text: str) -> None:
    @workflow
    async def flow(text: str) -> None:
        set_status(text)

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start(text)
            await run
            assert (await run.info()).status == text

    asyncio.run(scenario())


NO_STATUS: list[Any] = ["x" * 1001, 1, b"bytes", True, ["text"], "half of \ud83d"]
NO_PROGRESS: list[Any] = [(2, 1), (-1, 1), (0, -1), (0.5, 1), (1, 1.0), (True, 1), ("1", 2), (None, 1), (1, 2**63)]


def test_what_is_no_text_and_no_number_is_refused_where_it_is_said_and_nothing_changes() -> None:
    @workflow
    async def flow() -> int:
        set_status("before")
        set_progress(1, 2)
        refused = 0
        for wrong in NO_STATUS:
            with pytest.raises(UsageError, match="takes a text"):
                set_status(wrong)
            refused += 1
        for done, total in NO_PROGRESS:
            with pytest.raises(UsageError, match="0 <= done <= total"):
                set_progress(done, total)
            refused += 1
        return refused

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            assert await run == len(NO_STATUS) + len(NO_PROGRESS)
            assert await said(run) == ("before", Progress(1, 2))

    asyncio.run(scenario())


def test_outside_a_run_it_does_nothing_but_is_checked_all_the_same() -> None:
    set_status("nobody is there")
    set_progress(1, 2)
    with pytest.raises(UsageError):
        set_status("x" * 1001)
    with pytest.raises(UsageError):
        set_progress(2, 1)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            set_status("an engine is")
            assert await engine.count() == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("threaded", [False, True])
def test_a_step_cannot_speak_for_its_run(threaded: bool) -> None:
    @step
    async def speaks() -> None:
        set_status("a step")

    @step
    def speaks_in_a_thread() -> None:
        set_progress(1, 2)

    @workflow
    async def flow() -> None:
        await (speaks_in_a_thread() if threaded else speaks())

    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await flow.start()
            failed = await ended(run, RunFailed)
            assert failed.record is not None
            assert failed.record.cause is not None
            assert failed.record.cause.is_a(UsageError)
            assert "belongs in the body" in failed.record.message
            assert await said(run) == (None, None)

    asyncio.run(scenario())


def test_each_run_of_a_family_speaks_for_itself() -> None:
    @workflow
    async def child(number: int) -> None:
        set_status(f"child {number}")
        set_progress(number, 2)

    @workflow
    async def parent() -> None:
        set_status("parent")
        await asyncio.gather(*(child.options(id=f"c{number}")(number) for number in range(3)))

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await parent.start()
            await run
            assert await said(run) == ("parent", None)
            for number in range(3):
                assert await said(engine.run(f"c{number}")) == (f"child {number}", Progress(number, 2))

    asyncio.run(scenario())


# What a run waits for ------------------------------------------------------------------------------------------------


def moment(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


@step(retry=Retry.fixed(60, max_attempts=2))
async def shaky() -> None:
    effects.append("attempt")
    raise ConnectionError


@workflow(name="status-child")
async def child_that_waits() -> None:
    await StatusPaid.wait()


@workflow(name="status-item")
async def child_that_waits_for(item: int) -> None:
    await StatusPaid.wait()


async def in_time() -> None:
    async with asyncio.timeout(60):
        await StatusPaid.wait()


async def several() -> None:
    await asyncio.gather(sleep(60), StatusPaid.wait())


WAITS: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
    "sleep": lambda: sleep(60),
    "sleep until": lambda: sleep_until(BEGIN + timedelta(seconds=65)),
    "asyncio.sleep": lambda: asyncio.sleep(60),
    "asyncio.timeout": in_time,
    "message": StatusPaid.wait,
    "message in time": lambda: StatusPaid.wait(timeout=60),
    "question": lambda: StatusReview(what="?").wait(),
    "question in time": lambda: StatusReview(what="?").wait(timeout=60, key="large-order"),
    "child": child_that_waits.options(id="c"),
    "run": lambda: child_that_waits.run("other").result(),
    "back-off": shaky,
    "each": lambda: each(child_that_waits_for, [1]),
    "several": several,
}


@workflow
async def waits(how: str) -> None:
    await sleep(5)  # so that the wait begins later than the run
    await WAITS[how]()


SENTENCES = {
    "sleep": [f"sleep (sleep#2) since {moment(5)} until {moment(65)}"],
    "sleep until": [f"sleep (sleep#2) since {moment(5)} until {moment(65)}"],
    "asyncio.sleep": [f"asyncio.sleep (asyncio.sleep#1) since {moment(5)} until {moment(65)}"],
    "asyncio.timeout": [
        f"a message StatusPaid (StatusPaid#1) since {moment(5)}",
        f"asyncio.timeout (asyncio.timeout#1) since {moment(5)} until {moment(65)}",
    ],
    "message": [f"a message StatusPaid (StatusPaid#1) since {moment(5)}"],
    "message in time": [f"a message StatusPaid (StatusPaid#1) since {moment(5)} until {moment(65)}"],
    "question": [f"an answer to StatusReview (StatusReview#1) since {moment(5)}"],
    "question in time": [f"an answer to StatusReview (large-order) since {moment(5)} until {moment(65)}"],
    "child": [f"child run c of status-child (status-child#1) since {moment(5)}"],
    "run": [f"the end of run other (result#1) since {moment(5)}"],
    "back-off": [f"next attempt of shaky (shaky#1) since {moment(5)} until {moment(65)}"],
    "several": [
        f"a message StatusPaid (StatusPaid#1) since {moment(5)}",
        f"sleep (sleep#2) since {moment(5)} until {moment(65)}",
    ],
}


@pytest.mark.parametrize("unload_after", [0.0, 1e6], ids=["unloaded", "resident"])
@pytest.mark.parametrize("how", SENTENCES)
def test_a_run_that_waits_says_what_for_since_when_and_until_when_and_is_never_running(
    tmp_path: Path, how: str, unload_after: float
) -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", clock=clock, unload_after=unload_after) as engine:
            await child_that_waits.options(id="other").start()
            run = await waits.options(id="x").start(how)
            await quiet(engine)
            clock.advance(5)
            await waiting(engine, run)
            clock.advance(10)
            await waiting(engine, run)
        async with Engine(
            tmp_path / "j.db", clock=clock, unload_after=unload_after, workflows=[waits, child_that_waits]
        ) as engine:
            await waiting(engine, engine.run("x"))

    async def waiting(engine: Engine, run: Run[Any]) -> None:
        await quiet(engine)
        info = await run.info()
        assert (info.state, list(info.waiting_for)) == (State.SUSPENDED, SENTENCES[how])

    asyncio.run(scenario())


def test_a_child_for_each_item_is_named_by_its_item() -> None:
    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await waits.start("each")
            await quiet(engine)
            clock.advance(5)
            await quiet(engine)
            (sentence,) = (await run.info()).waiting_for
            assert sentence.startswith("child run ")
            assert sentence.endswith(f" of status-item (status-item#1[0]) since {moment(5)}")

    asyncio.run(scenario())


def test_a_wait_beyond_all_calendars_says_so() -> None:
    @workflow
    async def flow() -> None:
        await sleep(10**13)

    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock()) as engine:
            run = await flow.start()
            await quiet(engine)
            assert (await run.info()).waiting_for == (f"sleep (sleep#1) since {moment(0)} until beyond the year 9999",)

    asyncio.run(scenario())


def test_a_run_with_a_step_in_flight_is_running_and_waits_for_nothing_else() -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        await sleep(5)  # the wait for it is written, and is over
        await asyncio.gather(slow(), sleep(60))

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            clock.advance(5)
            await stage.seen("slow")
            info = await run.info()
            assert (info.state, info.waiting_for) == (State.RUNNING, ())
            stage.let("slow")
            await quiet(engine)
            info = await run.info()
            assert (info.state, len(info.waiting_for)) == (State.SUSPENDED, 1)
            clock.advance(60)
            await run
            assert (await run.info()).waiting_for == ()

    asyncio.run(scenario())


@pytest.mark.contradicts("two", "crash", reason="its engine says what it does not know")
def test_a_run_whose_workflow_this_process_does_not_know_says_that_it_waits_for_one_that_does(tmp_path: Path) -> None:
    @workflow(name="unknown-here")
    async def flow() -> None:
        await act("never")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False):
            run = await flow.options(id="x").start()
            assert (await run.info()).waiting_for == ()  # a client drives nothing, and cannot tell
        async with Engine(tmp_path / "j.db") as engine:
            await quiet(engine)
            info = await engine.run("x").info()
            assert info.state is State.PENDING
            assert info.waiting_for[0].startswith("a process that knows workflow unknown-here (defined in ")

    asyncio.run(scenario())
    assert effects == []


@pytest.mark.contradicts("two", "crash", "unload", reason="it looks into one engine")
@pytest.mark.parametrize("end", ["completed", "failed", "parked", "cancelled", "terminated"])
def test_a_run_that_has_stopped_waits_for_nothing(end: str) -> None:
    @workflow
    async def flow() -> None:
        await asyncio.gather(sleep(60), StatusPaid.wait())
        if end == "failed":
            raise ValueError
        if end == "parked":
            await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            if end == "cancelled":
                await run.cancel()
            elif end == "terminated":
                await run.terminate()
            else:
                await run.signal(StatusPaid(number=1))
                clock.advance(60)
            await until(lambda: not session_of(engine).worker._residents.passes)
            info = await run.info()
            assert (info.state.value, info.waiting_for) == ({"terminated": "cancelled"}.get(end, end), ())

    asyncio.run(scenario())
