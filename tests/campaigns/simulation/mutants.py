"""The engine with one rule broken, for each rule: the campaign must notice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

__all__ = ["MUTANTS"]

MUTANTS: dict[str, Callable[[], AbstractContextManager[object]]] = {}
