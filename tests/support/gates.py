"""Verbs of a journal that wait for the test, and mail that comes past all types."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import pytest

from durable_sqlite import Engine
from durable_sqlite._records import NewAnswer, NewMessage
from durable_sqlite._session import Session
from tests.support.modes import driver_of
from tests.support.stage import until

__all__ = ["Gate", "answer_raw", "deaf", "eventually", "send_raw", "session_of"]

T = TypeVar("T")


def session_of(engine: Engine) -> Session:
    """What is open while the engine is; of two that stand for one, what the one that drives has open."""
    if (pair := driver_of(engine)) is not None:
        return pair.inside()
    assert engine._session is not None
    return engine._session


async def deaf(engine: Engine) -> None:
    """Let an engine no longer hear of what others write."""
    listener = session_of(engine)._listener
    assert listener is not None
    listener.cancel()
    await asyncio.wait([listener])
    session_of(engine)._listener = None


async def eventually(look: Callable[[], Awaitable[T]]) -> T:
    """Ask again and again until the answer is something, and give that."""
    async with asyncio.timeout(20):
        while not (found := await look()):  # noqa: ASYNC110 - the journal tells nobody of what is looked for
            await asyncio.sleep(0.001)
    return found


class Gate:
    """Holds a verb of an engine's journal, from the first call on, until the test opens it.

    Args:
        engine: It has to be open.
        verb: Which one.
        patch: Puts things back after the test.
        before: Hold what the verb does; else that is done at once, and only its answer is held.
    """

    def __init__(self, engine: Engine, verb: str, patch: pytest.MonkeyPatch, *, before: bool = False) -> None:
        self._open = asyncio.Event()
        self._before = before
        self._reached = 0
        self._done = 0
        self._tasks: list[asyncio.Task[None]] = []
        inside = session_of(engine)
        # Of two engines that stand for one, either may be the one that is asked.
        for journal in {session.journal for session in (inside, engine._session) if session is not None}:
            patch.setattr(journal, verb, partial(self._call, getattr(journal, verb)))

    async def reached(self, times: int = 1) -> None:
        """Wait until it was called this often, and has done its work unless that is what is held."""
        await until(lambda: (self._reached if self._before else self._done) >= times)

    async def asked(self) -> None:
        """Wait until it was called, whatever comes of that."""
        await until(lambda: self._reached)

    def open(self) -> None:
        """Let all through, those to come as well."""
        self._open.set()

    def _call(self, verb: Callable[..., asyncio.Future[Any]], *args: Any, **options: Any) -> asyncio.Future[Any]:
        self._reached += 1
        answer = asyncio.get_running_loop().create_future()
        # Called here and now, where it is not held: the call fixes the order.
        write = None if self._before else asyncio.ensure_future(verb(*args, **options))
        again = partial(verb, *args, **options)
        self._tasks.append(asyncio.create_task(self._hold(write, answer, again)))
        return answer

    async def _hold(
        self,
        write: asyncio.Future[Any] | None,
        answer: asyncio.Future[Any],
        again: Callable[[], asyncio.Future[Any]],
    ) -> None:
        if write is None:
            await self._open.wait()
            write = asyncio.ensure_future(again())
        await asyncio.wait([write])
        self._done += 1
        await self._open.wait()
        if answer.done():
            return
        if (error := write.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(write.result())


async def send_raw(engine: Engine, run_id: str, name: str, payload: bytes) -> None:
    """Store a message that no type has looked at, as the command line may, and let the engine know."""
    message = NewMessage(name, payload, engine._clock.now())
    sent = await session_of(engine).journal.signal(run_id, message)
    session_of(engine).worker.mailed(sent.row)


async def answer_raw(
    engine: Engine, run_id: str, name: str, payload: bytes, *, by: str = "", early: bool = False
) -> None:
    """The same with an answer."""
    answer = NewAnswer(name, None, payload, engine._clock.now(), by, early=early)
    answered = await session_of(engine).journal.answer(run_id, answer)
    session_of(engine).worker.mailed(answered.row)
