"""The statements of the command line find their rows by an index, however many runs there are."""

from __future__ import annotations

import re
import sqlite3
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from durable_sqlite._sqlite import connect, migrate
from durable_sqlite.cli._journal import Tables, statements
from durable_sqlite.cli._list import compose

SCANS_ON_PURPOSE = {
    "newest": "the last row of the key, and no other",
    "workers": "there are as many rows as open engines",
    "foreign_key_check": "the doctor reads it all",
}
_VERBS = {"SELECT", "WITH"}
_UNFINISHED = {"run_select", "list_numbers"}


@pytest.fixture
def tables() -> Iterator[Tables]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        known = migrate.read(migrate.find())
        connect.prepare(connection, known, path=":memory:", synchronous="full", failpoint=lambda _name: None)
        yield Tables(connection, statements())


def _plan(tables: Tables, sql: str, values: dict[str, Any] | None = None) -> list[str]:
    bound: dict[str, Any] = dict.fromkeys(re.findall(r":(\w+)", sql)) | {"numbers": "[]"} | (values or {})
    return [row[3] for row in tables.ask(f"EXPLAIN QUERY PLAN {sql}", bound)]


def _scans(plan: list[str]) -> list[str]:
    return [
        step for step in plan if re.match(r"SCAN (?!w VIRTUAL TABLE|below|CONSTANT)", step) and " USING " not in step
    ]


def _whole() -> dict[str, str]:
    sql = statements()
    whole = {name: text for name, text in sql.items() if text.split()[0] in _VERBS and name not in _UNFINISHED}
    return whole | {name: f"{sql['run_select']}\n{sql[name]}" for name in ("run_by_no", "runs_of")}


@pytest.mark.parametrize("name", sorted(_whole()))
def test_no_statement_reads_a_whole_table(tables: Tables, name: str) -> None:
    plan = _plan(tables, _whole()[name])
    assert bool(_scans(plan)) == (name in SCANS_ON_PURPOSE), plan


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("beginning", "(id>? AND id<?)"),
        ("exactly", "(id=?)"),
        ("ending", "USING COVERING INDEX"),
        ("runs_of", "INTEGER PRIMARY KEY (rowid=?)"),
        ("entries", "(run=?)"),
        ("children", "durable_runs_children"),
        ("changed_since", "durable_runs_by_change (changed>?)"),
        ("last_change", "durable_runs_by_change"),
        ("under_way", "durable_runs_by_state (state=?)"),
        ("count_by_state", "COVERING INDEX durable_runs_by_state"),
        ("count_by_workflow", "COVERING INDEX durable_runs_by_workflow"),
        ("count_the_rest", "durable_runs_letters"),
        ("count_the_rest", "durable_questions_open"),
        ("count_the_rest", "durable_runs_due"),
    ],
)
def test_each_statement_goes_the_way_that_was_meant(tables: Tables, name: str, index: str) -> None:
    plan = _plan(tables, _whole()[name])
    assert any(index in step for step in plan), plan


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({"status": ["failed"]}, "COVERING INDEX durable_runs_by_state (state=?)"),
        ({"status": ["failed"], "workflow": "w"}, "COVERING INDEX durable_runs_by_state (state=? AND workflow=?)"),
        ({"workflow": "w"}, "COVERING INDEX durable_runs_by_workflow (workflow=?)"),
        ({"tag": [("a", "b")]}, "durable_run_tags_by_value (name=? AND value=?)"),
    ],
    ids=str,
)
def test_a_list_is_found_by_the_index_of_what_is_asked_for(tables: Tables, filters: dict[str, Any], index: str) -> None:
    options = Namespace(**({"status": None, "workflow": None, "tag": None, "since": None} | filters))
    sql, values = compose(tables, options, 0, 9)
    plan = _plan(tables, sql, values)
    assert any(index in step for step in plan), plan
    assert not _scans(plan)
