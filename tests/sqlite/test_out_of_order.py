"""A damaged tree may give a page of rows once more, or no numbers: whoever turns the pages must not turn them for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import IfExists, Pruning, QuestionQuery, RunQuery, State
from durable_sqlite._sqlite import SqliteJournal, queries, statements
from durable_sqlite.errors import JournalDamaged
from tests.sqlite.faults import opened
from tests.support.journals import begin, completed, new_question, new_run

RUNS = 3


def stuck(monkeypatch: pytest.MonkeyPatch, name: str, condition: str) -> None:
    """Let a statement forget where it is to go on, as a search in a damaged tree does."""
    sql = dict(statements.load())
    assert condition in sql[name]
    sql[name] = sql[name].replace(condition, f"({condition} OR true)")
    monkeypatch.setattr(statements, "load", lambda: sql)


def instead(monkeypatch: pytest.MonkeyPatch, name: str, sql: str) -> None:
    """Let a statement find something else."""
    known = statements.load()
    monkeypatch.setattr(statements, "load", lambda: {**known, name: sql})


def in_a_journal_of_runs(path: Path, act: Callable[[SqliteJournal], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with opened(path) as journal:
            for number in range(RUNS):
                await journal.start(new_run(f"r{number}"), IfExists.ATTACH, drive=False)
            return await act(journal)

    return asyncio.run(main())


def test_verifying_goes_on_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck(monkeypatch, "numbers", "no > :after")
    found = in_a_journal_of_runs(tmp_path / "j.db", lambda journal: journal.verify(False))
    assert (found.runs, found.ok) == (RUNS, True)


@pytest.mark.parametrize("newest_first", [True, False])
def test_listing_runs_names_the_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, newest_first: bool) -> None:
    word, sign = ("newest", "<") if newest_first else ("oldest", ">")
    stuck(monkeypatch, f"where_after_{word}", f"no {sign} :after")
    first = RunQuery(newest_first=newest_first, limit=2)

    async def act(journal: SqliteJournal) -> None:
        page = await journal.runs(first)
        assert len(page) == 2
        with pytest.raises(JournalDamaged, match=r"out of its order: `engine\.verify\(\)` names"):
            await journal.runs(replace(first, after=page[-1].no))

    in_a_journal_of_runs(tmp_path / "j.db", act)


def test_following_changes_names_the_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck(monkeypatch, "where_since", "changed > :since")

    async def act(journal: SqliteJournal) -> None:
        last = (await journal.changes(RunQuery(), 0))[-1].changed
        with pytest.raises(JournalDamaged, match="out of its order"):
            await journal.changes(RunQuery(), last)

    in_a_journal_of_runs(tmp_path / "j.db", act)


def test_listing_questions_names_the_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck(monkeypatch, "where_asked_after", "(q.asked_at, r.id, q.key) > (:after_at, :after_run, :after_key)")

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            _, hold = await begin(journal)
            await journal.ask(hold, new_question())
            (found,) = await journal.questions(QuestionQuery())
            with pytest.raises(JournalDamaged, match="out of its order"):
                await journal.questions(QuestionQuery(after=(found.question.at, found.run_id, found.question.key)))

    asyncio.run(main())


def test_verifying_passes_over_what_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instead(monkeypatch, "numbers_summed", "SELECT NULL WHERE :after >= 0 AND :limit")
    found = in_a_journal_of_runs(tmp_path / "j.db", lambda journal: journal.verify(False))
    assert (found.runs, found.ok) == (RUNS, True)


NUMBERS: dict[str, Callable[[SqliteJournal], Awaitable[Any]]] = {
    "tick_now": lambda journal: journal.stops(0),
    "others": lambda journal: journal.pulse(),
    "next_due": lambda journal: journal.next_due(["ship"]),
    "next_due_below": lambda journal: journal.next_due(["ship"], only=["r1"]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_looking_names_what_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async def act(journal: SqliteJournal) -> None:
        with pytest.raises(JournalDamaged, match=r"'soon' stands where the journal keeps a number"):
            await NUMBERS[name](journal)

    instead(monkeypatch, name, "SELECT 'soon'")
    in_a_journal_of_runs(tmp_path / "j.db", act)


def test_a_place_that_is_no_number_any_more_is_damage() -> None:
    with pytest.raises(JournalDamaged, match="out of its order"):
        queries.see_that_it_goes_on([1, None], None)


def test_pruning_names_the_damage_and_forgets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck(monkeypatch, "ended_by", "(ended_at, no) > (:after_at, :after_no)")

    async def main() -> None:
        async with opened(tmp_path / "j.db") as journal:
            for name in "ab":
                _, hold = await begin(journal, name)
                await journal.end(hold, completed(at=5))
            pruning = Pruning(before=99, states=(State.COMPLETED,), discarded=False, limit=9, rows=999, looks=9)
            with pytest.raises(JournalDamaged, match="out of its order"):
                await journal.prune(replace(pruning, after=(5, 2)))
            assert len(await journal.runs(RunQuery())) == 2

    asyncio.run(main())
