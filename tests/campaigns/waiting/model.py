"""What the promises allow, plainly: bodies are given what was recorded, in that order, and all that happens is judged.

Which of several things came first is the journal's to say. The model says of each whether it was legal when it was
recorded, what clients must be told, what must have happened once nothing is left to do, and how a run must end.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .bodies import Body, Call
from .facts import Broken, Fact, Letter, Question, must
from .programs import Node

__all__ = ["Play"]


class Play:
    """One run: its body, what has come for it, and what was asked of it.

    Args:
        run: Its id.
        program: What it plays.
        at: When it was created.
        loop: Where its body runs.
        parent: The run that started it.
        detached: What is asked of that one is not asked of it.
    """

    def __init__(
        self, run: str, program: Node, at: int, loop: asyncio.AbstractEventLoop, parent: Play | None, *, detached: bool
    ) -> None:
        self.id, self.parent = run, parent
        self.sent: Mapping[str, str] = {}  # what became of each message that any body sent
        self.mail: list[Letter] = []
        self.had: set[str] = set()  # the dedupe values of its messages
        self.questions: dict[str, Question] = {}
        self.early: defaultdict[str, list[Any]] = defaultdict(list)
        self.family: list[Play] = []  # the runs that it started, but for the detached ones
        self.children: dict[str, Play] = {}  # all that it started, by the keys of the calls
        self.begun: Counter[str] = Counter()  # how often the body of each step began
        self.effects: set[str] = set()  # the keys of the steps whose effect has happened
        self.probed: set[str] = set()  # those of at-most-once steps that the world was asked about since they began
        self.booked: set[str] = set()  # the keys of the transactions whose rows must be there
        self.cancelled = self.paused = self.terminated = False  # what was asked of it
        self.abandoned = False  # nobody waits for it any more, so it is to be cancelled
        self._seen_late: dict[
            str, Call
        ] = {}  # what was open when the last commit came, as far as that may begin all the same
        self._seen_late_at = 0
        self.still = False  # paused or over since everything came to rest: nothing more begins
        self.promised = False  # whoever asked for the pause was answered: what is in flight may end, and no step begins
        self.rested = False
        self.deadline: int | None = None
        self.told = ""  # how its body was told to end: `cancel`, `deadline`, or not yet
        self.end = ""
        self.ends: dict[str, Any] = {}  # all ends that it has had, with its results
        if parent is not None and not detached:
            parent.family.append(self)
            self.cancelled, self.paused, self.deadline = parent.cancelled, parent.paused, parent.deadline
        self.body = Body(program, at, loop, self._given_up)

    def _given_up(self, call: Call) -> None:
        question = self.questions.get(call.key)
        if question is not None and question.state == "open":
            question.state = "closing"
        if call.kind == "child" and call.key in self.children and self.told != "deadline":
            self.children[call.key].abandoned = True

    # What is recorded ------------------------------------------------------------------------------------------------

    def began(self, key: str, attempt: int, cuts: int) -> None:
        """An attempt's body begins; `cuts` processes have ended since the first did."""
        if self.end and not self.still:
            return  # it was terminated at this very moment
        self.begun[key] += 1
        call = self.body.open.get(key) or self._seen_late.get(key)
        must(call and call.kind == "step", "a step began that nobody waits for", self.id, key)
        must(not self.still, "a step began though its run is paused or over", self.id, key)
        written_down = call is not None and call.node.kind == "once"  # so it is to begin, or nobody would know
        must(written_down or not (self.paused and self.promised), "a step began after the pause", self.id, key)
        must(self.begun[key] <= attempt + cuts, "a step began again that nothing had cut off", self.id, key)
        once = call is not None and call.node.kind == "once"
        must(not (once and key in self.effects), "an at-most-once step began again after its effect", self.id, key)
        first = self.begun[key] == 1
        must(not once or first or key in self.probed, "an at-most-once step began again unasked", self.id, key)
        self.probed.discard(key)

    def started(self, key: str, child: Play) -> None:
        """A run is stored that the body starts."""
        call = self.body.open.get(key)
        legal = call is not None and (call.kind == "child" or call.node.kind == "start") and key not in self.children
        must(legal, "a run was started that nobody asks for, or once more", self.id, key, child.id)
        self.children[key] = child

    def recorded(self, fact: Fact, now: int) -> None:
        """The body is given an outcome."""
        if self._seen_late_at != now:
            self._seen_late_at, self._seen_late = now, {}
        # A step may wait for a commit before it begins: an at-most-once step for its own, all others for the transaction
        # that was asked for together with them, or for the word that nothing came in time. The body has not seen yet what
        # is in that one.
        late = fact.kind == "transaction" or fact.outcome == "timeout"
        self._seen_late |= {key: call for key, call in self.body.open.items() if late or call.node.kind == "once"}
        must(not self.end and self.body.clock <= fact.at <= now, "an entry is out of order", self.id, fact, now)
        if fact.kind == "cancel":
            legal = self._is_over(fact.at) if fact.name == "deadline" else self.cancelled
            must(legal and not self.told, "a body was told to end for no reason", self.id, fact)
            self.told, self.paused, self.still = fact.name, False, False
        else:
            call = self.body.open.get(fact.key)
            if call is None or call.kind != fact.kind:
                raise Broken(f"something was recorded that nobody waits for: {self.id}, {fact}")
            must(not self.still or call.kind == "step", "a paused run was given something", self.id, fact)
            timed = fact.outcome == "timeout" or call.kind in {"sleep", "timer"}
            must(not timed or (call.deadline or now + 1) <= fact.at, "a timer fired early", self.id, fact, call)
            if call.kind not in {"sleep", "timer"}:
                getattr(self, f"_{call.kind}")(call, fact)
        self.body.give(fact)

    def undone(self, key: str, now: int) -> None:
        """A last drain is taken back: messages came before the end was committed, and the run drains once more."""
        ended, fact = self.body.ending, self.body.take_back()
        more = any(letter.name == fact.name for letter in self.mail)
        must(ended and fact.key == key and fact.kind == "drain" and more, "an entry is gone", self.id, key, fact)
        self.mail = [Letter(fact.name, value, fact.at, now) for value in fact.value] + self.mail

    def _step(self, call: Call, fact: Fact) -> None:
        item, failures = call.node.kind == "each_step", call.node.failures
        fails = failures == call.number + 1 if item else failures >= (3 if call.name == "tries" else 1)
        value = 10 * call.node.id + call.number if item else call.node.id
        expected = ("error", "") if fails else ("value", value)
        must(self.begun[call.key], "a step was recorded that never began", self.id, fact)
        must((fact.outcome, fact.value) == expected, "a step came to something else", self.id, fact, expected)

    def _transaction(self, call: Call, fact: Fact) -> None:
        expected = ("error", "") if call.node.failures else ("value", call.node.id)
        must((fact.outcome, fact.value) == expected, "a transaction came to something else", self.id, fact, expected)
        if not call.node.failures:
            self.booked.add(call.key)

    def _signal(self, call: Call, fact: Fact) -> None:
        mail = self._mail_for(call)
        if fact.outcome == "timeout":
            late = all(letter.at > (call.deadline or 0) for letter in mail)
            must(late, "a wait timed out though a message had come", self.id, fact, mail)
            return
        must(mail and mail[0].value == fact.value, "a message was taken out of turn", self.id, fact, mail)
        waits = [one for one in self.body.open.values() if (one.kind, one.name) == ("signal", call.name)]
        fit = [one for one in waits if one.deadline is None or mail[0].at <= one.deadline]
        must(fit and fit[0] is call, "a wait was served out of turn or too late", self.id, fact, waits)
        self.mail.remove(mail[0])

    def _drain(self, call: Call, fact: Fact) -> None:
        mail, count = self._mail_for(call), len(fact.value)
        enough = [letter.value for letter in mail[:count]] == fact.value
        enough = enough and all(letter.stored_at >= call.since for letter in mail[count:])
        must(enough, "a drain took other messages than were there", self.id, fact, mail)
        self.mail = [letter for letter in self.mail if letter not in mail[:count]]

    def _mail_for(self, call: Call) -> list[Letter]:
        return [letter for letter in self.mail if letter.name == call.name]

    def _question(self, call: Call, fact: Fact) -> None:
        question = self.questions.get(call.key)
        if question is None or (question.state == "answered") == (fact.outcome == "timeout"):
            raise Broken(f"a question came to something else than was answered: {self.id}, {fact}, {question}")
        must(fact.value == question.value, "another answer was given than was accepted", self.id, fact, question)
        question.state = "closed" if fact.outcome == "timeout" else "answered"

    def _child(self, call: Call, fact: Fact) -> None:
        ends = self._ends_for(call)
        state = "completed" if fact.outcome == "value" else fact.value
        legal = state in ends and (state != "completed" or ends[state] == fact.value)
        must(legal, "a run heard of another end of a run than there was", self.id, fact, ends)

    _run = _child

    def _ends_for(self, call: Call) -> dict[str, Any]:
        key = call.key if call.kind == "child" else call.name
        return self.children[key].ends if key in self.children else {}

    def _act(self, call: Call, fact: Fact) -> None:
        if call.node.kind == "start":
            must(call.key in self.children, "a start was recorded and there is no run", self.id, fact)
        else:
            told = self.sent.get(f"{self.id}#{call.node.id}")
            must(fact.value == told, "a body was told something else of its message", self.id, fact, told)

    # What people ask of it -------------------------------------------------------------------------------------------

    def signal(self, letter: Letter, dedupe: str | None) -> str:
        """What becomes of a message."""
        if self.end and dedupe not in self.had:
            return "SignalRejected"
        self.mail += [] if dedupe in self.had else [letter]
        self.had |= set() if dedupe is None else {dedupe}
        return "accepted"

    def ask(self, key: str, deadline: int | None) -> None:
        """A question is stored."""
        call = self.body.open.get(key)
        if call is None or (call.kind, call.deadline) != ("question", deadline) or key in self.questions:
            raise Broken(f"a question was stored that the body does not ask: {self.id}, {key}, {deadline}, {call}")
        self.questions[key] = question = Question(key, call.name, deadline)
        if self.early[call.name]:
            question.state, question.value = "answered", self.early[call.name].pop(0)

    def answer(self, name: str, key: str | None, value: Any, at: int, *, early: bool) -> str:
        """What becomes of an answer."""
        asked = [one for one in self.questions.values() if one.name == name and key in {None, one.key}]
        if not asked and key is None and early and not self.end:
            self.early[name].append(value)
            return "accepted"
        if len(asked) != 1:
            return "SignalRejected"
        (question,) = asked
        if question.state == "open" and (question.deadline is None or at <= question.deadline):
            question.state, question.value = "answered", value
            return "accepted"
        # What is about to be closed may still be taken; what was open when the run ended is refused as a message is.
        also = {"closing": "accepted or ", "closed": "SignalRejected or " if self.end else ""}
        return also.get(question.state, "") + "SignalSuperseded"

    def relatives(self) -> Iterator[Play]:
        """The run and all that it started, and theirs; but none that is detached."""
        yield self
        for one in self.family:
            yield from one.relatives()

    def cancel(self) -> str:
        """What becomes of a request to end."""
        for one in self.relatives() if not self.cancelled else ():
            if not self.end and not one.end:
                one.cancelled, one.paused, one.still = True, False, False
        return "WrongState" if self.end else "accepted"

    def cancel_seen(self) -> None:
        """The journal says that the run was asked to end, and nobody asked: then a run above it gave up waiting."""
        at: Play | None = self
        while at is not None and not at.abandoned:
            at = at.parent
        must(at is not None and at.cancel() == "accepted", "a run was told to end that nobody asked to", self.id)

    def pause(self) -> str:
        """What becomes of a request to pause."""
        if self.end or self.cancelled or self.told:
            return "WrongState"
        for one in self.relatives() if not self.paused else ():
            one.promised = one.promised and one.paused
            one.paused = one.paused or not (one.end or one.cancelled or one.told)
        return "accepted"

    def promise_pause(self) -> None:
        """Whoever asked for the pause was told that it is in force."""
        for one in self.relatives():
            one.promised = one.paused

    def resume(self) -> str:
        """What becomes of a request to go on."""
        if not self.paused:
            return "WrongState"
        for one in self.relatives():
            one.paused = one.still = False
        return "accepted"

    def terminate(self) -> str:
        """What becomes of a request to be over at once."""
        if self.end in {"completed", "cancelled"}:
            return "WrongState"
        for one in list(self.relatives()):
            if one is self or not one.end:
                one.terminated = True
                one.stop("cancelled", None)
        return "accepted"

    # How it rests and ends -------------------------------------------------------------------------------------------

    def overdue(self, now: int, busy: Collection[str]) -> list[str]:
        """What should have happened, where nothing is left to do; `busy` steps are under way, or wait for another try."""
        over = {"end": self.body.ending, "cancel": self.cancelled or self.abandoned, "deadline": self._is_over(now)}
        told = [what for what, due in over.items() if due and not (self.told and what != "end")]
        if self.paused or self.body.ending:
            return told
        return told + [call.key for call in self.body.open.values() if self._is_due(call, now, busy)]

    def _is_over(self, now: int) -> bool:
        return self.deadline is not None and self.deadline <= now

    def _is_due(self, call: Call, now: int, busy: Collection[str]) -> bool:
        question = self.questions.get(call.key)
        if call.deadline is not None and call.deadline <= now:
            return True
        match call.kind:
            case "step":
                return call.key not in busy
            case "signal":
                return any(call.deadline is None or letter.at <= call.deadline for letter in self._mail_for(call))
            case "question":
                return question is None or question.state != "open"
            case "child" | "run":
                return bool(self._ends_for(call)) or (call.kind == "child" and call.key not in self.children)
            case kind:
                return kind not in {"sleep", "timer"}

    def ended(self, state: str, value: Any) -> None:
        """The run has stopped."""
        traces = self.body.ending is None and (self.body.place or self.begun or self.rested or self.children)
        legal = (state, value) == self._expected_end()
        if self.terminated:
            legal = state == self.end
        elif self.cancelled and not self.told:  # without a pass where it never began; or its end came a moment too late
            legal = state == "cancelled" and not traces
        must(legal, "a run ended otherwise", self.id, (state, value), self._expected_end(), traces)
        self.stop(state, value)

    def _expected_end(self) -> tuple[str, Any] | None:
        how, value = self.body.ending or ("", None)
        told = ("failed" if self.told == "deadline" else "cancelled"), None
        return {"": None, "raised": ("failed", None)}.get(how, told if self.told else ("completed", value))

    def stop(self, state: str, value: Any) -> None:
        """Put the body away, and close what is open."""
        self.end, self.ends[state], self.paused = state, value, False
        self.body.put_away()
        for question in self.questions.values():
            question.state = "closed" if question.state in {"open", "closing"} else question.state
