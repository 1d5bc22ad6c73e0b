"""Whatever a body does, a crash, an unload or a cancel at any moment changes nothing about what it sees."""

from __future__ import annotations

import pytest

from tests.campaigns.registry import BrokenRule

from .campaign import broken_rules, play_all
from .cases import draw
from .world import Theatre

pytestmark = pytest.mark.campaign

_CASES = 1_000


def test_no_promise_is_broken_by_random_programs_with_crashes_unloads_and_cancels() -> None:
    tally = play_all(range(_CASES))
    assert not tally.found, "\n".join(f"seed {seed}: {problems[0]}" for seed, problems in tally.found[:5])
    assert tally.counts["completed"] > _CASES // 2  # programs do come to something
    assert tally.counts["cancelled"] > _CASES // 10
    for what in ("failed attempts", "attempts made again", "attempts left behind"):
        assert tally.counts[what] > _CASES // 10


@pytest.mark.parametrize("rule", list(broken_rules()), ids=lambda rule: rule.name)
def test_each_rule_that_is_broken_on_purpose_is_noticed(rule: BrokenRule) -> None:
    assert rule.until_noticed() is not None


def test_the_same_seed_is_the_same_case_to_the_last_entry() -> None:
    with Theatre() as theatre:
        first, second = (theatre.play(draw(7)).disk for _ in range(2))
    assert (first.runs, first.kept) == (second.runs, second.kept)
