"""What must hold after every tick: looked at in the journal, on a connection of its own, and outside of it."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from durable_sqlite._context import StepInfo

from .processes import LEASE, Process

__all__ = ["Checker", "Problem", "Run"]

_STOPPED = {"completed", "cancelled", "failed", "parked"}
_ONCE = {"launch", "leap"}
_EARLY = 1_000  # microseconds by which sums of floats may differ


@dataclass(frozen=True, slots=True)
class Problem:
    """A promise that was broken."""

    what: str
    """The promise, in words that are the same in every case."""
    detail: str

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Run:
    """A run in the journal."""

    no: int
    id: str
    state: str
    reason: str
    result: bytes | None
    owner: int | None
    epoch: int
    cancelled: bool

    @property
    def has_stopped(self) -> bool:
        """Whether it goes on by nobody."""
        return self.state in _STOPPED


_Entry = tuple[int, str, str, bytes, int]
_RUNS = "SELECT no, id, state, reason, result, owner, epoch, cancel_at IS NOT NULL FROM durable_runs"
_ENTRIES = "SELECT run, key, seq, kind, outcome, payload, recorded_at FROM durable_entries"
_SIGNALS = "SELECT run, no, dedupe, taken_by FROM durable_signals"
_WAITS = "SELECT run, key, deadline_at FROM durable_waits WHERE deadline_at IS NOT NULL"
_BOOKINGS = "SELECT run, key, count(*) FROM bookings GROUP BY run, key"
_WORKERS = "SELECT no FROM durable_workers"


class Checker:
    """Looks at the journal after each tick, and hears of what happens outside of it.

    Args:
        path: The journal's file.
    """

    def __init__(self, path: str) -> None:
        self.problems: list[Problem] = []
        self.counts: Counter[str] = Counter()
        self.runs: dict[int, Run] = {}
        self.ids: dict[str, Run] = {}
        self.entries: dict[tuple[int, str], _Entry] = {}
        self.moved: set[str] = set()
        """The runs of which something was recorded by the last tick."""
        self.obstructed_until = 0.0
        """Until when the storage was in trouble."""
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        self._version = -1
        self._signals: dict[tuple[int, int], tuple[str | None, str | None]] = {}
        self._deadlines: dict[tuple[int, str], int] = {}
        self._begun: dict[tuple[str, str, int], list[int]] = {}
        self._effects: dict[tuple[str, str], list[int]] = {}
        self._undone: set[tuple[str, str]] = set()
        self._keys: dict[tuple[str, str], str] = {}
        self._workers: dict[Process, int] = {}
        self._flying: defaultdict[Process, set[tuple[str, str]]] = defaultdict(set)

    def broken(self, what: str, *detail: object) -> None:
        """Note a broken promise."""
        self.problems.append(Problem(what, " ".join(map(str, detail))))

    def close(self) -> None:
        """Look no more."""
        self._connection.close()

    # The journal -----------------------------------------------------------------------------------------------------

    def look(self, process: Process, before: int) -> None:
        """See what a tick of a process has changed; `before` is the number that it had as a worker."""
        self.moved.clear()
        ((version,),) = self._connection.execute("PRAGMA data_version").fetchall()
        if version == self._version:
            return
        self._version = version
        self.counts["commits"] += 1
        self._connection.execute("BEGIN")
        try:
            runs = {row[0]: Run(*row) for row in self._connection.execute(_RUNS)}
            entries = {(row[0], row[1]): row[2:] for row in self._connection.execute(_ENTRIES)}
            signals = {(row[0], row[1]): row[2:] for row in self._connection.execute(_SIGNALS)}
            deadlines = {(row[0], row[1]): row[2] for row in self._connection.execute(_WAITS)}
            bookings = {(row[0], row[1]): row[2] for row in self._connection.execute(_BOOKINGS)}
        finally:
            self._connection.execute("ROLLBACK")
        self._deadlines.update(deadlines)
        mine = {before, process.worker} - {0}
        self._see_runs(runs, mine)
        self._see_entries(runs, entries, mine)
        self._see_signals(signals, entries)
        self.runs, self.entries, self._signals = runs, entries, signals
        self.ids = {run.id: run for run in runs.values()}
        self._see_bookings(bookings)

    def _see_runs(self, runs: dict[int, Run], mine: set[int]) -> None:
        for no, old in self.runs.items():
            new = runs.get(no)
            if new is None:
                self.broken("a run is gone", old.id)
                continue
            if new.epoch < old.epoch:
                self.broken("an epoch went back", old.id, old.epoch, new.epoch)
            if old.has_stopped and old.state != "parked" and (new.state, new.result) != (old.state, old.result):
                self.broken("a run's end was overwritten", old.id, old.state, new.state)
            by_owner = new.state in {"completed", "failed", "suspended"} and new.state != old.state
            if by_owner and old.owner not in mine and old.state != "pending":
                self.broken("a run was ended or suspended by somebody who did not drive it", old.id, old.owner, mine)

    def _see_entries(self, runs: dict[int, Run], entries: dict[tuple[int, str], Any], mine: set[int]) -> None:
        for key, known in self.entries.items():
            if entries.get(key) != known:
                self.broken("what was recorded is gone, or is another", key, known, entries.get(key))
        for key, entry in entries.items():
            if key in self.entries:
                continue
            no, name = key
            self.moved.add(runs[no].id)
            old, new = self.runs.get(no), runs[no]
            owners = {new.owner, old.owner if old is not None else None}
            # A person who settles what is in doubt records it, and drives nothing.
            settled = old is not None and old.state == "parked"
            if not owners & mine and not settled:
                self.broken("an outcome was recorded by somebody who did not drive the run", new.id, name, owners, mine)
            last = max((one[0] for (run, _), one in entries.items() if run == no), default=0)
            if last != sum(run == no for run, _ in entries):
                self.broken("the order of a run has gaps", new.id, entries)
            deadline = self._deadlines.get(key)
            timed = entry[1] == "sleep" or entry[2] == "timeout"
            if timed and deadline is not None and entry[4] < deadline - _EARLY:
                self.broken("a timer fired early", new.id, name, deadline, entry[4])

    def _see_signals(self, signals: dict[tuple[int, int], Any], entries: dict[tuple[int, str], Any]) -> None:
        for key, old in self._signals.items():
            new = signals.get(key)
            if new is None or (old[1] is not None and new != old):
                self.broken("a message is gone, or was taken once more", key, old, new)
        takers = [(run, taken) for (run, _), (_, taken) in signals.items() if taken is not None]
        if len(takers) != len(set(takers)) or not all(key in entries for key in takers):
            self.broken("a message was taken by no outcome, or two by one", takers)
        for run, name in entries:
            if name.rpartition("/")[2].startswith("simulation-letter") and (run, name) not in takers:
                self.broken("a message was received and not taken", run, name)

    def _see_bookings(self, bookings: dict[tuple[str, str], int]) -> None:
        recorded = {
            (self.runs[no].id, key): 1
            for (no, key), entry in self.entries.items()
            if entry[1] == "transaction" and entry[2] == "value"
        }
        if recorded != bookings:
            self.broken("a transaction's rows and its outcome are not one", sorted(recorded.items() ^ bookings.items()))

    # What happens outside of it --------------------------------------------------------------------------------------

    def began(self, process: Process, info: StepInfo) -> None:
        """A step's body begins."""
        self.counts["attempts"] += 1
        self._flying[process].add((info.run_id, info.key))
        run = self.ids.get(info.run_id)
        if run is None:
            self.broken("a step of a run began that is not stored", info.run_id, info.key)
            return
        if (run.no, info.key) in self.entries:
            self.broken("a step began that is recorded", info.run_id, info.key)
        if run.owner != process.worker:
            self.broken("a step began where its run is not driven", info.run_id, info.key, run.owner, process.worker)
        epochs = self._begun.setdefault((info.run_id, info.key, info.attempt), [])
        if run.epoch in epochs:
            self.broken("an attempt began twice for one owner", info.run_id, info.key, info.attempt)
        if epochs and info.name in _ONCE and (info.run_id, info.key) not in self._undone:
            self.broken("an at-most-once step began again, and nobody was asked", info.run_id, info.key)
        self._undone.discard((info.run_id, info.key))
        if epochs:
            self.counts["attempts made again"] += 1
            if not info.recovered:
                self.broken("an attempt was not told that it may have begun before", info.run_id, info.key)
        epochs.append(run.epoch)
        if self._keys.setdefault((info.run_id, info.key), info.idempotency_key) != info.idempotency_key:
            self.broken("an idempotency key changed", info.run_id, info.key)

    def effect(self, info: StepInfo, value: int) -> None:
        """A step has its effect."""
        had = self._effects.setdefault((info.run_id, info.key), [])
        had.append(value)
        if info.name in _ONCE and len(had) > 1:
            self.broken("an at-most-once step had its effect twice", info.run_id, info.key)

    def is_undone(self, run_id: str, key: str) -> None:
        """A probe or a person has said of an at-most-once step that it had no effect: it may begin again."""
        self._undone.add((run_id, key))

    def gone(self, process: Process, info: StepInfo) -> None:
        """A step's body is over."""
        self._flying[process].discard((info.run_id, info.key))

    def process_ended(self, process: Process) -> None:
        """Nothing of a process goes on."""
        self._flying.pop(process, None)

    def effect_of(self, run_id: str, key: str) -> int | None:
        """What a step would have returned that had its effect; None if it had none."""
        return next(iter(self._effects.get((run_id, key), ())), None)

    def is_flying(self, run_id: str, key: str) -> bool:
        """Whether a body of it may still have its effect: where it began may be a process that was taken for dead."""
        return any((run_id, key) in flying for flying in self._flying.values())

    def in_doubt(self, run_id: str) -> str:
        """The key of a step of which nobody knows whether it began."""
        no = self.ids[run_id].no
        began = self._connection.execute("SELECT key FROM durable_intents WHERE run = ? ORDER BY at, key", (no,))
        return next(str(key) for (key,) in began.fetchall() if (no, key) not in self.entries)

    def acknowledged(self, what: str, run_id: str, dedupe: str = "") -> None:
        """A client was told that what it asked is done."""
        run = self.ids.get(run_id)
        if run is None:
            stored = False
        elif what == "signal":
            stored = any(no == run.no and said[0] == dedupe for (no, _), said in self._signals.items())
        elif what == "cancel":
            stored = run.cancelled
        elif what == "result":
            stored = run.state == "completed"
        else:
            stored = True
        self.counts[f"acknowledged {what}"] += 1
        if not stored:
            self.broken("something was acknowledged that is not stored", what, run_id, dedupe)

    def see_worker(self, process: Process, now: float) -> None:
        """A tick of a process is over: see whether it has begun anew as a worker, which it must not do for nothing."""
        before, after = self._workers.get(process, 0), process.worker
        if before == after:
            return
        self._workers[process] = after
        if not before:
            return
        self.counts["leases lost"] += 1
        stood = max(process.stands_until, process.blocked_until, self.obstructed_until, 0.0)
        if now - stood > 2 * LEASE:
            self.broken("a worker that lives and can write was given up", process.number, now, stood)
