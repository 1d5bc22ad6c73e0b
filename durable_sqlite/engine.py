"""The engine: puts journal, worker and definitions together, and is what an application opens."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import Token
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from ._clock import Clock, SystemClock, microseconds
from ._codec import Codec, Vault
from ._context import NOWHERE, EngineScope, Host, Scope, not_in_body, scope
from ._findings import Verification
from ._front import Front
from ._handle import DeadLetter, Run, point_name
from ._ids import check_name, new_id
from ._lookup import imported_workflow, query_of, step_exists
from ._records import (
    QuestionInfo,
    QuestionQuery,
    Reason,
    RunInfo,
    RunQuery,
    RunRow,
    State,
    StateName,
)
from ._transactions import Transaction
from ._tx import Tx
from ._view import letter_of, plain
from ._workflows import Workflow
from .errors import EngineClosed, UsageError, WrongState
from .retry import Retry

if TYPE_CHECKING:
    from ._session import Plan, Session
    from ._signals import Suspend  # pydantic is imported with it
    from ._sqlite import SqliteJournal
    from .journal import Journal

__all__ = ["Engine"]

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("durable_sqlite")

_PAGE = 100  # runs read at once while listing


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
        schema: A folder of numbered SQL files for tables of your own in the journal's file, such as `0001_orders.sql`; what is
            not applied yet is applied when the engine opens.
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
        schema: str | os.PathLike[str] | None = None,
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
        self._failpoint: Callable[[str], None] = _nothing
        self._journal_options: dict[str, Any] = {
            "synchronous": synchronous,
            "codec": codec.name if codec else "",
        }
        if schema is not None:
            self._journal_options["schema"] = Path(schema)
        self._sqlite: SqliteJournal | None = None
        title = str(self._path or ":memory:")
        self._front = Front(title, drives=drive, vault=self._vault, clock=self._clock, ids=new_id)
        self._token: Token[Scope] | None = None
        self._on_dead_letter = on_dead_letter
        self._telling: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return repr(self._front)

    @property
    def host(self) -> Host:
        """The engine as workflows and run handles use it."""
        return self._front

    # Life ------------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        front = self._front
        if front.state != "new":
            raise UsageError(f"{self!r} was opened before: make a new Engine")
        front.state = "open"
        # What drives runs and what stores them are imported here: a program that opens no journal does not wait for them.
        from ._session import Session  # noqa: PLC0415

        front.session = Session(self._plan())
        try:
            await front.session.open(front.ids(self._clock.now()))
        except BaseException:
            await self.close()
            raise
        NOWHERE.engines.add(front)
        self._token = scope.set(EngineScope(front))
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
        front = self._front
        if front.state != "open" or front.session is None:
            return
        front.session.check(front.title)
        self._let_go()
        await front.session.close()
        front.listeners.fail(EngineClosed(f"{self!r} was closed while a run was waited for"))

    def _let_go(self) -> None:
        self._front.state = "closed"
        NOWHERE.engines.discard(self._front)

    @property
    def _session(self) -> Session | None:
        return self._front.session

    def _plan(self) -> Plan:
        from ._session import Plan  # noqa: PLC0415
        from ._worker import WorkerOptions  # noqa: PLC0415

        return Plan(
            host=self._front,
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
            changed=self._front.changed,
            new_letter=self._new_letter,
            let_go=self._let_go,
            failpoint=self._failpoint,
        )

    def _make_journal(self) -> Journal:
        from ._sqlite import SqliteJournal  # noqa: PLC0415

        path = self._path or ":memory:"
        self._sqlite = SqliteJournal(path, failpoint=self._failpoint, **self._journal_options)
        return self._sqlite

    async def join(self) -> None:
        """Wait until nothing is left to drive now: every run has ended, or waits."""
        await self._front.open().worker.quiet()

    # Runs ------------------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> Run[Any]:
        """A handle on the run of this id; whether it exists is found out by asking it something."""
        check_name("a run's id", run_id)
        return Run(self._front, run_id, plain)

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
            query = replace(query, after=(await self._front.row(after)).no)
        async for row in self._pages(query, limit):
            yield await self._front.look_at(row)

    async def _pages(self, query: RunQuery, limit: int | None) -> AsyncIterator[RunRow]:
        """The runs that a query asks for, a page at a time, so that no read stays open."""
        left = limit
        while left is None or left > 0:
            page = await self._front.open().journal.runs(
                replace(query, limit=_PAGE if left is None else min(_PAGE, left))
            )
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
        return await self._front.open().journal.count(query_of(workflow, state, tags, created_from, created_before))

    async def questions(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        point: type[Suspend[Any]] | str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[QuestionInfo]:
        """The open questions of all runs, oldest first: who is asked what, and what an answer looks like.

        Args:
            workflow: Only questions of runs of this workflow, or of this name.
            point: Only questions of this suspend point, or of this name.
            limit: How many at the most.
        """
        name = point if isinstance(point, str) or point is None else point_name(point)
        workflow_name = workflow.name if isinstance(workflow, Workflow) else workflow
        query = QuestionQuery(workflow=workflow_name, name=name, limit=limit)
        async for found in self._front.ask_about_questions(query):
            yield found

    async def watch(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        state: State | StateName | Collection[State | StateName] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> AsyncIterator[RunInfo]:
        """The runs that fit all that is given, then each that changes and fits by then, for ever.

        Whoever is slow gets the newest of each run: changes in between are passed over.
        """
        query = query_of(workflow, state, tags, None, None)
        since = 0
        while True:
            with self._front.listeners.listening(None) as news:
                page = await self._front.open().journal.changes(replace(query, limit=_PAGE), since)
                if not page:
                    await news
                    continue
            for row in page:
                since = row.changed
                now = await self._front.open().journal.run(row.id)
                if now is not None and now.changed == row.changed:  # else it comes again, as what it is by then
                    yield await self._front.look_at(now)

    # Transactions ----------------------------------------------------------------------------------------------------

    async def transact(
        self, fn: Transaction[P, R] | Callable[Concatenate[Tx, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a transaction outside of runs, unrecorded.

        Its rows, the runs that it starts and the messages that it sends are one commit, or nothing. The function is called
        with a `Tx`, on the journal's thread; perhaps more than once, but its rows count once.

        Args:
            fn: A transaction, or any plain function whose first parameter is the `Tx`.
            args: Its other arguments.
            kwargs: Those by name.

        Returns:
            What the function returned.

        Raises:
            Exception: What the function raises passes through, and nothing of it stays.
            TimeoutError: Its SQL took too long.
        """
        result: R = await self._front.transact(fn, args, kwargs)
        return result

    def connect(self) -> sqlite3.Connection:
        """A connection to the journal's file for reads and writes of your own; close it after use, and keep what it does short.

        It is of Python's `sqlite3`, commits each statement unless you say BEGIN, and is configured as the journal needs it. It
        may read the journal's tables and not change them. Call it from any thread, but not in the body of a workflow.

        Raises:
            EngineClosed: The engine is not open.
            UsageError: The journal is in memory only.
            NotDurable: The caller is the body of a workflow.
        """
        not_in_body("engine.connect()")
        if self._front.state != "open" or self._sqlite is None:
            raise EngineClosed(f"{self!r} is not open: connect inside `async with`")
        return self._sqlite.connect()

    # Care ------------------------------------------------------------------------------------------------------------

    async def verify(self, *, accept: bool | Collection[str] = False) -> Verification:
        """Hold the whole journal against its checksums, beside whatever else goes on; it changes nothing.

        Each run is looked at in one short read, and SQLite's own check of the file is a read of its own. An engine with
        `drive=False` can do it too.

        Args:
            accept: Take what is stored of the runs with these ids for right from now on, damaged as it is. With True, of all
                runs, and forget that the journal went back. What was found is given all the same.

        Raises:
            UnknownRun: One of the ids is of no run.
            JournalDamaged: The journal is so damaged that it cannot even be looked at.
        """
        not_in_body("engine.verify()")
        ids = [accept] if isinstance(accept, str) else accept
        if not isinstance(ids, bool):
            for run_id in ids:
                await self._front.row(run_id)
        self._front.open()
        assert self._sqlite is not None
        return await self._sqlite.verify(ids)

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

    async def resume(
        self,
        run_id: str,
        *,
        accept_changes: bool = False,
        retry: Collection[str] = (),
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word that people type
    ) -> Sequence[str]:
        """Let the paused, failed or parked run of this id go on; see `Run.resume`."""
        return await self.run(run_id).resume(accept_changes=accept_changes, retry=retry, input=input)

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
        return letter_of(row, Run(self._front, row.id, plain), self._vault)

    async def _tell(self, run_id: str) -> None:
        """Tell the application of a new dead letter. What its hook raises is logged and changes nothing."""
        try:
            row = await self._front.row(run_id)
            if self._on_dead_letter is None or row.state not in (State.FAILED, State.PARKED):
                return
            if row.state is State.FAILED and row.reason == Reason.DEADLINE and row.deadline_inherited:
                return  # the letter is its parent's
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
