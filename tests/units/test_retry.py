"""When a failed step is tried again: delays, bounds and totals, against arithmetic done another way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_sqlite._records import Reason
from durable_sqlite.errors import DefinitionError
from durable_sqlite.retry import GiveUp, Permanent, Retry, RetryAfter, RetryAt, decide, matches

SECOND = 1_000_000

policies = st.builds(
    Retry,
    max_attempts=st.none() | st.integers(1, 12),
    initial_delay=st.integers(0, 1_000).map(lambda tenths: tenths / 10),
    factor=st.sampled_from([1.0, 1.5, 2.0, 10.0]),
    max_delay=st.integers(0, 5_000),
    jitter=st.sampled_from([0.0, 0.1, 1.0]),
    max_elapsed=st.none() | st.integers(0, 10_000),
)
chances = st.floats(0, 1)


def reference(policy: Retry, attempt: int) -> Fraction:
    """The wait after an attempt in exact arithmetic, without jitter, in microseconds."""
    first = Fraction(str(policy.initial_delay)) * SECOND
    longest = Fraction(policy.max_delay) * SECOND  # type: ignore[arg-type]
    return min(first * Fraction(str(policy.factor)) ** (attempt - 1), longest)


def failed(policy: Retry, attempt: int, *, now: int = 0, error: Exception | None = None, chance: float = 0.0) -> Any:
    return decide(policy, attempt=attempt, error=error or ValueError(), retryable=True, began=0, now=now, chance=chance)


@given(policies, st.integers(1, 60), chances)
def test_a_wait_is_what_exact_arithmetic_says_less_the_jitter(policy: Retry, attempt: int, chance: float) -> None:
    exact = reference(policy, attempt)
    assert policy.delay(attempt) == pytest.approx(float(exact), rel=1e-9, abs=2)
    assert policy.delay(attempt, chance) <= policy.delay(attempt)
    assert policy.delay(attempt, chance) >= float(exact) * (1 - policy.jitter) - 2


@given(policies, st.integers(1, 10**30))
def test_no_attempt_number_overflows(policy: Retry, attempt: int) -> None:
    assert 0 <= policy.delay(attempt) <= policy.max_delay * SECOND  # type: ignore[operator]


@given(policies, chances)
def test_a_step_that_always_fails_is_tried_max_attempts_times_and_never_after_max_elapsed(
    policy: Retry, chance: float
) -> None:
    now, attempts = 0, 0
    while attempts < 50:
        attempts += 1
        verdict = failed(policy, attempts, now=now, chance=chance)
        if isinstance(verdict, GiveUp):
            assert verdict.reason is Reason.RETRIES_EXHAUSTED
            break
        assert verdict.when >= now
        now = verdict.when
        if policy.max_elapsed is not None:
            assert now <= policy.max_elapsed * SECOND
    if policy.max_attempts is not None:
        assert attempts <= policy.max_attempts
        if policy.max_elapsed is None:
            assert attempts == policy.max_attempts


def test_the_default_doubles_from_one_second() -> None:
    assert [Retry().delay(attempt) / SECOND for attempt in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_fixed_waits_the_same_and_none_does_not_try_again() -> None:
    assert [Retry.fixed(5).delay(attempt, 1.0) for attempt in (1, 9)] == [5 * SECOND] * 2
    assert failed(Retry.none(), 1) == GiveUp(Reason.RETRIES_EXHAUSTED)
    assert Retry.exponential(0.5, max_attempts=7, max_delay=8).delay(99) == 8 * SECOND


def test_permanent_stops_at_once_also_as_a_cause() -> None:
    chained = RuntimeError("outer")
    chained.__cause__ = Permanent("the account is closed")
    for error in (Permanent("no"), chained):
        assert failed(Retry(), 1, error=error) == GiveUp(Reason.PERMANENT)


def test_an_error_that_the_policy_does_not_name_is_permanent() -> None:
    verdict = decide(Retry(), attempt=1, error=ValueError(), retryable=False, began=0, now=0, chance=0)
    assert verdict == GiveUp(Reason.PERMANENT)


def test_retry_after_sets_the_next_delay_within_the_attempts_allowed() -> None:
    asked = RetryAfter(timedelta(minutes=2))
    assert failed(Retry(max_attempts=3), 1, now=7, error=asked) == RetryAt(7 + 120 * SECOND)
    assert failed(Retry(max_attempts=1), 1, error=asked) == GiveUp(Reason.RETRIES_EXHAUSTED)
    chained = OSError()
    chained.__context__ = RetryAfter(-5)
    assert failed(Retry(), 1, now=7, error=chained) == RetryAt(7)


def test_a_hidden_context_and_a_cycle_of_causes_do_not_matter() -> None:
    error = ValueError()
    error.__context__ = Permanent("hidden")
    error.__suppress_context__ = True
    assert isinstance(failed(Retry(), 1, error=error), RetryAt)
    other = ValueError()
    error.__cause__, other.__cause__ = other, error
    assert isinstance(failed(Retry(), 1, error=error), RetryAt)


def test_on_and_unless_take_classes_and_functions_that_may_be_asynchronous() -> None:
    async def asked(error: Exception) -> bool:
        return "again" in str(error)

    async def scenario() -> None:
        assert await matches(ValueError, ValueError())
        assert not await matches((KeyError, OSError), ValueError())
        assert not await matches((), ValueError())
        assert await matches(lambda error: error.args == ("x",), ValueError("x"))
        assert await matches(asked, ValueError("again"))
        assert not await matches(asked, ValueError("no more"))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": True}, "max_attempts"),
        ({"max_attempts": 2.5}, "max_attempts"),
        ({"initial_delay": -1}, "initial_delay"),
        ({"initial_delay": "1"}, "initial_delay"),
        ({"max_delay": float("nan")}, "max_delay"),
        ({"max_elapsed": float("inf")}, "max_elapsed"),
        ({"factor": 0.5}, "factor"),
        ({"factor": float("inf")}, "factor"),
        ({"jitter": 1.5}, "jitter"),
        ({"on": int}, "on"),
        ({"unless": ("x",)}, "unless"),
        ({"on": 5}, "on"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_and_the_message_names_the_value(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(DefinitionError, match=rf"Retry\({told}=") as refused:
        Retry(**options)
    (given,) = options.values()
    assert repr(given).strip("(),") in str(refused.value)  # of several errors, the one that is wrong


def test_retry_after_refuses_what_is_no_duration() -> None:
    with pytest.raises(ValueError, match="finite"):
        RetryAfter(float("nan"))
    assert "2 s" in str(RetryAfter(2))
    assert str(RetryAfter(2, "too many requests")) == "too many requests"
