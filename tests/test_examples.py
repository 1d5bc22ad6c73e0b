"""The examples as a newcomer meets them: started, killed with SIGKILL, started again."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from tests.support.house import ROOT, environment, killed_at, python, started

FIRST = ROOT / "examples" / "first.py"
REVIEW = ROOT / "examples" / "review.py"
BRANCHES = ROOT / "examples" / "branches.py"
TRANSFER = ROOT / "examples" / "transfer.py"
AGENT = ROOT / "examples" / "agent.py"
ETL = ROOT / "examples" / "etl.py"
NIGHTLY = ROOT / "examples" / "nightly.py"
SAGA = ROOT / "examples" / "saga.py"
RESUME = [sys.executable, "-m", "durable_sqlite", "resume", "--due", "--stay", "0s", "--app", "nightly"]
_CITIES = ("Oslo", "Accra", "Lima", "Hanoi")
SERVED = "served: cup 1, cup 2, cup 3, cup 4, cup 5"
TODAY = "today: Oslo 22°, Accra 23°, Lima 22°, Hanoi 23°"


def rarely(*places: object) -> list[Any]:
    """Places to kill at that are kept for campaigns: an example takes seconds, so that people can follow it."""
    return [pytest.param(place, marks=pytest.mark.thorough) for place in places]


def test_the_first_example_killed_in_the_middle_goes_on_with_the_step_it_was_at_and_runs_nothing_after_its_end(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "first.db"
    assert killed_at("brewing cup 3", [FIRST, journal]) == ["brewing cup 1", "brewing cup 2", "brewing cup 3"]
    again = python(FIRST, journal).splitlines()
    assert again == ["brewing cup 3", "brewing cup 4", "brewing cup 5", SERVED]
    assert python(FIRST, journal).splitlines() == [SERVED]


def test_the_review_example_killed_while_it_waits_is_answered_from_another_process(tmp_path: Path) -> None:
    journal = tmp_path / "review.db"
    question = f"Review of {{'order': 'order-1', 'cents': 12900}}? answer with: review.py {journal} NAME"
    killed_at(question, [REVIEW, journal])
    with started(REVIEW, journal) as process:
        assert process.stdout is not None
        lines = (line.rstrip("\n") for line in process.stdout)
        assert question in lines  # it stands there until it is answered
        assert python(REVIEW, journal, "ada") == ""
        rest = list(lines)
    assert "running: released by ada" in rest or "suspended: released by ada" in rest
    assert rest[-1] == "paid with r-17; packed a book; packed a pen; packed a lamp"
    assert sorted(line for line in rest if line.startswith("packing")) == [
        "packing a book",
        "packing a lamp",
        "packing a pen",
    ]
    assert python(REVIEW, journal).splitlines()[-1] == rest[-1]


@pytest.mark.parametrize("line", ["measuring Lima at 18", *rarely("measuring Oslo at 6", "rendering Hanoi")])
def test_branches_killed_in_the_middle_get_their_own_results(tmp_path: Path, line: str) -> None:
    journal = tmp_path / "branches.db"
    before = killed_at(line, [BRANCHES, journal])
    after = python(BRANCHES, journal).splitlines()
    assert after[-1] == TODAY
    effects = Counter(before + after[:-1])
    assert set(effects) == _all_effects()
    assert max(effects.values()) <= 2
    for city in _CITIES:
        # A step begins after what its branch got before is committed: what lies behind a seen step is recorded.
        if f"rendering {city}" in before:
            assert not [effect for effect in after if effect.startswith(f"measuring {city}")]
        if f"measuring {city} at 12" in before:
            assert f"measuring {city} at 6" not in after


def _all_effects() -> set[str]:
    return {f"measuring {city} at {hour}" for city in _CITIES for hour in (6, 12, 18)} | {
        f"rendering {city}" for city in _CITIES
    }


@pytest.mark.parametrize("booking", [5, *rarely(1, 9)])
def test_the_transfer_example_killed_in_the_middle_keeps_the_sum_and_books_each_transfer_once(
    tmp_path: Path, booking: int
) -> None:
    journal = tmp_path / "transfer.db"
    lines = [
        f"booking {number}: 30 from {debit} to {credit}"
        for number, (debit, credit) in enumerate((("ann", "bob"), ("bob", "cay"), ("cay", "ann")) * 3, 1)
    ]
    before = killed_at(lines[booking - 1], [TRANSFER, journal])
    assert before == lines[:booking]
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        ((kept,),) = connection.execute("SELECT sum(cents) FROM accounts")
        assert kept == 100
    *after, last, accounts = python(TRANSFER, journal).splitlines()
    # The last line was printed before its commit: it may be there once more, and is booked once all the same.
    assert after in (lines[booking - 1 :], lines[booking:])
    assert (last, accounts) == ("last booking: 9", "ann 100, bob 0, cay 0")
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        booked = connection.execute("SELECT number, debit, credit, cents FROM bookings ORDER BY number").fetchall()
    assert [f"booking {number}: {cents} from {debit} to {credit}" for number, debit, credit, cents in booked] == lines
    assert python(TRANSFER, journal).splitlines() == [last, accounts]


def test_the_agent_killed_in_a_tool_asks_the_model_nothing_that_it_has_answered(tmp_path: Path) -> None:
    journal = tmp_path / "agent.db"
    tool = "calling the weather service for Oslo"
    assert killed_at(tool, [AGENT, journal]) == ["asking the model with 1 messages", tool]
    assert python(AGENT, journal).splitlines() == [
        tool,
        "asking the model with 2 messages",
        "multiplying 21 2",
        "asking the model with 3 messages",
        "answer: twice as warm would be 42 degrees",
    ]


def test_the_saga_killed_while_it_gives_back_gives_nothing_back_twice_that_is_recorded(tmp_path: Path) -> None:
    journal = tmp_path / "saga.db"
    before = killed_at("giving back a flight (booking 8)", [SAGA, journal])
    assert before[-2:] == ["giving back a hotel (booking 7)", "giving back a flight (booking 8)"]
    after = python(SAGA, journal).splitlines()
    assert after[0] == "giving back a flight (booking 8)"
    assert after[1:] == ["not booked: step book#3 failed: __main__.SoldOut: no car is left"]
    assert python(SAGA, journal).splitlines() == after[1:]


def test_the_nightly_job_needs_no_process_that_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "nightly.db"
    assert python(NIGHTLY, journal, "0.2") == "nightly is pending\n"
    said = ""
    for _ in range(20):  # as a timer would
        done = subprocess.run(
            [*RESUME, "--db", str(journal)],
            cwd=NIGHTLY.parent,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        said += done.stdout + done.stderr
        if "completed" in done.stdout:
            break
    assert [line for line in said.splitlines() if line.startswith("report of")] == [
        f"report of night {night}" for night in (1, 2, 3)
    ]
    assert "call again" in said


@pytest.mark.thorough
def test_the_etl_killed_in_the_middle_cleans_no_recorded_line_again_and_loads_each_once(tmp_path: Path) -> None:
    journal = tmp_path / "etl.db"
    killed_at("4000 lines cleaned here", [ETL, journal])
    *counts, last = python(ETL, journal).splitlines()
    assert last == "10000 rows loaded, 249995000 cents in all"
    assert len(counts) <= 6, "at most the hundred lines that were under way are cleaned again"
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT count(*), max(number) FROM items").fetchall() == [(10_000, 9_999)]


@contextmanager
def served(journal: Path) -> Generator[str]:
    """The web application in a process of its own, which is killed at the end; where it answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "examples.web:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=ROOT, env={**environment(), "ORDERS_DB": str(journal)})
    try:
        yield f"http://127.0.0.1:{port}/orders"
    finally:
        process.kill()
        process.wait()


def told(method: str, url: str, **body: object) -> tuple[int, dict[str, Any]]:
    """What the application answers; until it is up, it is asked again."""
    data = json.dumps(body).encode() if body else None
    request = Request(url, data, {"content-type": "application/json"}, method=method)
    for _ in range(600):
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except HTTPError as refused:
            return refused.code, json.load(refused)
        except URLError:
            time.sleep(0.05)
    raise AssertionError("the application did not come up")


@pytest.mark.thorough
def test_the_web_application_killed_while_an_order_waits_is_answered_after_its_restart(tmp_path: Path) -> None:
    order: dict[str, object] = {"item": "tea", "cents": 300}
    with served(tmp_path / "web.db") as url:
        assert told("PUT", f"{url}/a1", **order)[1]["id"] == "a1"
        assert told("PUT", f"{url}/a1", **order)[0] == 200  # the same run again
        while told("GET", f"{url}/a1")[1]["status"] != "in review":
            pass
    with served(tmp_path / "web.db") as url:
        assert told("GET", f"{url}/a1")[1]["status"] == "in review"
        assert told("GET", f"{url}/a2") == (404, {"detail": f"no run 'a2' in {tmp_path / 'web.db'}"})
        assert told("POST", f"{url}/a1/review", granted=True, by="ada")[0] == 200
        while told("GET", f"{url}/a1")[1]["state"] != "completed":
            pass
        status, refused = told("POST", f"{url}/a1/review", granted=False, by="bob")
        assert (status, "by ada: that answer counts" in refused["detail"]) == (409, True)
