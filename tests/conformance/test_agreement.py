"""All journals give the same answers: random programs of verbs, over the one in memory and the one in a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conformance.agreement import play
from tests.support.bounds import bounded


@pytest.mark.parametrize("seed", range(20))
def test_the_journals_agree_on_random_programs(seed: int, tmp_path: Path) -> None:
    asyncio.run(play(seed, tmp_path / "journal.db", steps=80))


@pytest.mark.campaign
@pytest.mark.parametrize("seed", bounded(range(1_000, 1_400), 80))
def test_the_journals_agree_on_random_programs_by_the_hundred(seed: int, tmp_path: Path) -> None:
    asyncio.run(play(seed, tmp_path / "journal.db", steps=200))
