"""One process of a case: the real engine on a journal in memory, on a loop in virtual time that stops when it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Protocol

from durable_sqlite import Engine
from durable_sqlite._codec import Vault
from durable_sqlite._ids import derived
from durable_sqlite._records import Hold, IfExists, NewAnswer, NewMessage, NewRun, Request, Resumption
from durable_sqlite.errors import LeaseLost
from durable_sqlite.journal import Journal, Lease
from tests.support.memory_journal import Disk, MemoryJournal
from tests.support.sim_loop import Crash, SimClock, SimLoop

from .acts import Stage
from .facts import Broken, Letter
from .model import Play

__all__ = ["Asked", "Life", "PacedLoop", "Process", "Watch", "opened"]

_EPSILON = 1e-7  # seconds that the sums of floats may differ, and less than the journal knows
_MOST_TURNS = 5_000  # of the loop, without a rest, after which it spins
_VAULT = Vault(None, 1_000_000)


def opened(payload: bytes) -> Any:
    """What is stored, as plain JSON data."""
    return json.loads(_VAULT.open(payload, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """How a process is."""

    unload_after: float = 1e6
    commit_delay: float | None = None
    max_resident: int = 100
    shuffle: int | None = None
    """Seed of the order in which the host's loop does what is ready."""


class PacedLoop(SimLoop):
    """Stops when nothing is ready and nothing is due `until` then, or after so many turns."""

    until = 0.0
    turns = 0

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
        self.turns -= 1
        if self.turns == 0:
            self.stop()


@dataclass(frozen=True, slots=True)
class Asked:
    """Something that is asked of a run."""

    run_id: str
    verb: Callable[[Play, int], str]
    """What the model says of it, at that time."""
    message: str = ""
    """What is sent, if that is it."""


class Watch(Protocol):
    """Whoever looks at what the journal does."""

    def judge(self, asked: Asked, got: str, client: asyncio.Task[Any] | None, now: int) -> None:
        """Something was asked of a run, and the journal has answered."""
        ...

    def acted(self, now: int) -> None:
        """The journal may have changed."""
        ...

    def failed(self, what: str) -> None:
        """Something came out of the engine that nobody expects."""
        ...


class _WatchedJournal(MemoryJournal):
    """A journal that first frees what the processes before it left, and lets itself be watched."""

    def __init__(self, disk: Disk, watch: Watch, clock: SimClock, delay: float | None) -> None:
        super().__init__(disk, delay=delay, on_crash=_die)
        self._watch = watch
        self._clock = clock
        self._to_judge: Asked | None = None

    async def open(self, name: str, at: int, lease: Lease | None = None) -> None:
        """Enrol, and bury the dead."""
        await super().open(name, at, lease)
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
        self._watch.acted(self._clock.now())
        return answer

    def _submit(self, act: Callable[[], Any], *, drives: bool = True) -> asyncio.Future[Any]:
        asked, self._to_judge = self._to_judge, None
        if asked is None:
            return super()._submit(act, drives=drives)
        client = asyncio.current_task()

        def judged() -> Any:
            answer = act()
            if not isinstance(answer, LeaseLost):
                got = type(answer).__name__ if isinstance(answer, Exception) else "accepted"
                self._watch.judge(asked, got, client, self._clock.now())
            return answer

        return super()._submit(judged, drives=drives)

    def signal(
        self, run_id: str, message: NewMessage, *, caller: Hold | None = None, at_rest: Hold | None = None
    ) -> asyncio.Future[Any]:
        self._to_judge = _sending(run_id, message)
        return super().signal(run_id, message, caller=caller, at_rest=at_rest)

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
            self._to_judge = _sending(new.id, message)
        return super().start(new, if_exists, drive=drive, message=message, caller=caller)

    def answer(
        self, run_id: str, answer: NewAnswer, *, caller: Hold | None = None, at_rest: Hold | None = None
    ) -> asyncio.Future[Any]:
        self._to_judge = _answering(run_id, answer)
        return super().answer(run_id, answer, caller=caller, at_rest=at_rest)

    def cancel(self, run_id: str, request: Request, *, caller: Hold | None = None) -> asyncio.Future[Any]:
        self._to_judge = Asked(run_id, lambda play, _: play.cancel())
        return super().cancel(run_id, request, caller=caller)

    def terminate(self, run_id: str, request: Request) -> asyncio.Future[Any]:
        self._to_judge = Asked(run_id, lambda play, _: play.terminate())
        return super().terminate(run_id, request)

    def pause(self, run_id: str, request: Request) -> asyncio.Future[Any]:
        self._to_judge = Asked(run_id, lambda play, _: play.pause())
        return super().pause(run_id, request)

    def resume(self, run_id: str, how: Resumption) -> asyncio.Future[Any]:
        self._to_judge = Asked(run_id, lambda play, _: play.resume())
        return super().resume(run_id, how)


def _sending(run_id: str, message: NewMessage) -> Asked:
    value = opened(message.payload)["n"]

    def send(play: Play, now: int) -> str:
        return play.signal(Letter(message.name, value, message.at, now), message.dedupe)

    return Asked(run_id, send, value)


def _answering(run_id: str, answer: NewAnswer) -> Asked:
    value = opened(answer.payload)

    def give(play: Play, _now: int) -> str:
        return play.answer(answer.name, answer.key, value, answer.at, early=answer.early)

    return Asked(run_id, give)


class _SimEngine(Engine):
    """The engine, on a journal in memory."""

    def __init__(self, journal: Journal, disk: Disk, clock: SimClock, life: Life, stage: Stage) -> None:
        super().__init__(
            ":memory:",
            workflows=[stage.workflow],
            unload_after=life.unload_after,
            max_resident=life.max_resident,
            step_threads=1,
            clock=clock,
            slow_loop=None,  # a thread would have a time of its own
        )
        self._sim_journal = journal

        def ids(at: int) -> str:
            return derived(str(disk.last_worker), str(at))

        self._ids = ids
        self._chance = Random(0)

    def _make_journal(self) -> Journal:
        return self._sim_journal


class Process:
    """One process, from its beginning until it dies or is put away. Where it has died, nothing of it goes on.

    Args:
        disk: What survives.
        stage: What its engine knows.
        life: How it is.
        now: When it begins, in seconds.
        watch: Looks at what it does.
    """

    def __init__(self, disk: Disk, stage: Stage, life: Life, now: float, watch: Watch) -> None:
        self.life = life
        self.died = False
        self.loop = PacedLoop(now, None if life.shuffle is None else Random(life.shuffle))
        self.loop.set_exception_handler(partial(self._unexpected, watch))
        self.clock = SimClock(self.loop)
        self.journal = _WatchedJournal(disk, watch, self.clock, life.commit_delay)
        self.engine = _SimEngine(self.journal, disk, self.clock, life, stage)
        self.finish(self._open())

    async def _open(self) -> None:
        await self.engine.__aenter__()

    def run(self, until: float, turns: int | None = None) -> None:
        """Let it do what there is to do until then, or so many turns of it."""
        if self.died:
            return
        self.loop.until, self.loop.turns = until, turns or _MOST_TURNS
        try:
            self.loop.run_forever()
        except Crash:
            self.died = True
        else:
            if turns is None and self.loop.turns <= 0:
                raise Broken("the engine spins")

    def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something come to its end, unless the process dies before."""
        task = self.loop.create_task(work)
        for _ in range(100):
            self.run(self.loop.time() + 1.0)
            if self.died:
                return
            if task.done():
                task.result()
                return
        raise Broken(f"{work} never ends")

    def leave(self, how: str) -> None:
        """End it by itself: its engine is closed, or the program ends as by Ctrl-C."""
        self.finish(self.engine.close() if how == "close" else _cancel_all_tasks())

    def put_away(self) -> None:
        """Put away what it left in memory. A kill runs nothing of it, so nothing of it may be noticed."""
        self.died = True
        self.journal.forget()
        asyncio._set_running_loop(self.loop)
        try:
            self.engine._let_go()
            if self.engine._session is not None:
                self.engine._session._closed = True
                self.engine._session.worker.abandon()
            for task in asyncio.all_tasks(self.loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coro: Any = task.get_coro()
                with suppress(RuntimeError):  # it waits while it is closed
                    coro.close()
        finally:
            asyncio._set_running_loop(None)
        self.loop.close()

    def _unexpected(self, watch: Watch, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.died:
            watch.failed(f"an error came out of the engine: {context.get('message')}: {context.get('exception')!r}")


def _die() -> None:
    raise Crash


async def _cancel_all_tasks() -> None:
    """What `asyncio.run` does when the program ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
