"""Some dozens of random programs that wait, against a plain model; `python -m tests.campaigns waiting` plays more."""

from __future__ import annotations

from tests.campaigns.waiting.campaign import play


def test_the_engine_and_the_model_agree_on_programs_that_wait() -> None:
    tally = play(60, 1)
    assert not tally.found, tally.found[0][1]
