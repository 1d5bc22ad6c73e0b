"""Many processes on one journal, killed and stopped by the hundred, lose nothing and do nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.registry import BrokenRule

from .campaign import broken_rules, noticed
from .fleet import Outcome, kill_fleet
from .races import race_in_pairs, race_to_start, race_to_take_over
from .zombies import stop_fleet

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def right(outcome: Outcome) -> bool:
    """Nothing was found; else the first of it is shown."""
    assert not outcome.problems, outcome.problems[:5]
    return True


def test_a_thousand_kills_of_a_fleet_lose_nothing_and_record_nothing_twice(tmp_path: Path) -> None:
    outcome = kill_fleet(tmp_path, 1_000, seed=6)
    assert right(outcome)
    for what in ("struck", "runs", "begun again", "bookings", "messages"):
        assert outcome.counts[what] > 50, outcome.counts  # the fleet does come to something
    assert outcome.counts["result"], outcome.counts  # few clients live for long enough to hear of one


def test_no_late_write_of_two_hundred_that_were_stopped_past_their_lease_is_accepted(tmp_path: Path) -> None:
    outcome = stop_fleet(tmp_path, 200, seed=6)
    assert right(outcome)
    assert outcome.counts["struck"] > 20, outcome.counts  # they are missed
    for verb in ("record", "fail", "suspend", "transact_step", "end"):
        assert outcome.counts[f"refused {verb}"], outcome.counts  # and they do try
    assert outcome.counts["refused signal"] + outcome.counts["refused start"], outcome.counts


def test_twenty_processes_that_start_one_id_get_one_run(tmp_path: Path) -> None:
    assert right(race_to_start(tmp_path, 20, 30))


def test_of_two_processes_that_resume_answer_or_cancel_one_run_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    outcome = race_in_pairs(tmp_path, 90)
    assert right(outcome)
    assert outcome.counts["resume: WrongState"] == outcome.counts["answer: SignalSuperseded"] == 30


def test_two_that_take_over_from_a_dead_worker_free_its_runs_once(tmp_path: Path) -> None:
    assert right(race_to_take_over(tmp_path, 20))


def test_two_that_take_over_from_a_silent_worker_free_its_runs_once(tmp_path: Path) -> None:
    assert right(race_to_take_over(tmp_path, 5, silent=True))


def test_without_the_fence_late_writes_of_all_kinds_are_accepted_and_noticed(tmp_path: Path) -> None:
    late = set[str]()
    for seed in range(1, 9):  # what a process was at when it was stopped is chance: some 30 stops seldom miss a kind
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcome = stop_fleet(folder, 30, seed, "no_fence")
        late |= {problem.what.rpartition(" ")[2] for problem in outcome.problems if "late write" in problem.what}
        if {"record", "end", "suspend"} <= late:
            return
    pytest.fail(f"only {sorted(late)} came late")


def test_an_engine_in_which_nothing_is_broken_is_blamed_for_nothing(tmp_path: Path) -> None:
    assert noticed("nothing", tmp_path, tries=3) is None


@pytest.mark.parametrize("rule", list(broken_rules()), ids=lambda rule: rule.name)
def test_each_rule_that_is_broken_on_purpose_is_noticed(rule: BrokenRule) -> None:
    assert rule.until_noticed()
