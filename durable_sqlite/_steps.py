"""Steps: functions whose outcome is recorded once when a workflow calls them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Executor
from copy import copy
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ._codec import Parameters, Shape
from ._context import NOWHERE, body
from ._definition import (
    Decorated,
    check_function,
    check_raises,
    check_retry,
    is_method,
    locals_around,
    name_of,
    positive,
    stand_in_for,
)
from ._ids import check_name
from ._specs import Mode, StepCall, StepSpec
from .errors import DefinitionError
from .probe import Answer
from .retry import Retry

__all__ = ["Step", "step"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


class Step(Decorated, Generic[P, R]):
    """A decorated function: in the body of a workflow a journalled call, elsewhere just the function."""

    _spec: StepSpec
    _key: str | None
    _receiver: tuple[object, ...]

    def __init__(self, spec: StepSpec) -> None:
        self._spec = spec
        self._key = None
        self._receiver = ()
        stand_in_for(self, spec.plain)

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's signature; without its first parameter where the step is a method of an object."""
        signature = inspect.signature(self._spec.plain)
        return signature.replace(parameters=list(signature.parameters.values())[len(self._receiver) :])

    @property
    def name(self) -> str:
        """The name under which it is recorded: a promise to every journal that holds it."""
        return self._spec.name

    @property
    def key(self) -> str | None:
        """The key that was chosen for a call in a body, if one was."""
        return self._key

    @property
    def fn(self) -> Callable[..., Any]:
        """The function as it was written."""
        return self._spec.plain

    @property
    def returns(self) -> Shape[Any]:
        """How its results are stored."""
        return self._spec.parameters.returns

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Fix the key of this call; awaiting what is returned gives its outcome."""
        here = body()
        if here is None:
            return _plain_call(self._spec, (*self._receiver, *args), kwargs)
        return here.call(self.request(args, kwargs))

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepCall:
        """What a body asks for by a call with these arguments.

        Raises:
            Unstorable: An argument has no JSON form; the message has its path.
        """
        bound = self._spec.parameters.bind((*self._receiver, *args), kwargs)
        digest = self._spec.parameters.digest(bound, f"step {self._spec.name}: arguments")
        return StepCall(self._spec, self._key, bound, digest)

    def options(
        self, *, key: str | None = None, retry: Retry | None = None, timeout: float | timedelta | None = None
    ) -> Step[P, R]:
        """The same step with options for one call; an option that is not given stays as it is.

        Args:
            key: Identifies the call in its branch instead of its name and count; unique in a run.
            retry: When a failed attempt is followed by another.
            timeout: How long an attempt may take, in seconds.

        Raises:
            DefinitionError: An option makes no sense.
        """
        chosen: dict[str, Any] = {}
        if retry is not None:
            chosen["retry"] = check_retry(f"@step {self._spec.name}", retry)
            if self._spec.at_most_once and retry.max_attempts != 1:
                raise DefinitionError(f"@step {self._spec.name}: an at-most-once step has one attempt")
        if timeout is not None:
            chosen["timeout"] = _check_timeout(self._spec.name, timeout)
        spec = replace(self._spec, **chosen) if chosen else self._spec
        return self._with(_spec=spec, _key=key or self._key)

    @overload
    def __get__(self, obj: None, owner: type[object], /) -> Step[P, R]: ...
    @overload
    def __get__(self: Step[Concatenate[T, Q], R], obj: T, owner: type[object] | None = None, /) -> Step[Q, R]: ...
    def __get__(self, obj: Any, owner: Any = None, /) -> Any:
        return self if obj is None else self._with(_receiver=(obj,))

    def __repr__(self) -> str:
        return f"<step {self._spec.name}>"

    def _with(self, **changes: object) -> Step[P, R]:
        other = copy(self)
        vars(other).update(changes)
        return other


class _StepDecorator:
    """`@step(...)` with its options, waiting for the function."""

    def __init__(self, options: _StepOptions) -> None:
        self._options = options

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Any:
        return _make_step(fn, self._options)


@dataclass(frozen=True, slots=True)
class _StepOptions:
    name: str | None = None
    ignore: Collection[str] = ()
    raises: tuple[type[Exception], ...] = ()
    executor: Executor | None = None
    retry: Retry | None = None
    timeout: float | timedelta | None = None
    at_most_once: bool = False
    probe: Callable[..., Any] | None = None


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    ignore: Collection[str] = (),
    raises: tuple[type[Exception], ...] = (),
    executor: Executor | None = None,
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
    at_most_once: bool = False,
    probe: Callable[..., Answer[Any] | Coroutine[Any, Any, Answer[Any]]] | None = None,
) -> _StepDecorator: ...
def step(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    ignore: Collection[str] = (),
    raises: tuple[type[Exception], ...] = (),
    executor: Executor | None = None,
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
    at_most_once: bool = False,
    probe: Callable[..., Any] | None = None,
) -> Any:
    """Make a function a step: called in the body of a workflow, its outcome is recorded once and never asked for again.

    A coroutine function runs on the application's loop, a plain function in the engine's own threads.

    Args:
        fn: The function, where the decorator is used without options.
        name: The name under which it is recorded, else the function's. Keep it when you rename the function.
        ignore: Parameters that do not belong to the call's identity, such as a client.
        raises: Errors that are answers: recorded, and raised as their own class on every replay.
        executor: Runs a plain function, in another process if it likes.
        retry: When a failed attempt is followed by another; else as the engine says, and it says never unless told.
        timeout: How long an attempt may take, in seconds or as a timedelta. An attempt that takes longer has failed; a
            plain function cannot be stopped, so it may go on beside the next attempt.
        at_most_once: Never begin it again where it may have begun before: after a crash in the middle of it the run is
            parked as `ambiguous`, and a person decides with `run.settle`. Costs one more commit.
        probe: For an at-most-once step: asked with the same arguments instead of parking the run. Answers `Done(value)`,
            `NotDone()` or `Unknown()`.

    Raises:
        DefinitionError: The function or an option cannot be taken.
    """
    chosen = _StepOptions(name, ignore, raises, executor, retry, timeout, at_most_once, probe)
    return _StepDecorator(chosen) if fn is None else _make_step(fn, chosen)


def _make_step(fn: Callable[..., Any], options: _StepOptions) -> Step[..., Any]:
    check_function("step", fn)
    asynchronous = inspect.iscoroutinefunction(fn)
    if asynchronous and options.executor is not None:
        raise DefinitionError(f"@step {name_of(fn)}: an executor runs plain functions; a coroutine runs on the loop")
    check_raises(f"@step {name_of(fn)}", options.raises)
    _check_at_most_once(fn, options)
    mode = Mode.ASYNC if asynchronous else Mode.THREAD if options.executor is None else Mode.EXECUTOR
    spec = StepSpec(
        name=check_name("a step's name", options.name or name_of(fn)),
        plain=fn,
        fn=_Portable(fn) if mode is Mode.EXECUTOR else fn,
        mode=mode,
        executor=options.executor,
        parameters=Parameters(fn, ignore=options.ignore, skip_first=is_method(fn), localns=locals_around(fn)),
        raises=tuple(options.raises),
        retry=None if options.retry is None else check_retry(f"@step {name_of(fn)}", options.retry),
        timeout=None if options.timeout is None else _check_timeout(name_of(fn), options.timeout),
        at_most_once=options.at_most_once,
        probe=options.probe,
    )
    made = Step[..., Any](spec)
    NOWHERE.define(made)
    return made


def _check_at_most_once(fn: Callable[..., Any], options: _StepOptions) -> None:
    if options.probe is not None and not (options.at_most_once and callable(options.probe)):
        raise DefinitionError(
            f"@step {name_of(fn)}: a probe is a function, and belongs to a step with at_most_once=True"
        )
    if options.at_most_once and options.retry is not None and options.retry.max_attempts != 1:
        raise DefinitionError(f"@step {name_of(fn)}: an at-most-once step has one attempt, so it takes no other retry")


def _check_timeout(name: str, timeout: float | timedelta) -> int:
    return positive(f"@step {name}: timeout", timeout)


def _plain_call(spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    """Outside a run, and inside another step, a step is its function."""
    if spec.mode is Mode.ASYNC:
        outcome: Coroutine[Any, Any, Any] = spec.plain(*args, **kwargs)
        return outcome
    return _call_plain(spec.plain, args, kwargs)


async def _call_plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


class _Portable:
    """A step's function that travels to another process as its name, since the name there means the step."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._fn(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return _find_function, (self._fn.__module__, self._fn.__qualname__)


def _find_function(module: str, qualname: str) -> Callable[..., Any]:
    found: Any = sys.modules.get(module) or __import__(module, fromlist=["_"])
    for part in qualname.split("."):
        found = getattr(found, part)
    return found.fn if isinstance(found, Step) else found
