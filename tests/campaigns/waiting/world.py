"""Drives the real engine, one process after the other on one disk in virtual time, and shows the model all that happens."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeVar

from durable_sqlite import DurableError, Engine
from durable_sqlite._codec import Vault
from durable_sqlite._context import StepInfo
from durable_sqlite._ids import derived
from durable_sqlite._records import (
    Entry,
    Hold,
    IfExists,
    Kind,
    NewAnswer,
    NewMessage,
    NewRun,
    Outcome,
    Request,
    Resumption,
    RunRow,
    State,
)
from durable_sqlite.errors import LeaseLost
from durable_sqlite.journal import Journal
from tests.campaigns.bodies.replays import check_replay
from tests.support.memory_journal import Disk, MemoryJournal
from tests.support.sim_loop import Crash, SimClock, SimLoop

from .acts import Stage
from .model import Broken, Fact, Letter, Play, branching
from .programs import Node, by_name

__all__ = ["Life", "World"]

T = TypeVar("T")

_TICK = 0.001  # seconds that pass between what one rule does and the next
_EPSILON = 1e-7  # seconds that the sums of floats may differ, and less than the journal knows
_VAULT = Vault(None, 1_000_000)
_MOST_TURNS = 5_000  # of the loop, at one time, after which it spins
_MOST_COMMITS = 100  # in which a process does not come to rest
_STEPS = 300  # events after which a run that is helped on must have ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """How one process is."""

    unload_after: float = 1e6
    commit_delay: float | None = None
    max_resident: int = 100
    shuffle: int | None = None
    """Seed of the order in which the host's loop does what is ready."""


class _Loop(SimLoop):
    """Stops when nothing is ready and nothing is due `until` then, or after so many turns."""

    until = 0.0
    turns: int | None = None
    most = 0

    def select(self, timeout: float | None) -> Sequence[Any]:
        """Pass the time, but not beyond."""
        if timeout is None or (timeout > 0 and self._scheduled[0].when() > self.until + _EPSILON):
            self.stop()
            return ()
        return super().select(timeout)

    def forward(self, until: float) -> None:
        """Set the time, if it has not come that far."""
        self._now = max(self._now, until)

    def _run_once(self) -> None:
        super()._run_once()
        self.most -= 1
        if self.turns is not None:
            self.turns -= 1
        if self.turns == 0 or self.most == 0:
            self.stop()


class _Process(MemoryJournal):
    """The journal of one process, which first frees what the processes before it left, and lets the world see what is done."""

    def __init__(self, world: World, life: Life) -> None:
        super().__init__(world.disk, delay=life.commit_delay, on_crash=_die)
        self._world = world
        self._verb: Callable[[int], str] | None = None
        self._verb_last = False

    async def open(self, name: str, at: int) -> None:
        """Enrol, and bury the dead."""
        await super().open(name, at)
        dead = [other.no for other in await self.workers()]
        if dead:
            await self.take_over(dead, 1_000, b"", at)

    def crash_in(self, commits: int, *, lands: bool) -> None:
        """Die at a commit to come; 0 for never."""
        self._crash_at = self.commits + commits if commits else None
        self._crash_lands = lands

    @property
    def busy(self) -> bool:
        """Whether a commit is to come."""
        return bool(self._queue)

    def forget(self) -> None:
        """Lose what is not committed."""
        self.crashed = True
        self._timer = None
        self._queue.clear()

    def _apply(self, act: Callable[[], Any]) -> Any:
        answer = super()._apply(act)
        self._world.acted()
        return answer

    def _submit(self, act: Callable[[], T | Exception], *, drives: bool = True) -> asyncio.Future[T]:
        verb, last = self._verb, self._verb_last
        self._verb, self._verb_last = None, False
        if verb is None:
            return super()._submit(act, drives=drives)
        client = asyncio.current_task()

        def judged() -> T | Exception:
            answer = act()
            if not isinstance(answer, LeaseLost):
                got = type(answer).__name__ if isinstance(answer, Exception) else "accepted"
                if last:
                    self._world.acted()
                self._world.judge(verb, got, client)
            return answer

        return super()._submit(judged, drives=drives)

    def signal(self, run_id: str, message: NewMessage, *, caller: Hold | None = None) -> asyncio.Future[Any]:
        self._verb = partial(self._world.signalled, run_id, message, caller)
        return super().signal(run_id, message, caller=caller)

    def answer(self, run_id: str, answer: NewAnswer, *, caller: Hold | None = None) -> asyncio.Future[Any]:
        value = json.loads(_VAULT.open(answer.payload, ""))
        self._verb = self._world.of(
            run_id, lambda play: play.answer(answer.name, answer.key, value, answer.at, early=answer.early)
        )
        return super().answer(run_id, answer, caller=caller)

    def start(
        self,
        new: NewRun,
        if_exists: IfExists,
        *,
        drive: bool,
        message: NewMessage | None = None,
        caller: Hold | None = None,
    ) -> asyncio.Future[Any]:
        if message is not None:
            self._verb = partial(self._world.signalled, new.id, message, caller)
            self._verb_last = True  # the run is there before the message
        return super().start(new, if_exists, drive=drive, message=message, caller=caller)

    def cancel(self, run_id: str, request: Request, *, caller: Hold | None = None) -> asyncio.Future[Any]:
        self._verb = self._world.of(run_id, Play.cancel)
        return super().cancel(run_id, request, caller=caller)

    def terminate(self, run_id: str, request: Request) -> asyncio.Future[Any]:
        self._verb = self._world.of(run_id, Play.terminate)
        return super().terminate(run_id, request)

    def pause(self, run_id: str, request: Request) -> asyncio.Future[Any]:
        self._verb = self._world.of(run_id, Play.pause)
        return super().pause(run_id, request)

    def resume(self, run_id: str, how: Resumption) -> asyncio.Future[Any]:
        self._verb = self._world.of(run_id, Play.resume)
        return super().resume(run_id, how)


class _SimEngine(Engine):
    """The engine, on a journal in memory."""

    def __init__(self, world: World, journal: Journal, clock: SimClock, life: Life, stage: Stage) -> None:
        super().__init__(
            ":memory:",
            workflows=[stage.workflow],
            unload_after=life.unload_after,
            max_resident=life.max_resident,
            step_threads=1,
            clock=clock,
        )
        self._sim_journal = journal
        self._ids = lambda at: derived(str(len(world.disk.runs)), str(world.disk.last_worker), str(at))
        self._chance = Random(0)

    def _make_journal(self) -> Journal:
        return self._sim_journal


class World:
    """All processes of one case, and what the model makes of them: the scene of programs, and the clients of their runs."""

    def __init__(self, stage: Stage, life: Life) -> None:
        self.disk = Disk()
        self.plays: dict[str, Play] = {}
        self.counts: Counter[str] = Counter()
        self.roots = 0
        self.broken = False
        self._stage = stage
        stage.scene = self
        self._programs: dict[str, Node] = {}
        self._log: list[Callable[[], None]] = []
        self._expected: dict[asyncio.Task[Any] | None, str] = {}
        self._seen: dict[int, RunRow] = {}
        self._entries: dict[int, dict[str, Entry]] = {}
        self._asked: Counter[int] = Counter()
        self._processes = 0
        self._first_begun: dict[tuple[str, str], int] = {}
        self._in_flight: set[tuple[str, str]] = set()
        self._bodies = _Loop()
        self._bodies.set_task_factory(branching)
        self._bodies.set_exception_handler(lambda _loop, _context: None)
        self._now = 0.0
        self._quiet_commits = -1
        self._open(life)

    # As programs and steps see it ------------------------------------------------------------------------------------

    def program(self, name: str) -> Node:
        """The program of this name."""
        return self._programs[name]

    def began(self, info: StepInfo) -> None:
        """An attempt's body begins."""
        where = (info.run_id, info.key)
        cuts = self._processes - self._first_begun.setdefault(where, self._processes)
        self._in_flight.add(where)
        self.counts["attempts"] += 1
        self._log.append(lambda: self.plays[info.run_id].began(info.key, info.attempt, cuts))

    def gone(self, info: StepInfo) -> None:
        """An attempt's body is over."""
        self._in_flight.discard((info.run_id, info.key))

    # As the journal sees it ------------------------------------------------------------------------------------------

    def of(self, run_id: str, verb: Callable[[Play], str]) -> Callable[[int], str]:
        """What the model says of something that is asked of a run."""
        return lambda _now: verb(self.plays[run_id]) if run_id in self.plays else "UnknownRun"

    def signalled(self, run_id: str, message: NewMessage, caller: Hold | None, now: int) -> str:
        """What the model says of a message."""
        value = json.loads(_VAULT.open(message.payload, ""))["n"]
        letter = Letter(message.name, value, message.at, now)
        told = self.of(run_id, lambda play: play.signal(letter, message.dedupe))(now)
        if caller is not None:
            self.plays[self.disk.runs[caller.run].id].sent[value] = told
        return told

    def judge(self, verb: Callable[[int], str], got: str, client: asyncio.Task[Any] | None) -> None:
        """Something was asked, and the journal has answered."""
        now = self._clock

        def act() -> None:
            expected = self._expected[client] = verb(now)
            _agree(got, expected, verb)

        self._log.append(act)

    def acted(self) -> None:
        """The journal has changed."""
        now = self._clock
        for no, row in self.disk.runs.items():
            before = self._seen.get(no)
            if before is None:
                self._log.append(partial(self._created, row))
            kept, known = self.disk.kept[no], self._entries.setdefault(no, {})
            if len(kept) != len(known):
                for key in known.keys() - kept.keys():
                    self._log.append(partial(self._undone, row.id, key, now))
                for key in kept.keys() - known.keys():
                    self._log.append(partial(self._recorded, row.id, kept[key], now))
                self._entries[no] = dict(kept)
            if len(self.disk.asked[no]) > self._asked[no]:
                for question in list(self.disk.asked[no].values())[self._asked[no] :]:
                    self._log.append(partial(self._was_asked, row.id, question.key, question.deadline))
                self._asked[no] = len(self.disk.asked[no])
            if row is not before:
                self._log.append(partial(self._changed, row))
                self._seen[no] = row

    def _created(self, row: RunRow) -> None:
        parent = None if row.parent is None else self.plays[self.disk.runs[row.parent].id]
        if parent is not None:
            key = row.parent_key or ""
            call = parent.open.get(key)
            if call is None or key in parent.children:
                raise Broken(f"a run was started that nobody asks for, or again: {parent.id}, {key}, {parent.children}")
        program = self.program(json.loads(_VAULT.open(row.input, ""))["name"])
        play = Play(row.id, program, row.created_at, self._bodies, parent, detached=row.detached)
        if parent is not None:
            parent.children[row.parent_key or ""] = play
        else:
            play.deadline = row.deadline_at
        self.plays[row.id] = play

    def _recorded(self, run_id: str, entry: Entry, now: int) -> None:
        self.counts["entries"] += 1
        self.counts[f"{entry.kind.value}: {entry.outcome.value}"] += 1
        self.plays[run_id].recorded(_fact(entry), now)

    def _undone(self, run_id: str, key: str, now: int) -> None:
        self.counts["undone"] += 1
        self.plays[run_id].undone(key, now)

    def _was_asked(self, run_id: str, key: str, deadline: int | None) -> None:
        self.plays[run_id].ask(key, deadline)

    def _changed(self, row: RunRow) -> None:
        play = self.plays[row.id]
        play.seen = play.seen or row.state is State.SUSPENDED
        if row.cancel is not None and not play.cancelled and not play.end:
            play.cancel_seen()
        if row.state.stopped:
            value = json.loads(_VAULT.open(row.result, "")) if row.state is State.COMPLETED and row.result else None
            play.ended(row.state.value, value)

    # What happens from outside ---------------------------------------------------------------------------------------

    def ask(self, what: Callable[[Engine], Awaitable[object]]) -> None:
        """Let a client ask something, without waiting for what comes of it."""

        async def client() -> None:
            got = "accepted"
            try:
                await what(self._engine)
            except DurableError as error:
                got = type(error).__name__
            task = asyncio.current_task()
            self._log.append(lambda: self._told(task, got))

        self._loop.create_task(client())

    def _told(self, client: asyncio.Task[Any] | None, got: str) -> None:
        expected = self._expected.pop(client, "accepted")
        self.counts[got] += 1
        # Where the engine is closed meanwhile, the client does not learn what became of it.
        _agree(got, f"{expected} or UnknownRun or EngineClosed", "the public call")

    def start(self, program: Node | None, *, run: int, deadline: float | None, message: Any = None) -> None:
        """Start a run, or ask for one again that was started."""
        name = f"run-{run}"
        if program is not None:
            self._programs.update(by_name(name, program))
        play = self._stage.workflow.options(id=name, deadline=deadline)

        async def start(engine: Engine) -> None:
            here = play.options(engine=engine)
            await (here.start(name) if message is None else here.signal_with_start(message, name))

        self.ask(start)

    def turn(self, turns: int | None) -> None:
        """Let the process do what there is to do now, or so many turns of it."""
        if turns != 0:
            self._run(self._loop.time(), turns)
        for _ in range(_MOST_COMMITS):
            if turns is not None or not self._process.busy:
                break
            self._run(self._loop.time() + 0.5, None)
        else:
            raise Broken(f"the engine writes and writes: {self._states()}")
        self._hear()
        if turns is None:
            self._at_rest()
            self._loop.forward(self._loop.time() + _TICK)

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        until = self._loop.time() + seconds
        self._run(until, None)
        self._loop.forward(until)
        self.turn(None)

    def is_ahead(self, deadline: int) -> bool:
        """Whether a time is still to come."""
        return deadline > self._clock

    def jump(self, deadline: int, microseconds: int) -> None:
        """Put the clock to a deadline, or so far beside it, and let nothing happen yet."""
        self._loop.forward(self._loop.time() + (deadline - self._clock + microseconds) / 1_000_000)

    def end_process(self, how: str, life: Life, downtime: float) -> None:
        """End the process by a kill, an orderly close or as a program ends, and begin another one after a while."""
        self.counts[how] += 1
        if how != "kill":
            ending = self._engine.close() if how == "close" else _cancel_all_tasks()
            if not self._finish(ending):
                return  # it died on the way
        self._bury(life, downtime)

    def _finish(self, work: Coroutine[Any, Any, None]) -> bool:
        """Let something come to its end; False if the process dies before."""
        loop = self._loop
        task = loop.create_task(work)
        for _ in range(100):
            self._run(loop.time() + 1.0, None)
            if self._loop is not loop:
                return False
            if task.done():
                task.result()
                return True
        raise Broken(f"{work} never ends")

    def crash_in(self, commits: int, *, lands: bool, life: Life, downtime: float) -> None:
        """Let the process die at a commit to come, and another one begin after a while; 0 for never."""
        self._next = (life, downtime)
        self._process.crash_in(commits, lands=lands)

    # At the end ------------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Bring every run to its end: without any more crashes, with an answer and a message for each that waits."""
        self.crash_in(0, lands=False, life=Life(), downtime=0.0)
        self.turn(None)
        self.end_process("close", Life(), 0.0)
        for number in range(_STEPS):
            self.turn(None)
            if not self._alive_plays():
                break
            for play in self._alive_plays():
                self._help(play, number)
            self.turn(None)
            self.forward(20.0)
        else:
            raise Broken(f"runs never ended: {[(play.id, list(play.open)) for play in self._alive_plays()]}")
        self._look_back()

    def _help(self, play: Play, number: int) -> None:
        from .acts import POINTS, SIGNALS  # noqa: PLC0415

        if play.paused:
            self.ask(lambda engine: engine.run(play.id).resume())
        for call in play.open.values():
            if call.kind == "signal":
                message = SIGNALS[call.name](n=f"help {play.id} {number} {call.key}")
                self.ask(lambda engine, message=message: engine.run(play.id).signal(message))
            elif call.kind == "question":
                point, key = POINTS[call.name], call.key
                self.ask(lambda engine, point=point, key=key: engine.run(play.id).answer(point, number, key=key))

    def close(self) -> None:
        """Put everything away."""
        self._alive = False
        self._collapse()
        for play in self._alive_plays():
            play.stop("closed", None)
        self._bodies.close()

    def _look_back(self) -> None:
        """Look at every run as people do, and drive it once more from the top."""
        memories: dict[str, Any] = {}

        async def look() -> None:
            for play in self.plays.values():
                run = self._engine.run(play.id)
                info = await run.info()
                listed = [(each.name, each.message["n"]) for each in await run.messages()]
                _agree((info.state.value, info.waiting_for), (play.end, ()), f"the public view of {play.id}")
                _agree(listed, [(letter.name, letter.value) for letter in play.mail], f"the messages of {play.id}")
                memories[play.id] = await self._process.memory(self._row(play).no)

        self._finish(look())
        for play in self.plays.values():
            row, memory = self._row(play), memories[play.id]
            self.counts[play.end] += 1
            if play.terminated or (row.state is State.CANCELLED and play.told != "cancel"):
                continue  # its body did not hear of that
            surprises = check_replay(row, memory, self._stage.workflow.spec, self._loop.time())
            if surprises:
                raise Broken(f"a finished run does not repeat itself: {surprises}")

    # Inner part ------------------------------------------------------------------------------------------------------

    @property
    def _clock(self) -> int:
        return SimClock(self._loop).now()

    def _states(self) -> list[tuple[str, str]]:
        return [(row.id, row.state.value) for row in self.disk.runs.values()]

    def _row(self, play: Play) -> RunRow:
        row = self.disk.by_id(play.id)
        assert row is not None
        return row

    def _alive_plays(self) -> list[Play]:
        return [play for play in self.plays.values() if not play.end]

    def _open(self, life: Life) -> None:
        self._life = life
        loop = self._loop = _Loop(self._now, None if life.shuffle is None else Random(life.shuffle))
        loop.set_exception_handler(self._unexpected)
        self._process = _Process(self, life)
        self._engine = _SimEngine(self, self._process, SimClock(loop), life, self._stage)
        self._alive = True
        self._finish(self._enter())

    async def _enter(self) -> None:
        await self._engine.__aenter__()

    def _run(self, until: float, turns: int | None) -> None:
        loop = self._loop
        loop.until, loop.turns, loop.most = until, turns, _MOST_TURNS
        try:
            loop.run_forever()
        except Crash:
            self.counts["crash"] += 1
            self._bury(*self._next)
        else:
            if loop.most <= 0:
                raise Broken(f"the engine spins: {self._states()}")

    def _bury(self, life: Life, downtime: float) -> None:
        self._alive = False
        self._now = self._loop.time() + downtime
        self._collapse()
        self._processes += 1
        self._in_flight.clear()
        self.counts["processes"] += 1
        self._open(life)

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self._alive and loop is self._loop:
            what = f"an error came out of the engine: {context.get('message')}: {context.get('exception')!r}"
            self._log.append(partial(_raise, what))

    def _collapse(self) -> None:
        """Put away what a process left in memory. A kill runs nothing of it, so nothing of it may be noticed."""
        self._process.forget()
        asyncio._set_running_loop(self._loop)
        try:
            self._engine._let_go()
            if self._engine._session is not None:
                self._engine._session._closed = True
                self._engine._session.worker.abandon()
            for task in asyncio.all_tasks(self._loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coro: Any = task.get_coro()
                with suppress(RuntimeError):  # it waits while it is closed
                    coro.close()
        finally:
            asyncio._set_running_loop(None)
        self._loop.close()

    def _hear(self) -> None:
        """Let the model hear what has happened since, and hold the journal against it."""
        log, self._log = self._log, []
        self.broken = True
        for event in log:
            event()
        self._compare()
        self.broken = False

    def _compare(self) -> None:
        if self.disk.violations:
            raise Broken(f"the journal was written against its rules: {self.disk.violations}")
        for play in self.plays.values():
            row = self._row(play)
            what = f"{play.id} in the journal"
            _agree(row.state.stopped, bool(play.end), what)
            mail = [(each.name, json.loads(_VAULT.open(each.payload, ""))["n"]) for each in self.disk.waiting_mail(row.no)]
            _agree(mail, [(letter.name, letter.value) for letter in play.mail], what)
            for question in self.disk.questions(row.no):
                state = play.questions[question.key].state
                _agree(_state(question), state if state != "closing" else _state(question), what)
            if not play.end:
                _agree(row.cancel is not None, play.cancelled, f"{what}: to be cancelled")
                over = play.deadline is not None and play.deadline <= self._clock
                if not over:  # a deadline ends a pause, as soon as the run is driven
                    _agree(row.pause is not None, play.paused, f"{what}: to be paused")

    def _at_rest(self) -> None:
        """Nothing is left to do now: see whether everything was done."""
        now = self._clock
        self.broken = True
        full = sum(row.state is State.RUNNING for row in self.disk.runs.values()) >= self._life.max_resident
        for play in self.plays.values():
            row, what = self._row(play), f"{play.id} at rest"
            play.still = bool(play.end) or play.paused
            ready = row.state is State.PENDING or (row.due_at is not None and row.due_at <= now)
            if play.end or (ready and (full or row.deaths > 1)):
                continue  # there is no room for it, or it may have killed processes and waits for its turn
            flying = {key for run, key in self._in_flight if run == play.id}
            soon = {each.key: each.next_at for each in self.disk.failed.get(row.no, {}).values()}
            retries = {key for key, at in soon.items() if at is not None and at > now}
            overdue = play.overdue(now, flying | retries)
            if overdue:
                raise Broken(f"{what}: {overdue} are due, and nothing more happens")
            state = "running" if flying else "paused" if play.paused else "suspended"
            close = any(at is not None and now < at <= now + 1_000_000 for at in soon.values())
            _agree(row.state.value, "running" if close and row.state is State.RUNNING else state, what)
            if state == "suspended" == row.state.value:
                waits = {wait.key: wait.deadline for wait in self.disk.open_waits[row.no]}
                expected = {call.key: soon.get(call.key, call.deadline) for call in play.open.values()}
                _agree(waits, expected, f"{what} waits")
            _agree(row.status in play.said[1], True, f"{what}: status {row.status} of {play.said}")
            closing = [question for question in play.questions.values() if question.state == "closing"]
            for question in closing:
                _agree(_state(self.disk.asked[row.no][question.key]) != "open", True, f"{what}: {question} is closed")
                question.state = _state(self.disk.asked[row.no][question.key])
        self.broken = False


def _state(question: Any) -> str:
    if question.answer is not None:
        return "answered"
    return "open" if question.closed_at is None else "closed"


def _agree(got: object, expected: object, what: object) -> None:
    agrees = got in expected.split(" or ") if isinstance(expected, str) else got == expected
    if not agrees:
        raise Broken(f"{what}: the model says {expected}, and the engine {got}")


def _raise(what: str) -> None:
    raise Broken(what)


def _die() -> None:
    raise Crash


def _fact(entry: Entry) -> Fact:
    return Fact(entry.key, entry.kind.value, entry.name, entry.outcome.value, _value(entry), entry.at)


def _value(entry: Entry) -> Any:
    if entry.outcome is Outcome.TIMEOUT or entry.kind in {Kind.SLEEP, Kind.CANCEL}:
        return None
    held = json.loads(_VAULT.open(entry.payload, ""))
    if entry.outcome is Outcome.ERROR:
        return None if entry.kind is Kind.STEP else held["state"]
    if entry.outcome is Outcome.DECLARED:
        return held["class"]
    match entry.kind:
        case Kind.SIGNAL:
            return held["n"]
        case Kind.DRAIN:
            return [message["n"] for message in held]
        case Kind.ACT:
            return "accepted"
        case _:
            return held


async def _cancel_all_tasks() -> None:
    """What `asyncio.run` does when the program ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
