"""Checkers broken on purpose: the campaign has to find what they let pass."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

from durable_sqlite._sqlite import queries, verify

__all__ = ["MUTANTS"]


@contextmanager
def _no_sums() -> Generator[None]:
    """Nothing is held against its checksum."""

    def blind(*_: Any) -> tuple[list[Any], int]:
        return [], 0

    with patch.object(queries, "misfits", blind), patch.object(verify, "misfits", blind):
        yield


@contextmanager
def _no_structure() -> Generator[None]:
    """SQLite is not asked whether the file is whole."""

    def blind(_: Any) -> list[Any]:
        return []

    with patch.object(verify, "_structure", blind):
        yield


MUTANTS: dict[str, tuple[str, Callable[[], AbstractContextManager[None]]]] = {
    "mark": ("The file that says how far the journal had come is lost each time.", nullcontext),  # by the laboratory
    "sums": ("Nothing is held against its checksum.", _no_sums),
    "structure": ("SQLite is not asked whether the file is whole.", _no_structure),
}
"""By name, what each breaks, in words and in deed."""
