"""Time as integer microseconds."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from durable_sqlite import _clock
from durable_sqlite._clock import SystemClock, from_datetime, microseconds, to_datetime
from tests.support.clock import START


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, 0),
        (1, 1_000_000),
        (0.1, 100_000),
        (1e-9, 1),  # rounded up, so that nothing fires early
        (-1e-9, 0),
        (-1.5, -1_500_000),
        (2.000_000_1, 2_000_001),
        (timedelta(microseconds=7), 7),
        (timedelta(days=-1), -86_400_000_000),
        (10**15, 10**21),
    ],
)
def test_durations_are_rounded_up_to_microseconds(duration: float | timedelta, expected: int) -> None:
    assert microseconds(duration) == expected


@pytest.mark.parametrize("duration", [math.nan, math.inf, -math.inf])
def test_durations_must_be_finite(duration: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        microseconds(duration)


@pytest.mark.parametrize("duration", ["1", None, True, 1j])
def test_durations_are_numbers_or_timedeltas(duration: Any) -> None:
    with pytest.raises(TypeError, match=type(duration).__name__):
        microseconds(duration)


def test_instants_go_to_datetimes_and_back_and_naive_ones_are_refused() -> None:
    for instant in (0, START, START + 1, -1):
        assert from_datetime(to_datetime(instant)) == instant
    assert from_datetime(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0
    assert to_datetime(0) == datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="time zone"):
        from_datetime(datetime(2024, 1, 1))  # noqa: DTZ001


class Stepped(SystemClock):
    """A machine's clock that a person sets."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> int:
        return self.time


def test_an_alarm_rings_when_the_machine_s_clock_shows_its_time_whatever_the_loop_thinks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_clock, "_LONGEST_NAP", 0.001)
    rung: list[str] = []
    clock = Stepped()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        clock.call_at(loop, START - 5, lambda: rung.append("past"))
        clock.call_at(loop, START + 3_600_000_000, lambda: rung.append("in an hour"))
        clock.call_at(loop, START + 1, lambda: rung.append("called off")).cancel()
        await asyncio.sleep(0.01)
        assert rung == ["past"]
        clock.time += 3_600_000_000  # the clock was set forward
        await asyncio.sleep(0.01)
        assert rung == ["past", "in an hour"]

    asyncio.run(scenario())


def test_the_machine_s_clock_is_the_time() -> None:
    assert abs(SystemClock().now() - from_datetime(datetime.now(UTC))) < 60_000_000
