"""`answer`, `signal`, `cancel`, `pause`, `terminate`: what a person asks of a run, or tells it."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path

import pytest

from tests.cli.stand import Stand
from tests.cli.support import Said, durable_sqlite

pytestmark = pytest.mark.thorough  # each test starts several processes: too many for every day

CARET = """no JSON: Expecting value (line 1, column 13)
  {"granted": tru}
              ^"""
GOOD = '{"granted": true, "by": "you"}'


@pytest.fixture(scope="session")
def waiting_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an application whose runs wait: an order for an answer, a payment for a message."""
    stand = Stand(tmp_path_factory.mktemp("waiting"))
    assert stand.script("order", "order-1", "teapot") == 0
    assert stand.script("payment", "pay-1") == 0
    return stand.folder


@pytest.fixture
def waiting(tmp_path: Path, waiting_shop: Path) -> Stand:
    """The same for one test alone."""
    shutil.copytree(waiting_shop, tmp_path, dirs_exist_ok=True)
    return Stand(tmp_path)


# Answers -------------------------------------------------------------------------------------------------------------


def test_the_question_is_shown_with_a_sample_of_its_answer(waiting: Stand) -> None:
    said = waiting.type("answer", "order-1", "Review")
    assert 'Review#1 of run order-1 asks: {"cents":1200}' in said.out
    assert 'durable_sqlite answer order-1 Review \'{"granted": true' in said.out
    document = waiting.type("answer", "order-1", "Review#1", "--json").data
    assert document["question"]["value"] == {"cents": 1200}
    assert document["schema"]["required"] == ["granted", "by"]
    assert waiting.state("order-1") == "suspended"


def test_an_answer_is_stored_and_the_run_goes_on_with_it(waiting: Stand) -> None:
    said = waiting.type("answer", "order-1", "Review", GOOD)
    assert "answered Review#1 of run order-1" in said.out
    assert "durable_sqlite resume order-1" in said.out
    assert "no further: name your code with --app" in said.err
    (waiting.folder / "open").touch()
    assert "teapot, shelf 7, on its way" in waiting.type("resume", "order-1").out
    late = waiting.type("answer", "order-1", "Review", GOOD, codes=(6,))
    assert f"was answered by {getpass.getuser()} at" in late.err


def test_with_the_code_an_answer_is_held_against_its_type(waiting: Stand) -> None:
    wrong = waiting.type("answer", "order-1", "Review", '{"granted": "maybe"}', "--app", "shop", codes=(2,))
    assert "$.granted: Input should be a valid boolean" in wrong.err
    assert "$.by: Field required" in wrong.err
    right = waiting.type("answer", "order-1", "Review", GOOD, "--app", "shop", "--json", "--by", "ada")
    assert right.data == {
        "id": "order-1",
        "key": "Review#1",
        "by": "ada",
        "checked_by": "type",
        "commands": ["durable_sqlite resume order-1"],
    }


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["Review", '{"granted": tru}'], 2, CARET),
        (["Review", '{"granted": 1}'], 2, "$.granted: it takes boolean, not integer"),
        (["Review", '{"granted": NaN}'], 2, "NaN is Python's"),
        (["Review", '{"by": "a", "by": "b"}'], 2, "names 'by' twice"),
        (["Review", "[" * 100_000], 2, "nested too deeply"),
        (["Review", "\udcff"], 2, "not UTF-8"),
        (["Revue", "{}"], 6, "asks no question 'Revue'"),
        (["Review", GOOD, "--key", "Review#7"], 6, "it asks these:"),
    ],
    ids=["json", "schema", "nan", "double", "deep", "bytes", "point", "key"],
)  # fmt: skip
def test_what_is_no_answer_is_refused_and_nothing_stored(
    waiting: Stand, words: list[str], code: int, told: str
) -> None:
    said = waiting.type("answer", "order-1", *words, codes=(code,))
    assert told in said.err
    assert said.out == ""
    assert waiting.state("order-1") == "suspended"


# Messages ------------------------------------------------------------------------------------------------------------


def test_a_message_reaches_the_run(waiting: Stand) -> None:
    said = waiting.type("signal", "pay-1", "Paid", '{"receipt": "r-1"}', "--dedupe", "m")
    assert "sent Paid to run pay-1" in said.out
    assert "not held against its type" in said.err
    assert '"r-1"' in waiting.type("resume", "pay-1").out
    assert "is completed, so it takes no message" in waiting.type("signal", "pay-1", "Paid", "{}", codes=(6,)).err


def test_without_a_message_it_is_shown_what_one_looks_like_as_far_as_that_is_known(waiting: Stand) -> None:
    said = waiting.type("signal", "pay-1", "Paid")
    assert "run pay-1 waits for a message Paid" in said.out
    assert "known to your code alone: name that with --app MODULE" in said.out
    typed = waiting.type("signal", "pay-1", "Paid", "--app", "shop")
    assert '"receipt"' in typed.out
    command = """durable_sqlite signal pay-1 Paid '{"receipt": "text"}'"""
    assert typed.out.splitlines()[-1].strip() == command
    waiting.type("signal", "pay-1", "Paid", '{"receipt": "r-9"}')
    document = waiting.type("signal", "pay-1", "Paid", "--json").data
    assert document["commands"] == ["""durable_sqlite signal pay-1 Paid '{"receipt": "r-9"}'"""]
    assert (document["awaited"], document["schema"], document["last"]["value"]) == (True, None, {"receipt": "r-9"})
    assert "defines no signal 'Pade'" in waiting.type("signal", "pay-1", "Pade", "--app", "shop", codes=(2,)).err


def test_with_the_code_a_message_is_held_against_its_type(waiting: Stand) -> None:
    wrong = waiting.type("signal", "pay-1", "Paid", "{}", "--app", "shop", codes=(2,))
    assert "$.receipt: Field required" in wrong.err
    unknown = waiting.type("signal", "pay-1", "Pade", "{}", "--app", "shop", codes=(2,))
    assert "defines no signal 'Pade'" in unknown.err
    assert "  Paid" in unknown.err
    right = waiting.type("signal", "pay-1", "Paid", '{"receipt": "r-1"}', "--app", "shop", "--json")
    assert (right.data["name"], right.data["checked_by"]) == ("Paid", "type")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["Paid", "5"], "a message is a JSON object"),
        (["Paid", "{"], "line 1, column 2"),
        (["", "{}"], "name of a signal"),
    ],
)
def test_what_is_no_message_is_refused(waiting: Stand, words: list[str], told: str) -> None:
    assert told in waiting.type("signal", "pay-1", *words, codes=(2,)).err


# Control -------------------------------------------------------------------------------------------------------------


def test_a_paused_run_says_by_whom_and_goes_on_by_resume(waiting: Stand) -> None:
    said = waiting.type("pause", "order-1", "--reason", "lunch", "--by", "ada")
    assert "run order-1 was asked to pause by ada: it is paused" in said.out
    assert "durable_sqlite resume order-1" in said.out
    resumed = waiting.type("resume", "order-1", codes=(4,))
    assert "it was paused" in resumed.err
    assert waiting.state("order-1") == "suspended"


def test_cancel_leaves_the_clean_up_to_a_worker_or_to_resume(waiting: Stand) -> None:
    document = waiting.type("cancel", "order-1", "--reason", "twice", "--json").data
    assert document["state"] == "pending"
    assert document["asked"]["by"] == getpass.getuser()
    assert document["asked"]["reason"] == "twice"
    assert document["commands"] == ["durable_sqlite resume order-1"]
    assert "was cancelled by" in waiting.type("resume", "order-1", codes=(1,)).out


def test_terminate_ends_it_at_once(waiting: Stand) -> None:
    said = waiting.type("terminate", "order-1", "--by", "bob")
    assert "run order-1 was ended by bob: it is cancelled" in said.out
    for name in ("terminate", "cancel", "pause"):
        assert "order-1 is cancelled" in waiting.type(name, "order-1", codes=(6,)).err


@pytest.mark.parametrize("name", ["answer", "signal", "cancel", "pause", "terminate", "resume"])
def test_what_is_not_there_is_told_by_each(waiting: Stand, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    more = {"answer": ["Review"], "signal": ["Paid", "{}"]}.get(name, [])
    assert "holds no run" in waiting.type(name, "nobody", *more, codes=(3,)).err
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    said: Said = durable_sqlite(name, "@", *more, "--db", "new.db", cwd=elsewhere, codes=(2,))
    assert "there is no journal new.db" in said.err
    assert list(elsewhere.iterdir()) == []
