"""The engine of a test: a process that lives on a store until the test kills it."""
# A crash takes down what no door leads to, and a test looks where nobody else does.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import itertools
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from .._context import NOWHERE, StepInfo, scope
from .._exact import ExactAttempt
from .._ids import derived
from .._run import Pass
from .._session import Plan
from .._specs import StepSpec, WorkflowSpec
from .._tables import Work
from ..engine import Engine
from ..journal import Journal
from ._clock import StandingClock
from ._faults import Effects, Faults, Line, user_line
from ._store import KitJournal, Store

__all__ = ["Process", "World"]

_A_WHILE = 0.5
"""Seconds of the machine's time for which a plain function is waited for before others go on beside it."""

_THROWS = 10
"""How often what still runs is told that the process has died."""

_TURNS = 5
"""Turns of the loop that it is given each time."""


@dataclass(slots=True)
class World:
    """All that a crash leaves as it is."""

    clock: StandingClock
    store: Store
    faults: Faults
    effects: Effects
    seed: int
    options: dict[str, Any]
    ids: Iterator[int] = field(default_factory=itertools.count)
    workers: Iterator[int] = field(default_factory=itertools.count)
    lines: dict[tuple[str, str], Line] = field(default_factory=dict[tuple[str, str], Line])
    """The user's lines that made the durable calls, by run and key."""
    known: dict[str, WorkflowSpec] = field(default_factory=dict[str, WorkflowSpec])
    """The workflows that a process has known, by name: the next one does not find those that a test has defined in itself."""
    diverged: dict[str, Line] = field(default_factory=dict[str, Line])
    """The user's line at which a run diverged from its journal."""

    def new_id(self, at: int) -> str:
        """An id that is the same in each repetition of a test."""
        del at
        return derived("durable_sqlite.testing", str(self.seed), str(next(self.ids)))


class Process(Engine):
    """The engine, as one process of a test has it."""

    def __init__(self, world: World) -> None:
        super().__init__(":memory:", clock=world.clock, slow_loop=None, synchronous="normal", **world.options)
        self._world = world
        self._chance = Random(world.seed)  # noqa: S311 - so that a test repeats itself
        self._workflows = (*world.known.values(), *self._workflows)
        self._front.ids = world.new_id
        self._failpoint = self._at
        self._in_transactions: set[Callable[..., Any]] = set()
        self._threads: list[threading.Thread] = []
        self._kit: KitJournal

    def _make_journal(self) -> Journal:
        self._sqlite = self._kit = KitJournal(
            self._world.store,
            ready=self._ready,
            vault=self._vault,
            max_recoveries=self._max_recoveries,
            transaction=self._transaction,
            failpoint=self._failpoint,
            **self._journal_options,
        )
        return self._kit

    def _plan(self) -> Plan:
        return replace(super()._plan(), new_name=lambda: f"process-{next(self._world.workers)}")

    def _ready(self) -> None:
        """Put the test's eyes and hands to the parts, before they do anything."""
        assert self._session is not None
        around = self._session.worker._around
        run, load, submit = around.runner._run, self._session.worker._load, self._session._threads.submit

        async def running(spec: StepSpec, info: StepInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            faults = self._world.faults
            faults.around(spec, info, after=False)
            try:
                fake = faults.function(spec, info, args, kwargs)
                if fake is not None:
                    given = fake(*args, **kwargs)
                    return await given if asyncio.iscoroutine(given) else given
                return await run(spec, info, args, kwargs)
            finally:
                faults.around(spec, info, after=True)

        def loading(one: Pass) -> None:
            self._listen(one)
            load(one)

        def submitting(function: Callable[..., Any], *args: Any) -> concurrent.futures.Future[Any]:
            before = set(threading.enumerate())
            job = submit(function, *args)
            self._threads += [each for each in threading.enumerate() if each not in before]
            concurrent.futures.wait([job], timeout=_A_WHILE)  # so that the order of what ends is always the same
            return job

        parts: Any = (around.runner, self._session.worker, self._session._threads)
        parts[0]._run, parts[1]._load, parts[2].submit = running, loading, submitting

    def _listen(self, one: Pass) -> None:
        """Note which lines of the body make which calls."""
        desk: Any = one._desk
        lines, diverged, run_id = self._world.lines, self._world.diverged, one.row.id
        fix_key, diverge = desk._key, desk.diverge

        def fixing(name: str, explicit: str | None) -> str:
            key: str = fix_key(name, explicit)
            lines[run_id, key] = user_line()
            return key

        def diverging(problem: Any) -> None:
            diverged.setdefault(run_id, user_line())
            diverge(problem)

        desk._key, desk.diverge = fixing, diverging

    def _transaction(self, work: Work[Any]) -> Work[Any]:
        """Put the test's hands to a transaction."""
        attempt = work.body
        assert isinstance(attempt, ExactAttempt)
        call, info = attempt._call, attempt._info

        def called(tx: Any, *args: Any, **kwargs: Any) -> Any:
            self._in_transactions.add(call.spec.plain)
            fake = self._world.faults.function(call.spec, info, (tx, *args), kwargs)
            return (fake or call.spec.fn)(tx, *args, **kwargs)

        attempt._call = replace(call, spec=replace(call.spec, fn=called))
        return work

    def _at(self, place: str) -> None:
        written = self._kit.written
        if place in ("commit.before", "commit.after") and written:  # else somebody only looks
            self._world.faults.at_write(written, after=place == "commit.after", steps=self._in_transactions)
        if place == "commit.after":
            written.clear()
            self._in_transactions.clear()

    # What a test wants to know ---------------------------------------------------------------------------------------

    @property
    def jobs(self) -> list[concurrent.futures.Future[Any]]:
        """What threads and executors are at work on."""
        return [] if self._session is None else list(self._session.worker._around.runner._jobs)

    @property
    def in_flight(self) -> int:
        """How many steps are in flight."""
        return 0 if self._session is None else self._session.worker.census().steps

    # The end ---------------------------------------------------------------------------------------------------------

    async def leave(self) -> None:
        """End in good order."""
        self._remember()
        await self.close()

    def die(self, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        """End as after a kill: nothing that was not committed is left, and whatever clean-up code does goes nowhere."""
        with self._unseen():
            context.run(self._kill, loop)
            burying = loop.create_task(self._bury(), context=context)
            while not burying.done():  # turn by turn: the loop may hold a call to stop that came too late
                loop.call_soon(loop.stop)
                loop.run_forever()
            burying.result()
            self.end_threads()

    def _kill(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let nothing go on: what is ready to run on the loop finds itself cancelled."""
        jobs = self.jobs
        self._kit.die()
        self._world.store.lose()
        self._world.clock.forget()
        scope.set(NOWHERE)
        asyncio._set_running_loop(loop)
        try:
            self._let_go()
            self._remember()
            assert self._session is not None
            self._session._closed = True
            self._session._retention.stop()
            self._session.worker.abandon()
            self._session._threads.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
        finally:
            asyncio._set_running_loop(None)
        concurrent.futures.wait(jobs, timeout=_A_WHILE)

    async def _bury(self) -> None:
        me = asyncio.current_task()
        await asyncio.sleep(0)
        for _ in range(_THROWS):
            left = [task for task in asyncio.all_tasks() if task is not me]
            for task in left:
                task.cancel()
            for _ in range(_TURNS if left else 0):
                await asyncio.sleep(0)
        for task in asyncio.all_tasks():
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it was told often enough

    def end_threads(self) -> None:
        """Wait for the end of the threads of plain steps, as long as they can be expected to end."""
        for thread in self._threads:
            thread.join(_A_WHILE)

    def _remember(self) -> None:
        assert self._session is not None
        self._world.known |= self._session.worker._workflows

    @contextmanager
    def _unseen(self) -> Generator[None]:
        self._world.effects.muted = True
        try:
            yield
        finally:
            self._world.effects.muted = False
