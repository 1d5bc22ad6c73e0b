"""What a worker does with the bodies that it has in memory, without any."""
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from durable_sqlite._records import Hold
from durable_sqlite._worker import Worker, WorkerOptions


@dataclass(eq=False)
class NamedPass:
    """What a worker asks a waiting pass: how it stands, and to look at its mail."""

    name: str
    looked: list[str]
    over: bool
    at_rest: bool

    def mailed(self, *, woken: bool) -> None:
        assert not woken
        self.looked.append(self.name)


def worker_that_tells(changed: list[str]) -> Worker:
    around: Any = SimpleNamespace()
    return Worker(
        around,
        WorkerOptions(max_resident=9, unload_after=0),
        changed.append,
        lambda row: changed.append(row.id),
        changed.append,
    )


def body_of(run: int, *steps: asyncio.Task[Any]) -> Any:
    """The pass of a run `x`, with these steps in flight."""

    def unload() -> None:
        for step in steps:
            step.cancel()

    row = SimpleNamespace(id="x")
    return cast("Any", SimpleNamespace(row=row, hold=Hold(run, 1), steps_in_flight=lambda: [*steps], unload=unload))


def test_a_body_that_leaves_memory_after_a_new_run_took_its_id_leaves_that_one_alone() -> None:
    changed: list[str] = []
    worker = worker_that_tells(changed)
    old, new = body_of(1), body_of(2)
    worker._residents.add(old)
    worker._residents.add(new)
    worker.dropped(old)
    assert worker.has("x")
    assert changed == []
    worker.dropped(new)
    assert not worker.has("x")
    assert changed == ["x"]


def test_a_worker_that_has_lost_its_lease_steps_back_only_when_its_steps_have_gone() -> None:
    async def scenario() -> None:
        async def step() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)

        task = asyncio.ensure_future(step())
        await asyncio.sleep(0)
        worker = worker_that_tells([])
        worker._residents.add(body_of(1, task))
        await worker.step_back()
        assert task.cancelled()
        assert not worker.has("x")

    asyncio.run(scenario())


def test_news_of_others_lets_those_look_who_wait_and_are_driven_and_leaves_those_at_rest_to_the_claim() -> None:
    async def scenario() -> None:
        async def nothing(*_: Any) -> Any:
            return []

        async def no_stops(*_: Any) -> Any:
            return 0, []

        worker = worker_that_tells([])
        around = cast("Any", worker._around)
        around.loop = asyncio.get_running_loop()
        around.journal = SimpleNamespace(stops=no_stops, news=nothing)
        worker._claims = cast("Any", SimpleNamespace(is_there_anything=nothing, note_next_due=nothing))
        looked: list[str] = []

        def waiter(name: str, *, over: bool = False, at_rest: bool = False) -> Any:
            return NamedPass(name, looked, over=over, at_rest=at_rest)

        worker.awaits("child", waiter("driven"))
        worker.awaits("child", waiter("at rest", at_rest=True))
        worker.awaits("child", waiter("over", over=True))
        await worker.hear_news()
        await asyncio.sleep(0)
        assert looked == ["driven"]

    asyncio.run(scenario())
