"""The numbers in the prose of the pages are those of the code."""

from __future__ import annotations

import inspect
import re
import tomllib
from typing import Any

import pytest

from durable_sqlite import (
    Engine,
    Reason,
    Retry,
    State,
    _drain,
    _flight,
    _ids,
    _neighbours,
    _session,
    _transactions,
    _watchdog,
)
from durable_sqlite._sqlite import checkpoints, connect, estate, meter, patience, vigil
from durable_sqlite.testing import _clock
from tests.support.house import ROOT
from tests.support.pages import DOCS

_DEFAULTS: dict[str, Any] = {name: each.default for name, each in inspect.signature(Engine).parameters.items()}
_SECOND = 1_000_000
_STALLED = max(patience._LONGEST.values())

_SAID = [
    ("bodies.md", "(`Engine(unload_after=…)`, 5 seconds)", _DEFAULTS["unload_after"], 5),
    ("care.md", "99th percentile of the last thousand", meter._KEPT, 1_000),
    ("care.md", "the most in the last minute", _watchdog._MINUTE, 60),
    ("care.md", "`journal.wal_bytes` above 64 MiB", checkpoints.WAL_ALARM_BYTES, 64 << 20),
    ("care.md", "`Engine(slow_loop=…)` is the limit, 1 second", _DEFAULTS["slow_loop"], 1),
    ("care.md", "looks twice within that time", _watchdog._ASKS, 2),
    ("control.md", "A text has up to 1,000 characters", _ids._LONGEST_TEXT, 1_000),
    ("control.md", "is looked for 15 to 60 times a second", 60 * _session._LISTEN_OFTEN, pytest.approx(1, rel=0.2)),
    ("exactly_once.md", "Its SQL may take five seconds", _transactions._BUDGET, 5 * _SECOND),
    ("failure.md", "is left behind after a second", _flight._PATIENCE, _SECOND),
    ("failure.md", "no other step begins before it has gone, for up to ten seconds", _flight._GRACE, 10 * _SECOND),
    ("processes.md", "some 15 to 60 times a second", 15 * _session._LISTEN_SELDOM, pytest.approx(1, rel=0.2)),
    ("processes.md", "look at those files four times a second", _neighbours.LOOK_EVERY, 1 / 4),
    ("processes.md", "(`Engine(lease=15.0)`, in seconds)", _DEFAULTS["lease"], 15),
    ("processes.md", "lets go of its runs after two thirds of the lease", vigil._LONGEST_SILENCE, 2 / 3),
    ("processes.md", "One that swallows its cancellation has five seconds more", _drain._GRACE, 5 * _SECOND),
    ("processes.md", "So a fork waits, for five seconds at the most", estate._PATIENCE, 5),
    ("storage.md", "it tries again at least every five seconds", _STALLED, 5),
    ("storage.md", "storage_patience=10.0) # seconds, or a timedelta; 30 s", _DEFAULTS["storage_patience"], 30),
    ("storage.md", "storage stalled for 600 s", patience._STILL_STALLED, 600),
    ("storage.md", "The first warning comes after five seconds", patience._FIRST_WARNING, 5),
    ("storage.md", "five seconds, then one a minute", patience._NEXT_WARNING, 60),
    ("storage.md", "The warning is repeated every ten minutes", checkpoints._NEXT_ALARM, 600),
    ("testing.md", "are waited for, up to five seconds", _clock._FOREIGN, 5),
    ("waiting.md", "A `dedupe` value is a text of up to 1,000 characters", _ids._LONGEST_TEXT, 1_000),
    ("waiting.md", "`Engine(unload_after=…)`, five seconds", _DEFAULTS["unload_after"], 5),
    ("why_plain.md", "its SQL is interrupted after five seconds", _transactions._BUDGET, 5 * _SECOND),
    ("howto/service.md", "when its lease is over: 15 seconds", _DEFAULTS["lease"], 15),
    ("howto/coming.md", "`max_entries` (100,000)", _DEFAULTS["max_entries"], 100_000),
    ("comparison.md", "[1 MiB, an option]", _DEFAULTS["payload_limit"], 1 << 20),
    ("comparison.md", "[100,000 entries, an option]", _DEFAULTS["max_entries"], 100_000),
]


@pytest.mark.parametrize(("page", "words", "is_", "said"), _SAID, ids=[f"{page}: {words}" for page, words, *_ in _SAID])
def test_what_a_page_says_in_numbers_is_so(page: str, words: str, is_: object, said: object) -> None:
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    assert words in text, "the sentence has changed: change it here, too"
    assert is_ == said


def test_the_table_of_limits_is_that_of_the_code() -> None:
    page = (DOCS / "limits.md").read_text(encoding="utf-8").partition("## Numbers")[2]
    rows = dict(re.findall(r"^\| ([^|-]+) \| ([^|]+) \|[^|]*\|$", page, re.MULTILINE)[1:])
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert rows == {
        "one encoded value, argument list or message": f"{_DEFAULTS['payload_limit'] >> 20} MiB",
        "entries of a run": f"{_DEFAULTS['max_entries']:,}",
        "bodies in memory": f"{_DEFAULTS['max_resident']:,}",
        "plain functions at once": f"{_DEFAULTS['step_threads']}",
        "deaths in a row without an outcome": f"{_DEFAULTS['max_recoveries']}",
        "ids, names, keys, tags": f"{_ids._MAX_LENGTH} characters",
        "a `dedupe` value, a status text": f"{_ids._LONGEST_TEXT:,} characters",
        "SQL of one transaction": f"{_transactions._BUDGET // _SECOND} s",
        "Python": f"{project['requires-python'].removeprefix('>=')} or newer",
        "SQLite": "{}.{} or newer".format(*connect._OLDEST_SQLITE),
    }


def test_the_table_of_a_policy_has_its_defaults() -> None:
    page = (DOCS / "failure.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(?:Retry\()?(\w+)(?:=…\))?` \| ([^|]+) \|", page, re.MULTILINE))
    policy = Retry()
    for name, unit in (
        ("max_attempts", ""),
        ("initial_delay", " s"),
        ("factor", ""),
        ("max_delay", " s"),
        ("jitter", ""),
    ):
        assert rows[name] == f"{getattr(policy, name):g}{unit}", name
    assert "`Retry.exponential()` is the default with five attempts" in " ".join(page.split())
    assert Retry.exponential() == Retry(max_attempts=5)
    assert Retry.fixed(5).jitter == 0


def test_the_table_of_dead_letters_has_every_reason_and_the_state_that_goes_with_it() -> None:
    section = (
        (DOCS / "failure.md").read_text(encoding="utf-8").partition("\n## Dead letters\n")[2].partition("\n## ")[0]
    )
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE))
    assert sorted(rows) == sorted(Reason)
    assert set(rows.values()) == {State.FAILED, State.PARKED}
