"""Where in a value: trails, and how they are written."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["Trail", "labels", "render"]

Trail = tuple[Any, Any] | None
"""A place as a chain: the trail of what holds it, and its label there; None is the whole value.

A label is an index, a key or the name of an attribute. Chains cost nothing until one is rendered.
"""


def render(trail: Trail) -> str:
    """A trail as a path: `$.lines[3].price`."""
    return "$" + "".join(_label(label) for label in labels(trail))


def labels(trail: Trail) -> list[Any]:
    """The labels of a trail, from the whole value down."""
    found: list[Any] = []
    while trail is not None:
        trail, label = trail
        found.append(label)
    found.reverse()
    return found


def _label(label: Any) -> str:
    if isinstance(label, str):
        return f".{label}" if label.isidentifier() else f"[{json.dumps(label)[:80]}]"
    return f"[{ascii(label)[:80]}]"
