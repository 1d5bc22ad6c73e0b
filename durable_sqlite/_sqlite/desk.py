"""What the verbs of the port share inside a transaction.

Each verb is a function that runs on the connection's thread, in a batch with others. It **returns** a refusal that is
an answer (`LeaseLost`, `RunConflict` …) and has then changed nothing, so that the others are not disturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .._records import CANCEL_KEY, Hold, Request, RunRow
from ..errors import LeaseLost, UnknownRun
from .rows import Row, Tables, request_of

__all__ = ["Desk", "Held", "asked", "unknown"]


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a run that this worker holds."""

    id: str
    deadline: int | None
    told: bool
    """The body was told to end already: its deadline has nothing more to say."""
    cancel: Request | None
    pause: Request | None

    @property
    def unheard(self) -> Request | None:
        """The request to cancel that the body was not given."""
        return None if self.told else self.cancel


@dataclass(slots=True)
class Desk(Tables):
    """What a verb works with, and who is writing."""

    me: int
    fenced: bool
    """This worker may no longer drive runs; its clients may go on."""
    tick: int = 0
    """The number of this transaction, once it has written a run. To be put back with what a savepoint takes back."""

    def holding(self, hold: Hold, **more: object) -> dict[str, object]:
        """The parameters that make a write conditional on the hold."""
        return {"run": hold.run, "me": self.me, "epoch": hold.epoch, **more}

    def touch(self, name: str, parameters: Mapping[str, object]) -> int:
        """The number of runs that were written; each of them has the number of this transaction then."""
        if not self.tick:
            (self.tick,) = self.one("tick", {})
        return self.change(name, {**parameters, "tick": self.tick})

    def touching(self, name: str, parameters: Mapping[str, object]) -> list[Row]:
        """What is to be known of the runs that were written, as `touch` writes them."""
        if not self.tick:
            (self.tick,) = self.one("tick", {})
        return self.all(name, {**parameters, "tick": self.tick})

    def holds(self, hold: Hold) -> bool:
        """Whether this worker holds the run."""
        return bool(self.all("holds", self.holding(hold)))

    def held(self, hold: Hold) -> Held | None:
        """What was asked of the run, or None where this worker does not hold it."""
        row = self.first("held", self.holding(hold, cancel_key=CANCEL_KEY))
        if row is None:
            return None
        run_id, deadline, told, *requests = row
        return Held(run_id, deadline, bool(told), request_of(*requests[:3]), request_of(*requests[3:]))

    def by_id(self, run_id: str) -> RunRow | None:
        """The run of this id, or None."""
        found = self.runs(self.sql["where_id"], {"id": run_id})
        return found[0] if found else None

    def below(self, no: int, act: Callable[[int], bool]) -> list[int]:
        """Do something about each descendant of a run; those for which it returned True."""
        return [each for (each,) in self.all("below", {"run": no}) if act(each)]

    def stopped(self, no: int, at: int) -> None:
        """A run has stopped: it waits for nothing and asks nothing any more."""
        self.change("forget_waits", {"run": no})
        self.change("close_questions", {"run": no, "at": at})

    def ended(self, run_id: str, at: int) -> int:
        """A run has ended: tell those that wait for it; how many suspended ones are pending now."""
        if not self.change("mark_over", {"id": run_id}):
            return 0
        return self.touch("wake_waiters", {"id": run_id, "at": at})

    def lost(self, hold: Hold) -> LeaseLost:
        """Why a write with this hold was refused."""
        now = self.first("whose", {"run": hold.run})
        if now is None:
            return LeaseLost(f"run number {hold.run} was replaced; this write was refused and nothing changed")
        run_id, word, owner, epoch = now
        driver = {None: "nobody", self.me: "this worker"}.get(owner, f"worker {owner}")
        return LeaseLost(
            f"run {run_id} is {word}, driven by {driver} in epoch {epoch}, and this write came from epoch {hold.epoch}: "
            "it was refused and nothing changed. Drop the body"
        )


def unknown(run_id: str) -> UnknownRun:
    """The answer where there is no such run."""
    return UnknownRun(run_id, f"no run has the id {run_id}")


def asked(run: int, request: Request) -> dict[str, object]:
    """The parameters of a request to a run."""
    return {"run": run, "at": request.at, "reason": request.reason, "by": request.by, "cancel_key": CANCEL_KEY}
