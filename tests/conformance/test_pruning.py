"""What every journal promises about the runs that it forgets, and about those that it keeps."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from durable_sqlite._records import (
    CANCEL_KEY,
    End,
    FailedAttempt,
    Hold,
    IfExists,
    Intent,
    Kind,
    Pruned,
    Pruning,
    Resumption,
    State,
)
from durable_sqlite.errors import UnknownRun
from durable_sqlite.journal import Journal
from tests.conformance.adapters import Lab
from tests.support.journals import (
    asked,
    awaits_end,
    begin,
    completed,
    entry,
    failed,
    look,
    new_answer,
    new_message,
    new_question,
    new_run,
    rest,
)

Over = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]

FINAL = (State.COMPLETED, State.CANCELLED)
ALL = (State.COMPLETED, State.CANCELLED, State.FAILED, State.PARKED)


def order(
    *,
    before: int = 100,
    states: tuple[State, ...] = FINAL,
    discarded: bool = True,
    after: tuple[int, int] | None = None,
    looks: int = 1_000,
    limit: int = 100,
    rows: int = 2_000,
) -> Pruning:
    return Pruning(before, states, discarded, after, looks, limit, rows)


async def prune(journal: Journal, pruning: Pruning | None = None) -> set[str]:
    """One whole walk, in as many transactions as it takes; the ids that are gone."""
    pruned = await journal.prune(pruning or order())
    assert pruned.next is None, pruned
    assert len(set(pruned.ids)) == len(pruned.ids)
    for run_id in pruned.ids:
        assert await journal.run(run_id) is None
    return set(pruned.ids)


async def over(journal: Journal, run_id: str, *, at: int = 60, end: End | None = None) -> Hold:
    """A run that has ended."""
    _, hold = await begin(journal, run_id)
    await journal.end(hold, end or completed(at))
    return hold


async def child(journal: Journal, run_id: str, parent: Hold, *, detached: bool = False) -> Hold:
    """A run that the body of another has started."""
    new = new_run(run_id, parent=parent.run, parent_key=f"{run_id}#1", detached=detached)
    started = await journal.start(new, IfExists.ATTACH, drive=True, caller=parent)
    assert started.hold is not None
    return started.hold


def test_only_runs_that_ended_by_then_are_forgotten(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await over(journal, "old", at=99)
        await over(journal, "then", at=100)
        await over(journal, "young", at=101)
        await journal.start(new_run("pending", at=1), IfExists.ATTACH, drive=False)
        await begin(journal, "running")
        _, hold = await begin(journal, "waits")
        await journal.suspend(hold, rest(awaits_end("nobody")))
        await journal.pause("pending", asked())
        assert await prune(journal) == {"old", "then"}
        assert await prune(journal) == set()
        for run_id in ("young", "pending", "running", "waits"):
            await look(journal, run_id)

    lab(program)


def test_all_that_belongs_to_a_run_goes_with_it_and_nothing_else(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        holds: list[Hold] = []
        for run_id in ("a", "b"):
            started = await journal.start(new_run(run_id, tags={"team": "eu"}), IfExists.ATTACH, drive=True)
            hold = started.hold
            assert hold is not None
            await journal.record(hold, entry())
            await journal.fail(hold, FailedAttempt("s#2", 1, 10, 20, 30, b"e"))
            await journal.intend(hold, Intent("s#3", "s", b"", 0, 40))
            await journal.signal(run_id, new_message(dedupe="once"))
            await journal.ask(hold, new_question())
            await journal.answer(run_id, new_answer(early=True, name="sign", dedupe="early"))
            holds.append(hold)
        await journal.end(holds[0], completed())
        before = await journal.memory(holds[1].run)
        assert await prune(journal) == {"a"}
        gone = await journal.memory(holds[0].run)
        assert not any((gone.entries, gone.waits, gone.attempts, gone.intents, gone.messages, gone.questions))
        assert await journal.memory(holds[1].run) == before
        assert before.entries
        assert (await look(journal, "b")).tags == {"team": "eu"}

    lab(program)


def test_the_id_of_a_run_that_was_forgotten_is_free_again(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        old = await over(journal, "a")
        await journal.start(new_run("x", at=20), IfExists.ATTACH, drive=False)
        assert await prune(journal) == {"a"}
        for refused in (journal.signal("a", new_message()), journal.cancel("a", asked())):
            with pytest.raises(UnknownRun):
                await refused
        started = await journal.start(new_run("a", workflow="sail", digest=b"other"), IfExists.FAIL, drive=True)
        assert started.created
        assert started.row.no > old.run  # what is left of the old one somewhere never meets the new one
        assert await journal.entries(started.row.no) == []

    lab(program)


@pytest.mark.parametrize("state", [State.FAILED, State.PARKED])
def test_a_dead_letter_is_kept_until_it_is_discarded_or_asked_for_by_name(lab: Over, state: State) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for run_id in ("a", "b", "late"):
            await over(journal, run_id, end=End(state, "error", b"{}", 60))
        await journal.discard("b", 70)
        await journal.discard("late", 101)  # seen to a moment ago: it is not to vanish from under the person
        other = State.PARKED if state is State.FAILED else State.FAILED
        assert await prune(journal, order(discarded=False)) == set()
        assert await prune(journal, order(states=(*FINAL, other), discarded=False)) == set()
        assert await prune(journal) == {"b"}
        assert await prune(journal, order(states=(state,), discarded=False)) == {"a", "late"}

    lab(program)


def test_only_runs_in_the_states_that_are_named_are_forgotten(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        await over(journal, "done")
        await over(journal, "stopped", end=End(State.CANCELLED, "", None, 60))
        assert await prune(journal, order(states=())) == set()
        assert await prune(journal, order(states=(State.CANCELLED,))) == {"stopped"}
        assert await prune(journal, order(states=(State.COMPLETED,))) == {"done"}

    lab(program)


def test_a_run_that_is_waited_for_is_kept(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        ended = await over(journal, "a")
        _, waiter = await begin(journal, "waiter")
        await journal.pause("waiter", asked())
        await journal.suspend(waiter, rest(awaits_end("a"), paused=True))  # it looks at its mail when it goes on
        assert await prune(journal) == set()
        await journal.resume("waiter", Resumption(80))
        assert await prune(journal) == set()
        (claimed,) = await journal.claim(["ship"], 90, 9, suspects=False)
        await journal.record(claimed.hold, entry("child#1", kind=Kind.CHILD))
        await journal.suspend(claimed.hold, rest(awaits_end("b", key="b#1"), closed=["child#1"]))
        assert await prune(journal) == {"a"}
        assert await journal.entries(ended.run) == []

    lab(program)


@pytest.mark.parametrize("detached", [False, True])
def test_a_child_is_kept_while_its_parent_may_still_look_at_its_result(lab: Over, detached: bool) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, parent = await begin(journal, "parent")
        young = await child(journal, "child", parent, detached=detached)
        below = await child(journal, "grandchild", young)
        for hold in (below, young):
            await journal.end(hold, completed())
        assert await prune(journal, order(states=ALL)) == set()
        await journal.suspend(parent, rest(awaits_end("nobody", key="nobody#1")))
        assert await prune(journal, order(states=ALL)) == set()
        (claimed,) = [await journal.reclaim(parent, 70)]
        assert claimed.run == parent.run
        await journal.end(Hold(parent.run, parent.epoch + 1), completed(80))
        assert await prune(journal, order(states=ALL)) == {"child", "grandchild", "parent"}

    lab(program)


@pytest.mark.parametrize("state", [State.FAILED, State.PARKED])
def test_the_children_of_a_dead_letter_are_kept_since_it_may_be_resumed(lab: Over, state: State) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, root = await begin(journal, "root")
        parent = await child(journal, "parent", root)
        young = await child(journal, "child", parent)
        await journal.end(young, completed())
        await journal.end(
            parent, End(State.CANCELLED, "", None, 60)
        )  # what is cancelled is revived with what is above it
        await journal.end(root, End(state, "error", b"{}", 70))
        assert await prune(journal) == set()
        await journal.discard("root", 80)
        # The letter goes, and then nobody can ask for what it had: in the next walk.
        assert await prune(journal) == {"root"}
        assert (await look(journal, "parent")).parent is None
        assert await prune(journal) == {"parent", "child"}

    lab(program)


def test_a_parent_is_kept_while_something_below_it_is_kept(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, root = await begin(journal, "root")
        parent = await child(journal, "parent", root)
        young = await child(journal, "child", parent)
        await journal.end(root, completed())
        await journal.end(parent, completed())
        assert await prune(journal) == set()  # the child is driven
        await journal.end(young, failed())
        assert await prune(journal) == set()  # it is a dead letter
        assert (await look(journal, "child")).parent_id == "parent"
        await journal.discard("child", 90)
        assert await prune(journal) == {"child", "parent", "root"}

    lab(program)


def test_a_parent_is_kept_while_a_child_of_it_has_ended_only_lately(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, root = await begin(journal, "root")
        young = await child(journal, "child", root)
        await journal.end(root, completed(60))
        await journal.end(young, completed(101))
        assert await prune(journal) == set()
        assert await prune(journal, order(before=101)) == {"root", "child"}

    lab(program)


def test_a_detached_child_survives_its_parent(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, parent = await begin(journal, "parent")
        young = await child(journal, "child", parent, detached=True)
        await journal.end(parent, completed())
        assert await prune(journal) == {"parent"}
        survivor = await look(journal, "child")
        assert (survivor.parent, survivor.parent_id, survivor.state) == (None, None, State.RUNNING)
        await journal.record(young, entry())
        await journal.end(young, completed(70))
        assert await prune(journal) == {"child"}

    lab(program)


def test_one_transaction_forgets_a_bounded_number_of_runs_oldest_end_first(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        holds = [await over(journal, run_id, at=at) for run_id, at in (("c", 70), ("a", 50), ("b", 60), ("d", 80))]
        first = await journal.prune(order(limit=2))
        assert first == Pruned(("a", "b"), (60, holds[2].run))
        assert await journal.prune(order(limit=2, after=first.next)) == Pruned(("c", "d"), (80, holds[3].run))
        assert await journal.prune(order(limit=2, after=(80, holds[3].run))) == Pruned((), None)

    lab(program)


def test_one_transaction_looks_at_a_bounded_number_of_runs(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        letters = [await over(journal, run_id, end=failed(50)) for run_id in ("a", "b", "c")]
        await over(journal, "d", at=50)
        place: tuple[int, int] | None = None
        seen: list[Pruned] = []
        while not seen or seen[-1].next is not None:
            seen.append(await journal.prune(order(looks=2, after=place)))
            place = seen[-1].next
        assert [each.ids for each in seen] == [(), ("d",), ()]
        assert seen[0].next == (50, letters[1].run)

    lab(program)


def test_one_transaction_forgets_a_bounded_number_of_rows_but_at_least_one_run(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        for run_id in ("a", "b", "c"):
            _, hold = await begin(journal, run_id)
            for seq in range(1, 5):  # with the run itself these are five rows
                await journal.record(hold, entry(f"s#{seq}", seq=seq))
            await journal.end(hold, completed())
        assert (await journal.prune(order(rows=1))).ids == ("a",)
        assert (await journal.prune(order(rows=6))).ids == ("b", "c")

    lab(program)


def test_a_worker_that_was_struck_off_may_still_prune(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        first, second = await lab.worker(), await lab.worker()
        await over(first, "a")
        (other,) = await second.workers()
        await second.take_over([other.no], 5, b"{}", 70)
        assert await prune(first) == {"a"}

    lab(program)


def test_a_cancel_that_the_body_was_given_is_forgotten_with_it(lab: Over) -> None:
    async def program(lab: Lab) -> None:
        journal = await lab.worker()
        _, hold = await begin(journal)
        await journal.cancel("a", asked())
        await journal.record(hold, entry(CANCEL_KEY, kind=Kind.CANCEL))
        await journal.end(hold, End(State.CANCELLED, "too late", None, 60))
        assert await prune(journal) == {"a"}
        again = await journal.start(new_run("a"), IfExists.ATTACH, drive=True)
        assert again.created
        assert again.row.cancel is None

    lab(program)
