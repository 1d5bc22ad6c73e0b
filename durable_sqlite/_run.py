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
from random import Random
from typing import Any, Protocol

from ._attempt import Doubt, Fault, Result, Runner, read_outcome
from ._body_loop import BodyTask, Branch
from ._call import Call
from ._clock import Alarm, Clock
from ._codec import Vault
from ._context import BodyScope, StepCall, StepInfo, WorkflowSpec, scope
from ._desk import Desk
from ._flight import Flight
from ._ids import derived
from ._records import (
    CANCEL_KEY,
    DEADLINE,
    CancelRequest,
    Claimed,
    End,
    Entry,
    Hold,
    Intent,
    Kind,
    Memory,
    Outcome,
    Reason,
    State,
    Suspension,
)
from ._replay import Replay
from ._verdict import Cancellation, Ending, ambiguous, judge, stored_error, too_many, verdict
from .errors import (
    DefinitionError,
    JournalError,
    Undecodable,
    Unstorable,
)
from .journal import Journal
from .retry import Retry

__all__ = ["Keeper", "Pass", "Surroundings"]

logger = logging.getLogger("durable_sqlite")

_SHORT_BACK_OFF = 1_000_000  # microseconds that a run waits for a step's next attempt without being suspended
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
    retry: Retry
    """For steps that have no policy of their own."""
    chance: Random
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

    def ended(self, run: Pass, state: State) -> None:
        """The run has stopped, and that is committed; `state` is how its body ended."""

    def dropped(self, run: Pass) -> None:
        """The pass was given up without an outcome."""


class Pass:
    """One drive of a run's body from the top.

    Args:
        around: What all passes share.
        keeper: Is told of rest, wake-up and end.
        workflow: The run's definition.
        claimed: The run and the right to write about it.
        memory: All that is recorded of it.
        first: No pass came before this one.
    """

    def __init__(
        self,
        around: Surroundings,
        keeper: Keeper,
        workflow: WorkflowSpec,
        claimed: Claimed,
        *,
        memory: Memory,
        first: bool,
    ) -> None:
        self.row = claimed.row
        self.hold = claimed.hold
        self.at_rest = False
        self.over = False
        self._around = around
        self._keeper = keeper
        self._spec = workflow
        self._recovered = self.row.interrupted
        self._replay = Replay(self.row.id, memory.entries, accept_changes=self.row.accept_changes)
        self._flight = Flight(
            around.loop,
            around.clock,
            around.runner,
            around.failpoint,
            ready=self._may_act,
            landed=self.drive,
            lost=self._lost,
        )
        self._desk = Desk(self.row, self._replay, memory, replaying=not first, give_up_step=self._flight.give_up)
        self._doubtful = {intent.key for intent in memory.intents}
        self._alarm: tuple[int, Alarm] | None = None
        self._cancel = self.row.cancel
        self._deadline = self.row.deadline_at
        self._cancelled: Cancellation | None = None
        self._busy = False
        self._suspending = False
        self._nudged = False
        self._returning = False
        self._ending = False
        self._last_write: asyncio.Future[Any] | None = None
        self._closer: BodyTask[None] | None = None
        self._main = self._begin()

    def _begin(self) -> BodyTask[Any] | None:
        where = f"run {self.row.id}: input"
        try:
            args, kwargs = self._spec.parameters.load(self._around.vault.open(self.row.input, where), where)
        except (Undecodable, DefinitionError) as error:
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
            self._return()

    def request_cancel(self, request: CancelRequest) -> None:
        """Note that the run is to be cancelled; `wake` delivers it."""
        self._cancel = self._cancel or request

    def drive(self) -> None:
        """Give, record, begin, until nothing is left to do now. Call it from a callback of the host's loop."""
        if self.over or self._ending or self._busy or self._suspending or self._returning or self.at_rest:
            return
        self._busy = True
        try:
            self._drive()
        except (KeyboardInterrupt, SystemExit):
            self._lost()
            raise
        except Unstorable:
            logger.exception("what run %s brought cannot be recorded: this worker lets it go", self.row.id)
            self._lost()
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
        elif self._flight or self._soon():
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
            call, ended = self._flight.results.popleft()
            if not self._desk.waits_for(call):
                continue  # it was given up meanwhile, and a late result is nobody's
            result = ended if isinstance(ended, Result) else self._judge_or_ask(call, ended)
            if result is not None:
                self._record(call, result)
                return True
            if self._desk.trouble is not None:
                return True
        if not self._cancelled and (cancel := self._call_to_end()) is not None:
            self._record(cancel, self._nothing())
            return True
        while (nearest := self._desk.nearest()) is not None and nearest[0] <= self._around.clock.now():
            if nearest[1].kind is not Kind.STEP:
                self._record(nearest[1], self._nothing())
                return True
            self._desk.again(nearest[1])
        return False

    def _judge_or_ask(self, call: Call, ended: Fault | Doubt) -> Result | None:
        if isinstance(ended, Fault):
            return self._judge(call, ended)
        if ended is Doubt.NOT_DONE:
            self._doubtful.discard(call.key)
            self._desk.once_more(call)
        else:
            self._ambiguous(call)
        return None

    def _ambiguous(self, call: Call) -> bool:
        self._desk.park(Reason.AMBIGUOUS, ambiguous(self.row.id, call.key))
        return False

    def _judge(self, call: Call, fault: Fault) -> Result | None:
        """What a failed attempt comes to: the step's outcome, or None where another attempt follows."""
        assert call.step is not None
        around = self._around
        policy, now, chance = self._policy(call.step), around.clock.now(), around.chance.random()
        outcome = judge(call, fault, policy, around.vault, self.row.id, now=now, chance=chance)
        if isinstance(outcome, Result):
            return outcome
        self._write(around.journal.fail(self.hold, outcome))
        self._keeper.progressed(self)
        self._desk.replaying = False
        call.attempt += 1
        self._desk.put_off(call, outcome.next_at or now)
        return None

    def _policy(self, step: StepCall) -> Retry:
        if step.spec.at_most_once:
            return Retry.none()
        return step.spec.retry or self._around.retry

    def _call_to_end(self) -> Call | None:
        """The cancellation that is to be given to the body now: at somebody's request, or because its time is over."""
        asked = self._replay.given
        if self._cancel is not None:
            return Call(CANCEL_KEY, Kind.CANCEL, "cancel", since=self._cancel.at, asked=asked)
        if self._deadline is not None and self._deadline <= self._around.clock.now():
            return Call(CANCEL_KEY, Kind.CANCEL, DEADLINE, since=self._deadline, asked=asked)
        return None

    def _next_due(self) -> int | None:
        """When the body is due by itself: its nearest wait is over, a step is tried again, or its time is over."""
        nearest = self._desk.nearest()
        times = (nearest[0] if nearest else None, None if self._cancelled else self._deadline)
        return min((time for time in times if time is not None), default=None)

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
            attempts=call.attempt,
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
        self._desk.park(Reason.MAX_ENTRIES, too_many(self.row.id, self._replay.seq, self._around.max_entries))
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
        except (Undecodable, DefinitionError) as problem:
            self._desk.park(Reason.UNDECODABLE, problem)
            return
        if error is None:
            call.future.set_result(value)
        else:
            call.future.set_exception(error)

    def _deliver_cancel(self, entry: Entry) -> None:
        assert self._main is not None
        self._desk.clock = max(self._desk.clock, entry.at)
        reason = self._cancel.reason if self._cancel is not None else ""
        self._cancelled = Cancellation(entry.name == DEADLINE, reason, self._main.cancelling())
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
        for call in fresh:
            if self._in_doubt(call) and call.step is not None and call.step.spec.probe is None:
                return bool(self._flight) or self._ambiguous(call)
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

    def _in_doubt(self, call: Call) -> bool:
        """Whether this is an at-most-once step that may have begun in an earlier pass."""
        return call.key in self._doubtful and call.step is not None and call.step.spec.at_most_once

    def _start(self, call: Call) -> None:
        assert call.step is not None
        policy = self._policy(call.step)
        info = StepInfo(
            run_id=self.row.id,
            workflow=self._spec.name,
            key=call.key,
            attempt=call.attempt,
            max_attempts=policy.max_attempts,
            recovered=self._recovered,
            idempotency_key=derived(self.row.uid, call.key),
        )
        in_doubt = self._in_doubt(call)
        if call.step.spec.at_most_once and not in_doubt:
            intent = Intent(call.key, call.name, call.digest, call.asked, self._around.clock.now())
            self._write(self._around.journal.intend(self.hold, intent))
        self._flight.start(call, call.step, info, policy, probe=in_doubt)

    async def _may_act(self) -> bool:
        """Wait until all that this run has recorded is committed, since an effect may depend on it; False if it is over."""
        while self._last_write is not None and not self._last_write.done():
            committed = self._around.loop.create_future()
            self._last_write.add_done_callback(partial(_set, committed))
            await committed
        write = self._last_write  # refused: the run is driven elsewhere, and this pass may not have heard of it yet
        return not self.over and (write is None or (not write.cancelled() and write.exception() is None))

    def _soon(self) -> bool:
        """Whether a step is tried again so soon that suspending the run would cost more than waiting."""
        nearest = self._desk.nearest()
        return (
            nearest is not None
            and nearest[1].kind is Kind.STEP
            and nearest[0] - self._around.clock.now() <= _SHORT_BACK_OFF
        )

    def _arm(self) -> None:
        """While steps are in flight, deadlines are this pass's own business."""
        due = self._next_due()
        if due is None or (self._alarm is not None and self._alarm[0] == due):
            return
        if self._alarm is not None:
            self._alarm[1].cancel()
        self._alarm = (due, self._around.clock.call_at(self._around.loop, due, self._ring))

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
        nudged, self._nudged = self._nudged, False
        if nudged and self._has_news():
            self._return()  # before the keeper hears of the rest, and may unload what is to go on
            return
        self._keeper.rested(self, self._next_due())

    def _return(self) -> None:
        """Take the run again, and go on once that is committed.

        Not earlier: a claim of this very worker may have taken the run just before, for another pass. That pass has the same
        owner and epoch as this one would have, so the journal could not tell their writes apart.
        """
        self.at_rest = False
        self._returning = True
        future = self._around.journal.reclaim(self.hold, self._around.clock.now())
        self.hold = Hold(self.hold.run, self.hold.epoch + 1)
        self._write(future)
        future.add_done_callback(self._returned)
        self._keeper.woke(self)

    def _returned(self, future: asyncio.Future[None]) -> None:
        self._returning = False
        if not future.cancelled() and future.exception() is None:
            self.drive()

    def _has_news(self) -> bool:
        if self._cancel is not None and not self._cancelled:
            return True
        due = self._next_due()
        return due is not None and due <= self._around.clock.now()

    def _closing_generators(self, main: BodyTask[Any]) -> bool:
        """Close what the body left open, in order; whether that is still going on."""
        if self._closer is None:
            left = self._desk.loop.open_generators()
            if not left:
                return False
            self._closer = self._desk.loop.spawn(_close_all(left), Branch("~g"), main.own_context.copy())
        return not self._closer.done()

    def _finish(self, main: BodyTask[Any]) -> None:
        for key in self._replay.unused():
            logger.warning("run %s ended without asking for the recorded outcome of %s", self.row.id, key)
        left_open = "" if main.cancelled() else self._desk.left_open(main)
        returns = self._spec.parameters.returns
        ending = verdict(
            main, self.row, self._cancelled, left_open=left_open, returns=returns, vault=self._around.vault
        )
        self._end(ending)

    def _park(self) -> None:
        assert self._desk.trouble is not None
        reason, error = self._desk.trouble
        self._end(Ending(State.PARKED, reason, stored_error(error, self._around.vault, self.row.id)))

    def _end(self, ending: Ending) -> None:
        self._ending = True
        self._flight.stop()
        keys = tuple(key for key in ending.keys if key in self._replay)
        end = End(ending.state, ending.reason, ending.result, self._around.clock.now(), keys)
        future = self._around.journal.end(self.hold, end)
        self._write(future)
        future.add_done_callback(partial(self._ended, ending.state))

    def _ended(self, state: State, future: asyncio.Future[None]) -> None:
        if not self.over and not future.cancelled() and future.exception() is None:
            self.unload()
            self._keeper.ended(self, state)

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
        self.unload()
        self._keeper.dropped(self)

    def _lost(self) -> None:
        """The program ends, or somebody cancelled a step: no outcome, no death, and whoever looks next goes on."""
        if not self.over:
            self._around.journal.give_back(self.hold, self._around.clock.now()).add_done_callback(_heard)
            self.drop()

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


def _heard(future: asyncio.Future[None]) -> None:
    future.exception()  # refused: then it is somebody else's run by now


def _set(future: asyncio.Future[None], _: object) -> None:
    if not future.done():
        future.set_result(None)


async def _close_all(generators: Iterable[Any]) -> None:
    for generator in generators:
        try:
            await generator.aclose()
        except Exception:
            logger.exception("an async generator that a body left open raised while it was closed")
