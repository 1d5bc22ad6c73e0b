"""The words of a journal: states, reasons, kinds, outcomes, and the keys that nobody chooses."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

__all__ = ["CANCEL_KEY", "DEADLINE", "IfExists", "Kind", "Outcome", "Reason", "State", "StateName", "abandoner"]

CANCEL_KEY = "~cancel"
"""The key of the one entry that cancels a run, at somebody's request or at its deadline; no call can have it."""


def abandoner(run_id: str) -> str:
    """Who asks a child run to end that the body of this run no longer waits for, in its request."""
    return f"run {run_id}"


DEADLINE = "deadline"
"""The name of that entry where the deadline has passed."""


class State(StrEnum):
    """What a run is."""

    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    PARKED = "parked"

    @property
    def stopped(self) -> bool:
        """Whether nothing moves it any more by itself: completed, cancelled, failed or parked."""
        return self in _STOPPED

    @property
    def ended(self) -> bool:
        """Whether it takes no message any more, and whoever waits for it is told: stopped, but not parked."""
        return self.stopped and self is not State.PARKED


StateName = Literal["pending", "running", "suspended", "paused", "completed", "cancelled", "failed", "parked"]
"""The states as people type them."""

_STOPPED = frozenset({State.COMPLETED, State.CANCELLED, State.FAILED, State.PARKED})


class Reason(StrEnum):
    """Why a run failed or was parked."""

    RETRIES_EXHAUSTED = "retries_exhausted"
    PERMANENT = "permanent"
    ERROR = "error"
    DEADLINE = "deadline"
    DIVERGED = "diverged"
    UNDECODABLE = "undecodable"
    CRASH_LOOP = "crash_loop"
    AMBIGUOUS = "ambiguous"
    MAX_ENTRIES = "max_entries"
    NOT_DURABLE = "not_durable"
    DAMAGED = "damaged"


class Kind(StrEnum):
    """What an entry is the outcome of."""

    STEP = "step"
    TRANSACTION = "transaction"
    """A step whose rows and outcome are one commit."""
    SLEEP = "sleep"
    TIMER = "timer"
    SIGNAL = "signal"
    """A wait for a message."""
    QUESTION = "question"
    """A suspend point: a wait for somebody's answer."""
    CHILD = "child"
    """A workflow that was called: a wait for the end of the child run."""
    RUN = "run"
    """A wait for the end of a run by its handle."""
    DRAIN = "drain"
    """All messages that are there."""
    ACT = "act"
    """Something done to a run: started, sent a message, answered, cancelled."""
    CANCEL = "cancel"

    @property
    def waits(self) -> bool:
        """Whether a run may be suspended while it is open."""
        return self not in _ACTIVE


_ACTIVE = frozenset({Kind.STEP, Kind.TRANSACTION, Kind.DRAIN, Kind.ACT})


class Outcome(StrEnum):
    """How an entry ended. A declared error is an answer; an error is a fault."""

    VALUE = "value"
    ERROR = "error"
    DECLARED = "declared"
    TIMEOUT = "timeout"
    """Nothing came before the deadline of a wait."""


class IfExists(StrEnum):
    """What `start` does when the id is taken."""

    ATTACH = "attach"
    FAIL = "fail"
    REPLACE = "replace"
