"""All that is known of what a run has done and waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .entries import Entry, FailedAttempt, Intent, Wait
from .mail import Message, Question

__all__ = ["Memory"]


@dataclass(frozen=True, slots=True)
class Memory:
    """All that a journal holds of what a run has done and waits for."""

    entries: Sequence[Entry] = ()
    waits: Sequence[Wait] = ()
    attempts: Sequence[FailedAttempt] = ()
    intents: Sequence[Intent] = ()
    messages: Sequence[Message] = ()
    """Those that were not taken, oldest first; those that were set aside included."""
    questions: Sequence[Question] = ()
    """All that were ever asked, in that order."""
    children: Sequence[str] = ()
    """The ids of the runs that its body started and that have not stopped."""
    damage: str | None = None
    """What of it is not what was written, in words: then the rest is not to be relied on either."""
