"""What a test does to steps and to the process, and what it hears of them."""

from __future__ import annotations

import inspect
import linecache
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Self, TypeAlias

from .._context import BodyScope, StepInfo, StepScope, scope
from .._specs import Mode, StepSpec
from .._steps import Step
from .._transactions import Transaction
from ..errors import UsageError

__all__ = ["AnyStep", "Crashed", "Effects", "Faults", "Line", "Origin", "ProcessDied", "StepCalled", "user_line"]

AnyStep: TypeAlias = "Step[..., Any] | Transaction[..., Any]"

_PACKAGE = str(Path(__file__).parent.parent)
_ASYNCIO = str(Path(inspect.getfile(inspect)).parent / "asyncio")


class Crashed(Exception):
    """The process of the test died, where the test has asked for it; `durable.restart()` is the next one."""


class ProcessDied(SystemExit):
    """The process dies here. Of all exceptions, loops let only this kind out of a callback."""


# Lines of the user's code --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """A place in the user's code."""

    file: str
    number: int
    function: str

    def __str__(self) -> str:
        text = linecache.getline(self.file, self.number).strip()
        return f"{Path(self.file).name}:{self.number}, in {self.function}" + (f": {text}" if text else "")


def user_line() -> Line:
    """The line in the function of the user that runs now: of the body, of one of its branches, or of the step.

    Helpers that it has called are passed over, and so is what this library and asyncio do above it.
    """
    here = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - no other way is as fast
    frame: FrameType | None = here
    found: FrameType | None = None
    while frame is not None:
        if not frame.f_code.co_filename.startswith((_PACKAGE, _ASYNCIO)):
            found = frame
        elif found is not None:
            break
        frame = frame.f_back
    found = found or here
    return Line(found.f_code.co_filename, found.f_lineno, found.f_code.co_name)


# Effects -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an effect came from."""

    run_id: str | None
    """None: from outside of runs."""
    step: str | None
    """The key of the step; None: from the body of the workflow itself."""
    line: Line = field(compare=False)


class Effects(list[Any]):
    """What a program has done to the world: a list to which the test's fakes append.

    Each item is kept with the step or the body that it came from. While the process dies nothing is added: what clean-up code
    does then would not happen after a kill.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[Any, Origin]] = []
        """Each of them with where it came from, whatever was done to the list since."""
        self.muted = False
        """Whether the process is dying."""

    def append(self, effect: Any, /) -> None:
        """Note that this was done."""
        if self.muted:
            return
        line = user_line()
        match scope.get():
            case StepScope(step):
                origin = Origin(step.run_id, step.key, line)
            case BodyScope(body):
                origin = Origin(body.run_id, None, line)
            case _:
                origin = Origin(None, None, line)
        self.noted.append((effect, origin))
        super().append(effect)

    def extend(self, effects: Iterable[Any], /) -> None:
        """Note that these were done."""
        for effect in effects:
            self.append(effect)

    def __iadd__(self, effects: Iterable[Any], /) -> Self:  # type: ignore[misc,override,unused-ignore]
        self.extend(effects)
        return self

    def clear(self) -> None:
        """Forget all of them."""
        super().clear()
        self.noted.clear()

    def take(self) -> tuple[list[Any], list[tuple[Any, Origin]]]:
        """All of them, and where they came from; they are forgotten here."""
        taken = list(self), list(self.noted)
        self.clear()
        return taken

    def give(self, taken: tuple[list[Any], list[tuple[Any, Origin]]]) -> None:
        """Put back what was taken, in the place of what is there."""
        self[:], self.noted[:] = taken


# Steps ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepCalled:
    """One attempt of a step, as its function was called."""

    run_id: str
    key: str
    attempt: int
    """Counted from 1."""
    recovered: bool
    """A process that drove the run before has died, so this may be done for the second time."""
    idempotency_key: str
    arguments: Mapping[str, Any]
    """By parameter, the `Tx` of a transaction aside."""


@dataclass(slots=True)
class _Failure:
    times: int
    error: BaseException | type[BaseException]

    def make(self) -> BaseException:
        self.times -= 1
        return self.error() if isinstance(self.error, type) else self.error.with_traceback(None)


@dataclass(frozen=True, slots=True)
class _Crash:
    """Where the process is to die: around a step, or around a write."""

    step: Callable[..., Any] | None = None
    write: int = 0
    after: bool = False


@dataclass(slots=True)
class Faults:
    """What is to go wrong, and what was called. Each step is known by its function."""

    crash: _Crash | None = None
    died: str = ""
    """Where the process has died."""
    writes: list[str] = field(default_factory=list[str])
    """What each write of this process was about."""
    _fakes: dict[Callable[..., Any], Callable[..., Any]] = field(default_factory=dict[Any, Any])
    _failures: dict[Callable[..., Any], _Failure] = field(default_factory=dict[Any, _Failure])
    _calls: dict[Callable[..., Any], list[StepCalled]] = field(default_factory=dict[Any, list[StepCalled]])

    def copy(self) -> Faults:
        """The same fakes and failures for another test, in which nothing was called yet."""
        failures = {fn: replace(failure) for fn, failure in self._failures.items()}
        return Faults(_fakes=dict(self._fakes), _failures=failures)

    def begin(self) -> None:
        """A process begins, and has written nothing yet."""
        if self.crash is not None and self.crash.write:
            self.crash = replace(self.crash, write=self.crash.write - len(self.writes))
        self.writes.clear()

    # The test's side -------------------------------------------------------------------------------------------------

    def crash_around(self, step: AnyStep, *, after: bool) -> None:
        """Let the process die just before the step's function is called, or just after it has ended."""
        self.crash = _Crash(step=_function(step), after=after)

    def crash_at(self, write: int, *, after: bool) -> None:
        """Let the process die just before the write of this number, from now on, or just after it."""
        self.crash = _Crash(write=len(self.writes) + write, after=after)

    def fail(self, step: AnyStep, times: int, error: BaseException | type[BaseException]) -> None:
        """Let the next attempts of a step fail."""
        self._failures[_function(step)] = _Failure(times, error)

    def put(self, step: AnyStep, fake: Callable[..., Any]) -> None:
        """Call this instead of the step's function."""
        self._fakes[_function(step)] = fake

    def calls(self, step: AnyStep) -> list[StepCalled]:
        """The attempts of a step, in their order."""
        return list(self._calls.get(_function(step), ()))

    # The engine's side -----------------------------------------------------------------------------------------------

    def function(self, spec: StepSpec, info: StepInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note a call of a step, and let it fail if it is to; the function to call, or None: its own.

        Raises:
            BaseException: The step is to fail.
        """
        bound = inspect.signature(spec.plain).bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        if spec.mode is Mode.TRANSACTION:
            del given[next(iter(given))]  # the Tx is of no use afterwards
        called = StepCalled(info.run_id, info.key, info.attempt, info.recovered, info.idempotency_key, given)
        self._calls.setdefault(spec.plain, []).append(called)
        failure = self._failures.get(spec.plain)
        if failure is not None and failure.times > 0:
            raise failure.make()
        return self._fakes.get(spec.plain)

    def around(self, spec: StepSpec, info: StepInfo, *, after: bool) -> None:
        """The process dies here, if it is to."""
        if self.crash is not None and self.crash.step is spec.plain and self.crash.after is after:
            self._die(f"{'after' if after else 'before'} {info.key}")

    def at_write(self, told: Mapping[Any, str], *, after: bool, steps: Iterable[Callable[..., Any]] = ()) -> None:
        """A write is about to be made, or was made: the process dies here, if it is to.

        Args:
            told: What it is about.
            after: It was made.
            steps: The functions of the transactions in it.
        """
        if not after:
            self.writes.append(" and ".join(Counter(told.values())))
        crash, number = self.crash, len(self.writes)
        if crash is None or crash.after is not after:
            return
        if crash.write == number or (crash.step is not None and crash.step in steps):
            self._die(f"{'after' if after else 'before'} write {number} ({self.writes[-1]})")

    def _die(self, where: str) -> None:
        self.crash = None
        self.died = where
        raise ProcessDied(where)


def _function(step: AnyStep) -> Callable[..., Any]:
    if not isinstance(step, (Step, Transaction)):
        raise UsageError(f"a step or a transaction is needed here, not {step!r}: name the decorated function itself")
    return step.fn
