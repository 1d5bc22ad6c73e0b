"""Whatever befalls processes, clock and disk, nothing acknowledged is lost, nothing is recorded twice, and every run ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.campaigns.registry import BrokenRule

from .campaign import broken_rules, play_in_processes, theatre
from .cases import draw

pytestmark = pytest.mark.campaign

_CASES = 2_000
_TRACES = """
from tests.campaigns.simulation.campaign import theatre
from tests.campaigns.simulation.cases import draw
with theatre() as stage:
    print(*(stage.play(draw(seed)).trace for seed in range(20)))
"""


def test_no_promise_is_broken_by_two_thousand_simulations() -> None:
    tally = play_in_processes(range(_CASES), 2)
    assert not tally.found, "\n".join(f"seed {seed}: {problems[0]}" for seed, problems in tally.found[:5])
    counts = tally.counts
    assert counts["completed"] > _CASES  # runs do come to something
    for what in ("attempts made again", "kill", "doubt", "lock", "full", "jump", "acknowledged signal"):
        assert counts[what] > _CASES // 10, counts
    assert counts["leases lost"] > _CASES // 20, counts


@pytest.mark.parametrize("rule", list(broken_rules()), ids=lambda rule: rule.name)
def test_each_rule_that_is_broken_on_purpose_is_noticed(rule: BrokenRule) -> None:
    assert rule.until_noticed() is not None


def test_a_seed_repeats_a_case_exactly_also_in_another_process() -> None:
    with theatre() as stage:
        here = [stage.play(draw(seed)).trace for seed in range(20)]
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", _TRACES], env=environment, check=True, capture_output=True, text=True
        )
        assert there.stdout.split() == here
