"""What is wrong with a value that cannot be stored, where, and what to write instead.

Nothing here runs before something failed.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable
from decimal import Decimal
from itertools import islice
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from ._faithful import MAX_DEPTH, MISSING, PLAIN, Difference, Place, places, too_deep, type_name
from ._paths import Trail, labels, render

__all__ = ["changed", "not_encoded", "not_fitting", "not_read"]

_SAMPLE = 20  # elements looked at to suggest a type


def not_encoded(value: Any, error: Exception) -> str:
    """Why `value` could not be turned into JSON, or the JSON could not be read again."""
    for place in places(value):
        fault = _fault(place)
        if fault is not None:
            return f"{render(place.trail)}: {fault}"
    return f"$: {type(error).__name__}: {_cut(str(error))}"


def _fault(place: Place) -> str | None:  # noqa: PLR0911 - one line per kind of value
    value = place.value
    if place.cyclic:
        return f"this {type_name(value)} contains itself; break the cycle, for instance by ids instead of objects"
    if place.depth > MAX_DEPTH:
        return too_deep()
    match value:
        case str():
            return _unpaired(value)
        case bool() | float() | None:
            return None
        case int():
            return _unwritable(value)
        case bytes():
            return _raw_bytes(value, place.holders)
        case BaseModel() | dict() | list() | tuple() | set() | frozenset() | deque():
            return None
        case _ if dataclasses.is_dataclass(value):
            return None
        case _:
            return _foreign(value)


def _unpaired(value: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return (
            f"the str holds the lone surrogate {value[error.start]!a} at index {error.start}, "
            f"which UTF-8 cannot hold; keep such data as bytes"
        )
    return None


def _unwritable(value: int) -> str | None:
    try:
        str(value)
    except ValueError:
        bits = f"{value.bit_length():,} bits"
        return f"the int has {bits}, which is more digits than Python reads back; keep it as bytes or as hex()"
    return None


def _raw_bytes(value: bytes, holders: frozenset[type[object]]) -> str | None:
    try:
        value.decode()
    except UnicodeDecodeError:
        if _ruling(holders):
            return f"these bytes are no UTF-8; {_config_advice(holders)}"
    return None


def _foreign(value: object) -> str | None:
    try:
        to_json(value)
    except Exception:  # noqa: BLE001 - whatever it is, it has no JSON form of its own
        return f"{_a(value)} has no JSON form; give back plain data, or annotate it with a type that pydantic can store"
    return None


def _ruling(holders: Iterable[type[object]]) -> list[type[object]]:
    """The classes among the holders whose own config rules how bytes and floats are written."""
    return [kind for kind in holders if hasattr(kind, "__pydantic_validator__")]


def _needs_config(value: object, holders: Iterable[type[object]]) -> bool:
    """Whether a value would come back if only the class that holds it were configured so."""
    match value:
        case float():
            return not math.isfinite(value) and bool(_ruling(holders))
        case bytes():
            return bool(_ruling(holders))
        case _:
            return False


def _config_advice(holders: Iterable[type[object]]) -> str:
    names = " or ".join(sorted(kind.__qualname__ for kind in _ruling(holders)))
    return (
        f'set model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings") '
        f"in {names}"
    )


# Values that decode to something else ---------------------------------------------------------------------------------


def not_fitting(value: Any, error: ValidationError) -> str:
    """Why the JSON of `value` is refused by the annotation it was written for."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return not_encoded(value, error)
    trail, found, holders = _follow(first["loc"], value)
    if _needs_config(found, holders):
        return f"{render(trail)}: this {type_name(found)} does not come back; {_config_advice(holders)}"
    return (
        f"{render(trail)}: {_a(found)} does not fit the annotation ({first['msg']}); "
        f"annotate it with its type: {_suggest(found)}"
    )


def _follow(loc: Iterable[Any], value: object) -> tuple[Trail, object, list[type[object]]]:
    """The place in `value` that a location of pydantic's means, with what holds it; labels of branches are skipped."""
    trail: Trail = None
    holders: list[type[object]] = []
    for label in loc:
        part = _part(value, label)
        if part is not MISSING:
            holders.append(type(value))
            trail, value = (trail, label), part
    return trail, value, holders


def _part(value: Any, label: Any) -> Any:
    if isinstance(value, dict):
        return cast("dict[object, object]", value).get(label, MISSING)
    if isinstance(label, int) and isinstance(value, (list, tuple, deque, set, frozenset)):
        return next(islice(cast("Iterable[Any]", value), label, None), MISSING)
    return getattr(value, label, MISSING) if isinstance(label, str) else MISSING


def changed(value: Any, gap: Difference) -> str:
    """What became of the part of `value` that does not come back as it went in."""
    _, _, holders = _follow(labels(gap.trail), value)
    return f"{render(gap.trail)}: {_fate(gap, holders)}"


def _fate(gap: Difference, holders: Iterable[type[object]]) -> str:
    before, after = gap.before, gap.after
    what = f"the key, {_a(before)}," if gap.is_key else _a(before)
    if before is MISSING:
        return f"{_a(after)} comes back that was not there; make the type give back what it was given"
    if after is MISSING:
        return f"{what} is not stored: it is excluded, private or unknown to its type; declare it, or leave it empty"
    if isinstance(before, str) and (fault := _unpaired(before)):
        return fault
    if type(before) is type(after):
        return f"{what} comes back with another content; {_content_advice(before, holders)}"
    return f"{what} comes back as {_a(after)}{_type_advice(before, after, holders)}"


def _content_advice(before: object, holders: Iterable[type[object]]) -> str:
    if _needs_config(before, holders):
        return _config_advice(holders)
    if hasattr(before, "get_secret_value"):
        return "secrets are masked when they are written: pass a name the step can look the secret up by"
    return "make its type write and read the same, or give back plain data"


def _type_advice(before: object, after: object, holders: Iterable[type[object]]) -> str:
    if _needs_config(before, holders):
        return f"; {_config_advice(holders)}"
    if type(after) in type(before).__mro__ and _is_record(after):
        wanted = type(before).__qualname__
        return f" and loses what the subclass adds; annotate it with {wanted}, or with a union that has a discriminator"
    if _is_record(before) and _is_record(after):
        return ", another branch of the union; give the union a discriminator"
    return f"; annotate it with its type: {_suggest(before)}"


def _is_record(value: object) -> bool:
    return isinstance(value, BaseModel) or dataclasses.is_dataclass(value)


# Stored data that no longer fits --------------------------------------------------------------------------------------


def not_read(data: bytes, error: ValidationError) -> str:
    """Where stored data does not fit the annotation, by up to three paths."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    try:
        value = from_json(data)
    except ValueError:
        value = None
    shown = [f"{_located(fault['loc'], value)}: {fault['msg']}" for fault in faults[:3]]
    more = f"; and {len(faults) - 3} more" if len(faults) > len(shown) else ""
    return "; ".join(shown) + more


def _located(loc: Iterable[int | str], value: object) -> str:
    """A location of pydantic's as a path; what is missing in the data stands at its end."""
    trail, found, _ = _follow(loc, value)
    last = list(loc)[-1:]
    missing = isinstance(found, dict) and last and last != labels(trail)[-1:]
    return render((trail, last[0]) if missing else trail)


# Words ----------------------------------------------------------------------------------------------------------------


def _a(value: object) -> str:
    name = "None" if value is None else type_name(value)
    if value is None:
        return name
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def _cut(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}…"  # noqa: PLR2004 - a line or two


def _suggest(value: Any, depth: int = 0) -> str:
    """An annotation under which `value` would come back."""
    if value is None:
        return "None"
    kind = cast("type[object]", type(value))
    if kind in PLAIN or kind in {float, Decimal} or depth > 3:  # noqa: PLR2004 - enough to be read
        return kind.__qualname__
    if kind is tuple:
        return _suggest_tuple(value, depth)
    if kind is dict:
        keys, values = _union(value.keys(), depth), _union(value.values(), depth)
        return f"dict[{keys}, {values}]"
    if kind in {list, set, frozenset, deque}:
        return f"{kind.__qualname__}[{_union(value, depth)}]"
    return kind.__qualname__


def _suggest_tuple(value: tuple[Any, ...], depth: int) -> str:
    if not value:
        return "tuple[()]"
    if len(value) <= 4:  # noqa: PLR2004 - longer ones are rarely fixed
        return f"tuple[{', '.join(_suggest(item, depth + 1) for item in value)}]"
    return f"tuple[{_union(value, depth)}, ...]"


def _union(items: Iterable[Any], depth: int) -> str:
    sample = [item for item, _ in zip(items, range(_SAMPLE), strict=False)]
    return " | ".join(sorted({_suggest(item, depth + 1) for item in sample})) or "Any"
