"""An engine that dies, and the engine after it, in one process."""

from __future__ import annotations

import asyncio

from durable_sqlite import Engine
from durable_sqlite._sqlite import SqliteJournal
from tests.support.modes import driver_of

__all__ = ["cut", "die", "die_alone", "quiet"]


def cut(engine: Engine) -> None:
    """From now on nothing that `engine` writes reaches its journal, as if the kill had come here; `die` has to follow."""
    if (pair := driver_of(engine)) is not None and pair.driver is not None:
        cut(pair.driver)
    session = engine._session
    assert session is not None
    assert isinstance(session.journal, SqliteJournal)
    assert session.journal._writer is not None
    session.journal._writer.finish()
    session.journal._writer.batch.queue.clear()


async def die(engine: Engine) -> None:
    """End `engine` as a kill would: what is not committed is lost, nothing is given back, its lock is let go.

    Only what Python itself needs is put away: threads end, bodies and steps in flight are taken down unrecorded.
    """
    if (pair := driver_of(engine)) is not None:
        await pair.die(die_alone)
    await die_alone(engine)


async def die_alone(engine: Engine) -> None:
    """The same, of one engine of a pair."""
    session = engine._session
    assert session is not None
    assert isinstance(session.journal, SqliteJournal)
    assert session._supervisor is not None
    assert session._listener is not None
    cut(engine)
    engine._let_go()
    session._closed = True
    watching = [task for task in (session._listener, session._guard, session._rejoining) if task is not None]
    left = [*session.worker.abandon(), session._supervisor, *watching]
    for task in left:
        task.cancel()
    await asyncio.wait(left)
    await session.journal._let_go()
    session._threads.close()
    session._retention.stop()
    session.watchdog.stop()
    if session.watchdog.thread is not None:
        session.watchdog.thread.join()
    if session._lifeline is not None:
        session._lifeline.forget()


async def quiet(engine: Engine) -> None:
    """Let callbacks that are due run, then wait until nothing is left to drive."""
    for _ in range(3):
        await asyncio.sleep(0)
        await engine.join()
