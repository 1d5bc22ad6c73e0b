"""What engines live through on a disk: some runs, messages and payments of the application, a few restarts, and their end.

The runs, the log and the checker are those of the kill fleet. Here the log is also where acknowledgements get their place
among the writes: a line that says so is put on the tape when the application has been told.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from durable_sqlite import State, Tx, current_step
from durable_sqlite._sqlite import driving
from durable_sqlite._sqlite.vigil import Vigil
from tests.campaigns.fleet.deeds import DEEDS, LETTERS, POST, SAFE, WORKFLOWS, Letter, set_up
from tests.campaigns.fleet.trace import LOG, TracedEngine, digest, traced_release, traced_renewal
from tests.support.restarts import die

__all__ = ["World", "finish", "live", "open_engine"]

_UNFINISHED = (State.PENDING, State.RUNNING, State.SUSPENDED)
_PATIENCE = 600.0  # seconds after which something hangs: this may be the last of many processes
_LARGEST_PAYMENT = 12_000  # bytes: some pages


class World:
    """What is outside of the journal: the log, and the effects of at-most-once steps.

    Args:
        say: Takes each line of the log.
        effects: Those that were had before, each by its run and key.
    """

    def __init__(self, say: Callable[[str], None], effects: list[str] | None = None) -> None:
        self._say = say
        self.process = 0
        """Which process of all lives this is: one that was cut off, or killed, is not the one after it."""
        self.effects = list(effects or ())
        self.heard = True
        """Whether what the engine says of errors is noted."""

    def note(self, word: str, *facts: object) -> None:
        """A line of the log."""
        told = (str(fact).replace(" ", "_").replace("\n", "|") for fact in facts)
        self._say(" ".join([word, str(self.process), *told]))

    def _effect(self) -> None:
        here = current_step()
        self.effects.append(f"{here.run_id}.{here.key}")
        self.note("effect", self.effects[-1])

    def _had_effect(self) -> bool:
        here = current_step()
        return f"{here.run_id}.{here.key}" in self.effects

    @contextmanager
    def around(self) -> Generator[None]:
        """Be the world of all engines of this process."""
        complaints = _Complaints(self)
        logger = logging.getLogger("durable_sqlite")
        with ExitStack() as changes:
            changes.enter_context(patch.object(LOG, "note", self.note))
            changes.enter_context(patch.object(LOG, "effect", self._effect))
            changes.enter_context(patch.object(LOG, "had_effect", self._had_effect))
            changes.enter_context(patch.object(driving, "release", traced_release))
            changes.enter_context(patch.object(Vigil, "_renew", traced_renewal))
            changes.enter_context(patch.object(logger, "propagate", False))
            logger.addHandler(complaints)
            changes.callback(logger.removeHandler, complaints)
            yield


class _Complaints(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if not self._world.heard:
            return
        error = record.exc_info[1] if record.exc_info else None
        self._world.note("complaint", f"{record.getMessage()} {error!r}"[:500])


def open_engine(path: Path, synchronous: Any, chance: Random) -> TracedEngine:
    """An engine that drives all runs, and writes its WAL back often."""
    engine = TracedEngine(
        path,
        workflows=WORKFLOWS,
        synchronous=synchronous,
        unload_after=chance.choice((0, 0.02, 5)),
        lease=3600,  # it is alone, and may have to wait for the processor for long
        max_recoveries=1_000_000,  # deaths come early on purpose: no run is to be parked for that
    )
    engine._journal_options["checkpoint_bytes"] = chance.choice((20_000, 60_000, 200_000))
    return engine


async def live(world: World, path: Path, chance: Random, synchronous: str, runs: int) -> None:
    """Some engines one after the other: each is closed in the middle, or killed; the last one sees everything to its end."""
    sessions = chance.randint(1, 3)
    base = world.process
    for session in range(1, sessions + 1):
        world.process = base + session
        engine = open_engine(path, synchronous, chance)
        await engine.__aenter__()
        world.note("open")
        await engine.transact(set_up)
        await engine.transact(_set_up_payments)
        many = runs // sessions
        # At NORMAL an announcement may be lost, and so what it guards may happen twice.
        deeds = tuple(DEEDS) if synchronous == "full" else SAFE
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(
                _start(engine, world, chance, [chance.choice(deeds) for _ in range(many)]),
                _pay(engine, world, chance, chance.randint(0, many)),
            )
            if session == sessions:
                await finish(engine, world)
        if session == sessions or chance.random() < 0.5:
            world.note("closing")
            await engine.__aexit__(None, None, None)
        else:
            world.note("killing", world.process)
            world.heard = False  # the dead do not complain; only what plays them may
            await die(engine)
            world.heard = True


def _first(world: World) -> int:
    """Numbers that no other process uses begin here."""
    return world.process * 1_000_000


async def _start(engine: TracedEngine, world: World, chance: Random, deeds: list[str]) -> None:
    for n, name in enumerate(deeds, _first(world)):
        run = await DEEDS[name].options(id=f"{name}-{n}", engine=engine).start(n)
        world.note("started", run.id)
        if name == "post" and chance.random() < 0.5:
            await _send(world, run, 1)


async def _send(world: World, run: Any, n: int) -> None:
    await run.signal(Letter(n=n), dedupe=str(n))
    world.note("sent", run.id, n)


def _set_up_payments(tx: Tx) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS payments (no INTEGER PRIMARY KEY, data BLOB)")


async def _pay(engine: TracedEngine, world: World, chance: Random, many: int) -> None:
    """Rows of the application in one commit; some need pages of their own."""
    for no in range(_first(world), _first(world) + many):
        data = chance.randbytes(chance.choice((10, 500, _LARGEST_PAYMENT)))

        def pay(tx: Tx, no: int = no, data: bytes = data) -> None:
            tx.execute("INSERT INTO payments (no, data) VALUES (?, ?)", (no, data))

        await engine.transact(pay)
        world.note("paid", no, digest(data))


async def finish(engine: TracedEngine, world: World) -> None:
    """See all runs to their end."""
    while True:
        left = [info.id async for info in engine.runs(state=_UNFINISHED)]
        if not left:
            return
        async for info in engine.runs(workflow=POST, state=_UNFINISHED):
            for n in range(1, LETTERS + 1):
                await _send(world, engine.run(info.id), n)
        for run_id in left:
            world.note("result", run_id, json.dumps(await engine.run(run_id).result()))
