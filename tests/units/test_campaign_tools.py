"""Campaigns are found, recorded and reported as they are."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns import record, report
from tests.campaigns.__main__ import main
from tests.campaigns.registry import Result, broken_rules, campaigns


def test_every_folder_of_campaigns_is_found_and_adds_its_commands() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for campaign in campaigns():
        campaign.register(commands)
    folders = {path.parent.name for path in Path(record.__file__).parent.glob("*/campaign.py")}
    assert folders <= {campaign.__name__.split(".")[-2] for campaign in campaigns()}
    assert {
        "bodies",
        "waiting",
        "damage",
        "fleet",
        "zombies",
        "races",
        "walreset",
        "injection",
    } <= commands.choices.keys()


def test_every_campaign_can_be_told_how_long_to_go_on_and_from_which_seed() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for campaign in campaigns():
        campaign.register(commands)
    for name in commands.choices:
        options = parser.parse_args([name, "--minutes", "60", "--seed", "7"])
        assert (options.minutes, options.seed) == (60, 7)


def test_more_than_twenty_rules_are_broken_each_for_a_campaign_that_there_is() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for campaign in campaigns():
        campaign.register(commands)
    rules = list(broken_rules())
    assert len(rules) > 20
    assert {rule.campaign for rule in rules} <= commands.choices.keys()
    assert max(Counter((rule.campaign, rule.name) for rule in rules).values()) == 1
    assert all(rule.what.endswith(".") and rule.most > 0 for rule in rules)


@pytest.mark.parametrize(
    ("findings", "expected", "code"), [((), False, 0), (("lost",), False, 1), ((), True, 1), (("lost",), True, 0)]
)
def test_a_campaign_fails_where_it_finds_something_or_misses_what_was_broken(
    findings: tuple[str, ...], expected: bool, code: int
) -> None:
    assert Result(counts={}, findings=findings, expected=expected).code == code


@pytest.mark.parametrize("came", [1, Result(counts={"kills": 1_000}, findings=["lost | for ever"], seeds="seed 7")])
def test_what_a_campaign_came_to_is_kept_and_reported(tmp_path: Path, came: int | Result) -> None:
    def run(_: object) -> int | Result:
        sys.stdout.write("1,000 kills\n")
        return came

    assert record.recorded("fleet", ["fleet", "--kills", "1000", "--record"], run, None, tmp_path) == 1
    (kept,) = report.read(tmp_path)
    assert kept["command"] == "python -m tests.campaigns fleet --kills 1000"
    assert kept["said"] == ["1,000 kills"]
    assert kept["on"]["sqlite source"]
    page = report.page([kept])
    assert "1,000" in page
    assert kept["on"]["commit"] in page
    assert "none" not in page
    if isinstance(came, Result):
        assert "lost \\| for ever" in page


def test_a_rule_that_nobody_noticed_stands_in_the_table() -> None:
    row: dict[str, Any] = {"campaign": "fleet", "name": "no-fence", "what": "No fence.", "noticed": "NOT NOTICED"}
    facts = {"campaign": "mutants", "command": "mutants", "counts": {}, "table": [row], "on": record.environment()}
    assert "| No fence. | fleet | NOT NOTICED |" in report.page([json.loads(json.dumps(facts))])


def test_the_page_in_the_docs_is_what_was_recorded() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.page(report.read(record.RESULTS)), (
        "run `python -m tests.campaigns report`"
    )


def test_a_campaign_that_is_not_there_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["nothing"])


def test_what_other_campaigns_have_come_to_is_no_change_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / record.RESULTS.relative_to(record.ROOT)
    results.mkdir(parents=True)
    (tmp_path / "code.py").write_text("1")
    (results / "one.json").write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    (results / "one.json").write_text("2")
    assert record.environment()["changed"] == "no"
    (tmp_path / "code.py").write_text("2")
    assert record.environment()["changed"] == "yes"
