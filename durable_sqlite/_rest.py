"""How a run rests and goes on.

A body to which nothing can be given waits for what is under way; else its run is given back to the journal, and taken again
by the pass that still has the body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from ._clerk import Clerk
from ._clock import Alarm
from ._control import Control
from ._crew import Crew
from ._desk import Desk
from ._giver import Giver
from ._ledger import Ledger
from ._line import Line
from ._mail import Mailbox
from ._records import Memory, News, Rest, Suspension, Taken, Wait
from ._surroundings import Surroundings
from .errors import LeaseLost

__all__ = ["Rester"]

_SHORT_BACK_OFF = 1_000_000  # microseconds that a run waits for a step's next attempt without being suspended


class Rester:
    """Lets the run of one pass rest, and go on.

    Args:
        around: What all passes share.
        memory: What earlier passes wrote of what the run waits for.
        ledger: What the pass writes.
        desk: What the body waits for.
        control: What is asked of the run.
        crew: The steps that are under way.
        giver: What else there is to be given.
        mailbox: What has come by mail.
        clerk: Looks for it.
        line: Leads to whoever drives the body.
    """

    __slots__ = (
        "_alarm",
        "_around",
        "_clerk",
        "_control",
        "_crew",
        "_desk",
        "_giver",
        "_ledger",
        "_line",
        "_mailbox",
        "_written",
        "at_rest",
        "nudged",
        "paused",
        "returning",
        "suspending",
    )

    def __init__(
        self,
        around: Surroundings,
        memory: Memory,
        *,
        ledger: Ledger,
        desk: Desk,
        control: Control,
        crew: Crew,
        giver: Giver,
        mailbox: Mailbox,
        clerk: Clerk,
        line: Line,
    ) -> None:
        self._around = around
        self._ledger = ledger
        self._desk = desk
        self._control = control
        self._crew = crew
        self._giver = giver
        self._mailbox = mailbox
        self._clerk = clerk
        self._line = line
        self._written: Mapping[str, Wait] = {wait.key: wait for wait in memory.waits}
        """What the journal holds of what the run waits for."""
        self._alarm: tuple[int, Alarm] | None = None
        self.suspending = False
        """Whether it is being given back."""
        self.nudged = False
        """Whether there was something to look at meanwhile."""
        self.returning = False
        """Whether it is being taken again."""
        self.at_rest = False
        self.paused = False
        """Whether it rests because it is paused."""

    # Resting ---------------------------------------------------------------------------------------------------------

    def rest(self) -> bool:
        """Wait for what is under way, or be suspended; False if nothing can ever bring what the body waits for."""
        control = self._control
        if self._crew.transacting:
            pass  # its outcome takes the next place in the order
        elif self._giver.under_way or (self._soon() and not control.holding_back):
            self._arm()
        elif self._giver.arrivals:
            self._around.loop.call_soon(self._line.drive)  # held back for what has begun, and it has no outcome
        elif control.standing_down and control.pause is None and self._desk.fresh():
            self._line.give_way()
        elif self._clerk.looking:
            pass  # what it brings may be what the body waits for
        elif self._desk.waiting:
            self._suspend()
        else:
            return False
        return True

    def stop(self) -> None:
        """The pass is over."""
        if self._alarm is not None:
            self._alarm[1].cancel()

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
        due = self._control.next_due(self._desk)
        if due is None or (self._alarm is not None and self._alarm[0] == due):
            return
        if self._alarm is not None:
            self._alarm[1].cancel()
        self._alarm = (due, self._around.clock.call_at(self._around.loop, due, self._ring))

    def _ring(self) -> None:
        self._alarm = None
        self._line.drive()

    # Being suspended -------------------------------------------------------------------------------------------------

    def _suspend(self) -> None:
        """Give the run back until one of its waits is over; or until it is no longer to be paused."""
        self._giver.settle_changes()
        desk, written, paused = self._desk, self._written, self._control.pause is not None
        waits = {key: call.as_wait() for key, call in desk.waiting.items()}
        nearest = desk.nearest()
        if self._crew.recovered:
            desk.cut_all_off()
        self.suspending = True
        rest = Rest(
            at=self._around.clock.now(),
            opened=[wait for key, wait in waits.items() if written.get(key) != wait],
            closed=[key for key in written if key not in waits],
            due=nearest[0] if nearest else None,
            paused=paused,
            interrupted=desk.cut_off,
        )
        self._ledger.suspend(rest).add_done_callback(partial(self._suspended, waits, paused))

    def _suspended(self, waits: Mapping[str, Wait], paused: bool, write: asyncio.Future[Suspension]) -> None:  # noqa: FBT001 - a callback takes no keywords
        self.suspending = False
        if write.cancelled() or write.exception() is not None:
            return
        outcome = write.result()
        if outcome.suspended:
            self._written = waits
            self.at_rest, self.paused = True, paused
            self._rested()
        else:
            self._disturbed(outcome, paused=paused)

    def _rested(self) -> None:
        """Let the keeper hear of the rest, unless there is news already."""
        if self._line.is_over():
            return
        nudged, self.nudged = self.nudged, False
        if nudged and not self._control.standing_down and self.has_news():
            self.go_on()  # before the keeper hears of the rest, and may unload what is to go on
        else:
            self._line.rested(self._control.next_due(self._desk))

    def _disturbed(self, news: Suspension, *, paused: bool) -> None:
        """Give the body the news that forbade its rest."""
        if self._line.is_over():
            return
        if self._control.standing_down:
            self._line.give_way()
            return
        self._control.hear(news.cancel, news.pause)
        if not paused:
            self._clerk.look()  # what has come may be mail
        self._line.drive()

    # Going on --------------------------------------------------------------------------------------------------------

    def has_news(self) -> bool:
        """Whether a run at rest has something to go on with."""
        if self._control.to_end:
            return True
        due = self._control.next_due(self._desk)
        if due is not None and due <= self._around.clock.now():
            return True
        if self._control.pause is not None:
            return False
        return self.paused or self._mailbox.next() is not None

    def go_on(self) -> None:
        """Take the run again, and go on once that is committed.

        Not earlier: a claim of this very worker may have taken the run just before, for another pass. That pass has the same
        owner and epoch as this one would have, so the journal could not tell their writes apart.
        """
        self.at_rest = self.paused = False
        self.returning = True
        self._ledger.reclaim(self._around.clock.now()).add_done_callback(self._returned)
        self._line.woke()

    def taken(self, taken: Taken) -> None:
        """Go on at once: what has come has taken the run with it."""
        self.at_rest = self.paused = False
        self._ledger.hold = taken.hold
        self._mailbox.put(taken.what)
        self._line.woke()
        self._went_on(taken.news)

    def _returned(self, write: asyncio.Future[News]) -> None:
        self.returning = False
        if write.cancelled():
            return
        error = write.exception()
        if error is None:
            self._went_on(write.result())
        elif isinstance(error, LeaseLost):
            self._line.overtaken()
        else:
            self._line.refused(error)

    def _went_on(self, news: News) -> None:
        """Give the body the news for which the run was taken again, unless it was paused in that moment."""
        if not self._line.is_over():
            self._control.hear(news.cancel, news.pause)
            self._line.drive()
