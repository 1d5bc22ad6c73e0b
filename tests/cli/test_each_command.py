"""Every command, as a real process: what it says to people and to programs, with which code, and what it refuses.

A new command has to be entered in both tables here.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from durable_sqlite.cli._commands import TABLE
from tests.cli.stand import Stand
from tests.cli.support import environment

NAMES = [entry.name for entry in TABLE]


class Good(NamedTuple):
    """A use that is right."""

    words: list[str]
    told: str
    """Stands in the text."""
    field: str
    """Is in the document for programs."""
    code: int = 0


class Bad(NamedTuple):
    """A use that is wrong."""

    kind: str
    words: list[str]
    code: int
    told: str
    """Stands on standard error."""


GOOD = {
    "demo": Good([], "What it proves", "checks"),
    "start": Good(["order", "--app", "shop", "--input", '{"item": "cup"}', "--id", "new"], "new\n", "created"),
    "worker": Good(["--app", "shop"], "", "workflows"),
    "list": Good([], "run-asks", "runs"),
    "show": Good(["run-done"], "charge#1", "entries"),
    "why": Good(["run-asks"], "waits for an answer to Review", "text"),
    "timeline": Good(["run-done"], "ship#1", "rows"),
    "watch": Good(["run-done"], "run-done", "entries"),
    "stats": Good([], "suspended", "workflows"),
    "resume": Good(["run-done"], "run-done has completed", "result"),
    "answer": Good(["run-asks", "Review", '{"granted": true, "by": "you"}'], "answered Review#1", "checked_by"),
    "signal": Good(["run-listens", "Paid", '{"receipt": "r"}'], "sent Paid to run run-listens", "checked_by"),
    "cancel": Good(["run-sleeps"], "run-sleeps", "state"),
    "pause": Good(["run-sleeps"], "run-sleeps", "state"),
    "terminate": Good(["run-sleeps"], "run-sleeps", "state"),
    "dead-letters list": Good([], "run-failed", "keys"),
    "dead-letters show": Good(["run-failed"], "card 42 was declined", "error"),
    "dead-letters redrive": Good(["run-failed"], "run-failed goes on", "done"),
    "dead-letters discard": Good(["run-failed"], "run-failed is marked as seen to", "done"),
    "doctor": Good([], "nothing is wrong", "checks"),
    "check": Good(["--app", "shop", "--workflow", "order"], "runs do not fit the code of shop", "fits", code=1),
    "migrate": Good([], "", "after"),
    "backup": Good(["copy.db"], "copy.db", "bytes"),
    "prune": Good(["--older-than", "1d"], "forgotten", "forgotten"),
    "export": Good(["run-done"], "charge#1", "entries"),
}
"""By name: a use of each command on the shop's journal."""

_OPTION = Bad("option", ["--nope"], 2, "unrecognized arguments: --nope")
_NOBODY = Bad("no such run", ["nobody"], 3, "holds no run")
_SEVERAL = Bad("several runs", ["run-"], 2, "fits more than one run")
_NO_JOURNAL = Bad("no journal", ["--db", "new.db"], 2, "there is no journal new.db (--db); nothing was created")
_NO_DATABASE = Bad("no database", ["--db", "shop.py"], 6, "shop.py is no SQLite database")
_ANY = [_NO_JOURNAL, _NO_DATABASE, Bad("option", ["--nope"], 2, "--nope")]


def _of_a_run(*more: str) -> list[Bad]:
    """What is wrong with the name of a run, and with the journal."""
    return [
        _NOBODY._replace(words=["nobody", *more]),
        _SEVERAL._replace(words=["run-", *more]),
        *(bad._replace(words=["run-done", *more, *bad.words]) for bad in _ANY),
    ]


BAD = {
    "demo": [_OPTION, Bad("no folder", ["--keep", "shop.py"], 2, "shop.py is no folder")],
    "start": [
        Bad("unknown workflow", ["oder", "--app", "shop"], 2, "order"),
        Bad("no JSON", ["order", "--app", "shop", "--input", '{"item": tea}'], 2, "line 1, column 10"),
        Bad("wrong type", ["order", "--app", "shop", "--input", '{"item": 5}'], 2, "$.item"),
        Bad("no code", ["order"], 2, "nothing says where your code is"),
        Bad("does not import", ["order", "--app", "broken"], 2, "ZeroDivisionError"),
        Bad("no journal", ["order", "--app", "shop", "--db", "new.db"], 2, "there is no journal"),
    ],
    "worker": [
        Bad("no code", [], 2, "nothing says where your code is"),
        Bad("does not import", ["--app", "broken"], 2, "ZeroDivisionError"),
        Bad("no length of time", ["--app", "shop", "--drain", "soon"], 2, "is no length of time"),
        Bad("no journal", ["--app", "shop", "--db", "new.db"], 2, "there is no journal"),
    ],
    "list": [*_ANY, Bad("state", ["--status", "sleepy"], 2, "invalid choice: 'sleepy'")],
    "show": _of_a_run(),
    "why": _of_a_run(),
    "timeline": [*_of_a_run(), Bad("not a picture", ["run-done", "--svg", "shop.py"], 6, "is there already")],
    "watch": [*_of_a_run(), Bad("no length of time", ["--for", "ever"], 2, "is no length of time")],
    "stats": _ANY,
    "resume": [
        *_of_a_run(),
        Bad("nothing named", [], 2, "name a run, or say --due"),
        Bad("does not import", ["run-ready", "--app", "broken"], 2, "ZeroDivisionError"),
        Bad("unknown workflow", ["run-paused", "--app", "shop"], 2, "refund"),
    ],
    "answer": [
        *_of_a_run("Review", "true"),
        Bad("no JSON", ["run-asks", "Review", '{"granted": tru}'], 2, "line 1, column 13"),
        Bad("wrong type", ["run-asks", "Review", '{"granted": 1, "by": "a"}'], 2, "$.granted: it takes boolean"),
        Bad("unknown point", ["run-asks", "Revue", "true"], 6, "asks no question 'Revue'"),
    ],
    "signal": [
        *_of_a_run("Paid", "{}")[:2],
        Bad("no JSON", ["run-listens", "Paid", "{"], 2, "line 1, column 2"),
        Bad("no object", ["run-listens", "Paid", "[]"], 2, "a message is a JSON object"),
        Bad("has ended", ["run-done", "Paid", "{}"], 6, "is completed, so it takes no message"),
    ],
    "cancel": [*_of_a_run(), Bad("has ended", ["run-done"], 6, "run-done")],
    "pause": [*_of_a_run(), Bad("has ended", ["run-done"], 6, "run-done")],
    "terminate": [*_of_a_run(), Bad("has ended", ["run-done"], 6, "run-done")],
    "dead-letters list": [*_ANY, Bad("number", ["--limit", "x"], 2, "is no number")],
    "dead-letters show": [*_of_a_run(), Bad("no letter", ["run-done"], 6, "is no dead letter")],
    "dead-letters redrive": [_NOBODY, _SEVERAL, Bad("nothing named", [], 2, "name dead letters, or say --all")],
    "dead-letters discard": [_NOBODY, _SEVERAL, Bad("nothing named", [], 2, "name dead letters, or say --all")],
    "doctor": _ANY,
    "check": [
        Bad("no code", [], 2, "nothing says where your code is"),
        Bad("does not import", ["--app", "broken"], 2, "ZeroDivisionError"),
        Bad("no journal", ["--app", "shop", "--db", "new.db"], 2, "there is no journal"),
        Bad("no database", ["--app", "shop", "--db", "shop.py"], 6, "shop.py"),
        Bad("number", ["--app", "shop", "--limit", "x"], 2, "is no number"),
    ],
    "migrate": _ANY,
    "backup": [
        *(bad._replace(words=["copy.db", *bad.words]) for bad in _ANY),
        Bad("is there", ["shop.py"], 2, "shop.py"),
        Bad("no folder", ["nowhere/copy.db"], 2, "nowhere"),
    ],
    "prune": [
        *(bad._replace(words=["--older-than", "1d", *bad.words]) for bad in _ANY),
        Bad("no length of time", ["--older-than", "month"], 2, "is no length of time"),
    ],
    "export": _of_a_run(),
}
"""By name: what each command refuses. At least two kinds each."""

CASES = [pytest.param(name, bad, id=f"{name}: {bad.kind}") for name, many in BAD.items() for bad in many]
DAILY = [
    pytest.param(
        *case.values, id=case.id, marks=[] if case.values[1] in BAD[str(case.values[0])][:2] else pytest.mark.thorough
    )
    for case in CASES
]
"""Two of each command every day, and all of them now and then."""


@pytest.fixture
def there(stand: Stand, shop: Path) -> Stand:
    """An application, one that cannot be imported, and a journal with a run in each state."""
    shutil.copy(shop, stand.folder / "runs.db")
    (stand.folder / "broken.py").write_text("1 / 0\n")
    return stand


def test_no_command_is_forgotten_here() -> None:
    assert list(GOOD) == list(BAD) == NAMES
    kinds = {name: {bad.kind for bad in many} for name, many in BAD.items()}
    assert {name: of for name, of in kinds.items() if len(of) < max(2, len(BAD[name]))} == {}


@pytest.mark.parametrize(("name", "bad"), DAILY)
def test_wrong_use_is_refused_in_words_and_changes_nothing(there: Stand, name: str, bad: Bad) -> None:
    before = {path.name: path.read_bytes() for path in there.folder.iterdir() if path.suffix == ".db"}
    said = there.type(*name.split(), *bad.words, codes=(bad.code,))
    assert bad.told in said.err
    assert said.out == ""
    after = {path.name: path.read_bytes() for path in there.folder.iterdir() if path.suffix == ".db"}
    if bad.kind not in ("has ended", "is there", "no folder"):  # these are known only to an engine, which has enrolled
        assert after == before
    assert after.keys() == before.keys()


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "bad"), CASES)
def test_wrong_use_gives_programs_the_code_and_no_document(there: Stand, name: str, bad: Bad) -> None:
    said = there.type("--json", *name.split(), *bad.words, codes=(bad.code,))
    assert said.out == ""
    assert bad.told in said.err


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in NAMES if name != "worker"])
def test_right_use_tells_people_in_text_and_programs_in_one_document(there: Stand, name: str, shop: Path) -> None:
    good = GOOD[name]
    said = there.type(*name.split(), *good.words, codes=(good.code,))
    assert good.told in said.out
    assert name == "export" or not said.out.startswith(("{", "["))
    for path in there.folder.glob("*.db*"):
        path.unlink()
    shutil.copy(shop, there.folder / "runs.db")
    data = json.loads(there.type(*name.split(), *good.words, "--json", codes=(good.code,)).out)
    assert good.field in (data[0] if isinstance(data, list) else data)


@pytest.mark.thorough
@pytest.mark.parametrize("json_too", [False, True])
def test_a_worker_says_what_it_drives_and_ends_with_0(there: Stand, json_too: bool) -> None:
    words = [sys.executable, "-m", "durable_sqlite", "worker", "--app", "shop", "--db", "runs.db"]
    process = subprocess.Popen(
        [*words, "--json"] if json_too else words,
        cwd=there.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        notes = [process.stderr.readline()]
        while notes[-1] and f"process {process.pid} drives 5 workflows" not in notes[-1]:
            notes.append(process.stderr.readline())
        document = json.loads(process.stdout.readline()) if json_too else None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "loads shop" in notes[0]
    assert document is None or (document["process"], document["journal"]) == (process.pid, "runs.db")
    assert document is None or GOOD["worker"].field in document
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
