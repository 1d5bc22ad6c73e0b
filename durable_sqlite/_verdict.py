"""What an end means: of an attempt, of a body. Nothing here writes; whoever drives the body acts on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from ._attempt import Fault, Result
from ._body_loop import BodyTask
from ._call import Call
from ._codec import Shape, Vault, describe, dump_error
from ._records import CANCEL_KEY, FailedAttempt, Outcome, Reason, RunRow, State
from .errors import AmbiguousStep, DurableError, NotDurable, OpenBranches, StepFailed
from .retry import Retry, RetryAt, decide

__all__ = ["Cancellation", "Ending", "ambiguous", "failed_keys", "judge", "stored_error", "too_many", "verdict"]


# Of an attempt -------------------------------------------------------------------------------------------------------


def judge(
    call: Call, fault: Fault, policy: Retry, vault: Vault, run_id: str, *, now: int, chance: float
) -> FailedAttempt | Result:
    """What a failed attempt comes to: another one at its time, or the step's outcome."""
    verdict = decide(
        policy,
        attempt=call.attempt,
        error=fault.error,
        retryable=fault.retryable,
        began=call.began,
        now=now,
        chance=chance,
    )
    where = f"run {run_id}, step {call.key}"
    if isinstance(verdict, RetryAt):
        error = fault.payload(vault, call.attempt, where)
        return FailedAttempt(call.key, call.attempt, call.since, now, verdict.when, error)
    return Result(Outcome.ERROR, fault.payload(vault, call.attempt, where, verdict.reason))


def ambiguous(run_id: str, key: str) -> AmbiguousStep:
    """Nobody knows whether an at-most-once step had its effect."""
    return AmbiguousStep(
        f"run {run_id}: the process that began the at-most-once step {key} did not record its outcome, so nobody knows whether "
        f"it had its effect. Find out, then decide: run.settle({key!r}, value) with what it would have returned, or "
        f"run.settle({key!r}, retry=True)"
    )


def too_many(run_id: str, entries: int, limit: int) -> DurableError:
    """The run has as many entries as it may have."""
    return DurableError(
        f"run {run_id}: it has {entries} entries, and `max_entries` allows {limit}. A workflow that goes on for ever should "
        "start a new run now and then; else raise `max_entries` and call `resume` on the run."
    )


# Of a body -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """How a body's run ends."""

    state: State
    reason: str
    result: bytes | None
    keys: tuple[str, ...] = ()
    """Keys of the outcomes that `resume` forgets first."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """How the body was told to end."""

    by_deadline: bool
    reason: str
    before: int
    """`cancelling()` of its task just before: 3.11 and 3.12 leave it at 1 after a failed TaskGroup."""


def verdict(
    main: BodyTask[Any],
    row: RunRow,
    cancelled: Cancellation | None,
    *,
    left_open: str,
    returns: Shape[Any],
    vault: Vault,
) -> Ending:
    """How a run ends whose body has ended.

    Args:
        main: The body's task.
        row: The run.
        cancelled: How the body was told to end, if it was.
        left_open: What it had not finished when it returned, in words.
        returns: How its result is stored.
        vault: Seals what is stored.
    """
    if cancelled is not None and main.cancelled():
        return _told(row, cancelled, vault)
    error = _error_of(main, row.id, left_open)
    if error is not None:
        return _failed(error, row, vault)
    if cancelled is not None and main.cancelling() > cancelled.before:
        return _told(row, cancelled, vault)  # it swallowed the cancellation
    where = f"run {row.id}: result"
    try:
        return Ending(State.COMPLETED, "", vault.seal(returns.dump(main.result(), where), where))
    except DurableError as problem:
        return _failed(problem, row, vault)


def stored_error(error: BaseException, vault: Vault, run_id: str, attempts: int = 0) -> bytes:
    """An error as it is kept with its run."""
    return vault.seal_error(dump_error(describe(error), attempts), f"run {run_id}: error")


def _told(row: RunRow, cancelled: Cancellation, vault: Vault) -> Ending:
    if not cancelled.by_deadline:
        return Ending(State.CANCELLED, cancelled.reason, None)
    length = (row.deadline_length or 0) / 1_000_000
    error = TimeoutError(f"the run had {length:g} s in all, and they are over")
    return Ending(State.FAILED, Reason.DEADLINE, stored_error(error, vault, row.id), (CANCEL_KEY,))


def _failed(error: BaseException, row: RunRow, vault: Vault) -> Ending:
    step = error if isinstance(error, StepFailed) else None
    reason = step.reason if step is not None and step.reason else Reason.ERROR
    data = stored_error(error, vault, row.id, 0 if step is None else step.attempts)
    return Ending(State.FAILED, reason, data, tuple(failed_keys(error)))


def _error_of(main: BodyTask[Any], run_id: str, left_open: str) -> BaseException | None:
    if main.cancelled():
        return asyncio.CancelledError("the body was cancelled by itself, not by anybody's request")
    error = main.exception()
    if error is not None:
        return _explained(error)
    if left_open:
        return OpenBranches(
            f"run {run_id}: the body returned while {left_open}. Await each of them, or cancel it and await that."
        )
    return None


def _explained(error: BaseException) -> BaseException:
    """The body's error; where asyncio refused something of another loop, with the reason."""
    if isinstance(error, RuntimeError) and "different" in str(error) and "loop" in str(error):
        refusal = NotDurable(
            "the body awaited something that belongs to the application's event loop (a future, a task, a lock, a queue): "
            "the journal cannot give it back, so this belongs in a step"
        )
        refusal.__cause__ = error
        return refusal
    return error


def failed_keys(error: BaseException) -> list[str]:
    """Keys of failed steps and child runs that are found in an error, the members of its groups, and their causes."""
    found: set[str] = set()
    seen: set[int] = set()
    look: list[BaseException | None] = [error]
    while look:
        here = look.pop()
        if here is None or id(here) in seen:
            continue
        seen.add(id(here))
        key = _key_of(here)
        if key is not None:
            found.add(key)
        if isinstance(here, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", here)
            look.extend(group.exceptions)
        look.append(here.__cause__)
        # What was awaited has as its context whatever was being handled there: caught, and left behind.
        if not here.__suppress_context__ and key is None:
            look.append(here.__context__)
    return sorted(found)


def _key_of(error: BaseException) -> str | None:
    """The key of the failed step, or of the failed or cancelled run that was waited for, whose error this is."""
    key: object = getattr(error, "key", None) if isinstance(error, DurableError) else None
    return key if isinstance(key, str) else None
