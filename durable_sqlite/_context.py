"""Where code is being run: outside, under an engine, in a body, or in a step. Held in the one context variable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from inspect import BoundArguments
from random import Random
from typing import Any, Protocol
from uuid import UUID
from weakref import WeakSet

from ._codec import Parameters
from ._records import HistoryEntry, IfExists, RunInfo, RunRow
from .errors import NoEngine, NotDurable, UsageError
from .retry import Retry

__all__ = [
    "Body",
    "BodyScope",
    "EngineScope",
    "Host",
    "Mode",
    "Nowhere",
    "Scope",
    "StartOptions",
    "StepCall",
    "StepInfo",
    "StepScope",
    "StepSpec",
    "WorkflowSpec",
    "body",
    "choose",
    "current_run",
    "current_step",
    "not_in_body",
    "outside_runs",
    "scope",
]


# What definitions hand to whoever runs them --------------------------------------------------------------------------


class Mode(Enum):
    """Where a step's body runs."""

    ASYNC = "async"
    THREAD = "thread"
    EXECUTOR = "executor"


@dataclass(frozen=True, slots=True)
class StepSpec:
    """All that a driver needs of a step's definition."""

    name: str
    plain: Callable[..., Any]
    """The function as it was written."""
    fn: Callable[..., Any]
    """What is called for it, which may travel to another process."""
    mode: Mode
    executor: Executor | None
    parameters: Parameters
    raises: tuple[type[Exception], ...]
    retry: Retry | None
    """When a failed attempt is followed by another; None: as the engine says."""
    timeout: int | None
    """How many microseconds an attempt may take."""
    at_most_once: bool
    """It is never begun again where it may have begun before."""
    probe: Callable[..., Any] | None
    """Says whether it had its effect, where it may have begun before."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call of a step, its arguments bound and digested."""

    spec: StepSpec
    key: str | None
    """The explicit key, where the caller chose one."""
    bound: BoundArguments
    digest: bytes


@dataclass(frozen=True, slots=True)
class WorkflowSpec:
    """All that an engine needs of a workflow's definition."""

    name: str
    fn: Callable[..., Coroutine[Any, Any, Any]]
    parameters: Parameters
    origin: str
    version: str


@dataclass(frozen=True, slots=True)
class StartOptions:
    """How a run is to be started."""

    id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    if_exists: IfExists = IfExists.ATTACH
    deadline: int | None = None
    """How many microseconds the run is given."""
    engine: Host | None = None


# What code in a run may know -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepInfo:
    """The attempt that is being made."""

    run_id: str
    workflow: str
    key: str
    attempt: int
    """Counted from 1."""
    max_attempts: int | None
    """None where there is no limit."""
    recovered: bool
    """The process that drove this run before died, so this attempt's body may have begun there already."""
    idempotency_key: str
    """The same for every attempt, restart and resume of this step; different in every other run."""


class Body(Protocol):
    """A workflow's body while it is driven, as the code inside sees it."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...

    @property
    def workflow(self) -> str:
        """The name of the run's workflow."""
        ...

    @property
    def replaying(self) -> bool:
        """Whether everything so far comes from the journal."""
        ...

    @property
    def unloading(self) -> bool:
        """Whether the body is being taken out of memory; nothing it does now is recorded."""
        ...

    @property
    def pumped(self) -> bool:
        """Whether the body's own loop is the one that runs right now."""
        ...

    def call(self, request: StepCall) -> Coroutine[Any, Any, Any]:
        """Fix the key of a step; awaiting what is returned gives its outcome."""
        ...

    def sleep(self, until: Callable[[int], int]) -> Coroutine[Any, Any, None]:
        """Fix the key of a sleep; `until` makes its deadline from the body's time."""
        ...

    def now(self) -> int:
        """The time of the last entry that the body was given."""
        ...

    def uuid(self) -> UUID:
        """The branch's next UUID, the same on every pass."""
        ...

    def random(self) -> Random:
        """The branch's own source of chance, the same on every pass."""
        ...


class Host(Protocol):
    """An open engine, as definitions and run handles see it."""

    @property
    def title(self) -> str:
        """How messages name it: the path of its journal."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it was opened on."""
        ...

    async def start(self, workflow: WorkflowSpec, bound: BoundArguments, options: StartOptions) -> tuple[RunRow, bool]:
        """Start a run, or attach to one; the run, and whether it is new."""
        ...

    async def cancel(self, run_id: str, reason: str, by: str) -> None:
        """Ask a run to end."""
        ...

    async def resume(
        self, run_id: str, *, accept_changes: bool, retry: tuple[str, ...], corrected: Mapping[str, Any] | None
    ) -> Sequence[str]:
        """Let a failed or parked run go on; the keys of what was forgotten."""
        ...

    async def settle(self, run_id: str, key: str, value: object, by: str, *, retry: bool) -> None:
        """Decide an at-most-once step that is in doubt."""
        ...

    async def discard(self, run_id: str) -> None:
        """Mark a dead letter as seen to."""
        ...

    async def stopped(self, run_id: str, timeout: float | None) -> RunRow:
        """Wait until a run has stopped."""
        ...

    async def info(self, run_id: str) -> RunInfo:
        """What a run is."""
        ...

    async def history(self, run_id: str) -> Sequence[HistoryEntry]:
        """What a run has recorded."""
        ...

    def unseal(self, data: bytes, where: str) -> bytes:
        """Encoded bytes of stored bytes."""
        ...


# Scopes --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No engine was opened in this context. The one such value also knows what is open and what is defined anywhere."""

    steps: WeakSet[Any] = field(default_factory=WeakSet[Any])
    """Every step that is defined; one that nobody can call any more is gone by itself."""
    engines: WeakSet[Host] = field(default_factory=WeakSet[Host])


@dataclass(frozen=True, slots=True)
class EngineScope:
    """Inside `async with Engine(...)`."""

    engine: Host


@dataclass(frozen=True, slots=True)
class BodyScope:
    """Inside the body of a workflow."""

    body: Body


@dataclass(frozen=True, slots=True)
class StepScope:
    """Inside the body of a step, wherever it runs."""

    step: StepInfo


Scope = Nowhere | EngineScope | BodyScope | StepScope

NOWHERE = Nowhere()
scope: ContextVar[Scope] = ContextVar("durable_sqlite", default=NOWHERE)


def body() -> Body | None:
    """The body that calls, or None outside of bodies.

    Raises:
        NotDurable: The caller took a body's context elsewhere, such as into a thread or onto another loop.
    """
    match scope.get():
        case BodyScope(here):
            if here.pumped or here.unloading:
                return here
            raise NotDurable(
                f"run {here.run_id}: code of this body runs outside the body, on another loop or in a thread; "
                "what it does there cannot be repeated, so this belongs in a step"
            )
        case _:
            return None


def outside_runs(what: str) -> None:
    """Refuse what only application code may do.

    Raises:
        NotDurable: The caller is the body of a workflow.
        UsageError: The caller is a step.
    """
    not_in_body(what)
    match scope.get():
        case StepScope(step):
            raise UsageError(
                f"run {step.run_id}, step {step.key}: {what} inside a step may happen more than once, since a step may "
                "run again after a crash; do it from the application"
            )
        case _:
            return


def not_in_body(what: str) -> None:
    """Refuse what the journal cannot give back to a body.

    Raises:
        NotDurable: The caller is the body of a workflow.
    """
    match scope.get():
        case BodyScope(here):
            raise NotDurable(
                f"run {here.run_id}: {what} inside a body is not recorded; this belongs in a step, or in the application"
            )
        case _:
            return


def choose(named: Host | None) -> Host:
    """The engine meant by a call: the named one, else the innermost of this context, else the only one of this loop.

    Raises:
        NoEngine: There is none, or there are several; the message lists them and the ways to choose.
    """
    if named is not None:
        return named
    here = scope.get()
    if isinstance(here, EngineScope):
        return here.engine
    running = asyncio.get_running_loop()
    mine = [engine for engine in NOWHERE.engines if engine.loop is running]
    if len(mine) == 1:
        return mine[0]
    how = "open one with `async with Engine(path)`, or name one with `.options(engine=engine)`"
    if not mine:
        raise NoEngine(f"no engine is open here: {how}")
    names = ", ".join(sorted(engine.title for engine in mine))
    raise NoEngine(f"several engines are open on this loop ({names}): {how}")


def current_step() -> StepInfo:
    """What the running step may know about its attempt.

    Raises:
        UsageError: The caller is no step of a run.
    """
    here = scope.get()
    if isinstance(here, StepScope):
        return here.step
    raise UsageError("current_step() answers inside a step of a run; a step called outside a run is just its function")


def current_run() -> Body:
    """The body that calls: its run's id, whether it is replaying, whether it is being unloaded.

    Raises:
        UsageError: The caller is no body.
    """
    here = scope.get()
    if isinstance(here, BodyScope):
        return here.body
    raise UsageError("current_run() answers inside the body of a workflow")
