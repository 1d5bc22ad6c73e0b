"""What is asked of a run from outside, as far as one pass has heard of it: to end, to pause, to be over by some time.

It decides what follows from that; whoever drives the body acts on it.
"""

from __future__ import annotations

from ._call import Call
from ._clock import Clock
from ._desk import Desk
from ._records import CANCEL_KEY, DEADLINE, Kind, Request, RunRow
from ._verdict import Cancellation

__all__ = ["Control"]


class Control:
    """What is asked of one run.

    Args:
        row: What was asked before the pass began.
        clock: The time.
    """

    __slots__ = ("_cancel", "_clock", "_deadline", "cancelled", "pause", "standing_down")

    def __init__(self, row: RunRow, clock: Clock) -> None:
        self._clock = clock
        self._cancel = row.cancel
        self._deadline = row.deadline_at
        self.pause = row.pause
        """Set while nothing more is to begin; a body that was told to end goes on to its end."""
        self.cancelled: Cancellation | None = None
        """How the body was told to end, once it was."""
        self.standing_down = False
        """Whether this worker is to drive nothing more."""

    @property
    def holding_back(self) -> bool:
        """Whether nothing more is to begin on this pass."""
        return self.standing_down or self.pause is not None

    @property
    def to_end(self) -> bool:
        """Whether somebody has asked for the end, and the body was not told to yet."""
        return self._cancel is not None and not self.cancelled

    def hear(self, cancel: Request | None, pause: Request | None) -> None:
        """Note what is asked."""
        self._cancel = self._cancel or cancel
        self.pause = None if self._cancel is not None or self.cancelled else pause

    def call_to_end(self, asked: int) -> Call | None:
        """The cancellation that is to be given to the body now: at somebody's request, or because its time is over.

        `asked` is the place of the last entry that the body was given.
        """
        if self.cancelled:
            return None
        if self._cancel is not None:
            return Call(CANCEL_KEY, Kind.CANCEL, "cancel", since=self._cancel.at, asked=asked)
        if self._deadline is not None and self._deadline <= self._clock.now():
            return Call(CANCEL_KEY, Kind.CANCEL, DEADLINE, since=self._deadline, asked=asked)
        return None

    def told_to_end(self, *, by_deadline: bool, before: int) -> None:
        """Note that the body is told to end now; `before` is how often its task was told to before."""
        reason = self._cancel.reason if self._cancel is not None else ""
        self.pause = None
        self.cancelled = Cancellation(by_deadline, reason, before)

    def next_due(self, desk: Desk) -> int | None:
        """When the body is due by itself: its nearest wait is over, a step is tried again, or its time is over."""
        nearest = None if self.pause is not None else desk.nearest()
        times = (nearest[0] if nearest else None, None if self.cancelled else self._deadline)
        return min((time for time in times if time is not None), default=None)
