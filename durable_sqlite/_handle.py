"""A handle on one run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._clock import microseconds
from ._codec import digest_of, load_error
from ._context import Host, body, looks_async, not_in_body, outside_runs
from ._ids import check_text
from ._records import HistoryEntry, Kind, MessageInfo, QuestionInfo, RunInfo, State
from ._specs import AnswerQuestion, AwaitRun, CancelRun, PointSpec, SendMessage, SignalSpec, Wish
from ._stops import stop_of
from .errors import ErrorRecord, UsageError

if TYPE_CHECKING:
    from ._signals import Signal, Suspend  # pydantic is imported with them

__all__ = ["DeadLetter", "Run", "message_to", "point_name"]

A = TypeVar("A")
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

    @looks_async
    def result(self, *, timeout: float | timedelta | None = None) -> Coroutine[object, None, R_co]:
        """Wait until the run has ended, and give what its body returned. In a body it is a durable wait.

        Args:
            timeout: How long to wait, in seconds; the run goes on in any case. In a body, use `asyncio.timeout`.

        Raises:
            RunFailed: The body raised; its error is described in `record`.
            RunCancelled: The run was cancelled.
            RunParked: The run needs a person; `reason` says why. A body goes on waiting instead.
            TimeoutError: It has not ended in time.
            UnknownRun: No run has this id.
        """
        here = body()
        if here is None:
            return self._result(timeout)
        if timeout is not None:
            raise UsageError(f"run {here.run_id}: in a body, limit the wait with `async with asyncio.timeout(...)`")
        errand = AwaitRun(self.id)
        return here.wish(Wish(Kind.RUN, self.id, b"", self._decode, errand, label="result"))

    async def _result(self, timeout: float | timedelta | None) -> R_co:
        outside_runs("waiting for a run")
        seconds = None if timeout is None else microseconds(timeout) / 1_000_000
        row = await self._host.stopped(self.id, seconds)
        if row.state is State.COMPLETED:
            where = f"run {self.id}: result"
            return self._decode(self._host.unseal(row.result or b"", where), where)
        record = None
        if row.result is not None:
            record = load_error(self._host.unseal(row.result, f"run {self.id}: error")).record
        raise stop_of(row, record)

    # Looking ---------------------------------------------------------------------------------------------------------

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

    async def messages(self) -> Sequence[MessageInfo]:
        """What was sent to the run and not taken, oldest first; what was set aside because it fits no type included.

        Raises:
            UnknownRun: No run has this id.
        """
        not_in_body("asking about a run")
        return await self._host.messages(self.id)

    async def questions(self) -> Sequence[QuestionInfo]:
        """What the run asks now, oldest first.

        Raises:
            UnknownRun: No run has this id.
        """
        not_in_body("asking about a run")
        return await self._host.questions_of(self.id)

    def watch(self) -> AsyncIterator[RunInfo]:
        """What the run is now, then each change, until it has stopped; also of a run that another process drives.

        Whoever is slow gets the newest: changes in between are passed over.

        Raises:
            UnknownRun: No run has this id.
        """
        not_in_body("watching a run")
        return self._host.watch_run(self.id)

    # Messages and answers --------------------------------------------------------------------------------------------

    @looks_async
    def signal(self, message: Signal, *, dedupe: str | None = None) -> Coroutine[object, None, None]:
        """Send a message; it is stored when this has been awaited, and kept in order until the run takes it.

        In a body it is a durable call, and sent once, crashes included.

        Args:
            message: An instance of a subclass of `Signal`.
            dedupe: A second message to this run with the same value is the same message, and changes nothing.

        Raises:
            SignalRejected: The run has ended.
            UnknownRun: No run has this id.
            Unstorable: The message cannot be stored; the error has the path.
        """
        sent = message_to(self.id, message, dedupe)
        here = body()
        if here is None:
            outside_runs("sending a message")
            return self._host.signal(sent)
        digest = digest_of(self.id, sent.name, _signal_spec(message).shape.digest(message, "message"), dedupe)
        return here.wish(Wish(Kind.ACT, "signal", digest, _nothing, sent))

    @looks_async
    def answer(
        self,
        point: type[Suspend[A]],
        answer: A,
        /,
        *,
        key: str | None = None,
        by: str = "",
        early: bool = False,
    ) -> Coroutine[object, None, None]:
        """Answer a question of the run; the answer is stored when this has been awaited. In a body it is a durable call.

        Args:
            point: The suspend point that asks.
            answer: What it asks for.
            key: Which of its questions, as `questions()` lists them; needed where it has asked more than one.
            by: Who answers; told to whoever answers too late.
            early: Where it has not asked yet, keep the answer for the next question that it asks.

        Raises:
            SignalSuperseded: It was answered before, or the question is closed; `at` and `by` say when and by whom.
            SignalRejected: The run has ended, or has not asked, or has asked several questions and no key is named.
            UnknownRun: No run has this id.
            Unstorable: The answer does not fit what the suspend point asks for.
        """
        spec = _point_spec(point)
        where = f"run {self.id}, {spec.name}: answer"
        check_text("by", by)
        check_text("key", key)
        said = AnswerQuestion(self.id, spec.name, key, spec.answer.dump(answer, where), by, early)
        here = body()
        if here is None:
            outside_runs("answering a question")
            return self._host.answer(said)
        digest = digest_of(self.id, spec.name, spec.answer.digest(answer, where), key)
        return here.wish(Wish(Kind.ACT, "answer", digest, _nothing, said))

    # Control ---------------------------------------------------------------------------------------------------------

    @looks_async
    def cancel(self, *, reason: str = "", by: str = "") -> Coroutine[object, None, None]:
        """Ask the run and its children to end: their bodies are cancelled as by `task.cancel()`, and may clean up with steps.

        Asking again changes nothing. In a body it is a durable call.

        Args:
            reason: Why, for those who look at the run.
            by: Who asks.

        Raises:
            WrongState: The run has ended; the message says how.
            UnknownRun: No run has this id.
        """
        check_text("reason", reason)
        check_text("by", by)
        here = body()
        if here is None:
            outside_runs("cancelling a run")
            return self._host.cancel(self.id, reason, by)
        errand = CancelRun(self.id, reason, by)
        return here.wish(Wish(Kind.ACT, "cancel", digest_of(self.id), _nothing, errand))

    async def terminate(self, *, reason: str = "", by: str = "") -> None:
        """End the run and its children as cancelled, now and without clean-up: for a run that does not let itself be cancelled.

        Args:
            reason: Why, for those who look at the run.
            by: Who asks.

        Raises:
            WrongState: The run is completed or cancelled.
            UnknownRun: No run has this id.
        """
        outside_runs("terminating a run")
        check_text("reason", reason)
        check_text("by", by)
        await self._host.terminate(self.id, reason, by)

    async def pause(self, *, reason: str = "", by: str = "") -> None:
        """Let what is in flight in the run and its children end, and nothing else begin, until `resume`.

        Messages and answers are kept meanwhile, and no timer fires; a deadline stays in force. Asking again changes nothing.

        Args:
            reason: Why, for those who look at the run.
            by: Who asks.

        Raises:
            WrongState: The run has stopped, or was asked to end.
            UnknownRun: No run has this id.
        """
        outside_runs("pausing a run")
        check_text("reason", reason)
        check_text("by", by)
        await self._host.pause(self.id, reason, by)

    async def resume(
        self,
        *,
        accept_changes: bool = False,
        retry: Collection[str] = (),
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word that people type
    ) -> Sequence[str]:
        """Let a paused run go on, or a failed or parked one, with everything that it has recorded.

        A paused run goes on where it stood, and so do its children. Of a failed or parked run, the failed steps that are
        found in its error are tried again with a fresh budget, failed children first; and what the body asked for only after
        it saw them (clean-up, compensations) is forgotten and will be asked for again. Failures that the body caught stay as
        they are.

        Args:
            accept_changes: Accept, for this one run, that the code asks for other arguments than are recorded, or no longer
                makes a call that is: the journal is rewritten to agree. A call that was moved runs again.
            retry: Keys of other steps to be tried again, as `history()` lists them.
            input: A corrected input by parameter, for a run that has not recorded anything yet.

        Returns:
            The keys of the outcomes that were forgotten.

        Raises:
            WrongState: The run is neither failed nor parked nor paused, perhaps because somebody else has just resumed it.
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


def message_to(run_id: str, message: Signal, dedupe: str | None = None) -> SendMessage:
    """A message as it is sent.

    Raises:
        UsageError: It is no instance of a subclass of `Signal`.
        Unstorable: It cannot be stored; the error has the path.
    """
    spec = _signal_spec(message)
    check_text("dedupe", dedupe)
    return SendMessage(run_id, spec.name, spec.shape.dump(message, f"message {spec.name}"), dedupe)


def _signal_spec(message: object) -> SignalSpec:
    spec: object = getattr(type(message), "__durable__", None)
    if not isinstance(spec, SignalSpec):
        raise UsageError(f"{message!r} is no message: define `class Paid(Signal): ...` and send an instance of it")
    return spec


def point_name(point: object) -> str:
    """The stored name of a suspend point.

    Raises:
        UsageError: It is none.
    """
    return _point_spec(point).name


def _point_spec(point: object) -> PointSpec:
    spec: object = getattr(point, "__durable__", None)
    if not isinstance(spec, PointSpec) or not isinstance(point, type):
        raise UsageError(f"{point!r} is no suspend point: name the class, as in `run.answer(Review, Decision(...))`")
    return spec


def _nothing(data: bytes, where: str) -> None:
    """What a call gives that only does something."""
    del data, where


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
