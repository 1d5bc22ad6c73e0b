"""What a body is given, one thing at a time.

First the recorded outcome with the lowest place in the run's order that the body has asked for; else one live event, which
is recorded before: a step has ended, the run is to end, something has come by mail, a deadline has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ._arrivals import Arrivals
from ._attempt import Doubt, Fault, Result, read_outcome
from ._body_loop import BodyTask
from ._call import Call
from ._clerk import Clerk
from ._control import Control
from ._crew import Crew
from ._desk import Desk
from ._errands import Errands, read_wish
from ._ledger import Ledger
from ._mail import Mailbox
from ._records import CANCEL_KEY, DEADLINE, Drained, Entry, Kind, Outcome, Reason, RunRow
from ._replay import Replay
from ._specs import TakeMessages
from ._surroundings import Surroundings
from ._verdict import too_many
from .errors import DefinitionError, Undecodable

__all__ = ["Giver"]


class Giver:
    """Gives the body of one pass what comes next in the run's order.

    Args:
        row: The run.
        around: What all passes share.
        main: The body's task; None where it could not be begun.
        ledger: Where live events are recorded.
        replay: What is recorded.
        desk: What the body asks for.
        control: What is asked of the run.
        crew: Judges what becomes of steps.
        errands: What else is under way.
        mailbox: What has come by mail.
        clerk: Opens it.
        is_over: Whether the pass is over.
        progressed: Is called when something new was recorded.
        again: Is called when there is something to be given, outside of the driver's turn.
    """

    __slots__ = (
        "_again",
        "_around",
        "_clerk",
        "_control",
        "_crew",
        "_desk",
        "_errands",
        "_is_over",
        "_ledger",
        "_mailbox",
        "_main",
        "_progressed",
        "_replay",
        "_row",
        "arrivals",
        "asking_late",
        "drained",
        "expiring",
    )

    def __init__(
        self,
        row: RunRow,
        around: Surroundings,
        main: BodyTask[Any] | None,
        *,
        ledger: Ledger,
        replay: Replay,
        desk: Desk,
        control: Control,
        crew: Crew,
        errands: Errands,
        mailbox: Mailbox,
        clerk: Clerk,
        is_over: Callable[[], bool],
        progressed: Callable[[], None],
        again: Callable[[], None],
    ) -> None:
        self._row = row
        self._around = around
        self._main = main
        self._ledger = ledger
        self._replay = replay
        self._desk = desk
        self._control = control
        self._crew = crew
        self._errands = errands
        self._mailbox = mailbox
        self._clerk = clerk
        self._is_over = is_over
        self._progressed = progressed
        self._again = again
        self.arrivals = Arrivals(crew.flight.results, around.loop, again)
        """What has ended, and was not given yet."""
        self.expiring = False
        """Whether it is being recorded that nothing came in time: until that is decided, nothing else is given."""
        self.asking_late = False
        """A question whose deadline has passed is to be asked before it expires."""
        self.drained: Drained | None = None
        """Set while the last thing that the body was given is all messages of a name."""

    @property
    def under_way(self) -> bool:
        """Whether anything is in flight whose outcome is awaited."""
        return bool(self._crew.flight or self._errands)

    def _more_to_come(self) -> bool:
        """Whether something is in flight or about to be that could have ended first."""
        return not self._control.holding_back and (self.under_way or bool(self._desk.fresh()))

    # What is next ----------------------------------------------------------------------------------------------------

    def give_recorded(self) -> bool:
        """Give the body the next recorded outcome, if it has asked for one."""
        entry = self._replay.next(self._desk.is_open)
        if entry is None:
            return False
        self._give(entry)
        return True

    def give_live(self) -> bool:
        """Record one live event, if there is one, and give it to the body."""
        if self._give_results():
            return True
        control = self._control
        if (cancel := control.call_to_end(self._replay.given)) is not None:
            self._record(cancel, self._nothing())
            return True
        if control.standing_down and not self.under_way:
            return False  # what comes now is given on the next pass, by whoever drives that
        return control.pause is None and (self._give_mail() or self._give_due())

    def _give_results(self) -> bool:
        """Give what a step or an errand has brought."""
        while (arrived := self.arrivals.next(self._replay.seq, self._more_to_come)) is not None:
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
            self._progressed()  # the failed attempt was recorded
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
                self.asking_late = True
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
        entry = self.entry(call, Result(Outcome.TIMEOUT, b""))
        if self._fits(entry):
            self.expiring = True
            self._ledger.expire(entry, deadline).add_done_callback(partial(self._expired, entry))
        return True

    def _expired(self, entry: Entry, write: asyncio.Future[bool]) -> None:
        self.expiring = False
        if self._is_over() or write.cancelled() or write.exception() is not None:
            return
        if write.result():
            self.recorded(entry)
            self._again()
        else:
            self._clerk.look()  # it came in time, and this pass has not heard of it

    def stop(self) -> None:
        """The pass is over."""
        self.arrivals.stop()

    # Recording -------------------------------------------------------------------------------------------------------

    def entry(self, call: Call, result: Result) -> Entry:
        """An outcome, as it takes the next place in the run's order."""
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

    def too_many(self) -> bool:
        """Let the run be parked, since it may have no more entries; gives False."""
        limit = self._around.max_entries
        self._desk.park(Reason.MAX_ENTRIES, too_many(self._row.id, self._replay.seq, limit))
        return False

    def settle_changes(self) -> None:
        """The replay is over, and what a person accepted was meant for it alone."""
        if self._replay.settle(self._around.step_exists):
            self._ledger.amend(self._replay.accepted())
            self._ledger.settle_changes()

    def _nothing(self) -> Result:
        return Result(Outcome.VALUE, self._around.vault.seal(b"null", self._row.id))

    def _fits(self, entry: Entry) -> bool:
        """Whether the run may have one more entry; else it is to be parked."""
        return entry.seq <= self._around.max_entries or self.too_many()

    def _record(self, call: Call, result: Result, takes: Sequence[int] = ()) -> None:
        entry = self.entry(call, result)
        if self._fits(entry):
            self._ledger.record(entry, takes)
            self.recorded(entry)

    def recorded(self, entry: Entry) -> None:
        """Give the body what was recorded just now."""
        self._replay.append(entry)
        self._desk.replaying = False
        self._progressed()
        self._give(entry)
        if self.drained is not None:
            self.drained = replace(self.drained, heard=self._mailbox.latest)

    # Giving ----------------------------------------------------------------------------------------------------------

    def _give(self, entry: Entry) -> None:
        if entry.key == CANCEL_KEY:
            self.drained = None
            self._tell_to_end(entry)
            return
        call = self._desk.close(entry.key, entry.at)
        self.drained = Drained(entry.key, entry.name, 0) if entry.kind is Kind.DRAIN else None
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
        where = f"run {self._row.id}, {entry.key}"
        if call.step is not None:
            return read_outcome(self._around.vault, call.step.spec, entry, where)
        if call.wish is not None:
            return read_wish(self._around.vault, call.wish, entry, where)
        return None, None

    def _tell_to_end(self, entry: Entry) -> None:
        assert self._main is not None
        self._desk.clock = max(self._desk.clock, entry.at)
        self._control.told_to_end(by_deadline=entry.name == DEADLINE, before=self._main.cancelling())
        self._main.cancel()
