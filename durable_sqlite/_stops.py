"""How the end of a run, or a refusal by one, is told: as an error, and as what a body that heard of it keeps."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from ._codec import describe, dump_error, load_error
from ._records import Reason, RunRow, State
from .errors import (
    ErrorRecord,
    RunCancelled,
    RunConflict,
    RunError,
    RunExists,
    RunFailed,
    RunParked,
    SignalRejected,
    SignalSuperseded,
    Undecodable,
    UnknownRun,
    WrongState,
)

__all__ = ["dump_refusal", "dump_stop", "load_refusal", "load_stop", "stop_of"]

_WAYS_OUT: dict[str, str] = {
    Reason.DIVERGED: "It goes on where it stood.",
    Reason.UNDECODABLE: "Mend the type so that it takes what is stored, then call `resume` on the run.",
    Reason.CRASH_LOOP: "Find what kills the process, then call `resume` on the run.",
    Reason.AMBIGUOUS: "",
    Reason.NOT_DURABLE: "Mend the workflow, then call `resume` on the run.",
    Reason.DAMAGED: "Restore a backup; or, where its history shows that what is stored will do, say so with "
    "`engine.verify(accept=[id])`, then call `resume` on the run.",
    Reason.MAX_ENTRIES: "Raise the limit, then call `resume` on the run.",
}

_REFUSALS: dict[str, type[RunError]] = {
    kind.__name__: kind for kind in (RunConflict, RunExists, SignalRejected, SignalSuperseded, UnknownRun, WrongState)
}


def stop_of(row: RunRow, record: ErrorRecord | None) -> RunFailed | RunCancelled | RunParked:
    """The error that tells those who wait for a run how it stopped.

    Args:
        row: A run that is failed, cancelled or parked.
        record: What ended it, where an exception did.
    """
    why = f": {record}" if record is not None else ""
    match row.state:
        case State.CANCELLED:
            said = f": {row.reason}" if row.reason else ""
            by = f" by {row.cancel.by}" if row.cancel is not None and row.cancel.by else ""
            return RunCancelled(row.id, f"run {row.id} was cancelled{by}{said}", reason=row.reason)
        case State.FAILED:
            return RunFailed(row.id, f"run {row.id} failed{why}", reason=row.reason, record=record)
        case _:
            how = _WAYS_OUT.get(row.reason, "Look at its history, mend what is wrong, and call `resume` on it.")
            message = f"run {row.id} is parked ({row.reason}){why}. {how}"
            return RunParked(row.id, message, reason=row.reason, record=record)


def dump_stop(row: RunRow, record: ErrorRecord | None) -> bytes:
    """How a run failed or was cancelled, for the body that waited for it: an encoded error that also names the run."""
    error = stop_of(row, record)
    held = json.loads(dump_error(describe(error), 0, row.reason))
    return _to_json(held | {"run": row.id, "state": row.state.value})


def load_stop(data: bytes, key: str) -> RunFailed | RunCancelled:
    """What `dump_stop` tells, as the body gets it from the call with this key.

    Raises:
        Undecodable: These bytes tell nothing of the kind.
    """
    stored = load_error(data)
    try:
        held = json.loads(data)
        run_id, kind = str(held["run"]), RunCancelled if held["state"] == State.CANCELLED else RunFailed
    except Exception as error:
        raise _damaged(error) from error
    return kind(run_id, stored.record.message, reason=stored.reason, record=stored.record.cause, key=key)


def dump_refusal(error: RunError) -> bytes:
    """A refusal, for the body that was refused."""
    held: dict[str, Any] = {"class": type(error).__name__, "run": error.run_id, "message": str(error)}
    if isinstance(error, SignalSuperseded):
        held |= {"at": error.at.isoformat(), "by": error.by}
    return _to_json(held)


def load_refusal(data: bytes) -> RunError:
    """What `dump_refusal` was given.

    Raises:
        Undecodable: These bytes tell nothing of the kind.
    """
    try:
        held = json.loads(data)
        kind, run_id, message = _REFUSALS[held["class"]], str(held["run"]), str(held["message"])
        if issubclass(kind, SignalSuperseded):
            return kind(run_id, message, at=datetime.fromisoformat(held["at"]), by=str(held["by"]))
        return kind(run_id, message)
    except Exception as error:
        raise _damaged(error) from error


def _to_json(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _damaged(error: Exception) -> Undecodable:
    return Undecodable(f"what is stored does not tell how a run ended or refused ({type(error).__name__}: {error})")
