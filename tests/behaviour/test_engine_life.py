"""Engines: opened, closed, forgotten, forked, several at once; and which one a call means."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    EngineClosed,
    NoEngine,
    NotAJournal,
    State,
    UsageError,
    WrongLoop,
    _session,
    sleep,
    step,
    workflow,
)
from tests.support.clock import ManualClock
from tests.support.gates import session_of
from tests.support.restarts import quiet
from tests.support.stage import Stage


@step
async def act(what: str) -> str:
    return what


@workflow
async def flow(what: str) -> str:
    return await act(what)


@workflow
async def naps() -> str:
    await sleep(100)
    return "awake"


@pytest.mark.parametrize(
    "options",
    [
        {"max_resident": 0},
        {"max_recoveries": -1},
        {"payload_limit": 1.5},
        {"max_entries": True},
        {"step_threads": "4"},
        {"synchronous": "off"},
        {"workflows": [len]},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Engine(":memory:", **options)


def test_an_engine_that_is_not_open_says_so() -> None:
    async def scenario() -> None:
        engine = Engine(":memory:")
        with pytest.raises(EngineClosed, match="not open yet"):
            await engine.count()
        with pytest.raises(EngineClosed, match="not open yet"):
            await flow.options(engine=engine).start("x")
        await engine.close()
        async with engine:
            assert await flow("x") == "x"
        for use in (engine.count(), engine.join(), engine.run("x").info(), flow.options(engine=engine).start("x")):
            with pytest.raises(EngineClosed, match="was closed"):
                await use
        with pytest.raises(EngineClosed):
            async for _ in engine.runs():
                pass
        await engine.close()
        assert repr(engine) == "<Engine :memory:, closed>"
        with pytest.raises(UsageError, match="make a new Engine"):
            async with engine:
                pass

    asyncio.run(scenario())


def test_a_file_that_is_no_journal_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("x" * 5_000)

    async def scenario() -> None:
        with pytest.raises(NotAJournal):
            async with Engine(path):
                pass
        with pytest.raises(UsageError, match="folder"):
            async with Engine(tmp_path / "nowhere" / "j.db"):
                pass
        with pytest.raises(NoEngine):
            await flow.start("x")

    asyncio.run(scenario())
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "x" * 5_000


def test_a_waiting_result_ends_with_an_error_when_the_engine_is_closed() -> None:
    async def scenario() -> None:
        engine = Engine(":memory:")
        async with engine:
            run = await naps.start()
            waiting = [asyncio.create_task(run.result()) for _ in range(2)]
            await quiet(engine)
            waiting[1].cancel()
        with pytest.raises(EngineClosed):
            await waiting[0]
        await asyncio.wait(waiting)

    asyncio.run(scenario())


def test_joining_waits_until_nothing_is_left_to_drive_and_ends_with_the_engine() -> None:
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def long() -> None:
        await slow()

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            await engine.join()
            await naps.start()
            await engine.join()
            run = await long.start()
            joining = [asyncio.create_task(engine.join()) for _ in range(3)]
            await stage.seen("slow")
            await asyncio.sleep(0)
            assert not any(task.done() for task in joining)
            joining[0].cancel()
            stage.let("slow")
            await asyncio.wait(joining)
            assert (await run.info()).state is State.COMPLETED
            stage.close("slow")
            await long.start()
            joining = [asyncio.create_task(engine.join())]
            await asyncio.sleep(0.01)
        await joining[0]

    asyncio.run(scenario())


def test_the_engine_of_the_context_is_used_else_the_only_one_of_the_loop() -> None:
    async def scenario() -> None:
        ready, over = asyncio.Event(), asyncio.Event()

        async def lifespan() -> None:
            async with Engine(":memory:"):
                ready.set()
                await over.wait()

        outside = asyncio.create_task(lifespan())
        await ready.wait()
        assert await flow("only one") == "only one"
        async with Engine(":memory:") as inner:
            run = await flow.start("innermost")
            assert (await inner.run(run.id).info()).id == run.id
            async with Engine(":memory:") as innermost:
                await flow.options(id="i").start("x")
                assert await innermost.count() == 1
                await flow.options(id="n", engine=inner).start("x")
                assert await inner.count() == 2
        over.set()
        await outside

    asyncio.run(scenario())


def test_of_several_engines_on_one_loop_one_has_to_be_named() -> None:
    async def scenario() -> None:
        first, second = Engine(":memory:"), Engine(":memory:")
        empty = contextvars.Context()
        for engine in (first, second):
            await asyncio.get_running_loop().create_task(engine.__aenter__(), context=contextvars.Context())
        with pytest.raises(NoEngine, match=r"several engines are open on this loop \(:memory:, :memory:\)"):
            await asyncio.get_running_loop().create_task(flow("x"), context=empty)
        assert await flow.options(engine=second)("x") == "x"
        assert (await first.count(), await second.count()) == (0, 1)
        for engine in (first, second):
            await engine.__aexit__(None, None, None)  # in another context than it was entered in

    asyncio.run(scenario())


def test_another_event_loop_is_told_to_open_an_engine_of_its_own(tmp_path: Path) -> None:
    told: list[BaseException] = []

    async def elsewhere(engine: Engine) -> None:
        for use in (engine.count, lambda: flow.options(engine=engine).start("x"), engine.close, lambda: flow("x")):
            try:
                await use()
            except Exception as error:
                told.append(error)

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as engine:
            thread = threading.Thread(target=lambda: asyncio.run(elsewhere(engine)))
            thread.start()
            while thread.is_alive():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert await flow("x") == "x"

    asyncio.run(scenario())
    assert [type(error) for error in told] == [WrongLoop, WrongLoop, WrongLoop, NoEngine]
    assert "another event loop" in str(told[0])


def test_a_forked_child_is_told_at_once_and_the_parent_is_unharmed(tmp_path: Path) -> None:
    async def scenario() -> None:
        stage = Stage()

        @step
        async def slow() -> str:
            await stage.enter("slow")
            return "done"

        @workflow
        async def long() -> str:
            return await slow()

        async with Engine(tmp_path / "j.db") as engine:
            run = await long.options(id="x").start()
            await stage.seen("slow")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # that threads and forks do not mix is the point
                child = os.fork()
            if child == 0:
                try:
                    await engine.count()
                except WrongLoop as error:
                    os._exit(0 if "forked" in str(error) else 2)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222
            async with Engine(tmp_path / "j.db", workflows=[long]) as second:  # the lock is the parent's still
                assert (await second.run("x").info()).state is State.RUNNING
                stage.let("slow")
                assert await run == "done"
        assert stage.began == ["slow"]

    asyncio.run(scenario())


def test_a_program_that_forgets_to_close_its_engine_ends_in_order_and_counts_no_death(tmp_path: Path) -> None:
    stage = Stage()
    unloading: list[str] = []

    @step
    async def slow() -> str:
        await stage.enter("slow")
        return "done"

    @workflow
    async def long() -> str:
        try:
            return await slow()
        except asyncio.CancelledError:
            unloading.append("cancelled")
            raise

    async def forgets() -> None:
        engine = Engine(tmp_path / "j.db", workflows=[long, naps])
        await engine.__aenter__()
        await long.options(id="x", engine=engine).start()
        await naps.options(id="y", engine=engine).start()
        await stage.seen("slow")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", workflows=[long, naps]) as engine:
            run = engine.run("x")
            assert await run.result(timeout=20) == "done"
            assert (await engine.run("y").info()).state is State.SUSPENDED

    for _ in range(6):
        stage.forget()
        asyncio.run(forgets())
    stage.let("slow")
    asyncio.run(scenario())
    assert unloading == []


def test_a_cancelled_program_closes_its_engine_and_no_body_is_cancelled(tmp_path: Path) -> None:
    seen: list[str] = []
    clock = ManualClock()

    @workflow
    async def careful() -> str:
        try:
            await sleep(100)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return "awake"

    ready = Stage()

    async def program() -> None:
        async with Engine(tmp_path / "j.db", workflows=[careful], clock=clock) as engine:
            await careful.options(id="x").start()
            await quiet(engine)
            await ready.enter("asleep")

    async def scenario() -> None:
        task = asyncio.create_task(program())
        await ready.seen("asleep")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        clock.advance(100)
        async with Engine(tmp_path / "j.db", workflows=[careful], clock=clock) as engine:
            assert await engine.run("x") == "awake"
            assert [entry.key for entry in await engine.run("x").history()] == ["sleep#1"]

    asyncio.run(scenario())
    assert seen == []


def test_two_engines_of_one_process_share_a_journal_and_each_drives_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db") as first, Engine(tmp_path / "j.db") as second:
            runs = [
                await flow.options(engine=engine).start(str(number))
                for number, engine in enumerate([first, second] * 10)
            ]
            assert await asyncio.gather(*(run.result() for run in runs)) == [str(number) for number in range(20)]
            assert await first.count() == await second.count() == 20

    asyncio.run(scenario())


def test_closing_an_engine_leaves_no_thread_of_the_journal_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db"):
            await flow("x")

    before = set(threading.enumerate())
    asyncio.run(scenario())
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.contradicts("two", "crash", reason="its process has one engine, and is forked")
def test_a_forked_child_drives_nothing_on_and_its_leaving_the_block_closes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its part is played here by the process itself; between real ones it is proved in the tests of forks."""
    pinned: list[object] = []
    monkeypatch.setattr(_session, "pin", pinned.append)
    stage = Stage()

    @step
    async def slow() -> None:
        await stage.enter("slow")

    @workflow
    async def one() -> None:
        await slow()

    async def scenario() -> None:
        engine = Engine(":memory:")
        async with engine:
            await one.start()
            await stage.seen("slow")
            session = session_of(engine)
            (held,) = session.worker.held()
            session._forget()
            assert (pinned, held.over) == ([], False), "this is the parent"
            session._pid = -1
            for _ in range(2):
                session._forget()
                assert (pinned, held.over) == ([session], True)
        with pytest.raises(WrongLoop):
            await engine.count()
        # What the parent does in its time.
        session._pid = os.getpid()
        assert await engine.count() == 1
        await engine.close()

    asyncio.run(scenario())
