"""Inputs of a workflow, drawn from the types of its parameters by hypothesis."""
# The types of parameters are resolved where values are read with them.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import inspect
from typing import Any

from ..errors import PayloadError, UsageError
from ._explore import CrashFound, Explored, Explorer

__all__ = ["explore_drawn"]


def explore_drawn(explorer: Explorer, *, examples: int, seed: int) -> Explored:
    """Explore with several inputs; the last that was seen.

    Raises:
        CrashFound: Something differs after a crash, with the simplest input for which that is so.
        UsageError: Hypothesis is not there, or no input could be drawn.
    """
    workflow = explorer.workflow
    try:
        import hypothesis  # noqa: PLC0415 - optional
        from hypothesis import strategies  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            f"{workflow.name} takes an input and none was given: give one, or install hypothesis, which draws some"
        ) from None
    parameters = workflow.spec.parameters
    needed = [
        each.name
        for each in inspect.signature(workflow.fn).parameters.values()
        if each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    types: dict[str, Any] = {name: parameters._type(name) for name in needed}
    seen: list[Explored] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    @hypothesis.given(strategies.fixed_dictionaries({name: strategies.from_type(each) for name, each in types.items()}))
    def explore(inputs: dict[str, Any]) -> None:
        try:
            seen.append(explorer.explore((), inputs))
        except PayloadError:
            hypothesis.reject()  # such as NaN: no run can begin with it
        except CrashFound as found:
            explorer.narrow(found.point)  # what is simpler is to show it there as well
            raise

    explore()
    return seen[-1]
