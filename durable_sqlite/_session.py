"""What is open while an engine is open: journal, worker, threads, the lock that says that it lives."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ._attempt import Runner
from ._clock import Clock
from ._codec import Vault, describe, dump_error
from ._context import Host
from ._drain import Drain
from ._fork import at_fork, detach, pin
from ._liveness import Lifeline, is_dead, side_file, sweep
from ._records import State
from ._specs import WorkflowSpec
from ._surroundings import Surroundings
from ._threads import StepThreads
from ._worker import Worker, WorkerOptions
from .errors import DurableError, JournalError, UsageError, WrongLoop
from .journal import Journal
from .retry import Retry

__all__ = ["Plan", "Session"]

logger = logging.getLogger("durable_sqlite")

_LISTEN = 0.05  # seconds between two looks whether another process has written


@dataclass(frozen=True, slots=True)
class Plan:
    """How a session is to be: what an engine was asked for, and the seams."""

    host: Host
    journal: Callable[[], Journal]
    path: Path | None
    """Where the journal is; None where it is in memory only, and nobody else can see it."""
    drives: bool
    workflows: tuple[WorkflowSpec, ...]
    """What is known from the start."""
    worker: WorkerOptions
    vault: Vault
    clock: Clock
    max_recoveries: int
    max_entries: int
    retry: Retry
    chance: Random
    step_threads: int
    step_exists: Callable[[str], bool]
    find: Callable[[str, str], WorkflowSpec | None]
    """Finds a workflow by name and origin among the modules that are imported."""
    changed: Callable[[str | None], None]
    """Is told the id of each run that has changed, as far as that is known here; None where another process has written."""
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
        self.worker = Worker(around, plan.worker, plan.changed, plan.new_letter)
        self.drain = Drain(self.worker, plan.clock, self.loop)
        """How this engine stops driving runs."""
        self._lifeline: Lifeline | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._closed = False
        at_fork(child=self._forget)

    def _forget(self) -> None:
        """In a forked child: nothing here is its own, and nothing of it may run there, or be put away."""
        if self.inherited and not self._closed:
            self._closed = True
            self.worker.forget()
            pin(self)
            detach(self.loop)

    async def open(self, name: str) -> None:
        """Open the journal and enrol as the worker `name`; with `drives`, take over what dead workers left."""
        if self._plan.path is not None:
            if not self._plan.path.parent.is_dir():
                raise UsageError(f"the folder of the journal {self._plan.path} does not exist: make it first")
            # Before the worker can be seen in the journal, or it would be taken for dead.
            self._lifeline = Lifeline(side_file(self._plan.path, name))
        try:
            await self.journal.open(name, self._plan.clock.now())
        except BaseException:
            if self._lifeline is not None:
                self._lifeline.release()
            raise
        self._supervisor = self.loop.create_task(self._supervise(), name="durable_sqlite engine")
        if self._plan.path is not None:
            await self.worker.attend()
            self._listener = self.loop.create_task(self._listen(), name="durable_sqlite listener")
        if self._plan.drives:
            await self._bury_the_dead()
            for workflow in self._plan.workflows:
                self.know(workflow)
            await self._know_what_waits()
            self.worker.look()

    async def close(self) -> None:
        """Unload bodies, cancel steps in flight, commit, give runs back."""
        self._closed = True
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait((self._listener,))
        await self.worker.close()
        self.drain.over.set()
        await self.journal.close(self._plan.clock.now())
        self._threads.close()
        if self._lifeline is not None:
            self._lifeline.release()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,))

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

    async def _bury_the_dead(self) -> None:
        """Free what dead workers of this host left."""
        path = self._plan.path
        if path is None:
            return
        dead = [other for other in await self.journal.workers() if is_dead(side_file(path, other.name))]
        if not dead:
            return
        limit = self._plan.max_recoveries
        why = (
            f"{limit} processes in a row died while they drove this run, without one new outcome. Find what kills the "
            "process, then call `resume` on the run."
        )
        error = self._plan.vault.seal_error(dump_error(describe(DurableError(why)), 1), "crash_loop")
        for row in await self.journal.take_over([other.no for other in dead], limit, error, self._plan.clock.now()):
            if row.state is State.PARKED:
                logger.error("run %s is parked: %s", row.id, why)
                self._plan.changed(row.id)
                self._plan.new_letter(row.id)
        for other in dead:
            sweep(side_file(path, other.name))

    async def _know_what_waits(self) -> None:
        """Find the code of the runs that wait, and say which runs must go on waiting for want of it."""
        for name, origin, number in await self.journal.backlog():
            if not self.recognise(name, origin):
                logger.warning(
                    "%d run(s) of workflow %s (defined in %s) wait: this process does not know it. Import its module before "
                    "opening the engine, or give Engine(workflows=[...]).",
                    number,
                    name,
                    origin,
                )

    async def _listen(self) -> None:
        """Hear of what other processes write, within a moment of their commit."""
        seen = await self.journal.pulse()
        while True:
            await asyncio.sleep(_LISTEN)
            pulse = await self.journal.pulse()
            if pulse != seen:
                seen = pulse
                await self._hear()

    async def _hear(self) -> None:
        try:
            if self._plan.drives:
                await self.worker.hear_news()
        except JournalError as error:
            logger.warning("what another process has written cannot be looked at now: %s", error)
        self._plan.changed(None)

    async def _supervise(self) -> None:
        """Let go in order when the program ends without closing the engine, as `asyncio.run` then cancels every task."""
        try:
            await self.loop.create_future()
        finally:
            if not self._closed:
                self._closed = True
                self._plan.let_go()
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
