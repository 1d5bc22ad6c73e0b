"""Serving until a signal, in programs of their own: what is in flight ends, the program ends well, and others go on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durable_sqlite import Engine, EngineClosed, State, UsageError, current_step, step, workflow
from durable_sqlite._serve import Handler
from tests.support.gates import session_of
from tests.support.house import environment
from tests.support.restarts import quiet
from tests.support.stage import Stage, until

SERVED = """
import asyncio, sys
from durable_sqlite import Engine, current_step, sleep, step, workflow

path, how = sys.argv[1:]
ready = asyncio.Event()

def serves() -> None:  # in the turn of the loop after that in which the handlers are set
    print("serves", flush=True)
    ready.set()

@step
async def act(what: str) -> str:
    await ready.wait()
    again = " again" if current_step().recovered else ""
    print(f"began {what}{again}", flush=True)
    if what == "one":
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return what

@workflow
async def two() -> list[str]:
    return [await act("one"), await act("two")]

@workflow
async def naps() -> None:
    await sleep(3600)

async def main():
    async with Engine(path) as engine:
        if how == "naps":
            for _ in range(20):
                await naps.start()
            await engine.join()
        else:
            await two.options(id="x").start()
        asyncio.get_running_loop().call_soon(serves)
        await engine.serve(drain=float(how) if how != "naps" else 30)
        print("served", flush=True)
    print("closed", flush=True)

asyncio.run(main())
"""


@step
async def act(what: str) -> str:
    return what + (" again" if current_step().recovered else "")


@workflow
async def two() -> list[str]:
    return [await act("one"), await act("two")]


@contextmanager
def served(path: Path, how: str) -> Generator[subprocess.Popen[str]]:
    """A program that serves; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVED, str(path), how],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert line_of(process) == "serves"
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def said(process: subprocess.Popen[str]) -> str:
    """What it says next on its error output."""
    assert process.stderr is not None
    return process.stderr.readline().strip()


def finish(process: subprocess.Popen[str], said: str = "") -> tuple[int, list[str], str]:
    """Let it end; its exit code, and the rest of what it printed."""
    out, errors = process.communicate(said, timeout=30)
    return process.returncode, out.split("\n")[:-1], errors


def go_on(path: Path, *, interrupted: bool) -> list[str]:
    """Let another engine, open here, go on with run x at once; what the run brings."""

    async def scenario() -> list[str]:
        async with Engine(path, workflows=[two]) as engine:
            run = await session_of(engine).journal.run("x")
            assert run is not None
            assert (run.deaths, run.interrupted) == (0, interrupted)
            return await two.run("x").result(timeout=20)

    return asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_in_flight_end_and_another_process_goes_on_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as other:
            with served(tmp_path / "j.db", "30") as process:
                assert await asyncio.to_thread(line_of, process) == "began one"
                process.send_signal(number)
                assert await asyncio.to_thread(said, process) == (
                    "draining: 1 step in flight: act#1 of run x; waiting up to 30 s; a second signal ends at once"
                )
                row = await session_of(other).journal.run("x")
                assert row is not None
                assert row.state is State.RUNNING
                assert await asyncio.to_thread(finish, process, "\n") == (0, ["served", "closed"], "")
            assert [entry.key for entry in await other.run("x").history()] == ["act#1"]

    asyncio.run(scenario())
    assert go_on(tmp_path / "j.db", interrupted=False) == ["one", "two"]


def test_a_step_that_outlasts_the_limit_is_cancelled_and_begins_again_elsewhere(tmp_path: Path) -> None:
    with served(tmp_path / "j.db", "0.05") as process:
        assert line_of(process) == "began one"
        process.send_signal(signal.SIGTERM)
        assert said(process).startswith("draining: 1 step in flight")
        assert said(process) == (
            "drained: 1 step in flight: act#1 of run x; cancelled, unrecorded, to begin again elsewhere"
        )
        assert line_of(process) == "served"
        # The step's thread is the application's; it holds up the end of the program until it is told to go.
        assert finish(process, "\n") == (0, ["closed"], "")
    assert go_on(tmp_path / "j.db", interrupted=True) == ["one again", "two"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)], ids=["SIGTERM", "SIGINT"]
)
def test_a_second_signal_ends_at_once(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with served(tmp_path / "j.db", "3600") as process:
        assert line_of(process) == "began one"
        process.send_signal(signal.SIGTERM)
        assert said(process).startswith("draining: 1 step in flight")
        process.send_signal(number)
        assert said(process).startswith("drained: 1 step in flight")
        ended, printed, errors = finish(process, "\n")
        assert (ended, printed) == (code, [])
        assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    assert go_on(tmp_path / "j.db", interrupted=True) == ["one again", "two"]


def test_suspended_runs_hold_up_nothing(tmp_path: Path) -> None:
    with served(tmp_path / "j.db", "naps") as process:
        process.send_signal(signal.SIGTERM)
        assert finish(process) == (0, ["served", "closed"], "")

    async def scenario() -> None:
        async with Engine(tmp_path / "j.db", drive=False) as engine:
            assert await engine.count(state="suspended") == 20

    asyncio.run(scenario())


# In this process ---------------------------------------------------------------------------------------------------------


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


async def serving(engine: Engine, number: int = 1) -> asyncio.Task[None]:
    """Serve in a task; it is ready for signals by then."""
    before = signal.getsignal(signal.SIGTERM)
    task = asyncio.create_task(engine.serve())
    await until(lambda: signal.getsignal(signal.SIGTERM) is not before)
    assert isinstance(signal.getsignal(signal.SIGTERM), Handler)
    return task


@pytest.mark.parametrize("late", ["first", "second"])
def test_one_signal_is_heard_by_every_engine_that_serves_and_what_was_there_before_is_put_back(late: str) -> None:
    async def scenario() -> None:
        before = handlers()
        async with Engine(":memory:") as first, Engine(":memory:") as second:
            for ways in (1, 2):
                tasks = [await serving(engine) for engine in (first, second)]
                if ways == 1:  # one of them goes by itself, in this order or that
                    gone = tasks.pop(0 if late == "second" else 1)
                    gone.cancel()
                    await asyncio.wait([gone])
                    assert isinstance(signal.getsignal(signal.SIGINT), Handler)
                    tasks[0].cancel()
                    await asyncio.wait(tasks)
                else:
                    os.kill(os.getpid(), signal.SIGTERM)
                    async with asyncio.timeout(20):
                        await asyncio.gather(*tasks)
                    assert session_of(first).drain.over.is_set()
                    assert session_of(second).drain.over.is_set()
                assert handlers() == before

    asyncio.run(scenario())


def test_a_handler_of_the_application_is_put_back_as_it_was() -> None:
    heard: list[int] = []

    def mine(number: int, _: object) -> None:
        heard.append(number)

    async def scenario() -> None:
        async with Engine(":memory:") as engine:
            task = await serving(engine)
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(20):
                await task
            assert heard == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == [signal.SIGTERM]

    before = signal.signal(signal.SIGTERM, mine)
    try:
        asyncio.run(scenario())
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("how", ["drain", "close", "cancel"])
def test_serving_ends_where_somebody_else_drains_or_closes_the_engine(how: str) -> None:
    async def scenario() -> None:
        before = handlers()
        async with Engine(":memory:") as engine:
            task = await serving(engine)
            if how == "drain":
                await engine.drain()
            elif how == "close":
                await engine.close()
            else:
                task.cancel()
            async with asyncio.timeout(20):
                await asyncio.wait([task])
            assert task.cancelled() == (how == "cancel")
            assert handlers() == before
        with pytest.raises(EngineClosed):
            await engine.serve()

    asyncio.run(scenario())


def test_serving_outside_the_main_thread_is_refused_and_says_what_to_do() -> None:
    told: list[str] = []

    async def serves() -> None:
        async with Engine(":memory:") as engine:
            with pytest.raises(UsageError) as caught:
                await engine.serve()
            told.append(str(caught.value))

    thread = threading.Thread(target=lambda: asyncio.run(serves()))
    thread.start()
    thread.join(20)
    assert "await engine.drain()" in told[0]


def test_a_child_that_was_forked_while_somebody_serves_is_ended_by_a_signal_as_ever(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Engine(":memory:") as engine, Engine(tmp_path / "j.db") as other:
            tasks = [await serving(engine), await serving(other)]
            ear, mouth = os.pipe()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                try:
                    signal.alarm(20)  # where it is not ended as it should be, it must not stay for ever
                    os.write(mouth, b"!")  # Python forgets what comes before a child is ready
                    while True:  # no wait: a signal that comes just before one would not end it
                        pass
                finally:
                    os._exit(1)
            os.read(ear, 1)
            os.close(ear)
            os.close(mouth)
            os.kill(child, signal.SIGTERM)
            assert os.waitpid(child, 0)[1] == signal.SIGTERM  # noqa: ASYNC222
            await quiet_for_a_turn()
            assert not any(task.done() for task in tasks)
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(20):
                await asyncio.gather(*tasks)

    asyncio.run(scenario())


async def quiet_for_a_turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0.001)


def test_nothing_of_a_signal_is_lost_between_two_engines_in_a_row() -> None:
    async def scenario() -> None:
        for _ in range(2):
            async with Engine(":memory:") as engine:
                task = await serving(engine)
                await quiet(engine)
                os.kill(os.getpid(), signal.SIGINT)
                async with asyncio.timeout(20):
                    await task

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)], ids=["SIGTERM", "SIGINT"]
)
def test_a_second_signal_cancels_what_is_in_flight_and_says_in_pythons_way_that_the_program_ends(
    number: signal.Signals, error: type[BaseException]
) -> None:
    stage = Stage()

    @step
    async def waits() -> None:
        await stage.enter("waits")

    @workflow
    async def one() -> None:
        await waits()

    async def scenario() -> None:
        before = handlers()
        async with Engine(":memory:") as engine:
            run = await one.start()
            await stage.seen("waits")

            async def ends() -> None:
                await until(lambda: isinstance(signal.getsignal(number), Handler))
                signal.raise_signal(signal.SIGTERM)
                await until(lambda: session_of(engine).worker.standing_down)
                signal.raise_signal(number)

            ending = asyncio.create_task(ends())
            with pytest.raises(error) as caught:
                await engine.serve(drain=3600)
            await ending
            if isinstance(caught.value, SystemExit):
                assert caught.value.code == 143
            assert handlers() == before
            assert session_of(engine).drain.over.is_set()
            row = await session_of(engine).journal.run(run.id)
            assert row is not None
            assert (row.state, row.interrupted) == (State.PENDING, True)

    asyncio.run(scenario())


def test_a_handler_in_another_process_puts_back_what_was_there_before_all_and_passes_the_signal_on() -> None:
    heard: list[int] = []

    def mine(number: int, _: object) -> None:
        heard.append(number)

    async def scenario() -> None:
        told: list[int] = []
        first = Handler(signal.SIGTERM, asyncio.get_running_loop(), told.append)
        second = Handler(signal.SIGTERM, asyncio.get_running_loop(), told.append)
        second._pid = -1  # it was set in the process that this one was forked from
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
        await quiet_for_a_turn()
        assert told == []
        second.remove()
        first.remove()
        assert signal.getsignal(signal.SIGTERM) is mine

    before = signal.signal(signal.SIGTERM, mine)
    try:
        asyncio.run(scenario())
    finally:
        signal.signal(signal.SIGTERM, before)
