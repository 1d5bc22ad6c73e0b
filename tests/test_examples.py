"""The examples as a newcomer meets them: started, killed with SIGKILL, started again."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.house import ROOT, killed_at, python, started

FIRST = ROOT / "examples" / "first.py"
REVIEW = ROOT / "examples" / "review.py"
BRANCHES = ROOT / "examples" / "branches.py"
TRANSFER = ROOT / "examples" / "transfer.py"
_CITIES = ("Oslo", "Accra", "Lima", "Hanoi")
SERVED = "served: cup 1, cup 2, cup 3, cup 4, cup 5"
TODAY = "today: Oslo 22°, Accra 23°, Lima 22°, Hanoi 23°"


def rarely(*places: object) -> list[Any]:
    """Places to kill at that are kept for campaigns: an example takes seconds, so that people can follow it."""
    return [pytest.param(place, marks=pytest.mark.campaign) for place in places]


def test_the_first_example_killed_in_the_middle_goes_on_with_the_step_it_was_at_and_runs_nothing_after_its_end(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "first.db"
    assert killed_at("brewing cup 3", [FIRST, journal]) == ["brewing cup 1", "brewing cup 2", "brewing cup 3"]
    again = python(FIRST, journal).splitlines()
    assert again == ["brewing cup 3", "brewing cup 4", "brewing cup 5", SERVED]
    assert python(FIRST, journal).splitlines() == [SERVED]


def test_the_review_example_killed_while_it_waits_is_answered_from_another_process(tmp_path: Path) -> None:
    journal = tmp_path / "review.db"
    question = f"Review of {{'order': 'order-1', 'cents': 12900}}? answer with: review.py {journal} NAME"
    killed_at(question, [REVIEW, journal])
    with started(REVIEW, journal) as process:
        assert process.stdout is not None
        lines = (line.rstrip("\n") for line in process.stdout)
        assert question in lines  # it stands there until it is answered
        assert python(REVIEW, journal, "ada") == ""
        rest = list(lines)
    assert "running: released by ada" in rest or "suspended: released by ada" in rest
    assert rest[-1] == "paid with r-17; packed a book; packed a pen; packed a lamp"
    assert sorted(line for line in rest if line.startswith("packing")) == [
        "packing a book",
        "packing a lamp",
        "packing a pen",
    ]
    assert python(REVIEW, journal).splitlines()[-1] == rest[-1]


@pytest.mark.parametrize("line", ["measuring Lima at 18", *rarely("measuring Oslo at 6", "rendering Hanoi")])
def test_branches_killed_in_the_middle_get_their_own_results(tmp_path: Path, line: str) -> None:
    journal = tmp_path / "branches.db"
    before = killed_at(line, [BRANCHES, journal])
    after = python(BRANCHES, journal).splitlines()
    assert after[-1] == TODAY
    effects = Counter(before + after[:-1])
    assert set(effects) == _all_effects()
    assert max(effects.values()) <= 2
    for city in _CITIES:
        # A step begins after what its branch got before is committed: what lies behind a seen step is recorded.
        if f"rendering {city}" in before:
            assert not [effect for effect in after if effect.startswith(f"measuring {city}")]
        if f"measuring {city} at 12" in before:
            assert f"measuring {city} at 6" not in after


def _all_effects() -> set[str]:
    return {f"measuring {city} at {hour}" for city in _CITIES for hour in (6, 12, 18)} | {
        f"rendering {city}" for city in _CITIES
    }


@pytest.mark.parametrize("booking", [5, *rarely(1, 9)])
def test_the_transfer_example_killed_in_the_middle_keeps_the_sum_and_books_each_transfer_once(
    tmp_path: Path, booking: int
) -> None:
    journal = tmp_path / "transfer.db"
    lines = [
        f"booking {number}: 30 from {debit} to {credit}"
        for number, (debit, credit) in enumerate((("ann", "bob"), ("bob", "cay"), ("cay", "ann")) * 3, 1)
    ]
    before = killed_at(lines[booking - 1], [TRANSFER, journal])
    assert before == lines[:booking]
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        ((kept,),) = connection.execute("SELECT sum(cents) FROM accounts")
        assert kept == 100
    *after, last, accounts = python(TRANSFER, journal).splitlines()
    # The last line was printed before its commit: it may be there once more, and is booked once all the same.
    assert after in (lines[booking - 1 :], lines[booking:])
    assert (last, accounts) == ("last booking: 9", "ann 100, bob 0, cay 0")
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        booked = connection.execute("SELECT number, debit, credit, cents FROM bookings ORDER BY number").fetchall()
    assert [f"booking {number}: {cents} from {debit} to {credit}" for number, debit, credit, cents in booked] == lines
    assert python(TRANSFER, journal).splitlines() == [last, accounts]
