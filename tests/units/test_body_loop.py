"""The loop that bodies run on, by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextvars import copy_context
from typing import Any

import pytest

from durable_sqlite import NotDurable, Unloading, _body_loop
from durable_sqlite._body_loop import BodyLoop, BodyTask, BodyTimer


class Owner:
    """Keeps what the loop tells."""

    def __init__(self) -> None:
        self.timers: list[BodyTimer] = []
        self.dropped: list[BodyTimer] = []
        self.forbidden: list[str] = []

    def time(self) -> float:
        return 7.0

    def open_timer(self, timer: BodyTimer) -> None:
        self.timers.append(timer)

    def drop_timer(self, timer: BodyTimer) -> None:
        self.dropped.append(timer)

    def forbid(self, message: str) -> None:
        self.forbidden.append(message)


def begun(body: Coroutine[Any, Any, Any], owner: Owner | None = None) -> tuple[BodyLoop, BodyTask[Any]]:
    made: Any = BodyLoop  # its refusals are put in by name, so a checker takes it for abstract
    loop: BodyLoop = made(owner or Owner(), "salt", frozenset())
    task = loop.spawn(body, loop.root, copy_context())
    return loop, task


def test_it_says_of_itself_what_asyncio_asks() -> None:
    told: list[Any] = []

    async def body() -> None:
        loop: Any = asyncio.get_running_loop()
        told.extend([loop.get_task_factory(), loop.get_debug(), loop.is_running(), loop.is_closed(), loop.time()])
        await loop.shutdown_asyncgens()
        with pytest.raises(TypeError):
            _ = loop.create_task(5)  # noqa: RUF006
        with pytest.raises(NotDurable, match="add_reader"):
            loop.add_reader(0, print)

    loop, task = begun(body())
    assert loop.pump(100)
    assert task.exception() is None
    assert told == [None, False, True, False, 7.0]


def test_timers_are_its_owner_s_and_a_callback_that_was_called_off_is_not_called() -> None:
    owner = Owner()
    called: list[str] = []

    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(called.append, "called off").cancel()
        loop.call_later(3, called.append, "later").cancel()
        loop.call_later(5, called.append, "in time")

    loop, _ = begun(body(), owner)
    assert loop.pump(100)
    assert [timer.when() for timer in owner.timers] == [10.0, 12.0]
    assert owner.dropped == owner.timers[:1]
    loop.fire(owner.timers[1])
    assert loop.busy
    loop.pump(100)
    assert called == ["in time"]


def test_a_pump_may_be_cut_and_goes_on_later() -> None:
    async def body() -> int:
        for _ in range(10):
            await asyncio.sleep(0)
        return 5

    loop, task = begun(body())
    assert not loop.pump(3)
    assert not task.done()
    assert loop.pump(100)
    assert task.result() == 5


def test_unwinding_ends_every_frame_once_and_clean_up_may_even_wait_and_make_tasks() -> None:
    seen: list[str] = []

    async def late() -> None:
        seen.append("never begun")

    async def branch() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except Unloading:
            seen.append("branch")
            raise

    async def body() -> None:
        first = asyncio.create_task(branch())
        try:
            await first
        finally:
            seen.append("body")
            late_task = asyncio.create_task(late())
            await asyncio.sleep(1)
            del late_task

    owner = Owner()
    loop, _ = begun(body(), owner)
    loop.pump(100)
    loop.unwind()
    loop.unwind()
    assert seen == ["branch", "body"]
    assert owner.timers == []


def test_a_body_may_be_unwound_from_within_one_of_its_own_tasks() -> None:
    seen: list[Any] = []

    async def other() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append(asyncio.current_task())

    async def body() -> None:
        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        loop._tasks.remove(main)  # itself it cannot end while it runs
        loop.unwind()
        seen.append(task)
        seen.append(asyncio.current_task())

    loop, main = begun(body())
    loop.pump(100)
    assert seen[0] is seen[1]
    assert seen[2] is main


def test_generators_that_never_let_go_are_kept_rather_than_finalized_somewhere() -> None:
    stubborn = [True]

    async def waits_for_ever() -> AsyncIterator[int]:
        try:
            yield 1
        except BaseException:
            while True:
                try:
                    await asyncio.sleep(0)
                except BaseException:
                    if not stubborn:
                        raise

    async def body() -> None:
        generator = waits_for_ever()
        await anext(generator)
        await asyncio.get_running_loop().create_future()

    loop, _ = begun(body())
    loop.pump(100)
    assert len(loop.open_generators()) == 1
    kept = len(_body_loop._KEPT)
    loop.unwind()
    assert loop.open_generators() == []
    assert len(_body_loop._KEPT) == kept + 1
    stubborn.clear()
    _body_loop._KEPT.pop()


def test_who_makes_a_task_is_looked_for_among_as_many_frames_as_there_are() -> None:
    loop, _ = begun(asyncio.sleep(0))
    thread = threading.Thread(target=loop.create_task, args=(asyncio.sleep(0),))
    thread.start()
    thread.join()
    assert len(loop._tasks) == 2
    loop.pump(100)


def test_tasks_hash_by_the_order_of_their_making() -> None:
    async def body() -> list[int]:
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(50)]
        await asyncio.gather(*tasks)
        return [tasks.index(task) for task in set(tasks)]

    orders: list[list[int]] = []
    for _ in range(2):
        loop, task = begun(body())
        loop.pump(10_000)
        orders.append(task.result())
    assert orders[0] == orders[1]


def test_what_asyncio_has_nobody_to_tell_is_logged_while_the_body_lives(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        asyncio.get_running_loop().call_soon(int, "no number")

    loop, _ = begun(body())
    loop.pump(100)
    assert "no number" in caplog.text
    caplog.clear()
    loop.unwind()
    loop.call_exception_handler({"message": "too late"})
    assert caplog.text == ""


def test_futures_hash_by_the_order_of_their_creation() -> None:
    made: Any = BodyLoop
    loop: BodyLoop = made(Owner(), "salt", frozenset())
    futures = [loop.create_future() for _ in range(50)]
    assert [hash(future) - hash(futures[0]) for future in futures] == list(range(50))
