"""Connections that break the rules of checkpoints."""

from __future__ import annotations

import sqlite3
from typing import Any

from durable_sqlite._sqlite.link import JobConnection

__all__ = ["Careless", "Reckless"]

_MMAP = 1024 * 1024 * 1024


class Careless(JobConnection):
    """Checkpoints are PASSIVE, beside anybody's commit, and the file is mapped."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith("PRAGMA wal_checkpoint"):
            sql = "PRAGMA wal_checkpoint(PASSIVE)"
        return super().execute(sql.replace("mmap_size = 0", f"mmap_size = {_MMAP}"), parameters)


class Reckless(Careless):
    """Nor is it seen first whether somebody commits."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        return super().execute("BEGIN" if sql == "BEGIN IMMEDIATE" else sql, parameters)
