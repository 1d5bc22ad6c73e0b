"""What the promises allow, plainly: bodies on asyncio's own tasks, whose durable calls are given what was recorded.

Which of several things came first is the journal's to say. The model says of each whether it was legal when it was
recorded, what clients must be told, what must have happened once nothing is left to do, and how a run must end.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

from .acts import Acts
from .programs import Node

__all__ = ["Broken", "Fact", "Letter", "Play", "Question", "branching"]

_CALLS = {
    "step": ("step", "work"),
    "cleanup": ("step", "work"),
    "tries": ("step", "tries"),
    "each_step": ("step", "item"),
    "sleep": ("sleep", "sleep"),
    "wait": ("signal", ""),
    "drain": ("drain", ""),
    "ask": ("question", ""),
    "send": ("act", "signal"),
    "start": ("act", "wait-and-play"),
    "child": ("child", "wait-and-play"),
    "each_child": ("child", "wait-and-play"),
}
"""Kind and name of the entry that each kind of act leaves; a message's and a question's name is the act's own."""

_ERRORS = {
    what: type(name, (Exception,), {})
    for what, name in (("step", "StepFailed"), ("failed", "RunFailed"), ("cancelled", "RunCancelled"))
}


class Broken(AssertionError):
    """A promise was broken: which one, and the facts."""


def _must(promise: object, otherwise: str, *facts: object) -> None:
    if not promise:
        raise Broken(f"{otherwise}: {', '.join(map(str, facts))}")


@dataclass(frozen=True, slots=True)
class Fact:
    """An entry as it was recorded."""

    key: str
    kind: str
    name: str
    outcome: str
    value: Any
    at: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that nobody has taken."""

    name: str
    value: str
    at: int
    stored_at: int


@dataclass(slots=True)
class Question:
    """A question as those who may answer it see it; its state is `open`, `answered`, `closing` or `closed`."""

    key: str
    name: str
    deadline: int | None
    state: str = "open"
    value: Any = None


@dataclass(eq=False, slots=True)
class _Call:
    """A durable call that a body waits for; `place` is how many outcomes the body had when it asked."""

    key: str
    kind: str
    name: str
    node: Node
    place: int
    since: int
    deadline: int | None
    number: int
    future: asyncio.Future[Any]


@dataclass(slots=True)
class _Branch:
    path: str = ""
    counts: Counter[str] = field(default_factory=Counter[str])


_branch: ContextVar[_Branch] = ContextVar("branch")


def branching(loop: asyncio.AbstractEventLoop, coro: Any, **how: Any) -> asyncio.Task[Any]:
    """A task factory: each task that a body creates is a branch, numbered by its parent."""
    here, context = _branch.get(), copy_context()
    number, here.counts[""] = here.counts[""], here.counts[""] + 1
    context.run(_branch.set, _Branch(f"{here.path}.{number}".removeprefix(".")))
    return asyncio.Task(coro, loop=loop, **how | {"context": context})


class Play:
    """One run: what its body waits for, what has come for it, and what was asked of it.

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
        self.id, self.clock, self.parent = run, at, parent
        self.open: dict[str, _Call] = {}
        self.mail: list[Letter] = []
        self.had: set[str | None] = set()
        self.questions: dict[str, Question] = {}
        self.early: defaultdict[str, list[Any]] = defaultdict(list)
        self.family: list[Play] = []
        self.children: dict[str, Play] = {}
        self.sent: dict[str, str] = {}
        self.begun: Counter[str] = Counter()
        self.said: tuple[int, set[str | None]] = (0, {None})
        self.deadline: int | None = None
        self.place = 0
        self.cancelled = self.paused = self.abandoned = self.terminated = self.still = self.seen = False
        self.told = self.end = ""
        self.ends: dict[str, Any] = {}
        if parent is not None and not detached:
            parent.family.append(self)
            self.cancelled, self.paused, self.deadline = parent.cancelled, parent.paused, parent.deadline
        self._loop, self._program, self._created = loop, program, at
        self._facts: list[Fact] = []
        self._main = self._begin()

    def _begin(self) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(_branch.set, _Branch())
        main = asyncio.Task(Acts(self).go(self._program), loop=self._loop, context=context)
        self._loop.run_forever()
        return main

    # Its body's calls ------------------------------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        branch = _branch.get()
        branch.counts[name] += 1
        return f"{branch.path}/{name}#{branch.counts[name]}".removeprefix("/")

    def _call(self, node: Node, key: str = "", number: int = 0, kind: str = "") -> _Call:
        if self.end:
            raise asyncio.CancelledError
        usual, name = _CALLS[node.kind]
        kind, key = kind or usual, key or self._key(name or node.name)
        timed = kind == "sleep" or (kind in {"signal", "question"} and node.seconds)
        until = self.clock + round(node.seconds * 1_000_000) if timed else None
        future = self._loop.create_future()
        self.open[key] = call = _Call(key, kind, name or node.name, node, self.place, self.clock, until, number, future)
        return call

    def _give_up(self, calls: Collection[_Call]) -> None:
        """Note that the body no longer waits: questions are closed and children told to end, in a moment."""
        for call in calls:
            self.open.pop(call.key, None)
            if call.kind == "child" and call.key in self.children and self.told != "deadline":
                self.children[call.key].abandoned = True
            if call.key in self.questions and self.questions[call.key].state == "open":
                self.questions[call.key].state = "closing"

    async def leaf(self, node: Node) -> Any:
        return await self._wait(self._call(node))

    async def _wait(self, call: _Call) -> Any:
        try:
            return await call.future
        except asyncio.CancelledError:
            self._give_up([call])
            raise

    async def start(self, node: Node) -> Any:
        call = self._call(node)
        await self._wait(call)
        return call

    async def result(self, started: _Call) -> Any:
        key = self._key("result")
        self.children[key] = self.children[started.key]
        return await self._wait(self._call(started.node, key, kind="run"))

    async def each(self, node: Node) -> list[Any]:
        key, calls, left = self._key(_CALLS[node.kind][1]), list[_Call](), range(node.count)
        while True:
            free = (node.limit or node.count) - sum(not call.future.done() for call in calls)
            calls += [self._call(node, f"{key}[{number}]", number) for number in left[len(calls) :][:free]]
            waiting = [call.future for call in calls if not call.future.done()]
            if not waiting:
                return [call.future.exception() or call.future.result() for call in calls]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not node.flag:
                    [future.result() for future in waiting if future.done()]
            except (Exception, asyncio.CancelledError):
                self._give_up([call for call in calls if not call.future.done()])
                raise

    def say(self, status: str) -> None:
        self.said = (self.place, {status} | (self.said[1] if self.said[0] == self.place else set()))

    # What is recorded ------------------------------------------------------------------------------------------------

    def began(self, key: str, attempt: int, cuts: int) -> None:
        """An attempt's body begins; `cuts` processes have ended since the first did."""
        self.begun[key] += 1
        call = self.open.get(key)
        if self.end and not self.still:
            return  # it was terminated at this very moment
        _must(call and call.kind == "step", "a step began that nobody waits for", self.id, key)
        _must(not self.still, "a step began though its run is paused or over", self.id, key)
        _must(self.begun[key] <= attempt + cuts, "a step began again that nothing had cut off", self.id, key)

    def recorded(self, fact: Fact, now: int) -> None:
        """The body is given an outcome."""
        _must(not self.end and self.clock <= fact.at <= now, "an entry is out of order", self.id, self.clock, fact, now)
        if fact.kind == "cancel":
            legal = self._over(fact.at) if fact.name == "deadline" else self.cancelled
            _must(legal and not self.told, "a body was told to end for no reason", self.id, fact)
            self.told, self.paused, self.still = fact.name, False, False
        else:
            call = self.open.get(fact.key)
            if call is None or call.kind != fact.kind:
                raise Broken(f"something was recorded that nobody waits for: {self.id}, {fact}")
            _must(not self.still or call.kind == "step", "a paused run was given something", self.id, fact)
            early = call.deadline is None or fact.at < call.deadline
            timed_out = fact.outcome == "timeout" or call.kind == "sleep"
            _must(not (timed_out and early), "a timer fired early", self.id, fact, call.deadline)
            getattr(self, f"_{call.kind}")(call, fact)
        self._facts.append(fact)
        self._give(fact)

    def _give(self, fact: Fact) -> None:
        self.clock, self.place = fact.at, self.place + 1
        call = self.open.pop(fact.key, None)
        if call is None:
            self._main.cancel()
        elif fact.outcome == "error":
            call.future.set_exception(_ERRORS[fact.value or "step"])
        else:
            call.future.set_result(fact.value)
        self._loop.run_forever()

    def undone(self, key: str, now: int) -> None:
        """The last drain is taken back: messages came before the end was committed, and the run drains once more."""
        fact = self._facts.pop()
        more = any(letter.name == fact.name for letter in self.mail)
        _must(self._main.done() and fact.key == key and fact.kind == "drain" and more, "an entry is gone", self.id, fact)
        self.mail = [Letter(fact.name, value, fact.at, now) for value in fact.value] + self.mail
        self.clock, self.place, self.said = self._created, 0, (0, {None})
        facts, self.open = self._facts, {}
        self._main = self._begin()
        for fact in facts:
            self._give(fact)

    def _step(self, call: _Call, fact: Fact) -> None:
        item, failures = call.node.kind == "each_step", call.node.failures
        fails = failures == call.number + 1 if item else failures >= (3 if call.name == "tries" else 1)
        result = 10 * call.node.id + call.number if item else call.node.id
        _must(self.begun[call.key], "a step was recorded that never began", self.id, fact)
        expected = ("error", None) if fails else ("value", result)
        _must((fact.outcome, fact.value) == expected, "a step came to something else", self.id, fact, expected)

    def _sleep(self, _call: _Call, _fact: Fact) -> None: ...

    def _signal(self, call: _Call, fact: Fact) -> None:
        mail = [letter for letter in self.mail if letter.name == call.name]
        if fact.outcome == "timeout":
            late = call.deadline is not None and all(letter.at > call.deadline for letter in mail)
            _must(late, "a wait timed out though a message had come", self.id, fact, mail)
            return
        _must(mail and mail[0].value == fact.value, "a message was taken out of turn", self.id, fact, mail)
        waits = [one for one in (*self.open.values(), call) if (one.kind, one.name) == ("signal", call.name)]
        fit = [one.place for one in waits if one.deadline is None or mail[0].at <= one.deadline]
        _must(fit and call.place == min(fit), "a wait was served out of turn or too late", self.id, fact, waits)
        self.mail.remove(mail[0])

    def _drain(self, call: _Call, fact: Fact) -> None:
        mail = [letter for letter in self.mail if letter.name == call.name]
        values, count = [letter.value for letter in mail], len(fact.value)
        enough = values[:count] == fact.value and all(letter.stored_at >= call.since for letter in mail[count:])
        _must(enough, "a drain took other messages than were there", self.id, fact, mail)
        self.mail = [letter for letter in self.mail if letter not in mail[:count]]

    def _question(self, call: _Call, fact: Fact) -> None:
        question = self.questions.get(call.key)
        if question is None or (question.state == "answered") == (fact.outcome == "timeout"):
            raise Broken(f"a question came to something else than was answered: {self.id}, {fact}, {question}")
        _must(fact.value == question.value, "another answer was given than was accepted", self.id, fact, question)
        question.state = "closed" if fact.outcome == "timeout" else "answered"

    def _child(self, call: _Call, fact: Fact) -> None:
        ends = self.children[call.key].ends if call.key in self.children else {}
        state = "completed" if fact.outcome == "value" else fact.value
        legal = state in ends and (state != "completed" or ends[state] == fact.value)
        _must(legal, "a run heard of another end of a run than there was", self.id, fact, ends)

    _run = _child

    def _act(self, call: _Call, fact: Fact) -> None:
        if call.node.kind == "start":
            _must(call.key in self.children, "a start was recorded and there is no run", self.id, fact)
        else:
            told = self.sent.get(f"{self.id}#{call.node.id}")
            _must(fact.value == told, "a body was told something else of its message", self.id, fact, told)

    # What people ask of it -------------------------------------------------------------------------------------------

    def signal(self, letter: Letter, dedupe: str | None) -> str:
        """What becomes of a message."""
        if self.end and dedupe not in self.had:
            return "SignalRejected"
        if dedupe is None or dedupe not in self.had:
            self.mail.append(letter)
        self.had |= set() if dedupe is None else {dedupe}
        return "accepted"

    def ask(self, key: str, deadline: int | None) -> None:
        """A question is stored."""
        call = self.open.get(key)
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
        if question.state == "closing":
            return "accepted or SignalSuperseded"
        # A question that was open when its run ended is refused as a message is.
        return "SignalRejected or SignalSuperseded" if self.end and question.state == "closed" else "SignalSuperseded"

    def relatives(self) -> Iterator[Play]:
        """The run and all that it started, and theirs; but none that is detached."""
        yield self
        for one in self.family:
            yield from one.relatives()

    def cancel(self) -> str:
        """What becomes of a request to end."""
        if self.end:
            return "WrongState"
        for one in self.relatives() if not self.cancelled else ():
            if not one.end:
                one.cancelled, one.paused, one.still = True, False, False
        return "accepted"

    def cancel_seen(self) -> None:
        """The journal says that the run was asked to end, and nobody asked."""
        at: Play | None = self
        while at is not None and not at.abandoned:
            at = at.parent
        if at is None:
            raise Broken(f"a run was told to end that nobody asked to: {self.id}")
        at.cancel()

    def pause(self) -> str:
        """What becomes of a request to pause."""
        if self.end or self.cancelled or self.told:
            return "WrongState"
        for one in self.relatives() if not self.paused else ():
            one.paused = one.paused or not (one.end or one.cancelled or one.told)
        return "accepted"

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
        """What should have happened by now, where nothing is left to do; `busy` steps are under way, or wait for a retry."""
        told = [] if self.told else [what for what, due in (("cancel", self.cancelled or self.abandoned), ("deadline", self._over(now))) if due]
        if self._main.done() or self.paused:
            return told + (["end"] if self._main.done() else [])
        return told + [call.key for call in self.open.values() if self._is_due(call, now, busy)]

    def _over(self, now: int) -> bool:
        return self.deadline is not None and self.deadline <= now

    def _is_due(self, call: _Call, now: int, busy: Collection[str]) -> bool:
        if call.deadline is not None and call.deadline <= now:
            return True
        match call.kind:
            case "step":
                return call.key not in busy
            case "signal":
                return any(letter.name == call.name for letter in self.mail if letter.at <= (call.deadline or letter.at))
            case "question":
                return call.key not in self.questions or self.questions[call.key].state != "open"
            case "child" | "run":
                return call.key not in self.children or bool(self.children[call.key].end)
            case kind:
                return kind != "sleep"

    def ended(self, state: str, value: Any) -> None:
        """The run has stopped."""
        if self.end != state:  # else it was terminated
            main, traces = self._main, self.place or self.begun or self.seen or self.children or self.sent
            if self.cancelled and not self.told:
                legal = main.done() or not traces
                expected: tuple[str, Any] = ("cancelled", None)
            else:
                legal, expected = main.done(), self._ending() if main.done() else ("", None)
            _must(legal and expected == (state, value), "a run ended otherwise", self.id, (state, value), expected)
            self.stop(state, value)

    def _ending(self) -> tuple[str, Any]:
        if self._main.cancelled() or self._main.exception() is not None:
            return ("cancelled" if self._main.cancelled() and self.told == "cancel" else "failed"), None
        if self.told:
            return ("cancelled" if self.told == "cancel" else "failed"), None
        return "completed", self._main.result()

    def stop(self, state: str, value: Any) -> None:
        """Take the body down, and close what is open."""
        self.end, self.ends[state] = state, value
        self.paused = False
        for call in list(self.open.values()):
            call.future.cancel()
        self._loop.run_forever()
        self.open.clear()
        for question in self.questions.values():
            question.state = "closed" if question.state in {"open", "closing"} else question.state
