"""Whether what was decoded is what was encoded: equal, and of the same type, in every part."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar, cast

from ._paths import Trail

__all__ = [
    "MAX_DEPTH",
    "MISSING",
    "PLAIN",
    "Difference",
    "Place",
    "difference",
    "field_names",
    "per_class",
    "places",
    "same",
    "state",
    "too_deep",
    "type_name",
]

R = TypeVar("R")

MAX_DEPTH: Final = 200
"""How many levels a value may have below its top: pydantic's JSON parser reads no deeper."""


class _Missing(Enum):
    MISSING = "missing"


MISSING: Final = _Missing.MISSING
"""Stands where one of two values has nothing."""


class Difference(NamedTuple):
    """The first place at which two values differ."""

    trail: Trail
    before: object
    after: object
    """What came back; `MISSING` where nothing did."""
    is_key: bool = False
    """Whether a key of a dict differs, not a value."""


_Pair = tuple[object, object, Trail]
_Compare = Callable[[Any, Any, Trail, list[_Pair]], Difference | None]
"""Compares two values of one class; pairs of parts that need a closer look are appended in order."""


def per_class(make: Callable[[type[object]], R]) -> Callable[[type[object]], R]:
    """Remember what `make` gives for each class, for the 1,024 classes used last."""
    return cast("Callable[[type[object]], R]", lru_cache(maxsize=1024)(make))


PLAIN: Final = frozenset({str, int, bool, bytes, type(None)})
"""Classes whose `==` tells all once the class is the same."""


def same(before: object, after: object) -> bool:
    """Whether two values are equal and of the same types throughout."""
    return difference(before, after) is None


def difference(before: object, after: object) -> Difference | None:
    """The first place where two values differ in type or content, or None.

    NaN equals NaN. One change of type alone is no difference: an int where the annotation says float comes back as the
    equal float, because type checkers let an int stand for a float.
    """
    todo: list[_Pair] = [(before, after, None)]
    while todo:
        a, b, trail = todo.pop()
        kind = type(a)
        if kind is not type(b):
            if kind is int and type(b) is float and a == b:
                continue
            return Difference(trail, a, b)
        if kind in PLAIN:
            if a != b:
                return Difference(trail, a, b)
            continue
        parts: list[_Pair] = []
        found = _comparer(kind)(a, b, trail, parts)
        if found is not None:
            return found
        parts.reverse()  # the last is looked at first, and the first difference is to be found first
        todo.extend(parts)
    return None


@per_class
def _comparer(kind: type[object]) -> _Compare:
    for family, compare in _FAMILIES:
        if issubclass(kind, family):
            return compare
    if hasattr(kind, "__dataclass_fields__"):
        return _fields
    if hasattr(kind, "__pydantic_fields__"):
        return _model
    for family, compare in _CONTAINERS:
        if issubclass(kind, family):
            return compare
    plain: object = object.__eq__
    return _state if kind.__eq__ is plain else _equal


def _equal(a: Any, b: Any, trail: Trail, _parts: list[_Pair]) -> Difference | None:
    try:
        equal = bool(a == b)
    except Exception:  # noqa: BLE001 - a value whose == fails cannot be shown to be equal
        equal = False
    return None if equal else Difference(trail, a, b)


def _float(a: float, b: float, trail: Trail, _parts: list[_Pair]) -> Difference | None:
    return None if a == b or (a != a and b != b) else Difference(trail, a, b)  # noqa: PLR0124 - only NaN differs from itself


def _decimal(a: Decimal, b: Decimal, trail: Trail, _parts: list[_Pair]) -> Difference | None:
    return None if a.as_tuple() == b.as_tuple() else Difference(trail, a, b)


def _moment(a: datetime | time, b: datetime | time, trail: Trail, _parts: list[_Pair]) -> Difference | None:
    # A zone comes back as the fixed offset it had. Not `a == b`: in a repeated hour that is false between two zones.
    alike = (
        a.replace(tzinfo=None) == b.replace(tzinfo=None)
        and a.utcoffset() == b.utcoffset()
        and (a.tzinfo is None) == (b.tzinfo is None)
    )
    return None if alike else Difference(trail, a, b)


def _sequence(a: list[object], b: list[object], trail: Trail, parts: list[_Pair]) -> Difference | None:
    if len(a) != len(b) or getattr(a, "maxlen", None) != getattr(b, "maxlen", None):
        return Difference(trail, a, b)
    for index, (x, y) in enumerate(zip(a, b, strict=True)):
        kind = type(x)
        if kind is not type(y) or kind not in PLAIN or x != y:
            parts.append((x, y, (trail, index)))
    return None


def _mapping(a: dict[object, object], b: dict[object, object], trail: Trail, parts: list[_Pair]) -> Difference | None:
    if getattr(a, "default_factory", None) is not getattr(b, "default_factory", None):
        return Difference(trail, a, b)
    if not _aligned(a, b):
        return _unordered(a, b, trail, parts)
    for (key, x), y in zip(a.items(), b.values(), strict=True):
        kind = type(x)
        if kind is not type(y) or kind not in PLAIN or x != y:
            parts.append((x, y, (trail, key)))
    return None


def _aligned(a: dict[object, object], b: dict[object, object]) -> bool:
    """Whether both have the same keys in the same order. This is the usual case, and the one that can tell NaN keys."""
    if len(a) != len(b):
        return False
    for x, y in zip(a, b, strict=True):
        kind = type(x)
        if (kind is not type(y) or kind not in PLAIN or x != y) and not same(x, y):
            return False
    return True


def _unordered(a: dict[Any, Any], b: dict[Any, Any], trail: Trail, parts: list[_Pair]) -> Difference | None:
    """Compare dicts whose keys are in another order, as those of a TypedDict may be, or are not the same."""
    own = {key: key for key in b}
    for key, value in a.items():
        if key not in own or not same(key, own[key]):
            return Difference((trail, key), key, own.get(key, _first_unknown(b, a)), is_key=True)
        parts.append((value, b[key], (trail, key)))
    return None if len(a) == len(b) and type(a) is dict else Difference(trail, a, b)


def _first_unknown(keys: Iterable[Any], known: dict[Any, Any]) -> Any:
    return next((key for key in keys if key not in known), MISSING)


def _set(a: frozenset[Any], b: frozenset[Any], trail: Trail, _parts: list[_Pair]) -> Difference | None:
    own = {item: item for item in b}
    for item in a:
        if item in own and not same(item, own[item]):
            return Difference(trail, item, own[item])
    left, right = [item for item in a if item not in b], [item for item in b if item not in a]
    if len(left) == len(right) and all(same(x, y) for x, y in zip(left, right, strict=True)):
        return None  # nothing is left but NaN, which a set does not find again
    return Difference(trail, (left or [MISSING])[0], (right or [MISSING])[0])


def _fields(a: object, b: object, trail: Trail, parts: list[_Pair]) -> Difference | None:
    for name in field_names(type(a)):
        x: object = getattr(a, name, MISSING)
        y: object = getattr(b, name, MISSING)
        kind = type(x)
        if kind is not type(y) or kind not in PLAIN or x != y:
            parts.append((x, y, (trail, name)))
    return None


def _model(a: Any, b: Any, trail: Trail, parts: list[_Pair]) -> Difference | None:
    _fields(a, b, trail, parts)
    for store in ("__pydantic_extra__", "__pydantic_private__"):
        x, y = getattr(a, store, None), getattr(b, store, None)
        if x or y:
            parts.extend(_named(x or {}, y or {}, trail))
    return None


def _state(a: Any, b: Any, trail: Trail, parts: list[_Pair]) -> Difference | None:
    """Compare objects that say nothing about equality by what they hold."""
    parts.extend(_named(state(a), state(b), trail))
    return None


def _named(x: dict[str, Any], y: dict[str, Any], trail: Trail) -> Iterator[_Pair]:
    return ((x.get(name, MISSING), y.get(name, MISSING), (trail, name)) for name in {**x, **y})


_FAMILIES: Final[tuple[tuple[type[Any], _Compare], ...]] = (
    (Enum, _equal),
    (float, _float),
    (Decimal, _decimal),
    (datetime, _moment),
    (time, _moment),
)
_CONTAINERS: Final[tuple[tuple[type[Any], _Compare], ...]] = (
    (list, _sequence),
    (tuple, _sequence),
    (deque, _sequence),
    (dict, _mapping),
    (set, _set),
    (frozenset, _set),
)


@per_class
def field_names(kind: type[object]) -> tuple[str, ...]:
    """The names of the fields of a dataclass or a pydantic model, in their order; none for other classes."""
    if hasattr(kind, "__dataclass_fields__"):
        return tuple(field.name for field in dataclasses.fields(cast("Any", kind)))
    return tuple(getattr(kind, "__pydantic_fields__", ()))


def state(value: object) -> dict[str, Any]:
    """What an object holds, by name: its slots and its `__dict__`."""
    held: dict[str, Any] = {}
    for kind in reversed(type(value).__mro__):
        slots: str | Iterable[str] = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__dict__", "__weakref__"} and hasattr(value, name):
                held[name] = getattr(value, name)
    held.update(getattr(value, "__dict__", {}))
    return held


# Walking one value ----------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """One part of a value, on a walk through all of them."""

    trail: Trail
    value: object
    depth: int
    """0 for the whole value."""
    holders: frozenset[type[object]]
    """The classes of what holds it, from the top down to here."""
    cyclic: bool
    """Whether it holds itself. The walk does not go on below it."""


def places(value: object) -> Iterator[Place]:
    """Every part of a value, the outer ones first, no deeper than one level more than `MAX_DEPTH`."""
    todo: list[Place | int] = [Place(None, value, 0, frozenset(), cyclic=False)]
    open_: set[int] = set()
    while todo:
        place = todo.pop()
        if isinstance(place, int):
            open_.discard(place)
            continue
        yield place
        parts = [] if place.cyclic or place.depth > MAX_DEPTH else _parts_of(place.value)
        if not parts:
            continue
        open_.add(id(place.value))
        todo.append(id(place.value))
        holder = type(place.value)
        holders = place.holders | {holder}
        todo.extend(
            Place((place.trail, label), part, place.depth + 1, holders, cyclic=id(part) in open_)
            for label, part in reversed(parts)
        )


def _parts_of(value: object) -> list[tuple[Any, Any]]:
    names = field_names(type(value))
    if names:
        extra: dict[str, Any] = getattr(value, "__pydantic_extra__", None) or {}
        own = [(name, getattr(value, name)) for name in names if hasattr(value, name)]
        return own + list(extra.items())
    if isinstance(value, dict):
        entries = cast("dict[object, object]", value)
        keys = [(key, key) for key in entries if type(key) not in PLAIN or type(key) is str]
        return keys + list(entries.items())
    if isinstance(value, (list, tuple, deque, set, frozenset)):
        return list(enumerate(cast("Iterable[Any]", value)))
    return []


def type_name(value: object) -> str:
    """The class of a value as a person would write it."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def too_deep() -> str:
    """Why values of great depth are refused."""
    return f"nested more than {MAX_DEPTH} levels deep; flatten it, or keep it in a file or a table and pass its name"
