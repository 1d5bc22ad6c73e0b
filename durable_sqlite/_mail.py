"""What has come for a run and its body was not given yet: messages, answers, the ends of other runs. Pure: it decides.

Each open call that waits for one of these is listed here; whoever drives the body asks what there is to give.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ._call import Call
from ._records import Kind, Mail, Message, Question, RunRow

__all__ = ["Delivery", "Mailbox"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something that has come, and the call that gets it."""

    call: Call
    what: Message | Question | RunRow


class Mailbox:
    """A run's mail, and the open calls that wait for some.

    Args:
        messages: Neither taken nor set aside, oldest first.
        questions: Answered, and the answer is not recorded.
    """

    def __init__(self, messages: Iterable[Message], questions: Iterable[Question]) -> None:
        self._messages: dict[str, deque[Message]] = {}
        self._answers: dict[str, Question] = {}
        self._ended: dict[str, RunRow] = {}
        self.latest = 0
        """The number of the last message that has come, as far as is known."""
        self._gone: set[int] = set()
        """Messages that were taken or set aside here: a look that began earlier may still bring them."""
        self._takers: dict[str, dict[str, Call]] = {}
        """Open waits for a message by its name, and then by key, longest first."""
        self._askers: dict[str, Call] = {}
        self._attendants: dict[str, dict[str, Call]] = {}
        """Open waits for the end of a run by its id, and then by key."""
        self._children: set[str] = set()
        self.refill(Mail(tuple(messages), tuple(questions)))

    def refill(self, mail: Mail) -> None:
        """Put in what a look at the journal has found."""
        self._messages.clear()
        for message in mail.messages:
            self.latest = max(self.latest, message.no)
            if message.no not in self._gone:
                self._messages.setdefault(message.name, deque()).append(message)
        self._answers = {question.key: question for question in mail.questions}
        for row in mail.ended:
            self._ended[row.id] = row

    def put(self, what: Message | Question) -> None:
        """Put in what has come just now, unless a look has found it already: it is the last that has come."""
        if isinstance(what, Question):
            self._answers[what.key] = what
        elif what.no > self.latest:
            self.latest = what.no
            self._messages.setdefault(what.name, deque()).append(what)

    def wait(self, call: Call) -> None:
        """List an open call."""
        if call.kind is Kind.SIGNAL:
            self._takers.setdefault(call.name, {})[call.key] = call
        elif call.kind is Kind.QUESTION:
            self._askers[call.key] = call
        elif call.target is not None:
            self._attendants.setdefault(call.target, {})[call.key] = call
            if call.kind is Kind.CHILD:
                self._children.add(call.key)

    def close(self) -> None:
        """Strike off all: the body is gone."""
        self._takers.clear()
        self._askers.clear()
        self._attendants.clear()

    def forget(self, call: Call) -> None:
        """Strike off a call that has its outcome, or was given up."""
        if call.kind is Kind.SIGNAL:
            _strike(self._takers, call.name, call.key)
        elif call.kind is Kind.QUESTION:
            self._askers.pop(call.key, None)
        elif call.target is not None:
            _strike(self._attendants, call.target, call.key)
            self._children.discard(call.key)
            if call.target not in self._attendants:
                self._ended.pop(call.target, None)  # a run that failed may go on, and end again

    @property
    def children(self) -> int:
        """How many calls of child runs are open: each of them will have an entry."""
        return len(self._children)

    def awaited(self) -> list[str]:
        """The ids of the runs whose ends are waited for."""
        return list(self._attendants)

    def next(self) -> Delivery | None:
        """What can be given now: an answer, the end of a run, or the oldest message that somebody waits for."""
        for key, question in self._answers.items():
            if (call := self._askers.get(key)) is not None:
                return Delivery(call, question)
        for run_id, calls in self._attendants.items():
            if run_id in self._ended:
                return Delivery(next(iter(calls.values())), self._ended[run_id])
        oldest: Delivery | None = None
        for name, calls in self._takers.items():
            found = self._first(name, calls)
            if found is not None and (oldest is None or _number(found) < _number(oldest)):
                oldest = found
        return oldest

    def _first(self, name: str, calls: dict[str, Call]) -> Delivery | None:
        """The longest-waiting call of a name whose deadline was not before the oldest message that is left for it."""
        for call in calls.values():
            for message in self._messages.get(name, ()):
                if call.deadline is None or message.at <= call.deadline:
                    return Delivery(call, message)
        return None

    def there(self, name: str) -> list[Message]:
        """All messages of a name, oldest first."""
        return list(self._messages.get(name, ()))

    def remove(self, message: Message) -> None:
        """Note that a message was taken or set aside."""
        self._gone.add(message.no)
        self._messages[message.name].remove(message)

    def unanswer(self, key: str) -> None:
        """Note that an answer was taken away again."""
        self._answers.pop(key, None)

    def heard(self, row: RunRow) -> None:
        """Note that a run has ended."""
        self._ended[row.id] = row


def _number(delivery: Delivery) -> int:
    assert isinstance(delivery.what, Message)
    return delivery.what.no


def _strike(listed: dict[str, dict[str, Call]], place: str, key: str) -> None:
    calls = listed.get(place, {})
    calls.pop(key, None)
    if not calls:
        listed.pop(place, None)
