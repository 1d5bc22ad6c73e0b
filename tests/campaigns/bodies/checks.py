"""What must hold in every case, looked at while it is played and when it is over."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from durable_sqlite._context import Body, StepInfo
from durable_sqlite._records import CANCEL_KEY, Entry, RunRow, State
from tests.support.memory_journal import Disk

from .attempts import Attempts

__all__ = ["Ledger", "Problem"]

_GRACE = 9.999  # seconds after which others may begin beside a step that does not go, less what rounding may take


@dataclass(frozen=True, slots=True)
class Problem:
    """A promise that was broken."""

    what: str
    """The promise, in words that are the same in every case."""
    detail: str

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}"


@dataclass(slots=True)
class _Sight:
    """What a body has seen up to now in one pass."""

    state: int = 0
    last: list[str] = field(default_factory=list[str])

    def add(self, what: str) -> None:
        self.state = hash((self.state, what))
        self.last.append(what)


@dataclass(frozen=True, slots=True)
class _Mark:
    """What a body had seen when it was given an entry for the first time."""

    key: str
    state: int
    seen: tuple[str, ...]


class Ledger:
    """Notes what bodies see and what steps do, and every promise that is broken.

    Args:
        disk: What is committed.
        commit_delay: Seconds that a commit may take.
    """

    def __init__(self, disk: Disk, commit_delay: float) -> None:
        self.problems: list[Problem] = []
        self.attempts = Attempts(disk, round(commit_delay * 1_000_000), self.broken)
        self.starts = 0
        self.processes = 0
        self._disk = disk
        self._delay = commit_delay
        self._arms: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
        self._sights: dict[Body, _Sight] = {}
        self._marks: dict[tuple[str, int], _Mark] = {}
        self._given: dict[str, int] = {}
        self._cancelled: dict[str, float] = {}
        self._told: dict[str, tuple[State, bytes | None]] = {}
        self._leaving: dict[tuple[str, str], float] = {}

    def broken(self, what: str, detail: object) -> None:
        """Note a broken promise."""
        self.problems.append(Problem(what, str(detail)))

    # Steps -----------------------------------------------------------------------------------------------------------

    def began(self, info: StepInfo, args: tuple[Any, ...], at: int) -> None:
        """An attempt's body begins."""
        self.starts += 1
        self.attempts.began(info, args, at)
        self._begins_in_order(info)
        if len(args) > 1 and isinstance(args[1], int):
            self._arms[info.run_id, args[0]].add(args[1])
            if len(self._arms[info.run_id, args[0]]) > 1:
                self.broken("both arms of a decision were taken", (info.run_id, info.key))

    def _begins_in_order(self, info: StepInfo) -> None:
        committed = self._committed(info.run_id)
        if info.key in committed:
            self.broken("a recorded step began again", (info.run_id, info.key))
        if self._given.get(info.run_id, 0) > len(committed):
            self.broken("a step began before what it may depend on was committed", (info.run_id, info.key))

    def launched(self, run: str, key: str, now: float) -> None:
        """A fresh step is about to begin, once all that it depends on is committed."""
        for (leaving_run, leaving), since in self._leaving.items():
            if leaving_run == run and now < since + _GRACE:
                self.broken("a step began beside one that was given up and had not gone", (run, leaving, key))

    def gone(self, info: StepInfo, at: int, *, performed: bool) -> None:
        """An attempt's body is over; if `performed`, its effect has happened."""
        if not self.attempts.gone(info, at):
            return
        if performed and (info.run_id, info.key) in self._leaving:
            self.broken("a step that was given up was not stopped", (info.run_id, info.key))
        self._leaving.pop((info.run_id, info.key), None)

    def given_up(self, run: str, key: str, now: float) -> None:
        """The body no longer waits for a step."""
        if self.attempts.given_up((run, key)):
            self._leaving[run, key] = now

    # Bodies ----------------------------------------------------------------------------------------------------------

    def saw(self, body: Body, what: str) -> None:
        """A body has seen something."""
        self._sights.setdefault(body, _Sight()).add(what)

    def given(self, run: str, body: Body, entry: Entry, now: float) -> None:
        """A body is about to be given an entry. What it has seen until then must be what it had seen on the first pass."""
        sight = self._sights.setdefault(body, _Sight())
        mark = self._marks.get((run, entry.seq))
        self._given[run] = max(self._given.get(run, 0), entry.seq)
        if mark is None:
            self._marks[run, entry.seq] = _Mark(entry.key, sight.state, tuple(sight.last))
            self.attempts.landed(run, entry)
            asked = self._cancelled.get(run)
            if (
                asked is not None
                and now > asked + self._delay
                and entry.key != CANCEL_KEY
                and not self._saw_cancel(run)
            ):
                self.broken("something else was given to a body long after its cancellation", (run, entry.key))
        elif (mark.key, mark.state) != (entry.key, sight.state):
            self.broken("what a body sees differs between passes", _difference(mark, entry, sight))

    def _saw_cancel(self, run: str) -> bool:
        return any(mark.key == CANCEL_KEY for (id_, _), mark in self._marks.items() if id_ == run)

    def seen_by(self, body: Body) -> int:
        """How much a body has seen in this pass."""
        return len(self._sights.setdefault(body, _Sight()).last)

    # Runs ------------------------------------------------------------------------------------------------------------

    def cancel_accepted(self, run: str, now: float) -> None:
        """A client was told that the run will be cancelled."""
        self._cancelled.setdefault(run, now)

    def told(self, run: str, now: float) -> None:
        """Those who wait for a run are told that it has stopped."""
        row = self._row(run)
        if not row.state.stopped:
            self.broken("a run was said to have stopped before that was committed", (run, row.state))
        self._told.setdefault(run, (row.state, row.result))
        asked = self._cancelled.get(run)
        if asked is not None and now > asked + 2 * self._delay and CANCEL_KEY not in self._committed(run):
            self.broken("a run ended long after its cancellation as if nobody had asked", run)

    def process_ended(self, at: int) -> None:
        """A process is gone, with all that was only in its memory."""
        self.attempts.process_ended(at)
        self.processes += 1
        self._leaving.clear()
        self._given.clear()
        self._sights.clear()
        for (run, seq), mark in list(
            self._marks.items()
        ):  # given early, and then lost with the process: it never happened
            entry = self._committed(run).get(mark.key)
            if entry is None or entry.seq != seq:
                del self._marks[run, seq]

    def over(self) -> None:
        """The case is over."""
        self.attempts.over()
        for violation in self._disk.violations:
            self.broken("the journal was written against its rules", violation)
        for row in self._disk.runs.values():
            self._ended_well(row)
            seqs = sorted(entry.seq for entry in self._disk.kept[row.no].values())
            if seqs != list(range(1, len(seqs) + 1)):
                self.broken("the order of a run has gaps", (row.id, seqs))
            told = self._told.get(row.id)
            if told is not None and told != (row.state, row.result):
                self.broken("a run's end was overwritten", (row.id, told, row.state))

    def _ended_well(self, row: RunRow) -> None:
        result = (row.result or b"").decode()
        if not row.state.stopped:
            self.broken("a run never ended", (row.id, row.state))
        elif row.state is State.PARKED:
            self.broken("a run of unchanged code was parked", (row.id, row.reason, result[:300]))
        elif row.state is State.FAILED and "OpenBranches" not in result:
            self.broken("a run failed by itself", (row.id, result[:300]))
        elif row.state is State.CANCELLED and row.cancel is None:
            self.broken("a run was cancelled and nobody had asked", row.id)

    def _row(self, run: str) -> RunRow:
        return self._disk.runs[self._disk.ids[run]]

    def _committed(self, run: str) -> dict[str, Entry]:
        return self._disk.kept[self._disk.ids[run]]


def _difference(mark: _Mark, entry: Entry, sight: _Sight) -> str:
    for index, (then, now) in enumerate(zip(mark.seen, sight.last, strict=False)):
        if then != now:
            return f"before entry {entry.seq} {entry.key}, sight {index}: {then!r} at first, {now!r} now"
    return (
        f"entry {entry.seq}: {mark.key} after {len(mark.seen)} sights at first, {entry.key} after {len(sight.last)} now: "
        f"{(mark.seen + tuple(sight.last))[min(len(mark.seen), len(sight.last)) :][:3]}"
    )
