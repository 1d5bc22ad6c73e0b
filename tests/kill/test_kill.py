"""Real kills: SIGKILL at every named place of the write path, and what the next process makes of it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from durable_sqlite import Engine, RunFailed, RunParked
from tests.kill.processes import STRIDES, chosen, exit_code, killed_at_word
from tests.kill.scenario import EXPECTED, RUN_ID, back_off, live, settled

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def begun(log: Path, pid_not: set[str] | None = None) -> Counter[str]:
    """How often each step's body began, by run and key."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return Counter(f"{run} {key}" for word, run, key, pid in lines if word == "begin" and pid not in (pid_not or set()))


def result(journal: Path, run_id: str = RUN_ID) -> object:
    async def read() -> object:
        async with Engine(journal, drive=False) as engine:
            return await engine.run(run_id)

    return asyncio.run(read())


def points(tmp_path: Path) -> list[str]:
    """The named places that one undisturbed life passes, in their order."""
    journal, log = tmp_path / "count.db", tmp_path / "count.log"
    assert exit_code(live, str(journal), str(log), 0) == 0
    assert result(journal) == EXPECTED
    return Path(f"{log}.points").read_text().split()


@STRIDES
def test_killed_at_any_failpoint_the_next_process_finishes_and_runs_nothing_recorded_again(
    tmp_path: Path, stride: int
) -> None:
    passed = points(tmp_path)
    assert {"commit.before", "commit.after", "step.before", "step.after", "close.before_release"} <= set(passed)
    numbers = chosen(passed, stride)
    killed = 0
    for number in numbers:
        journal, log = tmp_path / f"{number}.db", tmp_path / f"{number}.log"
        code = exit_code(live, str(journal), str(log), number)
        killed += code == -signal.SIGKILL
        where = f"killed at {number} of {len(passed)} ({passed[number - 1]})"
        recorded = {f"{RUN_ID} {key}" for key in settled(journal)} if journal.exists() else set[str]()
        before = begun(log)
        assert exit_code(live, str(journal), str(log), 0) == 0, where
        assert result(journal) == EXPECTED, where
        after = begun(log)
        assert {key for key in recorded if after[key] != before[key]} == set(), where
        assert max(after.values()) <= 1 + (code != 0), where
    assert killed >= len(numbers) - 3, "timings move a failpoint or two past the end, not more"


def test_a_kill_in_recovery_itself_loses_nothing(tmp_path: Path) -> None:
    journal, log = tmp_path / "twice.db", tmp_path / "twice.log"
    chance = random.Random(7)
    assert exit_code(live, str(journal), str(log), 25) == -signal.SIGKILL
    for _ in range(4):  # four more lives, each killed soon after it opened the journal: no run is parked for that
        exit_code(live, str(journal), str(log), chance.randint(1, 9))
    assert exit_code(live, str(journal), str(log), 0) == 0
    assert result(journal) == EXPECTED


@pytest.mark.parametrize("lives", [20, pytest.param(100, marks=pytest.mark.campaign)])
def test_random_kills_with_progress_in_between_park_nothing(tmp_path: Path, lives: int) -> None:
    """Many more than the five deaths in a row after which a run without progress is parked."""
    journal, log = tmp_path / "march.db", tmp_path / "march.log"
    chance = random.Random(11)
    kills = 0
    for _ in range(lives):  # the n-th step of a life begins only when those before it are recorded
        kills += (
            exit_code(live, str(journal), str(log), chance.randint(2, 3), "march", "step.before") == -signal.SIGKILL
        )
    assert kills == lives
    assert lives <= len(settled(journal)) < 250
    assert exit_code(live, str(journal), str(log), 0, "march") == 0
    assert result(journal) == 250
    assert max(begun(log).values()) <= 2


def test_a_run_that_kills_its_process_is_parked_and_its_neighbour_ends(tmp_path: Path) -> None:
    journal, log = tmp_path / "poison.db", tmp_path / "poison.log"
    lives = 0
    while exit_code(live, str(journal), str(log), 0, "poison") != 0:
        lives += 1
        assert lives <= 12, "the poisonous run is never parked"
    assert result(journal, "neighbour") == 30
    with pytest.raises(RunParked) as parked:
        result(journal)
    assert parked.value.reason == "crash_loop"
    assert begun(log)[f"{RUN_ID} swallow_poison#1"] == 5
    assert begun(log)[f"{RUN_ID} walk#1"] == 1


def attempts(journal: Path) -> list[tuple[int, int | None]]:
    """When each failed attempt of a run of one step began, and when the next was to begin, as the journal holds it."""

    async def read() -> list[tuple[int, int | None]]:
        async with Engine(journal, drive=False) as engine:
            assert engine._session is not None
            row = await engine._session.journal.run(RUN_ID)
            assert row is not None
            memory = await engine._session.journal.memory(row.no)
            failed = [(attempt.started_at, attempt.next_at) for attempt in memory.attempts]
            return failed + [(entry.started_at, None) for entry in memory.entries]

    return asyncio.run(read())


def test_killed_in_the_back_off_the_attempts_of_both_processes_are_as_many_as_allowed_and_none_is_early(
    tmp_path: Path,
) -> None:
    journal, log = tmp_path / "retry.db", tmp_path / "retry.log"
    assert killed_at_word(back_off, str(journal), str(log)) == "backing off"
    ((first, promised),) = attempts(journal)
    assert exit_code(live, str(journal), str(log), 0, "stubborn") == 0
    with pytest.raises(RunFailed) as failed:
        result(journal)
    assert failed.value.reason == "retries_exhausted"

    made = [line.split() for line in log.read_text().splitlines()]
    assert [(attempt, key) for attempt, _run, key, _pid in made] == [(str(n), "stumbles_on#1") for n in (1, 2, 3)]
    pids = [pid for *_, pid in made]
    assert pids[0] != pids[1] == pids[2]

    (begun_first, due_second), (begun_second, due_third), (begun_third, _) = attempts(journal)
    assert (begun_first, due_second) == (first, promised)  # what was recorded before the kill is not written again
    assert due_second is not None
    assert due_third is not None
    assert due_second >= begun_first + 600_000
    assert begun_second >= due_second
    assert begun_third >= due_third
