"""Where code is being run: outside, under an engine, in a body, or in a step. Held in the one context variable."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from inspect import BoundArguments
from random import Random
from typing import Any, Protocol, TypeVar
from uuid import UUID
from weakref import WeakSet, WeakValueDictionary

from ._ids import derived
from ._records import HistoryEntry, MessageInfo, QuestionInfo, RunInfo, RunRow
from ._specs import AnswerQuestion, SendMessage, StartOptions, StepCall, Until, Wish, WorkflowSpec
from .errors import NoEngine, NotDurable, UsageError

__all__ = [
    "Body",
    "BodyScope",
    "EngineScope",
    "Host",
    "Hosted",
    "Nowhere",
    "Order",
    "Scope",
    "StepInfo",
    "StepScope",
    "body",
    "choose",
    "current_run",
    "current_step",
    "looks_async",
    "not_in_body",
    "outside_runs",
    "scope",
]


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
    run_uid: str = field(repr=False)
    """Tells the run from every other, also from one that had its id before."""
    name: str = ""
    """The step's own name, whatever its key is."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt, restart and resume of this step; different in every other run."""
        return derived(self.run_uid, self.key)  # made when it is asked for, since most steps never ask


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

    @property
    def host(self) -> Host:
        """The engine that drives it."""
        ...

    def sleep(self, until: Until) -> Coroutine[Any, Any, None]:
        """Fix the key of a sleep; `until` makes its deadline from the body's time."""
        ...

    def wish(self, wish: Wish) -> Coroutine[Any, Any, Any]:
        """Fix the key of any other durable call; awaiting what is returned gives its outcome."""
        ...

    def many(
        self,
        name: str,
        key: str | None,
        make: Callable[[int], StepCall | Wish],
        count: int,
        limit: int,
        *,
        collect: bool,
    ) -> Coroutine[Any, Any, list[Any]]:
        """Fix the key of a fan-out over `count` calls, which `make` makes by their index.

        Args:
            name: What is called.
            key: The explicit key, where the caller chose one.
            make: Makes the call of an index. Its key is that of the fan-out and the index.
            count: How many calls there are.
            limit: How many of them may be open at once.
            collect: Give errors in the place of results, instead of raising the first one.
        """
        ...

    def report_status(self, text: str | None) -> None:
        """Show people a text; nothing where the body replays."""
        ...

    def report_progress(self, done: int, total: int) -> None:
        """Show people how far the run has come; nothing where the body replays."""
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

    async def start(
        self,
        workflow: WorkflowSpec,
        bound: BoundArguments,
        options: StartOptions,
        message: SendMessage | None = None,
    ) -> tuple[RunRow, bool]:
        """Start a run, or attach to one, and send it a message if there is one; the run, and whether it is new."""
        ...

    async def signal(self, message: SendMessage) -> None:
        """Send a message to a run."""
        ...

    async def answer(self, answer: AnswerQuestion) -> None:
        """Answer a question of a run."""
        ...

    async def cancel(self, run_id: str, reason: str, by: str) -> None:
        """Ask a run to end."""
        ...

    async def terminate(self, run_id: str, reason: str, by: str) -> None:
        """End a run without clean-up."""
        ...

    async def pause(self, run_id: str, reason: str, by: str) -> None:
        """Let a run begin nothing more until it is resumed."""
        ...

    async def resume(
        self, run_id: str, *, accept_changes: bool, retry: tuple[str, ...], corrected: Mapping[str, Any] | None
    ) -> Sequence[str]:
        """Let a failed, parked or paused run go on; the keys of what was forgotten."""
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

    async def messages(self, run_id: str) -> Sequence[MessageInfo]:
        """What was sent to a run and not taken."""
        ...

    async def questions_of(self, run_id: str) -> Sequence[QuestionInfo]:
        """What a run asks."""
        ...

    def watch_run(self, run_id: str) -> AsyncIterator[RunInfo]:
        """What a run is, then each change."""
        ...

    def unseal(self, data: bytes, where: str) -> bytes:
        """Encoded bytes of stored bytes."""
        ...


class Hosted(Protocol):
    """Whatever has a host: an `Engine`, for those who name one."""

    @property
    def host(self) -> Host:
        """The engine as definitions and run handles see it."""
        ...


class Order(Protocol):
    """An order in which the outcomes of steps arrive that run beside each other."""

    @property
    def patience(self) -> float:
        """Seconds for which outcomes are held back until all that are on their way have arrived."""
        ...

    def pick(self, place: int, keys: Sequence[str]) -> int:
        """The index of what arrives next, out of the keys of what is there, in a run that has recorded `place` outcomes."""
        ...


# Scopes --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No engine was opened in this context. The one such value also knows what is open and what is defined anywhere."""

    steps: WeakValueDictionary[int, Any] = field(default_factory=WeakValueDictionary[int, Any])
    """Every step by its place in the order of their definitions; one that nobody can call any more is gone by itself."""
    places: Iterator[int] = field(default_factory=itertools.count)
    engines: WeakSet[Host] = field(default_factory=WeakSet[Host])
    legacies: list[Any] = field(default_factory=list[Any])
    """What this process has from the one that it was forked from, and must not use."""
    orders: list[Order] = field(default_factory=list["Order"])
    """Orders of arrival that a test asks for, innermost last; empty but in tests."""

    def define(self, step: Any) -> None:
        """Keep a step among those that are defined."""
        self.steps[next(self.places)] = step

    def steps_named(self, name: str) -> list[Any]:
        """The steps of this name, the latest first."""
        return [step for step in reversed(list(self.steps.values())) if step.name == name]


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


F = TypeVar("F")


def looks_async(fn: F) -> F:
    """Let frameworks that ask take a function that fixes a key and returns an awaitable for a coroutine function."""
    thing: Any = fn
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(thing)
    else:
        thing._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001 - the only way before 3.12
    return fn


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
    running = _running()
    mine = [engine for engine in NOWHERE.engines if engine.loop is running]
    if len(mine) == 1:
        return mine[0]
    how = "open one with `async with Engine(path)`, or name one with `.options(engine=engine)`"
    if not mine:
        raise NoEngine(f"no engine is open here: {how}")
    names = ", ".join(sorted(engine.title for engine in mine))
    raise NoEngine(f"several engines are open on this loop ({names}): {how}")


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


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
