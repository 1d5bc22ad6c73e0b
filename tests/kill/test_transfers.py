"""Money and orders under SIGKILL: whatever dies wherever, rows and journal are one, and each booking is there once."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path
from shutil import copy

import pytest

from tests.kill.processes import STRIDES, chosen, exit_code, exit_codes
from tests.kill.transfers import TRANSFERS, Death, books, live
from tests.support.bounds import bounded

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

RUNS = ["round-0"]
ORDERS = ["order-0", "order-1"]


def finished(journal: Path, runs: list[str], orders: list[str], where: str) -> None:
    """Nothing is missing, nothing is there twice, and the rows are as the journal says."""
    found = books(journal)
    found.check(where)
    assert sorted(found.bookings) == sorted((run, f"transfer#{n + 1}") for run in runs for n in range(TRANSFERS)), where
    assert found.orders == found.shipments == Counter(orders), where


def prepared(folder: Path) -> Path:
    """A file in which accounts are open and nothing has happened."""
    journal = folder / "prepared.db"
    assert exit_code(live, str(journal), Death(), [], []) == 0
    return journal


def copied(source: Path, target: Path) -> Path:
    """The same file under another name."""
    copy(source, target)
    return target


def undisturbed(folder: Path, source: Path) -> tuple[int, list[str]]:
    """How many events a life has that nobody disturbs, and which failpoints it passes."""
    journal, report = copied(source, folder / "undisturbed.db"), folder / "report"
    assert exit_code(live, str(journal), Death(), RUNS, ORDERS, str(report)) == 0
    finished(journal, RUNS, ORDERS, "undisturbed")
    events, *points = report.read_text().split()
    return int(events), points


@STRIDES
def test_killed_at_any_failpoint_the_rows_are_as_the_journal_says_and_each_booking_is_there_once(
    tmp_path: Path, stride: int
) -> None:
    source = prepared(tmp_path)
    _, points = undisturbed(tmp_path, source)
    assert {"commit.before", "commit.after", "close.before_release"} <= set(points)
    numbers = chosen(points, stride)
    journals = [copied(source, tmp_path / f"{number}.db") for number in numbers]
    wheres = [f"killed at {number} of {len(points)} ({points[number - 1]})" for number in numbers]
    deaths = [Death(point=number) for number in numbers]
    codes = exit_codes(live, *((str(file), death, RUNS, ORDERS) for file, death in zip(journals, deaths, strict=True)))
    assert set(codes) <= {0, -signal.SIGKILL}
    assert -signal.SIGKILL in codes, "timings move some failpoints past the end, not all"
    for journal, where in zip(journals, wheres, strict=True):
        books(journal).check(where)
    assert exit_codes(live, *((str(file), Death(), RUNS, ORDERS) for file in journals)) == [0] * len(numbers)
    for journal, where in zip(journals, wheres, strict=True):
        finished(journal, RUNS, ORDERS, where)


def killed_at_random(folder: Path, kills: int, seed: int) -> None:
    """Kill two processes at a time on one file, at whatever call they are, until there were so many kills."""
    source = prepared(folder)
    events, points = undisturbed(folder, source)
    journal, chance = copied(source, folder / "random.db"), random.Random(seed)
    runs: list[str] = []
    orders: list[str] = []
    done = generation = 0
    while done < kills:
        mine = [([f"round-{generation}-{n}"], [f"order-{generation}-{n}-{m}" for m in (0, 1)]) for n in (0, 1)]
        runs += [run for own, _ in mine for run in own]
        orders += [order for _, own in mine for order in own]
        generation += 1
        for _ in range(chance.randint(1, 6)):  # how often they get to try, before there is something new
            # Half of them at any call at all, half where it matters most.
            deaths = [Death(event=chance.randint(1, events)), Death(point=chance.randint(1, len(points)))]
            lives = [(str(journal), death, *own) for death, own in zip(deaths, mine, strict=True)]
            codes = exit_codes(live, *lives)
            assert set(codes) <= {0, -signal.SIGKILL}
            done += codes.count(-signal.SIGKILL)
            books(journal).check(f"after {done} kills of seed {seed}")
    assert exit_code(live, str(journal), Death(), runs, orders) == 0
    finished(journal, runs, orders, f"after {done} kills of seed {seed}")


def test_two_processes_killed_at_random_again_and_again_lose_nothing_and_book_nothing_twice(tmp_path: Path) -> None:
    killed_at_random(tmp_path, 15, seed=5)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", bounded(range(10), 2))
def test_hundreds_of_random_kills_lose_nothing_and_book_nothing_twice(tmp_path: Path, seed: int) -> None:
    killed_at_random(tmp_path, 100, seed)


@pytest.mark.campaign
@pytest.mark.parametrize("rounds", bounded([80, 300], 1))
def test_kills_at_any_instruction_leave_both_row_and_run_or_neither(tmp_path: Path, rounds: int) -> None:
    """By the clock, so also in the middle of what SQLite does: no place of ours."""
    source, chance = prepared(tmp_path), random.Random(3)
    journal = copied(source, tmp_path / "clock.db")
    runs: list[str] = []
    orders: list[str] = []
    for number in range(rounds):
        mine = [([f"round-{number}-{n}"], [f"order-{number}-{n}-{m}" for m in (0, 1)]) for n in (0, 1)]
        lives = [(str(journal), Death(), *own) for own in mine]
        codes = exit_codes(live, *lives, killed_after=chance.uniform(0.01, 0.15))
        assert set(codes) <= {0, -signal.SIGKILL}
        books(journal).check(f"after {number} kills")
        runs += [run for own, _ in mine for run in own]
        orders += [order for _, own in mine for order in own]
    assert exit_code(live, str(journal), Death(), runs, orders) == 0
    finished(journal, runs, orders, "after all kills")
