"""When a failed step is tried again: a policy is a value, and a pure function decides by it.

The function is told what happened and what time it is, and says what should happen next. It waits for nothing and
records nothing.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

from ._clock import microseconds
from ._records import Reason
from .errors import DefinitionError, DurableError

__all__ = ["GiveUp", "Permanent", "Retry", "RetryAfter", "RetryAt", "Verdict", "decide", "find", "matches"]

ErrorMatch = (
    type[BaseException]
    | tuple[type[BaseException], ...]
    | Callable[[Exception], bool]
    | Callable[[Exception], Awaitable[bool]]
)
"""Which errors: a class, several, or a function that is asked (it may be asynchronous)."""

E = TypeVar("E", bound=BaseException)


class Permanent(DurableError):
    """Raised by a step to say that trying again is of no use. May be raised `from` the error that shows it."""


class RetryAfter(DurableError):
    """Raised by a step to say when to try again, within what its policy allows.

    Args:
        seconds: How long to wait before the next attempt.
        message: What happened.
    """

    def __init__(self, seconds: float | timedelta, message: str = "") -> None:
        self.delay = microseconds(seconds)
        super().__init__(message or f"asked to be tried again in {self.delay / 1_000_000:g} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a step is tried, and how long it waits in between.

    The wait after attempt n is `initial_delay * factor ** (n - 1)`, at most `max_delay`, and up to `jitter` of it shorter, so
    that those who failed together do not come back together.

    Args:
        max_attempts: Attempts in all, the first one included; None for no limit.
        initial_delay: The wait after the first attempt, in seconds.
        factor: How much longer each wait is than the one before; at least 1.
        max_delay: The longest wait, in seconds.
        jitter: The part of a wait that chance may take away, from 0 to 1.
        max_elapsed: No attempt is planned for later than this many seconds after the first one began; None for no limit.
            One that was planned in time is made late rather than never, where no process was there when it was due.
        on: Try again only after these errors, and after a `RetryAfter`.
        unless: Do not try again after these, even if `on` has them.

    Raises:
        DefinitionError: A value makes no sense; the message names it.
    """

    max_attempts: int | None = 3
    initial_delay: float | timedelta = 1.0
    factor: float = 2.0
    max_delay: float | timedelta = 60.0
    jitter: float = 0.1
    max_elapsed: float | timedelta | None = None
    on: ErrorMatch = Exception
    unless: ErrorMatch = ()

    def __post_init__(self) -> None:
        attempts = self.max_attempts
        if attempts is not None and (isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1):
            raise DefinitionError(f"Retry(max_attempts=...) takes a whole number from 1, or None, not {attempts!r}")
        for name, duration in (("initial_delay", self.initial_delay), ("max_delay", self.max_delay)):
            _check_duration(name, duration)
        if self.max_elapsed is not None:
            _check_duration("max_elapsed", self.max_elapsed)
        if (
            isinstance(self.factor, bool)
            or not isinstance(self.factor, (int, float))
            or not 1 <= self.factor < math.inf
        ):
            raise DefinitionError(f"Retry(factor=...) takes a number from 1, not {self.factor!r}")
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, (int, float)) or not 0 <= self.jitter <= 1:
            raise DefinitionError(f"Retry(jitter=...) takes a number from 0 to 1, not {self.jitter!r}")
        for name, errors in (("on", self.on), ("unless", self.unless)):
            _check_errors(name, errors)

    @classmethod
    def none(cls) -> Retry:
        """One attempt and no more."""
        return cls(max_attempts=1)

    @classmethod
    def fixed(cls, delay: float | timedelta, *, max_attempts: int | None = 3) -> Retry:
        """The same wait after each attempt."""
        return cls(max_attempts=max_attempts, initial_delay=delay, factor=1.0, max_delay=delay, jitter=0.0)

    @classmethod
    def exponential(
        cls,
        initial_delay: float | timedelta = 1.0,
        *,
        max_attempts: int | None = 5,
        max_delay: float | timedelta = 60.0,
    ) -> Retry:
        """A wait that doubles after each attempt, up to `max_delay`."""
        return cls(max_attempts=max_attempts, initial_delay=initial_delay, max_delay=max_delay)

    def delay(self, attempt: int, chance: float = 0.0) -> int:
        """Microseconds to wait after attempt `attempt`, counted from 1.

        Args:
            attempt: Any number from 1: none of them overflows.
            chance: From 0 to 1: how much of the jitter is taken away.
        """
        longest, first = microseconds(self.max_delay), microseconds(self.initial_delay)
        if first <= 0 or longest <= 0:
            return 0
        if first < longest and self.factor > 1:
            # Compared as logarithms, since factor ** attempt has no upper bound.
            doublings = math.log(longest / first) / math.log(self.factor)
            first = longest if attempt - 1 >= doublings else round(first * self.factor ** (attempt - 1))
        whole = min(first, longest)
        return whole - round(whole * self.jitter * chance)


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at `when`, in microseconds UTC."""

    when: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again."""

    reason: Reason


Verdict = RetryAt | GiveUp


def decide(
    policy: Retry, *, attempt: int, error: BaseException, retryable: bool, began: int, now: int, chance: float
) -> Verdict:
    """Whether and when a step is tried again.

    Args:
        policy: The policy in force.
        attempt: How many attempts have been made, this one included.
        error: What the attempt raised.
        retryable: What `on` and `unless` say of the error.
        began: When the first attempt began.
        now: The time.
        chance: From 0 to 1.
    """
    if not retryable or find(Permanent, error) is not None:
        return GiveUp(Reason.PERMANENT)
    if policy.max_attempts is not None and attempt >= policy.max_attempts:
        return GiveUp(Reason.RETRIES_EXHAUSTED)
    asked = find(RetryAfter, error)
    when = now + max(0, policy.delay(attempt, chance) if asked is None else asked.delay)
    if policy.max_elapsed is not None and when > began + microseconds(policy.max_elapsed):
        return GiveUp(Reason.RETRIES_EXHAUSTED)
    return RetryAt(when)


async def matches(errors: ErrorMatch, error: Exception) -> bool:
    """Whether `error` is one of `errors`, which may be a function to ask."""
    if isinstance(errors, (type, tuple)):
        return isinstance(error, errors)
    answer = errors(error)
    return bool(await answer) if inspect.isawaitable(answer) else bool(answer)


def find(kind: type[E], error: BaseException) -> E | None:
    """The first error of a kind among `error` and what it was raised from."""
    seen: set[int] = set()
    look: BaseException | None = error
    while look is not None and id(look) not in seen:
        if isinstance(look, kind):
            return look
        seen.add(id(look))
        look = look.__cause__ or (None if look.__suppress_context__ else look.__context__)
    return None


def _check_duration(name: str, duration: object) -> None:
    if not isinstance(duration, (int, float, timedelta)):
        raise DefinitionError(f"Retry({name}=...) takes seconds or a timedelta, not {duration!r}")
    try:
        length = microseconds(duration)
    except (TypeError, ValueError) as problem:
        raise DefinitionError(f"Retry({name}=...): {problem}") from None
    if length < 0:
        raise DefinitionError(f"Retry({name}=...) takes no negative duration, not {duration!r}")


def _check_errors(name: str, errors: object) -> None:
    several = isinstance(errors, tuple)
    for kind in cast("tuple[object, ...]", errors) if several else (errors,):
        if isinstance(kind, type):
            if not issubclass(kind, BaseException):
                raise DefinitionError(f"Retry({name}=...) takes classes of errors, not {kind!r}")
        elif several or not callable(kind):
            raise DefinitionError(f"Retry({name}=...) takes classes of errors or a function to ask, not {kind!r}")
