"""What a pass has been asked for, held against what the journal holds. Pure: it decides, others act.

An outcome is given back when two things are true: the body has asked for it, and it has the lowest place in the run's
order of all that the body has asked for. A call that the journal knows otherwise is a divergence.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from ._records import CANCEL_KEY, Entry, Kind

__all__ = ["Asked", "Changes", "Conflict", "Divergence", "Replay"]


class Asked(Protocol):
    """A durable call, as far as it is compared with the journal."""

    @property
    def key(self) -> str:
        """Where it stands."""
        ...

    @property
    def kind(self) -> Kind:
        """What it is."""
        ...

    @property
    def name(self) -> str:
        """What is called, or waited for."""
        ...

    @property
    def digest(self) -> bytes:
        """Of its arguments."""
        ...


@dataclass(frozen=True, slots=True)
class Divergence:
    """What was asked, what was recorded, and what a person can do."""

    message: str


@dataclass(frozen=True, slots=True)
class Conflict(Divergence):
    """A divergence in which a step met the entry of a wait, or the reverse: nobody can accept it."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a person accepted in advance and the pass then found."""

    changed: tuple[tuple[str, str, bytes], ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed)


_NO_CHANGES = Changes((), ())

_EFFECTS = frozenset({Kind.STEP, Kind.TRANSACTION, Kind.CHILD, Kind.ACT})
"""Calls that must not be made twice because the code moved them."""

_STEPS = frozenset({Kind.STEP, Kind.TRANSACTION})

_WAY_OUT = (
    "Mend the code and call `resume` on the run, or accept the change for this one run with "
    "`run.resume(accept_changes=True)`."
)


class Replay:
    """The entries of a run, and how far a pass has got with them.

    Args:
        run_id: Named in messages.
        entries: All entries of the run.
        accept_changes: A person accepted that the code asks for other things than are recorded.
    """

    def __init__(self, run_id: str, entries: Iterable[Entry], *, accept_changes: bool = False) -> None:
        self._run_id = run_id
        self._entries = {entry.key: entry for entry in entries}
        self._unasked = {key for key, entry in self._entries.items() if not entry.removed and key != CANCEL_KEY}
        self._heap: list[tuple[int, str]] = []
        self._accept = accept_changes
        self._changed: list[tuple[str, str, bytes]] = []
        self._removed: list[str] = []
        self.seq = max((entry.seq for entry in self._entries.values()), default=0)
        """The place of the last recorded entry."""
        self.given = 0
        """The place of the last entry that the body has been given."""
        if CANCEL_KEY in self._entries:  # nobody asks to be cancelled: it is always due in its place
            heapq.heappush(self._heap, (self._entries[CANCEL_KEY].seq, CANCEL_KEY))

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def ask(self, call: Asked) -> Divergence | None:
        """Note that the body has asked for `call`; what is wrong with that, if anything is."""
        entry = self._entries.get(call.key)
        if entry is None:
            return None
        self._unasked.discard(call.key)
        if entry.kind is not call.kind and entry.kind.waits != call.kind.waits:
            return Conflict(
                f"run {self._run_id}, {call.key}: the journal holds the outcome of a {entry.kind} here and the code asks for "
                f"a {call.kind}. Give one of them another name, then call `resume` on the run."
            )
        if (entry.kind, entry.name, entry.digest) != (call.kind, call.name, call.digest):
            if not self._accept:
                return Divergence(self._different(entry, call))
            self._changed.append((call.key, call.name, call.digest))
        heapq.heappush(self._heap, (entry.seq, call.key))
        return None

    def next(self, is_open: Callable[[str], bool]) -> Entry | None:
        """The recorded outcome to give now, or None if nothing that was asked for is recorded.

        Args:
            is_open: Whether the call of a key still waits; the outcome of a call that was given up is passed over.
        """
        while self._heap:
            _, key = heapq.heappop(self._heap)
            if key == CANCEL_KEY or is_open(key):
                self.given = max(self.given, self._entries[key].seq)
                return self._entries[key]
        return None

    def append(self, entry: Entry) -> None:
        """Note a live outcome, which the body is given at once."""
        self._entries[entry.key] = entry
        self.seq = self.given = entry.seq

    def before_fresh(self, fresh: Collection[Asked], known: Callable[[str], bool]) -> Divergence | None:
        """Whether a fresh step may begin: what is recorded and was never asked for must not be the same step, moved.

        Unchanged code has asked for every recorded outcome before its first fresh step, so this says nothing then.

        Args:
            fresh: The calls of steps that are about to begin.
            known: Whether a step of this name is still defined.
        """
        left = [entry for key in self._unasked if (entry := self._entries[key]).kind in _EFFECTS]
        if not left:
            return None
        wanted = {(call.kind, call.name, call.digest): call.key for call in fresh}
        for entry in sorted(left, key=lambda entry: entry.seq):
            moved_to = wanted.get((entry.kind, entry.name, entry.digest))
            if moved_to is None and (entry.kind not in _STEPS or known(entry.name)):
                continue
            if self._accept:
                self._removed.append(entry.key)
                self._unasked.discard(entry.key)
            elif moved_to is not None:
                return Divergence(
                    f"run {self._run_id}: the code is about to run {entry.kind} {entry.name} as {moved_to}, but the journal "
                    f"holds the outcome of the same call as {entry.key}, which the code no longer asks for. Running it would "
                    f"repeat its effect. {_WAY_OUT} Accepting runs it again."
                )
            else:
                return Divergence(
                    f"run {self._run_id}: the journal holds the outcome of step {entry.name} as {entry.key}, and no step of "
                    f'that name is defined any more. If it was renamed, keep its name with @step(name="{entry.name}"). '
                    f"{_WAY_OUT}"
                )
        return None

    def unused(self) -> list[str]:
        """Keys of recorded outcomes that the body has not asked for, in their order."""
        return sorted(self._unasked, key=lambda key: self._entries[key].seq)

    def accepted(self) -> Changes:
        """What the pass found since the last call and a person had accepted."""
        if not (self._changed or self._removed):
            return _NO_CHANGES
        found = Changes(tuple(self._changed), tuple(self._removed))
        self._changed.clear()
        self._removed.clear()
        return found

    def settle(self, known: Callable[[str], bool]) -> bool:
        """Stop accepting changes: the replay is over. Whether any were accepted until now.

        Outcomes of steps that are no longer defined count as removed, though nothing was about to run in their place.
        """
        if self._accept:
            self.before_fresh((), known)
        was, self._accept = self._accept, False
        return was

    def _different(self, entry: Entry, call: Asked) -> str:
        if (entry.kind, entry.name) == (call.kind, call.name):
            what = f"the arguments of {call.kind} {call.name} differ from those it was recorded with"
        else:
            what = f"the journal holds {entry.kind} {entry.name} and the code asks for {call.kind} {call.name}"
        return (
            f"run {self._run_id}, {call.key}: {what} (recorded {entry.digest.hex() or 'none'}, asked "
            f"{call.digest.hex() or 'none'}). {_WAY_OUT}"
        )
