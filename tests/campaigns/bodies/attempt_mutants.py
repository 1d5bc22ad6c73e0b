"""The engine with one rule about attempts broken, for each rule: the campaign must notice."""

from __future__ import annotations

import heapq
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from durable_sqlite import _flight, _verdict
from durable_sqlite._attempt import Doubt, Fault, Result, Runner
from durable_sqlite._call import Call
from durable_sqlite._context import StepInfo
from durable_sqlite._crew import Crew
from durable_sqlite._desk import Desk
from durable_sqlite._flight import Flight, _Attempt
from durable_sqlite._ledger import Ledger
from durable_sqlite._records import FailedAttempt, Memory, RunRow
from durable_sqlite._run import Pass
from durable_sqlite._specs import StepCall
from durable_sqlite.retry import Retry, Verdict, decide

__all__ = ["OF_ATTEMPTS"]


def attempts_are_counted_in_memory() -> AbstractContextManager[object]:
    """A new pass knows nothing of the attempts that earlier ones made in vain."""
    init = Desk.__init__

    def mutant(self: Desk, row: RunRow, *, memory: Memory, **others: Any) -> None:
        init(self, row, memory=replace(memory, attempts=()), **others)

    return patch.object(Desk, "__init__", mutant)


def no_wait_after_a_restart() -> AbstractContextManager[object]:
    """In a new pass, the next attempt of a step does not wait for the time that is recorded for it."""
    put_off = Desk._begin_or_put_off

    def mutant(self: Desk, call: Call) -> None:
        put_off(self, call)
        if call.deadline is not None:
            call.deadline = None
            self._due = [due for due in self._due if due[2] is not call]
            heapq.heapify(self._due)
            self._fresh.append(call)

    return patch.object(Desk, "_begin_or_put_off", mutant)


def the_last_failure_is_made_again() -> AbstractContextManager[object]:
    """In a new pass, the attempt that failed last is made once more."""
    put_off = Desk._begin_or_put_off

    def mutant(self: Desk, call: Call) -> None:
        put_off(self, call)
        call.attempt = max(1, call.attempt - 1)

    return patch.object(Desk, "_begin_or_put_off", mutant)


@contextmanager
def late_results_land() -> Generator[None, None, None]:
    """What an attempt that took too long brings after all is its outcome."""
    attempt, make = Runner.attempt, Flight._attempt
    brought: dict[int, Result | Fault] = {}

    async def attempt_mutant(self: Runner, call: StepCall, info: StepInfo, policy: Retry) -> Result | Fault:
        result = brought[id(info)] = await attempt(self, call, info, policy)
        return result

    async def make_mutant(self: Flight, what: _Attempt) -> Result | Fault | Doubt | None:
        brought.pop(id(what.info), None)
        result = await make(self, what)
        return brought.pop(id(what.info), result) if what.late else result

    with patch.object(Runner, "attempt", attempt_mutant), patch.object(Flight, "_attempt", make_mutant):
        yield


def time_limits_are_not_kept() -> AbstractContextManager[object]:
    """An attempt may take as long as it likes."""

    def mutant(_self: Flight, _attempt: _Attempt) -> None:
        """Set no limit."""

    return patch.object(Flight, "_limit", mutant)


def patience_without_end() -> AbstractContextManager[object]:
    """An attempt that took too long and swallows its cancellation is waited for."""

    def mutant(_self: Flight, _attempt: _Attempt) -> None:
        """Wait."""

    return patch.object(Flight, "_leave_behind", mutant)


def failed_attempts_are_not_recorded() -> AbstractContextManager[object]:
    """The count of attempts and the time of the next are only in memory."""

    def mutant(_self: Ledger, _failed: FailedAttempt) -> None:
        """Keep nothing."""

    return patch.object(Ledger, "fail", mutant)


@contextmanager
def failed_attempts_are_recorded_after_the_wait() -> Generator[None, None, None]:
    """A failed attempt is recorded when the next one is to begin, not before the wait."""
    start, fail = Crew.start, Ledger.fail
    kept: dict[tuple[Ledger, str], FailedAttempt] = {}

    def fail_mutant(self: Ledger, failed: FailedAttempt) -> None:
        kept[self, failed.key] = failed

    def start_mutant(self: Crew, call: Call, step: StepCall) -> None:
        failed = kept.pop((self._ledger, call.key), None)
        if failed is not None:
            fail(self._ledger, failed)
        start(self, call, step)

    with patch.object(Ledger, "fail", fail_mutant), patch.object(Crew, "start", start_mutant):
        yield


def one_attempt_too_many() -> AbstractContextManager[object]:
    """A step is tried once more than its policy allows."""

    def mutant(policy: Retry, *, attempt: int, **facts: Any) -> Verdict:
        return decide(policy, attempt=attempt - 1, **facts)

    return patch.object(_verdict, "decide", mutant)


def retries_beside_an_attempt_that_goes_on() -> AbstractContextManager[object]:
    """The next attempt begins as soon as one took too long, though it would go when it is told to."""
    return patch.object(_flight, "_PATIENCE", 0)


def only_a_death_is_told() -> AbstractContextManager[object]:
    """A step that was cut off by an orderly close is not told so."""
    init = Pass.__init__

    def mutant(self: Pass, *args: Any, **others: Any) -> None:
        init(self, *args, **others)
        self._crew.recovered = self.row.deaths > 0

    return patch.object(Pass, "__init__", mutant)


OF_ATTEMPTS = (
    attempts_are_counted_in_memory,
    no_wait_after_a_restart,
    the_last_failure_is_made_again,
    late_results_land,
    time_limits_are_not_kept,
    patience_without_end,
    failed_attempts_are_not_recorded,
    failed_attempts_are_recorded_after_the_wait,
    one_attempt_too_many,
    retries_beside_an_attempt_that_goes_on,
    only_a_death_is_told,
)
