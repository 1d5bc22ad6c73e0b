"""What a person's code asks for, as values: made where it calls, carried out by whoever drives it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from enum import Enum
from inspect import BoundArguments
from typing import Any

from ._codec import Parameters, Shape
from ._records import IfExists, Kind
from .retry import Retry

__all__ = [
    "AnswerQuestion",
    "AskQuestion",
    "AwaitRun",
    "CancelRun",
    "Errand",
    "Mode",
    "PointSpec",
    "SendMessage",
    "SignalSpec",
    "StartOptions",
    "StartRun",
    "StepCall",
    "StepSpec",
    "TakeMessages",
    "Until",
    "Wish",
    "WorkflowSpec",
]

Until = Callable[[int], int]
"""Makes a deadline from the body's time, both in microseconds."""


# Definitions ---------------------------------------------------------------------------------------------------------


class Mode(Enum):
    """Where a step's body runs."""

    ASYNC = "async"
    THREAD = "thread"
    EXECUTOR = "executor"
    TRANSACTION = "transaction"
    """On the journal's own thread, inside the commit that records its outcome."""


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
    """How many microseconds an attempt may take; of a transaction, its SQL."""
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
    detached: bool = False
    """Where a body starts it: what is asked of the body's run is not asked of it."""


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """All that senders and waiters need of a signal's definition."""

    name: str
    shape: Shape[Any]
    many: Shape[Any]
    """Of a list of them."""


@dataclass(frozen=True, slots=True)
class PointSpec:
    """All that askers and answerers need of a suspend point's definition."""

    name: str
    shape: Shape[Any]
    answer: Shape[Any]


# What a body asks for besides steps and sleeps -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartRun:
    """Start a run, or attach to one."""

    workflow: WorkflowSpec
    data: bytes
    """The input, encoded."""
    digest: bytes
    options: StartOptions


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Send a message to a run."""

    run_id: str
    name: str
    data: bytes
    """The message, encoded."""
    dedupe: str | None


@dataclass(frozen=True, slots=True)
class AnswerQuestion:
    """Answer a question of a run."""

    run_id: str
    name: str
    key: str | None
    data: bytes
    """The answer, encoded."""
    by: str
    early: bool


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Ask a run to end."""

    run_id: str
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class AwaitRun:
    """Find the run whose end is waited for."""

    run_id: str


@dataclass(frozen=True, slots=True)
class AskQuestion:
    """Store a question, so that people see it."""

    data: bytes
    """The question, encoded."""
    schema: str
    """The JSON schema of the answer, as JSON."""


@dataclass(frozen=True, slots=True)
class TakeMessages:
    """Take all messages of a name that are there."""


Errand = StartRun | SendMessage | AnswerQuestion | CancelRun | AwaitRun | AskQuestion | TakeMessages
"""What the journal has to do for a durable call before it has an outcome, or can have one."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A durable call that is neither a step nor a sleep."""

    kind: Kind
    name: str
    """What is called or waited for: of a workflow, a signal, a suspend point, an act; or the id of a run."""
    digest: bytes
    """Of what is asked for; empty where there is nothing to compare."""
    read: Callable[[bytes, str], Any]
    """Makes what the body gets from the encoded outcome; the text says where it is from."""
    errand: Errand | None = None
    key: str | None = None
    """The explicit key, where the caller chose one."""
    until: Until | None = None
    """When it is over by itself."""
    label: str | None = None
    """What stands in its key, where that is not the name."""
