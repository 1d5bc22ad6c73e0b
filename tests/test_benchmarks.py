"""What waiting costs can be measured: on a small scale here, the figures themselves are for people to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import waits


def test_many_runs_that_wait_and_many_timers_at_once_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, small in (("UNLOAD_AFTER", 0.01), ("IDLE", 0.01), ("WOKEN", 3), ("AT_ONCE", 10)):
        monkeypatch.setattr(waits, name, small)
    for what, measure in (("waiting", waits.waiting), ("timers", waits.timers)):
        folder = tmp_path / what
        folder.mkdir()
        figures = measure(folder, 20)
        assert all(isinstance(figure, float) for figure in figures.values())
    assert "ms of event loop lag, 99th percentile" in figures
