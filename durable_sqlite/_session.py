"""What is open while an engine is open: journal, worker, threads, the lock that says that it lives."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from weakref import ref

from ._attempt import Runner
from ._clock import Clock
from ._codec import Vault, describe, dump_error
from ._context import Host
from ._drain import Drain
from ._fork import at_fork, detach, pin
from ._liveness import Lifeline, side_file, this_start
from ._neighbours import LOOK_EVERY, Neighbours, Surveillance
from ._records import Pulse, RunRow, State
from ._retention import Retention
from ._specs import WorkflowSpec
from ._surroundings import Surroundings
from ._threads import StepThreads
from ._watchdog import Watchdog
from ._worker import Worker, WorkerOptions
from .errors import DurableError, JournalError, LeaseLost, UsageError, WrongLoop
from .journal import Journal, Lease
from .retry import Retry

__all__ = ["Plan", "Session"]

logger = logging.getLogger("durable_sqlite")

_LISTEN_OFTEN = 0.015  # seconds between two looks whether another process has written, while others do
_LISTEN_SELDOM = 0.06  # seconds, while they do not
_LISTEN_IN_ANY_CASE = 0.5  # seconds after which it is looked what was written, whoever seems to have written
_CALMER = 1.5  # by which the pauses grow
_CRASH_LOOP = (
    "%d processes in a row died while they drove this run, without one new outcome. Find what kills the process, then call "
    "`resume` on the run."
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a session is to be: what an engine was asked for, and the seams."""

    host: Host
    journal: Callable[[], Journal]
    path: Path | None
    """Where the journal is; None where it is in memory only, and nobody else can see it."""
    network: bool
    """It may be on a file system that other machines share."""
    drives: bool
    workflows: tuple[WorkflowSpec, ...]
    """What is known from the start."""
    worker: WorkerOptions
    vault: Vault
    clock: Clock
    lease: int
    """Microseconds for which this worker may be silent before others take its runs."""
    new_name: Callable[[], str]
    """A name that no worker had yet."""
    max_recoveries: int
    max_entries: int
    retry: Retry
    retention: int | None
    """For how many microseconds ended runs are kept; None: for ever."""
    slow_loop: float | None
    """After how many seconds it is said that the event loop is blocked, and by what; None: never."""
    chance: Random
    step_threads: int
    step_exists: Callable[[str], bool]
    find: Callable[[str, str], WorkflowSpec | None]
    """Finds a workflow by name and origin among the modules that are imported."""
    changed: Callable[[str | None], None]
    """Is told the id of each run that has changed, as far as that is known here; None where another process has written."""
    completed: Callable[[RunRow], None]
    """Is given each run that has completed here."""
    new_letter: Callable[[str], None]
    """Is told the id of each run that has failed or was parked here."""
    let_go: Callable[[], None]
    """Is told that the program ends without closing the engine."""
    failpoint: Callable[[str], None]


class Session:
    """One opening of a journal, on one event loop of one process."""

    def __init__(self, plan: Plan) -> None:
        self.loop = asyncio.get_running_loop()
        self.journal = plan.journal()
        self.name = ""
        """Under which it is enrolled as a worker."""
        self._plan = plan
        self._pid = os.getpid()
        self._threads = StepThreads(plan.step_threads)
        around = Surroundings(
            host=plan.host,
            journal=self.journal,
            loop=self.loop,
            clock=plan.clock,
            vault=plan.vault,
            runner=Runner(plan.vault, self._threads),
            max_entries=plan.max_entries,
            retry=plan.retry,
            chance=plan.chance,
            step_exists=plan.step_exists,
            failpoint=plan.failpoint,
        )
        self.worker = Worker(around, plan.worker, plan.changed, plan.completed, plan.new_letter)
        self._neighbours = None if plan.path is None or not plan.drives else self._neighbours_at(plan.path)
        self._retention = Retention(self.journal, self.loop, plan.clock, plan.retention)
        self.watchdog = Watchdog(plan.host.title, self.loop, plan.clock, plan.slow_loop, self.worker.pumped)
        self.drain = Drain(self.worker, plan.clock, self.loop)
        """How this engine stops driving runs."""
        self._lifeline: Lifeline | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._guard: asyncio.Task[None] | None = None
        self._rejoining: asyncio.Task[None] | None = None
        self._unknown: set[str] = set()
        """The workflows whose runs are left to others, and of which that was said."""
        self._closed = False
        self._left: list[asyncio.Task[Any]] = []
        """Steps that were in flight when the journal broke."""
        at_fork(child=self._forget)

    def _forget(self) -> None:
        """In a forked child: nothing here is its own, and nothing of it may run there, or be put away."""
        if self.inherited and not self._closed:
            self._closed = True
            self.worker.forget()
            pin(self)
            detach(self.loop)

    async def open(self) -> None:
        """Open the journal and enrol as a worker; with `drives`, take over what dead workers left."""
        name, lease = self._plan.new_name(), None
        self.name = name
        if self._plan.path is not None:
            if not self._plan.path.parent.is_dir():
                raise UsageError(f"the folder of the journal {self._plan.path} does not exist: make it first")
            # Before the worker can be seen in the journal, or it would be taken for dead.
            self._lifeline = Lifeline(side_file(self._plan.path, name))
        try:
            if self._plan.drives:
                lease = self._lease()
            await self.journal.open(name, self._plan.clock.now(), lease)
        except BaseException:
            if self._lifeline is not None:
                self._lifeline.release()
            raise
        self._supervisor = self.loop.create_task(self._supervise(), name="durable_sqlite engine")
        self.watchdog.start()
        if self._plan.path is not None:
            await self.worker.attend()
            listening = self._listen(await self.journal.pulse())
            self._listener = self.loop.create_task(listening, name="durable_sqlite listener")
        if self._plan.drives:
            if self._neighbours is not None:
                with suppress(LeaseLost):  # it was struck off in this very moment, and begins anew
                    self._taken_over(await self._neighbours.look())
                self._guard = self.loop.create_task(self._watch_over(self._neighbours), name="durable_sqlite guard")
            for workflow in self._plan.workflows:
                self.know(workflow)
            await self._know_what_waits()
            self.worker.look()
            self._retention.start()

    async def close(self) -> None:
        """Unload bodies, cancel steps in flight, commit, give runs back."""
        self._closed = True
        self._retention.stop()
        self.watchdog.stop()
        for task in (watching := self._watching()):
            task.cancel()
        if watching:
            await asyncio.wait(watching)
        await self.worker.close(self._left)
        self.drain.over.set()
        await self.journal.close(self._plan.clock.now())
        self._threads.close()
        if self._lifeline is not None:
            self._lifeline.release()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,))

    def _watching(self) -> list[asyncio.Task[None]]:
        return [task for task in (self._listener, self._guard, self._rejoining) if task is not None]

    def break_off(self) -> None:
        """The journal cannot be written any more: unload every body and cancel every step; nothing of that is an outcome."""
        for task in self._watching():
            task.cancel()
        self._left = self.worker.abandon()

    def check(self, title: str) -> None:
        """Refuse to be used in a forked child or on another loop.

        Raises:
            WrongLoop: It is.
        """
        self.check_process(title)
        if asyncio.get_running_loop() is not self.loop:
            raise WrongLoop(f"{title} belongs to another event loop: use it there, or open another engine on this loop")

    @property
    def inherited(self) -> bool:
        """Whether this is a child of the process that opened it."""
        return os.getpid() != self._pid

    def check_process(self, title: str) -> None:
        """Refuse to be used in a forked child, whatever the thread.

        Raises:
            WrongLoop: It is.
        """
        if self.inherited:
            raise WrongLoop(
                f"{title} was opened in process {self._pid} and is used in {os.getpid()}, which was forked from it: open an "
                "engine of its own in each process, after the fork"
            )

    def know(self, workflow: WorkflowSpec) -> None:
        """Let runs of this workflow be driven here."""
        if self._plan.drives:
            self.worker.know(workflow)

    def recognise(self, name: str, origin: str) -> bool:
        """Whether runs of this workflow can be driven here, looking it up among the imported modules if need be."""
        if self.worker.knows(name) is None and (found := self._plan.find(name, origin)) is not None:
            self.know(found)
        return self.worker.knows(name) is not None

    def _lease(self) -> Lease:
        myself = ref(self)  # the thread that keeps the lease must not keep what the lease is for

        def lapsed(why: str) -> None:
            if (me := myself()) is not None:
                me.lapsed(why)

        def ticked() -> int | None:
            me = myself()
            return None if me is None else me.watchdog.last_tick

        return Lease(self._plan.lease, this_start(), self._plan.clock.now, ticked, lapsed)

    # The other workers -----------------------------------------------------------------------------------------------

    def _neighbours_at(self, path: Path) -> Neighbours:
        plan = self._plan
        why = DurableError(_CRASH_LOOP % plan.max_recoveries)
        return Neighbours(
            self.journal,
            Surveillance(
                path=path,
                now=self.loop.time,
                sleep=asyncio.sleep,
                at=plan.clock.now,
                max_recoveries=plan.max_recoveries,
                parked_result=plan.vault.seal_error(dump_error(describe(why), 1), "crash_loop"),
                local=not plan.network,
                here=this_start(),
            ),
        )

    async def _watch_over(self, neighbours: Neighbours) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                self._taken_over(await neighbours.look())
            except JournalError as error:
                logger.warning("the other workers cannot be looked at now: %s", error)

    def _taken_over(self, rows: Sequence[RunRow]) -> None:
        for row in rows:
            self._plan.changed(row.id)
            if row.state is State.PARKED:
                logger.error("run %s is parked: %s", row.id, _CRASH_LOOP % self._plan.max_recoveries)
                self._plan.new_letter(row.id)
        if rows:
            self.worker.look()

    def lapsed(self, why: str) -> None:
        """This worker was given up, or may be at any moment: whatever it holds is not its own any more."""
        if self._rejoining is None and not self._closed:
            self._rejoining = self.loop.create_task(self._rejoin(why), name="durable_sqlite rejoin")
            self._rejoining.add_done_callback(self._rejoined)

    async def _rejoin(self, why: str) -> None:
        logger.warning("this worker lost its lease: %s. It drops the bodies of all runs and begins anew", why)
        await self.worker.step_back()
        before, name = self._lifeline, self._plan.new_name()
        self.name = name
        if self._plan.path is not None:
            self._lifeline = Lifeline(side_file(self._plan.path, name))
        try:
            await self.journal.rejoin(name, self._plan.clock.now())
        finally:
            if before is not None:
                before.release()
        self.worker.come_back()
        self._plan.changed(None)

    def _rejoined(self, task: asyncio.Task[None]) -> None:
        self._rejoining = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("this worker could not begin anew, and drives nothing any more", exc_info=error)

    # What is known, and what is heard --------------------------------------------------------------------------------

    async def _know_what_waits(self) -> None:
        """Find the code of the runs that wait, and say which runs must go on waiting for want of it."""
        for name, origin, number in await self.journal.backlog():
            if not self.recognise(name, origin):
                self._leave(name, origin, f"{number} run(s)")

    async def _know_what_has_come(self) -> None:
        """The same for what other processes have started since."""
        for name, origin in await self.journal.strangers([*self.worker.known(), *self._unknown]):
            if not self.recognise(name, origin):
                self._leave(name, origin, "runs")

    def _leave(self, name: str, origin: str, runs: str) -> None:
        self._unknown.add(name)
        if self._plan.worker.only is not None:
            return  # all but a few are left to others, on purpose
        logger.warning(
            "%s of workflow %s (defined in %s) wait: this process does not know it. Import its module before opening the "
            "engine, or give Engine(workflows=[...]).",
            runs,
            name,
            origin,
        )

    async def _listen(self, seen: Pulse) -> None:
        """Hear of what other processes write after the pulse `seen`, within a moment of their commit."""
        said, pause, heard_at = False, _LISTEN_SELDOM, self.loop.time()
        last, asked_at, unheard = seen, heard_at, False
        while True:
            # Not all at the same time: processes that are started together would look together.
            await asyncio.sleep(pause * (0.75 + self._plan.chance.random() / 2))
            pause = min(pause * _CALMER, _LISTEN_SELDOM)
            now = self.loop.time()
            try:
                if not unheard and now - asked_at < _LISTEN_IN_ANY_CASE and self.journal.seems_still(last):
                    continue
                last = pulse = await self.journal.pulse()
                asked_at, unheard = now, pulse != seen
                # Else it was this process that has written; or, seldom, somebody whose commits nobody counts.
                soon = pulse.others != seen.others or self.loop.time() - heard_at >= _LISTEN_IN_ANY_CASE
                if not (unheard and soon):
                    continue
                if await self._hear():
                    pause = _LISTEN_OFTEN
            except JournalError as error:
                # What was not heard now is heard at a later look: `seen` stays.
                if not said:
                    said = True
                    logger.warning(
                        "what other processes write cannot be looked at now, and is tried again until it can: %s", error
                    )
            else:
                seen, said, heard_at, unheard = pulse, False, self.loop.time(), False

    async def _hear(self) -> bool:
        """Whether what was written concerns this worker."""
        concerns = False
        if self._neighbours is not None:
            self._neighbours.heard()
        if self._plan.drives:
            await self._know_what_has_come()
            concerns = await self.worker.hear_news()
        self._plan.changed(None)
        return concerns

    async def _supervise(self) -> None:
        """Let go in order when the program ends without closing the engine, as `asyncio.run` then cancels every task."""
        try:
            await self.loop.create_future()
        finally:
            if not self._closed:
                self._closed = True
                self._plan.let_go()
                self._retention.stop()
                self.watchdog.stop()
                for run in self.worker.held():
                    given_back = self.journal.give_back(run.hold, self._plan.clock.now())
                    given_back.add_done_callback(_whatever_came_of_it)
                self.worker.abandon()
                self.drain.over.set()
                self.journal.stop()
                self._threads.close()
                if self._lifeline is not None:
                    self._lifeline.release()  # what the thread still commits is kept in order by the fence


def _whatever_came_of_it(write: asyncio.Future[None]) -> None:
    """Take a refusal as read: the run had ended or was given up in the meantime."""
    write.exception()
