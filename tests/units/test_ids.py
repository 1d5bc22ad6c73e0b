"""Ids and the one rule for names."""

from __future__ import annotations

from typing import Any

import pytest

from durable_sqlite import InvalidName
from durable_sqlite._ids import check_name, derived, new_id
from tests.support.clock import START


def test_ids_sort_by_the_time_of_their_making_and_are_never_the_same() -> None:
    ids = [new_id(START + 1_000 * number) for number in range(100)]
    assert ids == sorted(ids)
    assert {len(one) for one in ids} == {26}
    assert len({new_id(START) for _ in range(1_000)}) == 1_000
    assert {one[:10] for one in (new_id(START), new_id(START + 999))} == {new_id(START)[:10]}


def test_an_id_of_any_time_is_a_name() -> None:
    for now in (0, START, 2**63 - 1):
        assert check_name("an id", new_id(now))


def test_derived_ids_are_the_same_everywhere_and_differ_by_each_part() -> None:
    assert derived("uid", "act#1") == derived("uid", "act#1") == "5EM3KAW0KPW6MH47MGR4NDANJB"
    assert len({derived("a", "b"), derived("ab"), derived("a", "b", ""), derived("b", "a")}) == 4


@pytest.mark.parametrize("name", ["a", "_a", "9", "order-A1", "a.b_c-d:e@f+g=h,i", "ünïcode", "名前", "x" * 200])
def test_names_that_follow_the_rule_are_given_back(name: str) -> None:
    assert check_name("a name", name) == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "0 characters"),
        ("x" * 201, "201 characters"),
        ("-a", "begins with '-'"),
        ("a b", r"contains ' '"),
        ("a\x1b[31m", r"contains '\\x1b'"),
        ("a\u202eb", r"contains '\\u202e'"),
        ("a\ud800", r"contains '\\ud800'"),
        (5, "must be a string, not int"),
        (None, "must be a string, not NoneType"),
    ],
)
def test_names_outside_the_rule_are_refused_and_the_message_is_safe_to_print(name: Any, says: str) -> None:
    with pytest.raises(InvalidName, match=says) as caught:
        check_name("a name", name)
    assert str(caught.value).isascii()
