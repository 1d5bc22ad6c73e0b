"""Journals that the tests of the command line share: nobody changes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli import journals


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with a run in each state, alone in its folder."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    journals.every_state(path)
    return path


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal in which each text is out to harm whoever looks."""
    path = tmp_path_factory.mktemp("hostile") / "hostile.db"
    journals.hostile(path)
    return path
