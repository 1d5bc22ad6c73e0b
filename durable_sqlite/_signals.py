"""Messages to runs, and the points where a run asks a question and waits for the answer."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Generator
from datetime import timedelta
from typing import Any, ClassVar, Generic, Self, TypeVar, overload
from weakref import WeakValueDictionary

from pydantic import BaseModel

from ._clock import microseconds
from ._codec import Shape
from ._context import Body, body, looks_async
from ._ids import check_name, check_text
from ._records import Kind
from ._specs import AskQuestion, PointSpec, SignalSpec, TakeMessages, Until, Wish
from .errors import DefinitionError, UsageError

__all__ = ["Signal", "Suspend"]

A = TypeVar("A")


class Signal(BaseModel):
    """A message to a run: a subclass is an address, its fields are the message.

    The name under which messages are stored is the class's, or the one given as in `class Paid(Signal, name="paid")`. It is a
    promise to every journal that holds one.
    """

    __durable__: ClassVar[SignalSpec | None] = None

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        """Let the name pass to where it is looked at."""
        del name
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        """Give the subclass its name."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.__durable__ = None
        generic = cls.__pydantic_generic_metadata__
        if generic["origin"] is None and not generic["parameters"]:
            stored = _name(cls, name)
            many: Any = list[cls]  # type: ignore[valid-type]
            cls.__durable__ = SignalSpec(stored, Shape(cls), Shape(many))

    @overload
    @classmethod
    def wait(cls, *, key: str | None = None) -> Coroutine[object, None, Self]: ...
    @overload
    @classmethod
    def wait(cls, *, timeout: float | timedelta, key: str | None = None) -> Coroutine[object, None, Self | None]: ...
    @classmethod
    @looks_async
    def wait(
        cls, *, timeout: float | timedelta | None = None, key: str | None = None
    ) -> Coroutine[object, None, Self | None]:
        """Wait for a message, in the body of a workflow: the oldest that nobody has taken, however long ago it came.

        Branches that wait for one class are served in the order in which they asked.

        Args:
            timeout: In seconds or as a timedelta: where no message was sent by then, the wait gives None.
            key: Identifies the wait in its branch instead of its name and count. It is no filter.

        Raises:
            UsageError: The caller is not the body of a workflow.
        """
        spec = signal_spec(cls)
        here = _here(f"{cls.__name__}.wait()")
        return here.wish(Wish(Kind.SIGNAL, spec.name, b"", spec.shape.load, key=key, until=_until(timeout)))

    @classmethod
    @looks_async
    def drain(cls, *, key: str | None = None) -> Coroutine[object, None, list[Self]]:
        """All messages that are there, oldest first, without waiting; perhaps none.

        What an entry has no room for stays for the next call.

        Raises:
            UsageError: The caller is not the body of a workflow.
        """
        spec = signal_spec(cls)
        here = _here(f"{cls.__name__}.drain()")
        return here.wish(Wish(Kind.DRAIN, spec.name, b"", spec.many.load, TakeMessages(), key))


class Suspend(BaseModel, Generic[A]):
    """A question to people or programs: a subclass of `Suspend[Answer]` is a suspend point, its fields are the question.

    Awaiting an instance in the body of a workflow asks the question and waits until somebody answers with an `Answer`. Its
    stored name is the class's, or the one given as in `class Review(Suspend[Decision], name="review")`.
    """

    __durable__: ClassVar[PointSpec | None] = None

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        """Let the name pass to where it is looked at."""
        del name
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        """Give the subclass its name."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls.__pydantic_generic_metadata__["origin"] is None:
            answer = _answer_of(cls)
            what = f"the answer of {cls.__name__}"
            cls.__durable__ = PointSpec(_name(cls, name), Shape(cls), Shape(answer, what=what))

    @overload
    def wait(self, *, key: str | None = None, status: str | None = None) -> Coroutine[object, None, A]: ...
    @overload
    def wait(
        self, *, timeout: float | timedelta, key: str | None = None, status: str | None = None
    ) -> Coroutine[object, None, A | None]: ...
    @looks_async
    def wait(
        self, *, timeout: float | timedelta | None = None, key: str | None = None, status: str | None = None
    ) -> Coroutine[object, None, A | None]:
        """Ask the question, and wait for the answer.

        Args:
            timeout: In seconds or as a timedelta: where nobody has answered by then, the wait gives None.
            key: Identifies the question in its branch instead of its name and count; whoever answers may name it.
            status: What the run says of itself from now on, as by `set_status`.

        Raises:
            UsageError: The caller is not the body of a workflow.
            Unstorable: The question cannot be stored; the message has the path.
        """
        spec = point_spec(type(self))
        here = _here(f"{type(self).__name__}.wait()")
        where = f"{spec.name}: question"
        data, digest = spec.shape.dump(self, where), spec.shape.digest(self, where)
        if status is not None:
            here.report_status(check_text("a status", status))
        ask = AskQuestion(data, json.dumps(spec.answer.json_schema()))
        return here.wish(Wish(Kind.QUESTION, spec.name, digest, spec.answer.load, ask, key, _until(timeout)))

    def __hash__(self) -> int:
        return object.__hash__(self)  # each instance is asked by itself, also where asyncio keeps them in a set

    def __await__(self) -> Generator[Any, Any, A]:
        return self.wait().__await__()


def signal_spec(signal: type[Any]) -> SignalSpec:
    """What is known of a signal.

    Raises:
        UsageError: It is no subclass of `Signal`, or one whose type parameters are open.
    """
    spec = getattr(signal, "__durable__", None)
    if not isinstance(spec, SignalSpec):
        raise UsageError(f"{signal!r} is no signal: define `class Paid(Signal): ...` and use that")
    return spec


def point_spec(point: type[Any]) -> PointSpec:
    """What is known of a suspend point.

    Raises:
        UsageError: It is no subclass of `Suspend[Answer]`.
    """
    spec = getattr(point, "__durable__", None)
    if not isinstance(spec, PointSpec):
        raise UsageError(f"{point!r} is no suspend point: define `class Review(Suspend[Decision]): ...` and use that")
    return spec


_KNOWN: WeakValueDictionary[tuple[str, str], type[Any]] = WeakValueDictionary()
"""Signals and suspend points that a module defines, by what they are and their names."""


def known_signal(name: str) -> SignalSpec | None:
    """The signal of this name that an imported module defines, if there is one."""
    found = _KNOWN.get(("signal", name))
    return None if found is None else signal_spec(found)


def known_point(name: str) -> PointSpec | None:
    """The suspend point of this name that an imported module defines, if there is one."""
    found = _KNOWN.get(("suspend point", name))
    return None if found is None else point_spec(found)


def known_names(kind: str) -> list[str]:
    """The names of all of these, `signal` or `suspend point`, that imported modules define."""
    return sorted(name for each, name in _KNOWN if each == kind)


def _name(cls: type[BaseModel], name: str | None) -> str:
    """The stored name of a signal or a suspend point, which no other class of its kind has."""
    kind = "signal" if issubclass(cls, Signal) else "suspend point"
    stored = check_name(f"the name of a {kind}", cls.__name__ if name is None else name)
    if "<locals>" in cls.__qualname__:
        return stored  # it is made anew at each call of the function around it
    other = _KNOWN.get((kind, stored))
    mine, theirs = f"{cls.__module__}.{cls.__qualname__}", other and f"{other.__module__}.{other.__qualname__}"
    if theirs is not None and theirs != mine:
        raise DefinitionError(
            f"{mine} and {theirs} would both be stored as the {kind} {stored}: give one of them another name, as in "
            f'`class {cls.__name__}(..., name="...")`'
        )
    _KNOWN[kind, stored] = cls
    return stored


def _answer_of(cls: type[Any]) -> Any:
    for base in cls.__mro__:
        meta = getattr(base, "__pydantic_generic_metadata__", {})
        if meta.get("origin") is Suspend and not isinstance(meta["args"][0], TypeVar):
            return meta["args"][0]
    raise DefinitionError(
        f"{cls.__name__} does not say what answers it: derive it from Suspend[Answer], with the type of the answer"
    )


def _here(what: str) -> Body:
    here = body()
    if here is None:
        raise UsageError(f"{what} waits in the body of a workflow, not in a step or in the application")
    return here


def _until(timeout: float | timedelta | None) -> Until | None:
    if timeout is None:
        return None
    length = microseconds(timeout)
    return lambda now: now + length
