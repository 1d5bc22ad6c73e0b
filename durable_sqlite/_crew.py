"""The steps of one pass: begins them under their policies, and judges what becomes of their attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ._attempt import Doubt, Fault, Result, fault_of
from ._call import Call
from ._codec import describe
from ._context import StepInfo
from ._desk import Desk
from ._errands import PostOffice
from ._exact import ExactAttempt
from ._flight import Flight
from ._ledger import Ledger
from ._orders import Orders, Origin
from ._records import Entry, Intent, Memory, Reason, RunRow
from ._specs import StepCall
from ._surroundings import Surroundings
from ._tables import Budget, Undone, Work
from ._verdict import ambiguous, judge
from .journal import Journal
from .retry import Retry

__all__ = ["Crew"]


class Crew:
    """Begins steps and judges attempts.

    Args:
        row: The run.
        around: What all passes share.
        ledger: What the pass writes.
        desk: Hears which steps are to begin again.
        memory: What earlier passes left.
        is_over: Whether the pass is over.
        may_begin: Whether a step may begin now: the pass is not over, and the run is not to be paused.
        post: Hears which runs a transaction started or sent messages to.
        landed: Is called when there is something to look at.
        recorded: Is called with the entry of a transaction step, once that is committed.
        lost: Is called when an attempt ended in a way that is no outcome.
    """

    def __init__(
        self,
        row: RunRow,
        around: Surroundings,
        *,
        ledger: Ledger,
        desk: Desk,
        memory: Memory,
        is_over: Callable[[], bool],
        may_begin: Callable[[], bool],
        post: PostOffice,
        landed: Callable[[], None],
        recorded: Callable[[Entry], None],
        lost: Callable[[], None],
    ) -> None:
        self._row = row
        self._around = around
        self._ledger = ledger
        self._desk = desk
        self._is_over = is_over
        self._may_begin = may_begin
        self._post = post
        self._landed = landed
        self._recorded = recorded
        self._lost = lost
        self.transacting = False
        """Whether a transaction is under way: the next place in the run's order is taken, so nothing else may be recorded."""
        self._doubtful = {intent.key for intent in memory.intents}
        self._intended = frozenset(self._doubtful)
        """At-most-once steps that an earlier pass was about to begin."""
        self.recovered = row.interrupted
        """Whether what begins now may have begun in a process that left the run in the middle."""
        self.flight = Flight(
            around.loop,
            around.clock,
            around.runner,
            around.failpoint,
            ready=partial(_may_act, ledger, around.journal, may_begin, is_over),
            landed=landed,
            held_back=desk.once_more,
            lost=lost,
        )
        """The attempts that are under way, and what they have brought."""

    @property
    def unsure(self) -> bool:
        """Whether something may have begun that is not recorded."""
        return self.recovered or len(self.flight) > 0 or self._desk.cut_off

    def start(self, call: Call, step: StepCall) -> None:
        """Make the next attempt of a step, or ask its probe."""
        policy, info = self._policy(step), self._info(call, step)
        in_doubt = self._in_doubt(call)
        if step.spec.at_most_once and not in_doubt:
            self._ledger.intend(Intent(call.key, call.name, call.digest, call.asked, self._around.clock.now()))
        self.flight.start(call, step, info, policy, probe=in_doubt)

    def transact(self, call: Call, step: StepCall, entry: Entry) -> None:
        """Make the next attempt of a transaction step, whose outcome takes the place of `entry`."""
        self.transacting = True
        origin = Origin(self._ledger.hold.run, self._row.uid, call.key)
        around = self._around
        orders = Orders(around.vault, around.clock, origin.ids, origin)
        attempt = ExactAttempt(step, self._info(call, step), call.context, around.vault, orders)
        what = f"run {self._row.id}, transaction {call.key}"
        work = Work(attempt, Budget(what, (step.spec.timeout or 0) / 1_000_000))
        self._ledger.transact(entry, work).add_done_callback(partial(self._transacted, call, step, attempt))

    def _transacted(
        self, call: Call, step: StepCall, attempt: ExactAttempt, write: asyncio.Future[Entry | Undone]
    ) -> None:
        if write.cancelled() or write.exception() is not None:
            return  # the driver hears of it as of any write
        answer = write.result()
        if isinstance(answer, Entry):
            self.transacting = False
            attempt.orders.tell(self._post.know, self._post.mailed)
            if not self._is_over():
                self._recorded(answer)
        elif not self._is_over():
            if isinstance(answer.error, (KeyboardInterrupt, SystemExit)):
                self._lost()
                raise answer.error
            judging = self._around.loop.create_task(self._fault(answer.error, step, unfit=attempt.unfit))
            judging.add_done_callback(partial(self._failed, call))

    async def _fault(self, error: BaseException, step: StepCall, *, unfit: bool) -> Fault:
        return Fault(error, describe(error), retryable=False) if unfit else await fault_of(error, self._policy(step))

    def _failed(self, call: Call, judging: asyncio.Task[Fault]) -> None:
        self.transacting = False
        if judging.cancelled():  # by somebody outside, such as the end of asyncio.run
            self._lost()
        else:
            self.flight.results.append((call, judging.result()))
            self._landed()

    def _info(self, call: Call, step: StepCall) -> StepInfo:
        return StepInfo(
            run_id=self._row.id,
            workflow=self._row.workflow,
            key=call.key,
            attempt=call.attempt,
            max_attempts=self._policy(step).max_attempts,
            recovered=self.recovered or call.cut_off or call.key in self._intended,
            run_uid=self._row.uid,
            name=call.name,
        )

    def judge(self, call: Call, ended: Fault | Doubt) -> Result | None:
        """The step's outcome, or None: another attempt follows, or the run is to be parked."""
        if isinstance(ended, Fault):
            return self._judge(call, ended)
        if ended is Doubt.NOT_DONE:
            self._doubtful.discard(call.key)
            self._desk.once_more(call)
        else:
            self.is_ambiguous(call)
        return None

    def knows_nothing_of(self, call: Call) -> bool:
        """Whether a fresh call is of an at-most-once step that may have begun, and nobody but a person can tell."""
        return self._in_doubt(call) and call.step is not None and call.step.spec.probe is None

    def is_ambiguous(self, call: Call) -> bool:
        """Let the run be parked for want of knowledge; gives False."""
        self._desk.park(Reason.AMBIGUOUS, ambiguous(self._row.id, call.key))
        return False

    def _judge(self, call: Call, fault: Fault) -> Result | None:
        assert call.step is not None
        around = self._around
        policy, now, chance = self._policy(call.step), around.clock.now(), around.chance.random()
        outcome = judge(call, fault, policy, around.vault, self._row.id, now=now, chance=chance)
        if isinstance(outcome, Result):
            return outcome
        self._ledger.fail(outcome)
        call.attempt += 1
        call.cut_off = False
        self._desk.put_off(call, outcome.next_at or now)
        return None

    def _policy(self, step: StepCall) -> Retry:
        if step.spec.at_most_once:
            return Retry.none()
        return step.spec.retry or self._around.retry

    def _in_doubt(self, call: Call) -> bool:
        """Whether this is an at-most-once step that may have begun in an earlier pass."""
        return call.key in self._doubtful and call.step is not None and call.step.spec.at_most_once


async def _may_act(
    ledger: Ledger, journal: Journal, may_begin: Callable[[], bool], is_over: Callable[[], bool], call: Call
) -> bool:
    """Wait until all that this run has recorded is committed, since an effect may depend on it; False if none may happen."""
    # Refused: the run is driven elsewhere, and this pass may not have heard of it yet.
    if not await ledger.committed():
        return False
    await journal.assured()
    # It is written down that an at-most-once step begins: held back now, it would look as if it might have begun.
    intended = call.step is not None and call.step.spec.at_most_once
    return may_begin() or (intended and not is_over())
