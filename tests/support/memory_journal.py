"""A journal in memory: the port's second adapter, small, strict and fast.

A `Disk` is what survives; a `MemoryJournal` is one worker's life on it. A "restarted process" is a new `MemoryJournal`
on the same `Disk`. Whatever is queued when the commit is made forms one batch, as in the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from durable_sqlite._records import (
    CANCEL_KEY,
    CancelRequest,
    Claimed,
    End,
    Entry,
    FailedAttempt,
    Hold,
    IfExists,
    Intent,
    Kind,
    Memory,
    NewRun,
    Outcome,
    Reason,
    Resumed,
    Resumption,
    RunQuery,
    RunRow,
    Settlement,
    Started,
    State,
    Suspension,
    Wait,
    WorkerRow,
)
from durable_sqlite.errors import EngineClosed, LeaseLost, RunConflict, RunExists, UnknownRun, WrongState
from tests.support.disk import Disk, fits

__all__ = ["Disk", "MemoryJournal"]

T = TypeVar("T")


class MemoryJournal:
    """One worker's door to a disk.

    Args:
        disk: What survives.
        delay: Seconds of the loop's time until a commit; None: at the loop's next turn.
        crash_at: At which commit of this life the process dies; the first is the one that enrols it.
        crash_lands: That last commit is on the disk, though nobody was told.
        on_crash: Called at the crash. Whatever was asked then, or is asked later, is never answered.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        delay: float | None = None,
        crash_at: int | None = None,
        crash_lands: bool = False,
        on_crash: Callable[[], None] | None = None,
    ) -> None:
        self.disk = disk
        self.me = 0
        self.commits = 0
        self.crashed = False
        self._delay = delay
        self._crash_at = crash_at
        self._crash_lands = crash_lands
        self._on_crash = on_crash
        self._queue: list[tuple[Callable[[], Any], bool, asyncio.Future[Any]]] = []
        self._timer: asyncio.Handle | None = None
        self._closed = True

    # Life ------------------------------------------------------------------------------------------------------------

    async def open(self, name: str, at: int) -> None:
        """Enrol."""

        def act() -> None:
            self.disk.last_worker += 1
            self.me = self.disk.last_worker
            self.disk.enrolled[self.me] = WorkerRow(self.me, name, 1, at)

        self._closed = False
        await self._submit(act, drives=False)

    async def close(self, at: int) -> None:
        """Give everything back and sign off."""
        if self._closed:
            return

        def act() -> None:
            for row in list(self.disk.runs.values()):
                if row.owner == self.me:
                    self.disk.put(row, state=State.PENDING, owner=None, deaths=0, interrupted=True, updated_at=at)
            self.disk.enrolled.pop(self.me, None)

        released = self._submit(act, drives=False)
        self._closed = True
        await released

    def stop(self) -> None:
        """Commit what is queued, and let go."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._commit()

    def _submit(self, act: Callable[[], T | Exception], *, drives: bool = True) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self.crashed:
            return future
        if self._closed:
            future.set_exception(EngineClosed("the journal is not open"))
            return future
        self._queue.append((act, drives, future))
        if self._timer is None:
            if self._delay is None:
                self._timer = loop.call_soon(self._commit)
            else:
                self._timer = loop.call_later(self._delay, self._commit)
        return future

    def _commit(self) -> None:
        self._timer = None
        queue, self._queue = self._queue, []
        self.commits += 1
        crash = self.commits == self._crash_at
        if crash and not self._crash_lands:
            self._crash()
            return
        # Before open has enrolled, there is nobody to be fenced.
        fenced = self.me != 0 and (self.me not in self.disk.enrolled or self.me in self.disk.fenced)
        answers = [_struck_off() if fenced and drives else self._apply(act) for act, drives, _future in queue]
        self.disk.commits += 1
        if crash:
            self._crash()
            return
        for (_act, _drives, future), answer in zip(queue, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _apply(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except AssertionError as error:
            self.disk.violations.append(str(error))
            return error

    def _crash(self) -> None:
        self.crashed = True
        if self._on_crash is not None:
            self._on_crash()

    def _fenced(self) -> bool:
        return self.me not in self.disk.enrolled or self.me in self.disk.fenced

    # Writes of clients -----------------------------------------------------------------------------------------------

    def start(self, new: NewRun, if_exists: IfExists, *, drive: bool) -> asyncio.Future[Started]:
        """Store a run, or attach."""

        def insert() -> Started:
            held = drive and not self._fenced()
            row = self.disk.insert(new, self.me if held else None)
            return Started(row, created=True, hold=Hold(row.no, 1) if held else None)

        def act() -> Started | Exception:
            no = self.disk.ids.get(new.id)
            if no is None:
                return insert()
            row = self.disk.runs[no]
            if if_exists is IfExists.FAIL:
                return RunExists(new.id, f"run {new.id} exists")
            if if_exists is IfExists.REPLACE:
                if not row.state.stopped:
                    return RunConflict(new.id, f"run {new.id} has not ended")
                self.disk.forget(no)
                return insert()
            if (row.workflow, row.input_digest) != (new.workflow, new.input_digest):
                return RunConflict(new.id, f"id {new.id} is taken")
            return Started(row, created=False, hold=None)

        return self._submit(act, drives=False)

    def cancel(self, run_id: str, request: CancelRequest) -> asyncio.Future[RunRow]:
        """Ask a run to end."""

        def act() -> RunRow | Exception:
            row = self._by_id(run_id)
            if row is None:
                return UnknownRun(run_id, f"no run {run_id}")
            if row.state.stopped:
                return WrongState(run_id, f"run {run_id} is {row.state.value} {row.reason}")
            if row.cancel is not None:
                return row
            row = self.disk.put(row, cancel=request, updated_at=request.at)
            if row.state is State.PENDING and not self.disk.kept[row.no]:
                self.disk.open_waits[row.no] = ()
                return self.disk.put(row, state=State.CANCELLED, reason=request.reason, ended_at=request.at)
            if row.state in (State.SUSPENDED, State.PAUSED):
                return self.disk.put(row, state=State.PENDING, due_at=None)
            return row

        return self._submit(act, drives=False)

    def resume(self, run_id: str, how: Resumption) -> asyncio.Future[Resumed]:
        """Make a dead letter pending."""

        def act() -> Resumed | Exception:
            row = self._by_id(run_id)
            if row is None:
                return UnknownRun(run_id, f"no run {run_id}")
            if row.state not in (State.FAILED, State.PARKED):
                return WrongState(run_id, f"run {run_id} is {row.state.value} {row.reason}")
            kept = self.disk.kept[row.no]
            if any(key not in kept for key in how.retry):
                return WrongState(run_id, f"run {run_id} has not recorded all of {', '.join(how.retry)}")
            if how.input is not None and kept:
                return WrongState(run_id, f"run {run_id} has recorded outcomes that belong to its input")
            forgotten = self._forget(row.no, {*row.failed_keys, *how.retry})
            data, digest = how.input or (row.input, row.input_digest)
            row = self.disk.put(
                row,
                state=State.PENDING,
                reason="",
                result=None,
                ended_at=None,
                deaths=0,
                accept_changes=how.accept_changes,
                failed_keys=(),
                discarded_at=None,
                deadline_at=how.at + row.deadline_length
                if row.reason == Reason.DEADLINE and row.deadline_length is not None
                else row.deadline_at,
                input=data,
                input_digest=digest,
                updated_at=how.at,
            )
            return Resumed(row, forgotten)

        return self._submit(act, drives=False)

    def _forget(self, no: int, keys: set[str]) -> tuple[str, ...]:
        kept = self.disk.kept[no]
        seen = [kept[key].seq for key in keys if key in kept]
        forgotten = [
            entry.key
            for entry in sorted(kept.values(), key=lambda entry: entry.seq)
            if entry.key in keys or (seen and entry.asked >= min(seen))
        ]
        for key in forgotten:
            del kept[key]
            self.disk.intents.get(no, {}).pop(key, None)
        failed = self.disk.failed.get(no, {})
        self.disk.failed[no] = {which: attempt for which, attempt in failed.items() if which[0] in kept}
        return tuple(forgotten)

    def settle(self, run_id: str, how: Settlement) -> asyncio.Future[RunRow]:
        """Decide what is in doubt."""

        def act() -> RunRow | Exception:
            row = self._by_id(run_id)
            if row is None:
                return UnknownRun(run_id, f"no run {run_id}")
            if (row.state, row.reason) != (State.PARKED, Reason.AMBIGUOUS):
                return WrongState(run_id, f"run {run_id} is {row.state.value}")
            kept, intents = self.disk.kept[row.no], self.disk.intents.get(row.no, {})
            intent = None if how.key in kept else intents.get(how.key)
            if intent is None:
                return WrongState(run_id, f"nothing of the key {how.key} is in doubt")
            if how.payload is None:
                failed = self.disk.failed.setdefault(row.no, {})
                number = 1 + max((n for key, n in failed if key == how.key), default=0)
                failed[how.key, number] = FailedAttempt(how.key, number, intent.at, how.at, how.at, how.error)
                del intents[how.key]
            else:
                seq = 1 + max((entry.seq for entry in kept.values()), default=0)
                kept[how.key] = Entry(
                    seq,
                    how.key,
                    Kind.STEP,
                    intent.name,
                    intent.digest,
                    Outcome.VALUE,
                    how.payload,
                    intent.asked,
                    intent.at,
                    how.at,
                    decided_by=how.by,
                )
            return self.disk.put(
                row,
                state=State.PENDING,
                reason="",
                result=None,
                ended_at=None,
                deaths=0,
                accept_changes=False,
                failed_keys=(),
                discarded_at=None,
                updated_at=how.at,
            )

        return self._submit(act, drives=False)

    def discard(self, run_id: str, at: int) -> asyncio.Future[RunRow]:
        """Mark a dead letter as seen to."""

        def act() -> RunRow | Exception:
            row = self._by_id(run_id)
            if row is None:
                return UnknownRun(run_id, f"no run {run_id}")
            if row.state not in (State.FAILED, State.PARKED):
                return WrongState(run_id, f"run {run_id} is {row.state.value}")
            return self.disk.put(row, discarded_at=at if row.discarded_at is None else row.discarded_at)

        return self._submit(act, drives=False)

    def _by_id(self, run_id: str) -> RunRow | None:
        return self.disk.runs.get(self.disk.ids.get(run_id, 0))

    # Writes of the worker --------------------------------------------------------------------------------------------

    def claim(
        self, workflows: Collection[str], now: int, limit: int, *, suspects: bool
    ) -> asyncio.Future[list[Claimed]]:
        """Take runs that are ready."""

        def act() -> list[Claimed]:
            ready = sorted(
                (row.updated_at if row.due_at is None else row.due_at, row.no)
                for row in self.disk.runs.values()
                if row.workflow in workflows and self._ready(row, now) and (row.deaths >= 2) == suspects
            )
            return [self._take(no, now) for _due, no in ready[: 1 if suspects else limit]]

        return self._submit(act)

    @staticmethod
    def _ready(row: RunRow, now: int) -> bool:
        due = row.state is State.SUSPENDED and row.due_at is not None and row.due_at <= now
        return due or row.state is State.PENDING

    def _take(self, no: int, now: int) -> Claimed:
        row = self.disk.runs[no]
        row = self.disk.put(row, state=State.RUNNING, owner=self.me, epoch=row.epoch + 1, due_at=None, updated_at=now)
        return Claimed(row, Hold(no, row.epoch))

    def _held(self, hold: Hold) -> RunRow | None:
        row = self.disk.runs.get(hold.run)
        return row if row is not None and (row.owner, row.epoch) == (self.me, hold.epoch) else None

    def reclaim(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Take a suspended run again."""

        def act() -> Exception | None:
            row = self.disk.runs.get(hold.run)
            if row is None or row.epoch != hold.epoch or row.state not in (State.SUSPENDED, State.PENDING):
                return _lost(hold)
            self._take(row.no, at)
            return None

        return self._submit(act)

    def record(self, hold: Hold, entry: Entry) -> asyncio.Future[None]:
        """Append one outcome."""

        def act() -> Exception | None:
            if self._held(hold) is None:
                return _lost(hold)
            entries = self.disk.kept[hold.run]
            assert entry.key not in entries, f"a second outcome for {entry.key}: {entry} after {entries[entry.key]}"
            entries[entry.key] = entry
            return None

        return self._submit(act)

    def intend(self, hold: Hold, intent: Intent) -> asyncio.Future[None]:
        """Note that an at-most-once step is about to begin."""

        def act() -> Exception | None:
            if self._held(hold) is None:
                return _lost(hold)
            self.disk.intents.setdefault(hold.run, {})[intent.key] = intent
            return None

        return self._submit(act)

    def fail(self, hold: Hold, attempt: FailedAttempt) -> asyncio.Future[None]:
        """Keep a failed attempt."""

        def act() -> Exception | None:
            if self._held(hold) is None:
                return _lost(hold)
            failed = self.disk.failed.setdefault(hold.run, {})
            assert (attempt.key, attempt.number) not in failed, (
                f"attempt {attempt.number} of {attempt.key} failed twice"
            )
            failed[attempt.key, attempt.number] = attempt
            return None

        return self._submit(act)

    def amend(
        self, hold: Hold, changed: Sequence[tuple[str, str, bytes]], removed: Sequence[str]
    ) -> asyncio.Future[None]:
        """Rewrite entries."""

        def act() -> Exception | None:
            if self._held(hold) is None:
                return _lost(hold)
            entries = self.disk.kept[hold.run]
            for key, name, digest in changed:
                if key in entries:
                    entries[key] = replace(entries[key], name=name, digest=digest)
            for key in removed:
                if key in entries:
                    entries[key] = replace(entries[key], removed=True)
            return None

        return self._submit(act)

    def settle_changes(self, hold: Hold) -> asyncio.Future[None]:
        """Later changes are divergences again."""
        return self._submit(lambda: self._change(hold, accept_changes=False))

    def _change(self, hold: Hold, **changes: Any) -> Exception | None:
        row = self._held(hold)
        if row is None:
            return _lost(hold)
        self.disk.put(row, **changes)
        return None

    def suspend(self, hold: Hold, waits: Sequence[Wait], at: int) -> asyncio.Future[Suspension]:
        """Give the run back until a wait is over."""

        def act() -> Suspension | Exception:
            row = self._held(hold)
            if row is None:
                return _lost(hold)
            if row.cancel is not None and CANCEL_KEY not in self.disk.kept[row.no]:
                return Suspension(suspended=False, cancel=row.cancel)
            due = min((wait.deadline for wait in waits if wait.deadline is not None), default=None)
            assert len({wait.key for wait in waits}) == len(waits), f"one key waits twice: {waits}"
            if row.deadline_at is not None and CANCEL_KEY not in self.disk.kept[row.no]:
                due = row.deadline_at if due is None else min(due, row.deadline_at)
            self.disk.open_waits[row.no] = tuple(waits)
            self.disk.put(
                row, state=State.SUSPENDED, owner=None, due_at=due, deaths=0, interrupted=False, updated_at=at
            )
            return Suspension(suspended=True)

        return self._submit(act)

    def end(self, hold: Hold, end: End) -> asyncio.Future[None]:
        """Stop the run."""

        def act() -> Exception | None:
            how = end
            assert how.state.stopped, how
            assert how.state is not State.COMPLETED or how.result is not None, "a completed run has a result"
            row = self._held(hold)
            undelivered = row is not None and row.cancel is not None and CANCEL_KEY not in self.disk.kept[row.no]
            if row is not None and row.cancel is not None and undelivered and how.state is not State.PARKED:
                how = End(State.CANCELLED, row.cancel.reason, None, how.at)
            refusal = self._change(
                hold,
                state=how.state,
                reason=how.reason,
                result=how.result,
                failed_keys=how.failed_keys,
                owner=None,
                deaths=0,
                interrupted=False,
                ended_at=how.at,
                updated_at=how.at,
            )
            if refusal is None:
                self.disk.open_waits[hold.run] = ()
            return refusal

        return self._submit(act)

    def give_back(self, hold: Hold, at: int) -> asyncio.Future[None]:
        """Make a run pending again."""
        return self._submit(
            lambda: self._change(hold, state=State.PENDING, owner=None, interrupted=True, updated_at=at)
        )

    def take_over(
        self, dead: Sequence[int], max_recoveries: int, parked_result: bytes, at: int
    ) -> asyncio.Future[list[RunRow]]:
        """Free or park the runs of dead workers."""

        def act() -> list[RunRow]:
            freed: list[RunRow] = []
            for worker in dead:
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
            return self.disk.put(row, state=State.PENDING, owner=None, deaths=deaths, interrupted=True, updated_at=at)
        self.disk.open_waits[row.no] = ()
        return self.disk.put(
            row,
            state=State.PARKED,
            reason=Reason.CRASH_LOOP.value,
            result=parked_result,
            owner=None,
            interrupted=True,
            deaths=deaths,
            ended_at=at,
            updated_at=at,
        )

    # Reads -----------------------------------------------------------------------------------------------------------

    async def _alive(self) -> None:
        if self.crashed:
            await asyncio.get_running_loop().create_future()
        if self._closed:
            raise EngineClosed("the journal is not open")

    async def run(self, run_id: str) -> RunRow | None:
        """The run of this id, or None."""
        await self._alive()
        return self._by_id(run_id)

    async def runs(self, query: RunQuery) -> list[RunRow]:
        """The runs that a query asks for."""
        await self._alive()
        found = sorted((row for row in self.disk.runs.values() if fits(row, query)), key=lambda row: row.no)
        if query.newest_first:
            found.reverse()
        return found[: query.limit]

    async def count(self, query: RunQuery) -> int:
        """How many runs a query asks for."""
        return len(await self.runs(replace(query, limit=None)))

    async def entries(self, run: int) -> list[Entry]:
        """All entries of a run by their order."""
        await self._alive()
        return sorted(self.disk.kept.get(run, {}).values(), key=lambda entry: entry.seq)

    async def memory(self, run: int) -> Memory:
        """All that is known of what a run has done and waits for."""
        attempts = [attempt for _, attempt in sorted(self.disk.failed.get(run, {}).items())]
        intents = sorted(self.disk.intents.get(run, {}).values(), key=lambda intent: intent.key)
        return Memory(await self.entries(run), await self.waits(run), attempts, intents)

    async def waits(self, run: int) -> list[Wait]:
        """What a run waits for, or waited for."""
        await self._alive()
        return sorted(self.disk.open_waits.get(run, ()), key=lambda wait: (wait.since, wait.key))

    async def next_due(self, workflows: Collection[str]) -> int | None:
        """When the next suspended run is due, or None."""
        await self._alive()
        return min((row.due_at for row in self._due_to_come() if row.workflow in workflows), default=None)

    def _due_to_come(self) -> list[Any]:
        rows = self.disk.runs.values()
        return [row for row in rows if row.state is State.SUSPENDED and row.due_at is not None]

    async def backlog(self) -> list[tuple[str, str, int]]:
        """What waits to be driven, by workflow and origin."""
        await self._alive()
        counts: dict[tuple[str, str], int] = {}
        pending = [row for row in self.disk.runs.values() if row.state is State.PENDING]
        for row in pending + self._due_to_come():
            counts[row.workflow, row.origin] = counts.get((row.workflow, row.origin), 0) + 1
        return [(workflow, origin, number) for (workflow, origin), number in sorted(counts.items())]

    async def workers(self) -> list[WorkerRow]:
        """All other workers."""
        await self._alive()
        return [worker for no, worker in sorted(self.disk.enrolled.items()) if no != self.me]


def _lost(hold: Hold) -> LeaseLost:
    return LeaseLost(f"run number {hold.run} is driven elsewhere; this write came from epoch {hold.epoch}")


def _struck_off() -> LeaseLost:
    return LeaseLost("this worker was struck off")
