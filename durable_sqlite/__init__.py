"""Durable coroutines in one SQLite file."""

TYPE_CHECKING = False  # `typing` itself takes longer to import than a look into a journal

if TYPE_CHECKING:
    from ._chance import now, random, uuid
    from ._codec import Codec
    from ._context import current_run, current_step
    from ._fanout import each
    from ._findings import Finding, FindingKind, Verification
    from ._handle import DeadLetter, Run
    from ._logging import RunLogFilter
    from ._records import (
        Failure,
        HistoryEntry,
        Kind,
        MessageInfo,
        Outcome,
        Progress,
        QuestionInfo,
        Reason,
        RunInfo,
        State,
    )
    from ._reports import set_progress, set_status
    from ._signals import Signal, Suspend
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

# Where each of them is defined. Nothing is imported before somebody asks for it: the command line looks into journals
# without an engine, and pydantic takes longest of all.
_HOMES = {
    "_chance": "now random uuid",
    "_codec": "Codec",
    "_context": "current_run current_step",
    "_fanout": "each",
    "_findings": "Finding FindingKind Verification",
    "_handle": "DeadLetter Run",
    "_logging": "RunLogFilter",
    "_records": "Failure HistoryEntry Kind MessageInfo Outcome Progress QuestionInfo Reason RunInfo State",
    "_reports": "set_progress set_status",
    "_signals": "Signal Suspend",
    "_stats": "BodyStats CommitStats JournalStats LoopStats Stats",
    "_steps": "Step step",
    "_tables": "Rows",
    "_transactions": "Transaction transaction",
    "_tx": "Tx",
    "_waits": "sleep sleep_until",
    "_workflows": "Workflow workflow",
    "engine": "Engine",
    "errors": (
        "AmbiguousStep BodyError DefinitionError DuplicateKey DurableError EngineClosed ErrorRecord "
        "InvalidName JournalDamaged JournalError JournalGone JournalMismatch JournalTooNew LeaseLost NoEngine NotAJournal NotDurable "
        "OpenBranches PayloadError PayloadTooLarge ReplayDiverged RunCancelled RunConflict RunError RunExists "
        "RunFailed RunParked SignalRejected SignalSuperseded StepFailed StorageStalled SuspendedStepConflict "
        "Undecodable UnknownRun Unloading Unstorable UsageError WrongLoop WrongState"
    ),
    "probe": "Done NotDone Unknown",
    "retry": "Permanent Retry RetryAfter",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
_MODULES = frozenset({"engine", "errors", "journal", "probe", "retry"})

if not TYPE_CHECKING:  # a checker reads the imports above, and knows of no other name

    def __getattr__(name: str) -> object:
        """Import what is asked for, once."""
        from importlib import import_module  # noqa: PLC0415

        if name in _MODULES:
            return import_module(f".{name}", __name__)
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


del TYPE_CHECKING
