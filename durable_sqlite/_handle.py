"""A handle on one run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

from ._clock import microseconds
from ._codec import load_error
from ._context import Host, outside_runs
from ._records import HistoryEntry, Reason, RunInfo, RunRow, State
from .errors import RunCancelled, RunFailed, RunParked

__all__ = ["Run"]

R_co = TypeVar("R_co", covariant=True)


class Run(Generic[R_co]):
    """One durable execution of a workflow. Having a handle says nothing of where the run is driven."""

    def __init__(self, host: Host, run_id: str, decode: Callable[[bytes, str], R_co], *, created: bool = False) -> None:
        self._host = host
        self._decode = decode
        self.id = run_id
        """The run's id, chosen by a person or made by the engine."""
        self.created = created
        """Whether the `start` that gave this handle made the run, rather than attach to one that existed."""

    def __repr__(self) -> str:
        return f"<Run {self.id} in {self._host.title}>"

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self.result().__await__()

    async def result(self, *, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the run has ended, and give what its body returned.

        Args:
            timeout: How long to wait, in seconds; the run goes on in any case.

        Raises:
            RunFailed: The body raised; its error is described in `record`.
            RunCancelled: The run was cancelled.
            RunParked: The run needs a person; `reason` says why.
            TimeoutError: It has not ended in time.
            UnknownRun: No run has this id.
        """
        outside_runs("waiting for a run")
        seconds = None if timeout is None else microseconds(timeout) / 1_000_000
        row = await self._host.stopped(self.id, seconds)
        if row.state is State.COMPLETED:
            where = f"run {self.id}: result"
            return self._decode(self._host.unseal(row.result or b"", where), where)
        raise self._stopped(row)

    async def info(self) -> RunInfo:
        """What the run is now.

        Raises:
            UnknownRun: No run has this id.
        """
        outside_runs("asking about a run")
        return await self._host.info(self.id)

    async def history(self) -> Sequence[HistoryEntry]:
        """What the run has recorded, in its order.

        Raises:
            UnknownRun: No run has this id.
        """
        outside_runs("asking about a run")
        return await self._host.history(self.id)

    async def cancel(self, *, reason: str = "", by: str = "") -> None:
        """Ask the run to end: its body is cancelled as by `task.cancel()`, and may clean up with steps.

        Asking again changes nothing.

        Args:
            reason: Why, for those who look at the run.
            by: Who asks.

        Raises:
            WrongState: The run has ended; the message says how.
            UnknownRun: No run has this id.
        """
        outside_runs("cancelling a run")
        await self._host.cancel(self.id, reason, by)

    async def resume(self, *, accept_changes: bool = False) -> None:
        """Let a parked run go on, with everything that it has recorded.

        Args:
            accept_changes: Accept, for this one run, that the code asks for other arguments than are recorded, or no longer
                makes a call that is: the journal is rewritten to agree. A call that was moved runs again.

        Raises:
            WrongState: The run is not parked.
            UnknownRun: No run has this id.
        """
        outside_runs("resuming a run")
        await self._host.resume(self.id, accept_changes=accept_changes)

    def _stopped(self, row: RunRow) -> RunFailed | RunCancelled | RunParked:
        record = None
        if row.result is not None:
            record, _ = load_error(self._host.unseal(row.result, f"run {self.id}: error"))
        why = f": {record}" if record is not None else ""
        match row.state:
            case State.CANCELLED:
                said = f": {row.reason}" if row.reason else ""
                by = f" by {row.cancel.by}" if row.cancel is not None and row.cancel.by else ""
                return RunCancelled(self.id, f"run {self.id} was cancelled{by}{said}", reason=row.reason)
            case State.FAILED:
                return RunFailed(self.id, f"run {self.id} failed{why}", reason=row.reason, record=record)
            case _:
                how = _WAYS_OUT.get(row.reason, "Look at its history, mend what is wrong, and call `resume` on it.")
                message = f"run {self.id} is parked ({row.reason}){why}. {how}"
                return RunParked(self.id, message, reason=row.reason, record=record)


_WAYS_OUT: dict[str, str] = {
    Reason.DIVERGED: "It goes on where it stood.",
    Reason.UNDECODABLE: "Mend the type so that it takes what is stored, then call `resume` on the run.",
    Reason.CRASH_LOOP: "Find what kills the process, then call `resume` on the run.",
    Reason.NOT_DURABLE: "Mend the workflow, then call `resume` on the run.",
    Reason.MAX_ENTRIES: "Raise the limit, then call `resume` on the run.",
}
