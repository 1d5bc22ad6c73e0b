"""A handle on one run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from ._clock import microseconds
from ._codec import load_error
from ._context import Host, not_in_body, outside_runs
from ._records import HistoryEntry, Reason, RunInfo, RunRow, State
from .errors import ErrorRecord, RunCancelled, RunFailed, RunParked

__all__ = ["DeadLetter", "Run"]

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
        not_in_body("asking about a run")
        return await self._host.info(self.id)

    async def history(self) -> Sequence[HistoryEntry]:
        """What the run has recorded, in its order.

        Raises:
            UnknownRun: No run has this id.
        """
        not_in_body("asking about a run")
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

    async def resume(
        self,
        *,
        accept_changes: bool = False,
        retry: Collection[str] = (),
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word that people type
    ) -> Sequence[str]:
        """Let a failed or parked run go on, with everything that it has recorded.

        The failed steps that are found in its error are tried again with a fresh budget, and what the body asked for only
        after it saw them (clean-up, compensations) is forgotten and will be asked for again. Failures that the body caught
        stay as they are.

        Args:
            accept_changes: Accept, for this one run, that the code asks for other arguments than are recorded, or no longer
                makes a call that is: the journal is rewritten to agree. A call that was moved runs again.
            retry: Keys of other steps to be tried again, as `history()` lists them.
            input: A corrected input by parameter, for a run that has not recorded anything yet.

        Returns:
            The keys of the outcomes that were forgotten.

        Raises:
            WrongState: The run is neither failed nor parked, perhaps because somebody else has just resumed it.
            UnknownRun: No run has this id.
        """
        outside_runs("resuming a run")
        return await self._host.resume(self.id, accept_changes=accept_changes, retry=tuple(retry), corrected=input)

    async def settle(self, key: str, value: Any = None, *, retry: bool = False, by: str = "") -> None:
        """Decide an at-most-once step of which nobody knows whether it had its effect, and let the run go on.

        Args:
            key: The step's key, as the run's error names it.
            value: What the step would have returned, where it had its effect.
            retry: It had no effect: let it begin again. Then `value` is not looked at.
            by: Who decides; recorded with the decision.

        Raises:
            WrongState: The run is not parked as ambiguous, or nothing of this key is in doubt.
            UnknownRun: No run has this id.
            Unstorable: The value cannot be stored as the step's result.
        """
        outside_runs("settling a run")
        await self._host.settle(self.id, key, value, by, retry=retry)

    async def discard(self) -> None:
        """Mark the run's dead letter as seen to, so that it is listed no longer. The run stays as it is.

        Raises:
            WrongState: The run is neither failed nor parked.
            UnknownRun: No run has this id.
        """
        outside_runs("discarding a dead letter")
        await self._host.discard(self.id)

    def _stopped(self, row: RunRow) -> RunFailed | RunCancelled | RunParked:
        record = None
        if row.result is not None:
            record = load_error(self._host.unseal(row.result, f"run {self.id}: error")).record
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


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A run that failed or is parked and needs a person: what happened, and what can be done."""

    run: Run[Any]
    workflow: str
    state: State
    reason: str
    """One of the documented reasons."""
    keys: tuple[str, ...]
    """Keys of the failed steps that are found in the error: what `redrive` tries again."""
    error: ErrorRecord | None
    """What ended the run, with its causes."""
    attempts: int
    """How many attempts the first of those steps had; 0 where no step is to blame."""
    input: Mapping[str, Any]
    """The run's input by parameter, as plain JSON data."""
    tags: Mapping[str, str]
    ended_at: datetime

    async def redrive(self) -> Sequence[str]:
        """Give the run a fresh budget; see `Run.resume`.

        Raises:
            WrongState: Somebody else was faster.
        """
        return await self.run.resume()

    async def discard(self) -> None:
        """Mark it as seen to, so that it is listed no longer. The run stays as it is."""
        await self.run.discard()


_WAYS_OUT: dict[str, str] = {
    Reason.DIVERGED: "It goes on where it stood.",
    Reason.UNDECODABLE: "Mend the type so that it takes what is stored, then call `resume` on the run.",
    Reason.CRASH_LOOP: "Find what kills the process, then call `resume` on the run.",
    Reason.AMBIGUOUS: "",
    Reason.NOT_DURABLE: "Mend the workflow, then call `resume` on the run.",
    Reason.MAX_ENTRIES: "Raise the limit, then call `resume` on the run.",
}
