"""Drives runs in this process: what starts, what is woken, what is given back, and who hears of an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._claims import Claims
from ._records import Claimed, End, Ended, Hold, Memory, News, RunRow, Started, State, Taken
from ._residents import Residents
from ._run import Pass
from ._specs import WorkflowSpec
from ._stats import BodyStats
from ._surroundings import Surroundings

__all__ = ["Worker", "WorkerOptions"]

_NEVER = 2**62  # no change of a run has this number
_AT_ONCE = 10  # bodies loaded in one turn of the loop
_SUSPECT = 2  # deaths in a row after which a run is driven beside no other of its kind
_CLOSE_GRACE = 5.0  # seconds that cancelled steps may take to go when the engine is closed


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How many bodies stay in memory, and for how long."""

    max_resident: int
    unload_after: int
    """Microseconds for which a suspended run's body stays in memory."""
    only: tuple[str, ...] | None = None
    """The ids of the runs that are driven, with what their bodies start; None: all."""
    driven: set[str] | None = None
    """Takes the id of each run that is driven, where somebody wants to know: it grows with them."""


class Worker:
    """Drives the runs that it holds. All its methods are called on the engine's loop.

    Args:
        around: What all passes share.
        options: What stays in memory.
        changed: Is told the id of each run that has changed here, or whose body has left memory.
        completed: Is given each run that has completed here.
        new_letter: Is told the id of each run that has failed or was parked here.
    """

    def __init__(
        self,
        around: Surroundings,
        options: WorkerOptions,
        changed: Callable[[str], None],
        completed: Callable[[RunRow], None],
        new_letter: Callable[[str], None],
    ) -> None:
        self._around = around
        self._options = options
        self._changed = changed
        self._completed = completed
        self._new_letter = new_letter
        self._only = None if options.only is None else set(options.only)
        self._workflows: dict[str, WorkflowSpec] = {}
        self._residents = Residents(
            around, most=options.max_resident, unload_after=options.unload_after, unload=self._unload
        )
        self._claims = Claims(around, self._workflows.keys(), self._only, self._residents, self)
        self._suspect: Pass | None = None
        self._unheard: dict[str, RunRow | None] = {}
        """What came while runs were being claimed: a run may be claimed without it and not be loaded yet."""
        self._awaited: dict[str, list[Pass]] = {}
        """Who waits for the end of a run, by its id."""
        self._awaits_of: dict[Pass, set[str]] = {}
        self._news: dict[int, News] = {}
        """What other processes ask of runs that were claimed and are not loaded yet."""
        self._quiet: list[asyncio.Future[None]] = []
        self._heard = 0
        """The last change of a run that was looked at for what other processes have done."""
        self.closed = False
        self.away = False
        """Whether its lease is over, and it has not begun anew yet."""
        self.standing_down = False
        self._cut: list[Pass] | None = None
        """Once nothing is waited for any more: what was in flight then, and is still to be given back."""
        self._leaving: set[asyncio.Future[None]] = set()
        """What is given back and not committed yet."""

    # Workflows -------------------------------------------------------------------------------------------------------

    def know(self, workflow: WorkflowSpec) -> None:
        """Make a workflow known; runs of it that wait are claimed. The latest definition of a name is the one in force."""
        known = self._workflows.get(workflow.name)
        self._workflows[workflow.name] = workflow
        if known is None:
            self.look()

    def knows(self, name: str) -> WorkflowSpec | None:
        """The workflow of this name, if this process has it."""
        return self._workflows.get(name)

    def known(self) -> list[str]:
        """The names of the workflows that this process has."""
        return list(self._workflows)

    # What happens ----------------------------------------------------------------------------------------------------

    def started(self, started: Started) -> None:
        """Drive a run that was just created and is held from its first moment on; look for one that is not."""
        if self._only is not None:
            self._only.add(started.row.id)
        if started.hold is None:
            self.look()
        elif self.standing_down:
            self._give_back(started.hold, started.row)
        elif not (self.closed or self.away):  # else it is given back with all the others
            workflow = self._workflows[started.row.workflow]
            claimed = Claimed(started.row, started.hold)
            self._load(Pass(self._around, self, workflow, claimed, memory=Memory(), first=True))

    def has(self, run_id: str) -> bool:
        """Whether the body of this run is in memory here: then this worker is the first to know of its end."""
        return run_id in self._residents.by_id

    def reserve(self) -> bool:
        """Keep room for the body of a run that is being started, if there is some; `release` gives it back."""
        return not self.standing_down and self._residents.reserve()

    def release(self) -> None:
        """The start is answered: its body takes the room that was kept, if it has come."""
        self._residents.release()
        if self._claims.wanted:
            self.look()

    def told(self, *rows: RunRow) -> None:
        """These runs were asked to end or to pause, or go on, or have ended without their bodies."""
        absent = False
        for row in rows:
            if self._claims.under_way is not None:
                self._unheard[row.id] = row
            run = self._residents.by_id.get(row.id)
            if row.state.stopped:
                self._stopped_elsewhere(row, run)
            elif run is None:
                absent = True
            else:
                run.hear(row.cancel, row.pause)
                self._around.loop.call_soon(self._wake, run, row.state is State.PENDING)
            self._changed(row.id)
        if absent:
            self.look()

    def _stopped_elsewhere(self, row: RunRow, run: Pass | None) -> None:
        if run is not None and run.hold.run == row.no:
            self._unload(run)
        self._tell_of_end(row.id)
        self.look()  # whoever waited for it is pending now

    def at_rest(self, run_id: str) -> Hold | None:
        """The hold of this run's body that rests here: who sends something to it may take the run at once with that.

        `mailed` is to be told what came of it. None where there is no such body, or nothing is to be taken up here.
        """
        run = self._residents.by_id.get(run_id)
        if run is None or not run.at_rest or self.closed or self.away or self.standing_down:
            return None
        return run.hold

    def mailed(self, row: RunRow, taken: Taken | None = None) -> None:
        """A message or an answer has come for this run, which was taken with it if its body rested here.

        Call it from a callback of the loop, never inside a task: where the run was taken, its body goes on in here.
        """
        run = self._residents.by_id.get(row.id)
        if taken is not None:
            if run is None or not run.taken(taken):
                # Its body has left memory meanwhile, or is about to learn that it cannot go on as it wanted to.
                self._give_back(taken.hold, row).add_done_callback(lambda _: self.look())
                self.look()  # at once as well: until then it is not quiet here
            return
        if self._claims.under_way is not None:
            self._unheard.setdefault(row.id, None)
        if run is not None:
            self._around.loop.call_soon(self._deliver, run, row.state is State.PENDING)
        elif row.state is State.PENDING:
            self.look()

    async def attend(self) -> None:
        """From now on, hear of runs that other processes stop."""
        self._heard, _ = await self._around.journal.stops(_NEVER)

    async def hear_news(self) -> bool:
        """Another process may have written: look for what it means for the runs that are driven here; whether it means any."""
        journal = self._around.journal
        self._heard, stopped = await journal.stops(self._heard)
        gone = [one for no in stopped if (one := self._residents.passes.get(no)) is not None and not one.ending]
        for one in gone:
            self._unload(one)
            self._tell_of_end(one.row.id)
        ready = await self._claims.is_there_anything()
        if ready:
            self.look()
        else:
            # A run may have been suspended there until some time, and nobody left to ring.
            await self._claims.note_next_due()
        all_news = await journal.news()
        for news in all_news:
            run = self._residents.passes.get(news.run)
            if run is None and self._claims.under_way is not None:
                self._news[news.run] = news
            if run is not None and not run.over:
                run.hear(news.cancel, news.pause)
                self._around.loop.call_soon(self._deliver, run, False)  # noqa: FBT003 - it is driven, so not suspended
        for run_id, waiters in list(self._awaited.items()):
            for waiter in waiters if run_id not in self._residents.by_id else ():
                if not (waiter.over or waiter.at_rest):  # what rests and is awaited is pending, and claimed
                    self._around.loop.call_soon(self._deliver, waiter, False)  # noqa: FBT003 - likewise
        return bool(gone or ready or all_news)

    def awaits(self, run_id: str, waiter: Pass) -> None:
        """Let a pass hear of the end of a run."""
        self._awaited.setdefault(run_id, []).append(waiter)
        self._awaits_of.setdefault(waiter, set()).add(run_id)

    def _tell_of_end(self, run_id: str) -> int:
        """Let those who wait for a run look at their mail; how many of them rest in memory."""
        waiters = [waiter for waiter in self._awaited.pop(run_id, ()) if not waiter.over]
        for waiter in waiters:
            self._around.loop.call_soon(self._deliver, waiter, waiter.at_rest)
        return sum(waiter.at_rest for waiter in waiters)

    def _deliver(self, run: Pass, woken: bool) -> None:  # noqa: FBT001 - a callback takes no keywords
        if run.over:
            self.look()  # it left memory meanwhile, to make room
        else:
            run.mailed(woken=woken)

    def _wake(self, run: Pass, pending: bool) -> None:  # noqa: FBT001 - a callback takes no keywords
        if run.over:
            self.look()  # it left memory meanwhile, to make room
        else:
            run.wake(pending=pending)

    def look(self) -> None:
        """Look for runs to drive, now."""
        self._claims.look()

    async def quiet(self) -> None:
        """Wait until nothing is left to drive now."""
        while not self._is_quiet:
            waiter = self._around.loop.create_future()
            self._quiet.append(waiter)
            await waiter

    async def next_due(self) -> int | None:
        """When there is something to drive next that comes by itself: now, where something is ready; None: never."""
        if await self._claims.is_there_anything():
            return self._around.clock.now()
        return await self._claims.next_due()

    def pumped(self) -> str | None:
        """The id of the run whose body runs right now. May be asked from another thread, while this one is held up."""
        return next((run.row.id for run in list(self._residents.passes.values()) if run.pumped), None)

    def census(self) -> BodyStats:
        """What is in memory."""
        steps = sum(len(run.steps_in_flight()) for run in self._residents.passes.values())
        return BodyStats(len(self._residents.passes), len(self._residents.idle), steps)

    @property
    def _is_quiet(self) -> bool:
        if self.closed or self._cut is not None:
            return True
        return not (
            self.away or self._claims.under_way is not None or len(self._residents.passes) > len(self._residents.idle)
        )

    # What passes say -------------------------------------------------------------------------------------------------

    def progressed(self, run: Pass) -> None:
        """A run that was suspected of killing processes has done something else."""
        if run is self._suspect:
            self._suspect = None
            self.look()

    def rested(self, run: Pass, due: int | None) -> None:
        """Keep the body for a while, and remember when it is due."""
        self.progressed(run)
        self._changed(run.row.id)
        if due is not None:
            self._claims.ring_at(due)
        self._residents.rested(run, due, keep=not self.standing_down)
        if self._claims.wanted:
            self.look()  # a claim was put off for want of room, which a body at rest makes
        self._settle()

    def woke(self, run: Pass) -> None:
        """The body is at work again."""
        self._changed(run.row.id)
        self._residents.woke(run)

    def ended(self, run: Pass, end: End, how: Ended) -> None:
        """Forget the body; tell of a dead letter, and tell those who waited."""
        # Who waits hears of it before `quiet` does, which may find nothing left to drive once the body is forgotten.
        told = 0 if how.state is State.PARKED else self._tell_of_end(run.row.id)
        if how.state is State.COMPLETED:
            self._completed(replace(run.row, state=how.state, result=end.result, updated_at=end.at, ended_at=end.at))
        self._forget(run)
        if how.state in (State.FAILED, State.PARKED):
            self._new_letter(run.row.id)
        if how.state is not State.PARKED and how.woken > told:
            self.look()  # some of them are not in memory here

    def reported(self, run: Pass) -> None:
        """Tell those who watch."""
        self._changed(run.row.id)

    def left(self, run: Pass, write: asyncio.Future[None]) -> None:
        """Forget the body; its run is given back once that is committed."""
        self._forget(run)
        self._keep_leaving(write)

    def dropped(self, run: Pass) -> None:
        """Forget the body."""
        self._forget(run)

    def goes_on(self, run: Pass) -> None:
        """Forget the body, and take the run again."""
        self._forget(run)
        self.look()

    # Losing the lease ------------------------------------------------------------------------------------------------

    async def step_back(self) -> None:
        """Drop every body and every step in flight, and take nothing up until `come_back`: others may drive those runs."""
        self.away = True
        steps = self._drop_all()
        await self._claims.over()
        self._drop_all()
        steps = [step for step in steps if not step.done()]
        if steps:
            await asyncio.wait(steps, timeout=_CLOSE_GRACE)

    def come_back(self) -> None:
        """This worker has begun anew."""
        self.away = False
        self.look()

    # Standing down ---------------------------------------------------------------------------------------------------

    def stand_down(self) -> None:
        """From now on claim nothing, begin nothing, and give each run back as soon as nothing of it is in flight."""
        if self.standing_down:
            return
        self.standing_down, self._claims.wanted = True, False
        self._around.runner.hold_back()
        for run in list(self._residents.passes.values()):
            if run.at_rest:
                self._unload(run)
            else:
                run.stand_down()

    def in_flight(self) -> list[tuple[str, str]]:
        """The steps that have not ended: the ids of their runs, and their keys."""
        return [(run.row.id, key) for run in self._residents.passes.values() for key in run.in_flight()]

    def cut(self) -> list[asyncio.Task[Any]]:
        """Unload what has not left yet, and cancel its steps, which are given; `give_back` has to follow."""
        self._cut = self._cut or []
        steps: list[asyncio.Task[Any]] = []
        for run in list(self._residents.passes.values()):
            steps.extend(run.steps_in_flight())
            self._cut.append(run)
            self._unload(run)
        self._settle()
        return steps

    def give_back(self) -> Collection[asyncio.Future[None]]:
        """Give back what was cut off; all that is given back and not committed yet."""
        cut = self._cut or []
        while cut:
            self._keep_leaving(cut.pop().leave(interrupted=True))
        return set(self._leaving)

    def _give_back(self, hold: Hold, row: RunRow) -> asyncio.Future[None]:
        """Give back a run whose body is not in memory."""
        journal, now = self._around.journal, self._around.clock.now()
        write = journal.leave(hold, now, interrupted=row.interrupted)
        write.add_done_callback(_whatever_came_of_it)
        self._keep_leaving(write)
        return write

    def _keep_leaving(self, write: asyncio.Future[None]) -> None:
        self._leaving.add(write)
        write.add_done_callback(self._leaving.discard)

    # Closing ---------------------------------------------------------------------------------------------------------

    async def close(self, left: Sequence[asyncio.Task[Any]] = ()) -> None:
        """Unload every body and cancel every step in flight; nothing of that is an outcome.

        Args:
            left: Steps that were cancelled before, to be waited for as well.
        """
        steps = [*self.abandon(), *left]
        await self._claims.over()
        steps = [step for step in steps if not step.done()]
        if steps:
            await asyncio.wait(steps, timeout=_CLOSE_GRACE)

    def abandon(self) -> list[asyncio.Task[Any]]:
        """Unload every body at once; the steps that were in flight."""
        self.closed = True
        self._claims.stop()
        self._residents.stop()
        steps = self._drop_all()
        self._settle()
        return steps

    def _drop_all(self) -> list[asyncio.Task[Any]]:
        steps: list[asyncio.Task[Any]] = []
        for run in list(self._residents.passes.values()):
            steps.extend(run.steps_in_flight())
            run.unload()
        self._residents.clear()
        self._awaited.clear()
        self._awaits_of.clear()
        self._suspect = None
        return steps

    def forget(self) -> None:
        """In a forked child: no body is driven on, whatever becomes of its steps."""
        self.closed = True
        for run in self._residents.passes.values():
            run.over = True

    def held(self) -> list[Pass]:
        """The runs that are driven here and not at rest."""
        return [run for run in self._residents.passes.values() if not run.at_rest]

    # Inner part ------------------------------------------------------------------------------------------------------

    def _load(self, run: Pass) -> None:
        stale = self._residents.passes.get(run.hold.run)
        if stale is not None:  # it was at rest here, and this worker's own claim took it
            self._forget(stale)
            stale.unload()
        if run.row.id in self._unheard:
            news = self._unheard.pop(run.row.id)
            if news is None:
                self._around.loop.call_soon(self._deliver, run, False)  # noqa: FBT003 - it is held, so it is not suspended
            elif news.no == run.hold.run:
                run.hear(news.cancel, news.pause)
        if (asked := self._news.pop(run.hold.run, None)) is not None:
            run.hear(asked.cancel, asked.pause)
        self._residents.add(run)
        if self._options.driven is not None:
            self._options.driven.add(run.row.id)
        if run.row.deaths >= _SUSPECT:
            self._suspect = run
        self._around.loop.call_soon(run.drive)

    def _forget(self, run: Pass) -> None:
        gone = self._residents.remove(run)
        for run_id in self._awaits_of.pop(run, ()):
            waiters = self._awaited.get(run_id, [])
            waiters[:] = [one for one in waiters if one is not run]
            if not waiters:
                self._awaited.pop(run_id, None)
        if gone:
            self._changed(run.row.id)
        if run is self._suspect:
            self._suspect = None
            self.look()
        elif self._claims.wanted:
            self.look()  # a claim was put off for want of room
        self._settle()

    def _unload(self, run: Pass) -> None:
        self._forget(run)
        run.unload()

    def _settle(self) -> None:
        if self._quiet and self._is_quiet:
            waiters, self._quiet = self._quiet, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # Claims ----------------------------------------------------------------------------------------------------------

    @property
    def suspects(self) -> bool:
        """Whether a run is driven here that may kill this process."""
        return self._suspect is not None

    async def take(self, claimed: list[Claimed]) -> None:
        """Drive runs that were claimed."""
        memories = await self._around.journal.memories([one.hold.run for one in claimed])
        for number, (one, memory) in enumerate(zip(claimed, memories, strict=True), start=1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # others on this loop also want their turn
            if self.closed or self.away:
                return
            if self.standing_down:
                self._give_back(one.hold, one.row)
                continue
            workflow = self._workflows[one.row.workflow]
            self._load(Pass(self._around, self, workflow, one, memory=memory, first=one.hold.epoch == 1))
            self._changed(one.row.id)

    def looked(self) -> None:
        """Forget what came meanwhile: it was heard, or the next look finds it."""
        self._unheard.clear()
        self._news.clear()
        self._settle()


def _whatever_came_of_it(write: asyncio.Future[None]) -> None:
    """Take a refusal as read: the run had ended or was given up in the meantime."""
    write.exception()
