"""Durable coroutines in one SQLite file."""

import typing as _typing

from ._chance import now, random, uuid
from ._codec import Codec
from ._context import current_run, current_step
from ._fanout import each
from ._findings import Finding, FindingKind, Verification
from ._handle import DeadLetter, Run
from ._logging import RunLogFilter
from ._records import Failure, HistoryEntry, Kind, MessageInfo, Outcome, Progress, QuestionInfo, Reason, RunInfo, State
from ._reports import set_progress, set_status
from ._stats import BodyStats, CommitStats, JournalStats, LoopStats, Stats
from ._steps import Step, step
from ._tables import Rows
from ._transactions import Transaction, transaction
from ._tx import Tx
from ._waits import sleep, sleep_until
from ._workflows import Workflow, workflow
from .engine import Engine
from .errors import (
    AmbiguousStep,
    BodyError,
    DefinitionError,
    DuplicateKey,
    DurableError,
    EngineClosed,
    ErrorRecord,
    InvalidName,
    JournalDamaged,
    JournalError,
    JournalGone,
    JournalMismatch,
    JournalTooNew,
    LeaseLost,
    NoEngine,
    NotAJournal,
    NotDurable,
    OpenBranches,
    PayloadError,
    PayloadTooLarge,
    ReplayDiverged,
    RunCancelled,
    RunConflict,
    RunError,
    RunExists,
    RunFailed,
    RunParked,
    SignalRejected,
    SignalSuperseded,
    StepFailed,
    StorageStalled,
    SuspendedStepConflict,
    Undecodable,
    UnknownRun,
    Unloading,
    Unstorable,
    UsageError,
    WrongLoop,
    WrongState,
)
from .probe import Done, NotDone, Unknown
from .retry import Permanent, Retry, RetryAfter

if _typing.TYPE_CHECKING:
    from ._signals import Signal, Suspend

__all__ = [
    "AmbiguousStep",
    "BodyError",
    "BodyStats",
    "Codec",
    "CommitStats",
    "DeadLetter",
    "DefinitionError",
    "Done",
    "DuplicateKey",
    "DurableError",
    "Engine",
    "EngineClosed",
    "ErrorRecord",
    "Failure",
    "Finding",
    "FindingKind",
    "HistoryEntry",
    "InvalidName",
    "JournalDamaged",
    "JournalError",
    "JournalGone",
    "JournalMismatch",
    "JournalStats",
    "JournalTooNew",
    "Kind",
    "LeaseLost",
    "LoopStats",
    "MessageInfo",
    "NoEngine",
    "NotAJournal",
    "NotDone",
    "NotDurable",
    "OpenBranches",
    "Outcome",
    "PayloadError",
    "PayloadTooLarge",
    "Permanent",
    "Progress",
    "QuestionInfo",
    "Reason",
    "ReplayDiverged",
    "Retry",
    "RetryAfter",
    "Rows",
    "Run",
    "RunCancelled",
    "RunConflict",
    "RunError",
    "RunExists",
    "RunFailed",
    "RunInfo",
    "RunLogFilter",
    "RunParked",
    "Signal",
    "SignalRejected",
    "SignalSuperseded",
    "State",
    "Stats",
    "Step",
    "StepFailed",
    "StorageStalled",
    "Suspend",
    "SuspendedStepConflict",
    "Transaction",
    "Tx",
    "Undecodable",
    "Unknown",
    "UnknownRun",
    "Unloading",
    "Unstorable",
    "UsageError",
    "Verification",
    "Workflow",
    "WrongLoop",
    "WrongState",
    "current_run",
    "current_step",
    "each",
    "now",
    "random",
    "set_progress",
    "set_status",
    "sleep",
    "sleep_until",
    "step",
    "transaction",
    "uuid",
    "workflow",
]


def __getattr__(name: str) -> _typing.Any:
    """`Signal` and `Suspend` are pydantic models, and pydantic is imported by whoever asks for them."""
    if name in ("Signal", "Suspend"):
        from . import _signals  # noqa: PLC0415

        return getattr(_signals, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
