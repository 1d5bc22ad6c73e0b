"""The steps of one pass: begins them under their policies, and judges what becomes of their attempts."""

from __future__ import annotations

from collections.abc import Callable

from ._attempt import Doubt, Fault, Result
from ._call import Call
from ._context import StepInfo
from ._desk import Desk
from ._flight import Flight
from ._ids import derived
from ._ledger import Ledger
from ._records import Intent, Memory, Reason, RunRow
from ._specs import StepCall
from ._surroundings import Surroundings
from ._verdict import ambiguous, judge
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
        landed: Is called when there is something to look at.
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
        landed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._row = row
        self._around = around
        self._ledger = ledger
        self._desk = desk
        self._is_over = is_over
        self._doubtful = {intent.key for intent in memory.intents}
        self.recovered = row.interrupted
        """Whether what begins now may have begun in a process that left the run in the middle."""
        self.flight = Flight(
            around.loop,
            around.clock,
            around.runner,
            around.failpoint,
            ready=self._may_act,
            landed=landed,
            lost=lost,
        )
        """The attempts that are under way, and what they have brought."""

    def start(self, call: Call, step: StepCall) -> None:
        """Make the next attempt of a step, or ask its probe."""
        policy = self._policy(step)
        info = StepInfo(
            run_id=self._row.id,
            workflow=self._row.workflow,
            key=call.key,
            attempt=call.attempt,
            max_attempts=policy.max_attempts,
            recovered=self.recovered,
            idempotency_key=derived(self._row.uid, call.key),
        )
        in_doubt = self._in_doubt(call)
        if step.spec.at_most_once and not in_doubt:
            self._ledger.intend(Intent(call.key, call.name, call.digest, call.asked, self._around.clock.now()))
        self.flight.start(call, step, info, policy, probe=in_doubt)

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
        self._desk.put_off(call, outcome.next_at or now)
        return None

    def _policy(self, step: StepCall) -> Retry:
        if step.spec.at_most_once:
            return Retry.none()
        return step.spec.retry or self._around.retry

    def _in_doubt(self, call: Call) -> bool:
        """Whether this is an at-most-once step that may have begun in an earlier pass."""
        return call.key in self._doubtful and call.step is not None and call.step.spec.at_most_once

    async def _may_act(self) -> bool:
        """Wait until all that this run has recorded is committed, since an effect may depend on it; False if it is over."""
        # Refused: the run is driven elsewhere, and this pass may not have heard of it yet.
        return await self._ledger.committed() and not self._is_over()
