"""The life of one process of a fleet. What it imports, it has before it is born: it is forked from a process that has it."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from random import Random
from typing import Any, Literal
from unittest.mock import patch

from durable_sqlite import Engine, EngineClosed, RunError, State, _session, _sqlite, _worker
from durable_sqlite._session import Session
from durable_sqlite._sqlite import driving
from durable_sqlite._sqlite.vigil import Vigil

from .deeds import DEEDS, LETTERS, POST, WORKFLOWS, Letter, set_up
from .mutants import MUTANTS
from .trace import LOG, TracedEngine, traced_release, traced_renewal

__all__ = ["OPENS", "Life", "live"]

OPENS = (_session, _sqlite, _worker)
"""What opening an engine imports, so that a child that is forked from here has it."""

_UNFINISHED = (State.PENDING, State.RUNNING, State.SUSPENDED)
_ERRAND = 1_000_000  # runs that one process may start


@dataclass(frozen=True, slots=True)
class Life:
    """How a process lives."""

    journal: str
    log: str
    number: int
    """Which one of its fleet it is."""
    role: Literal["worker", "client", "finisher"] = "worker"
    deeds: tuple[str, ...] = tuple(DEEDS)
    """What it starts."""
    most: int = 24
    """How many runs there may be under way for it to start another."""
    point: int = 0
    """It kills itself at the n-th failpoint; never by 0."""
    lease: float = 15.0
    dwell: float = 0.0
    """How long steps take at the most."""
    look_every: float = 0.25
    """How often it looks for neighbours that have died."""
    synchronous: tuple[Literal["full", "normal"], ...] = ("full", "normal", "normal")
    """One of these is its own: where nobody waits for the disk, there is more to kill."""
    mutant: str | None = None

    @property
    def chance(self) -> Random:
        """Its own."""
        return Random(self.number)


def live(life: Life, tell: Connection) -> None:
    """Drive runs, start some and send messages, until killed or told by SIGTERM; a finisher leaves when all is done."""
    tell.send_bytes(b"awake")
    LOG.open(life.log, life.dwell, life.number)
    LOG.note("born", life.role, life.number)
    logging.getLogger("durable_sqlite").addHandler(_Complaints())
    logging.getLogger("durable_sqlite").propagate = False
    with ExitStack() as changes:
        if life.mutant is not None:
            changes.enter_context(MUTANTS[life.mutant].broken())
        changes.enter_context(patch.object(_session, "LOOK_EVERY", life.look_every))
        changes.enter_context(patch.object(Session, "lapsed", _lapsed))
        changes.enter_context(patch.object(driving, "release", traced_release))
        changes.enter_context(patch.object(Vigil, "_renew", traced_renewal))
        asyncio.run(_live(life, tell))


class _Complaints(logging.Handler):
    """What the engine says of errors is for whoever judges."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            error = record.exc_info[1] if record.exc_info else None
            LOG.note("complaint", f"{record.getMessage()} {error!r}"[:500])


_lapse = Session.lapsed


def _lapsed(session: Session, why: str) -> None:
    LOG.note("lost", why)
    _lapse(session, why)


def _suicide(point: int) -> Callable[[str], None]:
    passed = itertools.count(1)

    def failpoint(_name: str) -> None:
        if next(passed) == point:
            LOG.note("killing", os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)

    return failpoint


async def _live(life: Life, tell: Connection) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    loop.set_exception_handler(
        lambda _, context: LOG.note("complaint", f"{context.get('message')} {context.get('exception')!r}"[:500])
    )
    chance = life.chance
    engine = TracedEngine(
        life.journal,
        workflows=WORKFLOWS,
        drive=life.role != "client",
        synchronous=chance.choice(life.synchronous),
        unload_after=chance.choice((0, 0.02, 5)),
        lease=life.lease,
        # Kills come early on purpose, with nothing done in between: no run is to be parked for that.
        max_recoveries=1_000_000,
    )
    if life.point:
        engine._failpoint = _suicide(life.point)
    async with engine:
        LOG.note("open")
        tell.send_bytes(b"open")
        tell.close()
        await engine.transact(set_up)
        works: list[Any] = []
        if life.role == "finisher":
            works = [_finish(engine, told), _post_letters(engine)]
        elif life.role == "client":
            works = [_start_runs(engine, life, chance), _post_letters(engine)]
        else:
            works = [_start_runs(engine, life, chance)]
        tasks = [loop.create_task(_watched(work)) for work in works]
        await asyncio.sleep(0)  # else they could not be cancelled
        await told.wait()
        LOG.note("closing")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    LOG.note("closed")


async def _watched(work: Any) -> None:
    try:
        await work
    except Exception as error:  # whatever it is: nobody may see an error here
        LOG.note("complaint", f"{type(error).__name__} {error}"[:500])


async def _start_runs(engine: Engine, life: Life, chance: Random) -> None:
    """Start one run after another, as long as there are not too many; a client waits for what they come to."""
    waiting: set[asyncio.Task[None]] = set()
    for number in itertools.count():
        while await engine.count(state=_UNFINISHED) >= life.most:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)
        n = life.number * _ERRAND + number
        name = chance.choice(life.deeds)
        run = await DEEDS[name].options(id=f"{name}-{n}").start(n)
        LOG.note("started", run.id)
        if life.role == "client":
            waiting.add(asyncio.create_task(_watched(_await_result(run))))
        await asyncio.sleep(chance.uniform(0, 0.01))


async def _await_result(run: Any) -> None:
    try:
        LOG.note("result", run.id, json.dumps(await run.result()))
    except RunError as error:
        LOG.note("result", run.id, type(error).__name__)
    except EngineClosed:
        pass  # it was told to end before


async def _post_letters(engine: Engine) -> None:
    """Send to each run of `post` its letters, one after the other; those that somebody sent before are sent again."""
    sent: set[str] = set()
    while True:
        async for info in engine.runs(workflow=POST, state=_UNFINISHED):
            if info.id in sent:
                continue
            sent.add(info.id)
            for n in range(1, LETTERS + 1):
                await engine.run(info.id).signal(Letter(n=n), dedupe=str(n))
                LOG.note("sent", info.id, n)
        await asyncio.sleep(0.005)


async def _finish(engine: Engine, told: asyncio.Event) -> None:
    while await engine.count(state=_UNFINISHED):  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.005)
    told.set()
