"""The decorators: what a person writes, and the objects that stand in the place of their functions."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import Executor
from copy import copy
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from ._clock import microseconds
from ._codec import Parameters, Shape
from ._context import (
    NOWHERE,
    Host,
    Mode,
    StartOptions,
    StepCall,
    StepSpec,
    WorkflowSpec,
    body,
    choose,
    outside_runs,
)
from ._handle import Run
from ._ids import check_name
from ._records import IfExists
from .errors import DefinitionError
from .probe import Answer
from .retry import Retry

__all__ = ["Step", "Workflow", "step", "workflow"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")

_LONGEST = 10_000 * 366 * 86_400 * 1_000_000  # microseconds: added to any date of today it is still a number of 64 bits


class Step(Generic[P, R]):
    """A decorated function: in the body of a workflow a journalled call, elsewhere just the function."""

    _spec: StepSpec
    _key: str | None
    _receiver: tuple[object, ...]

    def __init__(self, spec: StepSpec) -> None:
        self._spec = spec
        self._key = None
        self._receiver = ()
        _stand_in_for(self, spec.plain)

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
        bound = self._spec.parameters.bind((*self._receiver, *args), kwargs)
        where = f"run {here.run_id}, step {self._spec.name}: arguments"
        digest = self._spec.parameters.digest(bound, where)
        return here.call(StepCall(self._spec, self._key, bound, digest))

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
            chosen["retry"] = _check_retry(self._spec.name, retry)
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


class Workflow(Generic[P, R]):
    """A decorated coroutine function whose executions are durable."""

    _spec: WorkflowSpec
    _options: StartOptions

    def __init__(self, spec: WorkflowSpec, options: StartOptions | None = None) -> None:
        self._spec = spec
        self._options = options or StartOptions()
        _stand_in_for(self, spec.fn)

    @property
    def name(self) -> str:
        """The name under which its runs are recorded: a promise to every journal that holds one."""
        return self._spec.name

    @property
    def fn(self) -> Callable[P, Coroutine[Any, Any, R]]:
        """The function as it was written; calling it is not durable."""
        return self._spec.fn

    @property
    def spec(self) -> WorkflowSpec:
        """What an engine needs to know of it."""
        return self._spec

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Start a run and wait for its result."""
        outside_runs(f"calling workflow {self._spec.name}")
        return self._start_and_wait(args, kwargs)

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run; it is committed when this returns.

        Raises:
            RunConflict: The chosen id is taken by a run of another workflow or input.
            RunExists: The chosen id is taken and `if_exists="fail"` was asked.
            NoEngine: No engine is open here, or several are.
            Unstorable: An argument cannot be stored; the message has its path.
        """
        return await self._start(args, kwargs)

    def options(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the word that people type
        tags: Mapping[str, str] | None = None,
        if_exists: Literal["attach", "fail", "replace"] | None = None,
        deadline: float | timedelta | None = None,
        engine: Host | None = None,
    ) -> Workflow[P, R]:
        """The same workflow with options for one start; an option that is not given stays as it is.

        Args:
            id: Identifies the run; else the engine makes an id.
            tags: Words to find the run by.
            if_exists: When the id is taken: `attach` to a run of the same workflow and input (the default), `fail`, or
                `replace` a run that has ended.
            deadline: How long the run may take in all, in seconds: restarts, waits and retries included. Then its body is
                cancelled as by `cancel`, may clean up with steps, and the run fails with the reason `deadline`.
            engine: Where to start it; else the engine of this context.

        Raises:
            InvalidName: The id or a tag is outside the stated rule.
            DefinitionError: The deadline is no positive duration.
        """
        options = self._options
        if id is not None:
            options = replace(options, id=check_name("a run's id", id))
        if tags is not None:
            for key, value in tags.items():
                check_name("a tag", key)
                check_name(f"the value of tag {key}", value)
            options = replace(options, tags=dict(tags))
        if if_exists is not None:
            options = replace(options, if_exists=IfExists(if_exists))
        if deadline is not None:
            options = replace(options, deadline=_check_deadline(self._spec.name, deadline))
        if engine is not None:
            options = replace(options, engine=engine)
        return Workflow(self._spec, options)

    def __repr__(self) -> str:
        return f"<workflow {self._spec.name}>"

    async def _start_and_wait(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        return await (await self._start(args, kwargs)).result()

    async def _start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run[R]:
        outside_runs(f"starting workflow {self._spec.name}")
        engine = choose(self._options.engine)
        bound = self._spec.parameters.bind(args, kwargs)
        row, created = await engine.start(self._spec, bound, self._options)
        return Run(engine, row.id, self._spec.parameters.returns.load, created=created)


# Decorators ----------------------------------------------------------------------------------------------------------


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


class _WorkflowDecorator:
    """`@workflow(...)` with its options, waiting for the function."""

    def __init__(self, name: str | None, version: str) -> None:
        self._name = name
        self._version = version

    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]:
        made: Workflow[P, R] = _make_workflow(fn, self._name, self._version)
        return made


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


@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(*, name: str | None = None, version: str = "") -> _WorkflowDecorator: ...
def workflow(fn: Any = None, /, *, name: str | None = None, version: str = "") -> Any:
    """Make a coroutine function a workflow: its runs go on after a crash from their last recorded step.

    Args:
        fn: The function, where the decorator is used without options.
        name: The name under which runs are recorded, else the function's. Keep it when you rename the function.
        version: Recorded with each run, for people to read.

    Raises:
        DefinitionError: The function cannot be taken.
    """
    return _WorkflowDecorator(name, version) if fn is None else _make_workflow(fn, name, version)


def _make_step(fn: Callable[..., Any], options: _StepOptions) -> Step[..., Any]:
    _check_function("step", fn)
    asynchronous = inspect.iscoroutinefunction(fn)
    if asynchronous and options.executor is not None:
        raise DefinitionError(f"@step {_name_of(fn)}: an executor runs plain functions; a coroutine runs on the loop")
    for error in options.raises:
        if not (isinstance(error, type) and issubclass(error, Exception)):
            raise DefinitionError(f"@step {_name_of(fn)}: raises takes classes of exceptions, not {error!r}")
    _check_at_most_once(fn, options)
    mode = Mode.ASYNC if asynchronous else Mode.THREAD if options.executor is None else Mode.EXECUTOR
    spec = StepSpec(
        name=check_name("a step's name", options.name or _name_of(fn)),
        plain=fn,
        fn=_Portable(fn) if mode is Mode.EXECUTOR else fn,
        mode=mode,
        executor=options.executor,
        parameters=Parameters(fn, ignore=options.ignore, skip_first=_is_method(fn), localns=_locals_around(fn)),
        raises=tuple(options.raises),
        retry=None if options.retry is None else _check_retry(_name_of(fn), options.retry),
        timeout=None if options.timeout is None else _check_timeout(_name_of(fn), options.timeout),
        at_most_once=options.at_most_once,
        probe=options.probe,
    )
    made = Step[..., Any](spec)
    NOWHERE.steps.add(made)
    return made


def _make_workflow(fn: Callable[..., Any], name: str | None, version: str) -> Any:
    _check_function("workflow", fn)
    if not inspect.iscoroutinefunction(fn):
        raise DefinitionError(f"@workflow {_name_of(fn)}: a workflow is an `async def` function")
    if _is_method(fn):
        raise DefinitionError(
            f"@workflow {_name_of(fn)}: a workflow is a function of its module, not a method: after a crash there is no "
            "object to call it on"
        )
    spec = WorkflowSpec(
        name=check_name("a workflow's name", name or _name_of(fn)),
        fn=fn,
        parameters=Parameters(fn, localns=_locals_around(fn)),
        origin=f"{_module_of(fn)}:{fn.__qualname__}",
        version=version,
    )
    return Workflow[..., Any](spec)


def _check_function(what: str, fn: object) -> None:
    if type(fn) in (staticmethod, classmethod):
        raise DefinitionError(f"@{what} goes beneath @{type(fn).__name__}, next to the function")
    if isinstance(fn, (Step, Workflow)):
        raise DefinitionError(f"@{what}: {fn!r} is decorated already")
    if not callable(fn) or isinstance(fn, type):
        raise DefinitionError(f"@{what} decorates a function, not {fn!r}")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(f"@{what} {_name_of(fn)}: a generator has no single result to record")


def _check_retry(name: str, retry: object) -> Retry:
    if not isinstance(retry, Retry):
        raise DefinitionError(f"@step {name}: retry takes a Retry, such as Retry(max_attempts=5), not {retry!r}")
    return retry


def _check_at_most_once(fn: Callable[..., Any], options: _StepOptions) -> None:
    if options.probe is not None and not (options.at_most_once and callable(options.probe)):
        raise DefinitionError(
            f"@step {_name_of(fn)}: a probe is a function, and belongs to a step with at_most_once=True"
        )
    if options.at_most_once and options.retry is not None and options.retry.max_attempts != 1:
        raise DefinitionError(f"@step {_name_of(fn)}: an at-most-once step has one attempt, so it takes no other retry")


def _check_timeout(name: str, timeout: float | timedelta) -> int:
    return _positive(f"@step {name}: timeout", timeout)


def _check_deadline(name: str, deadline: float | timedelta) -> int:
    return _positive(f"workflow {name}: deadline", deadline)


def _positive(what: str, duration: float | timedelta) -> int:
    try:
        length = microseconds(duration)
    except (TypeError, ValueError) as problem:
        raise DefinitionError(f"{what}: {problem}") from None
    if not 0 < length <= _LONGEST:
        raise DefinitionError(f"{what} takes a positive duration of at most 10,000 years, not {duration!r}")
    return length


def _name_of(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _is_method(fn: Callable[..., Any]) -> bool:
    """Whether the first parameter is the object or class that the function is called on."""
    first = next(iter(inspect.signature(fn).parameters.values()), None)
    return first is not None and first.name in {"self", "cls"} and first.annotation is inspect.Parameter.empty


def _locals_around(fn: Callable[..., Any]) -> Mapping[str, Any] | None:
    """Names that annotations may mean where the function was defined inside another one."""
    if "<locals>" not in getattr(fn, "__qualname__", ""):
        return None
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    return None if frame is None else dict(frame.f_locals)


def _module_of(fn: Callable[..., Any]) -> str:
    """The module's real name, also where it runs as a script."""
    if fn.__module__ != "__main__":
        return fn.__module__
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return str(main.__spec__.name).removesuffix(".__main__")  # type: ignore[union-attr]
    path = getattr(main, "__file__", None)
    return Path(path).stem if path else "__main__"


def _plain_call(spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    """Outside a run, and inside another step, a step is its function."""
    if spec.mode is Mode.ASYNC:
        outcome: Coroutine[Any, Any, Any] = spec.plain(*args, **kwargs)
        return outcome
    return _call_plain(spec.plain, args, kwargs)


async def _call_plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def _stand_in_for(stand_in: Any, fn: Callable[..., Any]) -> None:
    """Look like the function to `help()`, to signatures, and to frameworks that ask for coroutine functions."""
    functools.update_wrapper(stand_in, fn)
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(stand_in)
    else:
        stand_in._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001 - the only way before 3.12


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
