"""Strategies for hypothesis: inputs of a workflow, what goes wrong meanwhile, and orders in which outcomes arrive.

hypothesis is imported when the first of them is made; `pip install 'durable_sqlite[testing]'` brings it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .._steps import Step
from .._transactions import Transaction
from .._workflows import Workflow
from ..errors import PayloadError, UsageError
from ._plans import Crash, Fail
from ._schedules import Schedules
from ._schedules import schedules as _schedules

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

    from .._handle import Run

__all__ = ["PlannedRun", "faults", "runs", "schedules"]

P = ParamSpec("P")
R = TypeVar("R")

_INSTALL = "strategies need hypothesis, which is not installed: pip install 'durable_sqlite[testing]'"
_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class PlannedRun(Generic[P, R]):
    """A run that a test is going to start. Printed, it is the call that would start it."""

    workflow: Workflow[P, R]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    async def start(self) -> Run[R]:
        """Start it in the engine that is open here."""
        workflow: Workflow[..., R] = self.workflow
        return await workflow.start(*self.args, **self.kwargs)

    def __repr__(self) -> str:
        parts = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.workflow.name}({', '.join(parts)})"


def runs(workflow: Workflow[P, R], /, **given: SearchStrategy[Any]) -> SearchStrategy[PlannedRun[P, R]]:
    """Runs of a workflow with inputs drawn from the types of its parameters.

    What pydantic refuses is not drawn, nor what the journal could not store. Where a type says less than is meant, or so
    much that hardly anything fits, name a strategy for the parameter: `runs(fulfil, order=orders)`.

    Args:
        workflow: The workflow; options that were chosen for a start are kept.
        given: Strategies for parameters by their names.

    Raises:
        UsageError: What was given is no workflow, or it has no such parameter.
        DefinitionError: The annotation of a parameter cannot be resolved.
        ModuleNotFoundError: hypothesis is not installed; the message says how to get it.
    """
    if not isinstance(workflow, Workflow):
        raise UsageError(f"strategies.runs takes a workflow, not {workflow!r}")
    _need_hypothesis()
    from hypothesis import reject  # noqa: PLC0415
    from hypothesis import strategies as st  # noqa: PLC0415
    from pydantic import ValidationError  # noqa: PLC0415

    parameters = workflow.spec.parameters
    types = parameters.types()
    for name in given:
        if name not in types:
            raise UsageError(f"workflow {workflow.name} has no parameter {name!r}: it has {', '.join(types) or 'none'}")
    signature = inspect.signature(workflow.fn)
    drawn: dict[str, SearchStrategy[Any]] = {}
    for name, annotation in types.items():
        default = signature.parameters[name].default
        if name in given:
            drawn[name] = given[name]
        elif default is inspect.Parameter.empty:
            drawn[name] = _of_type(annotation)
        else:  # shrunk towards what a run gets that is started without it
            drawn[name] = st.just(default) | _of_type(annotation)

    def planned(draw: DrawFn) -> PlannedRun[P, R]:
        bound = inspect.BoundArguments(signature, {})
        try:
            bound.arguments.update({name: draw(strategy) for name, strategy in drawn.items()})
            parameters.dump(bound, f"workflow {workflow.name}: input")
        except (ValidationError, PayloadError):
            reject()
        return PlannedRun(workflow, bound.args, bound.kwargs)

    return st.composite(planned)()


def faults(
    *steps: Step[..., Any] | Transaction[..., Any] | str, crashes: int = 1, writes: int = 50, times: int = 3
) -> SearchStrategy[tuple[Crash | Fail, ...]]:
    """Plans of what goes wrong while a run is driven: failing attempts first, then crashes in their order.

    The smallest of them is that nothing does, and hypothesis shrinks towards it.

    Args:
        steps: Steps whose attempts may fail, or their names.
        crashes: How many times the process dies at most.
        writes: The last write to the journal at which it dies.
        times: How many attempts of one call fail at most; leave some to the step's `Retry` where the run is to complete.

    Raises:
        UsageError: A number is out of range, or what was given is no step.
        ModuleNotFoundError: hypothesis is not installed; the message says how to get it.
    """
    for what, number, least in (("crashes", crashes, 0), ("writes", writes, 1), ("times", times, 1)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise UsageError(f"strategies.faults({what}=...) takes a whole number from {least}, not {number!r}")
    names = list(dict.fromkeys(_name(each) for each in steps))
    _need_hypothesis()
    from hypothesis import strategies as st  # noqa: PLC0415

    crash = st.builds(Crash, st.integers(1, writes), st.sampled_from(("before", "after")))
    counts = st.fixed_dictionaries({name: st.integers(0, times) for name in names})

    def plan(failing: dict[str, int], dying: list[Crash]) -> tuple[Crash | Fail, ...]:
        return (*(Fail(name, failing[name]) for name in names if failing[name]), *dying)

    return st.builds(plan, counts, st.lists(crash, max_size=crashes))


def schedules(*, patience: float = 1.0) -> SearchStrategy[Schedules]:
    """Orders in which outcomes arrive, each a context manager as `durable_sqlite.testing.schedules` gives it.

    Raises:
        ModuleNotFoundError: hypothesis is not installed; the message says how to get it.
    """
    _need_hypothesis()
    from hypothesis import strategies as st  # noqa: PLC0415

    return st.integers(0, _SEEDS).map(partial(_schedules, patience=patience))


def _need_hypothesis() -> None:
    """Say how to get it; who makes no strategy need not have it."""
    try:
        import_module("hypothesis")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_INSTALL, name="hypothesis") from error


def _of_type(annotation: Any) -> SearchStrategy[Any]:
    """Values of a type; of `Any`, what JSON has."""
    from hypothesis import strategies as st  # noqa: PLC0415

    if annotation is not Any:
        return st.from_type(annotation)
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()

    def within(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
        return st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5)

    return st.recursive(leaves, within, max_leaves=10)


def _name(step: object) -> str:
    if isinstance(step, (Step, Transaction)):
        return step.name
    if isinstance(step, str) and step:
        return step
    raise UsageError(f"strategies.faults takes steps or their names, not {step!r}")
