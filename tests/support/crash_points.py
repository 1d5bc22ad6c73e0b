"""Tells a story with the process dying at each of its commits in turn: whatever is left in the end must be the same.

A story is what an application does: it starts runs, sends messages, answers, waits. It is told in virtual time on a journal
in memory, with the real engine, and once more from its beginning in the process after the crash. So all that it does must
be harmless when it is done twice: starts have ids, messages have a `dedupe`, answers have keys.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from durable_sqlite import Engine, SignalSuperseded, State, Suspend, Workflow
from durable_sqlite._codec import load_error
from durable_sqlite._records import Memory, Outcome
from durable_sqlite.journal import Journal, Lease
from tests.campaigns.bodies.replays import check_replay
from tests.support.memory_journal import Disk, MemoryJournal
from tests.support.sim_loop import Crash, SimClock, SimLoop, Stuck

__all__ = ["Left", "Story", "Teller", "Told", "crash_everywhere", "tell"]

_PATIENCE = 1_000_000.0  # seconds of the story's time after which it must be over
_LOOKS = 1_000
_BETWEEN = 0.001  # seconds of the story's time between two looks for a question


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a run: its end, and what it has recorded, in its order."""

    state: State
    reason: str
    result: Any
    history: tuple[tuple[str, Outcome, Any], ...]
    untaken: tuple[str, ...]
    """Names of the messages that nobody took."""

    @property
    def keys(self) -> list[str]:
        """The keys of what is recorded, in its order."""
        return [key for key, _, _ in self.history]


@dataclass(frozen=True, slots=True)
class Told:
    """What a story came to."""

    returned: Any
    runs: dict[str, Left]
    """What is left of each run, by its id."""
    commits: int = field(compare=False)
    """How many the undisturbed process made."""

    def without_order(self) -> Told:
        """The same, with what each run has recorded sorted by key."""
        sort = {run_id: replace(left, history=tuple(sorted(left.history))) for run_id, left in self.runs.items()}
        return replace(self, runs=sort)


@dataclass(frozen=True, slots=True)
class Teller:
    """A story's hold on the process in which it is told.

    Args:
        engine: The engine that is open in this process.
        retold: A process died before this one.
    """

    engine: Engine
    retold: bool

    async def at(self, seconds: float) -> None:
        """Wait until the story's time is this; at once where it is past."""
        await asyncio.sleep(max(0.0, seconds - asyncio.get_running_loop().time()))

    async def answer(self, run_id: str, point: type[Suspend[Any]], value: Any, key: str, *, by: str = "") -> None:
        """Answer a question as soon as it is asked, unless that was done in the process that died."""
        run = self.engine.run(run_id)
        for _ in range(_LOOKS):
            if any(question.key == key for question in await run.questions()):
                break
            if self.retold and any(entry.key == key for entry in await run.history()):
                return
            await asyncio.sleep(_BETWEEN)
        with suppress(SignalSuperseded):
            await run.answer(point, value, key=key, by=by)


Story = Callable[[Teller], Awaitable[Any]]


def tell(story: Story, *workflows: Workflow[..., Any], unload_after: float = 0.0) -> Told:
    """Tell a story in one process that nothing disturbs."""
    return _Telling(story, workflows, unload_after).tell(None)


def crash_everywhere(
    story: Story,
    *workflows: Workflow[..., Any],
    unload_after: float = 0.0,
    downtime: float = 0.0,
    effects: list[str] | None = None,
    ordered: bool = True,
) -> Told:
    """Tell a story once for each commit that it makes, twice: dying before it is on the disk, and just after.

    Each time a second process tells it to its end. What it returns, how each run ends and what each run has recorded must be
    what they are without a crash; and each finished run must repeat itself.

    Args:
        story: What the application does.
        workflows: All that it uses; their steps are coroutine functions, since threads have no virtual time.
        unload_after: As of the engine: with 0, each wait is replayed even without a crash.
        downtime: Seconds between the two processes.
        effects: What the steps note of what they do. Nothing may be done that is not done without a crash, and nothing more
            than once more.
        ordered: Where two things are in flight at once, a crash may turn their order round: then say False, and what the
            runs have recorded is compared without its order.

    Returns:
        What the story comes to without a crash.
    """
    noted: list[str] = [] if effects is None else effects
    noted.clear()
    told = _Telling(story, workflows, unload_after).tell(None)
    done = Counter(noted)
    for commit, lands in itertools.product(range(1, told.commits + 1), (False, True)):
        noted.clear()
        where = f"after a crash {'just after' if lands else 'before'} commit {commit} of {told.commits}"
        again = _Telling(story, workflows, unload_after, where).tell(_Death(commit, lands, downtime))
        same = again == told if ordered else again.without_order() == told.without_order()
        assert same, f"{where}: {again} is not {told}"
        twice = Counter(noted)
        assert twice.keys() == done.keys(), f"{where}: {sorted(twice)} was done, not {sorted(done)}"
        assert all(twice[each] <= done[each] + 1 for each in done), f"{where}: done too often: {twice}"
    noted.clear()
    return told


@dataclass(frozen=True, slots=True)
class _Death:
    commit: int
    lands: bool
    downtime: float


class _Telling:
    """One telling of a story: one disk, and one process or two."""

    def __init__(
        self, story: Story, workflows: tuple[Workflow[..., Any], ...], unload_after: float, where: str = "undisturbed"
    ) -> None:
        self._story = story
        self._workflows = workflows
        self._unload_after = unload_after
        self._where = where
        self._disk = Disk()
        self._now = 0.0
        self._problems: list[str] = []

    def tell(self, death: _Death | None) -> Told:
        """Tell it to its end."""
        commits = 0
        if death is not None:
            lived, _, _ = self._live(death)
            assert not lived, f"{self._where}: it did not come to that commit"
            self._now += death.downtime
        lived, returned, commits = self._live(None, retold=death is not None)
        assert lived
        assert not self._problems, f"{self._where}: {self._problems}"
        assert not self._disk.violations, f"{self._where}: {self._disk.violations}"
        return Told(returned, self._left(), commits)

    def _live(self, death: _Death | None, *, retold: bool = False) -> tuple[bool, Any, int]:
        """One process: whether it told the story to its end, what that returned, and how often it committed until then."""
        loop = SimLoop(self._now)
        loop.set_exception_handler(lambda _loop, context: self._problems.append(str(context)))
        crash_at, lands = (death.commit, death.lands) if death is not None else (None, False)
        journal = _Journal(self._disk, crash_at=crash_at, crash_lands=lands, on_crash=_die)
        engine = _SimEngine(journal, SimClock(loop), self._workflows, self._unload_after)
        commits = 0

        async def main() -> Any:
            nonlocal commits
            async with engine, asyncio.timeout(_PATIENCE):
                returned = await self._story(Teller(engine, retold))
                commits = journal.commits
                return returned

        task = loop.create_task(main())
        lived = True
        try:
            loop.run_to_end(task)
            returned = task.result()
        except Crash:
            lived, returned = False, None
        except (Stuck, TimeoutError):
            raise AssertionError(f"{self._where}: the story waits for what does not come") from None
        finally:
            _put_away(loop, journal, engine)
            self._now = loop.time()
        return lived, returned, commits

    def _left(self) -> dict[str, Left]:
        specs = {workflow.name: workflow.spec for workflow in self._workflows}
        left: dict[str, Left] = {}
        for row in self._disk.runs.values():
            entries = list(self._disk.kept[row.no].values())
            attempts = list(self._disk.failed.get(row.no, {}).values())
            if row.state.stopped and row.state is not State.PARKED:
                memory = Memory(entries, self._disk.open_waits[row.no], attempts)
                surprises = check_replay(row, memory, specs[row.workflow], self._now)
                assert not surprises, f"{self._where}: a finished run does not repeat itself: {surprises}"
            history = tuple((entry.key, entry.outcome, _said(entry.outcome, entry.payload)) for entry in entries)
            failed = row.state in {State.FAILED, State.PARKED}
            left[row.id] = Left(
                row.state,
                row.reason,
                _said(Outcome.ERROR if failed else Outcome.VALUE, row.result or b""),
                history,
                tuple(message.name for message in self._disk.mail[row.no] if message.taken_by is None),
            )
        return left


class _Journal(MemoryJournal):
    """The journal of one process, which first frees what the process before it left."""

    async def open(self, name: str, at: int, lease: Lease | None = None) -> None:
        await super().open(name, at, lease)
        dead = [other.no for other in await self.workers()]
        if dead:
            await self.take_over(dead, 1_000, b"", at)


class _SimEngine(Engine):
    """The engine, on a journal in memory; its ids are the same in each telling."""

    def __init__(
        self, journal: Journal, clock: SimClock, workflows: tuple[Workflow[..., Any], ...], unload_after: float
    ) -> None:
        super().__init__(
            ":memory:", workflows=workflows, unload_after=unload_after, step_threads=1, clock=clock, slow_loop=None
        )
        self._sim_journal = journal
        self._numbers = itertools.count(1)
        self._front.ids = self._next_id

    def _make_journal(self) -> Journal:
        return self._sim_journal

    def _next_id(self, at: int) -> str:
        del at  # else a crash would show in it
        return f"id-{next(self._numbers)}"


def _said(outcome: Outcome, payload: bytes) -> Any:
    """What is compared of a recorded outcome: of an error, not where in which file it was raised."""
    if outcome is not Outcome.ERROR or not payload:
        return payload
    record = load_error(payload).record
    return record.type, record.message


def _die() -> None:
    raise Crash


def _put_away(loop: SimLoop, journal: MemoryJournal, engine: Engine) -> None:
    """Take down what a process left in memory. After a kill nothing of it runs, so nothing of it may be noticed."""
    journal.crashed = True
    journal._timer = None
    journal._queue.clear()
    loop.set_exception_handler(lambda _loop, _context: None)
    asyncio._set_running_loop(loop)
    try:
        engine._let_go()
        if engine._session is not None:
            engine._session._closed = True
            engine._session.worker.abandon()
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coro: Any = task.get_coro()
            with suppress(RuntimeError):  # it waits while it is closed
                coro.close()
    finally:
        asyncio._set_running_loop(None)
    loop.close()
