"""A journal in memory: the port's second adapter, small, strict and fast.

A `Disk` is what survives; a `MemoryJournal` is one worker's life on it. A "restarted process" is a new `MemoryJournal`
on the same `Disk`. Whatever is queued when the commit is made forms one batch, as in the real one. A state that the port
does not know is an assertion that fails where it is written, and stays on the disk as a violation.
"""

from __future__ import annotations

from tests.support.disk import Disk
from tests.support.memory.clients import Clients
from tests.support.memory.control import Control
from tests.support.memory.pruning import Caring
from tests.support.memory.reads import Reads
from tests.support.memory.transacting import Transacting

__all__ = ["Disk", "MemoryJournal"]


class MemoryJournal(Clients, Control, Caring, Transacting, Reads):
    """One worker's door to a disk."""
