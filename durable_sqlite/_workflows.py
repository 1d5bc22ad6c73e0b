"""Workflows: coroutine functions whose runs are durable."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Coroutine, Mapping
from copy import copy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from ._codec import Parameters
from ._context import Host, Hosted, body, choose, looks_async, outside_runs
from ._definition import Decorated, check_function, is_method, locals_around, name_of, positive, stand_in_for
from ._handle import Run, message_to
from ._ids import check_name
from ._records import IfExists, Kind
from ._specs import StartOptions, StartRun, Wish, WorkflowSpec
from .errors import DefinitionError, UsageError

if TYPE_CHECKING:
    from ._signals import Signal  # pydantic is imported with it

__all__ = ["Workflow", "workflow"]

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Decorated, Generic[P, R]):
    """A decorated coroutine function whose executions are durable."""

    _spec: WorkflowSpec
    _options: StartOptions
    _key: str | None
    _engine: Host | None

    def __init__(self, spec: WorkflowSpec) -> None:
        self._spec = spec
        self._options = StartOptions()
        self._key = None
        self._engine = None
        stand_in_for(self, spec.fn)

    @property
    def name(self) -> str:
        """The name under which its runs are recorded: a promise to every journal that holds one."""
        return self._spec.name

    @property
    def key(self) -> str | None:
        """The key that was chosen for a call in a body, if one was."""
        return self._key

    @property
    def fn(self) -> Callable[P, Coroutine[Any, Any, R]]:
        """The function as it was written; calling it is not durable."""
        return self._spec.fn

    @property
    def chosen(self) -> StartOptions:
        """The options that were chosen for a start."""
        return self._options

    @property
    def spec(self) -> WorkflowSpec:
        """What an engine needs to know of it."""
        return self._spec

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Start a run and wait for its result; in the body of another run it is a child of that.

        A child that fails or is cancelled raises `RunFailed` or `RunCancelled` there; a child that is parked is waited for.
        """
        here = body()
        if here is not None:
            return here.wish(self.request(args, kwargs))
        outside_runs(f"calling workflow {self._spec.name}")
        return self._start_and_wait(args, kwargs)

    @looks_async
    def start(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, Run[R]]:
        """Start a run; it is committed when this has been awaited. In the body of another run it is a child of that.

        Raises:
            RunConflict: The chosen id is taken by a run of another workflow or input.
            RunExists: The chosen id is taken and `if_exists="fail"` was asked.
            NoEngine: No engine is open here, or several are.
            Unstorable: An argument cannot be stored; the message has its path.
        """
        here = body()
        if here is None:
            return self._start(args, kwargs)
        host, load = here.host, self._spec.parameters.returns.load

        def handle(data: bytes, _where: str) -> Run[R]:
            held = json.loads(data)
            return Run(host, str(held["id"]), load, created=bool(held["created"]))

        return here.wish(replace(self.request(args, kwargs), kind=Kind.ACT, read=handle))

    @looks_async
    def signal_with_start(
        self, message: Signal, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, None, Run[R]]:
        """Start a run, or attach to the one that has the chosen id, and send it a message: both in one commit, or neither.

        Raises:
            SignalRejected: The run has ended.
            RunConflict: The chosen id is taken by a run of another workflow or input.
        """
        outside_runs("starting a run with a message")
        return self._start(args, kwargs, message)

    def run(self, run_id: str) -> Run[R]:
        """A typed handle on the run of this id; whether it exists is found out by asking it something.

        Raises:
            NoEngine: No engine is open here, or several are.
        """
        here = body()
        host = choose(self._engine) if here is None else here.host
        return Run(host, check_name("a run's id", run_id), self._spec.parameters.returns.load)

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Wish:
        """What a body asks for by a call with these arguments.

        Raises:
            Unstorable: An argument cannot be stored; the message has its path.
            UsageError: Another engine than the body's was chosen.
        """
        here = body()
        if here is not None and self._engine not in (None, here.host):
            raise UsageError(
                f"run {here.run_id}: a child run lives in the journal of its parent; choose no other engine"
            )
        parameters = self._spec.parameters
        bound = parameters.bind(args, kwargs)
        where = f"workflow {self._spec.name}: input"
        data, digest = parameters.dump(bound, where), parameters.digest(bound, where)
        errand = StartRun(self._spec, data, digest, self._options)
        return Wish(Kind.CHILD, self._spec.name, digest, parameters.returns.load, errand, self._key)

    def options(
        self,
        *,
        id: str | None = None,  # noqa: A002 - the word that people type
        tags: Mapping[str, str] | None = None,
        if_exists: Literal["attach", "fail", "replace"] | None = None,
        deadline: float | timedelta | None = None,
        detached: bool | None = None,
        key: str | None = None,
        engine: Hosted | None = None,
    ) -> Workflow[P, R]:
        """The same workflow with options for one start; an option that is not given stays as it is.

        Args:
            id: Identifies the run; else the engine makes an id.
            tags: Words to find the run by.
            if_exists: When the id is taken: `attach` to a run of the same workflow and input (the default), `fail`, or
                `replace` a run that has ended.
            deadline: How long the run may take in all, in seconds: restarts, waits and retries included. Then its body is
                cancelled as by `cancel`, may clean up with steps, and the run fails with the reason `deadline`.
            detached: In the body of another run: cancelling, pausing or ending that one leaves this one alone, and it does
                not inherit its deadline.
            key: In the body of another run: identifies the call in its branch instead of its name and count.
            engine: Where to start it; else the engine of this context.

        Raises:
            InvalidName: The id or a tag is outside the stated rule.
            DefinitionError: The deadline is no positive duration.
        """
        options = self._options
        if id is not None:
            options = replace(options, id=check_name("a run's id", id))
        if tags is not None:
            for tag, value in tags.items():
                check_name("a tag", tag)
                check_name(f"the value of tag {tag}", value)
            options = replace(options, tags=dict(tags))
        if if_exists is not None:
            options = replace(options, if_exists=IfExists(if_exists))
        if deadline is not None:
            options = replace(options, deadline=_check_deadline(self._spec.name, deadline))
        if detached is not None:
            options = replace(options, detached=detached)
        other = copy(self)
        vars(other).update(
            _options=options, _key=key or self._key, _engine=self._engine if engine is None else engine.host
        )
        return other

    def __repr__(self) -> str:
        return f"<workflow {self._spec.name}>"

    async def _start_and_wait(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        return await (await self._start(args, kwargs)).result()

    async def _start(self, args: tuple[Any, ...], kwargs: dict[str, Any], message: Signal | None = None) -> Run[R]:
        outside_runs(f"starting workflow {self._spec.name}")
        engine = choose(self._engine)
        bound = self._spec.parameters.bind(args, kwargs)
        sent = None if message is None else message_to("", message)
        row, created = await engine.start(self._spec, bound, self._options, sent)
        return Run(engine, row.id, self._spec.parameters.returns.load, created=created)


class _WorkflowDecorator:
    """`@workflow(...)` with its options, waiting for the function."""

    def __init__(self, name: str | None, version: str) -> None:
        self._name = name
        self._version = version

    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]:
        made: Workflow[P, R] = _make_workflow(fn, self._name, self._version)
        return made


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


def _make_workflow(fn: Callable[..., Any], name: str | None, version: str) -> Any:
    check_function("workflow", fn)
    if not inspect.iscoroutinefunction(fn):
        raise DefinitionError(f"@workflow {name_of(fn)}: a workflow is an `async def` function")
    if is_method(fn):
        raise DefinitionError(
            f"@workflow {name_of(fn)}: a workflow is a function of its module, not a method: after a crash there is no "
            "object to call it on"
        )
    spec = WorkflowSpec(
        name=check_name("a workflow's name", name or name_of(fn)),
        fn=fn,
        parameters=Parameters(fn, localns=locals_around(fn)),
        origin=f"{_module_of(fn)}:{fn.__qualname__}",
        version=version,
    )
    return Workflow[..., Any](spec)


def _check_deadline(name: str, deadline: float | timedelta) -> int:
    return positive(f"workflow {name}: deadline", deadline)


def _module_of(fn: Callable[..., Any]) -> str:
    """The module's real name, also where it runs as a script."""
    if fn.__module__ != "__main__":
        return fn.__module__
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        return str(main.__spec__.name).removesuffix(".__main__")  # type: ignore[union-attr]
    path = getattr(main, "__file__", None)
    return Path(path).stem if path else "__main__"
