"""One attempt of a step: its body run where it belongs, and what became of it as stored bytes."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._codec import Vault, describe, dump_declared, dump_error, load_declared, load_error
from ._context import Mode, StepCall, StepInfo, StepScope, StepSpec, scope
from ._records import Entry, Outcome
from ._threads import StepThreads
from .errors import PayloadError, StepFailed

__all__ = ["Result", "Runner", "call_plainly", "read_outcome"]


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended, ready to be recorded."""

    outcome: Outcome
    payload: bytes


class Runner:
    """Runs the bodies of steps: on the application's loop, in the engine's threads, or in an executor.

    Args:
        vault: Seals what is to be stored.
        threads: For synchronous steps.
    """

    def __init__(self, vault: Vault, threads: StepThreads) -> None:
        self._vault = vault
        self._threads = threads

    async def attempt(self, call: StepCall, info: StepInfo) -> Result:
        """Run the body once and encode what it gave or raised.

        Called in a task of its own, whose context is a copy of the calling body's. What is not an outcome (cancellation,
        KeyboardInterrupt, SystemExit) passes through.
        """
        spec = call.spec
        where = f"run {info.run_id}, step {info.key}"
        scope.set(StepScope(info))
        try:
            args, kwargs = spec.parameters.copy(call.bound, where)
            value = await self._run(spec, info, args, kwargs)
            encoded = spec.parameters.returns.dump(value, f"{where}: result")
            return Result(Outcome.VALUE, self._vault.seal(encoded, f"{where}: result"))
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever else a step raises is its outcome
            return self.failure(error, spec, where)

    def failure(self, error: BaseException, spec: StepSpec, where: str) -> Result:
        """What is recorded of an error that a step raised: the declared answer, or a fault."""
        if spec.raises and isinstance(error, spec.raises):
            declared = self._declared(error, spec, where)
            if declared is not None:
                return declared
        return Result(Outcome.ERROR, self._vault.seal_error(dump_error(describe(error), 1), where))

    def _declared(self, error: Exception, spec: StepSpec, where: str) -> Result | None:
        encoded = dump_declared(error, spec.raises, where)
        if encoded is None:
            return None
        try:
            return Result(Outcome.DECLARED, self._vault.seal(encoded, where))
        except PayloadError:
            return None  # an answer too large to store is a fault

    async def _run(self, spec: StepSpec, info: StepInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        match spec.mode:
            case Mode.ASYNC:
                return await spec.fn(*args, **kwargs)
            case Mode.THREAD:
                context = contextvars.copy_context()
                job = self._threads.submit(context.run, _call, spec.fn, args, kwargs)
            case Mode.EXECUTOR:
                assert spec.executor is not None
                job = spec.executor.submit(call_plainly, spec.fn, info, args, kwargs)
        return await asyncio.wrap_future(job)


def read_outcome(vault: Vault, spec: StepSpec, entry: Entry, where: str) -> tuple[Any, Exception | None]:
    """What the body gets of a recorded outcome: the value, or the error that is raised there.

    A fault is a `StepFailed`; a declared answer is an instance of its own class.

    Raises:
        Undecodable: The stored bytes do not fit the types in the code.
    """
    encoded = vault.open(entry.payload, where)
    match entry.outcome:
        case Outcome.VALUE:
            return spec.parameters.returns.load(encoded, where), None
        case Outcome.DECLARED:
            return None, load_declared(encoded, spec.raises)
        case Outcome.ERROR:
            record, attempts = load_error(encoded)
            return None, StepFailed(entry.key, record, attempts)


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
