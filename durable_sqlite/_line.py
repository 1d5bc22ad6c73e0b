"""What the parts of a pass know of it, until it is over.

A pass holds its parts, and they tell it what happens. If they held the pass for that, each run would leave some ninety
objects in a circle, for Python to search for, and the event loop stands still while it searches: for a tenth of a second
where thousands of timers were due. Cut, everything is freed at once.
"""

from __future__ import annotations

from typing import Protocol

from ._call import Call
from ._records import Entry

__all__ = ["Line"]


class _Pass(Protocol):
    over: bool

    def wake(self) -> None: ...
    def drive(self) -> None: ...
    def transacted(self, entry: Entry) -> None: ...
    def diverged(self, message: str) -> None: ...
    def given_up(self, call: Call) -> None: ...
    def progressed(self) -> None: ...
    def awaits(self, run_id: str) -> None: ...
    def rested(self, due: int | None) -> None: ...
    def woke(self) -> None: ...
    def give_way(self) -> None: ...
    def overtaken(self) -> None: ...
    def refused(self, error: BaseException) -> None: ...
    def lost(self) -> None: ...


class Line:
    """Leads to a pass while that is not over; what is told afterwards concerns nobody."""

    __slots__ = ("_run",)

    def __init__(self, run: _Pass) -> None:
        self._run: _Pass | None = run

    def cut(self) -> None:
        """The pass is over."""
        self._run = None

    def is_over(self) -> bool:
        """Whether the pass is over."""
        return self._run is None or self._run.over

    def wake(self) -> None:
        """There may be news for the body."""
        if self._run is not None:
            self._run.wake()

    def drive(self) -> None:
        """There may be something to give to the body."""
        if self._run is not None:
            self._run.drive()

    def transacted(self, entry: Entry) -> None:
        """A transaction step is committed."""
        if self._run is not None:
            self._run.transacted(entry)

    def diverged(self, message: str) -> None:
        """The body asks for something else than is recorded."""
        if self._run is not None:
            self._run.diverged(message)

    def given_up(self, call: Call) -> None:
        """The body no longer waits for this call."""
        if self._run is not None:
            self._run.given_up(call)

    def progressed(self) -> None:
        """A new outcome was recorded."""
        if self._run is not None:
            self._run.progressed()

    def awaits(self, run_id: str) -> None:
        """The body waits for the end of this run."""
        if self._run is not None:
            self._run.awaits(run_id)

    def rested(self, due: int | None) -> None:
        """The run is at rest until `due`, and that is committed."""
        if self._run is not None:
            self._run.rested(due)

    def woke(self) -> None:
        """The run is to be driven again."""
        if self._run is not None:
            self._run.woke()

    def give_way(self) -> None:
        """Nothing is in flight any more, and this worker stands down: give the run back."""
        if self._run is not None:
            self._run.give_way()

    def overtaken(self) -> None:
        """Somebody else has taken the run."""
        if self._run is not None and not self._run.over:
            self._run.overtaken()

    def refused(self, error: BaseException) -> None:
        """The journal takes nothing more of this pass."""
        if self._run is not None and not self._run.over:
            self._run.refused(error)

    def lost(self) -> None:
        """The program ends, or somebody cancelled a step: there is no outcome."""
        if self._run is not None:
            self._run.lost()
