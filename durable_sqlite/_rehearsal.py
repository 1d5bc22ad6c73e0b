"""Replays a run against the code as it is now: what is recorded is given to the body, and nothing is begun or written.

It gives the body what a pass of `_run` would give it while it replays, in the same order, and stops where such a pass would
record or begin something. What it finds on the way is told with both sides: what is recorded, and what the code asks.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ._attempt import read_outcome
from ._body_loop import BodyTask, Branch
from ._call import Call
from ._codec import Vault, describe, load_error
from ._context import BodyScope, Host, scope
from ._desk import Desk
from ._errands import read_wish
from ._mail import Mailbox
from ._records import CANCEL_KEY, DEADLINE, Entry, Kind, Memory, Reason, RunRow, State
from ._replay import Replay
from ._specs import WorkflowSpec
from ._verdict import Cancellation, Ending, verdict
from .errors import DefinitionError, DurableError, Undecodable

__all__ = ["Difference", "DifferenceKind", "Rehearsal"]

_SLICE = (
    10_000  # callbacks of a body in one pump; it is at rest or has been stopped by its loop long before many of them
)


class DifferenceKind(StrEnum):
    """What does not fit between a run and the code as it is now."""

    DIVERGED = "diverged"
    """The code asks for something else than is recorded there: an engine would park the run."""
    UNDECODABLE = "undecodable"
    """An input, an outcome, a message or a result that is stored does not fit the types any more."""
    RESULT = "result"
    """A run that has ended ends otherwise now."""
    ENDED_EARLY = "ended_early"
    """The body ends before it has asked for the last recorded outcome."""
    NOT_DURABLE = "not_durable"
    """The body waits for what the journal cannot give back, or never comes to rest."""
    DAMAGED = "damaged"
    """What is stored of the run is not what was written, so it was not replayed."""
    NEW_CALL = "new_call"
    """The body asks for something that is not recorded while there is more on record: an engine would go on with it."""
    UNUSED = "unused"
    """The body does not ask for a recorded outcome any more: an engine would leave it unused."""
    OTHER_WAIT = "other_wait"
    """A suspended run waits for something that the code does not wait for now."""

    @property
    def free(self) -> bool:
        """Whether an engine takes it as it is."""
        return self in _FREE


_FREE = frozenset({DifferenceKind.NEW_CALL, DifferenceKind.UNUSED, DifferenceKind.OTHER_WAIT})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which a run and the code as it is now differ."""

    run: str
    """The run's id."""
    workflow: str
    state: State
    kind: DifferenceKind
    key: str | None
    """Of the call that is concerned, where it is one."""
    recorded: str
    """What the journal holds, in words."""
    asked: str
    """What the code does now, in words."""
    text: str
    """All of it in a sentence or two, with the way out where there is one."""


class Rehearsal:
    """One replay of one run, on the calling thread.

    Args:
        row: The run.
        memory: All that is recorded of it.
        workflow: The definition as it is now.
        host: What handles on runs are bound to; it is asked for nothing.
        vault: Opens what is stored.
        step_exists: Whether a step of this name is defined.
    """

    def __init__(
        self,
        row: RunRow,
        memory: Memory,
        workflow: WorkflowSpec,
        *,
        host: Host,
        vault: Vault,
        step_exists: Callable[[str], bool],
    ) -> None:
        self._row = row
        self._memory = memory
        self._spec = workflow
        self._vault = vault
        self._step_exists = step_exists
        self._entries = {entry.key: entry for entry in memory.entries}
        self._replay = Replay(row.id, memory.entries, accept_changes=row.accept_changes)
        self._desk = Desk(
            row,
            host=host,
            vault=vault,
            replay=self._replay,
            memory=memory,
            mailbox=Mailbox((), ()),
            replaying=True,
            given_up=_nobody,
        )
        self._cancelled: Cancellation | None = None
        self._closer: BodyTask[None] | None = None
        self._found: list[Difference] = []

    def differences(self) -> list[Difference]:
        """Replay the run once, and say what differs."""
        if self._memory.damage is not None:
            self._note(DifferenceKind.DAMAGED, None, self._memory.damage, "nothing: the run was not replayed")
            return self._found
        where = f"run {self._row.id}: input"
        try:
            args, kwargs = self._spec.parameters.load(self._vault.open(self._row.input, where), where)
        except (Undecodable, DefinitionError) as error:
            self._note(DifferenceKind.UNDECODABLE, None, "the input of the run", f"{self._spec.name}()", str(error))
            return self._found
        context = contextvars.Context()
        context.run(scope.set, BodyScope(self._desk))
        main = self._desk.loop.spawn(self._spec.fn(*args, **kwargs), self._desk.loop.root, context)
        try:
            self._play(main)
        except SystemExit as end:
            # No outcome for an engine; but here it would end the check, and perhaps with 0.
            self._note(DifferenceKind.NOT_DURABLE, None, self._so_far(), f"the body ends the program ({end!r})")
        finally:
            self._desk.unload()
        return self._found

    # Replaying -------------------------------------------------------------------------------------------------------

    def _play(self, main: BodyTask[Any]) -> None:
        while True:
            while not self._desk.loop.pump(_SLICE):
                pass
            if self._desk.trouble is not None:
                self._troubled(*self._desk.trouble)
                return
            if main.done() and not self._closing_generators(main):
                self._ended(main)
                return
            if not (self._desk.loop.busy or self._give(main)):
                self._rests()
                return

    def _give(self, main: BodyTask[Any]) -> bool:
        """Give the body the next recorded outcome that it has asked for; whether there was one."""
        entry = self._replay.next(self._desk.is_open)
        if entry is None:
            return False
        if entry.key == CANCEL_KEY:
            self._desk.clock = max(self._desk.clock, entry.at)
            reason = "" if self._row.cancel is None else self._row.cancel.reason
            self._cancelled = Cancellation(entry.name == DEADLINE, reason, main.cancelling())
            main.cancel()
            return True
        call = self._desk.close(entry.key, entry.at)
        if call.timer is not None:
            self._desk.loop.fire(call.timer)
        elif call.future is not None and not call.future.done():
            self._answer(call, call.future, entry)
        return True

    def _answer(self, call: Call, future: asyncio.Future[Any], entry: Entry) -> None:
        try:
            value, error = self._read(call, entry)
        except (Undecodable, DefinitionError) as problem:
            self._desk.park(Reason.UNDECODABLE, problem)
            self._note(DifferenceKind.UNDECODABLE, entry.key, _recorded(entry), _asked(call), str(problem))
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def _read(self, call: Call, entry: Entry) -> tuple[Any, Exception | None]:
        where = f"run {self._row.id}, {entry.key}"
        if call.step is not None:
            return read_outcome(self._vault, call.step.spec, entry, where)
        if call.wish is not None:
            return read_wish(self._vault, call.wish, entry, where)
        return None, None

    def _closing_generators(self, main: BodyTask[Any]) -> bool:
        """Close what the body left open, in order, as a pass does; whether that is still going on."""
        if self._closer is None:
            left = self._desk.loop.open_generators()
            if not left:
                return False
            self._closer = self._desk.loop.spawn(_close_all(left), Branch("~g"), main.own_context.copy())
        return not self._closer.done()

    # Judging ---------------------------------------------------------------------------------------------------------

    def _troubled(self, reason: Reason, error: DurableError) -> None:
        """The body did what parks a run."""
        if reason is Reason.DIVERGED:
            key, recorded, asked = self._both_sides()
            self._note(DifferenceKind.DIVERGED, key, recorded, asked, str(error))
        elif reason is Reason.NOT_DURABLE:
            self._note(DifferenceKind.NOT_DURABLE, None, self._so_far(), "what no journal can give back", str(error))
        # else it is noted already: an outcome that does not fit its type

    def _both_sides(self) -> tuple[str | None, str, str]:
        """The call that met another entry than its own."""
        for key, call in self._desk.waiting.items():
            entry = self._entries.get(key)
            if entry is not None and self._differ(entry, call):
                return key, _recorded(entry), _asked(call)
        return None, self._so_far(), "a call that was given up at once"

    def _differ(self, entry: Entry, call: Call) -> bool:
        if self._row.accept_changes:  # then only this parks the run
            return entry.kind.waits != call.kind.waits
        return (entry.kind, entry.name, entry.digest) != (call.kind, call.name, call.digest)

    def _rests(self) -> None:
        """What is recorded has been given, as far as the body asks for it; from here on it would be driven on."""
        fresh = self._desk.fresh()
        unused = self._replay.unused()
        problem = self._replay.before_fresh(fresh, self._step_exists) if fresh else None
        if problem is not None:
            entry, call = self._moved(unused, fresh)
            asked = f"no step {entry.name} any more" if call is None else f"{_asked(call)} as {call.key}"
            self._note(DifferenceKind.DIVERGED, entry.key, _recorded(entry), asked, problem.message)
            return
        if not self._desk.waiting and self._row.cancel is None:
            told = "the body waits for something that nothing in it will bring about"
            self._note(DifferenceKind.NOT_DURABLE, None, self._so_far(), told)
            return
        waiting = ", ".join(self._desk.waiting)
        as_before = set(self._desk.waiting) <= {wait.key for wait in self._memory.waits}
        for key in unused:
            if as_before:  # it has come to where the run waits, past this one
                self._note(DifferenceKind.UNUSED, key, _recorded(self._entries[key]), f"it waits for {waiting} by now")
            else:
                self._note(DifferenceKind.NEW_CALL, key, _recorded(self._entries[key]), f"{waiting} first")
        if not unused:  # else nobody knows what it would wait for in the end
            self._look_at_waits()
        self._look_at_mail()

    def _moved(self, unused: list[str], fresh: list[Call]) -> tuple[Entry, Call | None]:
        """The first recorded outcome that must not be left behind, and the fresh call that is the same, where there is one."""
        wanted = {(call.kind, call.name, call.digest): call for call in fresh}
        left = [self._entries[key] for key in unused]
        moved = [(entry, wanted.get((entry.kind, entry.name, entry.digest))) for entry in left]
        return next(pair for pair in moved if pair[1] is not None or self._is_gone(pair[0]))

    def _is_gone(self, entry: Entry) -> bool:
        return entry.kind in (Kind.STEP, Kind.TRANSACTION) and not self._step_exists(entry.name)

    def _look_at_waits(self) -> None:
        if self._row.state is not State.SUSPENDED:
            return  # what it has waited for is not kept up to date while it is driven
        for wait in self._memory.waits:
            if wait.key not in self._desk.waiting:
                waiting = ", ".join(self._desk.waiting)
                self._note(DifferenceKind.OTHER_WAIT, wait.key, f"{wait.kind} {wait.name}, waited for", waiting)

    def _look_at_mail(self) -> None:
        """What has come and would be given next has to fit its type as well."""
        if self._row.state.ended:
            return
        for call, payload, what in self._mail():
            where = f"run {self._row.id}, {call.key}"
            assert call.wish is not None
            try:
                call.wish.read(self._vault.open(payload, where), where)
            except Undecodable as error:
                self._note(DifferenceKind.UNDECODABLE, call.key, what, _asked(call), str(error))

    def _mail(self) -> Iterator[tuple[Call, bytes, str]]:
        for call in self._desk.waiting.values():
            if call.kind is Kind.SIGNAL:
                for message in self._memory.messages:
                    if message.name == call.name and message.error is None:
                        yield call, message.payload, f"message {message.no}, {message.name}"
            elif call.kind is Kind.QUESTION:
                for question in self._memory.questions:
                    if question.key == call.key and question.answer is not None:
                        yield call, question.answer, f"the answer to {question.name}"

    def _ended(self, main: BodyTask[Any]) -> None:
        left_open = "" if main.cancelled() else self._desk.left_open(main)
        returns = self._spec.parameters.returns
        ending = verdict(main, self._row, self._cancelled, left_open=left_open, returns=returns, vault=self._vault)
        self._look_at_unused(_told(ending, main))
        if self._has_ending():
            self._compare(ending, main)

    def _look_at_unused(self, end: str) -> None:
        unused = self._replay.unused()
        last = max((self._entries[key].seq for key in unused), default=0)
        early = last > self._replay.given
        for key in unused:
            kind = DifferenceKind.ENDED_EARLY if early else DifferenceKind.UNUSED
            self._note(kind, key, _recorded(self._entries[key]), end)

    def _has_ending(self) -> bool:
        """Whether the run has ended by the end of its body, so that another end is a difference."""
        if self._row.state is State.COMPLETED:
            return True
        if self._row.state is State.FAILED:
            return self._row.reason != Reason.DEADLINE or CANCEL_KEY in self._entries
        return self._row.state is State.CANCELLED and CANCEL_KEY in self._entries  # else it was terminated

    def _compare(self, ending: Ending, main: BodyTask[Any]) -> None:
        row, now = self._row, _told(ending, main)
        if ending.state is not row.state:
            self._note(DifferenceKind.RESULT, None, self._outcome(), now)
        elif row.state is State.COMPLETED:
            self._compare_results(now, ending.result or b"")
        elif row.state is State.FAILED:
            before, after = self._type_of_error(row.result or b""), self._type_of_error(ending.result or b"")
            if before != after:
                self._note(DifferenceKind.RESULT, None, f"failed with {before}", f"fails with {after}")

    def _compare_results(self, now: str, sealed: bytes) -> None:
        """Hold the results against each other as values: a field that is new and has its default is no difference."""
        where, returns = f"run {self._row.id}: result", self._spec.parameters.returns
        recorded = self._vault.open(self._row.result or b"", where)
        try:
            before = returns.canonical(returns.load(recorded, where), where)
        except Undecodable as error:
            self._note(DifferenceKind.UNDECODABLE, None, "the result of the run", now, str(error))
            return
        today = self._vault.open(sealed, where)
        if returns.canonical(returns.load(today, where), where) != before:
            self._note(DifferenceKind.RESULT, None, f"returned {_cut(recorded)}", f"returns {_cut(today)}")

    def _type_of_error(self, sealed: bytes) -> str:
        """The name of its class, without its module: what ran as a script is imported by another name here."""
        return load_error(self._vault.open(sealed, f"run {self._row.id}: error")).record.type.rpartition(".")[2]

    # Words -----------------------------------------------------------------------------------------------------------

    def _note(self, kind: DifferenceKind, key: str | None, recorded: str, asked: str, text: str = "") -> None:
        row = self._row
        place = f"run {row.id}" if key is None else f"run {row.id}, {key}"
        sentence = text or f"{place}: the journal holds {recorded}; with the code of today: {asked}"
        self._found.append(Difference(row.id, row.workflow, row.state, kind, key, recorded, asked, sentence))

    def _so_far(self) -> str:
        return f"{len(self._memory.entries)} outcomes"

    def _outcome(self) -> str:
        if self._row.state is State.FAILED:
            return f"failed with {self._type_of_error(self._row.result or b'')}"
        return str(self._row.state)


async def _close_all(generators: list[Any]) -> None:
    for generator in generators:
        try:
            await generator.aclose()
        except Exception:  # noqa: BLE001, S112 - an engine says so in its log, and goes on
            continue


def _nobody(_call: Call) -> None:
    """What is told of calls that are given up: nothing of them is under way."""


def _recorded(entry: Entry) -> str:
    return _named(entry.kind, entry.name, entry.digest)


def _asked(call: Call) -> str:
    return _named(call.kind, call.name, call.digest)


def _named(kind: Kind, name: str, digest: bytes) -> str:
    what = str(kind) if name == kind else f"{kind} {name}"
    return f"{what}, arguments {digest.hex()}" if digest else what


def _told(ending: Ending, main: BodyTask[Any]) -> str:
    """How the body ends now, in words."""
    if ending.state is State.COMPLETED:
        return "the body returns"
    if ending.state is State.CANCELLED:
        return "the body ends cancelled"
    error = None if main.cancelled() else main.exception()
    return "the body fails" if error is None else f"the body raises {describe(error).type}: {_short(str(error))}"


def _cut(data: bytes) -> str:
    return _short(data.decode("utf-8", "replace"))


_MOST = 200  # characters of a value or a message


def _short(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"
