"""What a pass has asked for, held against what the journal holds."""

from __future__ import annotations

from collections.abc import Iterable

from durable_sqlite._call import Call
from durable_sqlite._records import CANCEL_KEY, Entry, Kind, Outcome
from durable_sqlite._replay import Asked, Conflict, Divergence, Replay


def entry(
    seq: int, key: str, *, kind: Kind = Kind.STEP, name: str = "", digest: bytes = b"d", removed: bool = False
) -> Entry:
    return Entry(
        seq=seq,
        key=key,
        kind=kind,
        name=name or key.partition("#")[0],
        digest=digest,
        outcome=Outcome.VALUE,
        payload=b"null",
        asked=0,
        started_at=0,
        at=0,
        removed=removed,
    )


def asked(key: str, *, kind: Kind = Kind.STEP, name: str = "", digest: bytes = b"d") -> Asked:
    return Call(key, kind, name or key.partition("#")[0], digest)


def known(*names: str) -> set[str]:
    return set(names)


def given(replay: Replay, open_keys: Iterable[str]) -> list[str]:
    keys = set(open_keys)
    out: list[str] = []
    while (one := replay.next(keys.__contains__)) is not None:
        out.append(one.key)
    return out


def test_of_all_that_was_asked_for_the_lowest_place_is_given_first() -> None:
    replay = Replay("x", [entry(1, "a#1"), entry(2, "b#1"), entry(3, "c#1")])
    assert replay.seq == 3
    for key in ("c#1", "a#1"):
        assert replay.ask(asked(key)) is None
    assert given(replay, ["a#1", "b#1", "c#1"]) == ["a#1", "c#1"]
    assert replay.ask(asked("b#1")) is None
    assert given(replay, ["b#1"]) == ["b#1"]
    assert replay.given == 3


def test_what_was_given_up_is_passed_over() -> None:
    replay = Replay("x", [entry(1, "a#1"), entry(2, "b#1")])
    for key in ("a#1", "b#1"):
        replay.ask(asked(key))
    assert given(replay, ["b#1"]) == ["b#1"]


def test_a_cancel_is_due_in_its_place_though_nobody_asks_for_it() -> None:
    replay = Replay("x", [entry(1, "a#1"), entry(2, CANCEL_KEY, kind=Kind.CANCEL), entry(3, "b#1")])
    replay.ask(asked("a#1"))
    replay.ask(asked("b#1"))
    assert given(replay, ["a#1", "b#1"]) == ["a#1", CANCEL_KEY, "b#1"]
    assert replay.unused() == []


def test_a_fresh_call_is_nothing_special_until_it_is_recorded() -> None:
    replay = Replay("x", [])
    assert replay.ask(asked("a#1")) is None
    assert "a#1" not in replay
    replay.append(entry(1, "a#1"))
    assert "a#1" in replay
    assert (replay.seq, replay.given) == (1, 1)


def test_a_call_that_differs_is_a_divergence_that_names_both() -> None:
    for call, word in ((asked("a#1", digest=b"other"), "arguments"), (asked("a#1", name="b"), "step a")):
        replay = Replay("run-7", [entry(1, "a#1")])
        problem = replay.ask(call)
        assert isinstance(problem, Divergence)
        assert "run run-7, a#1" in problem.message
        assert word in problem.message
        assert given(replay, ["a#1"]) == []


def test_a_step_in_the_place_of_a_wait_is_a_conflict_even_where_changes_are_accepted() -> None:
    for recorded, wanted in ((Kind.STEP, Kind.SLEEP), (Kind.SLEEP, Kind.STEP)):
        replay = Replay("x", [entry(1, "a#1", kind=recorded)], accept_changes=True)
        assert isinstance(replay.ask(asked("a#1", kind=wanted)), Conflict)


def test_accepted_changes_are_told_once_and_end_with_the_replay() -> None:
    replay = Replay("x", [entry(1, "a#1"), entry(2, "b#1"), entry(3, "gone#1"), entry(4, "c#1")], accept_changes=True)
    assert replay.ask(asked("a#1", digest=b"new")) is None
    assert given(replay, ["a#1"]) == ["a#1"]
    assert not Replay("x", []).accepted()
    assert replay.accepted().changed == (("a#1", "a", b"new"),)
    assert not replay.accepted()
    assert replay.before_fresh([asked("0/b#1", name="b")], known("b", "c").__contains__) is None
    assert replay.accepted().removed == ("b#1", "gone#1")
    assert replay.settle(known().__contains__)
    assert replay.accepted().removed == ("c#1",)
    assert not replay.settle(known().__contains__)
    replay = Replay("x", [entry(1, "a#1")])
    assert not replay.settle(known().__contains__)
    assert isinstance(replay.ask(asked("a#1", digest=b"new")), Divergence)


def test_before_a_fresh_step_what_is_recorded_and_was_not_asked_for_must_not_be_it() -> None:
    entries = [entry(1, "a#1"), entry(2, "nap#1", kind=Kind.SLEEP), entry(3, "old#1", removed=True)]
    replay = Replay("x", entries)
    assert replay.unused() == ["a#1", "nap#1"]
    moved = replay.before_fresh([asked("0/a#1", name="a")], known("a").__contains__)
    assert moved is not None
    assert "0/a#1" in moved.message
    gone = replay.before_fresh([asked("b#1")], known().__contains__)
    assert gone is not None
    assert '@step(name="a")' in gone.message
    assert replay.before_fresh([asked("b#1")], known("a").__contains__) is None
    replay.ask(asked("a#1"))
    assert replay.before_fresh([asked("0/a#1", name="a")], known().__contains__) is None
