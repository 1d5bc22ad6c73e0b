"""A finished run, driven once more: it must come to the same end, write nothing and begin nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, cast

from durable_sqlite import State
from durable_sqlite._attempt import Result, Runner
from durable_sqlite._codec import Vault, load_error
from durable_sqlite._context import Host, StepInfo
from durable_sqlite._records import CANCEL_KEY, Claimed, End, Ended, Entry, Hold, Memory, RunRow, Started, Taken
from durable_sqlite._rehearsal import Difference, DifferenceKind, Rehearsal
from durable_sqlite._run import Pass
from durable_sqlite._specs import StepCall, WorkflowSpec
from durable_sqlite._surroundings import Surroundings
from durable_sqlite._threads import StepThreads
from durable_sqlite.journal import Journal
from durable_sqlite.retry import Retry
from tests.support.sim_loop import SimClock, SimLoop, Stuck

__all__ = ["check_replay"]

_LIMIT = 1_000_000


class _Witness:
    """A journal that can only be told the end of the run; anything else is noted. It never answers."""

    def __init__(self, loop: SimLoop) -> None:
        self.surprises: list[str] = []
        self.end_seen: tuple[State, str, bytes | None] | None = None
        self._loop = loop

    def end(self, _hold: Hold, end: End) -> asyncio.Future[None]:
        self.end_seen = (end.state, end.reason, end.result)
        self._loop.stop()
        return self._loop.create_future()

    def surprised(self, what: str) -> None:
        self.surprises.append(what)
        self._loop.stop()

    def __getattr__(self, verb: str) -> Any:
        def unexpected(*args: object) -> asyncio.Future[Any]:
            self.surprised(f"it wrote: {verb}{args}")
            return self._loop.create_future()

        return unexpected


class _IdleRunner(Runner):
    """Begins no step, and says that one was to begin."""

    witness: _Witness

    async def attempt(self, call: StepCall, info: StepInfo, policy: Retry) -> Result:
        del policy
        self.witness.surprised(f"step {call.spec.name} began as {info.key}")
        never: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        return await never


class _Nobody:
    """A keeper that has nothing to do."""

    def progressed(self, run: Pass) -> None: ...
    def rested(self, run: Pass, due: int | None) -> None: ...
    def woke(self, run: Pass) -> None: ...
    def ended(self, run: Pass, end: End, how: Ended) -> None: ...
    def reported(self, run: Pass) -> None: ...
    def awaits(self, run_id: str, waiter: Pass) -> None: ...
    def reserve(self) -> bool:
        return True

    def release(self) -> None: ...
    def know(self, workflow: WorkflowSpec) -> None: ...
    def started(self, started: Started) -> None: ...
    def at_rest(self, run_id: str) -> Hold | None: ...
    def mailed(self, row: RunRow, taken: Taken | None = None) -> None: ...
    def told(self, *rows: RunRow) -> None: ...
    def left(self, run: Pass, write: asyncio.Future[None]) -> None: ...
    def dropped(self, run: Pass) -> None: ...
    def goes_on(self, run: Pass) -> None: ...


def check_replay(row: RunRow, memory: Memory, workflow: WorkflowSpec, now: float) -> list[str]:
    """What a pass over a finished run does differently from the run, in words."""
    host = cast("Host", None)
    rehearsed = [f"{row.id}: {surprise}" for surprise in _check_rehearsal(row, memory, workflow)]
    if row.state is State.CANCELLED and not memory.entries:
        return rehearsed  # cancelled before it began
    loop = SimLoop(now)
    witness = _Witness(loop)
    vault = Vault(None, _LIMIT)
    runner = _IdleRunner(vault, StepThreads(1))
    runner.witness = witness
    around = Surroundings(
        host=host,
        journal=cast("Journal", witness),
        loop=loop,
        clock=SimClock(loop),
        vault=vault,
        runner=runner,
        max_entries=_LIMIT,
        retry=Retry.none(),
        chance=Random(0),
        step_exists=lambda _: True,
        failpoint=lambda _: None,
    )
    run = Pass(around, _Nobody(), workflow, Claimed(row, Hold(row.no, row.epoch)), memory=memory, first=False)
    loop.call_soon(run.drive)
    try:
        loop.run_forever()
    except Stuck:
        witness.surprises.append(f"it did not reach its end ({row.state})")
    _put_away(run, loop)
    if witness.end_seen is not None and not _overtaken(row, memory) and not _same_end(witness.end_seen, row):
        witness.surprises.append(f"{(row.state, row.reason, row.result)} became {witness.end_seen}")
    return rehearsed + [f"{row.id}: {surprise}" for surprise in witness.surprises]


def _check_rehearsal(row: RunRow, memory: Memory, workflow: WorkflowSpec) -> list[str]:
    """What a check of the run finds that it should not, of all its record and of a part; or does not find, where it should."""

    def found(row: RunRow, entries: Sequence[Entry]) -> list[Difference]:
        changed = replace(memory, entries=entries)
        vault = Vault(None, _LIMIT)
        rehearsal = Rehearsal(row, changed, workflow, host=cast("Host", None), vault=vault, step_exists=lambda _: True)
        return rehearsal.differences()

    entries = sorted(memory.entries, key=lambda entry: entry.seq)
    under_way = replace(row, state=State.RUNNING)
    half = entries[: len(entries) // 2]
    told = [f"rehearsed, {each.kind}: {each.text}" for each in (*found(row, entries), *found(under_way, half))]
    for place in [place for place, entry in enumerate(entries) if entry.digest][-1:]:
        other = [*entries[:place], replace(entries[place], digest=b"another"), *entries[place + 1 :]]
        if [each.key for each in found(row, other) if each.kind is DifferenceKind.DIVERGED] != [entries[place].key]:
            told.append(f"rehearsed with another argument at {entries[place].key}, and that was not found")
    return told


def _overtaken(row: RunRow, memory: Memory) -> bool:
    """Whether the request to cancel came when the body had ended and that was not committed: then it wins without an entry."""
    unseen = all(entry.key != CANCEL_KEY for entry in memory.entries)
    return row.state is State.CANCELLED and row.cancel is not None and unseen


def _same_end(seen: tuple[State, str, bytes | None], row: RunRow) -> bool:
    state, reason, result = seen
    if state is State.FAILED and row.state is State.FAILED and result is not None and row.result is not None:
        ours, theirs = load_error(result)[0], load_error(row.result)[0]
        return (reason, ours.type, ours.message) == (row.reason, theirs.type, theirs.message)
    return seen == (row.state, row.reason, row.result)


def _put_away(run: Pass, loop: SimLoop) -> None:
    asyncio._set_running_loop(loop)
    try:
        steps = run.steps_in_flight()
        run.unload()
    finally:
        asyncio._set_running_loop(None)
    for step in steps:
        step._log_destroy_pending = False  # type: ignore[attr-defined]
        coro: Any = step.get_coro()
        coro.close()
    loop.close()
