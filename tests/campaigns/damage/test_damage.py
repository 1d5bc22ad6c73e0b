"""Whatever happens to the files of a journal: the same data, or a report that says so by name; and nothing is silent."""

from __future__ import annotations

import pytest

from tests.campaigns.registry import BrokenRule

from .campaign import broken_rules, play


def test_no_damage_is_silent() -> None:
    tally = play(0, cases=100, drives=False)
    assert not tally.broken, tally.broken
    assert tally.counts["named"] > 10
    assert tally.counts["same"] > 10
    assert tally.counts["refused"] > 3


@pytest.mark.campaign
def test_no_damage_is_silent_among_hundreds() -> None:
    tally = play(1_000, cases=700)
    assert not tally.broken, tally.broken


@pytest.mark.campaign
@pytest.mark.parametrize("rule", list(broken_rules()), ids=lambda rule: rule.name)
def test_a_checker_that_is_broken_on_purpose_is_noticed(rule: BrokenRule) -> None:
    assert rule.until_noticed() is not None
