"""Shows the model all that happens to a journal, in its order, and holds the one against the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from durable_sqlite._context import StepInfo
from durable_sqlite._records import Entry, Kind, Outcome, Question, RunRow, State
from tests.support.memory_journal import Disk

from .bodies import branching
from .facts import Broken, Fact
from .model import Play
from .processes import Asked, Life, PacedLoop, opened
from .programs import Node

__all__ = ["Witness", "agree"]

_SHORT = 1_000_000  # microseconds of a back-off for which a run need not be suspended


def agree(what: object, got: object, *expected: object) -> None:
    """Two sides must agree; where several things are expected, on one of them."""
    if got not in expected:
        raise Broken(f"{what}: the model says {' or '.join(map(str, expected))}, and the engine {got}")


class Witness:
    """Notes what happens, and lets the model hear of it when nothing runs.

    Args:
        disk: What is committed.
        program: The program of a name.
    """

    def __init__(self, disk: Disk, program: Callable[[str], Node]) -> None:
        self.plays: dict[str, Play] = {}
        self.counts: Counter[str] = Counter()
        self.in_flight: set[tuple[str, str]] = set()
        """Run and key of each step whose body is at work."""
        self._effects: set[tuple[str, str]] = set()
        self._disk = disk
        self._tables = disk.tables.connection
        self._tables.execute("CREATE TABLE bookings (run TEXT NOT NULL, key TEXT NOT NULL)")
        self._program = program
        self._log: list[Callable[[], object]] = []
        self._told: dict[str, str] = {}
        self._expected: dict[asyncio.Task[Any] | None, str] = {}
        self._rows: dict[int, RunRow] = {}
        self._kept: dict[int, dict[str, Entry]] = {}
        self._asked: Counter[int] = Counter()
        self._processes = 0
        self._first: dict[tuple[str, str], int] = {}
        self._bodies = PacedLoop()
        self._bodies.set_task_factory(branching)
        self._bodies.set_exception_handler(
            lambda _loop, _context: None
        )  # what nobody awaits is not the model's business

    # What happens ----------------------------------------------------------------------------------------------------

    def note(self, event: Callable[[], object]) -> None:
        """Something that the model hears in its place among all that happens."""
        self._log.append(event)

    def began(self, info: StepInfo) -> None:
        """An attempt's body begins."""
        where = (info.run_id, info.key)
        cuts = self._processes - self._first.setdefault(where, self._processes)
        self.in_flight.add(where)
        self.counts["attempts"] += 1
        self._log.append(lambda: self.plays[info.run_id].began(info.key, info.attempt, cuts))

    def gone(self, info: StepInfo, *, performed: bool) -> None:
        """An attempt's body is over; if `performed`, its effect has happened."""
        self.in_flight.discard((info.run_id, info.key))
        if performed:
            self._effects.add((info.run_id, info.key))
            self._log.append(lambda: self.plays[info.run_id].effects.add(info.key))

    def had_effect(self, info: StepInfo) -> bool:
        """Whether the effect of a step has happened."""
        had = (info.run_id, info.key) in self._effects
        self.counts[f"probe: {had}"] += 1
        self._log.append(lambda: self.plays[info.run_id].probed.add(info.key))
        return had

    def process_ended(self) -> None:
        """A process is gone, with all that was only in its memory."""
        self._processes += 1
        self.in_flight.clear()

    def failed(self, what: str) -> None:
        """Something came out of the engine that nobody expects."""

        def fail() -> None:
            raise Broken(what)

        self._log.append(fail)

    def judge(self, asked: Asked, got: str, client: asyncio.Task[Any] | None, now: int) -> None:
        """Something was asked of a run, and the journal has answered."""

        def act() -> None:
            play = self.plays.get(asked.run_id)
            expected = "UnknownRun" if play is None else asked.verb(play, now)
            self._expected[client] = expected
            if asked.message:
                self._told[asked.message] = expected
            agree(f"{asked} at {now}", got, *expected.split(" or "))

        if asked.message:
            self.acted(now)  # a run that was started with a message is there before the message
        self._log.append(act)

    def answered(self, client: asyncio.Task[Any] | None, got: str) -> None:
        """A client was told what became of what it had asked."""

        def act() -> None:
            expected = self._expected.pop(client, "accepted or UnknownRun")
            self.counts[got] += 1
            # Where the engine is closed meanwhile, the client does not learn what became of it.
            agree("the public call", got, *expected.split(" or "), "EngineClosed")

        self._log.append(act)

    def acted(self, now: int) -> None:
        """The journal may have changed."""
        for no, row in self._disk.runs.items():
            before = self._rows.get(no)
            if before is None:
                self._log.append(partial(self._created, row))
            self._note_entries(row, now)
            asked = list(self._disk.asked[no].values())
            for question in asked[self._asked[no] :]:
                self._log.append(partial(self._was_asked, row.id, question))
            self._asked[no] = len(asked)
            if row is not before:
                self._log.append(partial(self._changed, row))
                self._rows[no] = row

    def _note_entries(self, row: RunRow, now: int) -> None:
        kept, known = self._disk.kept[row.no], self._kept.setdefault(row.no, {})
        if len(kept) == len(known):
            return
        for key in known.keys() - kept.keys():
            self._log.append(partial(self._undone, row.id, key, now))
        for entry in [entry for key, entry in kept.items() if key not in known]:
            self._log.append(partial(self._recorded, row.id, entry, now))
        self._kept[row.no] = dict(kept)

    # What the model hears --------------------------------------------------------------------------------------------

    def hear(self, now: int) -> None:
        """Let the model hear what has happened since, and hold the journal against it."""
        log, self._log = self._log, []
        for event in log:
            event()
        if self._disk.violations:
            raise Broken(f"the journal was written against its rules: {self._disk.violations}")
        for play in self.plays.values():
            self._compare(play, self.row(play), now)
        booked = sorted(self._tables.execute("SELECT run, key FROM bookings").fetchall())
        agree("what is booked", booked, sorted((play.id, key) for play in self.plays.values() for key in play.booked))

    def _created(self, row: RunRow) -> None:
        parent = None if row.parent is None else self.plays[self._disk.runs[row.parent].id]
        program = self._program(opened(row.input)["name"])
        play = Play(row.id, program, row.created_at, self._bodies, parent, detached=row.detached)
        play.sent = self._told
        self.plays[row.id] = play
        if parent is None:
            play.deadline = row.deadline_at
        else:
            parent.started(row.parent_key or "", play)

    def _recorded(self, run_id: str, entry: Entry, now: int) -> None:
        self.counts["entries"] += 1
        self.counts[f"{entry.kind.value}: {entry.outcome.value}"] += 1
        fact = Fact(entry.key, entry.kind.value, entry.name, entry.outcome.value, _value(entry), entry.at)
        self.plays[run_id].recorded(fact, now)

    def _undone(self, run_id: str, key: str, now: int) -> None:
        self.counts["undone"] += 1
        self.plays[run_id].undone(key, now)

    def _was_asked(self, run_id: str, question: Question) -> None:
        self.plays[run_id].ask(question.key, question.deadline)

    def _changed(self, row: RunRow) -> None:
        play = self.plays[row.id]
        play.rested = play.rested or row.state is State.SUSPENDED
        if row.cancel is not None and not play.cancelled and not play.end:
            play.cancel_seen()
        if row.state.stopped:
            completed = row.state is State.COMPLETED and row.result is not None
            play.ended(row.state.value, opened(row.result or b"") if completed else None)

    # What must be the same -------------------------------------------------------------------------------------------

    def row(self, play: Play) -> RunRow:
        """The run in the journal."""
        row = self._disk.by_id(play.id)
        assert row is not None
        return row

    def _compare(self, play: Play, row: RunRow, now: int) -> None:
        what = f"{play.id} in the journal"
        agree(f"{what}, its end", row.state.value if row.state.stopped else "", play.end)
        mail = [(message.name, opened(message.payload)["n"]) for message in self._disk.waiting_mail(row.no)]
        agree(f"{what}, its mail", mail, [(letter.name, letter.value) for letter in play.mail])
        for question in self._disk.questions(row.no):
            expected = play.questions[question.key].state
            got = _state(question)
            agree(f"{what}, {question.key}", got, got if expected == "closing" else expected)
        if not play.end:
            agree(f"{what}, to be cancelled", row.cancel is not None, play.cancelled)
            if play.deadline is None or play.deadline > now:  # which ends a pause as soon as the run is driven
                agree(f"{what}, to be paused", row.pause is not None, play.paused)

    def at_rest(self, life: Life, now: int) -> None:
        """Nothing is left to do now: see whether everything was done that can be done in such a process."""
        running = sum(row.state is State.RUNNING for row in self._disk.runs.values())
        for play in self.plays.values():
            row = self.row(play)
            play.still = bool(play.end) or play.paused
            ready = row.state is State.PENDING or (row.due_at is not None and row.due_at <= now)
            if not play.end and ready and (running >= life.max_resident or row.deaths > 1):
                continue  # there is no room for it, or it may have killed processes and waits for its turn
            if not play.end:
                self._look_at(play, row, now)

    def _look_at(self, play: Play, row: RunRow, now: int) -> None:
        what = f"{play.id} at rest"
        flying = {key for run_id, key in self.in_flight if run_id == play.id}
        failed = self._disk.failed.get(row.no, {}).values()
        again = {each.key: each.next_at for each in failed if each.next_at is not None and each.next_at > now}
        overdue = play.overdue(now, flying | again.keys())
        if overdue:
            raise Broken(f"{what}: {overdue} are due, and nothing more happens")
        states = ["running" if flying else "paused" if play.paused else "suspended"]
        if any(at <= now + _SHORT for at in again.values()):
            states.append("running")
        agree(f"{what}, its state", row.state.value, *states)
        if row.state is State.SUSPENDED:
            waits = {wait.key: wait.deadline for wait in self._disk.open_waits[row.no]}
            agree(
                f"{what}, what it waits for",
                waits,
                {key: again.get(key, call.deadline) for key, call in play.body.open.items()},
            )
        agree(f"{what}, its status", row.status, *play.body.said[1])
        for key, question in play.questions.items():
            if question.state == "closing":
                question.state = _state(self._disk.asked[row.no][key])
                agree(f"{what}, {key}, which nobody waits for", question.state, "closed", "answered")

    def close(self) -> None:
        """Put the model's bodies away."""
        for play in self.plays.values():
            play.body.put_away()
        self._bodies.close()


def _state(question: Question) -> str:
    if question.answer is not None:
        return "answered"
    return "open" if question.closed_at is None else "closed"


def _value(entry: Entry) -> Any:
    """What an entry says, as the model takes it."""
    if entry.outcome is Outcome.TIMEOUT or entry.kind in {Kind.SLEEP, Kind.TIMER, Kind.CANCEL}:
        return None
    held = opened(entry.payload)
    match entry.outcome, entry.kind:
        case Outcome.ERROR, _:
            value = "" if entry.kind in {Kind.STEP, Kind.TRANSACTION} else held["state"]
        case Outcome.DECLARED, _:
            value = held["class"]
        case _, Kind.SIGNAL:
            value = held["n"]
        case _, Kind.DRAIN:
            value = [message["n"] for message in held]
        case _, Kind.ACT:
            value = "accepted"
        case _:
            value = held
    return value
