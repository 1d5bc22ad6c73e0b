"""What does not come back is refused at that step, with its path and the advice what to write."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_serializer
from typing_extensions import TypedDict

from durable_sqlite._codec import Shape
from durable_sqlite._codec._faithful import MISSING, difference, places, same
from durable_sqlite.errors import DefinitionError, Unstorable


class Colour(Enum):
    RED = "red"


class Base(BaseModel):
    a: int = 0


class Sub(Base):
    b: int = 0


class Left(BaseModel):
    a: int = 0


class Right(BaseModel):
    a: int = 0


@dataclass
class Blank:
    a: int = 0
    b: int = field(default=0, init=False)


@dataclass
class Loop:
    me: Any = None


class Reading(BaseModel):
    values: list[float] = []
    raw: bytes = b""


class Account(BaseModel):
    name: str
    secret: SecretStr = SecretStr("")
    hidden: int = Field(default=0, exclude=True)
    _note: str = PrivateAttr(default="")


class Lossy(BaseModel):
    a: int

    @field_serializer("a")
    def half(self, value: int) -> int:
        return value // 2


class Broken(BaseModel):
    a: int

    @field_serializer("a")
    def fail(self, value: int) -> int:
        raise RuntimeError("serializer broke " + "x" * 400)


class Half(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64")
    raw: bytes = b""
    ratio: float | None = None


class Row(TypedDict):
    a: int


class Two(NamedTuple):
    a: int
    b: int


class Stranger:
    pass


def cycle() -> list[Any]:
    items: list[Any] = [1]
    items.append({"again": items})
    return items


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def with_note() -> Account:
    account = Account(name="a")
    setattr(account, "_note", "kept")  # noqa: B010 - as its own methods would
    return account


def with_default_factory() -> dict[str, int]:
    return defaultdict(lambda: 5, a=1)


def self_holding() -> Loop:
    loop = Loop()
    loop.me = loop
    return loop


def with_b(value: int) -> Blank:
    blank = Blank()
    blank.b = value
    return blank


def named(part: object) -> str:
    return ascii(part[:40]) if isinstance(part, str) else type(part).__name__  # not str(): some are too large for it


NO_ANNOTATION: list[tuple[Any, str, str]] = [
    ((1, "a"), r"\$: a tuple comes back as a list", r"annotate it with its type: tuple\[int, str\]"),
    ({"a": [1, (2,)]}, r"\$\.a\[1\]: a tuple", r"tuple\[int\]"),
    ((), r"\$: a tuple", r"tuple\[\(\)\]"),
    ((1, 2, 3, 4, 5.0), r"\$: a tuple", r"tuple\[float | int, \.\.\.\]"),
    ({"s": {1, 2}}, r"\$\.s: a set comes back as a list", r"set\[int\]"),
    ({"s": frozenset({None})}, r"\$\.s: a frozenset", r"frozenset\[None\]"),
    (deque([b"a"]), r"\$: ", r"collections\.deque"),  # pydantic 2.11 writes none without an annotation
    ({"a b": {1: "x"}}, r'\$\["a b"\]\[1\]: the key, an int, comes back as a str', "annotate it with its type: int"),
    ({1: "x", "1": "y"}, r"\$\[1\]: the key, an int, is not stored", "declare it"),
    ({"d": Decimal("1.10")}, r"\$\.d: a decimal\.Decimal comes back as a str", "Decimal"),
    ([{"a": {"b": ({},)}}], r"\$\[0\]\.a\.b: a tuple", r"tuple\[dict\[Any, Any\]\]"),
    (((((((1,),),),),),), r"\$: a tuple", r"tuple\[tuple\[tuple\[tuple\[tuple\]\]\]\]"),
    (datetime(2026, 1, 1, tzinfo=UTC), r"\$: a datetime\.datetime comes back as a str", "datetime"),
    (b"a", r"\$: a bytes comes back as a str", "bytes"),
    (float("nan"), r"\$: a float comes back as a str", "float"),
    (Colour.RED, r"\$: a \S+Colour comes back as a str", "Colour"),
    ([Base()], r"\$\[0\]: a \S+Base comes back as a dict", "Base"),
    (Two(1, 2), r"\$: a \S+Two comes back as a list", "Two"),
    (Stranger(), r"\$: a \S+Stranger has no JSON form", "plain data"),
    ({"x": [threading.Lock()]}, r"\$\.x\[0\]: a _thread\.lock has no JSON form", "plain data"),
]


@pytest.mark.parametrize(("value", "place", "advice"), NO_ANNOTATION, ids=named)
def test_without_an_annotation_only_json_passes(value: Any, place: str, advice: str) -> None:
    with pytest.raises(Unstorable, match=rf"^run r, step a#1: {place}.*{advice}"):
        Shape[Any](Any).dump(value, "run r, step a#1")


UNDER_ANNOTATION: list[tuple[Any, Any, str]] = [
    # another type
    (int, "5", r"\$: a str comes back as an int; annotate it with its type: str"),
    (int, True, r"\$: a bool does not fit|\$: a bool comes back as an int"),
    (int, "a", r"\$: a str does not fit the annotation \(Input should be a valid integer.*: str"),
    (int, None, r"\$: None does not fit the annotation"),
    (float, True, r"\$: a bool comes back as a float"),
    (str, Colour.RED, r"\$: a \S+Colour comes back as a str"),
    (list[int], (1,), r"\$: a tuple comes back as a list"),
    (tuple[int, ...], [1], r"\$: a list comes back as a tuple"),
    (Two, (1, 2), r"\$: a tuple comes back as a \S+Two"),
    (date, datetime(2026, 1, 1, tzinfo=UTC), r"\$: a datetime\.datetime"),
    (dict[int, str], {True: "a"}, r"\$: a dict does not fit the annotation .*: dict\[bool, str\]"),
    (dict[Any, str], {1: "a"}, r"\$\[1\]: the key, an int, comes back as a str"),
    (dict[tuple[int, int], str], {(1, 2): "a"}, r"\$: a dict does not fit the annotation"),
    (set[float], {True}, r"\$: a bool comes back as a float"),
    (set[Any], {(1, 2)}, r"\$\[0\]: a tuple does not fit the annotation .*hashable"),
    (list[list[int]], [[1], ["a"]], r"\$\[1\]\[0\]: a str does not fit"),
    (list[set[str]], [{"a"}, {1}], r"\$\[1\]\[0\]: an int does not fit"),
    # content that is lost
    (Base, Sub(b=1), r"\$: a \S+Sub comes back as a \S+Base and loses what the subclass adds; annotate it with Sub"),
    (list[Left | Right], [Right.model_construct(a=1.5)], r"\$\[0\].a: a float does not fit"),
    (Left, Right(a=1), r"\$: a \S+Right comes back as a \S+Left, another branch .* discriminator"),
    (Account, Account(name="a", hidden=3), r"\$\.hidden: an int comes back with another content; make its type"),
    (Account, with_note(), r"\$\._note: a str comes back with another content"),
    (Account, Account(name="a", secret=SecretStr("s3")), r"\$\.secret: a \S+SecretStr .*secrets are masked"),
    (Lossy, Lossy(a=4), r"\$\.a: an int comes back with another content"),
    (Row, {"a": 1, "more": 2}, r"\$\.more: the key, a str, is not stored"),
    (deque[int], deque([1], maxlen=3), r"\$: a collections\.deque comes back with another content"),
    (defaultdict[str, int], with_default_factory(), r"\$: a collections\.defaultdict comes back with another"),
    (Blank, with_b(2), r"\$\.b: an int comes back with another content"),
    (datetime, datetime(1800, 1, 1, tzinfo=ZoneInfo("Europe/Paris")), r"\$: a datetime\.datetime comes back with"),
    (time, time(1, tzinfo=ZoneInfo("Europe/Paris")), r"\$: a datetime\.time comes back with another content"),
    (Decimal, Decimal("NaN"), r"\$: a decimal\.Decimal does not fit .*finite"),
    # models whose own config rules
    (Reading, Reading(values=[1.0, float("nan")]), r"\$\.values\[1\]: this float .*ConfigDict\(.*\) in Reading"),
    (Half, Half(raw=b"abc"), r"\$\.raw: a bytes comes back with another content; set model_config = .* in Half"),
    (Half, Half(ratio=float("nan")), r"\$\.ratio: a float comes back as None; set model_config = .* in Half"),
    (Any, [None, True, 1.5, 5, b"ok", b"\xff", Decimal(1), Base(), Blank(), "\ud800"], r"\$\[9\]: the str holds"),
    (list[Reading], [Reading(raw=b"\xff")], r"\$\[0\]\.raw: these bytes are no UTF-8; .*ConfigDict\(.* in Reading"),
    # no JSON at all
    (deque[str], deque(["\ud800"]), r"\$\[0\]: the str holds"),
    (str, "ab\ud800", r"\$: the str holds the lone surrogate '\\ud800' at index 2, .*bytes"),
    (dict[str, int], {"\udfff": 1}, r'\$\["\\udfff"\]: the str holds the lone surrogate'),
    (Base, Base.model_construct(a="\ud800"), r"\$\.a: the str holds"),
    (int, 10**5000, r"\$: the int has 16,610 bits, .*hex\(\)"),
    (list[int], [1, -(10**4400)], r"\$\[1\]: the int has"),
    (Any, cycle(), r"\$\[1\]\.again: this list contains itself; break the cycle"),
    (Loop, self_holding(), r"\$\.me: this \S+Loop contains itself"),
    (Any, deep(201), r"\$(\[0\]){201}: nested more than 200 levels deep"),
    (Any, deep(100_000), r"\$(\[0\]){201}: nested more than 200 levels deep"),
    (Broken, Broken(a=1), r"\$: PydanticSerializationError: .*serializer broke x+…$"),
]


@pytest.mark.parametrize(("annotation", "value", "message"), UNDER_ANNOTATION, ids=named)
def test_what_does_not_come_back_is_refused_with_its_path(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(Unstorable, match=rf"^run r, step a#1: (?:{message})"):
        Shape[Any](annotation).dump(value, "run r, step a#1")


def test_no_message_holds_a_secret() -> None:
    with pytest.raises(Unstorable) as caught:
        Shape[Account](Account).dump(Account(name="a", secret=SecretStr("hunter2")), "w")
    assert "hunter2" not in str(caught.value)


def test_a_model_that_sets_its_config_stores_bytes_and_nan() -> None:
    class Sensor(BaseModel):
        model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")
        value: float
        raw: bytes

    sensor = Sensor(value=float("nan"), raw=b"\xff")
    assert same(Shape[Sensor](Sensor).load(Shape[Sensor](Sensor).dump(sensor, "w"), "w"), sensor)


def test_an_annotation_that_cannot_be_stored_is_an_error_of_the_definition() -> None:
    with pytest.raises(DefinitionError, match=r"^the result of f\(\): values of Stranger cannot be stored: .*schema"):
        Shape[Any](Stranger, what="the result of f()").dump(Stranger(), "w")
    nowhere: Any = "Nowhere"
    with pytest.raises(DefinitionError, match=r"^values of list\[.*Nowhere.*\] cannot be stored"):
        Shape[Any](list[nowhere]).prepare()


class NeverEqual:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


NAN = float("nan")

PAIRS: list[tuple[object, object, bool]] = [
    (1, True, False),
    ({NAN}, {float("nan")}, True),
    ({NAN, 1.0}, {float("nan"), 2.0}, False),
    ({NAN, 1.0}, {2.0, 1.0}, False),
    ({1.0}, {1.0, 2.0}, False),
    ({1.0, 2.0}, {1.0}, False),
    ({NAN: 1}, {float("nan"): 1}, True),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    ({"a": 1, "b": 2}, {"b": 2, "a": 3}, False),
    ({"a": 1}, {"a": 1, "b": 2}, False),
    ({1: 1, 2: 2}, {2: 2, True: 1}, False),
    (Decimal("1.0"), Decimal("1.00"), False),
    (Decimal("NaN"), Decimal("NaN"), True),
    (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), False),
    (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=timezone(timedelta(0))), True),
    (NeverEqual(), NeverEqual(), False),
    (Stranger(), Stranger(), True),
    ([1, 2], [1], False),
]


@pytest.mark.parametrize(("before", "after", "alike"), PAIRS)
def test_equal_means_equal_and_of_the_same_type_throughout(before: object, after: object, alike: bool) -> None:
    assert same(before, after) is alike


def test_the_first_difference_is_the_one_that_is_named() -> None:
    gap = difference([[1], [2], "x"], [[1], [3], "y"])
    assert gap is not None
    assert gap.trail == ((None, 1), 0)
    gap = difference(Open(a=1), Open.model_validate({"a": 1, "b": 2}))
    assert gap is not None
    assert gap.before is MISSING


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


def test_what_appears_from_nowhere_is_refused() -> None:
    class Growing(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

        def model_post_init(self, context: Any, /) -> None:
            assert self.model_extra is not None
            self.model_extra["born"] = 1

    grown = Growing(a=1)
    assert grown.model_extra is not None
    grown.model_extra.clear()
    with pytest.raises(Unstorable, match=r"\$\.born: an int comes back that was not there"):
        Shape[Growing](Growing).dump(grown, "w")


def test_a_walk_sees_every_part_of_models_and_mappings() -> None:
    value = {"m": Open.model_validate({"a": 1, "b": (2, {3.5: "x"})})}
    seen = [place.value for place in places(value)]
    assert [part for part in seen if isinstance(part, (int, float)) or part == "x"] == [1, 2, 3.5, "x"]
