"""Children that are born ready: forked from a process that has imported everything and opened nothing."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

__all__ = ["CONTEXT", "STRIDES", "chosen", "exit_code", "exit_codes", "killed_at_word"]

_PATIENCE = 60.0  # seconds after which a child hangs
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["tests.kill.scenario", "tests.kill.transfers", "tests.campaigns.fleet.member", "tests.campaigns.fleet.racers"]
)

STRIDES = pytest.mark.parametrize("stride", [8, pytest.param(1, marks=pytest.mark.campaign)], ids=["some", "all"])
"""Which places a test kills at: some of them every day, all in a campaign."""


def chosen(points: Sequence[str], stride: int) -> list[int]:
    """Numbers of the places to kill at: where each name is passed first and last, and every so many-th between."""
    first = {name: number for number, name in reversed(list(enumerate(points, 1)))}
    last = {name: number for number, name in enumerate(points, 1)}
    return sorted({*first.values(), *last.values(), *range(1, len(points) + 1, stride)})


def exit_code(function: Callable[..., Any], *args: Any) -> int:
    """Run a function of a module in a child; how the child ended, -9 if it was killed."""
    child = CONTEXT.Process(target=function, args=args)
    child.start()
    child.join(_PATIENCE)
    code = child.exitcode
    child.kill()  # else a child that hangs would hold up the end of the tests as well
    assert code is not None, "the child hangs"
    return code


def exit_codes(function: Callable[..., Any], *lives: tuple[Any, ...], killed_after: float | None = None) -> list[int]:
    """Run a function in several children at once, one for each set of arguments; how each child ended.

    With `killed_after`, the children are killed after so many seconds, wherever they are.
    """
    children = [CONTEXT.Process(target=function, args=args) for args in lives]
    for child in children:
        child.start()
    for child in children:
        child.join(_PATIENCE if killed_after is None else killed_after)
        if killed_after is not None:
            child.kill()
            child.join(_PATIENCE)
    codes = [child.exitcode for child in children]
    for child in children:
        child.kill()
    found = [code for code in codes if code is not None]
    assert len(found) == len(codes), "a child hangs"
    return found


def killed_at_word(function: Callable[..., Any], *args: Any) -> str:
    """Run a function of a module in a child, and kill it with SIGKILL as soon as it says something; what it said.

    The function is given, last of all, what it is to call with its word.
    """
    here, there = CONTEXT.Pipe(duplex=False)
    child = CONTEXT.Process(target=function, args=(*args, there.send))
    child.start()
    there.close()
    try:
        with here:
            assert here.poll(_PATIENCE), "the child says nothing"
            word: str = here.recv()
    finally:
        child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL, child.exitcode
    return word
