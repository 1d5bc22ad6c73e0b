"""What the worker that drives runs writes about them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from durable_sqlite._records import (
    CANCEL_KEY,
    Claimed,
    Drained,
    End,
    Ended,
    Entry,
    FailedAttempt,
    Hold,
    Intent,
    Kind,
    NewQuestion,
    News,
    Question,
    Reason,
    Report,
    Rest,
    RunRow,
    State,
    Suspension,
    Wait,
    WorkerRow,
)
from tests.support.disk import ENDED, Disk, is_for, is_ready
from tests.support.memory.clients import give
from tests.support.memory.door import Door

__all__ = ["Driving"]


class Driving(Door):
    """The verbs of the worker."""

    # Taking and letting go -------------------------------------------------------------------------------------------

    def claim(
        self,
        workflows: Collection[str],
        now: int,
        limit: int,
        *,
        suspects: bool,
        only: Collection[str] | None = None,
    ) -> asyncio.Future[list[Claimed]]:
        """Take runs that are ready."""

        def act() -> list[Claimed]:
            queues: dict[str, list[tuple[int, int]]] = {}
            for row in self.disk.wanted(only):
                if row.workflow in workflows and is_ready(row, now) and (row.deaths >= 2) == suspects:
                    due = row.updated_at if row.due_at is None else row.due_at
                    queues.setdefault(row.workflow, []).append((due, row.no))
            for queue in queues.values():
                queue.sort()
            chosen: list[tuple[int, int]] = []
            while len(chosen) < (1 if suspects else limit) and any(queues.values()):
                # One of each workflow in turn, the oldest of them first.
                turn = sorted(queue.pop(0) for queue in queues.values() if queue)
                chosen += turn[: (1 if suspects else limit) - len(chosen)]
            return [self._take(no, now) for _due, no in sorted(chosen)]

        return self._submit(act)

    def reclaim(self, hold: Hold, at: int) -> asyncio.Future[News]:
        """Take a run again that nobody has driven since."""

        return self._submit(lambda: self._retake(hold, at))

    def suspend(self, hold: Hold, rest: Rest) -> asyncio.Future[Suspension]:
        """Give the run back until a wait is over."""

        def act(row: RunRow) -> Suspension:
            waits = _difference(self.disk.open_waits[row.no], rest)
            cancel = self.disk.unheard(row)
            is_news = cancel is not None or rest.paused == (row.pause is None)
            if is_news or (not rest.paused and _has_come(self.disk, row.no, waits)):
                return Suspension(suspended=False, cancel=cancel, pause=row.pause)
            self.disk.open_waits[row.no] = waits
            row = self.disk.put(row, deaths=0, interrupted=rest.interrupted)
            if rest.paused:
                self.disk.lay_aside(row, rest.at)
                return Suspension(suspended=True, pause=row.pause)
            nearest = min((wait.deadline for wait in waits if wait.deadline is not None), default=None)
            assert rest.due == nearest, f"the nearest deadline of {waits} is not {rest.due}"
            ends = [each for each in (rest.due, self.disk.deadline(row)) if each is not None]
            self.disk.put(row, state=State.SUSPENDED, owner=None, due_at=min(ends, default=None), updated_at=rest.at)
            return Suspension(suspended=True)

        return self._submit_held(hold, act)

    def end(self, hold: Hold, end: End) -> asyncio.Future[Ended | None]:
        """Stop the run."""

        def act(row: RunRow) -> Ended | None:
            how = end
            assert how.state.stopped, how
            assert how.state is not State.COMPLETED or how.result is not None, "a completed run has a result"
            cancel = self.disk.unheard(row)
            if cancel is not None and how.state is not State.PARKED:
                how = End(State.CANCELLED, cancel.reason, None, how.at)
            if how.state is State.COMPLETED and how.drained is not None and self._more_has_come(row, how.drained):
                self.disk.free(row, how.at)
                return None
            theirs = row.deadline_inherited and how.state is State.FAILED and how.reason == Reason.DEADLINE
            row = self.disk.stop(
                row,
                how.state,
                how.at,
                reason=how.reason,
                result=how.result,
                failed_keys=how.failed_keys,
                deaths=0,
                interrupted=how.interrupted,
                discarded_at=how.at if theirs else None,
            )
            return Ended(row.state, self.disk.wake_waiters(row, how.at) if row.state in ENDED else 0)

        return self._submit_held(hold, act)

    def _more_has_come(self, row: RunRow, drained: Drained) -> bool:
        mail = self.disk.mail[row.no]
        if not any(
            message.name == drained.name and message.no > drained.heard and not message.taken_by and not message.error
            for message in mail
        ):
            return False
        entry = self.disk.kept[row.no].pop(drained.key)
        assert entry.seq > max((other.seq for other in self.disk.kept[row.no].values()), default=0), "it was the last"
        mail[:] = [replace(one, taken_by=None) if one.taken_by == drained.key else one for one in mail]
        return True

    def give_back(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Make a run pending again."""

        def act(row: RunRow) -> None:
            self.disk.free(row, at)

        return self._submit_held(hold, act)

    def leave(self, hold: Hold, at: int, *, interrupted: bool) -> asyncio.Future[None]:
        """Make a run pending again in good order."""

        def act(row: RunRow) -> None:
            self.disk.free(row, at, deaths=0, interrupted=interrupted)

        return self._submit_held(hold, act)

    def sound(self) -> asyncio.Future[list[WorkerRow]]:
        """Write something, and look at all other workers."""
        return self._submit(lambda: self.disk.workers(but=self.me))

    def take_over(
        self,
        dead: Sequence[int],
        max_recoveries: int,
        parked_result: bytes,
        at: int,
        *,
        if_still: Mapping[int, int] | None = None,
    ) -> asyncio.Future[list[RunRow]]:
        """Free or park the runs of dead workers."""

        def act() -> list[RunRow]:
            freed: list[RunRow] = []
            for worker in dead:
                there = self.disk.enrolled.get(worker)
                if if_still and worker in if_still and (there is None or there.moved != if_still[worker]):
                    continue
                orphans = [row for row in self.disk.runs.values() if row.owner == worker]
                freed += [self._free(row, max_recoveries, parked_result, at) for row in orphans]
                self.disk.enrolled.pop(worker, None)
            return freed

        return self._submit(act)

    def _free(self, row: RunRow, max_recoveries: int, parked_result: bytes, at: int) -> RunRow:
        entries = len(self.disk.kept[row.no])
        deaths = 1 if entries > self.disk.survived[row.no] else row.deaths + 1
        self.disk.survived[row.no] = entries
        if deaths < max_recoveries:
            return self.disk.free(row, at, deaths=deaths)
        reason = Reason.CRASH_LOOP.value
        return self.disk.stop(
            row, State.PARKED, at, reason=reason, result=parked_result, interrupted=True, deaths=deaths
        )

    # What is recorded ------------------------------------------------------------------------------------------------

    def record(self, hold: Hold, entry: Entry, takes: Sequence[int] = ()) -> asyncio.Future[None]:
        """Append one outcome."""

        def act(row: RunRow) -> None:
            mail = {message.no: message for message in self.disk.waiting_mail(row.no)}
            assert len(set(takes)) == len(takes), f"{entry.key} takes a message twice: {takes}"
            for no in takes:
                assert no in mail, f"{entry.key} takes message {no}, which does not wait: {self.disk.mail[row.no]}"
            self._append(row, entry)
            for no in takes:
                self.disk.mail[row.no][no - 1] = replace(mail[no], taken_by=entry.key)

        return self._submit_held(hold, act)

    def expire(self, hold: Hold, entry: Entry, deadline: int) -> asyncio.Future[bool]:
        """Append the outcome of a wait whose deadline has passed."""

        def act(row: RunRow) -> bool:
            if entry.kind is Kind.SIGNAL:
                mail = self.disk.waiting_mail(row.no)
                if any(message.name == entry.name and message.at <= deadline for message in mail):
                    return False
            if entry.kind is Kind.QUESTION:
                if self._asked(row, entry.key).answer is not None:
                    return False
                self.disk.close_questions(row.no, [entry.key], deadline)
            self._append(row, entry)
            return True

        return self._submit_held(hold, act)

    def _append(self, row: RunRow, entry: Entry) -> None:
        entries = self.disk.kept[row.no]
        assert entry.key not in entries, f"a second outcome for {entry.key}: {entry} after {entries[entry.key]}"
        entries[entry.key] = entry
        if entry.key == CANCEL_KEY and row.pause is not None:
            self.disk.put(row, pause=None)

    def intend(self, hold: Hold, intent: Intent) -> asyncio.Future[None]:
        """Note that an at-most-once step is about to begin."""

        def act(row: RunRow) -> None:
            self.disk.intents.setdefault(row.no, {})[intent.key] = intent

        return self._submit_held(hold, act)

    def fail(self, hold: Hold, attempt: FailedAttempt) -> asyncio.Future[None]:
        """Keep a failed attempt."""

        def act(row: RunRow) -> None:
            failed = self.disk.failed.setdefault(row.no, {})
            which = (attempt.key, attempt.number)
            assert which not in failed, f"attempt {attempt.number} of {attempt.key} failed twice"
            failed[which] = attempt

        return self._submit_held(hold, act)

    def amend(
        self, hold: Hold, changed: Sequence[tuple[str, str, bytes]], removed: Sequence[str]
    ) -> asyncio.Future[None]:
        """Rewrite entries."""

        def act(row: RunRow) -> None:
            entries = self.disk.kept[row.no]
            for key, name, digest in changed:
                if key in entries:
                    entries[key] = replace(entries[key], name=name, digest=digest)
            for key in removed:
                if key in entries:
                    entries[key] = replace(entries[key], removed=True)

        return self._submit_held(hold, act)

    def settle_changes(self, hold: Hold) -> asyncio.Future[None]:
        """Later changes are divergences again."""

        def act(row: RunRow) -> None:
            self.disk.put(row, accept_changes=False)

        return self._submit_held(hold, act)

    def report(self, hold: Hold, report: Report) -> asyncio.Future[None]:
        """Keep what the body says of itself."""

        def act(row: RunRow) -> None:
            self.disk.put(row, status=report.status, progress=report.progress, updated_at=report.at)

        return self._submit_held(hold, act)

    # Messages and questions ------------------------------------------------------------------------------------------

    def ask(self, hold: Hold, question: NewQuestion) -> asyncio.Future[bool]:
        """Store a question."""

        def act(row: RunRow) -> bool:
            asked = self.disk.asked[row.no]
            if question.key not in asked:
                asked[question.key] = Question(
                    question.key, question.name, question.payload, question.schema, question.at, question.deadline
                )
                early = self.disk.early[row.no]
                answer = next((each for each in early if each.name == question.name), None)
                if answer is not None:
                    early.remove(answer)
                    give(self.disk, row.no, asked[question.key], answer)
            return asked[question.key].answer is not None

        return self._submit_held(hold, act)

    def withdraw(self, hold: Hold, keys: Sequence[str], at: int) -> asyncio.Future[None]:
        """Close questions."""

        def act(row: RunRow) -> None:
            self.disk.close_questions(row.no, keys, at)

        return self._submit_held(hold, act)

    def set_aside(self, hold: Hold, message: int, error: bytes) -> asyncio.Future[None]:
        """Keep a message out of the way."""

        def act(row: RunRow) -> None:
            mail = {waiting.no: waiting for waiting in self.disk.waiting_mail(row.no)}
            assert message in mail, f"message {message} does not wait: {self.disk.mail[row.no]}"
            self.disk.mail[row.no][message - 1] = replace(mail[message], error=error)

        return self._submit_held(hold, act)

    def reopen(self, hold: Hold, key: str, answer: bytes, error: bytes) -> asyncio.Future[None]:
        """Take an answer away again."""

        def act(row: RunRow) -> None:
            question = self._asked(row, key)
            if question.answer != answer:
                return
            assert key not in self.disk.kept[row.no], f"the answer to {question} is recorded"
            # Its sender is remembered: the same answer is not taken a second time.
            self.disk.asked[row.no][key] = replace(question, answer=None, answered_at=None, answered_by="", error=error)

        return self._submit_held(hold, act)

    def _asked(self, row: RunRow, key: str) -> Question:
        asked = self.disk.asked[row.no]
        assert key in asked, f"run {row.id} has asked no {key}: {asked}"
        return asked[key]


def _difference(before: Sequence[Wait], rest: Rest) -> tuple[Wait, ...]:
    """What the run waits for now."""
    opened = {wait.key for wait in rest.opened}
    assert len(opened) == len(rest.opened), f"one key waits twice: {rest.opened}"
    assert opened.isdisjoint(rest.closed), f"a wait is opened and closed: {rest}"
    gone = opened | set(rest.closed)
    return (*(wait for wait in before if wait.key not in gone), *rest.opened)


def _has_come(disk: Disk, no: int, waits: Sequence[Wait]) -> bool:
    """Whether one of these waits is over already."""
    mail = disk.waiting_mail(no)
    answered = {question.key for question in disk.unrecorded_answers(no)}
    return any(
        (wait.kind is Kind.SIGNAL and any(is_for(wait, message.name, message.at) for message in mail))
        or (wait.kind is Kind.QUESTION and wait.key in answered)
        or disk.has_ended(wait.target)
        for wait in waits
    )
