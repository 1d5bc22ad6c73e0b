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

from ._care import absolute, duration_option, prune_runs, stats_of
from ._clock import Clock, SystemClock, microseconds, to_datetime
from ._codec import Codec, Vault
from ._context import NOWHERE, EngineScope, Host, Scope, not_in_body, outside_runs, scope
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
from ._stats import Stats
from ._transactions import Transaction
from ._tx import Tx
from ._view import letter_of, plain
from ._workflows import Workflow
from .errors import EngineClosed, JournalError, UsageError, WrongState, again
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
_SHORTEST_LEASE = 100_000  # microseconds


def _nothing(_: str) -> None:
    """The failpoint of an engine in use."""


def _ids(only: Collection[str]) -> tuple[str, ...]:
    if isinstance(only, str):
        raise UsageError(f"Engine(only=...) takes several ids, not {only!r}: write [{only!r}]")
    return tuple(check_name("a run's id", run_id) for run_id in only)


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
        only: The ids of the runs that this engine drives, with the runs that their bodies start, and those that are started
            here; all others are left to other engines. None: all.
        max_resident: How many bodies may be in memory.
        unload_after: Seconds for which a suspended run's body stays in memory.
        lease: Seconds for which this engine may be silent, because its process hangs, before another one takes its runs.
            Where a process has died on the same machine, that is noticed at once.
        max_recoveries: After how many deaths in a row without one new outcome a run is parked.
        payload_limit: The largest encoded value in bytes.
        max_entries: How many entries a run may have.
        step_threads: How many threads run synchronous steps.
        storage_patience: Seconds, or a `timedelta`, after which a call of the application raises `StorageStalled` where the
            storage is in trouble: disk full, locked by another program, I/O errors. Runs wait for as long as that lasts.
        network: Open the journal even if it is on a network file system, which is refused otherwise.
        schema: A folder of numbered SQL files for tables of your own in the journal's file, such as `0001_orders.sql`; what is
            not applied yet is applied when the engine opens.
        on_dead_letter: Is called with each run that fails or is parked here, after the commit; it may be asynchronous.
        retention: For how long runs are kept after they have completed, were cancelled, or were discarded as dead letters;
            what is older is pruned after opening and then hourly, as by `prune`. None: for ever.
        slow_loop: After how many seconds of a blocked event loop a warning names the step that blocks it; None: never.
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
        only: Collection[str] | None = None,
        max_resident: int = 10_000,
        unload_after: float | timedelta = 5.0,
        lease: float | timedelta = 15.0,
        max_recoveries: int = 5,
        payload_limit: int = 1_048_576,
        max_entries: int = 100_000,
        step_threads: int = 32,
        storage_patience: float | timedelta = 30.0,
        network: bool = False,
        schema: str | os.PathLike[str] | None = None,
        on_dead_letter: Callable[[DeadLetter], Awaitable[None] | None] | None = None,
        retention: float | timedelta | None = None,
        slow_loop: float | timedelta | None = 1.0,
        codec: Codec | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._given = {name: value for name, value in locals().items() if name not in ("self", "path", "__class__")}
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
        self._only = None if only is None else _ids(only)
        self._max_recoveries = max_recoveries
        self._max_entries = max_entries
        self._step_threads = step_threads
        if retry is not None and not isinstance(retry, Retry):
            raise UsageError(f"Engine(retry=...) takes a Retry, not {retry!r}")
        self._retry = retry or Retry.none()
        self._chance = Random()  # noqa: S311 - spreads retries, keeps no secret
        self._max_resident = max_resident
        self._unload_after = max(0, microseconds(unload_after))
        self._lease = microseconds(lease)
        if self._lease < _SHORTEST_LEASE:
            raise UsageError(f"Engine(lease=...) takes at least {_SHORTEST_LEASE / 1_000_000} s, not {lease!r}")
        self._network = network
        self._retention = duration_option("retention", retention)
        self._slow_loop = duration_option("slow_loop", slow_loop)
        self._vault = Vault(codec, payload_limit)
        self._clock = clock or SystemClock()
        self._failpoint: Callable[[str], None] = _nothing
        patience = microseconds(storage_patience)
        if patience <= 0:
            raise UsageError(f"Engine(storage_patience=...) takes a positive time, not {storage_patience!r}")
        self._journal_options: dict[str, Any] = {
            "synchronous": synchronous,
            "codec": codec.name if codec else "",
            "patience": patience / 1_000_000,
            "network": network,
            "broken": self._broken,
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

    @property
    def path(self) -> Path | None:
        """The journal's file; None where it is in memory."""
        return self._path

    @property
    def codec(self) -> Codec | None:
        """The codec that it was given, if it was given one."""
        codec: Codec | None = self._given["codec"]
        return codec

    def anew(self, **options: Any) -> Engine:
        """Another engine on the same journal, not open yet: with the options of this one, but for those that are given."""
        return Engine(":memory:" if self._path is None else self._path, **{**self._given, **options})

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
            await front.session.open()
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
        if self._session is not None and self._session.inherited:
            return  # a forked child leaves a block that its parent has entered: nothing in it is the child's
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

    def _broken(self, error: JournalError) -> None:
        """Nothing can be written any more: stop, and say so to all who wait and to all who ask."""
        self._front.broken = error
        assert self._session is not None  # whose journal it is
        self._session.break_off()
        self._front.listeners.fail(again(error))

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
            network=self._network,
            drives=self._drives,
            workflows=self._workflows,
            worker=WorkerOptions(self._max_resident, self._unload_after, self._only, self._front.driven),
            vault=self._vault,
            clock=self._clock,
            lease=self._lease,
            new_name=lambda: self._front.ids(self._clock.now()),
            max_recoveries=self._max_recoveries,
            max_entries=self._max_entries,
            retry=self._retry,
            retention=self._retention,
            slow_loop=self._slow_loop / 1_000_000 if self._slow_loop is not None and self._drives else None,
            chance=self._chance,
            step_threads=self._step_threads,
            step_exists=step_exists,
            find=imported_workflow,
            changed=self._front.changed,
            completed=self._front.completed,
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
        self._front.check_journal()

    async def next_due(self) -> datetime | None:
        """When this engine has something to drive next, as far as that comes by itself.

        Now, where a run is ready; later, where the first sleep, timeout or retry ends; None, where none is to come: what
        waits for messages, answers or other runs does not count, nor what this engine does not drive.
        """
        due = await self._front.open().worker.next_due()
        return None if due is None else to_datetime(due)

    async def drain(self, timeout: float | timedelta = 30.0) -> bool:
        """Stop driving runs in good order, so that another process can go on with them at once.

        From now on nothing is claimed and no step begins here. Steps in flight may end, and are recorded. As soon as nothing
        of a run is in flight, its body leaves memory and the run is given back; none of that is an outcome or a death. The
        engine still answers whoever asks it, and runs that are started here are stored for others. Again is harmless.

        Args:
            timeout: How long to wait for steps in flight, in seconds. Those that have not ended then are cancelled and not
                recorded: they begin again where their runs go on.

        Returns:
            Whether everything that was in flight ended in time.
        """
        outside_runs("draining an engine")
        return await self._front.open().drain.drain(max(0, microseconds(timeout)))

    async def serve(self, drain: float | timedelta = 30.0) -> None:
        """Drive runs until the process gets SIGTERM or SIGINT, then `drain` and return, so that the program can end well.

        A second signal ends it at once: what is in flight is cancelled, unrecorded, and all runs are given back. The handlers
        for both signals are set while this runs, and what was there before is put back afterwards; a third signal already
        does what it did before. With several engines in one process, each hears of the signal. Where somebody else drains or
        closes the engine, it returns as well.

        Args:
            drain: How long to wait for steps in flight, in seconds.

        Raises:
            KeyboardInterrupt: The second signal was SIGINT.
            SystemExit: The second signal was SIGTERM; the exit code is 143, as shells have it.
            UsageError: It is not called in the main thread, or the engine drives nothing.
        """
        outside_runs("serving")
        session = self._front.open()
        if not self._drives:
            raise UsageError(f"{self!r} drives no runs, so there is nothing to serve: open it without drive=False")
        from ._serve import serve  # noqa: PLC0415 - only programs that serve need it

        await serve(session.drain, max(0, microseconds(drain)))

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
            self._front.open()  # first, so that a forked child is told of that and of nothing else
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
            JournalError: The file cannot be opened now. What statements on the connection raise is sqlite3's own.
            UsageError: The journal is in memory only.
            NotDurable: The caller is the body of a workflow.
            WrongLoop: This process was forked from the one that opened the engine.
        """
        not_in_body("engine.connect()")
        if self._front.state != "open" or self._sqlite is None or self._session is None:
            raise EngineClosed(f"{self!r} is not open: connect inside `async with`")
        self._session.check_process(self._front.title)
        self._front.check_journal()
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
        return await self._file().verify(ids)

    async def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Copy the journal into one file, while it goes on being used.

        The copy is of one moment: all that was acknowledged before the call is in it. It is there under its name only when it
        is complete and on the disk, for its owner alone (mode 0600), and is a journal that an engine can open; what was being
        driven at that moment is taken over then, as after a kill.

        Args:
            path: The file to be made.
            overwrite: Take the place of a file that is there; it stays as it is until the copy is complete.

        Returns:
            The absolute path of the copy.

        Raises:
            UsageError: The file exists, belongs to the journal, or its folder does not exist.
            JournalError: It could not be written; nothing is left of it.
        """
        self._front.open()
        target = absolute(path)
        await self._file().backup(target, overwrite=overwrite)
        return target

    async def prune(
        self,
        older_than: float | timedelta,
        *,
        states: State | StateName | Collection[State | StateName] | None = None,
        batch: int = 100,
    ) -> int:
        """Forget runs that ended longer ago than this, with all that belongs to them; their ids are free again.

        A run is kept while another waits for its end, while a run above it is neither completed nor cancelled, and while
        something below it is kept, detached runs aside. It is done in small transactions, between which others write.

        Args:
            older_than: Seconds or a `timedelta` since the end of a run; for a dead letter, also since it was discarded.
            states: Only runs in these states. Without it: completed and cancelled ones, and dead letters that were discarded;
                others go only where `failed` or `parked` is named here.
            batch: How many runs are forgotten in one transaction, at the most.

        Returns:
            How many runs were forgotten.
        """
        return await prune_runs(self._front.open(), older_than, states, batch, self._clock.now())

    async def stats(self) -> Stats:
        """How the engine and its journal are doing: sizes, counts, commits, the event loop, workers."""
        return await stats_of(self._front.open(), self._file(), self._path, self._clock)

    def _file(self) -> SqliteJournal:
        assert self._sqlite is not None  # the engine is open, or was refused before
        return self._sqlite

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
            row = await self._front.row(run_id, patient=True)
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
