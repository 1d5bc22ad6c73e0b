"""What is stored as bytes, as far as it can be shown without the application: values as JSON, errors as their records."""

from __future__ import annotations

from ._light import TYPE_CHECKING, NamedTuple
from ._text import size

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Error", "Payload", "declared_words", "error_of"]

_CAUSES = 30
"""Errors that are shown of one chain."""


class Payload(NamedTuple):
    """Stored bytes, or the beginning of them."""

    size: int
    data: bytes
    codec: str
    """The name of the journal's codec, which only the application has; empty where there is none."""

    def text(self, most: int) -> str:
        """What can be shown of it in one line of about `most` characters."""
        if self.codec:
            return f"<{size(self.size)}, encoded by the codec {self.codec}>"
        shown = self.data[: most * 4].decode("utf-8", "replace" if len(self.data) == self.size else "ignore")
        if len(shown) <= most and self.size <= len(self.data):
            return shown
        return f"{shown[:most]}… ({size(self.size)})"

    def document(self) -> dict[str, Any]:
        """The same for a program: its size, and the value, or why there is none."""
        facts: dict[str, Any] = {"bytes": self.size}
        if self.codec:
            return facts | {"codec": self.codec}
        if len(self.data) < self.size:
            return facts | {"cut": True}
        import json  # noqa: PLC0415 - whoever shows text has no use for it

        try:
            return facts | {"value": json.loads(self.data, parse_constant=str)}
        except (ValueError, RecursionError):
            return facts | {"damaged": True}


class Error(NamedTuple):
    """A stored error."""

    type: str
    message: str
    notes: tuple[str, ...] = ()
    traceback: str = ""
    cause: Error | None = None
    members: tuple[Error, ...] = ()
    key: str | None = None
    """Of the entry that it came from."""
    attempts: int = 0

    @property
    def words(self) -> str:
        """`ConnectionError: no route to host`."""
        name = self.type.rpartition(".")[2]
        return f"{name}: {self.message}" if self.message else name

    def document(self) -> dict[str, Any]:
        """The same for a program."""
        facts: dict[str, Any] = {"type": self.type, "message": self.message}
        if self.notes:
            facts["notes"] = list(self.notes)
        if self.key is not None:
            facts["key"] = self.key
        if self.traceback:
            facts["traceback"] = self.traceback
        if self.members:
            facts["members"] = [member.document() for member in self.members]
        if self.cause is not None:
            facts["cause"] = self.cause.document()
        return facts


def error_of(data: bytes | None, codec: str) -> Error | None:
    """A stored error; None where there is none. What cannot be read is an error that says so."""
    if data is None:
        return None
    if codec:
        return Error(f"<encoded by the codec {codec}>", "")
    import json  # noqa: PLC0415

    try:
        stored = json.loads(data)
        return _error(stored["error"], _CAUSES)._replace(attempts=int(stored["attempts"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Error("<an error that cannot be read>", "")


def _error(stored: dict[str, Any], depth: int) -> Error:
    cause: Any = stored.get("cause")
    members: list[Any] = stored.get("members", [])
    return Error(
        type=str(stored["type"]),
        message=str(stored["message"]),
        notes=tuple(str(note) for note in stored.get("notes", [])),
        traceback=str(stored.get("traceback", "")),
        cause=None if cause is None or depth == 0 else _error(cause, depth - 1),
        members=() if depth == 0 else tuple(_error(member, depth - 1) for member in members),
        key=None if stored.get("key") is None else str(stored["key"]),
    )


def declared_words(payload: Payload) -> str:
    """A declared error, which is stored as the name of its class and its arguments."""
    if payload.codec:
        return payload.text(0)
    import json  # noqa: PLC0415

    try:
        stored = json.loads(payload.data)
        arguments = ", ".join(json.dumps(argument, ensure_ascii=False) for argument in stored["args"])
        return f"{str(stored['class']).rpartition('.')[2]}({arguments})"
    except (ValueError, TypeError, KeyError, RecursionError):
        return payload.text(200)
