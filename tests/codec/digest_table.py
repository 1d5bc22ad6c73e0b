"""Calls whose digests must never change: printed as JSON, one digest per line, when run as a program."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AnyUrl, BaseModel, ConfigDict, Field

from durable_sqlite._codec import Parameters


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    SMALL = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0
    tags: tuple[str, ...] = field(default_factory=tuple)


class Item(BaseModel):
    model_config = ConfigDict(extra="allow")
    sku: str = Field(alias="SKU")
    note: str = ""
    tags: set[str] = Field(default_factory=set)


def charge(order: Any, cents: int = 0, *more: Any, note: str = "", **rest: Any) -> None: ...


def item(**values: Any) -> Item:
    return Item.model_validate(values)


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "scalars": (
        (1, 2, None, True, "é\ud83d\ude00\ud800", 1.5, -0.0, 1e300, 10**40),
        {"note": "n", "b": b"\xff", "a": 1},
    ),
    "defaults": (("a",), {}),
    "special floats": (([float("nan"), float("inf"), -float("inf")],), {}),
    "time": (
        (
            datetime(2026, 7, 1, 12, 30, 0, 5, tzinfo=UTC),
            0,
            datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Paris")),
            date(2026, 7, 1),
            time(1, 2, 3),
            timedelta(days=-1, microseconds=3),
        ),
        {},
    ),
    "numbers": (([Decimal("1.10"), Fraction(1, 3), Colour.RED, Size.SMALL],), {}),
    "names": (([UUID(int=7), PurePosixPath("/a/b"), AnyUrl("http://example.com/x")],), {}),
    "sets": (({"pear", "apple", "fig", "kiwi", "plum"}, 1, frozenset({(2, "b"), (1, "a")}), deque([3])), {}),
    "keys": (({"b": 1, "a": {"d": 1, "c": 2}, "ä": 3},), {"z": 1, "y": OrderedDict([("q", 1), ("p", 2)])}),
    "other keys": (({1: "a", None: "b", (1, 2): "c", 1.5: "d", Colour.RED: "e"},), {}),
    "dataclasses": (([Point(1), Point(1, 2, ("t",))],), {}),
    "models": (([item(SKU="s"), item(SKU="s", note="n", tags={"b", "a"}, more=(1, 2))],), {}),
    "nested": (({"a": [{"b": [{"c": ({"x"},)}]}]},), {}),
}


def digests(fn: Callable[..., Any] = charge) -> dict[str, str]:
    """The digest of each call, as hex."""
    parameters = Parameters(fn)
    return {
        name: parameters.digest(parameters.bind(args, kwargs), name).hex() for name, (args, kwargs) in CALLS.items()
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(digests(), indent=2) + "\n")
