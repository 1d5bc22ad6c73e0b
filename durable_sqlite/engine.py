"""The engine: puts journal, worker and definitions together, and is what an application opens."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import Token
from dataclasses import replace
from datetime import datetime, timedelta
from inspect import BoundArguments
from pathlib import Path
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from ._clock import Clock, SystemClock, microseconds
from ._codec import Codec, Vault, describe, dump_error
from ._context import NOWHERE, EngineScope, Scope, StartOptions, WorkflowSpec, not_in_body, scope
from ._definition import Workflow
from ._handle import DeadLetter, Run
from ._ids import Ids, check_name, new_id
from ._lookup import imported_workflow, query_of, shape_of, step_exists
from ._records import (
    CancelRequest,
    Claimed,
    HistoryEntry,
    NewRun,
    Reason,
    Resumption,
    RunInfo,
    RunQuery,
    RunRow,
    Settlement,
    Started,
    State,
    StateName,
)
from ._view import history_of, info_of, letter_of, plain
from .errors import AmbiguousStep, EngineClosed, UnknownRun, UsageError, WrongState
from .retry import Retry

if TYPE_CHECKING:
    from ._session import Plan, Session
    from .journal import Journal

__all__ = ["Engine"]

T = TypeVar("T")

logger = logging.getLogger("durable_sqlite")

_PAGE = 100  # runs read at once while listing
_LOOK_AGAIN = 0.25  # seconds between looks at a run that is not driven here


def _nothing(_: str) -> None:
    """The failpoint of an engine in use."""


class Engine:
    """An open journal, and the worker that drives its runs: `async with Engine("orders.db") as engine: ...`.

    Opening it creates or migrates the journal, takes over what a dead process left, and goes on with it. Leaving it unloads
    what is still under way; nothing of that is lost, and the next engine goes on.

    Args:
        path: The journal's file, or `:memory:` for one that ends with the engine.
        workflows: Workflows whose runs may be driven here; starting one makes it known as well, and so does having its
            module imported.
        retry: When a failed attempt is followed by another, for steps that do not say it themselves; else never.
        synchronous: `full` lets every acknowledged write survive power loss; `normal` is faster and may lose the last ones
            then, though never after a mere crash of the process.
        drive: Whether this engine drives runs; without it, it is a client that starts, asks and acts.
        max_resident: How many bodies may be in memory.
        unload_after: Seconds for which a suspended run's body stays in memory.
        max_recoveries: After how many deaths in a row without one new outcome a run is parked.
        payload_limit: The largest encoded value in bytes.
        max_entries: How many entries a run may have.
        step_threads: How many threads run synchronous steps.
        on_dead_letter: Is called with each run that fails or is parked here, after the commit; it may be asynchronous.
        codec: Turns encoded bytes into stored bytes, for compression or encryption.
        clock: The time; for tests.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        workflows: Collection[Workflow[..., Any]] | None = None,
        retry: Retry | None = None,
        synchronous: Literal["full", "normal"] = "full",
        drive: bool = True,
        max_resident: int = 10_000,
        unload_after: float | timedelta = 5.0,
        max_recoveries: int = 5,
        payload_limit: int = 1_048_576,
        max_entries: int = 100_000,
        step_threads: int = 32,
        on_dead_letter: Callable[[DeadLetter], Awaitable[None] | None] | None = None,
        codec: Codec | None = None,
        clock: Clock | None = None,
    ) -> None:
        for name, number in (
            ("max_resident", max_resident),
            ("max_recoveries", max_recoveries),
            ("payload_limit", payload_limit),
            ("max_entries", max_entries),
            ("step_threads", step_threads),
        ):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise UsageError(f"Engine({name}=...) takes a whole number from 1, not {number!r}")
        if synchronous not in ("full", "normal"):
            raise UsageError(f'Engine(synchronous=...) takes "full" or "normal", not {synchronous!r}')
        self._path = None if os.fspath(path) == ":memory:" else Path(path)
        for given in workflows or ():
            if not isinstance(given, Workflow):
                raise UsageError(f"Engine(workflows=...) takes workflows, not {given!r}")
        self._workflows = tuple(given.spec for given in workflows or ())
        self._drives = drive
        self._max_recoveries = max_recoveries
        self._max_entries = max_entries
        self._step_threads = step_threads
        if retry is not None and not isinstance(retry, Retry):
            raise UsageError(f"Engine(retry=...) takes a Retry, not {retry!r}")
        self._retry = retry or Retry.none()
        self._chance = Random()  # noqa: S311 - spreads retries, keeps no secret
        self._max_resident = max_resident
        self._unload_after = max(0, microseconds(unload_after))
        self._vault = Vault(codec, payload_limit)
        self._clock = clock or SystemClock()
        self._ids: Ids = new_id
        self._failpoint: Callable[[str], None] = _nothing
        self._journal_options: dict[str, Any] = {"synchronous": synchronous, "codec": codec.name if codec else ""}
        self._state: Literal["new", "open", "closed"] = "new"
        self._session: Session | None = None
        self._token: Token[Scope] | None = None
        self._on_dead_letter = on_dead_letter
        self._telling: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    # Life ------------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise UsageError(f"{self!r} was opened before: make a new Engine")
        self._state = "open"
        # What drives runs and what stores them are imported here: a program that opens no journal does not wait for them.
        from ._session import Session  # noqa: PLC0415

        self._session = Session(self._plan())
        try:
            await self._session.open(self._ids(self._clock.now()))
        except BaseException:
            await self.close()
            raise
        NOWHERE.engines.add(self)
        self._token = scope.set(EngineScope(self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            try:
                scope.reset(self._token)
            except ValueError:
                logger.debug("the engine is left in another context than it was entered in")
        await self.close()

    async def close(self) -> None:
        """Leave in order: unload bodies, cancel steps in flight, commit, give runs back. Twice is harmless."""
        if self._state != "open" or self._session is None:
            return
        self._session.check(self.title)
        self._let_go()
        await self._session.close()
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(EngineClosed(f"{self!r} was closed while a run was waited for"))

    def _let_go(self) -> None:
        self._state = "closed"
        NOWHERE.engines.discard(self)

    def _plan(self) -> Plan:
        from ._session import Plan  # noqa: PLC0415
        from ._worker import WorkerOptions  # noqa: PLC0415

        return Plan(
            journal=self._make_journal,
            path=self._path,
            drives=self._drives,
            workflows=self._workflows,
            worker=WorkerOptions(self._max_resident, self._unload_after),
            vault=self._vault,
            clock=self._clock,
            max_recoveries=self._max_recoveries,
            max_entries=self._max_entries,
            retry=self._retry,
            chance=self._chance,
            step_threads=self._step_threads,
            step_exists=step_exists,
            find=imported_workflow,
            look_again=self._look_again,
            new_letter=self._new_letter,
            let_go=self._let_go,
            failpoint=self._failpoint,
        )

    def _make_journal(self) -> Journal:
        from ._sqlite import SqliteJournal  # noqa: PLC0415

        return SqliteJournal(self._path or ":memory:", failpoint=self._failpoint, **self._journal_options)

    async def join(self) -> None:
        """Wait until nothing is left to drive now: every run has ended, or waits."""
        await self._open().worker.quiet()

    # Runs ------------------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> Run[Any]:
        """A handle on the run of this id; whether it exists is found out by asking it something."""
        check_name("a run's id", run_id)
        return Run(self, run_id, plain)

    async def runs(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        state: State | StateName | Collection[State | StateName] | None = None,
        tags: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        newest_first: bool = True,
        limit: int | None = None,
        after: str | None = None,
    ) -> AsyncIterator[RunInfo]:
        """The runs that fit all that is given, by the time of their creation.

        Args:
            workflow: Only runs of this workflow, or of this name.
            state: Only runs in this state, or in one of these.
            tags: Only runs that have all these tags.
            created_from: Only runs created then or later.
            created_before: Only runs created earlier.
            newest_first: Which end to begin at.
            limit: How many at the most.
            after: Begin behind the run of this id: the last one of the page before.

        Raises:
            UnknownRun: There is no run of the id given as `after`.
        """
        query = query_of(workflow, state, tags, created_from, created_before)
        query = replace(query, newest_first=newest_first)
        if after is not None:
            query = replace(query, after=(await self._row(after)).no)
        async for row in self._pages(query, limit):
            yield await self._info(row)

    async def _pages(self, query: RunQuery, limit: int | None) -> AsyncIterator[RunRow]:
        """The runs that a query asks for, a page at a time, so that no read stays open."""
        left = limit
        while left is None or left > 0:
            page = await self._open().journal.runs(replace(query, limit=_PAGE if left is None else min(_PAGE, left)))
            for row in page:
                yield row
            if len(page) < _PAGE:
                return
            left = None if left is None else left - len(page)
            query = replace(query, after=page[-1].no)

    async def count(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        state: State | StateName | Collection[State | StateName] | None = None,
        tags: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
    ) -> int:
        """How many runs fit all that is given; see `runs`."""
        return await self._open().journal.count(query_of(workflow, state, tags, created_from, created_before))

    # Dead letters ----------------------------------------------------------------------------------------------------

    async def dead_letters(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        reason: Reason | str | None = None,
        tags: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        newest_first: bool = True,
        limit: int | None = None,
    ) -> AsyncIterator[DeadLetter]:
        """The runs that failed or are parked and that nobody has discarded; the filters are those of `runs`.

        Args:
            workflow: Only letters of this workflow, or of this name.
            reason: Only letters with this reason.
            tags: Only letters of runs that have all these tags.
            created_from: Only letters of runs created then or later.
            created_before: Only letters of runs created earlier.
            newest_first: Which end to begin at.
            limit: How many at the most.
        """
        query = query_of(workflow, None, tags, created_from, created_before)
        query = replace(query, letters=True, reason=reason, newest_first=newest_first)
        async for row in self._pages(query, limit):
            yield self._letter(row)

    async def redrive(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        reason: Reason | str | None = None,
        tags: Mapping[str, str] | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Give all dead letters that fit a fresh budget, oldest first; the ids of their runs.

        A letter that somebody else redrives at the same moment is left to them.
        """
        query = query_of(workflow, None, tags, created_from, created_before)
        query = replace(query, letters=True, reason=reason, newest_first=False)
        redriven: list[str] = []
        async for row in self._pages(query, limit):
            try:
                await self.resume(row.id)
            except WrongState:
                continue
            redriven.append(row.id)
        return redriven

    def _letter(self, row: RunRow) -> DeadLetter:
        return letter_of(row, Run(self, row.id, plain), self._vault)

    async def _tell(self, run_id: str) -> None:
        """Tell the application of a new dead letter. What its hook raises is logged and changes nothing."""
        try:
            row = await self._row(run_id)
            if self._on_dead_letter is None or row.state not in (State.FAILED, State.PARKED):
                return
            answer = self._on_dead_letter(self._letter(row))
            if inspect.isawaitable(answer):
                await answer
        except Exception:
            logger.exception("the hook for dead letters failed at run %s", run_id)

    def _new_letter(self, run_id: str) -> None:
        if self._on_dead_letter is not None and self._session is not None:
            task = self._session.loop.create_task(self._tell(run_id))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    # What definitions and handles ask of it --------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """The path of its journal."""
        return str(self._path or ":memory:")

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it was opened on."""
        if self._session is None:
            raise EngineClosed(f"{self!r} is not open yet: use it inside `async with`")
        return self._session.loop

    async def start(self, workflow: WorkflowSpec, bound: BoundArguments, options: StartOptions) -> tuple[RunRow, bool]:
        """Start a run, or attach to one; `Workflow.start` is how people do it."""
        session = self._open()
        at = self._clock.now()
        run_id = options.id or self._ids(at)
        where = f"run {run_id}: input"
        new = NewRun(
            id=run_id,
            uid=self._ids(at),
            workflow=workflow.name,
            origin=workflow.origin,
            version=workflow.version,
            input=self._vault.seal(workflow.parameters.dump(bound, where), where),
            input_digest=workflow.parameters.digest(bound, where),
            at=at,
            tags=options.tags,
            deadline=options.deadline,
        )
        session.know(workflow)
        drive = self._drives and session.worker.has_room()
        started = await self._committed(session.journal.start(new, options.if_exists, drive=drive), self._adopt)
        return started.row, started.created

    def _adopt(self, started: Started) -> None:
        if self._session is None or not self._drives:
            return
        if started.hold is not None:
            self._session.worker.adopt(Claimed(started.row, started.hold))
        else:
            self._session.worker.look()

    async def cancel(self, run_id: str, reason: str, by: str) -> None:
        """Ask a run to end; `Run.cancel` is how people do it."""
        request = CancelRequest(self._clock.now(), reason, by)
        await self._committed(self._open().journal.cancel(run_id, request), self._cancelled)

    def _cancelled(self, row: RunRow) -> None:
        if row.state.stopped:
            self._look_again(row.id)
        elif row.cancel is not None and self._drives and self._session is not None:
            self._session.worker.cancelled(row.id, row.cancel)

    async def resume(
        self,
        run_id: str,
        *,
        accept_changes: bool = False,
        retry: tuple[str, ...] = (),
        corrected: Mapping[str, Any] | None = None,
    ) -> Sequence[str]:
        """Let a failed or parked run go on; `Run.resume` has the details."""
        session = self._open()
        row = await self._row(run_id)
        known = session.recognise(row.workflow, row.origin)
        data = None if corrected is None else self._correct(session, row, corrected)
        how = Resumption(self._clock.now(), accept_changes, retry, data)
        resumed = await self._committed(session.journal.resume(run_id, how), lambda _: session.worker.look())
        if not known and self._drives:
            logger.warning("run %s waits: this process does not know its workflow %s", run_id, row.workflow)
        return resumed.forgotten

    def _correct(self, session: Session, row: RunRow, corrected: Mapping[str, Any]) -> tuple[bytes, bytes]:
        workflow = session.worker.knows(row.workflow)
        if workflow is None:
            raise UsageError(
                f"run {row.id}: its input can be corrected only where its workflow {row.workflow} is known"
            )
        where = f"run {row.id}: input"
        bound = workflow.parameters.bind((), corrected)
        return self._vault.seal(workflow.parameters.dump(bound, where), where), workflow.parameters.digest(bound, where)

    async def settle(self, run_id: str, key: str, value: object, by: str, *, retry: bool = False) -> None:
        """Decide an at-most-once step that is in doubt; `Run.settle` is how people do it."""
        session = self._open()
        row = await self._row(run_id)
        memory = await session.journal.memory(row.no)
        name = next((intent.name for intent in memory.intents if intent.key == key), "")
        where = f"run {run_id}, step {key}: the decided value"
        payload = None if retry else self._vault.seal(shape_of(name).dump(value, where), where)
        said = AmbiguousStep(
            f"nobody knew whether it had its effect; {by or 'somebody'} decided that it is tried again"
        )
        error = self._vault.seal_error(dump_error(describe(said), 1), where)
        settlement = Settlement(key, by, self._clock.now(), payload, error)
        await self._committed(session.journal.settle(run_id, settlement), lambda _: session.worker.look())

    async def discard(self, run_id: str) -> None:
        """Mark a dead letter as seen to; `Run.discard` is how people do it."""
        await self._open().journal.discard(run_id, self._clock.now())

    async def stopped(self, run_id: str, timeout: float | None) -> RunRow:
        """Wait until a run has stopped."""
        async with asyncio.timeout(timeout):
            while True:
                session = self._open()
                waiter: asyncio.Future[None] = session.loop.create_future()
                waiters = self._waiting.setdefault(run_id, [])
                waiters.append(waiter)
                try:
                    driven_here = session.worker.has(run_id)
                    if not driven_here and (row := await self._row(run_id)).state.stopped:
                        return row
                    await asyncio.wait((waiter,), timeout=None if driven_here else _LOOK_AGAIN)
                    if waiter.done():
                        waiter.result()
                finally:
                    waiters.remove(waiter)
                    if not waiters:
                        self._waiting.pop(run_id, None)

    async def info(self, run_id: str) -> RunInfo:
        """What a run is; `Run.info` is how people ask."""
        return await self._info(await self._row(run_id))

    async def history(self, run_id: str) -> Sequence[HistoryEntry]:
        """What a run has recorded; `Run.history` is how people ask."""
        row = await self._row(run_id)
        return history_of(row, await self._open().journal.memory(row.no), self._vault)

    def unseal(self, data: bytes, where: str) -> bytes:
        """Encoded bytes of stored bytes."""
        return self._vault.open(data, where)

    # Inner part ------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Engine {self.title}, {self._state}>"

    def _open(self) -> Session:
        """What is open.

        Raises:
            EngineClosed: Nothing is: not yet, or not any more.
            WrongLoop: It was opened on another loop or in another process.
            NotDurable: The caller is the body of a workflow.
        """
        not_in_body("asking the engine")
        if self._state == "closed":
            raise EngineClosed(f"{self!r} was closed: what is to be done belongs inside its `async with`")
        if self._session is None:
            raise EngineClosed(f"{self!r} is not open yet: use it inside `async with`")
        self._session.check(self.title)
        return self._session

    async def _committed(self, write: asyncio.Future[T], act: Callable[[T], object]) -> T:
        """Wait for a write and act on it, even if whoever asked for it stops waiting meanwhile."""

        def done(write: asyncio.Future[T]) -> None:
            if not write.cancelled() and write.exception() is None:
                act(write.result())

        write.add_done_callback(done)
        return await asyncio.shield(write)

    def _look_again(self, run_id: str) -> None:
        """Let those who wait for a run look again."""
        for waiter in self._waiting.get(run_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def _row(self, run_id: str) -> RunRow:
        row = await self._open().journal.run(run_id)
        if row is None:
            raise UnknownRun(run_id, f"no run {run_id!r} in {self.title}")
        return row

    async def _info(self, row: RunRow) -> RunInfo:
        session = self._open()
        waits = await session.journal.waits(row.no) if row.state is State.SUSPENDED else []
        unknown = self._drives and session.worker.knows(row.workflow) is None
        return info_of(row, waits, self._vault, unknown=unknown)
