"""Whatever runs wait for, and whatever happens to them meanwhile, the engine does what the model allows."""

from __future__ import annotations

import pytest

from tests.campaigns.registry import BrokenRule

from .campaign import broken_rules, play

pytestmark = pytest.mark.campaign

_CASES = 1_000


def test_no_promise_is_broken_by_random_programs_that_wait() -> None:
    tally = play(_CASES, 0)
    assert not tally.found, tally.found[0][1]
    for what in ("completed", "failed", "crash", "signal: value", "question: value", "child: value", "act: value"):
        assert tally.counts[what] > _CASES // 4  # programs do come to something
    for what in ("transaction: value", "timer: value", "probe: False"):
        assert tally.counts[what] > _CASES // 40
    for what in ("cancelled", "signal: timeout", "question: timeout", "SignalSuperseded", "close", "interrupt"):
        assert tally.counts[what] > _CASES // 20


@pytest.mark.parametrize("rule", list(broken_rules()), ids=lambda rule: rule.name)
def test_each_rule_that_is_broken_on_purpose_is_noticed(rule: BrokenRule) -> None:
    assert rule.until_noticed() is not None


def test_the_same_seed_plays_the_same_cases() -> None:
    first, second = play(50, 7), play(50, 7)
    assert (first.cases, first.counts) == (second.cases, second.counts)
