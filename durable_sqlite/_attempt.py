"""One attempt of a step: its body run where it belongs, and what became of it as stored bytes."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeGuard

from ._codec import Vault, describe, dump_declared, dump_error, load_declared, load_error
from ._context import StepInfo, StepScope, scope
from ._records import Entry, Outcome
from ._specs import Mode, StepCall, StepSpec
from ._threads import StepThreads
from .errors import DurableError, ErrorRecord, PayloadError, StepFailed
from .probe import Done, NotDone
from .retry import Retry, RetryAfter, find, matches

__all__ = [
    "Doubt",
    "Fault",
    "NotBegun",
    "Result",
    "Runner",
    "call_plainly",
    "declared_answer",
    "fault_of",
    "read_outcome",
]

logger = logging.getLogger("durable_sqlite")


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended, ready to be recorded."""

    outcome: Outcome
    payload: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """An attempt that failed. Whether it was the last one is not decided here."""

    error: BaseException
    record: ErrorRecord
    retryable: bool
    """What the policy says of such an error."""

    def payload(self, vault: Vault, attempts: int, where: str, reason: str = "") -> bytes:
        """The stored form."""
        return vault.seal_error(dump_error(self.record, attempts, reason), where)


class Doubt(Enum):
    """What a probe can say besides that the step is done."""

    NOT_DONE = "not done"
    UNKNOWN = "unknown"


class NotBegun(BaseException):
    """The body of a step was still waiting for a thread or a process of its own, and is to begin no more."""


class Runner:
    """Runs the bodies of steps: on the application's loop, in the engine's threads, or in an executor.

    Args:
        vault: Seals what is to be stored.
        threads: For synchronous steps.
    """

    def __init__(self, vault: Vault, threads: StepThreads) -> None:
        self._vault = vault
        self._threads = threads
        self._jobs: dict[Future[Any], StepSpec] = {}
        """What was handed to threads and executors, and may still wait there."""
        self._held_back: set[Future[Any]] = set()

    def hold_back(self) -> None:
        """Let nothing begin any more that still waits for a thread; but for what is written down as begun."""
        for job, spec in list(self._jobs.items()):
            if not spec.at_most_once and job.cancel():
                self._held_back.add(job)

    async def attempt(self, call: StepCall, info: StepInfo, policy: Retry) -> Result | Fault:
        """Run the body once and encode what it gave or raised.

        Called in a task of its own, whose context is a copy of the calling body's. What is not an outcome (cancellation,
        KeyboardInterrupt, SystemExit) passes through.

        Raises:
            NotBegun: The body waited for a thread, and was held back.
        """
        spec = call.spec
        where = f"run {info.run_id}, step {info.key}"
        scope.set(StepScope(info))
        try:
            args, kwargs = spec.parameters.copy(call.bound, where)
        except DurableError as error:
            return Fault(error, describe(error), retryable=False)
        try:
            value = await self._run(spec, info, args, kwargs)
        except (asyncio.CancelledError, NotBegun, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever else a step raises is its outcome
            return await self._judge(error, spec, policy, where)
        try:
            encoded = spec.parameters.returns.dump(value, f"{where}: result")
            return Result(Outcome.VALUE, self._vault.seal(encoded, f"{where}: result"))
        except DurableError as error:  # the same value would be refused again
            return Fault(error, describe(error), retryable=False)

    async def probe(self, call: StepCall, info: StepInfo) -> Result | Doubt:
        """Ask the step's probe, with the step's arguments, whether the step had its effect."""
        spec, where = call.spec, f"run {info.run_id}, step {info.key}"
        assert spec.probe is not None
        scope.set(StepScope(info))
        try:
            args, kwargs = spec.parameters.copy(call.bound, where)
            answer = spec.probe(*args, **kwargs)
            if inspect.isawaitable(answer):
                answer = await answer
            if _is_done(answer):
                encoded = spec.parameters.returns.dump(answer.value, f"{where}: the probe's value")
                return Result(Outcome.VALUE, self._vault.seal(encoded, where))
        except Exception:
            logger.exception("%s: the probe failed, so nobody knows whether the step had its effect", where)
            return Doubt.UNKNOWN
        return Doubt.NOT_DONE if isinstance(answer, NotDone) or answer is NotDone else Doubt.UNKNOWN

    async def _judge(self, error: BaseException, spec: StepSpec, policy: Retry, where: str) -> Result | Fault:
        """What an error is that a step raised: the declared answer, or a fault."""
        declared = declared_answer(error, spec, self._vault, where)
        return await fault_of(error, policy) if declared is None else declared

    async def _run(self, spec: StepSpec, info: StepInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if spec.mode is Mode.ASYNC:
            return await spec.fn(*args, **kwargs)
        if spec.executor is None:
            context = contextvars.copy_context()
            job = self._threads.submit(context.run, _call, spec.fn, args, kwargs)
        else:
            job = spec.executor.submit(call_plainly, spec.fn, info, args, kwargs)
        self._jobs[job] = spec
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if job in self._held_back:
                raise NotBegun from None
            raise
        finally:
            del self._jobs[job]
            self._held_back.discard(job)


def declared_answer(error: BaseException, spec: StepSpec, vault: Vault, where: str) -> Result | None:
    """What an error is recorded as that its step has declared to be an answer; None if it has not."""
    if not (spec.raises and isinstance(error, spec.raises)):
        return None
    encoded = dump_declared(error, spec.raises, where)
    if encoded is None:
        return None
    try:
        return Result(Outcome.DECLARED, vault.seal(encoded, where))
    except PayloadError:
        return None  # an answer too large to store is a fault


def read_outcome(vault: Vault, spec: StepSpec, entry: Entry, where: str) -> tuple[Any, Exception | None]:
    """What the body gets of a recorded outcome: the value, or the error that is raised there.

    A fault is a `StepFailed`; a declared answer is an instance of its own class.

    Raises:
        Undecodable: The stored bytes do not fit the types in the code.
    """
    encoded = vault.open(entry.payload, where)
    if entry.outcome is Outcome.VALUE:
        return spec.parameters.returns.load(encoded, where), None
    if entry.outcome is Outcome.DECLARED:
        return None, load_declared(encoded, spec.raises)
    return None, StepFailed(entry.key, *load_error(encoded))


def _is_done(answer: object) -> TypeGuard[Done[Any]]:
    return isinstance(answer, Done)


async def fault_of(error: BaseException, policy: Retry) -> Fault:
    """A failed attempt, and what the policy says of such an error."""
    if not isinstance(error, Exception):
        return Fault(error, describe(error), retryable=False)
    try:
        wanted = find(RetryAfter, error) is not None or await matches(policy.on, error)
        retryable = wanted and not await matches(policy.unless, error)
    except Exception as problem:  # noqa: BLE001 - a predicate that raises says nothing of use
        problem.add_note("raised by the function given as Retry(on=...) or Retry(unless=...)")
        return Fault(problem, describe(problem), retryable=False)
    return Fault(error, describe(error), retryable=retryable)


def call_plainly(fn: Callable[..., Any], info: StepInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a step's function in an executor, which may be another process: only `info` travels, not the context."""
    token = scope.set(StepScope(info))
    try:
        return _call(fn, args, kwargs)
    finally:
        scope.reset(token)


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return fn(*args, **kwargs)
    except StopIteration as error:  # no future can hold one, as no coroutine can raise one
        raise RuntimeError("the step raised StopIteration") from error
