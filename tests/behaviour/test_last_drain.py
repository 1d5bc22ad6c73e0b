"""Messages that come while a run ends: what was there to be taken is taken, or its sender is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from durable_sqlite import Engine, Signal, SignalRejected, State, sleep, workflow
from durable_sqlite._records import End, Ended, Hold
from durable_sqlite._run import Pass
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet


class Job(Signal):
    number: int


@workflow
async def works() -> list[int]:
    await sleep(10)
    done: list[int] = []
    while jobs := await Job.drain():
        done.extend(job.number for job in jobs)
    return done


@pytest.mark.contradicts("two", "crash", reason="it looks into one engine")
def test_a_message_that_comes_between_the_last_drain_and_the_end_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last drain is recorded and the body has returned; the message is stored just before the end is."""
    ends: list[End] = []

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await works.start()
            await quiet(engine)
            await run.signal(Job(number=1))
            session = engine._session
            assert session is not None
            end = session.journal.end
            sent: list[asyncio.Task[None]] = []

            def end_after_a_message(hold: Hold, how: End) -> asyncio.Future[Ended | None]:
                ends.append(how)
                if len(ends) == 1:
                    sent.append(asyncio.create_task(run.signal(Job(number=2))))
                    held: asyncio.Future[Ended | None] = asyncio.get_running_loop().create_future()

                    def pass_on(write: asyncio.Future[Ended | None]) -> None:
                        held.set_result(write.result())

                    sent[0].add_done_callback(lambda _: end(hold, how).add_done_callback(pass_on))
                    return held
                return end(hold, how)

            monkeypatch.setattr(session.journal, "end", end_after_a_message)
            clock.advance(10)
            assert await run.result(timeout=20) == [1, 2]
            assert await run.messages() == []
            keys = [entry.key for entry in await run.history()]
            assert keys == ["sleep#1", "Job#1", "Job#2", "Job#3"]
            with pytest.raises(SignalRejected):
                await run.signal(Job(number=3))

    asyncio.run(scenario())
    assert len(ends) == 2
    assert all(how.drained is not None and how.drained.key.startswith("Job#") for how in ends)


def test_a_message_that_comes_while_nobody_is_there_is_taken_by_the_last_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies when the last drain is recorded and the end is not."""
    clock = ManualClock()

    async def first() -> None:
        engine = Engine(tmp_path / "j.db", clock=clock)
        await engine.__aenter__()
        run = await works.options(id="x").start()
        await quiet(engine)
        ended = asyncio.Event()

        def never(self: Pass, _ending: object) -> None:
            self._ending = True
            ended.set()

        monkeypatch.setattr(Pass, "_end", never)
        clock.advance(10)
        await ended.wait()
        while len(await run.history()) < 2:  # noqa: ASYNC110 - nothing tells of a single write
            await asyncio.sleep(0)
        assert [entry.key for entry in await run.history()] == ["sleep#1", "Job#1"]
        await die(engine)
        monkeypatch.undo()

    async def second() -> None:
        async with Engine(tmp_path / "j.db", drive=False, clock=clock) as engine:
            await engine.run("x").signal(Job(number=7))
        async with Engine(tmp_path / "j.db", clock=clock, workflows=[works]) as engine:
            assert await engine.run("x").result(timeout=20) == [7]

    asyncio.run(first())
    asyncio.run(second())


def test_a_message_that_came_after_another_wait_than_a_drain_stays_listed() -> None:
    @workflow
    async def flow() -> str:
        await Job.drain()
        await sleep(10)
        return "over"

    async def scenario() -> None:
        clock = ManualClock()
        async with Engine(":memory:", clock=clock) as engine:
            run = await flow.start()
            await quiet(engine)
            await run.signal(Job(number=1))
            clock.advance(10)
            assert await run.result(timeout=20) == "over"
            assert [left.message for left in await run.messages()] == [{"number": 1}]
            assert (await run.info()).state is State.COMPLETED

    asyncio.run(scenario())
