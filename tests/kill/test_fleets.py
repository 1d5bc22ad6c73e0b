"""A few kills, stops and races of many processes on one journal; `tests.campaigns` has them by the thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.fleet.fleet import kill_fleet
from tests.campaigns.fleet.races import race_in_pairs, race_to_start, race_to_take_over
from tests.campaigns.fleet.zombies import stop_fleet

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_a_few_kills_of_a_fleet_lose_nothing_and_record_nothing_twice(tmp_path: Path) -> None:
    outcome = kill_fleet(tmp_path, 8, seed=1, gently=True)
    assert not outcome.problems, outcome.problems[:5]
    assert outcome.counts["kept"]


def test_processes_that_are_stopped_past_their_lease_write_nothing_late(tmp_path: Path) -> None:
    outcome = stop_fleet(tmp_path, 4, seed=1)
    assert not outcome.problems, outcome.problems[:5]


def test_processes_that_start_one_id_at_once_get_one_run(tmp_path: Path) -> None:
    assert not race_to_start(tmp_path, 5, 2).problems


def test_of_two_processes_that_resume_answer_or_cancel_one_run_at_once_one_wins_and_the_other_is_told(
    tmp_path: Path,
) -> None:
    assert not race_in_pairs(tmp_path, 3).problems


def test_two_workers_that_take_over_from_a_dead_one_at_once_free_its_runs_once(tmp_path: Path) -> None:
    assert not race_to_take_over(tmp_path, 2).problems
