"""A program that is killed: steps in sequence, gathered and in branches, each leaving its trace outside the journal."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from durable_sqlite import Engine, Retry, current_step, step, workflow

__all__ = [
    "EXPECTED",
    "RUN_ID",
    "back_off",
    "journey",
    "live",
    "long_march",
    "poisonous",
    "settled",
    "stubborn",
    "stumbles_on",
]

RUN_ID = "journey"
LOG = "DURABLE_TEST_LOG"


def trace(word: str) -> None:
    """Append a line to the effects log, in one write that no kill can undo."""
    descriptor = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{word} {current_step().run_id} {current_step().key} {os.getpid()}\n".encode())
    finally:
        os.close(descriptor)


@step
async def walk(to: str) -> str:
    trace("begin")
    await asyncio.sleep(0)
    trace("end")
    return f"walked to {to}"


@step
def carry(what: str) -> list[str]:
    trace("begin")
    trace("end")
    return [what, what.upper()]


@step
async def stumble(count: int) -> int:
    trace("begin")
    trace("end")
    raise ValueError(f"stumbled {count} times")


@workflow
async def journey(name: str) -> list[str]:
    """Sequential, gathered and branching steps, a caught failure, a durable pause, a race."""
    told = [await walk(f"{name}'s door"), await walk("the river")]
    told += [" and ".join(parts) for parts in await asyncio.gather(carry("bread"), carry("water"))]
    try:
        await stumble(2)
    except Exception as error:
        told.append(str(error))

    async def scout(way: str) -> str:
        first = await walk(f"{way} bank")
        await asyncio.sleep(0.001)
        return f"{first}, {await walk(f'{way} hill')}"

    async with asyncio.TaskGroup() as group:
        scouts = [group.create_task(scout(way)) for way in ("left", "right")]
    told += [scouted.result() for scouted in scouts]
    told.append(await walk("home"))
    return told


EXPECTED = [
    "walked to ada's door",
    "walked to the river",
    "bread and BREAD",
    "water and WATER",
    "step stumble#1 failed: ValueError: stumbled 2 times",
    "walked to left bank, walked to left hill",
    "walked to right bank, walked to right hill",
    "walked to home",
]


@workflow
async def long_march(miles: int) -> int:
    """Many steps, so that a hundred kills find one to hit."""
    for mile in range(miles):
        await walk(str(mile))
    return miles


@step
async def swallow_poison() -> None:
    trace("begin")
    os._exit(9)


@workflow
async def poisonous(sips: int) -> int:
    """Kills its process on each pass."""
    for _ in range(sips):
        await walk("the well")
    await swallow_poison()
    return sips


@step(retry=Retry(max_attempts=3, initial_delay=0.6, factor=1, jitter=0))
async def stumbles_on() -> None:
    trace(str(current_step().attempt))
    raise ValueError("once more")


@workflow
async def stubborn() -> None:
    """One step that fails at every attempt."""
    await stumbles_on()


def kill_at(number: int, only: str) -> Callable[[str], None]:
    """Failpoints, of which the n-th that is passed kills this process; 0 never does, and counts.

    With `only`, those of that name alone are counted.
    """
    passed = 0

    def failpoint(name: str) -> None:
        nonlocal passed
        passed += only in ("", name)
        if number == 0:
            with Path(os.environ[LOG] + ".points").open("a") as points:
                points.write(name + "\n")
        elif passed == number and only in ("", name):
            os.kill(os.getpid(), signal.SIGKILL)

    return failpoint


def settled(journal: Path, run_id: str = RUN_ID) -> set[str]:
    """Keys of a run that the journal holds, read by a client that drives nothing."""

    async def read() -> set[str]:
        async with Engine(journal, drive=False) as engine:
            if await engine.count() == 0:
                return set()
            return {entry.key for entry in await engine.run(run_id).history()}

    return asyncio.run(read())


def live(journal: str, log: str, number: int, program: str = "journey", only: str = "") -> None:
    """One life of the process: start or go on with the run, and be killed at the n-th failpoint (of the name `only`)."""
    os.environ[LOG] = log

    async def main() -> None:
        engine = Engine(journal, unload_after=0)
        engine._failpoint = kill_at(number, only)
        async with engine:
            match program:
                case "journey":
                    await journey.options(id=RUN_ID).start("ada")
                case "march":
                    await long_march.options(id=RUN_ID).start(250)
                case "stubborn":
                    await stubborn.options(id=RUN_ID).start()
                case _:
                    await long_march.options(id="neighbour").start(30)
                    await poisonous.options(id=RUN_ID).start(2)
            while await engine.count(state=["pending", "running", "suspended"]):
                await engine.join()
                await asyncio.sleep(0.001)  # a run that waits is driven again when its time has come

    asyncio.run(main())


def _failed_attempts(journal: str) -> int:
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM durable_attempts")
    return int(count)


def back_off(journal: str, log: str, say: Callable[[str], None]) -> None:
    """A life that says so when the first failed attempt of `stubborn` is committed, and goes no further.

    The commit is done and nobody in the process knows it yet: its writer waits here to be killed.
    """
    os.environ[LOG] = log

    def failpoint(name: str) -> None:
        if name == "commit.after" and Path(log).exists() and _failed_attempts(journal):
            say("backing off")
            threading.Event().wait()

    async def main() -> None:
        engine = Engine(journal)
        engine._failpoint = failpoint
        async with engine:
            await stubborn.options(id=RUN_ID).start()
            await asyncio.Event().wait()

    asyncio.run(main())
