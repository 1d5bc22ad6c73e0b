"""The command line: `durable_sqlite`, `durable-sqlite`, `python -m durable_sqlite`."""

from __future__ import annotations

from ._main import main

__all__ = ["main"]
