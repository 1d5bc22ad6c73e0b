"""The engine with one rule broken, for each rule: the campaign must notice.

Not among them: numbering branches when they first call something, or counting calls in the run and not in the branch. While
outcomes reach a body in one order, any numbering by what the body does repeats itself as long as the code is the same; the
rule serves code that changes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

from durable_sqlite import _context, _crew, _giver
from durable_sqlite._attempt import Fault, Result, Runner, read_outcome
from durable_sqlite._body_loop import BodyLoop, BodyTask, Branch
from durable_sqlite._call import Call
from durable_sqlite._codec import Vault
from durable_sqlite._crew import Crew
from durable_sqlite._desk import Desk
from durable_sqlite._flight import Flight, _Attempt
from durable_sqlite._giver import Giver
from durable_sqlite._records import CANCEL_KEY, End, Ended, Entry, News, Outcome, Suspension, Wait
from durable_sqlite._replay import Asked, Divergence, Replay
from durable_sqlite._rest import Rester
from durable_sqlite._run import Pass
from durable_sqlite._specs import StepCall, StepSpec
from durable_sqlite._verdict import Ending

from .attempt_mutants import OF_ATTEMPTS

__all__ = ["MUTANTS"]

Mutant = Callable[[], AbstractContextManager[object]]


def outcomes_in_the_order_of_asking() -> AbstractContextManager[object]:
    """Recorded outcomes are given in the order in which they are asked for, not in which they were recorded."""
    ask = Replay.ask
    numbers = itertools.count(1_000_000)

    def mutant(self: Replay, call: Asked) -> Divergence | None:
        problem = ask(self, call)
        self._heap = [(next(numbers), key) if key == call.key else (place, key) for place, key in self._heap]
        heapq.heapify(self._heap)
        return problem

    return patch.object(Replay, "ask", mutant)


def all_recorded_outcomes_at_once() -> AbstractContextManager[object]:
    """Every recorded outcome that was asked for is given without letting the body run in between."""
    give_recorded = Giver.give_recorded

    def mutant(self: Giver) -> bool:
        given = False
        while give_recorded(self):
            given = True
        return given

    return patch.object(Giver, "give_recorded", mutant)


def steps_begin_during_replay() -> AbstractContextManager[object]:
    """A step that is not recorded begins at once, although recorded outcomes are still to be given."""
    drive, give_recorded = Pass._drive, Giver.give_recorded

    def mutant(self: Pass) -> None:
        def hasty(giver: Giver) -> bool:
            self._launcher.begin()
            return give_recorded(giver)

        with patch.object(Giver, "give_recorded", hasty):  # one pass is driven at a time
            drive(self)

    return patch.object(Pass, "_drive", mutant)


def tasks_hash_by_address() -> AbstractContextManager[object]:
    """Sets of tasks are walked in the order of addresses."""
    return patch.object(BodyTask, "__hash__", object.__hash__)


def the_hosts_clock() -> AbstractContextManager[object]:
    """A body's time is the time at which it looks, not that of the last entry it was given."""
    drive = Pass._drive

    def mutant(self: Pass) -> None:
        self._desk.clock = max(self._desk.clock, self._around.clock.now())
        drive(self)

    return patch.object(Pass, "_drive", mutant)


def replay_does_not_move_time() -> AbstractContextManager[object]:
    """Giving an entry does not move the body's time; only the recording of one does."""
    close = Desk.close

    def mutant(self: Desk, key: str, at: int) -> Call:
        return close(self, key, self.clock if self.replaying else at)

    return patch.object(Desk, "close", mutant)


@contextmanager
def unloading_by_cancel() -> Generator[None, None, None]:
    """A body is taken out of memory by cancelling its tasks."""
    unwind = BodyLoop.unwind

    def mutant(self: BodyLoop) -> None:
        for task in self._tasks:
            task.cancel()
        self.pump(1_000)
        unwind(self)

    def noted(self: Desk) -> None:
        mutant(self.loop)
        unload(self)

    unload = Desk.unload
    with patch.object(Desk, "unload", noted):
        yield


def unloading_before_the_commit() -> AbstractContextManager[object]:
    """A suspended run leaves memory before its suspension is committed."""
    rest = Rester.rest

    def mutant(self: Rester) -> bool:
        waits = rest(self)
        run: Any = self._line._run
        if self.suspending and run is not None:
            run.drop()
        return waits

    return patch.object(Rester, "rest", mutant)


def the_end_is_told_before_the_commit() -> AbstractContextManager[object]:
    """Those who wait for a run hear of its end before that is committed, and it may be loaded again."""
    end = Pass._end

    def mutant(self: Pass, ending: Ending) -> None:
        end(self, ending)
        self.unload()
        told = End(ending.state, ending.reason, ending.result, 0)
        self._keeper.ended(self, told, Ended(ending.state, 0))

    return patch.object(Pass, "_end", mutant)


def steps_do_not_wait_for_commits() -> AbstractContextManager[object]:
    """A step begins before what it may depend on is committed."""

    async def mutant(
        _ledger: object, _journal: object, may_begin: Callable[[], bool], _is_over: object, _call: object
    ) -> bool:
        return may_begin()

    return patch.object(_crew, "_may_act", mutant)


def steps_beside_a_leaving_one() -> AbstractContextManager[object]:
    """Steps begin although one that was given up has not gone."""
    return patch.object(Flight, "clearing", property(lambda _: False))


def given_up_steps_go_on() -> AbstractContextManager[object]:
    """A step that nobody waits for is not stopped."""

    def mutant(self: Flight, attempt: _Attempt) -> None:
        del self
        attempt.given_up = True

    return patch.object(Flight, "_stop", mutant)


@contextmanager
def the_cancellation_comes_first() -> Generator[None, None, None]:
    """A recorded cancellation is given at the beginning of every later pass, not in its place."""
    init = Replay.__init__

    def mutant(self: Replay, run_id: str, entries: Iterable[Entry], *, accept_changes: bool = False) -> None:
        init(self, run_id, entries, accept_changes=accept_changes)
        self._heap = [(0, key) for _, key in self._heap]

    with patch.object(Replay, "__init__", mutant):
        yield


def the_cancellation_is_forgotten() -> AbstractContextManager[object]:
    """A recorded cancellation is not given again."""
    next_ = Replay.next

    def mutant(self: Replay, is_open: Callable[[str], bool]) -> Entry | None:
        entry = next_(self, is_open)
        return next_(self, is_open) if entry is not None and entry.key == CANCEL_KEY else entry

    return patch.object(Replay, "next", mutant)


@contextmanager
def values_as_they_were_returned() -> Generator[None, None, None]:
    """On the first pass, the body gets the very object that the step returned."""
    run, attempt, read = Runner._run, Runner.attempt, read_outcome
    returned: list[Any] = []
    originals: dict[int, tuple[bytes, Any]] = {}

    async def run_mutant(self: Runner, *args: Any) -> Any:
        value = await run(self, *args)
        returned[:] = [value]
        return value

    async def attempt_mutant(self: Runner, *args: Any) -> Result | Fault:
        returned[:] = [None]
        result = await attempt(self, *args)
        if isinstance(result, Result) and result.outcome is Outcome.VALUE:
            originals[id(result.payload)] = (result.payload, returned[0])
        return result

    def read_mutant(vault: Vault, spec: StepSpec, entry: Entry, where: str) -> tuple[Any, Exception | None]:
        original = originals.pop(id(entry.payload), None)
        if original is not None and original[0] is entry.payload:
            return original[1], None
        return read(vault, spec, entry, where)

    with (
        patch.object(Runner, "_run", run_mutant),
        patch.object(Runner, "attempt", attempt_mutant),
        patch.object(_giver, "read_outcome", read_mutant),
    ):
        yield


@contextmanager
def a_cut_pump_counts_as_rest() -> Generator[None, None, None]:
    """Something is given to a body that was only interrupted."""
    pump = BodyLoop.pump

    def mutant(self: BodyLoop, most: int) -> bool:
        pump(self, most)
        return True

    with patch.object(BodyLoop, "pump", mutant), patch.object(BodyLoop, "busy", property(lambda _: False)):
        yield


def a_refused_suspension_is_taken_for_done() -> AbstractContextManager[object]:
    """A run rests although its suspension was refused because news had come."""
    suspended = Rester._suspended

    def mutant(self: Rester, waits: Mapping[str, Wait], paused: bool, _write: object) -> None:
        done: asyncio.Future[Suspension] = asyncio.get_running_loop().create_future()
        done.set_result(Suspension(suspended=True))
        suspended(self, waits, paused, done)

    return patch.object(Rester, "_suspended", mutant)


def a_returning_pass_does_not_wait() -> AbstractContextManager[object]:
    """A body in memory goes on before it is known that its run is still its own."""
    goes_on = Rester.go_on

    def mutant(self: Rester) -> None:
        goes_on(self)
        self.returning = False
        self._went_on(News(self._ledger.hold.run, cancel=None, pause=None))

    return patch.object(Rester, "go_on", mutant)


def recovery_is_not_told() -> AbstractContextManager[object]:
    """A step that a kill interrupted is not told so."""
    start = Crew.start

    def mutant(self: Crew, call: Call, step: StepCall) -> None:
        self.recovered = call.cut_off = False
        start(self, call, step)

    return patch.object(Crew, "start", mutant)


def generators_are_let_go() -> AbstractContextManager[object]:
    """Async generators that a body leaves open are not held."""

    def mutant(_self: BodyLoop, _generator: object) -> None:
        """Do not hold it."""

    return patch.object(BodyLoop, "_hold_generator", mutant)


def keys_without_their_branch() -> AbstractContextManager[object]:
    """The key of a call says nothing of the branch that it is made in."""

    def mutant(_: Branch, label: str) -> str:
        return label

    return patch.object(Branch, "place", mutant)


def uuids_by_chance() -> AbstractContextManager[object]:
    """A body's uuid() is another one on each pass."""

    def mutant(_: Desk) -> UUID:
        return uuid4()

    return patch.object(Desk, "uuid", mutant)


def idempotency_keys_by_attempt() -> AbstractContextManager[object]:
    """Each attempt of a step has an idempotency key of its own."""
    numbers = itertools.count()

    def mutant(*parts: str) -> str:
        return "-".join((*parts, str(next(numbers))))

    return patch.object(_context, "derived", mutant)


MUTANTS: dict[str, Mutant] = {
    mutant.__name__.replace("_", "-"): mutant
    for mutant in (
        outcomes_in_the_order_of_asking,
        all_recorded_outcomes_at_once,
        steps_begin_during_replay,
        tasks_hash_by_address,
        the_hosts_clock,
        replay_does_not_move_time,
        unloading_by_cancel,
        unloading_before_the_commit,
        the_end_is_told_before_the_commit,
        steps_do_not_wait_for_commits,
        steps_beside_a_leaving_one,
        given_up_steps_go_on,
        the_cancellation_comes_first,
        the_cancellation_is_forgotten,
        values_as_they_were_returned,
        a_cut_pump_counts_as_rest,
        a_refused_suspension_is_taken_for_done,
        a_returning_pass_does_not_wait,
        recovery_is_not_told,
        generators_are_let_go,
        keys_without_their_branch,
        uuids_by_chance,
        idempotency_keys_by_attempt,
        *OF_ATTEMPTS,
    )
}
"""By name, what each breaks."""
