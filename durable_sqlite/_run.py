"""Drives one run's body: what it is given next, what begins, when it rests.

One pass goes from the top of the body. Whenever the body is at rest, the first of these that applies happens, and the body
runs on until it is at rest again:

1. The recorded outcome with the lowest place in the run's order that the body has asked for is given to it.
2. One live event (a step has ended, the run is to be cancelled, a deadline has come) is recorded and given to it.
3. Steps that were called and are not recorded begin.
4. The run is suspended.

Nothing here knows how the journal stores what it is told.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from ._attempt import Result, Runner, read_outcome
from ._body_loop import BodyTask, Branch
from ._call import Call
from ._clock import Alarm, Clock
from ._codec import Vault, describe, dump_error
from ._context import BodyScope, StepInfo, WorkflowSpec, scope
from ._desk import Desk
from ._flight import Flight
from ._ids import derived
from ._records import CANCEL_KEY, CancelRequest, Claimed, Entry, Hold, Kind, Outcome, Reason, State, Suspension, Wait
from ._replay import Replay
from .errors import DurableError, JournalError, NotDurable, OpenBranches, Undecodable
from .journal import Journal

__all__ = ["Keeper", "Pass", "Surroundings"]

logger = logging.getLogger("durable_sqlite")

_SLICE = 1_000  # callbacks of a body after which the host's loop gets its turn


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every pass of one engine shares."""

    journal: Journal
    loop: asyncio.AbstractEventLoop
    clock: Clock
    vault: Vault
    runner: Runner
    max_entries: int
    step_exists: Callable[[str], bool]
    failpoint: Callable[[str], None]


class Keeper(Protocol):
    """Whoever decides which runs are driven."""

    def progressed(self, run: Pass) -> None:
        """A new outcome was recorded."""

    def rested(self, run: Pass, due: int | None) -> None:
        """The run is suspended, and that is committed; `due` is its nearest deadline."""

    def woke(self, run: Pass) -> None:
        """The run was suspended and is driven again."""

    def ended(self, run: Pass) -> None:
        """The run has stopped, and that is committed."""

    def dropped(self, run: Pass) -> None:
        """The pass was given up without an outcome."""


class Pass:
    """One drive of a run's body from the top.

    Args:
        around: What all passes share.
        keeper: Is told of rest, wake-up and end.
        workflow: The run's definition.
        claimed: The run and the right to write about it.
        entries: All that is recorded of it.
        waits: What it waited for when it was suspended last: deadlines that are in force.
        first: No pass came before this one.
    """

    def __init__(
        self,
        around: Surroundings,
        keeper: Keeper,
        workflow: WorkflowSpec,
        claimed: Claimed,
        *,
        entries: Iterable[Entry] = (),
        waits: Iterable[Wait] = (),
        first: bool,
    ) -> None:
        self.row = claimed.row
        self.hold = claimed.hold
        self.at_rest = False
        self.over = False
        self._around = around
        self._keeper = keeper
        self._spec = workflow
        self._recovered = self.row.deaths > 0
        self._replay = Replay(self.row.id, entries, accept_changes=self.row.accept_changes)
        self._flight = Flight(
            around.loop,
            around.clock,
            around.runner,
            around.failpoint,
            ready=self._may_act,
            landed=self.drive,
            lost=self.drop,
        )
        self._desk = Desk(self.row, self._replay, waits, replaying=not first, give_up_step=self._flight.give_up)
        self._alarm: tuple[int, Alarm] | None = None
        self._cancel = self.row.cancel
        self._cancelled = False
        self._cancels_before = 0
        self._busy = False
        self._suspending = False
        self._nudged = False
        self._ending = False
        self._last_write: asyncio.Future[Any] | None = None
        self._closer: BodyTask[None] | None = None
        self._main = self._begin()

    def _begin(self) -> BodyTask[Any] | None:
        where = f"run {self.row.id}: input"
        try:
            args, kwargs = self._spec.parameters.load(self._around.vault.open(self.row.input, where), where)
        except Undecodable as error:
            self._desk.park(Reason.UNDECODABLE, error)
            return None
        context = contextvars.Context()  # the same empty one on every pass, whoever wakes the run
        context.run(scope.set, BodyScope(self._desk))
        return self._desk.loop.spawn(self._spec.fn(*args, **kwargs), self._desk.loop.root, context)

    # Driving ---------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look whether there is news for the body. Call it from a callback of the host's loop, never inside a task."""
        if self._suspending:
            self._nudged = True
        elif not self.at_rest:
            self.drive()
        elif self._has_news():
            self.at_rest = False
            self._write(self._around.journal.reclaim(self.hold, self._around.clock.now()))
            self.hold = Hold(self.hold.run, self.hold.epoch + 1)
            self._keeper.woke(self)
            self.drive()

    def request_cancel(self, request: CancelRequest) -> None:
        """Note that the run is to be cancelled; `wake` delivers it."""
        self._cancel = self._cancel or request

    def drive(self) -> None:
        """Give, record, begin, until nothing is left to do now. Call it from a callback of the host's loop."""
        if self.over or self._ending or self._busy or self._suspending or self.at_rest:
            return
        self._busy = True
        try:
            self._drive()
        except (KeyboardInterrupt, SystemExit):
            self.drop()  # no outcome: the run stays as it is recorded
            raise
        finally:
            self._busy = False

    def _drive(self) -> None:
        while True:
            if not self._desk.loop.pump(_SLICE):
                self._around.loop.call_soon(self.drive)
                return
            self._amend()
            if self._desk.trouble is not None or self._main is None:
                self._park()
                return
            if self._main.done() and not self._closing_generators(self._main):
                self._finish(self._main)
                return
            if not (self._desk.loop.busy or self._give_recorded() or self._give_live()):
                break
        if not self._begin_fresh():
            self._park()
        elif self._flight:
            self._arm()
        elif self._desk.waiting:
            self._suspend()
        else:
            self._desk.forbid(
                "the body waits for something that nothing in it will bring about; only steps, sleeps and its own branches "
                "can be waited for"
            )
            self._park()

    def _give_recorded(self) -> bool:
        entry = self._replay.next(self._desk.is_open)
        if entry is None:
            return False
        self._give(entry)
        return True

    def _give_live(self) -> bool:
        """Record one live event, if there is one, and give it to the body."""
        while self._flight.results:
            call, result = self._flight.results.popleft()
            if self._desk.waits_for(call):  # else it was given up meanwhile, and a late result is nobody's
                self._record(call, result)
                return True
        if self._cancel is not None and not self._cancelled:
            self._record(Call(CANCEL_KEY, Kind.CANCEL, "cancel", since=self._cancel.at), self._nothing())
            return True
        nearest = self._desk.nearest()
        if nearest is not None and nearest[0] <= self._around.clock.now():
            self._record(nearest[1], self._nothing())
            return True
        return False

    def _nothing(self) -> Result:
        return Result(Outcome.VALUE, self._around.vault.seal(b"null", self.row.id))

    def _record(self, call: Call, result: Result) -> None:
        entry = Entry(
            seq=self._replay.seq + 1,
            key=call.key,
            kind=call.kind,
            name=call.name,
            digest=call.digest,
            outcome=result.outcome,
            payload=result.payload,
            asked=call.asked,
            started_at=call.since,
            at=max(self._desk.clock, self._around.clock.now()),
        )
        if entry.seq > self._around.max_entries:
            self._too_many()
            return
        self._replay.append(entry)
        self._write(self._around.journal.record(self.hold, entry))
        self._desk.replaying = False
        self._keeper.progressed(self)
        self._give(entry)

    def _too_many(self) -> bool:
        limit = self._around.max_entries
        error = DurableError(
            f"run {self.row.id}: it has {self._replay.seq} entries, and `max_entries` allows {limit}. A workflow that goes on "
            "for ever should start a new run now and then; else raise `max_entries` and call `resume` on the run."
        )
        self._desk.park(Reason.MAX_ENTRIES, error)
        return False

    def _give(self, entry: Entry) -> None:
        if entry.key == CANCEL_KEY:
            self._deliver_cancel(entry)
            return
        call = self._desk.close(entry.key, entry.at)
        if call.timer is not None:
            self._desk.loop.fire(call.timer)
            return
        assert call.future is not None
        if call.future.done():
            return  # cancelled, and its task has not run since
        if call.step is None:
            call.future.set_result(None)
            return
        where = f"run {self.row.id}, {entry.key}"
        try:
            value, error = read_outcome(self._around.vault, call.step.spec, entry, where)
        except Undecodable as problem:
            self._desk.park(Reason.UNDECODABLE, problem)
            return
        if error is None:
            call.future.set_result(value)
        else:
            call.future.set_exception(error)

    def _deliver_cancel(self, entry: Entry) -> None:
        assert self._main is not None
        self._desk.clock = max(self._desk.clock, entry.at)
        self._cancelled = True
        self._cancels_before = self._main.cancelling()  # 3.11 and 3.12 leave it at 1 after a failed TaskGroup
        self._main.cancel()

    # Steps -----------------------------------------------------------------------------------------------------------

    def _begin_fresh(self) -> bool:
        """Begin the steps that were called and are not recorded; False if the journal says that the code has changed."""
        fresh = self._desk.fresh_steps()
        if not fresh or self._flight.clearing:
            return True
        if self._replay.seq + len(self._flight) + len(fresh) > self._around.max_entries:
            return bool(self._flight) or self._too_many()  # an effect whose outcome may not be recorded must not happen
        problem = self._replay.before_fresh([call.compared() for call in fresh], self._around.step_exists)
        self._amend()
        if problem is not None:
            self._desk.diverge(problem)
            return False
        self._settle_changes()
        self._desk.begun()
        self._desk.replaying = False
        for call in fresh:
            self._start(call)
        self._recovered = False  # what begins after this cannot have begun in a process that died
        return True

    def _settle_changes(self) -> None:
        """The replay is over, and what a person accepted was meant for it alone."""
        if self._replay.settle(self._around.step_exists):
            self._amend()
            self._write(self._around.journal.settle_changes(self.hold))

    def _start(self, call: Call) -> None:
        info = StepInfo(
            run_id=self.row.id,
            workflow=self._spec.name,
            key=call.key,
            attempt=1,
            max_attempts=1,
            recovered=self._recovered,
            idempotency_key=derived(self.row.uid, call.key),
        )
        self._flight.start(call, info)

    async def _may_act(self) -> bool:
        """Wait until all that this run has recorded is committed, since an effect may depend on it; False if it is over."""
        while self._last_write is not None and not self._last_write.done():
            committed = self._around.loop.create_future()
            self._last_write.add_done_callback(partial(_set, committed))
            await committed
        return not self.over

    def _arm(self) -> None:
        """While steps are in flight, deadlines are this pass's own business."""
        nearest = self._desk.nearest()
        if nearest is None or (self._alarm is not None and self._alarm[0] == nearest[0]):
            return
        if self._alarm is not None:
            self._alarm[1].cancel()
        self._alarm = (nearest[0], self._around.clock.call_at(self._around.loop, nearest[0], self._ring))

    def _ring(self) -> None:
        self._alarm = None
        self.drive()

    # Rest and end ----------------------------------------------------------------------------------------------------

    def _suspend(self) -> None:
        self._suspending = True
        self._settle_changes()
        waits = [call.as_wait() for call in self._desk.waiting.values()]
        future = self._around.journal.suspend(self.hold, waits, self._around.clock.now())
        self._write(future)
        future.add_done_callback(self._suspended)

    def _suspended(self, future: asyncio.Future[Suspension]) -> None:
        self._suspending = False
        if self.over or future.cancelled() or future.exception() is not None:
            return
        outcome = future.result()
        if not outcome.suspended:
            self._cancel = self._cancel or outcome.cancel
            self.drive()
            return
        self.at_rest = True
        nearest = self._desk.nearest()
        self._keeper.rested(self, nearest[0] if nearest else None)
        nudged, self._nudged = self._nudged, False
        if nudged:
            self.wake()

    def _has_news(self) -> bool:
        if self._cancel is not None and not self._cancelled:
            return True
        nearest = self._desk.nearest()
        return nearest is not None and nearest[0] <= self._around.clock.now()

    def _closing_generators(self, main: BodyTask[Any]) -> bool:
        """Close what the body left open, in order; whether that is still going on."""
        if self._closer is None:
            left = self._desk.loop.open_generators()
            if not left:
                return False
            self._closer = self._desk.loop.spawn(_close_all(left), Branch("~g"), main.own_context.copy())
        return not self._closer.done()

    def _finish(self, main: BodyTask[Any]) -> None:
        where = f"run {self.row.id}: result"
        for key in self._replay.unused():
            logger.warning("run %s ended without asking for the recorded outcome of %s", self.row.id, key)
        if main.cancelled() and self._cancelled:
            self._end(State.CANCELLED, self._why_cancelled(), None)
        elif (error := self._error_of(main)) is not None:
            self._fail(error)
        elif self._cancelled and main.cancelling() > self._cancels_before:
            self._end(State.CANCELLED, self._why_cancelled(), None)  # the body swallowed the cancellation
        else:
            try:
                result = self._around.vault.seal(self._spec.parameters.returns.dump(main.result(), where), where)
            except DurableError as problem:
                self._fail(problem)
            else:
                self._end(State.COMPLETED, "", result)

    def _error_of(self, main: BodyTask[Any]) -> BaseException | None:
        if main.cancelled():
            return asyncio.CancelledError("the body was cancelled by itself, not by anybody's request")
        error = main.exception()
        if error is not None:
            return _explained(error)
        left = self._desk.left_open(main)
        if left:
            return OpenBranches(
                f"run {self.row.id}: the body returned while {left}. Await each of them, or cancel it and await that."
            )
        return None

    def _why_cancelled(self) -> str:
        return self._cancel.reason if self._cancel is not None else ""

    def _fail(self, error: BaseException) -> None:
        self._end(State.FAILED, Reason.ERROR, self._describe(error))

    def _park(self) -> None:
        assert self._desk.trouble is not None
        reason, error = self._desk.trouble
        self._end(State.PARKED, reason, self._describe(error))

    def _describe(self, error: BaseException) -> bytes:
        return self._around.vault.seal_error(dump_error(describe(error), 1), f"run {self.row.id}: error")

    def _end(self, state: State, reason: str, result: bytes | None) -> None:
        self._ending = True
        self._flight.stop()
        future = self._around.journal.end(self.hold, state, reason, result, self._around.clock.now())
        self._write(future)
        future.add_done_callback(self._ended)

    def _ended(self, future: asyncio.Future[None]) -> None:
        if not self.over and not future.cancelled() and future.exception() is None:
            self.unload()
            self._keeper.ended(self)

    def _amend(self) -> None:
        changes = self._replay.accepted()
        if changes:
            self._write(self._around.journal.amend(self.hold, changes.changed, changes.removed))

    def _write(self, future: asyncio.Future[Any]) -> None:
        self._last_write = future
        future.add_done_callback(self._written)

    def _written(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled() or (error := future.exception()) is None or self.over:
            return
        if isinstance(error, JournalError):
            logger.warning("run %s: %s; this worker lets the run go", self.row.id, error)
        else:
            logger.error("run %s: a write was refused; this worker lets the run go", self.row.id, exc_info=error)
        self.drop()

    # Leaving memory --------------------------------------------------------------------------------------------------

    def drop(self) -> None:
        """Give the pass up without an outcome."""
        if not self.over:
            self.unload()
            self._keeper.dropped(self)

    def unload(self) -> None:
        """Take the body out of memory; nothing that its clean-up code does meanwhile is recorded."""
        if self.over:
            return
        self.over = True
        self.at_rest = False
        self._flight.stop()
        if self._alarm is not None:
            self._alarm[1].cancel()
        self._desk.unload()

    def steps_in_flight(self) -> Collection[asyncio.Task[Any]]:
        """The attempts that have not ended."""
        return self._flight.tasks()


def _set(future: asyncio.Future[None], _: object) -> None:
    if not future.done():
        future.set_result(None)


async def _close_all(generators: Iterable[Any]) -> None:
    for generator in generators:
        try:
            await generator.aclose()
        except Exception:
            logger.exception("an async generator that a body left open raised while it was closed")


def _explained(error: BaseException) -> BaseException:
    """The body's error; where asyncio refused something of another loop, with the reason."""
    if isinstance(error, RuntimeError) and "different" in str(error) and "loop" in str(error):
        refusal = NotDurable(
            "the body awaited something that belongs to the application's event loop (a future, a task, a lock, a queue): "
            "the journal cannot give it back, so this belongs in a step"
        )
        refusal.__cause__ = error
        return refusal
    return error
