"""What the mark beside a journal says of its past, and what is kept of that until somebody has seen it."""

from __future__ import annotations

import json
import re
from hashlib import blake2b

from .._clock import to_datetime
from .._findings import Finding, FindingKind
from .mark import Mark, Seen
from .rows import Tables

__all__ = ["acknowledge", "compare", "is_identity", "told_of", "unfit"]

_KEPT = "reports"
"""The name under which `durable_meta` keeps what nobody has acknowledged."""

_IDENTITY = re.compile(r"[0-9a-f]{16}")

_NEXT = {
    FindingKind.WENT_BACK: "find out what took them away (a restored backup does, and so does a damaged disk), start again "
    "what was lost, then acknowledge this with `engine.verify(accept=True)`",
    FindingKind.STRUCTURE: "acknowledge this with `engine.verify(accept=True)`: the journal has a new identity",
    FindingKind.OTHER_JOURNAL: "put the right file back where they were mixed up; else acknowledge this with "
    "`engine.verify(accept=True)`",
}


def compare(tables: Tables, mark: Mark | None, name: str, at: int) -> tuple[str, list[str]]:
    """Hold the journal against the mark, as part of the transaction that enrols a worker.

    Nobody else commits meanwhile, and whatever the mark says was committed before.

    Args:
        tables: The journal.
        mark: The mark beside it, if there is one.
        name: The worker's name; a new journal is named after the first one.
        at: The time.

    Returns:
        The journal's identity, and what is to be said once this is committed.
    """
    told: list[tuple[FindingKind, str]] = []
    fresh = blake2b(name.encode(), digest_size=8).hexdigest()
    tables.change("meta_keep", {"name": "identity", "value": fresh})
    ((identity,),) = tables.all("meta_value", {"name": "identity"})
    if not is_identity(identity):
        told.append((FindingKind.STRUCTURE, f"the journal's identity is damaged ({identity!r})"))
        identity = fresh
        tables.change("meta_set", {"name": "identity", "value": fresh})
    seen = Seen(0, ()) if mark is None else mark.look(identity)
    found = _notice(tables, seen, identity)
    told += found
    tables.change("sign_workers", {"identity": identity})
    tables.change("sign_ticks", {"identity": identity})
    if any(kind is FindingKind.WENT_BACK for kind, _ in found):
        # The next commit has a number that none of the lost ones had, so each loss is told once.
        tables.change("go_on_from", {"commits": seen.latest})
    if told:
        when = to_datetime(at).isoformat()
        kept = [*_kept(tables), *([kind.value, f"{what} (noticed at {when})"] for kind, what in told)]
        tables.change("meta_set", {"name": _KEPT, "value": json.dumps(kept)})
    return identity, [f"{what}. What to do: {_NEXT[kind]}" for kind, what in told]


def is_identity(text: str) -> bool:
    """Whether a text can be the identity of a journal."""
    return _IDENTITY.fullmatch(text) is not None


def _notice(tables: Tables, seen: Seen, identity: str) -> list[tuple[FindingKind, str]]:
    told: list[tuple[FindingKind, str]] = []
    others = {signed for (signed,) in tables.all("signed", {})} - {identity}
    if others:
        what = f"pages of another journal ({', '.join(sorted(others))}, and not {identity}) are among those of this one"
        told.append((FindingKind.OTHER_JOURNAL, what))
    (latest,) = tables.one("last_commit", {})
    if seen.latest > latest:
        lost = seen.latest - latest
        many = "1 commit" if lost == 1 else f"{lost} commits"
        what = f"the journal went back by {many}: the mark beside it says {seen.latest}, and it holds {latest}"
        told.append((FindingKind.WENT_BACK, what))
    if seen.strangers:
        strangers = ", ".join(seen.strangers)
        what = f"the mark beside the journal is of another journal ({strangers}, and not {identity}): one of the two was replaced"
        told.append((FindingKind.OTHER_JOURNAL, what))
    return told


def unfit(tables: Tables, seen: Seen, identity: str) -> list[Finding]:
    """What does not fit the journal's identity and its mark, and nobody has noted yet; nothing is written.

    Args:
        tables: The journal.
        seen: What the mark said before this state of the journal was looked at: it never runs ahead of it.
        identity: The journal's.
    """
    return [Finding(kind, what, _NEXT[kind]) for kind, what in _notice(tables, seen, identity)]


def _kept(tables: Tables) -> list[tuple[str, str]]:
    found = tables.first("meta_value", {"name": _KEPT})
    try:
        return [(FindingKind(kind), str(what)) for kind, what in json.loads(found[0])] if found else []
    except (ValueError, TypeError):
        return [(FindingKind.STRUCTURE, "what was kept of earlier findings is damaged itself")]


def told_of(tables: Tables) -> list[Finding]:
    """What nobody has acknowledged."""
    return [Finding(FindingKind(kind), what, _NEXT[FindingKind(kind)]) for kind, what in _kept(tables)]


def acknowledge(tables: Tables) -> None:
    """Somebody has seen it."""
    tables.change("meta_forget", {"name": _KEPT})
