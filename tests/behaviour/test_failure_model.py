"""Random sequences of failures, successes, crashes, time limits, resumes, waits and cancels, against a plain model."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable_sqlite import Engine, Retry, State, WrongState, current_step, step, workflow
from tests.support.clock import ManualClock
from tests.support.restarts import die, quiet
from tests.support.stage import until

MOST, DELAY, LIMIT = 3, 30, 5

OPERATIONS = ["fail", "succeed", "time out", "crash", "close", "wait", "resume", "cancel"]


@dataclass
class Model:
    """What the promises say, in a few lines."""

    state: str = "in flight"
    """`in flight`, `backing off`, `failed`, `completed` or `cancelled`."""
    attempt: int = 1
    began: list[tuple[int, bool]] = field(default_factory=lambda: [(1, False)])
    """Each time the body began: the attempt's number, and whether it may have begun before."""

    def begin(self, *, recovered: bool = False) -> None:
        self.state = "in flight"
        self.began.append((self.attempt, recovered))

    def apply(self, operation: str) -> None:
        match operation, self.state:
            case ("fail" | "time out", "in flight"):
                if self.attempt == MOST:
                    self.state = "failed"
                else:
                    self.attempt, self.state = self.attempt + 1, "backing off"
            case "succeed", "in flight":
                self.state = "completed"
            case ("crash" | "close", "in flight"):
                self.begin(recovered=True)
            case "wait", "backing off":
                self.begin()
            case "resume", "failed":
                self.attempt = 1
                self.begin()
            case "cancel", ("in flight" | "backing off"):
                self.state = "cancelled"
            case _:
                pass


STATES = {
    "in flight": {State.RUNNING},
    "backing off": {State.SUSPENDED},
    "failed": {State.FAILED},
    "completed": {State.COMPLETED},
    "cancelled": {State.CANCELLED},
}


class World:
    """The real thing, under the same operations."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.began: list[tuple[int, bool]] = []
        self.verdict: asyncio.Future[str] | None = None
        self.engine = Engine(path)

        @step(retry=Retry.fixed(DELAY, max_attempts=MOST), timeout=LIMIT)
        async def act() -> str:
            info = current_step()
            self.began.append((info.attempt, info.recovered))
            self.verdict = asyncio.get_running_loop().create_future()
            if await self.verdict == "fail":
                raise OSError("told to fail")
            return "done"

        @workflow
        async def flow() -> str:
            return await act()

        self.flow = flow

    async def open(self) -> None:
        # What dies here is no machine, so nothing need be forced to the disk.
        self.engine = Engine(self.path, clock=self.clock, workflows=[self.flow], synchronous="normal")
        await self.engine.__aenter__()

    async def apply(self, operation: str, model: Model) -> None:
        run = self.engine.run("x")
        match operation:
            case "fail" | "succeed" if self.verdict is not None and not self.verdict.done():
                self.verdict.set_result(operation)
            case "time out" if model.state == "in flight":
                self.clock.advance(LIMIT)
            case "crash":
                await die(self.engine)
                await self.open()
            case "close":
                await self.engine.close()
                await self.open()
            case "wait":
                self.clock.advance(DELAY if model.state == "backing off" else 0)
            case "resume" | "cancel":
                try:
                    await (run.resume() if operation == "resume" else run.cancel())
                except WrongState:
                    assert (operation, model.state) not in {("resume", "failed"), ("cancel", "in flight")}
            case _:
                pass

    async def settled(self, model: Model) -> None:
        """Wait until the world is where the model is."""
        await until(lambda: len(self.began) >= len(model.began))
        if model.state == "in flight":
            await asyncio.sleep(0)
        else:
            await quiet(self.engine)
        info = await self.engine.run("x").info()
        assert info.state in STATES[model.state], (info, model)
        assert self.began == model.began


@pytest.mark.contradicts("crash", reason="it foretells whether a step was interrupted")
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.sampled_from(OPERATIONS), max_size=12))
def test_any_sequence_of_what_can_happen_agrees_with_the_model(operations: list[str]) -> None:
    async def scenario(folder: str) -> None:
        world, model = World(Path(folder) / "j.db"), Model()
        await world.open()
        try:
            await world.flow.options(id="x").start()
            await world.settled(model)
            for operation in operations:
                before = Model(model.state, model.attempt, list(model.began))
                model.apply(operation)
                await world.apply(operation, before)
                await world.settled(model)
        finally:
            await world.engine.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(folder))
