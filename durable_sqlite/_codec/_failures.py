"""How exceptions are stored: as facts about them, or, where they were declared, as themselves. Nothing is pickled."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple, cast

from ..errors import DurableError, ErrorRecord, Undecodable
from ._faithful import PLAIN, same, state

__all__ = ["StoredError", "describe", "dump_declared", "dump_error", "load_declared", "load_error"]

_OWN_CODE: Final = str(Path(__file__).parent.parent) + "/"
_MESSAGE: Final = 4_000  # characters
_TRACEBACK: Final = 8_000
_NOTE: Final = 1_000
_NAME: Final = 500
_NOTES: Final = 10
_BASES: Final = 50
_CAUSES: Final = 10  # deep
_MEMBERS: Final = 20  # of one group
_FRAMES: Final = 60  # at each end of the traceback
_RECORDS: Final = 60  # in one description, causes and members together
_TOTAL: Final = 100_000  # characters in one description


class _Room:
    """What is left of the bounds of one description, and what it has seen."""

    def __init__(self) -> None:
        self.records = _RECORDS
        self.characters = _TOTAL
        self.seen: set[int] = set()

    def take(self, text: str, limit: int) -> str:
        """The text, cut in the middle where there is no room for all of it, and in a form that UTF-8 can hold."""
        limit = min(limit, self.characters)
        if len(text) > limit:
            kept = f"\n… {len(text):,} characters in all …\n"
            head = max(0, (limit - len(kept)) // 2)
            text = text[:head] + kept + text[len(text) - head :] if head else ""
        self.characters -= len(text)
        return str.encode(text, "utf-8", "backslashreplace").decode()


def describe(error: BaseException) -> ErrorRecord:
    """What is recorded of an exception. It never fails, and its size is bounded, whatever the exception does.

    At most 4,000 characters of message, 8,000 of traceback and 10 notes of 1,000; causes 10 deep; 20 members of a
    group; 100,000 characters and 60 exceptions in all. Frames of this library are left out where there are others.
    """
    return _describe(error, _Room(), _CAUSES)


def _describe(error: BaseException, room: _Room, depth: int) -> ErrorRecord:
    room.records -= 1
    room.seen.add(id(error))
    kind = type(error)
    return ErrorRecord(
        type=room.take(_name(kind), _NAME),
        message=room.take(_message(error), _MESSAGE),
        bases=tuple(room.take(_name(base), _NAME) for base in islice(_bases(kind), _BASES)),
        traceback=room.take(_frames(error.__traceback__), _TRACEBACK),
        notes=tuple(room.take(note, _NOTE) for note in islice(_notes(error), _NOTES)),
        cause=_cause(error, room, depth - 1),
        members=_members(error, room, depth - 1),
        key=_key(error),
    )


def _key(error: BaseException) -> str | None:
    """The key of the entry that the error came from, where it came from one."""
    key = getattr(error, "key", None) if isinstance(error, DurableError) else None
    return key if isinstance(key, str) else None


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _bases(kind: type[BaseException]) -> tuple[type[Any], ...]:
    return kind.__mro__[: kind.__mro__.index(BaseException) + 1]


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - an exception that cannot be shown is an exception all the same
        return f"<no message: its str() raised {type(failure).__name__}>"


def _notes(error: BaseException) -> Iterator[str]:
    notes: object = getattr(error, "__notes__", None)
    for note in cast("list[object]", notes) if isinstance(notes, list) else ():
        try:
            yield str(note)
        except Exception as failure:  # noqa: BLE001 - as for the message
            yield f"<no note: its str() raised {type(failure).__name__}>"


def _frames(trace: TracebackType | None) -> str:
    walked = list(traceback.walk_tb(trace))
    shown = [step for step in walked if not step[0].f_code.co_filename.startswith(_OWN_CODE)] or walked
    try:
        if len(shown) <= 2 * _FRAMES:
            return _formatted(shown)
        # What lies in the middle of a deep recursion tells nothing new, and would take long to format.
        middle = f"  … {len(shown) - 2 * _FRAMES:,} frames …\n"
        return _formatted(shown[:_FRAMES]) + middle + _formatted(shown[-_FRAMES:])
    except Exception as failure:  # noqa: BLE001 - the source may be anything by now
        return f"<no traceback: formatting it raised {type(failure).__name__}>"


def _formatted(steps: list[tuple[FrameType, int]]) -> str:
    return "".join(traceback.StackSummary.extract(iter(steps)).format())


def _cause(error: BaseException, room: _Room, depth: int) -> ErrorRecord | None:
    cause = error.__cause__ if error.__cause__ is not None or error.__suppress_context__ else error.__context__
    if cause is not None:
        return _describe(cause, room, depth) if _fits(cause, room, depth) else None
    # What the step raised was recorded long ago, in a process that may be gone: it is the cause all the same.
    record = getattr(error, "record", None) if isinstance(error, DurableError) else None
    return _fitted(record, room, depth) if isinstance(record, ErrorRecord) else None


def _fits(error: BaseException, room: _Room, depth: int) -> bool:
    return depth >= 0 and room.records > 0 and room.characters > 0 and id(error) not in room.seen


def _fitted(record: ErrorRecord, room: _Room, depth: int) -> ErrorRecord | None:
    """A record that was made earlier, cut to the room that is left."""
    if depth < 0 or room.records <= 0 or room.characters <= 0:
        return None
    room.records -= 1
    cause = record.cause
    members = (_fitted(member, room, depth - 1) for member in record.members)
    return ErrorRecord(
        type=room.take(record.type, _NAME),
        message=room.take(record.message, _MESSAGE),
        bases=tuple(room.take(base, _NAME) for base in record.bases),
        traceback=room.take(record.traceback, _TRACEBACK),
        notes=tuple(room.take(note, _NOTE) for note in record.notes),
        cause=None if cause is None else _fitted(cause, room, depth - 1),
        members=tuple(member for member in members if member is not None),
        key=record.key,
    )


def _members(error: BaseException, room: _Room, depth: int) -> tuple[ErrorRecord, ...]:
    if not isinstance(error, BaseExceptionGroup):
        return ()
    group = cast("BaseExceptionGroup[BaseException]", error)
    return tuple(
        _describe(member, room, depth) for member in islice(group.exceptions, _MEMBERS) if _fits(member, room, depth)
    )


# Described errors as bytes --------------------------------------------------------------------------------------------


class StoredError(NamedTuple):
    """What a journal keeps of a failure."""

    record: ErrorRecord
    attempts: int
    reason: str
    """Why it was not tried again; empty where nobody asked."""


def dump_error(record: ErrorRecord, attempts: int, reason: str = "") -> bytes:
    """A description, the number of attempts, and why it was not tried again, as UTF-8 JSON."""
    return _to_json({"attempts": attempts, "error": _plain(record)} | ({"reason": reason} if reason else {}))


def load_error(data: bytes) -> StoredError:
    """What `dump_error` was given.

    Raises:
        Undecodable: These bytes are no stored error.
    """
    try:
        stored = json.loads(data)
        return StoredError(_record(stored["error"]), _number(stored["attempts"]), _text(stored.get("reason", "")))
    except Exception as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> Undecodable:
    return Undecodable(
        f"a stored error cannot be read ({type(error).__name__}: {error}): the journal was damaged, or changed by hand"
    )


def _to_json(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _plain(record: ErrorRecord) -> dict[str, Any]:
    data: dict[str, Any] = {"type": record.type, "message": record.message}
    data |= {name: list(getattr(record, name)) for name in ("bases", "notes") if getattr(record, name)}
    if record.traceback:
        data["traceback"] = record.traceback
    if record.cause is not None:
        data["cause"] = _plain(record.cause)
    if record.members:
        data["members"] = [_plain(member) for member in record.members]
    if record.key is not None:
        data["key"] = record.key
    return data


def _record(data: dict[str, Any]) -> ErrorRecord:
    cause = data.get("cause")
    return ErrorRecord(
        type=_text(data["type"]),
        message=_text(data["message"]),
        bases=_texts(data.get("bases", [])),
        traceback=_text(data.get("traceback", "")),
        notes=_texts(data.get("notes", [])),
        cause=None if cause is None else _record(cause),
        members=tuple(_record(member) for member in data.get("members", [])),
        key=None if data.get("key") is None else _text(data["key"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text is expected")
    return value


def _number(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{type(value).__name__} where an int is expected")
    return value


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)


# Declared errors ------------------------------------------------------------------------------------------------------


def dump_declared(error: Exception, raises: tuple[type[Exception], ...], where: str) -> bytes | None:
    """A declared error as UTF-8 JSON: the name of its class, its arguments and its attributes.

    An instance of a subclass is stored as the nearest class that is declared. None if it would not come back with equal
    arguments, attributes and message; the caller then treats it as any other failure.

    Raises:
        TypeError: `error` is an instance of none of `raises`.
    """
    kind = next((kind for kind in type(error).__mro__ if kind in raises), None)
    if kind is None:
        raise TypeError(f"{where}: {_name(type(error))} is none of the declared errors")
    held: dict[str, Any] = {"args": list(error.args), "state": state(error)}
    if not _is_json(held):
        return None
    try:
        data = _to_json({"class": _name(kind), **held})
        back = load_declared(data, (kind,))
    except (Undecodable, ValueError, RecursionError):
        return None
    alike = same(error.args, back.args) and same(state(error), state(back)) and _message(error) == _message(back)
    return data if alike else None


def _is_json(value: object, depth: int = 0) -> bool:
    kind = type(value)
    if kind in PLAIN or kind is float:
        return kind is not bytes
    if depth > 50:  # noqa: PLR2004 - far more than an error's arguments need; it stops cycles too
        return False
    if kind is list:
        return all(_is_json(item, depth + 1) for item in cast("list[object]", value))
    if kind is dict:
        entries = cast("dict[object, object]", value)
        return all(type(key) is str and _is_json(item, depth + 1) for key, item in entries.items())
    return False


def load_declared(data: bytes, raises: tuple[type[Exception], ...]) -> Exception:
    """The error that `dump_declared` was given, made without calling `__init__`.

    Its class is looked up by name among `raises`, never imported.

    Raises:
        Undecodable: Its class is not declared any more, or cannot be made from what is stored.
    """
    try:
        stored = json.loads(data)
        name, args, held = _text(stored["class"]), stored["args"], stored["state"]
    except Exception as error:
        raise _damaged(error) from error
    kind = next((kind for kind in raises if _name(kind) == name), None)
    if kind is None:
        declared = ", ".join(_name(kind) for kind in raises) or "nothing"
        raise Undecodable(
            f"the declared error {name} was recorded, but the step declares {declared}; "
            f"declare it again with raises=, then resume the run"
        )
    try:
        made = kind.__new__(kind, *args)
        for attribute, value in held.items():
            BaseException.__setattr__(made, attribute, value)
    except Exception as failure:
        raise Undecodable(
            f"the declared error {name} cannot be made from its stored arguments ({type(failure).__name__}: {failure})"
        ) from failure
    return made
