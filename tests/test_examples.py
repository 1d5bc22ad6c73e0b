"""The examples as a newcomer meets them: started, killed with SIGKILL, started again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.house import ROOT, killed_at, python

FIRST = ROOT / "examples" / "first.py"
BRANCHES = ROOT / "examples" / "branches.py"
_CITIES = ("Oslo", "Accra", "Lima", "Hanoi")
SERVED = "served: cup 1, cup 2, cup 3, cup 4, cup 5"
TODAY = "today: Oslo 22°, Accra 23°, Lima 22°, Hanoi 23°"


def test_the_first_example_killed_in_the_middle_goes_on_with_the_step_it_was_at(tmp_path: Path) -> None:
    journal = tmp_path / "first.db"
    assert killed_at("brewing cup 3", [FIRST, journal]) == ["brewing cup 1", "brewing cup 2", "brewing cup 3"]
    again = python(FIRST, journal).splitlines()
    assert again == ["brewing cup 3", "brewing cup 4", "brewing cup 5", SERVED]


def test_the_first_example_started_after_its_end_runs_nothing_again(tmp_path: Path) -> None:
    journal = tmp_path / "first.db"
    killed_at("brewing cup 5", [FIRST, journal])
    assert python(FIRST, journal).splitlines() == ["brewing cup 5", SERVED]
    assert python(FIRST, journal).splitlines() == [SERVED]


@pytest.mark.parametrize("line", ["measuring Oslo at 6", "measuring Lima at 18", "rendering Hanoi"])
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
