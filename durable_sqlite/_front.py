"""An open engine as definitions and run handles see it: what they ask of it, and who waits for what."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from inspect import BoundArguments
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from ._clock import Clock
from ._codec import Vault, describe, dump_error
from ._context import not_in_body, outside_runs
from ._definition import Decorated
from ._ids import Ids
from ._listeners import Listeners
from ._lookup import dump_result
from ._orders import Orders
from ._records import (
    HistoryEntry,
    MessageInfo,
    NewAnswer,
    NewMessage,
    NewRun,
    QuestionInfo,
    QuestionQuery,
    Request,
    Resumption,
    RunInfo,
    RunRow,
    Settlement,
    Started,
    State,
    Taken,
)
from ._specs import AnswerQuestion, SendMessage, StartOptions, WorkflowSpec
from ._tables import Budget, Door, Work
from ._transactions import Transaction
from ._tx import Tx
from ._view import history_of, info_of, message_of, question_of
from .errors import AmbiguousStep, EngineClosed, JournalDamaged, JournalError, UnknownRun, UsageError, again

if TYPE_CHECKING:
    from ._session import Session

__all__ = ["Front"]

T = TypeVar("T")

logger = logging.getLogger("durable_sqlite")

_PAGE = 100  # rows read at once while listing
_BUDGET = 5_000_000  # microseconds of SQL, of a function that says nothing of it


class Front:
    """Where an engine is asked things, by people's code and by run handles.

    Args:
        title: How messages name the engine: the path of its journal.
        drives: Whether it drives runs.
        vault: Seals and opens what is stored.
        clock: The time.
        ids: Makes ids.
    """

    def __init__(self, title: str, *, drives: bool, vault: Vault, clock: Clock, ids: Ids) -> None:
        self.title = title
        self.ids = ids
        self.state: Literal["new", "open", "closed"] = "new"
        self.session: Session | None = None
        """What is open, or was."""
        self.broken: JournalError | None = None
        """Why the engine has stopped by itself."""
        self.listeners = Listeners()
        self.driven: set[str] | None = None
        """Takes the ids of the runs that are driven, where somebody puts a set here before it is opened."""
        self._drives = drives
        self._vault = vault
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Engine {self.title}, {self.state}>"

    def open(self) -> Session:
        """What is open.

        Raises:
            EngineClosed: Nothing is: not yet, or not any more.
            WrongLoop: It was opened on another loop or in another process.
            NotDurable: The caller is the body of a workflow.
            JournalError: Its journal cannot be written any more.
        """
        not_in_body("asking the engine")
        self.check_journal()
        if self.state == "closed":
            raise EngineClosed(f"{self!r} was closed: what is to be done belongs inside its `async with`")
        if self.session is None:
            raise EngineClosed(f"{self!r} is not open yet: use it inside `async with`")
        self.session.check(self.title)
        return self.session

    def check_journal(self) -> None:
        """Refuse where the journal cannot be written any more.

        Raises:
            JournalError: It cannot; the message says what has happened.
        """
        if self.broken is not None and self.state == "open":
            raise again(self.broken)

    def changed(self, run_id: str | None) -> None:
        """Let those who wait for a run look again; all of them where it is not known which run has changed."""
        self.listeners.tell(run_id)

    def completed(self, row: RunRow) -> None:
        """Let those who wait for a run have it as it has completed here, which is committed."""
        self.listeners.tell(row.id, row)

    async def row(self, run_id: str, *, patient: bool = False) -> RunRow:
        """The run of this id; `patient` is who waits for as long as the storage is in trouble.

        Raises:
            UnknownRun: There is none.
            StorageStalled: The storage is in trouble.
        """
        row = await self.open().journal.run(run_id, patient=patient)
        if row is None:
            raise UnknownRun(run_id, f"no run {run_id!r} in {self.title}")
        return row

    async def look_at(self, row: RunRow) -> RunInfo:
        """A run as its users see it."""
        session = self.open()
        waits = await session.journal.waits(row.no) if row.state is State.SUSPENDED else []
        unknown = self._drives and session.worker.knows(row.workflow) is None
        return info_of(row, waits, self._vault, unknown=unknown)

    async def ask_about_questions(self, query: QuestionQuery) -> AsyncIterator[QuestionInfo]:
        """The open questions that a query asks for, a page at a time, so that no read stays open."""
        left = query.limit
        while left is None or left > 0:
            limit = _PAGE if left is None else min(_PAGE, left)
            page = await self.open().journal.questions(replace(query, limit=limit))
            for found in page:
                yield question_of(found, self._vault)
            if len(page) < limit:
                return
            left = None if left is None else left - len(page)
            query = replace(query, after=(page[-1].question.at, page[-1].run_id, page[-1].question.key))

    # What definitions and handles ask of it --------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it was opened on."""
        if self.session is None:
            raise EngineClosed(f"{self!r} is not open yet: use it inside `async with`")
        return self.session.loop

    async def start(
        self,
        workflow: WorkflowSpec,
        bound: BoundArguments,
        options: StartOptions,
        message: SendMessage | None = None,
    ) -> tuple[RunRow, bool]:
        """Start a run, or attach to one; `Workflow.start` and `signal_with_start` are how people do it."""
        session = self.open()
        at = self._clock.now()
        run_id = options.id or self.ids(at)
        where = f"run {run_id}: input"
        new = NewRun(
            id=run_id,
            uid=self.ids(at),
            workflow=workflow.name,
            origin=workflow.origin,
            version=workflow.version,
            input=self._vault.seal(workflow.parameters.dump(bound, where), where),
            input_digest=workflow.parameters.digest(bound, where),
            at=at,
            tags=options.tags,
            deadline=options.deadline,
        )
        sent = None if message is None else self._message(message, at)
        session.know(workflow)
        drive = self._drives and session.worker.reserve()
        write = session.journal.start(new, options.if_exists, drive=drive, message=sent)
        if drive:
            write.add_done_callback(lambda _: session.worker.release())
        started = await self._committed(write, partial(self._started, mailed=sent is not None))
        return started.row, started.created

    def _started(self, started: Started, *, mailed: bool) -> None:
        if self.session is not None and self._drives:
            self.session.worker.started(started)
            if mailed:
                self.session.worker.mailed(started.row)
        self.changed(started.row.id)

    def _message(self, message: SendMessage, at: int) -> NewMessage:
        where = f"run {message.run_id}: message {message.name}"
        return NewMessage(message.name, self._vault.seal(message.data, where), at, message.dedupe)

    async def signal(self, message: SendMessage) -> None:
        """Send a message to a run; `Run.signal` is how people do it."""
        sent = self._message(message, self._clock.now())
        session = self.open()
        write = session.journal.signal(message.run_id, sent, at_rest=session.worker.at_rest(message.run_id))
        await self._committed(write, lambda sent: self._mailed(sent.row, sent.taken))

    async def answer(self, answer: AnswerQuestion) -> None:
        """Answer a question of a run; `Run.answer` is how people do it."""
        where = f"run {answer.run_id}: answer to {answer.name}"
        said = NewAnswer(
            name=answer.name,
            key=answer.key,
            payload=self._vault.seal(answer.data, where),
            at=self._clock.now(),
            by=answer.by,
            early=answer.early,
        )
        session = self.open()
        write = session.journal.answer(answer.run_id, said, at_rest=session.worker.at_rest(answer.run_id))
        await self._committed(write, lambda answered: self._mailed(answered.row, answered.taken))

    def _mailed(self, row: RunRow, taken: Taken | None = None) -> None:
        if self._drives and self.session is not None:
            self.session.worker.mailed(row, taken)
        self.changed(row.id)

    async def cancel(self, run_id: str, reason: str, by: str) -> None:
        """Ask a run to end; `Run.cancel` is how people do it."""
        await self._tell_runs(self.open().journal.cancel(run_id, Request(self._clock.now(), reason, by)))

    async def terminate(self, run_id: str, reason: str, by: str) -> None:
        """End a run without clean-up; `Run.terminate` is how people do it."""
        await self._tell_runs(self.open().journal.terminate(run_id, Request(self._clock.now(), reason, by)))

    async def pause(self, run_id: str, reason: str, by: str) -> None:
        """Let a run begin nothing more; `Run.pause` is how people do it."""
        await self._tell_runs(self.open().journal.pause(run_id, Request(self._clock.now(), reason, by)))

    async def _tell_runs(self, write: asyncio.Future[Sequence[RunRow]]) -> None:
        await self._committed(write, lambda rows: self._told(*rows))

    def _told(self, *rows: RunRow) -> None:
        if self._drives and self.session is not None:
            self.session.worker.told(*rows)
        for row in rows:
            self.changed(row.id)

    async def resume(
        self,
        run_id: str,
        *,
        accept_changes: bool = False,
        retry: tuple[str, ...] = (),
        corrected: Mapping[str, Any] | None = None,
    ) -> Sequence[str]:
        """Let a failed, parked or paused run go on; `Run.resume` has the details."""
        session = self.open()
        row = await self.row(run_id)
        known = session.recognise(row.workflow, row.origin)
        data = None if corrected is None else self._correct(session, row, corrected)
        how = Resumption(self._clock.now(), accept_changes, retry, data)
        write = session.journal.resume(run_id, how)
        resumed = await self._committed(write, lambda resumed: self._told(resumed.row, *resumed.others))
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
        session = self.open()
        row = await self.row(run_id)
        memory = await session.journal.memory(row.no)
        name = next((intent.name for intent in memory.intents if intent.key == key), "")
        where = f"run {run_id}, step {key}: the decided value"
        payload = None if retry else self._vault.seal(dump_result(name, value, where), where)
        said = AmbiguousStep(
            f"nobody knew whether it had its effect; {by or 'somebody'} decided that it is tried again"
        )
        error = self._vault.seal_error(dump_error(describe(said), 1), where)
        settlement = Settlement(key, by, self._clock.now(), payload, error)
        await self._committed(session.journal.settle(run_id, settlement), self._told)

    async def discard(self, run_id: str) -> None:
        """Mark a dead letter as seen to; `Run.discard` is how people do it."""
        await self.open().journal.discard(run_id, self._clock.now())

    async def stopped(self, run_id: str, timeout: float | None) -> RunRow:
        """Wait until a run has stopped."""
        self.open()  # first, so that a forked child is told of that and of nothing else
        async with asyncio.timeout(timeout):
            while True:
                with self.listeners.listening(run_id) as news:
                    driven_here = self.open().worker.has(run_id)
                    if not driven_here and (row := await self.row(run_id)).state.stopped:
                        if row.damage is not None and row.state is State.COMPLETED:
                            raise JournalDamaged(
                                f"run {run_id}: {row.damage}, so its result is not to be relied on. Restore a backup; "
                                "`engine.verify()` names all that is damaged"
                            )
                        return row
                    if (completed := await news) is not None:
                        return completed

    async def watch_run(self, run_id: str) -> AsyncIterator[RunInfo]:
        """What a run is, then each change, until it has stopped; `Run.watch` is how people ask."""
        seen: RunInfo | None = None
        while True:
            self.open()  # first, so that a forked child is told of that and of nothing else
            with self.listeners.listening(run_id) as news:
                info = await self.info(run_id)
                if info == seen:
                    await news
                    continue
            seen = info
            yield info
            if info.state.stopped:
                return

    async def info(self, run_id: str) -> RunInfo:
        """What a run is; `Run.info` is how people ask."""
        return await self.look_at(await self.row(run_id))

    async def messages(self, run_id: str) -> Sequence[MessageInfo]:
        """What was sent to a run and not taken; `Run.messages` is how people ask."""
        row = await self.row(run_id)
        memory = await self.open().journal.memory(row.no)
        return [message_of(row, message, self._vault) for message in memory.messages]

    async def questions_of(self, run_id: str) -> Sequence[QuestionInfo]:
        """What a run asks; `Run.questions` is how people ask."""
        await self.row(run_id)
        return [found async for found in self.ask_about_questions(QuestionQuery(run_id=run_id))]

    async def history(self, run_id: str) -> Sequence[HistoryEntry]:
        """What a run has recorded; `Run.history` is how people ask."""
        row = await self.row(run_id)
        return history_of(row, await self.open().journal.memory(row.no), self._vault)

    def unseal(self, data: bytes, where: str) -> bytes:
        """Encoded bytes of stored bytes."""
        return self._vault.open(data, where)

    async def transact(self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run a transaction outside of runs; `Engine.transact` is how people do it."""
        outside_runs("engine.transact()")
        session = self.open()
        exact = cast("Transaction[..., Any]", fn) if isinstance(fn, Transaction) else None
        plain = cast("Callable[..., Any]", fn) if exact is None else exact.fn
        name = getattr(plain, "__name__", repr(plain))
        if isinstance(plain, Decorated) or inspect.iscoroutinefunction(plain) or not callable(plain):
            raise UsageError(
                f"engine.transact() takes a plain function whose first parameter is the Tx, not {fn!r}: it runs inside the "
                "journal's commit, where nothing can be awaited"
            )
        orders = Orders(self._vault, self._clock, lambda at, _number: (self.ids(at), self.ids(at)))
        context = copy_context()

        def body(door: Door) -> Any:
            orders.begin()
            made = context.copy().run(plain, Tx(door, orders), *args, **kwargs)
            if inspect.iscoroutine(made):
                made.close()
                raise UsageError(
                    f"{name} gave engine.transact() a coroutine: it runs inside the journal's commit, where nothing can be "
                    "awaited. Hand over a plain function; nothing was written"
                )
            return made

        budget = Budget(f"transaction {name}", (_BUDGET if exact is None else exact.budget) / 1_000_000)
        write = session.journal.transact(Work(body, budget))
        return await self._committed(write, lambda _: orders.tell(session.know, self._mailed))

    # Inner part ------------------------------------------------------------------------------------------------------

    async def _committed(self, write: asyncio.Future[T], act: Callable[[T], object]) -> T:
        """Wait for a write and act on it, even if whoever asked for it stops waiting meanwhile."""

        def done(write: asyncio.Future[T]) -> None:
            if not write.cancelled() and write.exception() is None:
                act(write.result())

        write.add_done_callback(done)
        return await asyncio.shield(write)
