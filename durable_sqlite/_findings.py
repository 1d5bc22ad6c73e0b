"""What `engine.verify()` finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "FindingKind", "Verification"]


class FindingKind(StrEnum):
    """What does not fit."""

    WENT_BACK = "went_back"
    """The mark beside the journal knows of commits that the journal does not hold."""
    OTHER_JOURNAL = "other_journal"
    """The mark beside the journal was of another one."""
    STRUCTURE = "structure"
    """SQLite itself finds the file damaged, or a row that breaks a rule of its table."""
    SCHEMA = "schema"
    """The journal's own tables are not as this library made them."""
    REFERENCE = "reference"
    """Rows that belong to a row which is not there."""
    ROWS = "rows"
    """Rows of a run are not those that were written: changed, missing, or never written."""
    ENTRY = "entry"
    """An entry of a run is not what was recorded."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was written."""

    kind: FindingKind
    what: str
    """In one sentence, with the facts."""
    next_move: str
    """What can be done about it."""
    run: str | None = None
    """The id of the run concerned, where it is one run."""
    key: str | None = None
    """The key of the entry concerned, where it is one entry."""

    def __str__(self) -> str:
        return f"{self.what}. What to do: {self.next_move}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was held against its checksums, and what did not fit."""

    findings: tuple[Finding, ...]
    runs: int
    """How many runs were looked at."""
    rows: int
    """How many rows of theirs."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings
