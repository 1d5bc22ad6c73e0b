"""What a JSON schema asks for: examples that are answers, and a look at answers in the main."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import json
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, HttpUrl, Json, TypeAdapter

from durable_sqlite.cli._sample import sample
from durable_sqlite.cli._schema import misfits


class Size(enum.Enum):
    SMALL = "S"
    LARGE = "L"


class Part(BaseModel):
    no: int = Field(ge=10, lt=20, multiple_of=4)
    size: Size
    tags: set[str]
    price: Decimal


class Left(BaseModel):
    side: Literal["left"]
    parts: list[Part] = Field(min_length=2)


class Right(BaseModel):
    side: Literal["right"]


class Tree(BaseModel):
    name: str
    below: list[Tree]
    twin: Tree | None


class Everything(BaseModel):
    at: dt.datetime
    on: dt.date
    when: dt.time
    lasts: dt.timedelta
    which: uuid.UUID
    page: HttpUrl
    host: ipaddress.IPv4Address
    data: bytes
    share: float = Field(gt=0, lt=1)
    code: str = Field(pattern=r"^[A-Z]+-\d$")
    short: str = Field(max_length=2)
    long: str = Field(min_length=9)
    pair: tuple[int, bool]
    way: Left | Right = Field(discriminator="side")
    maybe: Part | None
    tree: Tree
    anything: Any
    by: str
    more: dict[str, int]
    left_out: int = 3


ANSWERS: list[Any] = [
    bool, int, str, float, None, Decimal, bytes, Size, dt.datetime, dt.date, dt.timedelta, uuid.UUID, Part, Left,
    Tree, Everything, Left | Right, list[Part], tuple[Part, ...], dict[str, Part], int | str, Literal["a", 3],
    Annotated[int, Field(gt=100)], Annotated[int, Field(lt=-7, multiple_of=5)], Annotated[float, Field(ge=0.25, le=0.5)],
    Annotated[str, Field(pattern="^[a-z]{3}$")], Annotated[list[int], Field(min_length=3)], Json, Any,
]  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_an_example_of_an_answer_is_one(answer: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(answer)
    found = sample(json.dumps(adapter.json_schema()))
    assert found is not None
    assert found.isascii()
    adapter.validate_json(found)


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "string", "pattern": "^nobody guesses this$"}', '{"type": "string", "format": "of tomorrow"}', "{", "[]",
        '{"$ref": "#/nowhere"}', '{"$ref": "#"}', '{"type": "integer", "minimum": 5, "maximum": 4}', '{"type": "sky"}',
        '{"type": "array", "minItems": 2, "uniqueItems": true, "items": {"type": "string"}}', '{"enum": [1], "type": "string"}',
        '{"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}', '{"type": "string", "pattern": "("}',
        '{"type": "integer", "minimum": "x"}', '{"type": {}}', '{"anyOf": [3]}', '{"type": "string", "minLength": 1e300}',
        '{"type": "array", "minItems": 1000000000}',
    ],
)  # fmt: skip
def test_where_no_example_is_known_none_is_given(schema: str) -> None:
    assert sample(schema) is None


def test_a_schema_is_looked_at_in_the_main() -> None:
    schema: dict[str, Any] = {
        "$defs": {"Size": {"enum": ["S", "L"]}},
        "type": "object",
        "additionalProperties": False,
        "required": ["size"],
        "properties": {
            "size": {"$ref": "#/$defs/Size"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "parts": {"type": "array", "items": {"type": "integer"}},
            "kind": {"const": "a"},
        },
    }
    assert misfits({"size": "L", "note": None, "parts": [1, 2.0], "kind": "a"}, schema) == []
    assert misfits([], schema) == ["$: it takes object, not array"]
    assert misfits({"size": "M", "note": 3, "parts": [1, True], "kind": "b", "x": 1}, schema) == [
        "$.size: it is one of 'S', 'L'",
        "$.note: it takes string, not integer",
        "$.parts[1]: it takes integer, not boolean",
        "$.kind: it is 'a'",
        "$.x: there is no such field; there are size, note, parts, kind",
    ]
    assert misfits({}, schema) == ["$.size: it is required"]
    sized: dict[str, Any] = {
        "properties": {
            "number": {"type": "integer", "minimum": 3, "exclusiveMaximum": 9, "multipleOf": 2},
            "text": {"type": "string", "minLength": 2, "maxLength": 3},
            "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "maxItems": 2},
        }
    }
    assert misfits({"number": 4, "text": "abc", "pair": [1, "a"]}, sized) == []
    assert misfits({"number": 9, "text": "a", "pair": ["a", 1, 2]}, sized) == [
        "$.number: it is less than 9",
        "$.number: it is a multiple of 2",
        "$.text: it has at least 2 characters",
        "$.pair: it has at most 2 items",
        "$.pair[0]: it takes integer, not string",
        "$.pair[1]: it takes string, not integer",
    ]
    assert misfits(1, {"$ref": "#"}) == []
    assert misfits(1, True) == []
