"""What processes do that race: each waits at one gate with the others, and does its part when the gate is opened."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from durable_sqlite import DurableError, Engine, RunError, Signal, Suspend, Workflow, step, workflow
from durable_sqlite._liveness import Lifeline, side_file, this_start
from durable_sqlite._neighbours import Neighbours, Surveillance
from durable_sqlite._records import Request
from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite.journal import Lease

from .mutants import MUTANTS

__all__ = ["HELD", "Racer", "be_taken_over", "race", "take_over"]


class Question(Suspend[int], name="race-question"):
    pass


class Never(Signal, name="race-never"):
    pass


@step
async def add(n: int) -> int:
    return n + 1


@step
def fail_first(mark: str) -> None:
    before = Path(mark).exists()
    Path(mark).touch()
    if not before:
        raise ValueError("the first time")


@step
def note(mark: str) -> None:
    with Path(mark).open("a", encoding="utf-8") as file:
        file.write("done\n")


@step
async def never_end() -> None:
    await asyncio.Event().wait()


@workflow(name="race-plain")
async def plain(n: int) -> int:
    return await add(n)


@workflow(name="race-fragile")
async def fragile(mark: str) -> None:
    await fail_first(mark)
    await Never.wait()


@workflow(name="race-asking")
async def asking(_mark: str) -> int:
    return await Question().wait()


@workflow(name="race-waiting")
async def waiting(mark: str) -> None:
    try:
        await Never.wait()
    finally:
        await note(mark)


@workflow(name="race-endless")
async def endless() -> None:
    await never_end()


WORKFLOWS = (plain, fragile, asking, waiting, endless)


@dataclass(frozen=True, slots=True)
class Racer:
    """One of the processes.

    Args:
        journal: What they race on.
        number: Which one it is.
        orders: Where it is told what to do, and says what came of it.
        gate: Gives one byte to each when all are to begin.
        drives: Whether it drives runs.
        mutant: Which rule is broken in it.
    """

    journal: str
    number: int
    orders: Connection
    gate: Connection
    drives: bool = True
    mutant: str | None = None

    def pass_gate(self) -> None:
        """Say that it is ready, and wait for the others: nothing else is done meanwhile."""
        self.orders.send("ready")
        os.read(self.gate.fileno(), 1)

    async def obey(self, verbs: dict[str, Callable[..., Awaitable[Any]]]) -> None:
        """Do what it is told until it is told nothing more, and say what came of it."""
        loop = asyncio.get_running_loop()
        self.orders.send("open")
        while order := await loop.run_in_executor(None, self.orders.recv):
            at_gate, verb, *arguments = order
            if at_gate:
                self.pass_gate()
            try:
                answer = await verbs[verb](*arguments)
            except DurableError as error:
                answer = type(error).__name__
            self.orders.send(answer)
        self.orders.send("over")


def race(racer: Racer) -> None:
    """A process with an engine that takes part in races, and prepares them."""
    logging.getLogger("durable_sqlite").addHandler(logging.NullHandler())
    logging.getLogger("durable_sqlite").propagate = False
    with MUTANTS[racer.mutant].broken() if racer.mutant else nullcontext():
        asyncio.run(_race(racer))


async def _race(racer: Racer) -> None:
    async with Engine(racer.journal, workflows=WORKFLOWS, drive=racer.drives) as engine:
        await racer.obey(_Verbs(engine, racer.number).all())


class _Verbs:
    """What a racer can be told to do with an engine."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine = engine
        self._me = f"racer-{number}"
        self._number = number

    def all(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """By their names."""
        return {
            "start": self.start,
            "resume": self.resume,
            "answer": self.answer,
            "cancel": self.cancel,
            "prepare": self.prepare,
            "outcome": self.outcome,
        }

    async def start(self, run_id: str) -> tuple[str, bool]:
        """Start the run of this id, or attach to it."""
        run = await plain.options(id=run_id).start(1)
        return run.id, run.created

    async def resume(self, run_id: str) -> None:
        """Let a dead letter go on."""
        await self._engine.run(run_id).resume()

    async def answer(self, run_id: str) -> None:
        """Answer the one question of a run."""
        await self._engine.run(run_id).answer(Question, self._number, by=self._me)

    async def cancel(self, run_id: str) -> None:
        """Cancel a run."""
        await self._engine.run(run_id).cancel(reason=self._me, by=self._me)

    async def prepare(self, name: str, run_id: str, mark: str) -> str:
        """Start a run, and wait until there is something to race for."""
        flows: dict[str, Workflow[[str], Any]] = {"resume": fragile, "answer": asking, "cancel": waiting}
        start = flows[name]
        run = await start.options(id=run_id).start(mark)
        async for info in run.watch():
            if info.state == ("failed" if name == "resume" else "suspended"):
                break
        return run_id

    async def outcome(self, run_id: str) -> tuple[str, Any]:
        """How a run ended, and what with."""
        run = self._engine.run(run_id)
        try:
            return "completed", await run.result()
        except RunError:
            info = await run.info()
            return info.state.value, info.reason


# Taking over ---------------------------------------------------------------------------------------------------------

HELD = 3
"""How many runs a process drives that is to be taken over from."""


def be_taken_over(racer: Racer, lease: float, silent: bool) -> None:
    """Drive runs whose steps never end, until something happens to this process; with `silent`, it stops by itself."""

    async def main() -> None:
        async with Engine(racer.journal, workflows=(endless,), lease=lease) as engine:
            for n in range(HELD):
                await endless.options(id=f"endless-{racer.number}-{n}").start()
            racer.orders.send("open")
            if silent:
                with closing(engine.connect()) as connection:
                    # Not in the middle of a write: while it stood still then, nobody could take anything over.
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("ROLLBACK")
                    os.kill(os.getpid(), signal.SIGSTOP)
            await asyncio.Event().wait()

    asyncio.run(main())


def take_over(racer: Racer) -> None:
    """A worker that does nothing but look at its neighbours when it is told to; it says how many runs it has freed."""
    logging.getLogger("durable_sqlite").addHandler(logging.NullHandler())
    logging.getLogger("durable_sqlite").propagate = False
    with MUTANTS[racer.mutant].broken() if racer.mutant else nullcontext():
        asyncio.run(_take_over(racer))


async def _take_over(racer: Racer) -> None:
    path, name = Path(racer.journal), f"heir-{racer.number}"
    lifeline, journal = Lifeline(side_file(path, name)), SqliteJournal(path)
    await journal.open(name, 1, Lease(15_000_000, this_start(), lambda: 1, lambda: None, lambda _why: None))
    neighbours = Neighbours(
        journal,
        Surveillance(
            path=path,
            now=asyncio.get_running_loop().time,
            sleep=asyncio.sleep,
            at=lambda: 1,
            max_recoveries=1_000_000,
            parked_result=b"",
            local=True,
            here=this_start(),
        ),
    )

    async def look() -> int:
        neighbours.heard()
        return len(await neighbours.look())

    async def watch(seconds: float) -> int:
        """Until somebody, whoever it is, has taken over from a worker that is silent."""
        until, freed = time.monotonic() + seconds, 0
        while time.monotonic() < until and any(other.holds for other in await journal.workers()):
            freed += await look()
            await asyncio.sleep(0.005)
        return freed

    async def clear(run_ids: list[str]) -> None:
        """End these runs, so that nobody drives them again."""
        for run_id in run_ids:
            await journal.terminate(run_id, Request(1, "", ""))

    await racer.obey({"look": look, "watch": watch, "clear": clear})
    await journal.close(1)
    lifeline.release()
