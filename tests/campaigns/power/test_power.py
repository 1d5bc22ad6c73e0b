"""Whatever a power cut leaves of a journal: nothing that was acknowledged is lost, and runs go on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from .campaign import Part, Tally, parts, play, play_part
from .mutants import MUTANTS
from .trial import second_opinion
from .vfs import why_not

_IMAGES, _RESUMED, _AGAIN = 50_000, 500, 5_000
_NOTICED = 5_000
"""Images in which a broken rule is to be noticed."""

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(why_not() is not None, reason=f"no power is cut here: {why_not()}"),
]


def right(tally: Tally, images: int) -> bool:
    """Nothing was found among so many images; else the first of it is shown."""
    assert not tally.problems, tally.problems[:5]
    assert tally.counts["images"] == images, tally.counts
    return True


def test_fifty_thousand_images_of_power_cuts_lack_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    tally = play(parts(_IMAGES, seed=8, keep=tmp_path))
    assert right(tally, _IMAGES)
    assert tally.counts["resumed"] == _RESUMED, tally.counts
    assert tally.counts["cuts"] > _IMAGES / 5, tally.counts  # they are not the same ones again and again
    assert tally.counts["images without something acknowledged"] == 0


def test_at_normal_a_power_cut_takes_back_commits_from_the_end_and_nothing_else(tmp_path: Path) -> None:
    tally = play(parts(_AGAIN, seed=8, synchronous="normal", keep=tmp_path))
    assert right(tally, _AGAIN)
    assert tally.counts["images without something acknowledged"] > _AGAIN / 20, (
        tally.counts
    )  # there is something to lose


@pytest.mark.skipif(
    second_opinion() is None, reason="no second opinion: APSW, which brings another SQLite, is not here"
)
def test_another_build_of_sqlite_finds_the_same_in_what_a_power_cut_left() -> None:
    tally = play_part(Part(seed=9, images=500))
    assert right(tally, 500)
    assert tally.counts["opened by another SQLite"] == 50


@pytest.mark.parametrize("mutant", [name for name in MUTANTS if name])
def test_each_rule_of_durability_that_is_broken_on_purpose_is_noticed(mutant: str) -> None:
    assert play(parts(_NOTICED, seed=1, mutant=mutant)).problems
