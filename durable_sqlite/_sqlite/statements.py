"""Loads the SQL of the named file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

__all__ = ["load", "parse"]

_MARK = "-- name: "


def parse(text: str) -> Mapping[str, str]:
    """Cut a file into its named statements; what stands under a name up to the next comment or blank line is its SQL.

    Raises:
        ValueError: One name stands there twice.
    """
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        if line.startswith(_MARK):
            name = line.removeprefix(_MARK).strip()
            if name in found:
                raise ValueError(f"two statements are named {name}")
            lines = found[name] = []
        elif not line.strip() or line.startswith("--"):
            lines = None
        elif lines is not None:
            lines.append(line)
    return MappingProxyType({name: "\n".join(body).rstrip(";") for name, body in found.items()})


@cache
def load() -> Mapping[str, str]:
    """The statements of this journal by name."""
    from importlib import resources  # noqa: PLC0415 - the command line cuts a file of its own, and wants to be quick

    return parse(resources.files("durable_sqlite._sqlite").joinpath("statements.sql").read_text(encoding="utf-8"))
