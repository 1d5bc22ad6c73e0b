"""The journal in one SQLite file: the storage adapter behind the port."""

from __future__ import annotations

from .journal import SqliteJournal

__all__ = ["SqliteJournal"]
