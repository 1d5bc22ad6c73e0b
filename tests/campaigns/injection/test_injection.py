"""A few of the faults at writes and syncs; all of them are `python -m tests.campaigns injection`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .campaign import play_all
from .trials import may_trace

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def test_errors_and_kills_at_writes_and_syncs_lose_nothing_and_are_told(tmp_path: Path) -> None:
    if not may_trace():
        pytest.skip("strace is needed, and leave to trace")
    result = play_all(tmp_path, seed=2, each=3)
    assert not result.findings, result.findings[:5]
    for outcome in ("passed", "told", "killed"):
        assert result.counts[outcome], result.counts
