"""Drives one run's body: what it is given next, what begins, when it rests.

One pass goes from the top of the body. Whenever the body is at rest, the first of these that applies happens, and the body
runs on until it is at rest again:

1. The recorded outcome with the lowest place in the run's order that the body has asked for is given to it.
2. One live event (a step has ended, the run is to be cancelled, a deadline has come) is recorded and given to it.
3. Steps that were called and are not recorded begin.
4. The run is suspended.

Nothing here knows how the journal stores what it is told.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from ._arrivals import Arrivals
from ._attempt import Doubt, Fault, Result, read_outcome
from ._body_loop import BodyTask, Branch
from ._call import Call
from ._clerk import Clerk
from ._clock import Alarm
from ._context import BodyScope, scope
from ._crew import Crew
from ._desk import Desk
from ._errands import Errands, PostOffice, read_wish
from ._ledger import Ledger
from ._leftovers import Leftovers
from ._mail import Mailbox
from ._records import (
    CANCEL_KEY,
    DEADLINE,
    Claimed,
    Drained,
    End,
    Ended,
    Entry,
    Hold,
    Kind,
    Memory,
    News,
    Outcome,
    Reason,
    Report,
    Request,
    RunRow,
    State,
    Suspension,
)
from ._replay import Divergence, Replay
from ._specs import AskQuestion, TakeMessages, WorkflowSpec
from ._surroundings import Surroundings
from ._suspension import Suspender
from ._verdict import Cancellation, Ending, stored_error, too_many, verdict
from .errors import DefinitionError, JournalDamaged, JournalError, Undecodable, Unstorable

__all__ = ["Keeper", "Pass"]

logger = logging.getLogger("durable_sqlite")

_SHORT_BACK_OFF = 1_000_000  # microseconds that a run waits for a step's next attempt without being suspended
_SLICE = 1_000  # callbacks of a body after which the host's loop gets its turn


class Keeper(PostOffice, Protocol):
    """Whoever decides which runs are driven."""

    def awaits(self, run_id: str, waiter: Pass) -> None:
        """Let a pass hear of the end of a run."""

    def reported(self, run: Pass) -> None:
        """The body has said something of itself, and that is committed."""

    def progressed(self, run: Pass) -> None:
        """A new outcome was recorded."""

    def rested(self, run: Pass, due: int | None) -> None:
        """The run is suspended, and that is committed; `due` is its nearest deadline."""

    def woke(self, run: Pass) -> None:
        """The run was suspended and is driven again."""

    def ended(self, run: Pass, end: End, how: Ended) -> None:
        """The run has stopped, and that is committed: as its body ended, or as somebody asked who was faster."""

    def goes_on(self, run: Pass) -> None:
        """The run has not ended after all: more has come for it. It is pending, and the pass is over."""

    def left(self, run: Pass, write: asyncio.Future[None]) -> None:
        """The run was given back, since this worker stands down; `write` is done once that is committed."""

    def dropped(self, run: Pass) -> None:
        """The pass was given up without an outcome."""


class Pass:
    """One drive of a run's body from the top.

    Args:
        around: What all passes share.
        keeper: Is told of rest, wake-up and end.
        workflow: The run's definition.
        claimed: The run and the right to write about it.
        memory: All that is recorded of it.
        first: No pass came before this one.
    """

    def __init__(
        self,
        around: Surroundings,
        keeper: Keeper,
        workflow: WorkflowSpec,
        claimed: Claimed,
        *,
        memory: Memory,
        first: bool,
    ) -> None:
        if memory.damage is not None:
            memory = Memory(damage=memory.damage)  # what is left of it is not to be relied on
        self.row = claimed.row
        self.over = False
        self._around = around
        self._keeper = keeper
        self._spec = workflow
        self._ledger = Ledger(around.journal, claimed.hold, self.refused)
        self._replay = Replay(self.row.id, memory.entries, accept_changes=self.row.accept_changes)
        mailbox = Mailbox(
            (message for message in memory.messages if message.error is None),
            (question for question in memory.questions if question.answer is not None),
        )
        self._clerk = Clerk(
            self.row.id,
            journal=around.journal,
            ledger=self._ledger,
            mailbox=mailbox,
            vault=around.vault,
            looked=self.wake,
            refused=self.refused,
        )
        self._desk = Desk(
            self.row,
            host=around.host,
            vault=around.vault,
            replay=self._replay,
            memory=memory,
            mailbox=mailbox,
            replaying=not first,
            given_up=self._given_up,
        )
        self._crew = Crew(
            self.row,
            around,
            ledger=self._ledger,
            desk=self._desk,
            memory=memory,
            is_over=lambda: self.over,
            may_begin=lambda: not (self.over or self._holding_back),
            post=keeper,
            landed=self.drive,
            recorded=self._transacted,
            lost=self._lost,
        )
        self._arrivals = Arrivals(self._crew.flight.results, around.loop, more=self._more_to_come, again=self.drive)
        self._errands = Errands(
            self.row,
            journal=around.journal,
            ledger=self._ledger,
            post=keeper,
            clock=around.clock,
            vault=around.vault,
            mailbox=mailbox,
            results=self._crew.flight.results,
            landed=self.drive,
            refused=self.refused,
            diverged=lambda message: self._desk.diverge(Divergence(message)),
            look=self._clerk.look,
            awaits=partial(keeper.awaits, waiter=self),
        )
        self._leftovers = Leftovers(self.row, memory)
        self._suspender = Suspender(self._ledger, around.clock, memory, self)
        self._mailbox = mailbox
        self._reported = (self.row.status, self.row.progress)
        self._alarm: tuple[int, Alarm] | None = None
        self._cancel = self.row.cancel
        self._pause = self.row.pause
        self._deadline = self.row.deadline_at
        self._cancelled: Cancellation | None = None
        self._busy = False
        self._nudged = False
        self._expiring = False
        self._asking_late = False
        """A question whose deadline has passed is to be asked before it expires."""
        self._ending = False
        self._standing_down = False
        self._drained: Drained | None = None
        """Set while the last thing that the body was given is all messages of a name."""
        self._closer: BodyTask[None] | None = None
        self._main = self._begin(memory.damage)

    @property
    def hold(self) -> Hold:
        """The right to write about the run."""
        return self._ledger.hold

    @property
    def ending(self) -> bool:
        """Whether the end of the run is being committed."""
        return self._ending

    @property
    def at_rest(self) -> bool:
        """Whether the run was given back, and the body waits in memory for news."""
        return self._suspender.at_rest and not self.over

    @property
    def pumped(self) -> bool:
        """Whether the body is what runs right now."""
        return self._desk.pumped

    def _begin(self, damage: str | None) -> BodyTask[Any] | None:
        if damage is not None:
            self._desk.park(Reason.DAMAGED, JournalDamaged(f"run {self.row.id}: {damage}. Nothing of it was run"))
            return None
        where = f"run {self.row.id}: input"
        try:
            args, kwargs = self._spec.parameters.load(self._around.vault.open(self.row.input, where), where)
        except (Undecodable, DefinitionError) as error:
            self._desk.park(Reason.UNDECODABLE, error)
            return None
        context = contextvars.Context()  # the same empty one on every pass, whoever wakes the run
        context.run(scope.set, BodyScope(self._desk))
        return self._desk.loop.spawn(self._spec.fn(*args, **kwargs), self._desk.loop.root, context)

    # News ------------------------------------------------------------------------------------------------------------

    def wake(self, *, pending: bool = False) -> None:
        """Look whether there is news for the body. Call it from a callback of the host's loop, never inside a task.

        Args:
            pending: The run is pending in the journal, so it is to be driven if it rests.
        """
        if self._suspender.suspending:
            self._nudged = True
        elif not self.at_rest:
            self.drive()
        elif pending or self._has_news():
            self._go_on()

    def hear(self, cancel: Request | None, pause: Request | None) -> None:
        """Note what is asked of the run; `wake` lets the body know."""
        self._cancel = self._cancel or cancel
        self._pause = None if self._cancel is not None or self._cancelled else pause

    def mailed(self, *, woken: bool) -> None:
        """Look at the mail: some has come. Call it as `wake`.

        Args:
            woken: The run was suspended and waits for that mail, so it is pending in the journal.
        """
        self._clerk.look()
        if woken and self.at_rest and not self._suspender.paused:
            self._go_on()

    def _has_news(self) -> bool:
        if self._cancel is not None and not self._cancelled:
            return True
        due = self._next_due()
        if due is not None and due <= self._around.clock.now():
            return True
        if self._pause is not None:
            return False
        return self._suspender.paused or self._mailbox.next() is not None

    @property
    def _pausing(self) -> bool:
        """Whether nothing more is to begin; a body that was told to end goes on to its end."""
        return self._pause is not None and not self._cancelled

    @property
    def _holding_back(self) -> bool:
        """Whether nothing more is to begin on this pass."""
        return self._standing_down or self._pausing

    @property
    def _under_way(self) -> bool:
        """Whether anything is in flight whose outcome is awaited."""
        return bool(self._crew.flight or self._errands)

    def _more_to_come(self) -> bool:
        """Whether something is in flight or about to be that could have ended first."""
        return not self._holding_back and (self._under_way or bool(self._desk.fresh()))

    # Driving ---------------------------------------------------------------------------------------------------------

    def drive(self) -> None:
        """Give, record, begin, until nothing is left to do now. Call it from a callback of the host's loop."""
        resting = self._suspender.suspending or self._suspender.returning or self._suspender.at_rest
        if self.over or self._ending or self._busy or self._expiring or self._crew.transacting or resting:
            return
        self._busy = True
        try:
            self._drive()
        except (KeyboardInterrupt, SystemExit):
            self._lost()
            raise
        except Unstorable:
            logger.exception("what run %s brought cannot be recorded: this worker lets it go", self.row.id)
            self._lost()
        finally:
            self._busy = False

    def _drive(self) -> None:
        while True:
            if self._desk.loop.busy and not self._desk.loop.pump(_SLICE):
                self._around.loop.call_soon(self.drive)
                return
            self._ledger.amend(self._replay.accepted())
            if self._desk.trouble is not None or self._main is None:
                self._park()
                return
            if self._main.done() and not self._closing_generators(self._main):
                self._finish(self._main)
                return
            if not (self._desk.loop.busy or self._give_recorded() or self._give_live()):
                break
            if self._expiring:
                return
        if not self._holding_back and not self._begin_fresh():
            self._park()
            return
        self._tidy_up()
        if self._asking_late and not self._desk.fresh():
            self._asking_late = False
            self._around.loop.call_soon(self.drive)
        else:
            self._rest()

    def _rest(self) -> None:
        """Nothing can be given now: wait for what is under way, or be suspended."""
        if self._crew.transacting:
            pass  # its outcome takes the next place in the order
        elif self._under_way or (self._soon() and not self._holding_back):
            self._arm()
        elif self._arrivals:
            self._around.loop.call_soon(self.drive)  # held back for what has begun, and it has no outcome
        elif self._standing_down and not self._pausing and self._desk.fresh():
            self._keeper.left(self, self.leave(interrupted=self.row.interrupted))
        elif self._clerk.looking:
            pass  # what it brings may be what the body waits for
        elif self._desk.waiting:
            self._settle_changes()
            waits = {key: call.as_wait() for key, call in self._desk.waiting.items()}
            nearest = self._desk.nearest()
            # What waits for its next attempt may have begun that one where the clock was ahead.
            unsure = self._crew.recovered and any(call.step is not None for call in self._desk.waiting.values())
            due = nearest[0] if nearest else None
            self._suspender.suspend(waits, due, paused=self._pausing, interrupted=unsure)
        else:
            self._desk.forbid(
                "the body waits for something that nothing in it will bring about; only steps, sleeps, messages, answers, "
                "runs and its own branches can be waited for"
            )
            self._park()

    def _give_recorded(self) -> bool:
        entry = self._replay.next(self._desk.is_open)
        if entry is None:
            return False
        self._give(entry)
        return True

    def _give_live(self) -> bool:
        """Record one live event, if there is one, and give it to the body."""
        if self._give_results():
            return True
        if not self._cancelled and (cancel := self._call_to_end()) is not None:
            self._record(cancel, self._nothing())
            return True
        if self._standing_down and not self._under_way:
            return False  # what comes now is given on the next pass, by whoever drives that
        return not self._pausing and (self._give_mail() or self._give_due())

    def _give_results(self) -> bool:
        """Give what a step or an errand has brought."""
        while (arrived := self._arrivals.next(self._replay.seq)) is not None:
            call, ended = arrived
            if not self._desk.waits_for(call):
                continue  # it was given up meanwhile, and a late result is nobody's
            result = ended if isinstance(ended, Result) else self._judge(call, ended)
            if result is not None:
                if call.wish is not None and isinstance(call.wish.errand, TakeMessages):
                    letter = self._clerk.all_for(call)
                    self._record(call, letter.result, letter.takes)
                else:
                    self._record(call, result)
                return True
            if self._desk.trouble is not None:
                return True
        return False

    def _judge(self, call: Call, ended: Fault | Doubt) -> Result | None:
        result = self._crew.judge(call, ended)
        if result is None and isinstance(ended, Fault):
            self._keeper.progressed(self)  # the failed attempt was recorded
            self._desk.replaying = False
        return result

    def _give_mail(self) -> bool:
        """Give something that has come and is waited for."""
        letter = self._clerk.next()
        if letter is not None:
            self._record(letter.call, letter.result, letter.takes)
        return letter is not None

    def _give_due(self) -> bool:
        """Give the nearest wait whose deadline has passed, or let a step begin again."""
        while (nearest := self._desk.nearest()) is not None and nearest[0] <= self._around.clock.now():
            deadline, call = nearest
            if call.kind is Kind.QUESTION and call in self._desk.fresh():
                self._asking_late = True
                return False  # an early answer may have come in time
            if call.kind in (Kind.SIGNAL, Kind.QUESTION):
                return not self._clerk.looking and self._expire(call, deadline)
            if call.step is None:
                self._record(call, self._nothing())
                return True
            self._desk.again(call)
        return False

    def _expire(self, call: Call, deadline: int) -> bool:
        """Record that nothing came in time, unless the journal holds what did."""
        entry = self._entry(call, Result(Outcome.TIMEOUT, b""))
        if self._fits(entry):
            self._expiring = True
            self._ledger.expire(entry, deadline).add_done_callback(partial(self._expired, entry))
        return True

    def _expired(self, entry: Entry, write: asyncio.Future[bool]) -> None:
        self._expiring = False
        if self.over or write.cancelled() or write.exception() is not None:
            return
        if write.result():
            self._replay.append(entry)
            self._recorded(entry)
            self.drive()
        else:
            self._clerk.look()  # it came in time, and this pass has not heard of it

    def _call_to_end(self) -> Call | None:
        """The cancellation that is to be given to the body now: at somebody's request, or because its time is over."""
        asked = self._replay.given
        if self._cancel is not None:
            return Call(CANCEL_KEY, Kind.CANCEL, "cancel", since=self._cancel.at, asked=asked)
        if self._deadline is not None and self._deadline <= self._around.clock.now():
            return Call(CANCEL_KEY, Kind.CANCEL, DEADLINE, since=self._deadline, asked=asked)
        return None

    def _next_due(self) -> int | None:
        """When the body is due by itself: its nearest wait is over, a step is tried again, or its time is over."""
        nearest = None if self._pausing else self._desk.nearest()
        times = (nearest[0] if nearest else None, None if self._cancelled else self._deadline)
        return min((time for time in times if time is not None), default=None)

    def _nothing(self) -> Result:
        return Result(Outcome.VALUE, self._around.vault.seal(b"null", self.row.id))

    # Recording and giving --------------------------------------------------------------------------------------------

    def _record(self, call: Call, result: Result, takes: Sequence[int] = ()) -> None:
        entry = self._entry(call, result)
        if self._fits(entry):
            self._replay.append(entry)
            self._ledger.record(entry, takes)
            self._recorded(entry)

    def _transacted(self, entry: Entry) -> None:
        self._replay.append(entry)
        self._recorded(entry)
        self.drive()

    def _recorded(self, entry: Entry) -> None:
        self._desk.replaying = False
        self._keeper.progressed(self)
        self._give(entry)
        if self._drained is not None:
            self._drained = replace(self._drained, heard=self._mailbox.latest)

    def _entry(self, call: Call, result: Result) -> Entry:
        return Entry(
            seq=self._replay.seq + 1,
            key=call.key,
            kind=call.kind,
            name=call.name,
            digest=call.digest,
            outcome=result.outcome,
            payload=result.payload,
            asked=call.asked,
            started_at=call.since,
            at=max(self._desk.clock, self._around.clock.now()),
            attempts=call.attempt,
        )

    def _fits(self, entry: Entry) -> bool:
        """Whether the run may have one more entry; else it is to be parked."""
        return entry.seq <= self._around.max_entries or self._too_many()

    def _too_many(self) -> bool:
        self._desk.park(Reason.MAX_ENTRIES, too_many(self.row.id, self._replay.seq, self._around.max_entries))
        return False

    def _give(self, entry: Entry) -> None:
        if entry.key == CANCEL_KEY:
            self._drained = None
            self._deliver_cancel(entry)
            return
        call = self._desk.close(entry.key, entry.at)
        self._drained = Drained(entry.key, entry.name, 0) if entry.kind is Kind.DRAIN else None
        if call.timer is not None:
            self._desk.loop.fire(call.timer)
            return
        assert call.future is not None
        if call.future.done():
            return  # cancelled, and its task has not run since
        try:
            value, error = self._read(call, entry)
        except (Undecodable, DefinitionError) as problem:
            self._desk.park(Reason.UNDECODABLE, problem)
            return
        if error is None:
            call.future.set_result(value)
        else:
            call.future.set_exception(error)

    def _read(self, call: Call, entry: Entry) -> tuple[Any, Exception | None]:
        where = f"run {self.row.id}, {entry.key}"
        if call.step is not None:
            return read_outcome(self._around.vault, call.step.spec, entry, where)
        if call.wish is not None:
            return read_wish(self._around.vault, call.wish, entry, where)
        return None, None

    def _deliver_cancel(self, entry: Entry) -> None:
        assert self._main is not None
        self._desk.clock = max(self._desk.clock, entry.at)
        reason = self._cancel.reason if self._cancel is not None else ""
        self._pause = None
        self._cancelled = Cancellation(entry.name == DEADLINE, reason, self._main.cancelling())
        self._main.cancel()

    # Beginning -------------------------------------------------------------------------------------------------------

    def _begin_fresh(self) -> bool:
        """Begin what was called and is not recorded; False if the journal says that the code has changed."""
        fresh = self._desk.fresh()
        if not fresh or self._crew.flight.clearing:
            return True
        under_way = len(self._crew.flight) + len(self._errands) + self._mailbox.children
        if self._replay.seq + under_way + len(fresh) > self._around.max_entries:
            return bool(under_way) or self._too_many()  # an effect whose outcome may not be recorded must not happen
        problem = self._replay.before_fresh(fresh, self._around.step_exists)
        self._ledger.amend(self._replay.accepted())
        if problem is not None:
            self._desk.diverge(problem)
            return False
        doubtful = next((call for call in fresh if self._crew.knows_nothing_of(call)), None)
        if doubtful is not None:
            return bool(under_way) or self._crew.is_ambiguous(doubtful)
        self._settle_changes()
        # Transactions one by one, and last: each takes the next place in the order.
        exact = [call for call in fresh if call.kind is Kind.TRANSACTION]
        others = [call for call in fresh if call.kind is not Kind.TRANSACTION]
        self._desk.begun(left=exact[1:])
        self._desk.replaying = False
        for call in others + exact[:1]:
            self._start(call)
        self._crew.recovered = False  # what begins after this cannot have begun in a process that died
        return True

    def _settle_changes(self) -> None:
        """The replay is over, and what a person accepted was meant for it alone."""
        if self._replay.settle(self._around.step_exists):
            self._ledger.amend(self._replay.accepted())
            self._ledger.settle_changes()

    def _start(self, call: Call) -> None:
        if call.step is not None:
            if call.kind is Kind.TRANSACTION:
                call.since = self._around.clock.now()
                call.began = call.began or call.since
                self._crew.transact(call, call.step, self._entry(call, Result(Outcome.VALUE, b"")))
            else:
                self._crew.start(call, call.step)
            return
        assert call.wish is not None
        assert call.wish.errand is not None  # a mere wait has nothing to begin, and is never fresh
        self._leftovers.begun(call)
        match call.wish.errand:
            case AskQuestion() as question:
                self._errands.ask(call, question)
            case errand:
                self._errands.begin(call, errand)

    def _given_up(self, call: Call) -> None:
        """The body no longer waits for this call: nor need anybody else do anything for it."""
        if call.step is not None:
            self._crew.flight.give_up(call)
        elif self._cancelled is None or not self._cancelled.by_deadline or call.kind is not Kind.CHILD:
            self._leftovers.give_up(call)  # else the deadline is the child's as well

    def _tidy_up(self) -> None:
        """Let nobody do anything more for what was given up, and keep what the body says of itself, where that is new."""
        now = self._around.clock.now()
        self._leftovers.tidy_up(self._ledger, now, self._tell)
        if self._ending and self._desk.trouble is not None and self._desk.replaying:
            return  # what it said by then was said long ago
        said = (self._desk.status, self._desk.progress)
        if said != self._reported:
            self._reported = said
            self._ledger.report(Report(*said, now)).add_done_callback(self._report_kept)

    def _tell(self, rows: Sequence[RunRow]) -> None:
        self._keeper.told(*rows)

    def _report_kept(self, report: asyncio.Future[None]) -> None:
        if not report.cancelled() and report.exception() is None:
            self._keeper.reported(self)

    # Rest ------------------------------------------------------------------------------------------------------------

    def _soon(self) -> bool:
        """Whether a step is tried again so soon that suspending the run would cost more than waiting."""
        nearest = self._desk.nearest()
        return (
            nearest is not None
            and nearest[1].step is not None
            and nearest[0] - self._around.clock.now() <= _SHORT_BACK_OFF
        )

    def _arm(self) -> None:
        """While steps are in flight, deadlines are this pass's own business."""
        due = self._next_due()
        if due is None or (self._alarm is not None and self._alarm[0] == due):
            return
        if self._alarm is not None:
            self._alarm[1].cancel()
        self._alarm = (due, self._around.clock.call_at(self._around.loop, due, self._ring))

    def _ring(self) -> None:
        self._alarm = None
        self.drive()

    def rested(self) -> None:
        """Tell the keeper of the rest, unless there is news already."""
        if self.over:
            return
        nudged, self._nudged = self._nudged, False
        if nudged and not self._standing_down and self._has_news():
            self._go_on()  # before the keeper hears of the rest, and may unload what is to go on
        else:
            self._keeper.rested(self, self._next_due())

    def disturbed(self, news: Suspension, *, paused: bool) -> None:
        """Give the body the news that forbade its rest."""
        if self.over:
            return
        if self._standing_down:
            self._keeper.left(self, self.leave(interrupted=self.row.interrupted))
            return
        self.hear(news.cancel, news.pause)
        if not paused:
            self._clerk.look()  # what has come may be mail
        self.drive()

    def _go_on(self) -> None:
        self._suspender.go_on()
        self._keeper.woke(self)

    def went_on(self, news: News) -> None:
        """Give the body the news for which the run was taken again, unless it was paused in that moment."""
        if not self.over:
            self.hear(news.cancel, news.pause)
            self.drive()

    def overtaken(self) -> None:
        """Let the body go: somebody else drives the run."""
        if not self.over:
            logger.debug("run %s was taken by another pass in the meantime", self.row.id)
            self.drop()

    # End -------------------------------------------------------------------------------------------------------------

    def _closing_generators(self, main: BodyTask[Any]) -> bool:
        """Close what the body left open, in order; whether that is still going on."""
        if self._closer is None:
            left = self._desk.loop.open_generators()
            if not left:
                return False
            self._closer = self._desk.loop.spawn(_close_all(left), Branch("~g"), main.own_context.copy())
        return not self._closer.done()

    def _finish(self, main: BodyTask[Any]) -> None:
        for key in self._replay.unused():
            logger.warning("run %s ended without asking for the recorded outcome of %s", self.row.id, key)
        left_open = "" if main.cancelled() else self._desk.left_open(main)
        returns = self._spec.parameters.returns
        ending = verdict(
            main, self.row, self._cancelled, left_open=left_open, returns=returns, vault=self._around.vault
        )
        self._end(ending)

    def _park(self) -> None:
        assert self._desk.trouble is not None
        reason, error = self._desk.trouble
        self._end(Ending(State.PARKED, reason, stored_error(error, self._around.vault, self.row.id)))

    def _end(self, ending: Ending) -> None:
        self._ending = True
        cut_off = self._crew.unsure and ending.state in (State.FAILED, State.PARKED)
        self._crew.flight.stop()
        self._errands.stop()
        self._tidy_up()
        keys = tuple(key for key in ending.keys if key in self._replay)
        now = self._around.clock.now()
        end = End(ending.state, ending.reason, ending.result, now, keys, self._drained, interrupted=cut_off)
        self._ledger.end(end).add_done_callback(partial(self._ended, end))

    def _ended(self, end: End, write: asyncio.Future[Ended | None]) -> None:
        if self.over or write.cancelled() or write.exception() is not None:
            return
        how = write.result()
        self.unload()
        if how is None:
            self._keeper.goes_on(self)
        else:
            self._keeper.ended(self, end, how)

    # Leaving memory --------------------------------------------------------------------------------------------------

    def refused(self, error: BaseException) -> None:
        """Let the body go: the journal takes nothing more of this pass."""
        if self.over:
            return
        if isinstance(error, JournalError):
            logger.warning("run %s: %s; this worker lets the run go", self.row.id, error)
        else:
            logger.error("run %s: a write was refused; this worker lets the run go", self.row.id, exc_info=error)
        self.drop()

    def drop(self) -> None:
        """Give the pass up without an outcome."""
        self.unload()
        self._keeper.dropped(self)

    def _lost(self) -> None:
        """The program ends, or somebody cancelled a step: no outcome, no death, and whoever looks next goes on."""
        if not self.over:
            self._ledger.give_back(self._around.clock.now())
            self.drop()

    def stand_down(self) -> None:
        """From now on begin nothing, and leave as soon as nothing is in flight."""
        self._standing_down = True
        self._around.loop.call_soon(self.drive)

    def leave(self, *, interrupted: bool) -> asyncio.Future[None]:
        """Take the body out of memory and give the run back in good order; done once that is committed."""
        self.unload()
        return self._ledger.leave(self._around.clock.now(), interrupted=interrupted)

    def unload(self) -> None:
        """Take the body out of memory; nothing that its clean-up code does meanwhile is recorded."""
        if self.over:
            return
        self.over = True
        self._crew.flight.stop()
        self._errands.stop()
        self._arrivals.stop()
        self._clerk.stop()
        if self._alarm is not None:
            self._alarm[1].cancel()
        self._desk.unload()

    def in_flight(self) -> list[str]:
        """The keys of the steps whose attempts have not ended."""
        return self._crew.flight.keys()

    def steps_in_flight(self) -> Collection[asyncio.Task[Any]]:
        """The attempts that have not ended."""
        return self._crew.flight.tasks()


async def _close_all(generators: Iterable[Any]) -> None:
    for generator in generators:
        try:
            await generator.aclose()
        except Exception:
            logger.exception("an async generator that a body left open raised while it was closed")
