"""Finding definitions by name, and runs by what people say of them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard

from ._clock import from_datetime
from ._codec import Shape
from ._context import NOWHERE
from ._records import RunQuery, State, StateName
from ._specs import WorkflowSpec
from ._transactions import Transaction
from ._workflows import Workflow
from .errors import Unstorable, UsageError

__all__ = ["dump_result", "imported_workflow", "query_of", "step_exists"]


def step_exists(name: str) -> bool:
    """Whether a step of this name is defined anywhere in this process."""
    return bool(NOWHERE.steps_named(name))


def dump_result(name: str, value: Any, where: str) -> bytes:
    """A value as the step of this name stores its results; as plain JSON data where this process does not define it.

    Of several steps of one name, the latest that takes the value counts.

    Raises:
        Unstorable: None takes it; the message is that of the latest.
    """
    # What a transaction did is never in doubt.
    steps = [step for step in NOWHERE.steps_named(name) if not isinstance(step, Transaction)]
    shapes: list[Shape[Any]] = [step.returns for step in steps] or [Shape[Any](Any)]
    refusals: list[Unstorable] = []
    for shape in shapes:
        try:
            return shape.dump(value, where)
        except Unstorable as refusal:
            refusals.append(refusal)
    raise refusals[0]


def imported_workflow(name: str, origin: str) -> WorkflowSpec | None:
    """The workflow of this name where the journal says it was defined, if that module is imported already."""
    module_name, _, qualname = origin.partition(":")
    main = sys.modules["__main__"]
    here = Path(getattr(main, "__file__", None) or "").stem
    spec = getattr(main, "__spec__", None)
    names = {here} if spec is None else {spec.name, spec.name.removesuffix(".__main__")}
    found: Any = main if module_name in names else sys.modules.get(module_name)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found.spec if _is_workflow(found) and found.name == name else None


def _is_workflow(thing: object) -> TypeGuard[Workflow[..., Any]]:
    return isinstance(thing, Workflow)


def query_of(
    workflow: Workflow[..., Any] | str | None,
    state: State | StateName | Collection[State | StateName] | None,
    tags: Mapping[str, str] | None,
    created_from: datetime | None,
    created_before: datetime | None,
) -> RunQuery:
    """The query that people mean.

    Raises:
        UsageError: There is no such state.
    """
    states = (state,) if isinstance(state, str) else tuple(state or ())
    try:
        wanted = tuple(State(one) for one in states)
    except ValueError as error:
        raise UsageError(f"{error}; the states are {', '.join(State)}") from None
    return RunQuery(
        workflow=workflow.name if isinstance(workflow, Workflow) else workflow,
        states=wanted,
        tags=tuple((tags or {}).items()),
        created_from=None if created_from is None else from_datetime(created_from),
        created_before=None if created_before is None else from_datetime(created_before),
    )
