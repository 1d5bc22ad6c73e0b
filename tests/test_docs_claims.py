"""Promises of the pages, and the tests that hold them: a promise that is new, or said otherwise, needs an entry here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.house import ROOT
from tests.support.pages import DOCS

_CONTRACT = {
    "At least once, at most one outcome": [
        "behaviour/test_replay.py::test_after_a_kill_no_recorded_step_runs_again",
        "behaviour/test_replay.py::test_a_step_killed_between_effect_and_record_runs_again_with_the_same_key_and_attempt",
        "behaviour/test_at_most_once.py::test_after_a_crash_or_a_close_in_the_middle_the_run_is_parked_and_the_step_not_begun_again",
        "kill/test_kill.py::test_killed_at_any_failpoint_the_next_process_finishes_and_runs_nothing_recorded_again",
        "conformance/test_workers.py::test_a_second_outcome_for_a_key_is_refused_by_the_journal_itself",
    ],
    "First pass equals replay": [
        "codec/test_values.py::test_the_first_run_sees_what_a_replay_sees",
        "behaviour/test_after_commits.py::test_whoever_waits_for_a_run_wakes_after_its_end_is_committed",
        "behaviour/test_step_errors.py::test_a_failed_step_is_equal_on_the_first_pass_and_on_replay",
    ],
    "One order": [
        "behaviour/test_replay.py::test_what_is_recorded_first_reaches_the_body_first_whatever_it_asks_for_first",
        "behaviour/test_asyncio_in_bodies.py::test_a_body_comes_out_alike_after_a_crash_at_any_write_and_begins_nothing_recorded_again",
        "campaigns/bodies/test_bodies.py::test_no_promise_is_broken_by_random_programs_with_crashes_unloads_and_cancels",
    ],
    "Divergence before effect": [
        "behaviour/test_changes_of_code.py::test_a_run_in_flight_is_stopped_before_any_effect_by_a_change_that_the_page_calls_a_divergence",
        "behaviour/test_divergence.py::test_a_changed_argument_parks_the_run_before_any_later_effect",
    ],
    "Acknowledged means on disk": [
        "campaigns/power/test_power.py::test_fifty_thousand_images_of_power_cuts_lack_nothing_that_was_acknowledged",
        "sqlite/test_ends.py::test_a_kill_at_any_place_leaves_what_was_acknowledged",
        "sqlite/test_opening.py::test_connections_are_set_for_durability",
    ],
    "Failures are counted on disk": [
        "behaviour/test_retries.py::test_a_restart_between_attempts_keeps_their_count_and_the_remaining_wait",
        "behaviour/test_dead_letters.py::test_a_letter_says_what_happened_and_is_there_as_soon_as_the_run_has_failed",
    ],
    "Nothing that was accepted is lost": [
        "behaviour/test_signals.py::test_a_signal_sent_before_the_wait_is_not_lost",
        "behaviour/test_signals.py::test_a_signal_that_was_taken_is_not_taken_again_after_a_crash",
        "behaviour/test_answers.py::test_of_two_answers_the_first_counts_and_the_second_learns_when_and_by_whom",
        "behaviour/test_cancelling.py::test_a_cancel_that_was_asked_for_before_a_kill_is_delivered_after_it",
    ],
    "Storage trouble fails nothing": [
        "behaviour/test_storage.py::test_runs_wait_for_the_storage_and_go_on_and_only_callers_are_told",
        "behaviour/test_storage.py::test_a_lock_held_for_75_seconds_is_told_to_callers_after_the_stated_time_and_fails_no_run",
        "sqlite/test_real_faults.py::test_errors_of_the_disk_at_any_write_and_sync_lose_nothing_and_heal",
    ],
    "A journal is data": [
        "behaviour/test_versions.py::test_a_journal_that_names_a_module_does_not_get_it_imported",
        "test_house.py::test_no_module_of_the_package_pickles",
    ],
}

_EXACTLY_ONCE = {
    "rows written through `tx` in a transaction step, its result, its journal entry": [
        "behaviour/test_transaction_failures.py::test_wherever_the_process_dies_rows_are_there_once_and_the_run_repeats_itself",
        "kill/test_transfers.py::test_killed_at_any_failpoint_the_rows_are_as_the_journal_says_and_each_booking_is_there_once",
    ],
    "runs started and messages sent through `tx`": [
        "conformance/test_transactions.py::test_a_row_and_a_start_and_a_message_are_one_commit",
        "kill/test_transfers.py::test_kills_at_any_instruction_leave_both_row_and_run_or_neither",
    ],
    "the body of a transaction": [
        "behaviour/test_transaction_failures.py::test_a_transaction_that_is_called_again_because_of_another_one_starts_the_same_runs"
    ],
    "a deferred constraint that fails at the commit": [
        "behaviour/test_transaction_failures.py::test_a_deferred_constraint_that_fails_at_the_commit_is_that_step_s_own_error"
    ],
    "the body of an ordinary step": [
        "behaviour/test_replay.py::test_a_step_killed_between_effect_and_record_runs_again_with_the_same_key_and_attempt"
    ],
    "rows written through `engine.connect()` in an ordinary step": [
        "behaviour/test_user_tables.py::test_a_step_may_take_a_connection_and_a_body_may_not"
    ],
    "rows in another SQLite file": [
        "behaviour/test_transactions.py::test_what_is_not_a_transaction_s_business_is_refused_with_the_reason"
    ],
    "anything outside the file: mail, payments, other databases": [
        "behaviour/test_replay.py::test_a_step_killed_between_effect_and_record_runs_again_with_the_same_key_and_attempt"
    ],
}

_COMPARED = {
    "Nothing to run": ["sqlite/test_backup.py::test_a_backup_is_one_file_for_its_owner_alone_that_opens_as_a_journal"],
    "Your rows in the same commit, and the next run too": _EXACTLY_ONCE["runs started and messages sent through `tx`"],
    "Plain asyncio": [
        "behaviour/test_asyncio_in_bodies.py::test_a_body_comes_out_alike_after_a_crash_at_any_write_and_begins_nothing_recorded_again",
        "behaviour/test_asyncio_in_bodies.py::test_the_tables_of_the_page_and_the_bodies_that_hold_them_are_the_same",
    ],
    "Code may change": [
        "behaviour/test_changes_of_code.py::test_a_run_in_flight_goes_on_with_a_change_that_the_page_calls_free"
    ],
    "Values come back as they were": ["codec/test_refusals.py::test_what_does_not_come_back_is_refused_with_its_path"],
    "Storage is not trusted": [
        *_CONTRACT["Acknowledged means on disk"],
        "behaviour/test_damage.py::test_a_damaged_run_is_parked_by_name_and_its_neighbours_go_on",
    ],
    "A stranger's journal is safe to look at": [
        *_CONTRACT["A journal is data"],
        "cli/test_harmless.py::test_what_a_stranger_wrote_prints_harmlessly",
    ],
}

_LIMITS = {
    "One machine": ["sqlite/test_mounts.py::test_an_engine_refuses_a_network_file_system_before_it_creates_anything"],
    "One write at a time": ["sqlite/test_trouble.py::test_a_foreign_lock_is_waited_for"],
    "A step's body runs at least once": _EXACTLY_ONCE["the body of an ordinary step"],
    "A body must be repeatable": [
        "behaviour/test_divergence.py::test_a_changed_argument_parks_the_run_before_any_later_effect"
    ],
    "A plain function cannot be stopped": [
        "behaviour/test_timeouts.py::test_a_thread_cannot_be_stopped_but_its_late_result_is_dropped"
    ],
    "No exactly-once over two files": _EXACTLY_ONCE["rows in another SQLite file"],
    "No network file systems": [
        "sqlite/test_mounts.py::test_an_engine_refuses_a_network_file_system_before_it_creates_anything"
    ],
    "POSIX systems": [],  # says what is not tried
}


def _section(page: str, title: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    return text.partition(f"{title}\n")[2].partition("\n## ")[0]


def _bold(text: str) -> list[str]:
    """What the points of a list begin with."""
    return [point.rstrip(".,") for point in re.findall(r"^(?:\d+\.|\*) \*\*(.+?)\*\*", text, re.MULTILINE)]


def _first_cells(text: str) -> list[str]:
    return [row for row in re.findall(r"^\| ([^|]+?) \|", text, re.MULTILINE) if row.strip()]


@pytest.mark.parametrize(
    ("promised", "held"),
    [
        (_bold(_section("contract.md", "# The contract")), _CONTRACT),
        (_first_cells(_section("exactly_once.md", "## What is exactly once, and what is not")), _EXACTLY_ONCE),
        (_bold(_section("comparison.md", "## Where this one is better")), _COMPARED),
        (_bold(_section("limits.md", "## By design")), _LIMITS),
    ],
    ids=["contract", "exactly once", "comparison", "limits"],
)
def test_each_promise_has_tests_that_hold_it(promised: list[str], held: dict[str, list[str]]) -> None:
    assert promised == list(held)
    assert sorted({test for tests in held.values() for test in tests if not _is_there(test)}) == []


def _is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    path: Path = ROOT / "tests" / file
    return (
        path.is_file()
        and re.search(rf"^(?:async )?def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE) is not None
    )
