"""Messages, questions and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .runs import Hold, News, RunRow

__all__ = [
    "Answered",
    "Mail",
    "Message",
    "NewAnswer",
    "NewMessage",
    "NewQuestion",
    "OpenQuestion",
    "Question",
    "QuestionQuery",
    "Sent",
    "Taken",
]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be sent to a run."""

    name: str
    """The signal's name."""
    payload: bytes
    at: int
    dedupe: str | None = None
    """A second message to the same run with the same value is the same message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to a run, as the journal holds it."""

    no: int
    """1, 2, 3 … in its run: the order in which messages were stored."""
    name: str
    payload: bytes
    at: int
    """When it was sent, by the sender's clock."""
    dedupe: str | None = None
    taken_by: str | None = None
    """The key of the entry that took it."""
    error: bytes | None = None
    """The encoded error, as stored, of a message that was set aside because it does not fit its type."""


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """A question that a run asks at a suspend point."""

    key: str
    """The key of its wait."""
    name: str
    """The suspend point's name."""
    payload: bytes
    """The encoded question, as stored."""
    schema: str
    """The JSON schema of the answer, as JSON."""
    at: int
    deadline: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question as the journal holds it. It is open while it has neither an answer nor been closed."""

    key: str
    name: str
    payload: bytes
    schema: str
    at: int
    deadline: int | None = None
    answer: bytes | None = None
    answered_at: int | None = None
    answered_by: str = ""
    closed_at: int | None = None
    """When it was over without an answer: its deadline passed, or the body no longer waits for it."""
    error: bytes | None = None
    """The encoded error, as stored, of the last answer that was set aside because it does not fit its type."""

    @property
    def is_open(self) -> bool:
        """Whether an answer would be taken, deadlines aside."""
        return self.answer is None and self.closed_at is None


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """An answer to a question of a run."""

    name: str
    key: str | None
    """Which question; None where the suspend point asks only one."""
    payload: bytes
    at: int
    by: str = ""
    early: bool = False
    """Where it has not been asked yet, keep the answer for the next question of this name."""
    dedupe: str | None = None
    """A second answer with the same value is the same answer."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A run that this worker drives from now on, since something has come for which its body rested here in memory."""

    hold: Hold
    what: Message | Question
    """All that has come since the body came to rest."""
    news: News


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a message."""

    row: RunRow
    """The run, after it."""
    message: Message
    new: bool
    """False where a message with the same `dedupe` was there already."""
    taken: Taken | None = None
    """Set where the run was taken with it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of an answer."""

    row: RunRow
    """The run, after it."""
    key: str | None
    """The question that was answered; None where the answer waits for the question."""
    taken: Taken | None = None
    """Set where the run was taken with it."""


@dataclass(frozen=True, slots=True)
class Mail:
    """What has come for a run and was not given to its body yet."""

    messages: Sequence[Message] = ()
    """Neither taken nor set aside, oldest first."""
    questions: Sequence[Question] = ()
    """Answered, and the answer was not recorded yet."""
    ended: Sequence[RunRow] = ()
    """Those of the runs asked about that have completed, failed or been cancelled."""


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """An open question, and the run that asks it."""

    run_id: str
    workflow: str
    question: Question


@dataclass(frozen=True, slots=True)
class QuestionQuery:
    """Which open questions to list, oldest first."""

    run_id: str | None = None
    workflow: str | None = None
    name: str | None = None
    limit: int | None = None
    after: tuple[int, str, str] | None = None
    """List only what comes behind the question asked at that time, by that run, with that key."""
