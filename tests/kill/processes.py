"""Children that are born ready: forked from a process that has imported everything and opened nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

__all__ = ["exit_code"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.kill.scenario"])


def exit_code(function: Callable[..., Any], *args: Any) -> int:
    """Run a function of a module in a child; how the child ended, -9 if it was killed."""
    child = _CONTEXT.Process(target=function, args=args)
    child.start()
    child.join(60)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode
