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
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from ._body_loop import BodyTask, Branch
from ._call import Call
from ._clerk import Clerk
from ._context import BodyScope, scope
from ._control import Control
from ._crew import Crew
from ._desk import Desk
from ._errands import Errands, PostOffice
from ._giver import Giver
from ._launcher import Launcher
from ._ledger import Ledger
from ._leftovers import Leftovers
from ._line import Line
from ._mail import Mailbox
from ._records import Claimed, End, Ended, Entry, Hold, Kind, Memory, Reason, Report, Request, RunRow, State, Taken
from ._replay import Divergence, Replay
from ._rest import Rester
from ._specs import WorkflowSpec
from ._surroundings import Surroundings
from ._verdict import Ending, stored_error, verdict
from .errors import DefinitionError, JournalDamaged, JournalError, Undecodable, Unstorable

__all__ = ["Keeper", "Pass"]

logger = logging.getLogger("durable_sqlite")

_SLICE = 1_000  # callbacks of a body after which the host's loop gets its turn


class Keeper(PostOffice, Protocol):
    """Whoever decides which runs are driven."""

    def awaits(self, run_id: str, waiter: Pass) -> None:
        """Let a pass hear of the end of a run."""

    def reported(self, run: Pass) -> None:
        """The body has said something of itself, and that is committed."""

    def progressed(self, run: Pass) -> None:
        """A new outcome was recorded."""

    def rested(self, run: Pass, due: int | None) -> None:
        """The run is suspended, and that is committed; `due` is its nearest deadline."""

    def woke(self, run: Pass) -> None:
        """The run was suspended and is driven again."""

    def ended(self, run: Pass, end: End, how: Ended) -> None:
        """The run has stopped, and that is committed: as its body ended, or as somebody asked who was faster."""

    def goes_on(self, run: Pass) -> None:
        """The run has not ended after all: more has come for it. It is pending, and the pass is over."""

    def left(self, run: Pass, write: asyncio.Future[None]) -> None:
        """The run was given back, since this worker stands down; `write` is done once that is committed."""

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
        if memory.damage is not None:
            memory = Memory(damage=memory.damage)  # what is left of it is not to be relied on
        self.row = claimed.row
        self.over = False
        self._around = around
        self._keeper = keeper
        self._spec = workflow
        self._line = line = Line(self)
        self._control = control = Control(self.row, around.clock)
        self._ledger = Ledger(around.journal, claimed.hold, line.refused)
        self._replay = Replay(self.row.id, memory.entries, accept_changes=self.row.accept_changes)
        mailbox = Mailbox(
            (message for message in memory.messages if message.error is None),
            (question for question in memory.questions if question.answer is not None),
        )
        self._clerk = Clerk(
            self.row.id,
            journal=around.journal,
            ledger=self._ledger,
            mailbox=mailbox,
            vault=around.vault,
            looked=line.wake,
            refused=line.refused,
        )
        self._desk = Desk(
            self.row,
            host=around.host,
            vault=around.vault,
            replay=self._replay,
            memory=memory,
            mailbox=mailbox,
            replaying=not first,
            given_up=line.given_up,
        )
        self._crew = Crew(
            self.row,
            around,
            ledger=self._ledger,
            desk=self._desk,
            memory=memory,
            is_over=line.is_over,
            may_begin=lambda: not (line.is_over() or control.holding_back),
            post=keeper,
            landed=line.drive,
            recorded=line.transacted,
            lost=line.lost,
        )
        self._errands = Errands(
            self.row,
            journal=around.journal,
            ledger=self._ledger,
            post=keeper,
            clock=around.clock,
            vault=around.vault,
            mailbox=mailbox,
            results=self._crew.flight.results,
            landed=line.drive,
            refused=line.refused,
            diverged=line.diverged,
            look=self._clerk.look,
            awaits=line.awaits,
        )
        self._leftovers = Leftovers(self.row, memory)
        self._main = self._begin(memory.damage)
        self._giver = Giver(
            self.row,
            around,
            self._main,
            ledger=self._ledger,
            replay=self._replay,
            desk=self._desk,
            control=self._control,
            crew=self._crew,
            errands=self._errands,
            mailbox=mailbox,
            clerk=self._clerk,
            is_over=line.is_over,
            progressed=line.progressed,
            again=line.drive,
        )
        self._launcher = Launcher(
            around,
            ledger=self._ledger,
            replay=self._replay,
            desk=self._desk,
            giver=self._giver,
            crew=self._crew,
            errands=self._errands,
            mailbox=mailbox,
            leftovers=self._leftovers,
        )
        self._rester = Rester(
            around,
            memory,
            ledger=self._ledger,
            desk=self._desk,
            control=self._control,
            crew=self._crew,
            giver=self._giver,
            mailbox=mailbox,
            clerk=self._clerk,
            line=line,
        )
        self._reported = (self.row.status, self.row.progress)
        self._busy = False
        self._ending = False
        self._closer: BodyTask[None] | None = None

    @property
    def hold(self) -> Hold:
        """The right to write about the run."""
        return self._ledger.hold

    @property
    def ending(self) -> bool:
        """Whether the end of the run is being committed."""
        return self._ending

    @property
    def at_rest(self) -> bool:
        """Whether the run was given back, and the body waits in memory for news."""
        return self._rester.at_rest and not self.over

    @property
    def pumped(self) -> bool:
        """Whether the body is what runs right now."""
        return self._desk.pumped

    def _begin(self, damage: str | None) -> BodyTask[Any] | None:
        if damage is not None:
            self._desk.park(Reason.DAMAGED, JournalDamaged(f"run {self.row.id}: {damage}. Nothing of it was run"))
            return None
        where = f"run {self.row.id}: input"
        try:
            args, kwargs = self._spec.parameters.load(self._around.vault.open(self.row.input, where), where)
        except (Undecodable, DefinitionError) as error:
            self._desk.park(Reason.UNDECODABLE, error)
            return None
        context = contextvars.Context()  # the same empty one on every pass, whoever wakes the run
        context.run(scope.set, BodyScope(self._desk))
        return self._desk.loop.spawn(self._spec.fn(*args, **kwargs), self._desk.loop.root, context)

    # News ------------------------------------------------------------------------------------------------------------

    def wake(self, *, pending: bool = False) -> None:
        """Look whether there is news for the body. Call it from a callback of the host's loop, never inside a task.

        Args:
            pending: The run is pending in the journal, so it is to be driven if it rests.
        """
        if self._rester.suspending:
            self._rester.nudged = True
        elif not self.at_rest:
            self.drive()
        elif pending or self._rester.has_news():
            self._rester.go_on()

    def hear(self, cancel: Request | None, pause: Request | None) -> None:
        """Note what is asked of the run; `wake` lets the body know."""
        self._control.hear(cancel, pause)

    def mailed(self, *, woken: bool) -> None:
        """Look at the mail: some has come. Call it as `wake`.

        Args:
            woken: The run was suspended and waits for that mail, so it is pending in the journal.
        """
        self._clerk.look()
        if woken and self.at_rest and not self._rester.paused:
            self._rester.go_on()

    def taken(self, taken: Taken) -> bool:
        """Go on with what has taken the run, if this is the body for which it did; False if that rests no more.

        Call it as `wake`.
        """
        rests = self.hold.next == taken.hold  # else it has wanted to take the run itself in the meantime
        if rests:
            self._rester.taken(taken)
        return rests

    # Driving ---------------------------------------------------------------------------------------------------------

    def drive(self) -> None:
        """Give, record, begin, until nothing is left to do now. Call it from a callback of the host's loop."""
        rester = self._rester
        resting = rester.suspending or rester.returning or rester.at_rest
        if self.over or self._ending or self._busy or self._giver.expiring or self._crew.transacting or resting:
            return
        self._busy = True
        try:
            self._drive()
        except (KeyboardInterrupt, SystemExit):
            self.lost()
            raise
        except Unstorable:
            logger.exception("what run %s brought cannot be recorded: this worker lets it go", self.row.id)
            self.lost()
        finally:
            self._busy = False

    def _drive(self) -> None:
        desk, giver = self._desk, self._giver
        loop = desk.loop
        while True:
            if loop.busy and not loop.pump(_SLICE):
                self._around.loop.call_soon(self.drive)
                return
            self._ledger.amend(self._replay.accepted())
            if desk.trouble is not None or self._main is None:
                self._park()
                return
            if self._main.done() and not self._closing_generators(self._main):
                self._finish(self._main)
                return
            if not (loop.busy or giver.give_recorded() or giver.give_live()):
                break
            if giver.expiring:
                return
        if not self._control.holding_back and not self._launcher.begin():
            self._park()
            return
        self._tidy_up()
        if giver.asking_late and not desk.fresh():
            giver.asking_late = False
            self._around.loop.call_soon(self.drive)
        elif not self._rester.rest():
            desk.forbid(
                "the body waits for something that nothing in it will bring about; only steps, sleeps, messages, answers, "
                "runs and its own branches can be waited for"
            )
            self._park()

    # What the parts tell ---------------------------------------------------------------------------------------------

    def transacted(self, entry: Entry) -> None:
        """Go on with the outcome of a transaction step, which is committed."""
        self._giver.recorded(entry)
        self.drive()

    def diverged(self, message: str) -> None:
        """Let the run be parked: the body asks for something else than is recorded."""
        self._desk.diverge(Divergence(message))

    def progressed(self) -> None:
        """Tell the keeper that something new was recorded."""
        self._keeper.progressed(self)

    def awaits(self, run_id: str) -> None:
        """Let this pass hear of the end of another run."""
        self._keeper.awaits(run_id, self)

    def given_up(self, call: Call) -> None:
        """The body no longer waits for this call: nor need anybody else do anything for it."""
        if call.step is not None:
            self._crew.flight.give_up(call)
        elif call.kind is not Kind.CHILD or (told := self._control.cancelled) is None or not told.by_deadline:
            self._leftovers.give_up(call)  # else the deadline is the child's as well

    def _tidy_up(self) -> None:
        """Let nobody do anything more for what was given up, and keep what the body says of itself, where that is new."""
        now = self._around.clock.now()
        self._leftovers.tidy_up(self._ledger, now, self._tell)
        if self._ending and self._desk.trouble is not None and self._desk.replaying:
            return  # what it said by then was said long ago
        said = (self._desk.status, self._desk.progress)
        if said != self._reported:
            self._reported = said
            self._ledger.report(Report(*said, now)).add_done_callback(self._report_kept)

    def _tell(self, rows: Sequence[RunRow]) -> None:
        self._keeper.told(*rows)

    def _report_kept(self, report: asyncio.Future[None]) -> None:
        if not report.cancelled() and report.exception() is None:
            self._keeper.reported(self)

    # Rest ------------------------------------------------------------------------------------------------------------

    def rested(self, due: int | None) -> None:
        """Tell the keeper of the rest."""
        self._keeper.rested(self, due)

    def woke(self) -> None:
        """Tell the keeper that the rest is over."""
        self._keeper.woke(self)

    def give_way(self) -> None:
        """Let the body go: nothing of it is in flight, and this worker stands down."""
        self._keeper.left(self, self.leave(interrupted=self.row.interrupted))

    def overtaken(self) -> None:
        """Let the body go: somebody else drives the run."""
        logger.debug("run %s was taken by another pass in the meantime", self.row.id)
        self.drop()

    # End -------------------------------------------------------------------------------------------------------------

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
        told = self._control.cancelled
        self._end(verdict(main, self.row, told, left_open=left_open, returns=returns, vault=self._around.vault))

    def _park(self) -> None:
        assert self._desk.trouble is not None
        reason, error = self._desk.trouble
        self._end(Ending(State.PARKED, reason, stored_error(error, self._around.vault, self.row.id)))

    def _end(self, ending: Ending) -> None:
        self._ending = True
        cut_off = self._crew.unsure and ending.state in (State.FAILED, State.PARKED)
        self._crew.flight.stop()
        self._errands.stop()
        self._tidy_up()
        keys = tuple(key for key in ending.keys if key in self._replay)
        now = self._around.clock.now()
        end = End(ending.state, ending.reason, ending.result, now, keys, self._giver.drained, interrupted=cut_off)
        self._ledger.end(end).add_done_callback(partial(self._ended, end))

    def _ended(self, end: End, write: asyncio.Future[Ended | None]) -> None:
        if self.over or write.cancelled() or write.exception() is not None:
            return
        how = write.result()
        self.unload()
        if how is None:
            self._keeper.goes_on(self)
        else:
            self._keeper.ended(self, end, how)

    # Leaving memory --------------------------------------------------------------------------------------------------

    def refused(self, error: BaseException) -> None:
        """Let the body go: the journal takes nothing more of this pass."""
        if isinstance(error, JournalError):
            logger.warning("run %s: %s; this worker lets the run go", self.row.id, error)
        else:
            logger.error("run %s: a write was refused; this worker lets the run go", self.row.id, exc_info=error)
        self.drop()

    def drop(self) -> None:
        """Give the pass up without an outcome."""
        self.unload()
        self._keeper.dropped(self)

    def lost(self) -> None:
        """The program ends, or somebody cancelled a step: no outcome, no death, and whoever looks next goes on."""
        if not self.over:
            self._ledger.give_back(self._around.clock.now())
            self.drop()

    def stand_down(self) -> None:
        """From now on begin nothing, and leave as soon as nothing is in flight."""
        self._control.standing_down = True
        self._around.loop.call_soon(self.drive)

    def leave(self, *, interrupted: bool) -> asyncio.Future[None]:
        """Take the body out of memory and give the run back in good order; done once that is committed."""
        self.unload()
        return self._ledger.leave(self._around.clock.now(), interrupted=interrupted)

    def unload(self) -> None:
        """Take the body out of memory; nothing that its clean-up code does meanwhile is recorded."""
        if self.over:
            return
        self.over = True
        self._crew.flight.stop()
        self._errands.stop()
        self._giver.stop()
        self._clerk.stop()
        self._rester.stop()
        self._desk.unload()
        self._line.cut()

    def in_flight(self) -> list[str]:
        """The keys of the steps whose attempts have not ended."""
        return self._crew.flight.keys()

    def steps_in_flight(self) -> Collection[asyncio.Task[Any]]:
        """The attempts that have not ended."""
        return self._crew.flight.tasks()


async def _close_all(generators: Iterable[Any]) -> None:
    for generator in generators:
        try:
            await generator.aclose()
        except Exception:
            logger.exception("an async generator that a body left open raised while it was closed")
