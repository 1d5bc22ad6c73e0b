"""docs/values.md: each row of its table, tried with a step that gives such a value."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import TypedDict

from durable_sqlite import Engine, PayloadTooLarge, StepFailed, Unstorable, step, workflow
from tests.support.house import ROOT

T = TypeVar("T")


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int


class Line(TypedDict):
    points: list[int]


class Box(BaseModel, Generic[T]):
    holds: T


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Left(BaseModel):
    x: int


class Right(BaseModel):
    x: int


class Wide(Left):
    y: int


class Secret(BaseModel):
    word: SecretStr


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


_ABROAD = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Oslo"))

_EQUAL: dict[str, list[tuple[Any, Any]]] = {
    "`None`, `bool`, `int`, `float`, `str`": [(None, None), (bool, False), (int, 0), (float, 1.5), (str, "")],
    "integers past 64 bits": [(int, 2**70)],
    "NaN, infinity": [(float, math.inf), (float, math.nan)],
    "`str` with NUL or emoji": [(str, "\x00\N{SNAKE}")],
    "`bytes`": [(bytes, b"\x00\xff")],
    "`list`, `dict`, `tuple`, `set`, `frozenset`": [
        (list[int], [1]),
        (dict[str, bytes], {"a": b"b"}),
        (tuple[int, str], (1, "a")),
        (set[int], {1}),
        (frozenset[date], frozenset({date(2026, 1, 1)})),
    ],
    "`Decimal`, `UUID`, `Enum`, `timedelta`": [
        (Decimal, Decimal("1.10")),
        (UUID, UUID(int=7)),
        (Colour, Colour.RED),
        (timedelta, timedelta(days=-1, microseconds=1)),
    ],
    "aware `datetime`": [(datetime, datetime(2026, 1, 1, tzinfo=UTC)), (datetime, _ABROAD)],
    "naive `datetime`, `date`, `time`": [
        (datetime, datetime(2026, 1, 1, 12)),  # noqa: DTZ001 - that is the row
        (date, date(2026, 1, 1)),
        (time, time(12, 30)),
    ],
    "dataclass, `TypedDict`, pydantic model, generics of them": [
        (Point, Point(1)),
        (Line, {"points": [1]}),
        (Box[Point], Box[Point](holds=Point(2))),
    ],
    "discriminated union": [(Annotated[Cat | Dog, Field(discriminator="kind")], Dog())],
    "plain union": [(int | str, "1"), (Left | Point, Left(x=1))],
}
_REFUSED: dict[str, list[tuple[Any, Any]]] = {
    "integers past 64 bits": [(int, 10**5_000)],
    "`str` with NUL or emoji": [(str, "\ud800")],
    "plain union": [(Left | Right, Right(x=1))],
    "instance of a subclass under its base's annotation": [(Left, Wide(x=1, y=2))],
    "model with `SecretStr`, excluded or aliased fields that do not come back": [(Secret, Secret(word=SecretStr("x")))],
    "anything but plain JSON data under `Any` or no annotation": [(Any, (1, 2)), (Any, Point(1))],
    "an object that contains itself": [(list[Any], _endless())],
    "deeply nested data": [(list[Any], _nested(5_000))],
    "larger than `Engine(payload_limit=…)`": [(str, "x" * (1 << 20))],
}


def _given(annotation: Any, value: Any) -> Any:
    """What a body is given for a value that a step of this annotation returned, or the failure of that step."""

    async def give() -> Any:
        return value

    give.__annotations__["return"] = annotation
    giving = step(name="give")(give)
    got: list[Any] = []

    @workflow(name="asks")
    async def asks() -> None:
        try:
            got.append(await giving())
        except StepFailed as failed:
            got.append(failed)

    async def main() -> None:
        async with Engine(":memory:"):
            await asks()

    asyncio.run(main())
    return got[0]


@pytest.mark.parametrize(("annotation", "value"), [case for cases in _EQUAL.values() for case in cases])
def test_what_the_page_says_comes_back_comes_back(annotation: Any, value: Any) -> None:
    got = _given(annotation, value)
    assert type(got) is type(value)
    assert got == value or (math.isnan(got) and math.isnan(value))
    if isinstance(value, datetime):
        assert got.utcoffset() == value.utcoffset()


@pytest.mark.parametrize(
    ("row", "annotation", "value"),
    [(row, *case) for row, cases in _REFUSED.items() for case in cases],
    ids=[f"{row} {number}" for row, cases in _REFUSED.items() for number in range(len(cases))],
)
def test_what_the_page_says_is_refused_is_refused(row: str, annotation: Any, value: Any) -> None:
    failed = _given(annotation, value)
    assert isinstance(failed, StepFailed)
    assert failed.is_a(PayloadTooLarge if "payload_limit" in row else Unstorable), failed


def test_each_row_of_the_page_is_tried_and_only_those() -> None:
    page = (ROOT / "docs" / "values.md").read_text(encoding="utf-8")
    table = page.partition("## What comes back, and what is refused\n")[2].partition("\n!!! note")[0]
    rows: list[str] = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[1:]
    assert rows == [*_EQUAL, *(row for row in _REFUSED if row not in _EQUAL)]
