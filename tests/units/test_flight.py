"""Attempts in flight, by themselves; and a declared error's last corners."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durable_sqlite import ErrorRecord, Retry, StepFailed, step
from durable_sqlite._attempt import Runner
from durable_sqlite._call import Call
from durable_sqlite._clock import SystemClock
from durable_sqlite._codec import Vault
from durable_sqlite._context import StepInfo
from durable_sqlite._flight import Flight
from durable_sqlite._records import Kind
from durable_sqlite._specs import StepCall
from durable_sqlite._threads import StepThreads

INFO = StepInfo("x", "flow", "act#1", 1, 1, recovered=False, run_uid="u")


def test_an_attempt_that_may_not_begin_any_more_does_not() -> None:
    began: list[int] = []

    @step
    async def act() -> None:
        began.append(1)

    spec = act._spec
    bound = spec.parameters.bind((), {})

    async def scenario() -> None:
        async def never(_: Call) -> bool:
            return False

        told: list[str] = []
        flight = Flight(
            asyncio.get_running_loop(),
            SystemClock(),
            Runner(Vault(None, 1000), StepThreads(1)),
            told.append,
            ready=never,
            landed=lambda: told.append("landed"),
            held_back=lambda call: told.append(f"held back {call.key}"),
            lost=lambda: told.append("lost"),
        )
        call = Call("act#1", Kind.STEP, "act", step=StepCall(spec, None, bound, b""))
        assert call.step is not None
        flight.start(call, call.step, INFO, Retry.none())
        assert len(flight) == 1
        await asyncio.wait(flight.tasks())
        await asyncio.sleep(0)
        assert told == ["held back act#1", "landed"]
        assert not flight
        assert not flight.results
        flight.give_up(call)  # it has gone already
        assert not flight.clearing

    asyncio.run(scenario())
    assert began == []


def test_an_attempt_that_breaks_outside_the_step_s_own_code_is_no_outcome_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @step
    async def act() -> None: ...

    spec = act._spec
    bound = spec.parameters.bind((), {})

    def breaks(where: str) -> None:
        if where == "step.after":
            raise RuntimeError("odd")

    async def scenario() -> None:
        async def at_once(_: Call) -> bool:
            return True

        told: list[str] = []
        flight = Flight(
            asyncio.get_running_loop(),
            SystemClock(),
            Runner(Vault(None, 1000), StepThreads(1)),
            breaks,
            ready=at_once,
            landed=lambda: told.append("landed"),
            held_back=lambda call: told.append(call.key),
            lost=lambda: told.append("lost"),
        )
        call = Call("act#1", Kind.STEP, "act", step=StepCall(spec, None, bound, b""))
        assert call.step is not None
        flight.start(call, call.step, INFO, Retry.none())
        await asyncio.wait(flight.tasks())
        await asyncio.sleep(0)
        assert told == ["lost"]
        assert not flight.results

    asyncio.run(scenario())
    assert len(caplog.records) == 1
    assert "what step act#1 brought cannot be recorded" in caplog.text


def test_step_failures_are_values() -> None:
    record = ErrorRecord("builtins.ValueError", "x", ("builtins.ValueError",))
    one, same, other = StepFailed("a#1", record), StepFailed("a#1", record), StepFailed("a#1", record, 2)
    anything: Any = 5
    assert one == same
    assert hash(one) == hash(same)
    assert len({one, same, other}) == 2
    assert one != anything
    assert str(other) == "step a#1 failed after 2 attempts: ValueError: x"
    assert str(ErrorRecord("shop.Sold", "")) == "shop.Sold"
