"""What the decorators have in common: which functions they take, and how what they make looks like the function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from ._clock import microseconds
from ._context import looks_async
from .errors import DefinitionError
from .retry import Retry

__all__ = [
    "Decorated",
    "check_function",
    "check_raises",
    "check_retry",
    "is_method",
    "locals_around",
    "name_of",
    "positive",
    "stand_in_for",
]

_LONGEST = 10_000 * 366 * 86_400 * 1_000_000  # microseconds: added to any date of today it is still a number of 64 bits


class Decorated:
    """Stands in the place of a function that was decorated."""


def check_function(what: str, fn: object) -> None:
    """Refuse what cannot be decorated.

    Raises:
        DefinitionError: It is no function, or one that is decorated already, or gives no single result.
    """
    if type(fn) in (staticmethod, classmethod):
        raise DefinitionError(f"@{what} goes beneath @{type(fn).__name__}, next to the function")
    if isinstance(fn, Decorated):
        raise DefinitionError(f"@{what}: {fn!r} is decorated already")
    if not callable(fn) or isinstance(fn, type):
        raise DefinitionError(f"@{what} decorates a function, not {fn!r}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(f"@{what} {name_of(fn)}: a generator has no single result to record")


def check_retry(what: str, retry: object) -> Retry:
    """The policy.

    Raises:
        DefinitionError: It is none.
    """
    if not isinstance(retry, Retry):
        raise DefinitionError(f"{what}: retry takes a Retry, such as Retry(max_attempts=5), not {retry!r}")
    return retry


def check_raises(what: str, raises: Iterable[object]) -> None:
    """Refuse what is no class of exceptions.

    Raises:
        DefinitionError: One of them is not.
    """
    for error in raises:
        if not (isinstance(error, type) and issubclass(error, Exception)):
            raise DefinitionError(f"{what}: raises takes classes of exceptions, not {error!r}")


def positive(what: str, duration: float | timedelta) -> int:
    """Microseconds of a duration that must be positive.

    Raises:
        DefinitionError: It is not, or no duration.
    """
    try:
        length = microseconds(duration)
    except (TypeError, ValueError) as problem:
        raise DefinitionError(f"{what}: {problem}") from None
    if not 0 < length <= _LONGEST:
        raise DefinitionError(f"{what} takes a positive duration of at most 10,000 years, not {duration!r}")
    return length


def name_of(fn: Any) -> str:
    """The name that a person gave to a function."""
    return getattr(fn, "__name__", type(fn).__name__)


def is_method(fn: Callable[..., Any]) -> bool:
    """Whether the first parameter is the object or class that the function is called on."""
    first = next(iter(inspect.signature(fn).parameters.values()), None)
    return first is not None and first.name in {"self", "cls"} and first.annotation is inspect.Parameter.empty


def locals_around(fn: Callable[..., Any]) -> Mapping[str, Any] | None:
    """Names that annotations may mean where the function was defined inside another one."""
    if "<locals>" not in getattr(fn, "__qualname__", ""):
        return None
    frame = inspect.currentframe()
    package = __name__.rpartition(".")[0] + "."
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(package):
        frame = frame.f_back
    return None if frame is None else dict(frame.f_locals)


def stand_in_for(stand_in: Any, fn: Callable[..., Any]) -> None:
    """Look like the function to `help()`, to signatures, and to frameworks that ask for coroutine functions."""
    functools.update_wrapper(stand_in, fn)
    looks_async(stand_in)
