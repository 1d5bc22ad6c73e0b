"""What must hold of the attempts of steps, over all processes. Times are microseconds of the engine's clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from durable_sqlite._context import StepInfo
from durable_sqlite._records import Entry, FailedAttempt, Kind, Outcome
from tests.support.memory_journal import Disk

from .steps import FAILING_AT_FIRST

__all__ = ["Attempts"]

_PATIENCE = 1_000_000  # that an attempt which took too long may take to go
_ROUNDING = 2

_Where = tuple[str, str]
"""A run's id and a step's key."""


@dataclass(slots=True)
class _Story:
    """What happened to one step, over all processes."""

    args: tuple[Any, ...]
    idempotency_key: str
    begun: int = 0
    cut_off: int = 0
    """How many processes ended before what became of an attempt was recorded."""
    interrupted: bool = False
    """The last process in which it began was one of those."""
    here: bool = False
    """It has begun in this process."""
    number: int = 0
    """Of the last attempt."""
    limit: int | None = None
    """How long that may take."""
    running: bool = False
    left: bool = False
    """It was left behind: it may still be running, and is nobody's."""
    given_up: bool = False
    gone_at: int = 0
    unloaded_at: int | None = None
    """When this process put away the body that waited for it."""
    began_at: dict[int, int] = field(default_factory=dict[int, int])
    """By number, when each attempt began the last time."""
    late: set[int] = field(default_factory=set[int])
    """Numbers of the attempts that took too long."""


class Attempts:
    """Notes every attempt, and holds it against what is recorded.

    Args:
        disk: What is committed.
        commit_delay: How long a commit may take.
        broken: Is told of each promise that is broken, with the facts.
    """

    def __init__(self, disk: Disk, commit_delay: int, broken: Callable[[str, object], None]) -> None:
        self._disk = disk
        self._delay = commit_delay
        self._broken = broken
        self._stories: dict[_Where, _Story] = {}
        self._limits: dict[_Where, int | None] = {}
        self._recorded: dict[tuple[str, str, int], FailedAttempt] = {}
        """Failed attempts that were on the disk when the last process ended."""
        self._processes = 0
        self.counts: Counter[str] = Counter()
        """What befell attempts."""

    # While a process lives -------------------------------------------------------------------------------------------

    def launched(self, where: _Where, limit: int | None) -> None:
        """An attempt is about to begin that may take `limit`."""
        self._limits[where] = limit

    def began(self, info: StepInfo, args: tuple[Any, ...], at: int) -> None:
        """An attempt's body begins."""
        where = (info.run_id, info.key)
        story = self._stories.setdefault(where, _Story(args, info.idempotency_key))
        story.begun += 1
        if (story.args, story.idempotency_key) != (args, info.idempotency_key):
            self._broken("a step began again with other arguments or another idempotency key", (where, args))
        if story.running:
            self._broken("a step began while an attempt of it was under way", where)
        if story.interrupted and not info.recovered:
            self._broken("a step that was interrupted began again without `recovered`", where)
        if info.recovered and self._processes == 0:
            self._broken("the first process of all was told that it recovers", where)
        self._in_turn(story, info, at)
        story.interrupted, story.here, story.running, story.left = False, True, True, False
        story.given_up, story.unloaded_at = False, None
        story.number, story.limit = info.attempt, self._limits.get(where)
        story.began_at[info.attempt] = at
        story.late.discard(info.attempt)

    def _in_turn(self, story: _Story, info: StepInfo, at: int) -> None:
        failed = self._failed(info.run_id, info.key)
        facts = (info.run_id, info.key, info.attempt, sorted(failed), story.begun, story.cut_off)
        if info.attempt != len(failed) + 1:
            self._broken("an attempt's number does not follow those that are recorded", facts)
        self.counts["attempts made again"] += story.interrupted
        if story.begun > len(failed) + 1 + story.cut_off:
            self._broken("an attempt was made again that nothing had interrupted", facts)
        most = info.max_attempts
        if most is not None and (info.attempt > most or story.begun > most + story.cut_off):
            self._broken("a step was tried more often than it may be", facts)
        last = failed.get(len(failed))
        if last is not None and (last.next_at is None or at < last.next_at):
            self._broken("an attempt began before the time that is recorded for it", (facts, at, last.next_at))

    def gone(self, info: StepInfo, at: int) -> bool:
        """An attempt's body is over; whether anybody still thought of it."""
        story = self._stories[info.run_id, info.key]
        if story.left or story.number != info.attempt:
            return False
        self._over(story, at)
        if not story.given_up and story.unloaded_at is None and self._taken(story, at) > _PATIENCE + _ROUNDING:
            self._broken("an attempt outlived its time limit and all patience", (info.run_id, info.key, info.attempt))
        return True

    def left_behind(self, info: StepInfo, at: int) -> None:
        """The engine goes on without an attempt that does not end."""
        story = self._stories[info.run_id, info.key]
        self._over(story, at)
        self.counts["attempts left behind"] += 1
        story.left = True
        if self._taken(story, at) < _PATIENCE - _ROUNDING:
            self._broken("an attempt was left behind too early", (info.run_id, info.key, info.attempt))

    def _over(self, story: _Story, at: int) -> None:
        story.running = False
        story.gone_at = at
        if self._taken(story, at) >= 0:
            story.late.add(story.number)

    @staticmethod
    def _taken(story: _Story, at: int) -> int:
        """How much longer than it may the attempt has taken."""
        return -1 if story.limit is None else at - story.began_at[story.number] - story.limit

    def given_up(self, where: _Where) -> bool:
        """The body no longer waits for a step; whether an attempt of it is under way."""
        story = self._stories.get(where)
        if story is None or not story.here:
            return False
        story.given_up = True
        return story.running

    def landed(self, run: str, entry: Entry) -> None:
        """A body is given an outcome for the first time."""
        story = self._stories.get((run, entry.key))
        if story is not None and entry.attempts in story.late and entry.outcome is not Outcome.ERROR:
            self._broken("what an attempt brought that took too long was recorded", (run, entry))

    def unloaded(self, run: str, at: int) -> None:
        """A body is put away."""
        for (of, _), story in self._stories.items():
            if of == run and story.here and story.unloaded_at is None:
                story.unloaded_at = at
                if story.running:
                    story.gone_at = at

    # When one has ended ----------------------------------------------------------------------------------------------

    def process_ended(self, at: int) -> None:
        """A process is gone, with all that was only in its memory."""
        self._processes += 1
        for where, story in self._stories.items():
            if story.here and not self._is_recorded(where, story.number):
                story.cut_off += 1
                story.interrupted = True
                self._lost_nothing_old(where, story, at)
            story.here = story.running = False
        self._look_back()

    def _lost_nothing_old(self, where: _Where, story: _Story, at: int) -> None:
        until = at if story.unloaded_at is None else story.unloaded_at
        forgotten = not story.running and story.gone_at < until - self._delay - _ROUNDING
        if forgotten and not story.given_up and not self._disk.runs[self._disk.ids[where[0]]].state.stopped:
            self._broken("what became of an attempt was not recorded at once", (where, story))

    def _is_recorded(self, where: _Where, number: int) -> bool:
        run, key = where
        return key in self._disk.kept[self._disk.ids[run]] or number in self._failed(run, key)

    def _look_back(self) -> None:
        for (run, key, number), attempt in self._recorded.items():
            if self._failed(run, key).get(number) != attempt:
                self._broken("a failed attempt that was recorded is gone, or another", (run, attempt))
        self._recorded = {
            (run, attempt.key, attempt.number): attempt
            for run, no in self._disk.ids.items()
            for attempt in self._disk.failed.get(no, {}).values()
        }

    # At the end of all -----------------------------------------------------------------------------------------------

    def over(self) -> None:
        """The case is over."""
        self._look_back()
        for (run, key), story in self._stories.items():
            for what in self._odd(story, self._failed(run, key), self._disk.kept[self._disk.ids[run]].get(key)):
                self._broken("what is recorded of the attempts is not what happened", (run, key, what))

    def _odd(self, story: _Story, failed: dict[int, FailedAttempt], entry: Entry | None) -> Iterator[str]:
        if sorted(failed) != list(range(1, len(failed) + 1)):
            yield f"numbers {sorted(failed)}"
        ready = 0
        for number, attempt in sorted(failed.items()):
            if not ready <= attempt.started_at <= attempt.at <= (attempt.next_at or 0):
                yield f"times of {attempt}, which could begin at {ready}"
            if attempt.started_at != story.began_at.get(number):
                yield f"{attempt} began at {story.began_at.get(number)}"
            ready = attempt.next_at or 0
        if entry is not None:
            if entry.kind is not Kind.STEP or entry.attempts != len(failed) + 1 or entry.started_at < ready:
                yield f"{entry} after {len(failed)} failed attempts, the next of which could begin at {ready}"
            if entry.started_at != story.began_at.get(entry.attempts):
                yield f"{entry} began at {story.began_at.get(entry.attempts)}"
            if entry.name in FAILING_AT_FIRST:
                yield from _against_plan(entry, story.args[1], FAILING_AT_FIRST[entry.name])

    def _failed(self, run: str, key: str) -> dict[int, FailedAttempt]:
        failed = self._disk.failed.get(self._disk.ids[run], {})
        return {number: attempt for (of, number), attempt in failed.items() if of == key}


def _against_plan(entry: Entry, failures: int, most: int) -> Iterator[str]:
    expected = (Outcome.VALUE, failures + 1) if failures < most else (Outcome.ERROR, most)
    if (entry.outcome, entry.attempts) != expected:
        yield f"{entry}, where {failures} attempts of {most} fail"
