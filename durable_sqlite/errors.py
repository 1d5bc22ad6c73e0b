"""Every error of this library, in one tree.

```
DurableError
├── UsageError                    the call is wrong; nothing was stored
│   ├── InvalidName               an id, name, key or tag outside the stated rule
│   ├── NoEngine                  no engine is open here, or several are
│   ├── EngineClosed              the engine was closed, or is closing
│   ├── WrongLoop                 the engine belongs to another event loop or process
│   └── NotDurable                a body asked for something the journal cannot give back
├── DefinitionError               a decorator was given something it cannot take
├── StepFailed                    a step raised; what it raised is described
├── Permanent                     raised by a step: to try again is of no use (defined in `retry`)
├── RetryAfter                    raised by a step: when to try again (defined in `retry`)
├── BodyError                     the body broke a rule of this library
│   ├── DuplicateKey              one explicit key twice in a run
│   └── OpenBranches              the body returned while branches were still open
├── AmbiguousStep                 nobody knows whether an at-most-once step had its effect
├── ReplayDiverged                the code asked for something else than the journal holds
│   └── SuspendedStepConflict     a step met the entry of a wait, or the reverse
├── RunError                      about one run
│   ├── UnknownRun                no run has this id
│   ├── RunConflict               this id is taken by another workflow or input
│   ├── RunExists                 this id is taken, and `if_exists="fail"` was asked
│   ├── WrongState                the run is in a state that does not allow this
│   ├── SignalRejected            the run will not take this message or answer
│   │   └── SignalSuperseded      the question was answered before, or is over
│   ├── RunFailed                 the run failed
│   ├── RunCancelled              the run was cancelled
│   └── RunParked                 the run is parked and needs a person
├── PayloadError                  a value cannot be stored, or did not come back as it went in
│   ├── Unstorable                the value, by its path, has no faithful stored form
│   ├── PayloadTooLarge           larger than `payload_limit`
│   └── Undecodable               stored bytes no longer fit the type in the code
└── JournalError                  about the journal's file
    ├── NotAJournal               the file is something else; it was not touched
    ├── JournalTooNew             written by a newer version of this library
    ├── JournalMismatch           this engine's options do not fit the journal
    ├── JournalDamaged            what is stored is not what was written
    ├── JournalGone               its files were moved, replaced or deleted while it was open
    ├── StorageStalled            the storage did not answer in the stated time
    └── LeaseLost                 another worker drives this run by now
```

`Unloading` stands outside the tree on purpose: it is a `BaseException` that is neither `Exception` nor `CancelledError`.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from datetime import datetime

__all__ = [
    "AmbiguousStep",
    "BodyError",
    "DefinitionError",
    "DuplicateKey",
    "DurableError",
    "EngineClosed",
    "ErrorRecord",
    "InvalidName",
    "JournalDamaged",
    "JournalError",
    "JournalGone",
    "JournalMismatch",
    "JournalTooNew",
    "LeaseLost",
    "NoEngine",
    "NotAJournal",
    "NotDurable",
    "OpenBranches",
    "PayloadError",
    "PayloadTooLarge",
    "ReplayDiverged",
    "RunCancelled",
    "RunConflict",
    "RunError",
    "RunExists",
    "RunFailed",
    "RunParked",
    "SignalRejected",
    "SignalSuperseded",
    "StepFailed",
    "StorageStalled",
    "SuspendedStepConflict",
    "Undecodable",
    "UnknownRun",
    "Unloading",
    "Unstorable",
    "UsageError",
    "WrongLoop",
    "WrongState",
]


class DurableError(Exception):
    """Any error of this library."""


class UsageError(DurableError):
    """The call is wrong; nothing was stored."""


class InvalidName(UsageError, ValueError):
    """An id, a name, a key or a tag is outside the stated rule."""


class NoEngine(UsageError):
    """No engine is open here, or several are and none was named."""


class EngineClosed(UsageError):
    """The engine was closed, or is closing."""


class WrongLoop(UsageError):
    """The engine belongs to another event loop or another process."""


class NotDurable(UsageError):
    """A body asked for something the journal cannot give back: it belongs in a step."""


class DefinitionError(DurableError, TypeError):
    """A decorator was given a function or an option it cannot take."""


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """What the journal keeps of an exception: text and names, bounded, never a pickled object."""

    type: str
    """Module and qualified name of the class, such as `shop.bank.CardDeclined`."""
    message: str
    """`str()` of the exception, cut where it is very long."""
    bases: tuple[str, ...] = ()
    """Names of the class and of every class it derives from, nearest first."""
    traceback: str = ""
    """The formatted frames, cut in the middle where there are many."""
    notes: tuple[str, ...] = ()
    """What `add_note` added."""
    cause: ErrorRecord | None = None
    """The exception it was raised from, or while handling which it was raised."""
    members: tuple[ErrorRecord, ...] = ()
    """The exceptions of an exception group."""
    key: str | None = None
    """The key of the failed step or child run, where this is its error."""

    def is_a(self, error: builtins.type[BaseException]) -> bool:
        """Whether the recorded exception was an instance of `error`, judged by the recorded class names."""
        return f"{error.__module__}.{error.__qualname__}" in self.bases

    def __str__(self) -> str:
        short = self.type.removeprefix("builtins.")
        return f"{short}: {self.message}" if self.message else short


class StepFailed(DurableError):
    """A step raised an error. It has the same fields on the first pass and on every replay.

    Args:
        key: The key of the step in its run.
        record: What the last attempt raised.
        attempts: How many attempts were made.
        reason: Why it was not tried again: `retries_exhausted` or `permanent`.
    """

    def __init__(self, key: str, record: ErrorRecord, attempts: int = 1, reason: str = "") -> None:
        super().__init__(key, record, attempts, reason)
        self.key = key
        self.record = record
        self.attempts = attempts
        self.reason = reason

    @property
    def type(self) -> str:
        """Module and qualified name of the class that was raised."""
        return self.record.type

    @property
    def message(self) -> str:
        """What the raised exception said."""
        return self.record.message

    @property
    def traceback(self) -> str:
        """The formatted frames of the raised exception, bounded."""
        return self.record.traceback

    def is_a(self, error: builtins.type[BaseException]) -> bool:
        """Whether what the step raised was an instance of `error`."""
        return self.record.is_a(error)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StepFailed):
            return NotImplemented
        return self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)

    def __str__(self) -> str:
        tries = "" if self.attempts == 1 else f" after {self.attempts} attempts"
        return f"step {self.key} failed{tries}: {self.record}"


class BodyError(DurableError):
    """The body of a workflow broke a rule of this library."""


class DuplicateKey(BodyError):
    """One explicit key was used twice in a run."""


class OpenBranches(BodyError):
    """The body returned while branches or calls were still open."""


class AmbiguousStep(DurableError):
    """Nobody knows whether an at-most-once step had its effect: a person must decide."""


class ReplayDiverged(DurableError):
    """The code asked for something else than the journal holds."""


class SuspendedStepConflict(ReplayDiverged):
    """A step met the entry of a wait, or a wait the entry of a step."""


class RunError(DurableError):
    """About one run; `run_id` names it."""

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class UnknownRun(RunError, LookupError):
    """No run has this id."""


class RunConflict(RunError):
    """This id is taken by a run of another workflow or with another input."""


class RunExists(RunError):
    """This id is taken, and the caller asked to fail in that case."""


class WrongState(RunError):
    """The run is in a state that does not allow what was asked."""


class SignalRejected(RunError):
    """The run will not take this message or answer; nothing was stored."""


class SignalSuperseded(SignalRejected):
    """The question was answered before, or is over; nothing was stored.

    Args:
        run_id: The run that asked.
        message: What happened.
        at: When it was answered or closed, as an aware UTC datetime.
        by: Who answered it; empty where nobody did, or nobody was named.
    """

    def __init__(self, run_id: str, message: str, *, at: datetime, by: str = "") -> None:
        super().__init__(run_id, message)
        self.at = at
        self.by = by


class _RunStopped(RunError):
    def __init__(
        self,
        run_id: str,
        message: str,
        *,
        reason: str,
        record: ErrorRecord | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(run_id, message)
        self.reason = reason
        """Why: one of the documented reasons, or the words given to `cancel`."""
        self.record = record
        """What ended the run, where an exception did."""
        self.key = key
        """The key of the call that waited for it, where a body did."""


class RunFailed(_RunStopped):
    """The run failed: its body raised."""


class RunCancelled(_RunStopped):
    """The run was cancelled."""


class RunParked(_RunStopped):
    """The run is parked: it will not go on without a person."""


class PayloadError(DurableError, ValueError):
    """A value cannot be stored, or stored bytes cannot be read back."""


class Unstorable(PayloadError):
    """The value at the named path has no faithful stored form."""


class PayloadTooLarge(PayloadError):
    """The encoded value is larger than the engine's `payload_limit`."""


class Undecodable(PayloadError):
    """Stored bytes no longer fit the type that the code asks for."""


class JournalError(DurableError):
    """About the journal's file."""


class NotAJournal(JournalError):
    """The file is not a journal of this library. It was not touched."""


class JournalTooNew(JournalError):
    """The journal was written by a newer version of this library."""


class JournalMismatch(JournalError):
    """The engine's options do not fit this journal."""


class JournalDamaged(JournalError):
    """What is stored is not what was written, or cannot be read at all: `engine.verify()` names what."""


class JournalGone(JournalError):
    """The journal's files were moved, replaced or deleted while it was open. The engine has stopped; no run has failed."""


def again(error: JournalError) -> JournalError:
    """The same error anew: one object that is raised in many places would collect what it passed in all of them."""
    return type(error)(*error.args)


class StorageStalled(JournalError):
    """The storage did not answer within the stated time; the message says whether something was stored. No run has failed."""


class LeaseLost(JournalError):
    """Another worker drives this run by now, so this write was refused and nothing changed."""


class Unloading(BaseException):
    """Raised where a body waits while it is taken out of memory. Let it pass: nothing done meanwhile is recorded."""
