"""The schema: its migrations, its golden dump, what it refuses, what it costs, and how its statements find their rows."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from durable_sqlite._records import QuestionQuery, RunQuery, State
from durable_sqlite._sqlite import SqliteJournal, connect, door, migrate, queries, statements, sums
from durable_sqlite._sqlite.rows import Tables
from durable_sqlite.errors import JournalError
from tests.support.journals import begin, entry

GOLDEN = Path(__file__).parents[1] / "golden" / "schema.sql"


def _open(failpoint: Callable[[str], None]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    known = migrate.read(migrate.find())
    connect.prepare(connection, known, path=":memory:", synchronous="full", failpoint=failpoint)
    return connection


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(_open(door._nothing)) as connection:
        sums.arm(connection)
        yield connection


@pytest.fixture
def migrated() -> Iterator[sqlite3.Connection]:
    """One that went through all migrations, and not by the template."""
    with closing(_open(lambda _name: None)) as connection:
        yield connection


def test_the_schema_after_all_migrations_is_the_golden_one(migrated: sqlite3.Connection) -> None:
    ((version,),) = migrated.execute("PRAGMA user_version").fetchall()
    ((application,),) = migrated.execute("PRAGMA application_id").fetchall()
    rows = migrated.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name").fetchall()
    parts = [f"-- application_id {application:#x}, user_version {version}", *(f"{sql};" for (sql,) in rows)]
    dump = "\n\n".join(parts) + "\n"
    if dump != GOLDEN.read_text(encoding="utf-8"):
        seen = GOLDEN.with_suffix(".seen")
        seen.write_text(dump, encoding="utf-8")
        pytest.fail(f"the schema changed: if that was meant, move {seen.name} over {GOLDEN.name}")


def test_the_template_of_the_tests_is_what_the_migrations_make(
    connection: sqlite3.Connection, migrated: sqlite3.Connection
) -> None:
    for each in ("PRAGMA user_version", "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid"):
        assert connection.execute(each).fetchall() == migrated.execute(each).fetchall()
    assert list(connection.iterdump()) == list(migrated.iterdump())


BASE = (
    "INSERT INTO durable_runs (id, uid, workflow, origin, version, state, input_digest, created_at, updated_at, input{columns}) "
    "VALUES ('a', 'u', 'w', '', '', '{state}', x'', 1, 1, x''{values})"
)


CANCELLED = {"cancel_at": "5", "cancel_reason": "''", "cancel_by": "''"}


@pytest.mark.parametrize(
    ("state", "more"),
    [
        ("sleeping", {}),
        ("running", {}),
        ("pending", {"owner": "1", "epoch": "1"}),
        ("running", {"owner": "1"}),
        ("running", {"owner": "2", "epoch": "1"}),
        ("pending", {"epoch": "-1"}),
        ("pending", {"result": "x'00'"}),
        ("pending", {"ended_at": "5"}),
        ("pending", {"due_at": "5"}),
        ("pending", {"deaths": "-1"}),
        ("pending", {"accept_changes": "2"}),
        ("pending", {"cancel_at": "1"}),
        ("pending", {"cancel_by": "'ann'"}),
        ("failed", {}),
        ("completed", {"ended_at": "5"}),
        ("pending", {"created_at": "'soon'"}),
        ("paused", {}),
        ("paused", {"pause_at": "5"}),
        ("pending", {"pause_at": "5", "pause_reason": "''", "pause_by": "''"}),
        ("paused", {"pause_at": "5", "pause_reason": "''", "pause_by": "''"} | CANCELLED),
        ("pending", {"progress_done": "1"}),
        ("pending", {"progress_total": "1"}),
        ("pending", {"detached": "2"}),
        ("pending", {"deadline_inherited": "2", "deadline_at": "5", "deadline_length": "5"}),
        ("pending", {"deadline_inherited": "1"}),
        ("pending", {"deadline_at": "5"}),
        ("pending", {"parent": "7"}),
    ],
)
def test_an_illegal_run_cannot_be_written(connection: sqlite3.Connection, state: str, more: dict[str, str]) -> None:
    connection.execute("INSERT INTO durable_workers (name, pid, started_at) VALUES ('w', 1, 1)")
    connection.execute(BASE.format(state="pending", columns="", values=""))
    connection.execute("DELETE FROM durable_runs")
    columns = "".join(f", {name}" for name in more if name != "created_at")
    values = "".join(f", {value}" for name, value in more.items() if name != "created_at")
    sql = BASE.format(state=state, columns=columns, values=values)
    if "created_at" in more:
        sql = sql.replace("x'', 1, 1, x''", f"x'', {more['created_at']}, 1, x''")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(sql)


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_a_legal_word(connection: sqlite3.Connection, state: State) -> None:
    connection.execute("INSERT INTO durable_workers (name, pid, started_at) VALUES ('w', 1, 1)")
    more = {"ended_at": "9", "result": "x''"} if state.stopped else {}
    more |= {"owner": "1", "epoch": "1"} if state is State.RUNNING else {}
    more |= {"pause_at": "5", "pause_reason": "''", "pause_by": "''"} if state is State.PAUSED else {}
    columns, values = "".join(f", {name}" for name in more), "".join(f", {value}" for value in more.values())
    connection.execute(BASE.format(state=state.value, columns=columns, values=values))


@pytest.mark.parametrize(
    "insert",
    [
        "durable_signals (run, no, name, sent_at, payload) VALUES (1, 0, 's', 1, x'')",
        "durable_signals (run, no, name, sent_at, payload) VALUES (1, 1, '', 1, x'')",
        "durable_signals (run, no, name, sent_at, payload, taken_by, error) VALUES (1, 1, 's', 1, x'', 'k', x'')",
        "durable_signals (run, no, name, sent_at, payload) VALUES (9, 1, 's', 1, x'')",
        "durable_signals (run, no, name, sent_at, payload, dedupe) VALUES (1, 1, 's', 1, x'', 'd'), (1, 2, 't', 1, x'', 'd')",
        "durable_questions (run, key, name, asked_at, schema, payload) VALUES (1, '', 'q', 1, '', x'')",
        (
            "durable_questions (run, key, name, asked_at, schema, payload)"
            " VALUES (1, 'k', 'q', 1, '', x''), (1, 'k', 'r', 1, '', x'')"
        ),
        "durable_questions (run, key, name, asked_at, schema, payload, answer) VALUES (1, 'k', 'q', 1, '', x'', x'')",
        "durable_questions (run, key, name, asked_at, schema, payload, answered_at) VALUES (1, 'k', 'q', 1, '', x'', 1)",
        (
            "durable_questions (run, key, name, asked_at, schema, payload, answer, answered_at, answered_by, closed_at)"
            " VALUES (1, 'k', 'q', 1, '', x'', x'', 1, '', 1)"
        ),
        "durable_early (run, no, name, sent_at, sent_by, payload) VALUES (1, 0, 'q', 1, '', x'')",
        "durable_waits (run, key, kind, name, since_at, over) VALUES (1, 'k', 'child', 'c', 1, 1)",
        "durable_waits (run, key, kind, name, since_at, target, over) VALUES (1, 'k', 'child', 'c', 1, 'b', 2)",
        "durable_ticks (one, tick) VALUES (2, 0)",
        "durable_ticks (one, tick) VALUES (1, 0)",
    ],
)
def test_an_illegal_message_question_or_wait_cannot_be_written(connection: sqlite3.Connection, insert: str) -> None:
    connection.execute(BASE.format(state="pending", columns="", values=""))
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(f"INSERT INTO {insert}")


def test_a_recorded_step_costs_one_row_of_less_than_200_bytes(tmp_path: Path) -> None:
    steps = 4_000

    async def main() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        await journal.open("w", 1)
        _, hold = await begin(journal)
        base = entry(at=1_800_000_000_000_000)
        empty = (tmp_path / "j.db").stat().st_size
        steps_done = [
            journal.record(hold, entry(f"2.1/reserve_stock#{seq}", seq=seq, payload=b"", at=base.at + seq))
            for seq in range(1, steps + 1)
        ]
        await asyncio.gather(*steps_done)
        await journal.close(2)
        assert ((tmp_path / "j.db").stat().st_size - empty) / steps < 200

    asyncio.run(main())


# Statements ----------------------------------------------------------------------------------------------------------

SCANS_ON_PURPOSE = {
    "others": "there is one row, and as many rows as open engines",
    "tick_now": "there is one row",
    "workers": "there are as many rows as open engines",
    "strangers": "the states and names that were given, which are few",
    "schema_applied": "there are as many rows as files",
    "newest_first": "the whole list, in the order of the key",
    "oldest_first": "the whole list, in the order of the key",
    "signed": "there are as many rows as open engines",
    "sign_workers": "there are as many rows as open engines",
    "sign_ticks": "there is one row",
    "bump": "there are as many rows as open engines",
    "last_commit": "there are as many rows as open engines",
    "go_on_from": "there is one row",
    "own_shape": "the schema",
    "own_tables": "the schema",
    "own_names": "the schema, once for each connection",
    "strays": "the schema, after it was changed",
    "used_up": "a row for each table that gives no number twice, after an error",
}


VERBS = {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}
UNFINISHED = {"run_select", "question_select", "last_tick"}


def _plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    names = set(re.findall(r":(\w+)", sql))
    values: dict[str, Any] = dict.fromkeys(names)
    values |= dict.fromkeys(names & {"workflows", "keys", "ids", "closed", "own"}, "[]")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


def _scans(plan: list[str]) -> list[str]:
    """The steps that read a whole table of ours; SQLite calls a walk along an index a SCAN too."""
    # `w` is a list that was given, `below` and `above` are what the statement itself has found so far.
    return [
        step
        for step in plan
        if re.match(r"SCAN (?!w VIRTUAL TABLE|below|above|CONSTANT)", step) and " USING " not in step
    ]


def _whole_statements() -> dict[str, str]:
    sql = statements.load()
    # Those that begin no statement: they are held to it in those that are put together of them.
    whole = {name: text for name, text in sql.items() if text.split()[0] in VERBS and name not in UNFINISHED}
    for name in ("where_no", "where_id", "where_ended", "newest_first", "oldest_first"):
        whole[name] = f"{sql['run_select']}\n{sql[name]}"
    return whole


@pytest.mark.parametrize("name", sorted(_whole_statements()))
def test_no_statement_reads_a_whole_table(connection: sqlite3.Connection, name: str) -> None:
    plan = _plan(connection, _whole_statements()[name])
    assert bool(_scans(plan)) == (name in SCANS_ON_PURPOSE), plan


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("claim_pending", "durable_runs_pending"),
        ("claim_suspect", "durable_runs_suspect"),
        ("claim_due", "durable_runs_due"),
        ("next_due", "durable_runs_due"),
        ("orphans", "durable_runs_owned"),
        ("release", "durable_runs_owned"),
        ("backlog", "durable_runs_by_state"),
        ("record", "INTEGER PRIMARY KEY"),
        ("claim_paused", "durable_runs_paused_due"),
        ("next_due", "durable_runs_paused_due"),
        ("below", "durable_runs_children"),
        ("fallen", "durable_runs_children"),
        ("wake_waiters", "INTEGER PRIMARY KEY"),
        ("wake_waiters", "durable_waits_for_runs"),
        ("news_of_run", "(id=?)"),
        ("open_wait", "(id=?)"),
        ("where_ended", "(id=?)"),
        ("answered_before", "durable_questions_once"),
        ("mark_over", "durable_waits_for_runs"),
        ("mark_under_way", "durable_waits_for_runs"),
        ("waits_for_message", "durable_waits_for_mail"),
        ("message_of", "durable_signals_once"),
        ("in_time", "durable_signals_waiting"),
        ("news_of_signal", "durable_signals_waiting"),
        ("waiting_messages", "durable_signals_waiting"),
        ("news_of_waits", "durable_signals_waiting"),
        ("news_of_waits", "durable_waits_for_mail"),
        ("news_of_waits", "durable_waits_over"),
        ("news", "durable_runs_owned"),
        ("ready", "durable_runs_by_state (state=? AND workflow=?)"),
        ("ready", "durable_runs_due"),
        ("ready", "durable_runs_paused_due"),
        ("children", "durable_runs_children"),
        ("news", "durable_signals_waiting"),
        ("news", "durable_waits_over"),
        ("ended_by", "durable_runs_ended (ended_at>? AND ended_at<?)"),
        ("is_needed", "durable_waits_for_runs"),
        ("is_needed", "durable_runs_children"),
        ("count_by_state", "COVERING INDEX durable_runs_by_state"),
    ],
)
def test_each_index_serves_the_query_it_was_made_for(connection: sqlite3.Connection, name: str, index: str) -> None:
    plan = _plan(connection, _whole_statements()[name])
    assert any(index in step for step in plan), plan


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(workflow="w", limit=9), "durable_runs_by_workflow"),
        (RunQuery(states=(State.PARKED,), limit=9), "durable_runs_by_state"),
        (RunQuery(states=(State.PARKED, State.FAILED), workflow="w"), "durable_runs_by_"),
        (RunQuery(tags=(("a", "b"),)), "durable_run_tags_by_value"),
        (RunQuery(after=7), "INTEGER PRIMARY KEY"),
    ],
)
def test_lists_use_an_index(connection: sqlite3.Connection, query: RunQuery, index: str) -> None:
    sql = statements.load()
    where, _ = queries.compose(Tables(connection, sql), query)
    for text in (f"{sql['run_select']}\n{where}\n{sql['newest_first']}", f"{sql['run_count']}\n{where}"):
        plan = _plan(connection, text)
        assert not _scans(plan), plan
        assert any(index in step for step in plan), plan


@pytest.mark.parametrize(
    "query", [RunQuery(), RunQuery(workflow="w", states=(State.FAILED,), tags=(("a", "b"),), limit=9)]
)
def test_changes_are_found_by_their_index_whatever_else_is_asked_for(
    connection: sqlite3.Connection, query: RunQuery
) -> None:
    plans: list[list[str]] = []

    class Spy:
        def execute(self, text: str, values: dict[str, object]) -> sqlite3.Cursor:
            plans.append([row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)])
            return connection.execute(text, values)

    spy: Any = Spy()
    queries.changes(Tables(spy, statements.load()), query, 7)
    assert plans
    for plan in plans:
        assert "USING INDEX durable_runs_by_change (changed>?)" in plan[0], plan
        assert not _scans(plan)
        assert not [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (QuestionQuery(), "durable_questions_open"),
        (QuestionQuery(workflow="w", name="q", after=(1, "a", "k"), limit=9), "durable_questions_open (asked_at>?)"),
        (QuestionQuery(run_id="a"), "(run=?)"),
    ],
)
def test_questions_are_found_by_an_index(connection: sqlite3.Connection, query: QuestionQuery, index: str) -> None:
    text, values = queries.compose_questions(Tables(connection, statements.load()), query)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
    assert index in plan[0], plan
    assert not _scans(plan), plan


def test_every_write_to_a_run_says_when_it_changed() -> None:
    writes = {
        name: text for name, text in statements.load().items() if re.match(r"(UPDATE|INSERT INTO) durable_runs\b", text)
    }
    assert len(writes) > 20
    assert [name for name, text in writes.items() if ":tick" not in text] == []


def test_statements_are_named_once() -> None:
    with pytest.raises(ValueError, match="two statements"):
        statements.parse("-- name: a\nSELECT 1;\n\n-- name: a\nSELECT 2;\n")
    assert statements.parse("stray\n\n-- why\n-- name: a\nSELECT\n    1;\n-- end\nstray\n") == {"a": "SELECT\n    1"}


# Migrations ----------------------------------------------------------------------------------------------------------


def test_a_script_is_cut_where_sqlite_sees_the_end_of_a_statement() -> None:
    script = (
        "-- a; b\nCREATE TABLE t (x TEXT DEFAULT ';');\n"
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN\n  SELECT 1;\n  SELECT 2;\nEND;\n\n-- the end\n"
    )
    first, second = migrate.cut(script)
    assert first.endswith("DEFAULT ';');")
    assert second.startswith("CREATE TRIGGER")
    with pytest.raises(ValueError, match="does not end"):
        list(migrate.cut("CREATE TABLE t (x);\nCREATE TABLE"))


def test_migrations_are_numbered_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1;")
    (tmp_path / "README.md").write_text("not a migration")
    (tmp_path / "0003_b.sql").write_text("SELECT 1;")
    with pytest.raises(ValueError, match="gap"):
        migrate.read(tmp_path)
    (tmp_path / "0003_b.sql").rename(tmp_path / "0002_b.sql")
    assert [each.number for each in migrate.read(tmp_path)] == [1, 2]


def test_migrations_are_found_in_the_package_or_beside_it(tmp_path: Path) -> None:
    package, checkout = tmp_path / "package", tmp_path / "checkout"
    (checkout / "migrations").mkdir(parents=True)
    package.mkdir()
    with pytest.raises(JournalError, match="install it again"):
        migrate.find(package, checkout)
    (checkout / "migrations" / "0001_foundation.sql").touch()
    assert migrate.find(package, checkout) == checkout / "migrations"
    (package / "migrations").mkdir()
    assert migrate.find(package, checkout) == package / "migrations"


def test_a_migration_that_fails_leaves_nothing_behind(connection: sqlite3.Connection) -> None:
    known = migrate.read(migrate.find())
    broken = migrate.Migration(len(known) + 1, "broken", ("CREATE TABLE half (x)", "CREATE TABLE half (x)"))
    with pytest.raises(sqlite3.OperationalError):
        migrate.migrate(connection, [*known, broken], path="j", failpoint=lambda _name: None)
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchall() == [(0,)]
    assert connection.execute("PRAGMA user_version").fetchall() == [(len(known),)]


def test_a_migration_that_another_process_was_faster_with_is_not_applied_again(tmp_path: Path) -> None:
    path, known = tmp_path / "j.db", migrate.read(migrate.find())
    once = migrate.Migration(len(known) + 1, "once", ("CREATE TABLE once (x)",))

    def nothing(_name: str) -> None:
        return

    with (
        closing(sqlite3.connect(path, isolation_level=None)) as first,
        closing(sqlite3.connect(path, isolation_level=None)) as second,
    ):
        connect.prepare(first, known, path=str(path), synchronous="full", failpoint=nothing)

        class Late:
            """Looks at the version, then loses the race for the lock."""

            def execute(self, sql: str) -> Any:
                if sql == "BEGIN IMMEDIATE":
                    migrate.migrate(first, [*known, once], path=str(path), failpoint=nothing)
                return second.execute(sql)

        late: Any = Late()
        migrate.migrate(late, [*known, once], path=str(path), failpoint=nothing)
        assert second.execute("PRAGMA user_version").fetchall() == [(once.number,)]
