"""Plays one random program of verbs over two journals at once, and looks for a difference.

The program is legal: what it does next is made up from what the journal in memory holds by then. Its writers are in turn
good drivers, writers with stale holds, clients, and people; its workers close and die.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

from durable_sqlite._records import (
    CANCEL_KEY,
    Answered,
    Claimed,
    End,
    Entry,
    FailedAttempt,
    Hold,
    IfExists,
    Intent,
    Kind,
    Mail,
    NewAnswer,
    NewMessage,
    NewQuestion,
    Outcome,
    Pruned,
    Pruning,
    QuestionQuery,
    Report,
    Request,
    Rest,
    Resumed,
    Resumption,
    RunQuery,
    RunRow,
    Sent,
    Settlement,
    Started,
    State,
    Suspension,
    Taken,
    Wait,
)
from durable_sqlite._sqlite import SqliteJournal
from durable_sqlite.errors import DurableError, SignalSuperseded
from durable_sqlite.journal import Journal
from tests.support.disk import ENDED, Disk
from tests.support.journals import new_run
from tests.support.memory_journal import MemoryJournal

__all__ = ["Difference", "play"]

_IDS = "abcdef"
_NAMES = ("paid", "shipped")
_POINTS = ("review", "sign")
_WORKFLOWS = ("ship", "sail")
_KEYS = tuple(f"{name}#{number}" for name in (*_NAMES, *_POINTS, "s", "child") for number in (1, 2, 3))
_SENDERS = (None, None, "x", "y")

Verb = Callable[[Journal], Awaitable[Any]]


class Difference(AssertionError):
    """Two journals gave different answers."""


async def play(seed: int, path: Path, steps: int) -> None:
    """Play a program.

    Raises:
        Difference: The journals disagree, or the program was not legal.
    """
    disk = Disk()
    twins = _Twins(disk, [lambda: MemoryJournal(disk), lambda: SqliteJournal(path, synchronous="normal")])
    for _ in range(2):
        await twins.open()
    player = _Player(Random(seed), twins)
    try:
        for _ in range(steps):
            await player.step()
        await player.compare(everything=True)
        await twins.verify()
    finally:
        await twins.close()
    if disk.violations:
        raise Difference(f"the program was not legal: {disk.violations}")


class _Twins:
    """The same workers on each storage."""

    def __init__(self, disk: Disk, makers: Sequence[Callable[[], Journal]]) -> None:
        self.disk = disk
        self.workers: list[list[Journal]] = []
        self.numbers: list[int] = []
        self.told: list[str] = []
        self.together = False
        self._begun: list[tuple[str, list[Awaitable[Any]]]] = []
        self._makers = makers
        self._opened = 0

    async def open(self) -> None:
        """Open one more worker on each."""
        self._opened += 1
        journals = [make() for make in self._makers]
        for journal in journals:
            await journal.open(f"worker-{self._opened}", self._opened)
        self.workers.append(journals)
        self.numbers.append(self.disk.last_worker)

    async def remove(self, worker: int) -> Sequence[Journal]:
        """Take a worker out of the program."""
        del self.numbers[worker]
        return self.workers.pop(worker)

    async def verify(self) -> None:
        """See that what is stored in a file fits its checksums, whatever was done."""
        for journal in self.workers[0] if self.workers else ():
            if isinstance(journal, SqliteJournal) and not (found := await journal.verify(False)).ok:
                raise Difference(f"what was written does not fit its checksums: {found.findings}")

    async def close(self) -> None:
        """Close all."""
        for journals in self.workers:
            for journal in journals:
                await journal.close(9_999)

    async def ask(self, what: str, worker: int, verb: Verb) -> None:
        """Let a worker of each do the same, and look whether they agree; or begin it, where several go together."""
        self.told.append(f"{worker}: {what}")
        self._begun.append((what, [verb(journal) for journal in self.workers[worker]]))
        if not self.together:
            await self.agree()

    async def agree(self) -> None:
        """Look whether all answers that are due are the same."""
        begun, self._begun = self._begun, []
        for what, verbs in begun:
            first, *others = [await _answer(verb) for verb in verbs]
            for other in others:
                if other != first:
                    history = "\n".join(self.told[-40:])
                    raise Difference(f"{history}\n\n{what}\n\nin memory: {first}\n\notherwise: {other}")


async def _answer(verb: Awaitable[Any]) -> Any:
    try:
        return _plain(await verb)
    except SignalSuperseded as error:
        return "SignalSuperseded", error.by
    except DurableError as error:
        return type(error).__name__


def _plain(answer: Any) -> Any:
    """The answer without what two journals may disagree on: types of sequences, and numbers of changes."""
    if isinstance(answer, list | tuple):
        return [_plain(each) for each in cast("Sequence[Any]", answer)]
    if isinstance(answer, RunRow):
        return replace(answer, changed=0)
    if isinstance(answer, Answered | Claimed | Pruned | Resumed | Sent | Started | Suspension | Taken | Mail):
        return [_plain(getattr(answer, field.name)) for field in fields(answer)]
    return answer


class _Player:
    """Makes up the program while it is played."""

    def __init__(self, chance: Random, twins: _Twins) -> None:
        self._chance = chance
        self._twins = twins
        self._disk = twins.disk
        self._now = 100
        self._only: int | None = None
        """The one worker that acts, where several verbs go together: across workers they have no order."""
        self._acts: list[tuple[int, Callable[[], Coroutine[Any, Any, None]]]] = [
            (14, self._start),
            (6, self._signal),
            (7, self._answer),
            (1, self._cancel),
            (1, self._terminate),
            (3, self._pause),
            (6, self._resume),
            (1, self._discard),
            (2, self._prune),
            (2, self._settle),
            (10, self._claim),
            (5, self._reclaim),
            (9, self._record),
            (4, self._expire),
            (9, self._ask),
            (2, self._withdraw),
            (2, self._set_aside),
            (2, self._reopen),
            (2, self._abandon),
            (2, self._report),
            (2, self._intend),
            (2, self._fail),
            (12, self._suspend),
            (5, self._end),
            (2, self._give_back),
            (2, self._leave),
            (1, self._close),
            (2, self._die),
            (1, self._amend),
            (8, self._race),
        ]

    async def step(self) -> None:
        """One more verb, and a look."""
        self._now += self._chance.randint(1, 9)
        weights = [weight for weight, _ in self._acts]
        ((_, act),) = self._chance.choices(self._acts, weights)
        await act()
        await self.compare(everything=False)

    # Chance ----------------------------------------------------------------------------------------------------------

    def _some(self, things: Iterable[Any], most: int = 3) -> list[Any]:
        pool = list(things)
        return self._chance.sample(pool, self._chance.randint(0, min(most, len(pool))))

    def _one(self, things: Iterable[Any], default: Any = None) -> Any:
        pool = list(things)
        return self._chance.choice(pool) if pool else default

    def _often(self, share: float = 0.5) -> bool:
        return self._chance.random() < share

    def _at(self) -> int:
        return self._now + self._chance.randint(-20, 20)

    def _length(self) -> int | None:
        return self._chance.randint(1, 300) if self._often(0.3) else None

    def _request(self) -> Request:
        return Request(self._now, self._one(["", "why"]), self._one(["ada", ""]))

    def _message(self) -> NewMessage:
        return NewMessage(self._one(_NAMES), b"m%d" % self._now, self._at(), self._one(_SENDERS))

    def _worker(self) -> int:
        return self._chance.randrange(len(self._twins.workers)) if self._only is None else self._only

    def _run(self) -> str:
        """A run, most likely one that has not ended."""
        alive = [row.id for row in self._disk.runs.values() if row.state not in ENDED]
        run_id: str = self._one(alive if self._often(0.8) else _IDS, "a")
        return run_id

    def _held(self) -> tuple[int, RunRow, Hold] | None:
        """A run that is driven, its worker, and its hold: now and then a stale one."""
        owners = [number for worker, number in enumerate(self._twins.numbers) if self._only in {None, worker}]
        row: RunRow | None = self._one(row for row in self._disk.runs.values() if row.owner in owners)
        if row is None:
            return None
        worker = self._twins.numbers.index(row.owner or 0)
        if self._often(0.03):
            return self._worker(), row, Hold(row.no, row.epoch - self._often())
        return worker, row, Hold(row.no, row.epoch)

    def _caller(self, worker: int) -> Hold | None:
        """The hold of one of the worker's runs, where the verb comes from a body."""
        mine = [row for row in self._disk.runs.values() if row.owner == self._twins.numbers[worker]]
        row: RunRow | None = self._one(mine) if self._often(0.3) else None
        return None if row is None else Hold(row.no, row.epoch - self._often(0.05))

    def _at_rest(self, run_id: str) -> Hold | None:
        """The hold of a body that rests in memory: now and then of one that the run was taken from."""
        row = self._disk.by_id(run_id)
        return None if row is None or self._often(0.3) else Hold(row.no, row.epoch - self._often(0.1))

    # Clients ---------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        worker = self._worker()
        parents = [row for row in self._disk.runs.values() if row.owner == self._twins.numbers[worker]]
        parent: RunRow | None = self._one(parents) if self._often(0.7) else None
        new = new_run(
            self._one(_IDS),
            workflow=self._one(_WORKFLOWS),
            at=self._now,
            uid=f"uid {self._chance.randint(1, 2)}",
            deadline=self._length(),
            parent=None if parent is None else parent.no,
            parent_key=None if parent is None else self._one(_KEYS),
            detached=self._often(0.15),
        )
        if_exists = self._one([IfExists.ATTACH, IfExists.ATTACH, IfExists.REPLACE, IfExists.FAIL])
        message = self._message() if self._often(0.3) else None
        caller = None if parent is None else Hold(parent.no, parent.epoch)
        drive = self._often(0.7)
        await self._twins.ask(
            f"start {new} {if_exists} {drive} {message}",
            worker,
            lambda journal: journal.start(new, if_exists, drive=drive, message=message, caller=caller),
        )

    async def _signal(self) -> None:
        worker, run_id, message = self._worker(), self._run(), self._message()
        caller, at_rest = self._caller(worker), self._at_rest(run_id)
        await self._twins.ask(
            f"signal {run_id} {message} {at_rest}",
            worker,
            lambda journal: journal.signal(run_id, message, caller=caller, at_rest=at_rest),
        )

    async def _answer(self) -> None:
        worker, run_id = self._worker(), self._run()
        row = self._disk.by_id(run_id)
        known = [] if row is None else [*self._disk.asked[row.no].values()]
        still_open = [each for each in known if each.is_open]
        question = self._one(still_open or known) if self._often(0.8) else None
        key = None if self._often(0.4) else self._one(_KEYS) if question is None else question.key
        answer = NewAnswer(
            name=self._one(_POINTS) if question is None else question.name,
            key=key,
            payload=b"a%d" % self._now,
            at=self._at(),
            by=self._one(["ada", "bob", ""]),
            early=self._often(0.3),
            dedupe=self._one(_SENDERS),
        )
        caller, at_rest = self._caller(worker), self._at_rest(run_id)
        await self._twins.ask(
            f"answer {run_id} {answer} {at_rest}",
            worker,
            lambda journal: journal.answer(run_id, answer, caller=caller, at_rest=at_rest),
        )

    async def _cancel(self) -> None:
        worker, run_id, request = self._worker(), self._run(), self._request()
        caller = self._caller(worker)
        await self._twins.ask(
            f"cancel {run_id} {request}", worker, lambda journal: journal.cancel(run_id, request, caller=caller)
        )

    async def _terminate(self) -> None:
        run_id, request = self._run(), self._request()
        await self._twins.ask(f"terminate {run_id}", self._worker(), lambda each: each.terminate(run_id, request))

    async def _prune(self) -> None:
        pruning = Pruning(
            before=self._now - self._chance.randint(0, 60),
            states=tuple(self._some([State.COMPLETED, State.CANCELLED, State.FAILED, State.PARKED], 4)),
            discarded=self._often(),
            after=(self._now - 40, self._chance.randint(1, 9)) if self._often(0.3) else None,
            limit=self._chance.randint(1, 3),
            rows=self._chance.randint(1, 12),
            looks=self._chance.randint(1, 6),
        )
        await self._twins.ask(f"prune {pruning}", self._worker(), lambda each: each.prune(pruning))

    async def _pause(self) -> None:
        run_id, request = self._run(), self._request()
        await self._twins.ask(f"pause {run_id}", self._worker(), lambda each: each.pause(run_id, request))

    async def _resume(self) -> None:
        stopped = [
            row.id for row in self._disk.runs.values() if row.state in {State.FAILED, State.PARKED, State.PAUSED}
        ]
        run_id = self._one(stopped, self._run())
        row = self._disk.by_id(run_id)
        kept = [] if row is None else [*self._disk.kept[row.no]]
        retry = tuple(self._some(kept, 2)) if self._often(0.3) else ()
        corrected = (b"{}", b"other") if self._often(0.1) else None
        how = Resumption(self._now, self._often(0.3), retry, corrected)
        await self._twins.ask(f"resume {run_id} {how}", self._worker(), lambda each: each.resume(run_id, how))

    async def _discard(self) -> None:
        run_id, at = self._run(), self._now
        await self._twins.ask(f"discard {run_id}", self._worker(), lambda each: each.discard(run_id, at))

    async def _settle(self) -> None:
        unsure = [row for row in self._disk.runs.values() if row.reason == "ambiguous"]
        row: RunRow | None = self._one(unsure)
        if row is not None:
            key = self._one(self._disk.intents.get(row.no, {}), "s#1")
            how = Settlement(key, "ada", self._now, self._one([None, b"v"]), b"e")
            await self._twins.ask(f"settle {row.id} {how}", self._worker(), lambda each: each.settle(row.id, how))

    # The worker ------------------------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        workflows = _WORKFLOWS if self._often(0.8) else self._some(_WORKFLOWS)
        now, limit, suspects = self._now, self._chance.randint(1, 4), self._often(0.3)
        await self._twins.ask(
            f"claim {workflows} {now} {limit} {suspects}",
            self._worker(),
            lambda each: each.claim(workflows, now, limit, suspects=suspects),
        )

    async def _reclaim(self) -> None:
        row: RunRow | None = self._one(row for row in self._disk.runs.values() if row.epoch and row.owner is None)
        if row is not None and not row.state.stopped:
            hold, at = Hold(row.no, row.epoch - self._often(0.1)), self._now
            await self._twins.ask(f"reclaim {hold} {at}", self._worker(), lambda each: each.reclaim(hold, at))

    def _entry(self, row: RunRow, kinds: Sequence[Kind]) -> Entry | None:
        kept = self._disk.kept[row.no]
        key = self._one(key for key in (*_KEYS, CANCEL_KEY) if key not in kept)
        if key is None:
            return None
        seq = 1 + max((entry.seq for entry in kept.values()), default=0)
        kind = Kind.CANCEL if key == CANCEL_KEY else self._one(kinds)
        name = self._one(_IDS) if kind is Kind.RUN else key.split("#")[0]
        asked = self._chance.randint(max(0, seq - 3), seq - 1)
        return Entry(seq, key, kind, name, b"d", Outcome.VALUE, b"v", asked, self._now - 1, self._now)

    async def _record(self) -> None:
        held = self._held()
        entry = held and self._entry(held[1], [Kind.STEP, Kind.SIGNAL, Kind.QUESTION, Kind.CHILD, Kind.RUN])
        if held is None or entry is None:
            return
        worker, row, hold = held
        mail = [message.no for message in self._disk.waiting_mail(row.no)]
        takes = self._some(mail, 2) if self._often() else []
        await self._twins.ask(f"record {hold} {entry} {takes}", worker, lambda each: each.record(hold, entry, takes))

    async def _expire(self) -> None:
        held = self._held()
        entry = held and self._entry(held[1], [Kind.SIGNAL, Kind.TIMER, Kind.RUN])
        if held is None or entry is None:
            return
        worker, row, hold = held
        asked = [each.key for each in self._disk.questions(row.no) if each.key not in self._disk.kept[row.no]]
        question = self._one(asked) if self._often() else None
        entry = entry if question is None else replace(entry, key=question, kind=Kind.QUESTION)
        deadline = self._at()
        await self._twins.ask(
            f"expire {hold} {entry} {deadline}", worker, lambda each: each.expire(hold, entry, deadline)
        )

    async def _ask(self) -> None:
        held = self._held()
        if held is not None:
            worker, _, hold = held
            name = self._one(_POINTS)
            length = self._length()
            deadline = None if length is None else self._now + length // 4
            key = f"{name}#{self._chance.randint(1, 3)}"
            question = NewQuestion(key, name, b"q%d" % self._now, "{}", self._now, deadline)
            await self._twins.ask(f"ask {hold} {question}", worker, lambda each: each.ask(hold, question))

    async def _withdraw(self) -> None:
        held = self._held()
        if held is not None:
            worker, row, hold = held
            keys, at = self._some([*self._disk.asked[row.no], "unknown"]), self._now
            await self._twins.ask(f"withdraw {hold} {keys}", worker, lambda each: each.withdraw(hold, keys, at))

    async def _set_aside(self) -> None:
        held = self._held()
        message = held and self._one(self._disk.waiting_mail(held[1].no))
        if held is not None and message is not None:
            worker, _, hold = held
            await self._twins.ask(
                f"set_aside {hold} {message}", worker, lambda each: each.set_aside(hold, message.no, b"why")
            )

    async def _reopen(self) -> None:
        held = self._held()
        question = held and self._one(self._disk.unrecorded_answers(held[1].no))
        if held is not None and question is not None:
            worker, _, hold = held
            await self._twins.ask(
                f"reopen {hold} {question}",
                worker,
                lambda each: each.reopen(hold, question.key, question.answer or b"", b"why"),
            )

    async def _abandon(self) -> None:
        held = self._held()
        if held is not None:
            worker, _, hold = held
            children, request = self._some(_IDS, 4), self._request()
            await self._twins.ask(
                f"abandon {hold} {children}", worker, lambda each: each.abandon(hold, children, request)
            )

    async def _report(self) -> None:
        held = self._held()
        if held is not None:
            worker, _, hold = held
            report = Report(self._one([None, "", "busy"]), self._one([None, (0, 3)]), self._now)
            await self._twins.ask(f"report {hold} {report}", worker, lambda each: each.report(hold, report))

    async def _intend(self) -> None:
        held = self._held()
        if held is not None:
            worker, _, hold = held
            intent = Intent(self._one(["s#1", "s#2"]), "s", b"d", 0, self._now)
            await self._twins.ask(f"intend {hold} {intent}", worker, lambda each: each.intend(hold, intent))

    async def _fail(self) -> None:
        held = self._held()
        if held is not None:
            worker, row, hold = held
            key = self._one(["s#1", "s#2"])
            number = 1 + max((n for which, n in self._disk.failed.get(row.no, {}) if which == key), default=0)
            attempt = FailedAttempt(key, number, self._now - 1, self._now, None, b"e")
            await self._twins.ask(f"fail {hold} {attempt}", worker, lambda each: each.fail(hold, attempt))

    async def _amend(self) -> None:
        held = self._held()
        if held is not None:
            worker, _, hold = held
            changed, removed = [(self._one(_KEYS), "new", b"new")], self._some(_KEYS, 1)
            await self._twins.ask(
                f"amend {hold} {changed} {removed}", worker, lambda each: each.amend(hold, changed, removed)
            )
            await self._twins.ask(f"settle_changes {hold}", worker, lambda each: each.settle_changes(hold))

    def _wait(self, row: RunRow, key: str) -> Wait:
        name, _, _ = key.partition("#")
        kind = Kind.SIGNAL if name in _NAMES else Kind.QUESTION if name in _POINTS else Kind.SLEEP
        target = None
        if name == "child":
            kind, target = self._one([Kind.CHILD, Kind.RUN]), self._one(_IDS)
        length = self._length()
        return Wait(key, kind, name, self._now, None if length is None else self._now + length, target)

    async def _suspend(self) -> None:
        held = self._held()
        if held is None:
            return
        worker, row, hold = held
        before = {wait.key: wait for wait in self._disk.open_waits[row.no]}
        opened = [self._wait(row, key) for key in self._some(_KEYS)]
        keys = {wait.key for wait in opened}
        closed = [key for key in self._some(before) if key not in keys]
        stays = [wait for key, wait in before.items() if key not in keys and key not in closed]
        due = min((wait.deadline for wait in (*stays, *opened) if wait.deadline is not None), default=None)
        paused = self._often(0.9 if row.pause is not None else 0.1)
        rest = Rest(self._now, opened, closed, due, paused)
        await self._twins.ask(f"suspend {hold} {rest}", worker, lambda each: each.suspend(hold, rest))

    async def _end(self) -> None:
        held = self._held()
        if held is None:
            return
        worker, row, hold = held
        state = self._one([State.COMPLETED, State.FAILED, State.FAILED, State.CANCELLED, State.PARKED])
        reason = self._one(["error", "deadline", "ambiguous"])
        result = None if state is State.CANCELLED else b"{}"
        end = End(state, reason, result, self._now, tuple(self._some(self._disk.kept[row.no], 2)))
        await self._twins.ask(f"end {hold} {end}", worker, lambda each: each.end(hold, end))

    async def _give_back(self) -> None:
        held = self._held()
        if held is not None:
            worker, _, hold = held
            at = self._now
            await self._twins.ask(f"give_back {hold}", worker, lambda each: each.give_back(hold, at))

    async def _leave(self) -> None:
        held = self._held()
        if held is not None:
            worker, _, hold = held
            at, interrupted = self._now, self._often()
            await self._twins.ask(f"leave {hold}", worker, lambda each: each.leave(hold, at, interrupted=interrupted))

    # Lives -----------------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        worker = self._worker()
        at = self._now
        await self._twins.ask("close", worker, lambda each: each.close(at))
        await self._twins.remove(worker)
        await self._twins.open()

    async def _die(self) -> None:
        worker = self._worker()
        number = self._twins.numbers[worker]
        for journal in await self._twins.remove(worker):
            await asyncio.sleep(0)
            journal.stop()
        await self._twins.open()
        at, limit = self._now, self._chance.randint(2, 4)
        await self._twins.ask(
            f"take_over {number} {limit}", self._worker(), lambda each: each.take_over([number], limit, b"{}", at)
        )

    async def _race(self) -> None:
        """What a client asks for, and what a driver writes before it has heard of it, both ways round."""
        self._only, self._twins.together = self._worker(), True
        told = [*[self._signal, self._answer, self._resume] * 3, self._cancel, self._pause, self._terminate]
        wrote = [self._suspend, self._end, self._expire, self._give_back, self._reclaim, self._report, self._ask]
        acts = [self._one(told), self._one(wrote), self._one(told)][self._often() :]
        try:
            for act in acts:
                await act()
        finally:
            self._only, self._twins.together = None, False
        await self._twins.agree()

    # Looking ---------------------------------------------------------------------------------------------------------

    async def compare(self, *, everything: bool) -> None:
        """Look at both."""
        last_seen, awaited, now = self._run(), self._some(_IDS), self._now
        query = RunQuery(limit=self._one([None, 1, 2, 3]), letters=self._often(0.2))
        named = QuestionQuery(name=self._one([None, *_POINTS]), limit=self._one([None, 1, 2]))
        numbers = sorted(self._disk.runs)
        looks: list[tuple[str, Verb]] = [
            ("runs", lambda each: each.runs(RunQuery())),
            ("memories", lambda each: each.memories(numbers)),
            ("changes", lambda each: _changes(each, query, last_seen)),
            ("questions", lambda each: each.questions(named)),
            ("news", lambda each: each.news()),
            ("next_due", lambda each: each.next_due(_WORKFLOWS)),
            ("ready", lambda each: each.ready(_WORKFLOWS, now)),
            ("backlog", lambda each: each.backlog()),
            *((f"mail of {no}", partial(_sorted_mail, run=no, awaited=awaited)) for no in self._some(numbers, 2)),
        ]
        for what, look in looks if everything else self._chance.sample(looks, 3):
            await self._twins.ask(what, self._worker(), look)
            self._twins.told.pop()


async def _changes(journal: Journal, query: RunQuery, last_seen: str) -> Any:
    """What has changed since this run did, and what has changed together."""
    row = await journal.run(last_seen)
    changed = await journal.changes(query, 0 if row is None else row.changed)
    ticks = sorted({row.changed for row in changed})
    return changed, [ticks.index(row.changed) for row in changed]


async def _sorted_mail(journal: Journal, run: int, awaited: Sequence[str]) -> Any:
    mail = await journal.mail(run, awaited)
    return list(mail.messages), list(mail.questions), sorted(mail.ended, key=lambda row: row.no)
