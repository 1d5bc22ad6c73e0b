"""An example of what a JSON schema asks for: a line that works as it is printed, to be changed by whoever types it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ._light import TYPE_CHECKING
from ._schema import misfits, resolved

if TYPE_CHECKING:
    from typing import Any

__all__ = ["sample"]

_DEEPEST = 16
_MOST = 2_000
"""Parts of a schema that are looked at: one may name itself over and over."""
_LONGEST = 1_000
"""Letters, or items, that an example has at most."""
_TEXTS = ("text", "a", "A", "1", "00", "abc", "ABC", "123", "0000", "a-1", "A-1", "a@b.co", "2026-01-31", "")
"""Tried in turn where a text has to fit a pattern."""
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "you@example.com",
    "uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "ipvanyaddress": "192.0.2.1",
    "ipv4network": "192.0.2.0/24",
    "ipv6network": "2001:db8::/32",
    "ipvanynetwork": "192.0.2.0/24",
    "ipv4interface": "192.0.2.1/24",
    "ipv6interface": "2001:db8::1/32",
    "ipvanyinterface": "192.0.2.1/24",
    "binary": "text",
    "base64": "dGV4dA==",
    "password": "text",
    "path": "file",
    "directory-path": ".",
    "regex": "text",
    "json-string": "{}",
}
_PLAIN: dict[str, Any] = {"boolean": True, "null": None}
_WHOSE = frozenset({"by", "who", "user", "author", "approver"})
"""Fields in which people write who they are."""


def sample(schema: str) -> str | None:
    """An example as JSON on one line, in ASCII; None where none is found that fits the schema."""
    try:
        document: Any = json.loads(schema)
        found = _Maker(document).make(document, "", 0)
        return None if misfits(found, document) else json.dumps(found)
    except (_NoneKnown, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, re.error):
        return None  # a stranger's schema may hold anything


class _NoneKnown(Exception):
    """There is no example, or none is known here."""


class _Maker:
    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self._left = _MOST

    def make(self, part: Any, name: str, depth: int) -> Any:
        """An example of a part of the schema.

        Raises:
            _NoneKnown: None is known.
        """
        self._left -= 1
        if part is True or part is None:
            return {}
        facts: dict[str, Any] = resolved(part, self._whole)
        if not isinstance(facts, dict) or depth > _DEEPEST or self._left < 0:
            raise _NoneKnown
        for word in ("const", "default"):
            if word in facts:
                return facts[word]
        for word in ("examples", "enum"):
            if facts.get(word):
                return facts[word][0]
        for word in ("anyOf", "oneOf"):
            if facts.get(word):
                return self._first_of(facts[word], name, depth)
        if facts.get("allOf"):
            return self.make(facts["allOf"][0], name, depth + 1)
        return self._of_type(facts, name, depth)

    def _first_of(self, options: list[Any], name: str, depth: int) -> Any:
        # Nothing at all is an example of very little.
        for option in sorted(options, key=lambda each: each.get("type") == "null"):
            try:
                return self.make(option, name, depth + 1)
            except _NoneKnown:
                continue
        raise _NoneKnown

    def _of_type(self, facts: dict[str, Any], name: str, depth: int) -> Any:
        kinds: Any = facts.get("type")
        kind: Any = kinds if isinstance(kinds, str | None) else kinds[0]
        match kind:
            case "string":
                return _text(facts, name)
            case "integer" | "number":
                return _number(facts, whole=kind == "integer")
            case "array":
                return self._items(facts, name, depth)
            case "object":
                return self._fields(facts, depth)
            case "boolean" | "null" | None:
                return _PLAIN.get(kind or "", {})
            case _:
                raise _NoneKnown

    def _items(self, facts: dict[str, Any], name: str, depth: int) -> list[Any]:
        first = [self.make(each, name, depth + 1) for each in facts.get("prefixItems", [])]
        missing = facts.get("minItems", 0) - len(first)
        if missing > _LONGEST or (missing > 1 and facts.get("uniqueItems")):
            raise _NoneKnown
        return first + [self.make(facts.get("items"), name, depth + 1) for _ in range(missing)]

    def _fields(self, facts: dict[str, Any], depth: int) -> dict[str, Any]:
        known = facts.get("properties", {})
        if facts.get("minProperties", 0) > len(facts.get("required", [])):
            raise _NoneKnown
        return {name: self.make(known.get(name), name, depth + 1) for name in facts.get("required", [])}


def _text(facts: dict[str, Any], name: str) -> str:
    text: str | None
    least, most = facts.get("minLength", 0), facts.get("maxLength", _LONGEST)
    if facts.get("contentMediaType") == "application/json":
        return "{}"
    if "format" in facts:
        if facts["format"] not in _FORMATS:
            raise _NoneKnown
        text = _FORMATS[facts["format"]]
    elif "pattern" in facts:
        fits = re.compile(facts["pattern"]).search
        text = next(filter(fits, _long_enough(least, most)), None)
    else:
        text = "you" if name in _WHOSE else "text"
        text = (text + "." * min(max(least - len(text), 0), _LONGEST))[: max(most, 0)]
    if text is None or not least <= len(text) <= most:
        raise _NoneKnown
    return text


def _long_enough(least: int, most: int) -> Iterator[str]:
    for text in _TEXTS:
        yield text
        if text and len(text) < least <= _LONGEST:
            yield (text * least)[:least]
        yield text[:most]


def _number(facts: dict[str, Any], *, whole: bool) -> int | float:
    low = facts.get("minimum", facts.get("exclusiveMinimum"))
    high = facts.get("maximum", facts.get("exclusiveMaximum"))
    step = facts.get("multipleOf", 1)
    tried: list[Any] = [1, 0, low, high]
    if low is not None:
        tried += [low // step * step + step, low + 1]
    if high is not None:
        tried += [-(-high // step) * step - step, high - 1]
    if low is not None and high is not None:
        tried.append((low + high) / 2)
    for value in tried:
        if value is not None and not (whole and value != int(value)) and not misfits(value, facts):
            return int(value) if value == int(value) else value
    raise _NoneKnown
