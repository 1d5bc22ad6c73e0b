"""Digests: the same for the same arguments, everywhere and always; different where the arguments differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, PlainSerializer, PlainValidator
from pydantic_core import core_schema

from durable_sqlite._codec import Parameters, Shape
from durable_sqlite.errors import Unstorable

from .digest_table import digests

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE.parent / "golden" / "digests.json").read_text())


def digest_of(fn: Any, *args: Any, **kwargs: Any) -> bytes:
    parameters = Parameters(fn)
    return parameters.digest(parameters.bind(args, kwargs), "step a#1")


def canonical(value: Any) -> bytes:
    return Shape[Any](Any).canonical(value, "w")


def test_digests_are_those_that_journals_hold() -> None:
    """This file runs on every supported Python. A change here parks the runs of everybody who upgrades."""
    assert digests() == GOLDEN


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_the_hash_seed_does_not_change_a_digest(seed: str) -> None:
    root = HERE.parent.parent
    said = subprocess.run(
        [sys.executable, "-m", "tests.codec.digest_table"],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        check=True,
    )
    assert json.loads(said.stdout) == GOLDEN


def test_a_digest_is_twelve_bytes() -> None:
    def f(a: int) -> None: ...

    assert len(digest_of(f, 1)) == 12


def test_different_arguments_have_different_digests() -> None:
    def f(*args: Any, **kwargs: Any) -> None: ...

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {}), ((1,), {}), (("1",), {}), ((True,), {}), ((1.0,), {}), (([1],), {}), ((1, 1), {}), ((), {"a": 1}),
        ((None,), {}), (([],), {}), (({},), {}), (("",), {}), ((0,), {}), ((False,), {}), ((b"a",), {}),
        ((datetime(2026, 1, 1, tzinfo=UTC),), {}), ((datetime(2026, 1, 1),), {}),  # noqa: DTZ001
    ]  # fmt: skip
    assert len({digest_of(f, *args, **kwargs) for args, kwargs in calls}) == len(calls)


def test_an_argument_equal_to_its_default_is_left_out() -> None:
    def old(a: int) -> None: ...

    def new(a: int, b: str = "x", *more: int, c: list[int] | None = None, **rest: int) -> None: ...

    assert digest_of(old, 1) == digest_of(new, 1) == digest_of(new, 1, "x", c=None)
    assert digest_of(new, 1, "y") != digest_of(new, 1)
    assert digest_of(new, 1, "x", 0) != digest_of(new, 1)


def test_false_is_not_the_default_zero() -> None:
    def f(a: int = 0) -> None: ...

    assert digest_of(f, False) != digest_of(f, 0)


def test_a_keyword_and_a_positional_argument_are_the_same_call() -> None:
    def f(a: int, b: int) -> None: ...

    assert digest_of(f, 1, 2) == digest_of(f, b=2, a=1)


def test_a_new_field_with_a_default_changes_no_digest() -> None:
    class Old(BaseModel):
        a: int

    class New(BaseModel):
        extra: dict[str, set[int]] = Field(default_factory=dict)
        b: int = 5
        a: int

    @dataclass
    class OldData:
        a: int

    @dataclass
    class NewData:
        a: int
        b: list[int] = field(default_factory=list[int])
        c: Any = field(default_factory=list)  # pyright: ignore[reportUnknownVariableType]
        d: str = "x"

    assert canonical(Old(a=1)) == canonical(New(a=1)) == b'{"a":1}'
    assert canonical(New(a=1, b=6)) == b'{"a":1,"b":6}'
    assert canonical(OldData(1)) == b'{"a":1}'
    # Only factories that do nothing else are called to learn a default.
    assert canonical(NewData(1)) == b'{"a":1,"b":[]}'


def test_keys_and_sets_are_sorted_whatever_holds_them() -> None:
    assert canonical({"b": {3, 1, 2}, "a": [{"z": 1, "y": 2}]}) == b'{"a":[{"y":2,"z":1}],"b":[1,2,3]}'


def test_the_canonical_form_does_not_ask_the_serializers_of_the_application() -> None:
    upper = Annotated[str, PlainSerializer(str.upper)]
    assert Shape[Any](upper).canonical("a", "w") == b'"a"'


class Amount:
    """Known to its annotation alone."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Amount) and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment]


Money = Annotated[
    Amount,
    PlainValidator(lambda raw: raw if isinstance(raw, Amount) else Amount(raw)),
    PlainSerializer(lambda amount: amount.cents),
]


def test_what_only_the_annotation_can_write_is_digested_as_it_is_stored() -> None:
    def f(a: Money) -> None: ...

    assert digest_of(f, Amount(1)) != digest_of(f, Amount(2))
    assert digest_of(f, Amount(1)) == digest_of(f, Amount(1))
    assert Shape[Any](list[Money]).canonical([Amount(3)], "w") == b"[3]"


class Cents(int):
    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(cls)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (Cents(5), b"5"),
        (type("Name", (str,), {})("a"), b'"a"'),
        (type("Ratio", (float,), {})(0.5), b"0.5"),
        (PurePosixPath("a/b"), b'"a/b"'),
        (b"\xff", b'"/w=="'),
    ],
)
def test_subclasses_of_scalars_are_written_as_the_scalars(value: Any, form: bytes) -> None:
    assert canonical(value) == form


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (deep(201), "more than 200 levels"),
        (deep(100_000), "more than 200 levels"),
        (cyclic(), "more than 200 levels"),
        ({1: "a", "1": "b"}, "two keys of a dict are both written '1'"),
    ],
    ids=["deep", "very deep", "cyclic", "keys"],
)
def test_what_has_no_canonical_form_is_refused_with_the_parameter(value: Any, message: str) -> None:
    def f(order: Any) -> None: ...

    with pytest.raises(Unstorable, match=rf"^step a#1: \$\.order: .*{message}"):
        digest_of(f, value)
    with pytest.raises(Unstorable, match=rf"^w: .*{message}"):
        canonical(value)


def test_an_endless_int_is_refused() -> None:
    def f(order: Any) -> None: ...

    with pytest.raises(Unstorable, match=r"^step a#1: an int has too many digits"):
        digest_of(f, 10**5000)
    with pytest.raises(Unstorable, match="too many digits"):
        canonical([10**5000])


def test_what_nothing_can_write_is_refused() -> None:
    def f(order: Any) -> None: ...

    with pytest.raises(Unstorable, match=r"^step a#1: \$\.order: a object has no JSON form|\$\.order: an object has"):
        digest_of(f, object())
