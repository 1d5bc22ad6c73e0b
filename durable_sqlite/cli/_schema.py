"""Whether a value fits a JSON schema in the main: its types, what is required, what is enumerated, and how much it is.

The whole of a schema is held by whoever has the type. This is for whoever has only the journal, so that a slip is seen
before it is stored; what is not looked at here is looked at by the run, which sets aside what does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ._light import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

__all__ = ["misfits", "resolved"]

_DEEPEST = 12
_LIMITS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda size, limit: size >= limit, "at least"),
    "exclusiveMinimum": (lambda size, limit: size > limit, "more than"),
    "maximum": (lambda size, limit: size <= limit, "at most"),
    "exclusiveMaximum": (lambda size, limit: size < limit, "less than"),
}
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
    part = resolved(part, whole)
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
    yield from _sizes(value, facts, place)
    if isinstance(value, dict):
        yield from _fields(value, facts, whole, place, depth)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list):
        first = facts.get("prefixItems", [])
        for number, each in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            item = first[number] if number < len(first) else facts.get("items")
            yield from _misfits(each, item, whole, f"{place}[{number}]", depth + 1)


def _sizes(value: Any, facts: dict[str, Any], place: str) -> Iterator[str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        for word, (fits, told) in _LIMITS.items():
            if isinstance(facts.get(word), int | float) and not fits(value, facts[word]):
                yield f"{place}: it is {told} {facts[word]}"
        step = facts.get("multipleOf")
        if isinstance(step, int) and step > 0 and value % step:
            yield f"{place}: it is a multiple of {step}"
    elif isinstance(value, str):
        yield from _length(len(value), facts.get("minLength"), facts.get("maxLength"), "characters", place)
    elif isinstance(value, list):
        size = len(value)  # pyright: ignore[reportUnknownArgumentType]
        yield from _length(size, facts.get("minItems"), facts.get("maxItems"), "items", place)


def _length(size: int, least: Any, most: Any, of: str, place: str) -> Iterator[str]:
    if isinstance(least, int) and size < least:
        yield f"{place}: it has at least {least} {of}"
    if isinstance(most, int) and size > most:
        yield f"{place}: it has at most {most} {of}"


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


def resolved(part: Any, whole: Any) -> Any:
    """What a part of a schema says, where it names another one; None where that is not there."""
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
