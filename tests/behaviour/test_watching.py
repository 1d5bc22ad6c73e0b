"""Watching runs: what they are now, then each change, wherever they are driven, and nobody is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from durable_sqlite import (
    Engine,
    EngineClosed,
    Run,
    RunInfo,
    Signal,
    State,
    UnknownRun,
    UsageError,
    set_progress,
    set_status,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.gates import session_of
from tests.support.restarts import die, quiet
from tests.support.stage import Stage, until


class WatchingNews(Signal):
    text: str


@workflow
async def says() -> str:
    """Shows each message that comes as its status, until it is told to stop."""
    while (news := await WatchingNews.wait()).text != "stop":
        set_status(news.text)
    return "stopped"


@workflow
async def naps(seconds: float) -> None:
    await sleep(seconds)


def listeners(engine: Engine) -> int:
    return len(engine._front.listeners)


async def tell(run: Run[Any], *texts: str) -> None:
    """Send these, and wait until they are shown."""
    for text in texts:
        await run.signal(WatchingNews(text=text))
        async with asyncio.timeout(20):
            while (await run.info()).status != text:  # noqa: ASYNC110 - another process may show it
                await asyncio.sleep(0.001)


async def stop(run: Run[Any]) -> None:
    await run.signal(WatchingNews(text="stop"))
    assert await run.result(timeout=20) == "stopped"


class Reader:
    """Somebody who reads what a watch gives as fast as it comes."""

    def __init__(self, changes: AsyncIterator[RunInfo]) -> None:
        self.seen: list[RunInfo] = []
        self._task = asyncio.create_task(self._read(changes))

    async def _read(self, changes: AsyncIterator[RunInfo]) -> None:
        async for info in changes:
            self.seen.append(info)

    @property
    def states(self) -> list[State]:
        return [info.state for info in self.seen]

    @property
    def texts(self) -> list[str | None]:
        """What was shown, each once."""
        return list(dict.fromkeys(info.status for info in self.seen))

    async def ended(self) -> None:
        """Wait until there is nothing more to come."""
        await asyncio.wait_for(self._task, 20)

    async def leave(self) -> None:
        """Stop reading, in the middle."""
        self._task.cancel()
        await asyncio.wait([self._task])


@asynccontextmanager
async def reading(changes: AsyncIterator[RunInfo]) -> AsyncGenerator[Reader]:
    reader = Reader(changes)
    try:
        yield reader
    finally:
        await reader.leave()


# One run -------------------------------------------------------------------------------------------------------------


def test_it_begins_with_what_the_run_is_now_and_ends_when_it_has_stopped() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await says.start()
            await quiet(engine)
            before = await run.info()
            async with reading(run.watch()) as reader:
                await until(lambda: reader.seen)
                assert reader.seen == [before]
                await tell(run, "one")
                await until(lambda: reader.texts[-1] == "one")
                await stop(run)
                await reader.ended()
                assert reader.seen[-1] == await run.info()
                assert reader.states[-1] is State.COMPLETED
                assert set(reader.states[:-1]) <= {State.SUSPENDED, State.RUNNING, State.PENDING}
            assert listeners(engine) == 0

    asyncio.run(scenario())


def test_no_value_comes_twice_in_a_row() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await says.start()
            async with reading(run.watch()) as reader:
                await tell(run, *"abcdef")
                for _ in range(20):
                    engine._front.changed(run.id)  # as if something had, though nothing has
                    await run.info()
                await stop(run)
                await reader.ended()
                assert all(one != next_ for one, next_ in zip(reader.seen, reader.seen[1:], strict=False))

    asyncio.run(scenario())


@pytest.mark.parametrize("unload_after", [0.0, 1e6], ids=["unloaded", "resident"])
@pytest.mark.parametrize("place", ["file", "memory"])
def test_a_run_that_goes_on_is_seen_running_while_its_step_is_in_flight(
    tmp_path: Path, place: str, unload_after: float
) -> None:
    path = ":memory:" if place == "memory" else tmp_path / "j.db"
    stage, clock = Stage(), ManualClock()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def flow() -> None:
        await sleep(10)
        await slow()
        await sleep(10)

    async def scenario() -> None:
        async with Engine(path, clock=clock, unload_after=unload_after) as engine:
            run = await flow.start()
            await quiet(engine)
            async with reading(run.watch()) as reader:
                await until(lambda: reader.states == [State.SUSPENDED])
                clock.advance(10)
                await stage.seen("slow")
                await until(lambda: reader.states == [State.SUSPENDED, State.RUNNING])
                stage.let("slow")
                await until(lambda: reader.states[2:] == [State.SUSPENDED])
                clock.advance(10)
                await reader.ended()
                assert reader.states[-1] is State.COMPLETED

    asyncio.run(scenario())


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "terminated", "parked"])
def test_it_ends_with_every_kind_of_stop(end: str) -> None:
    @workflow
    async def flow() -> None:
        await WatchingNews.wait()
        if end == "failed":
            raise ValueError
        if end == "parked":
            await asyncio.get_running_loop().create_future()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            await quiet(engine)
            async with reading(run.watch()) as reader:
                await until(lambda: reader.seen)
                if end == "cancelled":
                    await run.cancel()
                elif end == "terminated":
                    await run.terminate()
                else:
                    await run.signal(WatchingNews(text="go"))
                await reader.ended()
            assert reader.states[-1] == {"terminated": "cancelled"}.get(end, end)
            assert reader.states[-1].stopped

    asyncio.run(scenario())


def test_pause_and_resume_are_changes_too() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await says.start()
            await quiet(engine)
            async with reading(run.watch()) as reader:
                await until(lambda: reader.seen)
                await run.pause(by="ada")
                await until(lambda: reader.states[-1] is State.PAUSED)
                assert "by ada" in reader.seen[-1].waiting_for[0]
                await run.resume()
                await until(lambda: reader.states[-1] is not State.PAUSED)
                await stop(run)
                await reader.ended()

    asyncio.run(scenario())


def test_a_run_that_has_stopped_is_shown_once() -> None:
    async def scenario() -> None:
        async with Engine(":memory:"):
            run = await naps.start(0)
            await run
            assert [info async for info in run.watch()] == [await run.info()]

    asyncio.run(scenario())


def test_watching_a_run_that_does_not_exist_says_so() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(UnknownRun) as refused:
                await anext(engine.run("nobody").watch())
            assert refused.value.run_id == "nobody"
            assert listeners(engine) == 0

    asyncio.run(scenario())


def test_a_body_cannot_watch() -> None:
    @workflow
    async def flow(how: str) -> None:
        run = naps.run("x")
        with pytest.raises(UsageError, match="belongs in a step"):
            run.watch()

    async def scenario() -> None:
        async with Engine(":memory:"):
            await flow("run")

    asyncio.run(scenario())


def test_whoever_is_slow_gets_the_newest_and_not_each() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await says.start()
            await quiet(engine)
            watch = run.watch()
            assert (await anext(watch)).status is None
            await tell(run, *"abcdefgh")
            await quiet(engine)
            assert (await anext(watch)).status == "h"
            await tell(run, "i", "j")
            await stop(run)
            last = await anext(watch)
            assert (last.status, last.state) == ("j", State.COMPLETED)
            with pytest.raises(StopAsyncIteration):
                await anext(watch)

    asyncio.run(scenario())


def test_whoever_leaves_in_the_middle_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await says.start()
            await quiet(engine)
            async for _ in run.watch():
                break
            assert listeners(engine) == 0  # though nobody has closed the iterator
            async with reading(run.watch()) as reader:
                await until(lambda: reader.seen and listeners(engine))
            assert listeners(engine) == 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await anext(run.watch())
            assert listeners(engine) == 0
            await stop(run)

    asyncio.run(scenario())


def test_many_may_watch_one_run_and_all_see_its_end() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await says.start()
            readers = [Reader(run.watch()) for _ in range(100)]
            await until(lambda: all(reader.seen for reader in readers))
            await tell(run, "news")
            await until(lambda: all(reader.texts[-1] == "news" for reader in readers))
            for reader in readers[:50]:
                await reader.leave()
            await stop(run)
            for reader in readers[50:]:
                await reader.ended()
                assert reader.states[-1] is State.COMPLETED
            assert listeners(engine) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "unload_after",
    [
        pytest.param(0.0, id="unloaded"),
        pytest.param(
            1e6, id="resident", marks=pytest.mark.contradicts("unload", reason="its body is to stay in memory")
        ),
    ],
)
def test_it_goes_on_over_suspension_and_unloading(unload_after: float) -> None:
    async def scenario() -> None:
        async with Engine(":memory:", clock=ManualClock(), unload_after=unload_after) as engine:
            run = await says.start()
            async with reading(run.watch()) as reader:
                for text in "abc":
                    await tell(run, text)
                    await quiet(engine)
                    await until(lambda text=text: reader.texts[-1] == text)  # type: ignore[misc]
                assert bool(session_of(engine).worker._residents.passes) is (unload_after > 0)
                await stop(run)
                await reader.ended()
            assert reader.texts == [None, "a", "b", "c"]

    asyncio.run(scenario())


# Over processes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["killed", "closed"])
def test_after_a_restart_it_begins_with_what_the_run_is_then(tmp_path: Path, ends: str) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            run = await says.options(id="x").start()
            await tell(run, "before")
            await quiet(engine)
            if ends == "killed":
                await die(engine)
        async with Engine(tmp_path / "j.db", workflows=[says]) as engine:
            async with reading(engine.run("x").watch()) as reader:
                await until(lambda: reader.seen)
                assert reader.seen[0].status == "before"
                await tell(engine.run("x"), "after")
                await stop(engine.run("x"))
                await reader.ended()
            assert reader.states[-1] is State.COMPLETED

    asyncio.run(scenario())


@pytest.mark.parametrize("drive", [False, True], ids=["client", "worker"])
def test_what_another_process_does_with_the_run_is_seen(tmp_path: Path, drive: bool) -> None:
    async def scenario() -> None:
        async with (
            Engine(tmp_path / "j.db", unload_after=0) as engine,
            Engine(tmp_path / "j.db", drive=drive) as other,
        ):
            run = await says.options(engine=engine).start()
            async with reading(other.run(run.id).watch()) as reader:
                await until(lambda: reader.seen)
                for text in "abc":
                    await tell(run, text)
                    await until(lambda text=text: reader.texts[-1] == text)  # type: ignore[misc]
                await run.signal(WatchingNews(text="stop"))
                await reader.ended()
            assert reader.texts == [None, "a", "b", "c"]
            assert reader.states[-1] is State.COMPLETED
            assert listeners(other) == 0

    asyncio.run(scenario())


def test_a_watcher_stays_while_the_process_that_drives_dies_and_another_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as client:
            async with Engine(tmp_path / "j.db") as engine:
                run = await says.options(id="x", engine=engine).start()
                reader = Reader(client.run("x").watch())
                await tell(run, "first")
                await until(lambda: reader.seen and reader.texts[-1] == "first")
                await die(engine)
            async with Engine(tmp_path / "j.db", workflows=[says]) as engine:
                await tell(engine.run("x"), "second")
                await stop(engine.run("x"))
                await reader.ended()
            assert reader.texts[-1] == "second"
            assert reader.states[-1] is State.COMPLETED

    asyncio.run(scenario())


# All runs ------------------------------------------------------------------------------------------------------------


def test_the_runs_that_are_there_come_first_and_then_each_that_changes() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            for name in "ab":
                await says.options(id=name).start()
                await quiet(engine)
            async with reading(engine.watch()) as reader:
                await until(lambda: len(reader.seen) == 2)
                assert [info.id for info in reader.seen] == ["a", "b"]
                await tell(engine.run("a"), "news")
                await until(lambda: any((info.id, info.status) == ("a", "news") for info in reader.seen))
                await says.options(id="c").start()
                await until(lambda: any(info.id == "c" for info in reader.seen))
                await stop(engine.run("b"))
                await until(lambda: any((info.id, info.state) == ("b", State.COMPLETED) for info in reader.seen))
                assert {info.id for info in reader.seen} == set("abc")
            assert listeners(engine) == 0

    asyncio.run(scenario())


def test_each_of_many_runs_comes_whole_and_once() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", drive=False) as engine:
            await asyncio.gather(*(naps.options(id=f"n{number}").start(1) for number in range(350)))
            async with reading(engine.watch()) as reader:
                await until(lambda: len(reader.seen) >= 350)
                await engine.run("n7").pause()
                await until(lambda: reader.seen[-1].id == "n7")
                assert len(reader.seen) == 351
                assert len({info.id for info in reader.seen}) == 350

    asyncio.run(scenario())


def test_only_runs_that_fit_come_by_what_they_are_then() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        async with Engine(":memory:", clock=clock) as engine:
            await naps.options(id="eu", tags={"team": "eu"}).start(10)
            await naps.options(id="us", tags={"team": "us"}).start(10)
            await says.options(id="says", tags={"team": "eu"}).start()
            await quiet(engine)
            async with (
                reading(engine.watch(workflow=naps)) as of_workflow,
                reading(engine.watch(workflow="says")) as of_name,
                reading(engine.watch(tags={"team": "eu"})) as of_tag,
                reading(engine.watch(state="completed")) as of_state,
                reading(engine.watch(state=["completed", State.SUSPENDED], tags={"team": "us"})) as of_both,
            ):
                await until(lambda: len(of_tag.seen) == 2)
                clock.advance(10)
                await until(lambda: len(of_state.seen) == 2)
                await stop(engine.run("says"))
                await until(lambda: len(of_state.seen) == 3)
                await until(lambda: of_tag.seen[-1].state is State.COMPLETED)
                assert {info.id for info in of_workflow.seen} == {"eu", "us"}
                assert {info.id for info in of_name.seen} == {"says"}
                assert {info.id for info in of_tag.seen} == {"eu", "says"}
                assert {info.id: info.state for info in of_state.seen} == dict.fromkeys(
                    ("eu", "us", "says"), State.COMPLETED
                )
                assert [(info.id, info.state) for info in of_both.seen] == [
                    ("us", State.SUSPENDED),
                    ("us", State.COMPLETED),
                ]

    asyncio.run(scenario())


def test_a_question_that_makes_no_sense_is_refused_when_the_first_run_is_asked_for() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            vague: Any = engine
            with pytest.raises(UsageError, match="the states are pending"):
                await anext(vague.watch(state="broken"))

    asyncio.run(scenario())


def test_whoever_watches_all_runs_slowly_gets_the_newest_of_each() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            watch = engine.watch()
            for name in "ab":
                await says.options(id=name).start()
                await quiet(engine)
            assert {(await anext(watch)).id for _ in "ab"} == set("ab")
            for text in "123":
                for name in "ab":
                    await tell(engine.run(name), text)
            await quiet(engine)
            newest = [await anext(watch) for _ in "ab"]
            assert {info.id: info.status for info in newest} == {"a": "3", "b": "3"}
            await cast("AsyncGenerator[RunInfo]", watch).aclose()
            assert listeners(engine) == 0

    asyncio.run(scenario())


def test_what_was_read_of_a_run_before_it_changed_is_not_given_to_whoever_asks_after_that() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            for name in "ab":
                await says.options(id=name).start()
                await quiet(engine)
            watch = engine.watch()
            assert (await anext(watch)).id == "a"
            await tell(engine.run("b"), "news")
            await stop(engine.run("b"))
            second = await anext(watch)
            assert (second.id, second.status, second.state) == ("b", "news", State.COMPLETED)
            await cast("AsyncGenerator[RunInfo]", watch).aclose()

    asyncio.run(scenario())


def test_whoever_leaves_while_watching_all_runs_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with Engine(":memory:", drive=False) as engine:
            await naps.start(1)
            async for _ in engine.watch():
                break
            assert listeners(engine) == 0
            async with reading(engine.watch()) as reader:
                await until(lambda: reader.seen and listeners(engine))
            assert listeners(engine) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("drive", [False, True], ids=["client", "worker"])
def test_the_runs_that_another_process_drives_are_seen(tmp_path: Path, drive: bool) -> None:
    async def scenario() -> None:
        async with (
            Engine(tmp_path / "j.db") as engine,
            Engine(tmp_path / "j.db", drive=drive) as other,
            reading(other.watch()) as reader,
        ):
            run = await says.options(id="x", engine=engine).start()
            await tell(run, "a")
            await until(lambda: reader.seen and reader.texts[-1] == "a")
            await run.signal(WatchingNews(text="stop"))
            await until(lambda: reader.states[-1] is State.COMPLETED)

    asyncio.run(scenario())


def test_progress_is_seen_on_its_way() -> None:
    stage = Stage()

    @step
    async def item(number: int) -> None:
        await stage.enter(str(number))

    @workflow
    async def flow() -> None:
        for number in range(3):
            await item(number)
            set_progress(number + 1, 3)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await flow.start()
            async with reading(run.watch()) as one, reading(engine.watch()) as every:
                for number in range(3):
                    stage.let(str(number))
                    await until(lambda n=number: all(r.seen and done(r.seen[-1]) > n for r in (one, every)))  # type: ignore[misc]
                await one.ended()

    def done(info: RunInfo) -> int:
        return 0 if info.progress is None else info.progress.done

    asyncio.run(scenario())


# Closing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["a run", "all runs"])
@pytest.mark.parametrize("reads", ["at once", "slowly"])
def test_whoever_watches_when_the_engine_is_closed_is_told_so(what: str, reads: str) -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await says.start()
            await quiet(engine)
            watch = run.watch() if what == "a run" else engine.watch()
            await anext(watch)
            waiting = None
            if reads == "at once":
                waiting = asyncio.ensure_future(anext(watch))
                await until(lambda: listeners(engine))
        with pytest.raises(EngineClosed):
            await (anext(watch) if waiting is None else waiting)
        assert listeners(engine) == 0

    asyncio.run(scenario())


def test_whoever_begins_to_watch_after_the_engine_was_closed_is_told_so() -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            run = await naps.start(0)
            await run
        for watch in (run.watch(), engine.watch()):
            with pytest.raises(EngineClosed):
                await anext(watch)

    asyncio.run(scenario())
