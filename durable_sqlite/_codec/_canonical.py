"""The canonical form of values, from which digests are made.

It is made from the values, not by pydantic: a digest that is compared after an upgrade must not depend on how a version
of a library, or a serializer of the application, chooses to write a date. Keys and sets are sorted, and fields equal to
their defaults are left out, so that a new field with a default changes no digest.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from pydantic_core import PydanticUndefined, to_jsonable_python

from ..errors import Unstorable
from ._faithful import MAX_DEPTH, field_names, per_class, same, too_deep, type_name

__all__ = ["NoCanonicalForm", "digest", "digest_of", "encode", "tree"]

_PLAIN: Final = frozenset({str, int, bool, type(None)})
_write = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False).encode
_Build = Callable[[Any, int], Any]


class NoCanonicalForm(Exception):
    """Only the annotation knows how a value is written."""


def tree(value: object, depth: int = 0) -> Any:
    """The canonical form of a value as plain JSON data.

    Raises:
        Unstorable: It is nested too deep, or two keys of a dict have one JSON form.
        NoCanonicalForm: It holds an object of a class that only its annotation can write.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth > MAX_DEPTH:
        raise Unstorable(too_deep())
    return _builder(kind)(value, depth + 1)


def encode(form: Any) -> bytes:
    """A canonical form as bytes.

    Raises:
        Unstorable: An int in it has more digits than Python writes.
    """
    try:
        return _write(form).encode()
    except ValueError as error:
        raise Unstorable(f"an int has too many digits ({error}); keep it as bytes or as hex()") from error


def digest(data: bytes) -> bytes:
    """The 12 bytes by which canonical forms are compared."""
    return blake2b(data, digest_size=12).digest()


def digest_of(*parts: str | bytes | None) -> bytes:
    """The digest of a few texts or encoded values, which says where one ends and the next begins."""
    told = (b"" if part is None else part if isinstance(part, bytes) else part.encode() for part in parts)
    return digest(b"".join(len(part).to_bytes(8, "big") + part for part in told))


@per_class
def _builder(kind: type[object]) -> _Build:
    if issubclass(kind, Enum):
        return _member
    for family, write in _LEAVES:
        if issubclass(kind, family):
            return lambda value, _depth: write(value)
    if hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__pydantic_fields__"):
        return _record_builder(kind)
    return next((build for family, build in _CONTAINERS if issubclass(kind, family)), _foreign)


def _member(value: Enum, depth: int) -> Any:
    return tree(value.value, depth)


def _sequence(value: list[Any], depth: int) -> list[Any]:
    return [tree(item, depth) for item in value]


def _set(value: frozenset[Any], depth: int) -> list[Any]:
    return sorted((tree(item, depth) for item in value), key=encode)


def _number(value: float) -> float | str:
    return float(value) if value - value == 0 else repr(float(value))  # infinities and NaN are no JSON


_LEAVES: Final[tuple[tuple[type[Any], Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, _number),
    (bytes, lambda value: base64.b64encode(value).decode()),
    (datetime, datetime.isoformat),
    (date, date.isoformat),
    (time, time.isoformat),
    (timedelta, lambda value: value // timedelta(microseconds=1)),
    *((family, str) for family in (Decimal, UUID, Fraction, PurePath)),
    *((family, str) for family in (IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)),
)


def _mapping(value: dict[Any, Any], depth: int) -> dict[str, Any]:
    form: dict[str, Any] = {}
    for key, item in value.items():
        own = tree(key, depth)
        text = own if isinstance(own, str) else encode(own).decode()
        if text in form:
            raise Unstorable(f"two keys of a dict are both written {ascii(text)[:80]}; use keys of one type")
        form[text] = tree(item, depth)
    return form


def _record_builder(kind: type[Any]) -> _Build:
    names, defaults = field_names(kind), _defaults(kind)

    def build(value: Any, depth: int) -> dict[str, Any]:
        extra: dict[str, Any] = getattr(value, "__pydantic_extra__", None) or {}
        form = {name: tree(item, depth) for name, item in extra.items()}
        for name in names:
            item = getattr(value, name, None)
            if name not in defaults or not same(item, defaults[name]):
                form[name] = tree(item, depth)
        return form

    return build


_CONTAINERS: Final[tuple[tuple[type[Any], _Build], ...]] = (
    (dict, _mapping),
    *((family, _sequence) for family in (list, tuple, deque)),
    *((family, _set) for family in (set, frozenset)),
)

_FRESH: Final[tuple[Callable[[], Any], ...]] = (list, dict, set, frozenset, tuple)
"""Factories that may be called to learn the default: they do nothing else."""


def _defaults(kind: type[Any]) -> dict[str, Any]:
    of_model: dict[str, Any] | None = getattr(kind, "__pydantic_fields__", None)
    fields: dict[str, Any] = kind.__dataclass_fields__ if of_model is None else of_model  # that of a model may be empty
    known: dict[str, Any] = {}
    for name, field in fields.items():
        if any(field.default_factory is factory for factory in _FRESH):
            known[name] = field.default_factory()
        elif field.default is not dataclasses.MISSING and field.default is not PydanticUndefined:
            known[name] = field.default
    return known


def _foreign(value: Any, depth: int) -> Any:
    try:
        plain = to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="strings")
    except Exception as error:
        raise NoCanonicalForm(type_name(value)) from error
    return tree(plain, depth)
