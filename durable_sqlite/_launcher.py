"""Begins what a body has called and what is not recorded: steps, transactions, errands."""

from __future__ import annotations

from ._attempt import Result
from ._call import Call
from ._crew import Crew
from ._desk import Desk
from ._errands import Errands
from ._giver import Giver
from ._ledger import Ledger
from ._leftovers import Leftovers
from ._mail import Mailbox
from ._records import Kind, Outcome
from ._replay import Replay
from ._specs import AskQuestion
from ._surroundings import Surroundings

__all__ = ["Launcher"]


class Launcher:
    """Begins the fresh calls of one pass.

    Args:
        around: What all passes share.
        ledger: Hears which changes of the code a person had accepted.
        replay: Says whether the code has changed.
        desk: What the body has called.
        giver: Says what place an outcome will have.
        crew: Makes the attempts of steps.
        errands: Runs errands.
        mailbox: Knows which child runs are waited for.
        leftovers: Remembers what was asked of others.
    """

    __slots__ = (
        "_around",
        "_crew",
        "_desk",
        "_errands",
        "_giver",
        "_ledger",
        "_leftovers",
        "_mailbox",
        "_replay",
    )

    def __init__(
        self,
        around: Surroundings,
        *,
        ledger: Ledger,
        replay: Replay,
        desk: Desk,
        giver: Giver,
        crew: Crew,
        errands: Errands,
        mailbox: Mailbox,
        leftovers: Leftovers,
    ) -> None:
        self._around = around
        self._ledger = ledger
        self._replay = replay
        self._desk = desk
        self._giver = giver
        self._crew = crew
        self._errands = errands
        self._mailbox = mailbox
        self._leftovers = leftovers

    def begin(self) -> bool:
        """Begin what was called and is not recorded; False if the run is to be parked, as where the code has changed."""
        fresh = self._desk.fresh()
        crew = self._crew
        if not fresh or crew.flight.clearing:
            return True
        under_way = len(crew.flight) + len(self._errands) + self._mailbox.children
        if self._replay.seq + under_way + len(fresh) > self._around.max_entries:
            # An effect whose outcome may not be recorded must not happen.
            return bool(under_way) or self._giver.too_many()
        problem = self._replay.before_fresh(fresh, self._around.step_exists)
        self._ledger.amend(self._replay.accepted())
        if problem is not None:
            self._desk.diverge(problem)
            return False
        doubtful = next((call for call in fresh if crew.knows_nothing_of(call)), None)
        if doubtful is not None:
            return bool(under_way) or crew.is_ambiguous(doubtful)
        self._giver.settle_changes()
        # Transactions one by one, and last: each takes the next place in the order.
        exact = [call for call in fresh if call.kind is Kind.TRANSACTION]
        others = [call for call in fresh if call.kind is not Kind.TRANSACTION]
        if crew.recovered:
            self._desk.cut_all_off()
        self._desk.begun(left=exact[1:])
        self._desk.replaying = False
        for call in others + exact[:1]:
            self._begin(call)
        crew.recovered = False  # what begins after this cannot have begun in a process that died
        return True

    def _begin(self, call: Call) -> None:
        if call.step is not None:
            if call.kind is Kind.TRANSACTION:
                call.since = self._around.clock.now()
                call.began = call.began or call.since
                self._crew.transact(call, call.step, self._giver.entry(call, Result(Outcome.VALUE, b"")))
            else:
                self._crew.start(call, call.step)
            return
        assert call.wish is not None
        assert call.wish.errand is not None  # a mere wait has nothing to begin, and is never fresh
        self._leftovers.begun(call)
        match call.wish.errand:
            case AskQuestion() as question:
                self._errands.ask(call, question)
            case errand:
                self._errands.begin(call, errand)
