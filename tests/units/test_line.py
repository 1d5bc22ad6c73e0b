"""What the parts of a pass tell it, until it is over."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from durable_sqlite._line import Line

TELLS: dict[str, tuple[Any, ...]] = {
    "wake": (),
    "drive": (),
    "transacted": (Mock(),),
    "diverged": ("another step",),
    "given_up": (Mock(),),
    "progressed": (),
    "awaits": ("another run",),
    "rested": (7,),
    "woke": (),
    "give_way": (),
    "overtaken": (),
    "refused": (LookupError(),),
    "lost": (),
}


@pytest.mark.parametrize("tell", TELLS)
def test_what_is_told_reaches_a_pass_until_the_line_is_cut(tell: str) -> None:
    run = Mock(over=False)
    line = Line(run)
    getattr(line, tell)(*TELLS[tell])
    getattr(run, tell).assert_called_once_with(*TELLS[tell])
    assert not line.is_over()
    run.reset_mock()
    line.cut()
    getattr(line, tell)(*TELLS[tell])
    assert run.mock_calls == []
    assert line.is_over()


def test_a_line_leads_to_all_that_it_is_for() -> None:
    assert set(TELLS) == {name for name in vars(Line) if not name.startswith("_")} - {"cut", "is_over"}


@pytest.mark.parametrize("tell", ["overtaken", "refused"])
def test_a_pass_that_is_over_is_not_given_up_again(tell: str) -> None:
    run = Mock(over=True)
    line = Line(run)
    getattr(line, tell)(*TELLS[tell])
    assert run.mock_calls == []
    assert line.is_over()
