"""What every journal promises about a run that is to end while more messages come for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from durable_sqlite._records import Drained, End, Ended, Entry, Kind, State
from tests.conformance.adapters import Lab
from tests.support.journals import asked, begin, completed, entry, look, new_message

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


def _drain(seq: int = 1) -> Entry:
    return replace(entry(f"paid#{seq}", seq=seq, kind=Kind.DRAIN, payload=b"[]"), name="paid")


def _over(heard: int, key: str = "paid#1") -> End:
    return replace(completed(), drained=Drained(key, "paid", heard))


def test_a_run_whose_last_act_was_to_take_all_does_not_end_while_more_has_come(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.signal("a", new_message(payload=b"1"))
        await journal.record(hold, _drain(), takes=[1])
        await journal.signal("a", new_message(payload=b"2"))
        assert await journal.end(hold, _over(heard=1)) is None
        row = await look(journal)
        assert (row.state, row.owner, row.result) == (State.PENDING, None, None)
        memory = await journal.memory(hold.run)
        assert memory.entries == []  # as if it had not asked yet
        assert [message.payload for message in memory.messages] == [b"1", b"2"]
        (claimed,) = await journal.claim(["ship"], 100, 10, suspects=False)
        await journal.record(claimed.hold, _drain(), takes=[1, 2])
        assert await journal.end(claimed.hold, _over(heard=2)) == Ended(State.COMPLETED, 0)
        assert (await look(journal)).state is State.COMPLETED

    lab(program)


@pytest.mark.parametrize("what", ["heard of", "another name", "set aside"])
def test_a_run_ends_although_there_are_messages_that_its_last_drain_could_not_take(lab: Over, what: str) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.record(hold, _drain())
        await journal.signal("a", new_message("other" if what == "another name" else "paid"))
        if what == "set aside":
            await journal.set_aside(hold, 1, b"error")
        assert await journal.end(hold, _over(heard=1 if what == "heard of" else 0)) == Ended(State.COMPLETED, 0)
        assert (await look(journal)).state is State.COMPLETED
        assert len((await journal.memory(hold.run)).messages) == 1

    lab(program)


def test_a_run_that_was_asked_to_end_ends_whatever_has_come(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.record(hold, _drain())
        await journal.signal("a", new_message())
        await journal.cancel("a", asked())
        assert await journal.end(hold, _over(heard=0)) == Ended(State.CANCELLED, 0)
        assert (await look(journal)).state is State.CANCELLED

    lab(program)


def test_entries_before_the_last_drain_stay(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.record(hold, _drain(1))
        await journal.signal("a", new_message())
        await journal.record(hold, _drain(2), takes=[1])
        await journal.signal("a", new_message())
        assert await journal.end(hold, _over(heard=1, key="paid#2")) is None
        memory = await journal.memory(hold.run)
        assert [kept.key for kept in memory.entries] == ["paid#1"]
        assert [message.no for message in memory.messages] == [1, 2]

    lab(program)
