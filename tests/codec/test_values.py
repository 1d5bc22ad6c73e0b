"""First-run value equals replayed value: for every type with a stated round trip, what is loaded is what was dumped."""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, Json, PrivateAttr, RootModel, computed_field
from pydantic_core import core_schema, from_json
from typing_extensions import TypedDict

from durable_sqlite._codec import Shape
from durable_sqlite._codec._faithful import same
from durable_sqlite.errors import Undecodable, Unstorable

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    NUMBER = 7


class Size(IntEnum):
    SMALL = 1


class Word(StrEnum):
    YES = "yes"


class Bits(Flag):
    A = 1
    B = 2


@dataclass
class Point:
    x: float
    raw: bytes = b""
    tags: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Pair(Generic[T]):
    left: T
    right: T


class Row(TypedDict, total=False):
    raw: bytes
    ratio: float
    point: Point


class Coordinates(NamedTuple):
    x: int
    raw: bytes


class Item(BaseModel):
    sku: str
    price: Decimal
    when: datetime | None = None


class Order(BaseModel):
    id: UUID
    items: list[Item]
    notes: dict[str, tuple[int, ...]] = {}


class Box(BaseModel, Generic[T]):
    content: T


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Awkward(BaseModel):
    """Aliases both ways, nothing else allowed, a computed field: written and read by the names of the fields."""

    model_config = ConfigDict(extra="forbid")
    first: int = Field(alias="First")
    second: int = Field(default=0, validation_alias="in", serialization_alias="out")
    _cache: int = PrivateAttr(default=0)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return self.first + self.second


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Numbers(RootModel[list[int]]):
    pass


class Tree(BaseModel):
    children: list[Tree] = []


class Plain:
    """A class of the application's own that says nothing about equality."""

    __slots__ = ("__dict__", "value")

    def __init__(self, value: int) -> None:
        self.value = value

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(
            cls, serialization=core_schema.plain_serializer_function_ser_schema(lambda plain: plain.value)
        )


def awkward(first: int, second: int) -> Awkward:
    return Awkward.model_validate({"First": first, "in": second})


texts = st.text(st.characters(exclude_categories=["Cs"]))
ints = st.integers(-(10**60), 10**60)
floats = st.floats()
offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
zones = st.sampled_from([UTC, ZoneInfo("Europe/Paris"), ZoneInfo("America/New_York")])
some_zone: Any = st.none() | offsets | zones
moments = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=some_zone)  # noqa: DTZ001
decimals = st.decimals(allow_nan=False, allow_infinity=False)
points = st.builds(Point, floats, st.binary(), st.lists(texts))
items = st.builds(Item, sku=texts, price=decimals, when=st.none() | moments)
json_values = st.recursive(
    st.none() | st.booleans() | ints | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)

TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, ints),
    (float, floats),
    (str, texts),
    (bytes, st.binary()),
    (complex, st.complex_numbers(allow_nan=False)),
    (Decimal, decimals),
    (datetime, moments),
    (date, st.dates()),
    (time, st.times(timezones=st.none() | offsets)),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Fraction, st.fractions()),
    (Colour, st.sampled_from(Colour)),
    (Size, st.sampled_from(Size)),
    (Word, st.sampled_from(Word)),
    (Bits, st.sampled_from([Bits.A, Bits.B, Bits.A | Bits.B])),
    (ipaddress.IPv4Address, st.ip_addresses(v=4)),
    (PurePosixPath, st.just(PurePosixPath("/tmp/x"))),
    (re.Pattern[str], st.just(re.compile("a+"))),
    (tuple[int, str], st.tuples(ints, texts)),
    (tuple[float, ...], st.lists(floats).map(tuple)),
    (set[int], st.sets(ints)),
    (set[float], st.sets(floats)),
    (frozenset[tuple[int, str]], st.frozensets(st.tuples(ints, texts))),
    (deque[bytes], st.lists(st.binary()).map(deque)),
    (list[set[Size]], st.lists(st.sets(st.sampled_from(Size)))),
    (dict[int, str], st.dictionaries(ints, texts)),
    (dict[float, float], st.dictionaries(floats, floats)),
    (dict[UUID, list[bytes]], st.dictionaries(st.uuids(), st.lists(st.binary()))),
    (OrderedDict[str, int], st.dictionaries(texts, ints).map(OrderedDict)),
    (defaultdict[str, int], st.dictionaries(texts, ints).map(lambda d: defaultdict(int, d))),
    (Counter[str], st.lists(texts).map(Counter)),
    (Sequence[int], st.lists(ints)),
    (Mapping[str, float], st.dictionaries(texts, floats)),
    (Point, points),
    (Pair[int], st.builds(Pair, ints, ints)),
    (list[Pair[Point]], st.lists(st.builds(Pair, points, points), max_size=3)),
    (Row, st.fixed_dictionaries({}, optional={"point": points, "ratio": floats, "raw": st.binary()})),
    (Coordinates, st.builds(Coordinates, ints, st.binary())),
    (Item, items),
    (Order, st.builds(Order, id=st.uuids(), items=st.lists(items, max_size=3))),
    (Box[set[int]], st.builds(Box[set[int]], content=st.sets(ints))),
    (Cat | Dog, st.builds(Cat, lives=ints) | st.builds(Dog, lives=ints)),
    (
        Annotated[Cat | Dog, Field(discriminator="kind")],
        st.builds(Cat, lives=ints) | st.builds(Dog, lives=ints),
    ),
    (int | str | None, ints | texts | st.none()),
    (int | float | bool, ints | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()),
    (tuple[int, ...] | list[int], st.lists(ints)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (list[Awkward], st.lists(st.builds(awkward, ints, ints))),
    (Open, json_values.map(lambda value: Open.model_validate({"a": 1, "b": value}))),
    (Numbers, st.lists(ints).map(Numbers)),
    (Json[Any], json_values),  # type: ignore[misc]
    (Any, json_values),
    (object, json_values),
]


@pytest.mark.parametrize(("annotation", "values"), TYPES, ids=lambda part: str(part)[:60])
def test_the_first_run_sees_what_a_replay_sees(annotation: Any, values: st.SearchStrategy[Any]) -> None:
    shape = Shape[Any](annotation)

    @given(values)
    def check(value: Any) -> None:
        data = shape.dump(value, "step a#1")
        from_json(data, allow_inf_nan=False)  # payloads stay valid JSON
        back = shape.load(data, "step a#1")
        assert same(value, back)
        assert type(back) is type(value)
        stored, seen = shape.round_trip(value, "step a#1")
        assert stored == data
        assert same(seen, back)

    check()


@pytest.mark.parametrize("value", ["", "a\0b", "😀", "\u202e", "\x1b[31m"])
def test_any_text_that_utf_8_can_hold_comes_back(value: str) -> None:
    assert Shape[str](str).load(Shape[str](str).dump(value, "w"), "w") == value


@pytest.mark.parametrize("value", [None, 0, "", [], {}, False, 0.0])
def test_empty_and_falsy_values_are_values(value: object) -> None:
    back = Shape[Any](Any).load(Shape[Any](Any).dump(value, "w"), "w")
    assert back == value
    assert type(back) is type(value)


def test_nan_and_infinity_come_back() -> None:
    shape = Shape[list[float]](list[float])
    back = shape.load(shape.dump([math.nan, math.inf, -math.inf], "w"), "w")
    assert math.isnan(back[0])
    assert back[1:] == [math.inf, -math.inf]


def test_a_zone_comes_back_as_the_offset_it_had_even_in_a_repeated_hour() -> None:
    paris = ZoneInfo("Europe/Paris")
    shape = Shape[datetime](datetime)
    for fold in (0, 1):
        moment = datetime(2025, 10, 26, 2, 30, tzinfo=paris, fold=fold)
        back = shape.load(shape.dump(moment, "w"), "w")
        assert back.astimezone(UTC) == moment.astimezone(UTC)
        assert back.utcoffset() == moment.utcoffset()


def test_an_int_where_the_annotation_says_float_is_the_equal_float() -> None:
    """Type checkers let an int stand for a float, so it is no mistake; the body sees the float on every pass."""
    back = Shape[float](float).load(Shape[float](float).dump(3, "w"), "w")
    assert back == 3.0
    assert type(back) is float
    with pytest.raises(Unstorable):
        Shape[float](float).dump(2**60 + 1, "w")


def test_a_hundred_megabytes_come_back() -> None:
    value = "x" * 100_000_000
    assert Shape[str](str).load(Shape[str](str).dump(value, "w"), "w") == value


def test_the_deepest_value_that_can_be_read_is_stored() -> None:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    assert Shape[Any](Any).load(Shape[Any](Any).dump(value, "w"), "w") == value
    tree = Tree()
    for _ in range(90):
        tree = Tree(children=[tree])
    assert Shape[Tree](Tree).load(Shape[Tree](Tree).dump(tree, "w"), "w") == tree


def test_an_object_without_equality_is_judged_by_what_it_holds() -> None:
    shape = Shape[Plain](Plain)
    assert shape.load(shape.dump(Plain(3), "w"), "w").value == 3
    plain = Plain(3)
    plain.__dict__["more"] = 1
    with pytest.raises(Unstorable, match=r"\$\.more"):
        shape.dump(plain, "w")


def test_a_pydantic_dataclass_that_sets_its_config_stores_bytes() -> None:
    @pydantic.dataclasses.dataclass(config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    class Blob:
        raw: bytes

    assert Shape[Blob](Blob).load(Shape[Blob](Blob).dump(Blob(b"\xff"), "w"), "w") == Blob(b"\xff")


def test_values_are_fresh_on_every_load() -> None:
    shape = Shape[list[int]](list[int])
    data = shape.dump([1], "w")
    shape.load(data, "w").append(2)
    assert shape.load(data, "w") == [1]


@pytest.mark.parametrize(
    ("annotation", "data", "path"),
    [
        (int, b'"a"', r"\$: Input should be a valid integer"),
        (Item, b'{"sku":"a"}', r"\$\.price: Field required"),
        (Order, b'{"id":"x","items":[]}', r"\$\.id: Input should be a valid UUID"),
        (list[Item | int], b'[1,{"sku":"a","price":"b"}]', r"\$\[1\]\.price: .*\$\[1\]"),
        (dict[str, list[int]], b'{"a b":[1,"x"]}', r'\$\["a b"\]\[1\]: '),
        (list[int], b'["a","b","c","d","e"]', r"\$\[2\].*; and 2 more"),
        (int, b"{", r"\$: Invalid JSON"),
        (str, b'"\xff"', r"\$: Invalid JSON"),
    ],
)
def test_stored_data_that_no_longer_fits_is_named_by_its_path(annotation: Any, data: bytes, path: str) -> None:
    with pytest.raises(Undecodable, match=path) as caught:
        Shape[Any](annotation).load(data, "run r, step a#1")
    assert str(caught.value).startswith("run r, step a#1: ")
    assert "resume the run" in str(caught.value)


def test_a_validator_that_breaks_is_no_reason_to_lose_the_run() -> None:
    class Moody(BaseModel):
        a: int

        @pydantic.field_validator("a")
        @classmethod
        def check(cls, value: int) -> int:
            if value == 2:
                raise RuntimeError("moody")
            return value

    with pytest.raises(Undecodable, match="moody"):
        Shape[Moody](Moody).load(b'{"a":2}', "w")
    with pytest.raises(Unstorable, match="moody"):
        Shape[Moody](Moody).dump(Moody.model_construct(a=2), "w")


def test_the_schema_names_fields_as_they_are_stored() -> None:
    schema = Shape[Awkward](Awkward).json_schema()
    assert set(schema["properties"]) == {"first", "second"}
    assert Shape[Point](Point).json_schema()["properties"]["x"]["type"] == "number"


def test_an_iterable_annotation_does_not_hold_lists() -> None:
    with pytest.raises(Unstorable, match=r"\$: a list comes back as"):
        Shape[Iterable[int]](Iterable[int]).dump([1], "w")
