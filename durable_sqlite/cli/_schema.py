"""Whether a value fits a JSON schema in the main: its types, what is required, and what is enumerated.

The whole of a schema is held by whoever has the type. This is for whoever has only the journal, so that a slip is seen
before it is stored; what is not looked at here is looked at by the run, which sets aside what does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["misfits"]

_DEEPEST = 12
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def misfits(value: Any, schema: Any) -> list[str]:
    """What does not fit, each with its place; nothing where nothing was found."""
    return list(_misfits(value, schema, schema, "$", 0))


def _misfits(value: Any, part: Any, whole: Any, place: str, depth: int) -> Iterator[str]:
    part = _resolved(part, whole)
    if not isinstance(part, dict) or depth > _DEEPEST:
        return
    facts: dict[str, Any] = part  # pyright: ignore[reportUnknownVariableType]
    options = facts.get("anyOf") or facts.get("oneOf")
    if isinstance(options, list) and options:
        tried = [list(_misfits(value, option, whole, place, depth + 1)) for option in options]  # pyright: ignore[reportUnknownVariableType]
        if all(tried):
            yield from min(tried, key=len)
        return
    if "const" in facts and not _same(value, facts["const"]):
        yield f"{place}: it is {facts['const']!r}"
    if isinstance(facts.get("enum"), list) and not any(_same(value, each) for each in facts["enum"]):
        yield f"{place}: it is one of {', '.join(map(repr, facts['enum']))}"
    kinds = facts.get("type", [])
    names: list[str] = [kinds] if isinstance(kinds, str) else kinds
    if names and not any(_is_a(value, name) for name in names):
        yield f"{place}: it takes {' or '.join(names)}, not {_name(value)}"
        return
    if isinstance(value, dict):
        yield from _fields(value, facts, whole, place, depth)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list):
        for number, each in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield from _misfits(each, facts.get("items"), whole, f"{place}[{number}]", depth + 1)


def _fields(value: dict[str, Any], facts: dict[str, Any], whole: Any, place: str, depth: int) -> Iterator[str]:
    for name in facts.get("required", []):
        if name not in value:
            yield f"{place}.{name}: it is required"
    known: dict[str, Any] = facts.get("properties", {})
    for name, each in value.items():
        if name in known:
            yield from _misfits(each, known[name], whole, f"{place}.{name}", depth + 1)
        elif facts.get("additionalProperties") is False:
            yield f"{place}.{name}: there is no such field; there are {', '.join(known) or 'none'}"


def _resolved(part: Any, whole: Any) -> Any:
    for _ in range(_DEEPEST):
        if not isinstance(part, dict) or not isinstance(part.get("$ref"), str):  # pyright: ignore[reportUnknownMemberType]
            return part  # pyright: ignore[reportUnknownVariableType]
        found: Any = whole
        for step in str(part["$ref"]).removeprefix("#/").split("/"):  # pyright: ignore[reportUnknownArgumentType]
            found = found.get(step) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        part = found  # pyright: ignore[reportUnknownVariableType]
    return None


def _is_a(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return name not in _TYPES or isinstance(value, _TYPES[name])


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)


def _name(value: Any) -> str:
    return next(
        name for name in ("boolean", "null", "string", "integer", "number", "array", "object") if _is_a(value, name)
    )
