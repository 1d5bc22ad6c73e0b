"""Plays a case: one process after the other on one disk, in virtual time, with the real engine in each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack, contextmanager, suppress
from random import Random
from typing import Any, Self
from unittest.mock import patch

from durable_sqlite import Engine, Retry, Run, UnknownRun, WrongState, _run
from durable_sqlite._call import Call
from durable_sqlite._context import Body, StepInfo
from durable_sqlite._desk import Desk
from durable_sqlite._flight import Flight, _Attempt
from durable_sqlite._giver import Giver
from durable_sqlite._ids import derived
from durable_sqlite._records import End, Ended, Entry, Memory
from durable_sqlite._run import Pass
from durable_sqlite._specs import StepCall
from durable_sqlite._worker import Worker
from durable_sqlite.journal import Journal, Lease
from tests.support.memory_journal import Disk, MemoryJournal
from tests.support.sim_loop import Crash, SimClock, SimLoop, Stuck

from .acts import Stage
from .cases import Case, Life
from .checks import Ledger, Problem
from .programs import Node
from .replays import check_replay

__all__ = ["Theatre", "World"]

_HORIZON = 3_000.0  # seconds after which a run that nobody disturbs must have ended
_TWICE = Retry.fixed(0.7, max_attempts=2)
_DURATIONS = (0.0, 0.01, 0.3, 1.0, 1.0, 2.0, 4.0)


class _Process(MemoryJournal):
    """The journal of one process, which first frees what the processes before it left."""

    committed: Callable[[], None]

    async def open(self, name: str, at: int, lease: Lease | None = None) -> None:
        """Enrol, and bury the dead."""
        await super().open(name, at, lease)
        dead = [other.no for other in await self.workers()]
        if dead:
            await self.take_over(dead, 1_000, b"", at)

    def _commit(self) -> None:
        super()._commit()
        self.committed()

    def forget(self) -> None:
        """Lose what is not committed."""
        self.crashed = True
        self._timer = None
        self._queue.clear()

    @property
    def writes(self) -> tuple[int, int]:
        """Changes with every write that is asked."""
        return self.commits, len(self._queue)


class _SimEngine(Engine):
    """The engine, on a journal in memory."""

    def __init__(self, journal: Journal, clock: SimClock, case: Case, stage: Stage) -> None:
        super().__init__(
            ":memory:",
            workflows=[stage.workflow],
            unload_after=case.unload_after,
            max_resident=case.max_resident,
            step_threads=1,
            retry=_TWICE if case.retries else None,
            clock=clock,
            slow_loop=None,  # a thread would have a time of its own
        )
        self._sim_journal = journal

        def ids(at: int) -> str:
            return derived(str(case.seed), str(at))

        self._front.ids = ids
        self._chance = Random(f"{case.seed} jitter")

    def _make_journal(self) -> Journal:
        return self._sim_journal


class World:
    """One case while it is played: the scene of its programs, and the clients of its runs."""

    def __init__(self, case: Case, stage: Stage) -> None:
        self.case = case
        self.disk = Disk()
        self.checks = Ledger(self.disk, case.commit_delay or 0.0)
        self.ledger: list[int] = []
        self.passes = 0
        self._stage = stage
        self._durations = Random(f"{case.seed} durations")
        self._programs = {f"run-{number}": program for number, program in enumerate(case.programs)}
        self._started: set[str] = set()
        self._asked_to_cancel: set[str] = set()
        self._now = 0.0
        self._loop = SimLoop()
        self._loop.close()
        self._process = _Process(self.disk)
        self._alive = False
        self._engine: _SimEngine | None = None
        self._launched: dict[Call, StepInfo] = {}
        self._news = asyncio.Event()
        self._commits = asyncio.Event()

    # As programs and steps see it ------------------------------------------------------------------------------------

    def program(self, run: str) -> Node:
        """The program that this run plays."""
        return self._programs[run]

    def duration(self) -> float:
        """How long the next attempt takes."""
        return self._durations.choice(_DURATIONS)

    def began(self, info: StepInfo, args: tuple[Any, ...]) -> None:
        """An attempt's body begins."""
        self.checks.began(info, args, self._clock)

    def gone(self, info: StepInfo, args: tuple[Any, ...], *, performed: bool) -> None:
        """An attempt's body is over."""
        del args
        if self._alive:
            self.checks.gone(info, self._clock, performed=performed)

    def saw(self, body: Body, what: str) -> None:
        """A body has seen something."""
        self.checks.saw(body, what)

    # As the watched engine sees it -----------------------------------------------------------------------------------

    def given(self, desk: Desk, entry: Entry) -> None:
        """A body is about to be given an entry."""
        self.checks.given(desk.run_id, desk, entry, self._loop.time())

    def launched(self, call: Call, step: StepCall, info: StepInfo) -> None:
        """An attempt is about to begin."""
        self._launched[call] = info
        self.checks.attempts.launched((info.run_id, info.key), step.spec.timeout)
        self.checks.launched(info.run_id, info.key, self._loop.time())

    def given_up(self, call: Call) -> None:
        """A body no longer waits for a step."""
        info = self._launched.get(call)
        if self._alive and info is not None:
            self.checks.given_up(info.run_id, info.key, self._loop.time())

    def left_behind(self, info: StepInfo) -> None:
        """The engine goes on without an attempt that does not end."""
        if self._alive:
            self.checks.attempts.left_behind(info, self._clock)

    @contextmanager
    def unloading(self, run: Pass) -> Generator[None, None, None]:
        """A body is taken out of memory."""
        if self._alive:
            self.checks.attempts.unloaded(run.row.id, self._clock)
        before = (self._process.writes, self.checks.starts, self.checks.seen_by(run._desk))
        yield
        if before != (self._process.writes, self.checks.starts, self.checks.seen_by(run._desk)):
            self.checks.broken("unloading was an event: it wrote, began or showed something", run.row.id)
        self._news.set()

    def ended(self, run: Pass) -> None:
        """The keeper of a run hears that it has stopped."""
        self.checks.told(run.row.id, self._loop.time())

    @property
    def _clock(self) -> int:
        return SimClock(self._loop).now()

    # Processes -------------------------------------------------------------------------------------------------------

    def play(self) -> list[Problem]:
        """Play the case to its end; the promises that were broken."""
        self._stage.scene = self
        for life in (*self.case.lives, Life()):
            if self._live(life, self._lead(life)) or self.checks.problems:
                break
        self.checks.over()
        if not self.checks.problems:
            for row in self.disk.runs.values():
                entries = list(self.disk.kept[row.no].values())
                attempts = list(self.disk.failed.get(row.no, {}).values())
                memory = Memory(entries, self.disk.open_waits[row.no], attempts)
                for what in check_replay(row, memory, self._stage.workflow.spec, self._now):
                    self.checks.broken("a finished run does not repeat itself", what)
        return self.checks.problems

    def _live(self, life: Life, main: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """One process; whether it drove every run to its end."""
        shuffle = None if life.shuffle is None else Random(life.shuffle)
        loop = self._loop = SimLoop(self._now, shuffle)
        loop.set_exception_handler(self._unexpected)
        self._process = _Process(
            self.disk,
            delay=self.case.commit_delay,
            crash_at=life.crash_at_commit,
            crash_lands=life.crash_lands,
            on_crash=_die,
        )
        self._process.committed = self._committed
        if life.crash_after is not None:
            loop.call_later(life.crash_after, _die)
        self.ledger = []
        self._launched.clear()
        self._engine = None
        self._alive = True
        done = False
        with patch.object(_run, "_SLICE", life.slice):
            task = loop.create_task(main())
            try:
                loop.run_to_end(task)
                done = task.result()
            except Crash:
                pass
            except Stuck:
                self.checks.broken("nothing is scheduled and a run has not ended", self._states())
            self._alive = False
            self.checks.process_ended(self._clock)
            self._collapse(loop)
        self._now = loop.time() + life.downtime
        return done

    def _lead(self, life: Life) -> Callable[[], Coroutine[Any, Any, bool]]:
        """What the process does."""

        async def main() -> bool:
            engine = _SimEngine(self._process, SimClock(self._loop), self.case, self._stage)
            self._engine = engine
            self._news = asyncio.Event()
            self._commits = asyncio.Event()
            await engine.__aenter__()
            clients = [asyncio.create_task(self._client(engine, number)) for number in range(len(self._programs))]
            try:
                async with asyncio.timeout(_HORIZON if life.leave_after is None else life.leave_after):
                    await self._all_ended()
            except TimeoutError:
                if life.leave_after is None:
                    self.checks.broken("a run went on and on", self._states())
                elif not life.orderly:
                    await _cancel_all_tasks()
                    return False
            for client in clients:
                client.cancel()
            for error in await asyncio.gather(*clients, return_exceptions=True):
                if isinstance(error, Exception):
                    self.checks.broken("a client was refused", repr(error))
            await engine.close()
            return life.leave_after is None or self._have_all_ended()

        return main

    async def _client(self, engine: Engine, number: int) -> None:
        run_id = f"run-{number}"
        if run_id not in self._started:
            await self._until(self.case.starts[number])
            await self._stage.workflow.options(id=run_id, engine=engine).start(run_id)
            self._started.add(run_id)
        cancel_at, commit = self.case.cancels[number], self.case.cancels_at_commit[number]
        if (cancel_at is not None or commit is not None) and run_id not in self._asked_to_cancel:
            while commit is not None and self.disk.commits < commit:
                self._commits.clear()
                await self._commits.wait()
            await self._until(cancel_at or 0.0)
            await self._cancel(engine.run(run_id))
            self._asked_to_cancel.add(run_id)

    async def _cancel(self, run: Run[Any]) -> None:
        with suppress(WrongState, UnknownRun):
            await run.cancel(reason="no longer wanted", by="a client")
            self._news.set()
            self.checks.cancel_accepted(run.id, self._loop.time())

    def _committed(self) -> None:
        self._commits.set()

    async def _until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self._loop.time()))

    async def _all_ended(self) -> None:
        while not self._have_all_ended():
            self._news.clear()
            await self._news.wait()

    def _have_all_ended(self) -> bool:
        rows = self.disk.runs.values()
        return len(rows) == len(self._programs) and all(row.state.stopped for row in rows)

    def _states(self) -> list[tuple[str, str]]:
        return [(row.id, row.state.value) for row in self.disk.runs.values()]

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        if self._alive:
            self.checks.broken(
                "an error came out of the engine", f"{context.get('message')}: {context.get('exception')!r}"
            )

    def _collapse(self, loop: SimLoop) -> None:
        """Put away what a process left in memory. A kill runs nothing of it, so nothing of it may be noticed."""
        self._process.forget()
        asyncio._set_running_loop(loop)
        try:
            if self._engine is not None:
                self._engine._let_go()
                if self._engine._session is not None:
                    self._engine._session._closed = True
                    self._engine._session.worker.abandon()
            for task in asyncio.all_tasks(loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coro: Any = task.get_coro()
                with suppress(RuntimeError):  # it waits while it is closed
                    coro.close()
        finally:
            asyncio._set_running_loop(None)
        loop.close()


def _die() -> None:
    raise Crash


async def _cancel_all_tasks() -> None:
    """What `asyncio.run` does when the program ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Theatre:
    """Plays cases. While it is open, it lets the world of each see what every pass is given, gives up and unloads."""

    def __init__(self) -> None:
        self.stage = Stage()
        self._world: World | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        give, unload, ended = Giver._give, Pass.unload, Worker.ended
        start, give_up, leave_behind = Flight.start, Flight.give_up, Flight._leave_behind

        def watched_give(giver: Giver, entry: Entry) -> None:
            self._here.given(giver._desk, entry)
            give(giver, entry)

        def watched_unload(run: Pass) -> None:
            with self._here.unloading(run):
                unload(run)

        def watched_give_up(flight: Flight, call: Call) -> None:
            self._here.given_up(call)
            give_up(flight, call)

        def watched_start(flight: Flight, call: Call, step: StepCall, info: StepInfo, *args: Any, **how: Any) -> None:
            self._here.launched(call, step, info)
            start(flight, call, step, info, *args, **how)

        def watched_leave_behind(flight: Flight, attempt: _Attempt) -> None:
            leave_behind(flight, attempt)
            if flight._in_flight.get(attempt.call) is not attempt:
                self._here.left_behind(attempt.info)

        def watched_ended(worker: Worker, run: Pass, end: End, how: Ended) -> None:
            self._here.ended(run)
            ended(worker, run, end, how)

        self._open.enter_context(patch.object(Worker, "ended", watched_ended))
        self._open.enter_context(patch.object(Giver, "_give", watched_give))
        self._open.enter_context(patch.object(Pass, "unload", watched_unload))
        self._open.enter_context(patch.object(Flight, "give_up", watched_give_up))
        self._open.enter_context(patch.object(Flight, "start", watched_start))
        self._open.enter_context(patch.object(Flight, "_leave_behind", watched_leave_behind))
        self._open.enter_context(_quiet(logging.getLogger("durable_sqlite")))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def play(self, case: Case) -> World:
        """Play a case; its world, with the promises that were broken in `checks.problems`."""
        world = self._world = World(case, self.stage)
        world.play()
        return world

    @property
    def _here(self) -> World:
        assert self._world is not None
        return self._world


@contextmanager
def _quiet(logger: logging.Logger) -> Generator[None, None, None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
