"""Plays every rule that is broken on purpose until the campaign that must notice it does: `python -m tests.campaigns mutants`."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from .registry import BrokenRule, Result, broken_rules

__all__ = ["register"]


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command."""
    parser = commands.add_parser("mutants", help="every rule broken on purpose, until it is noticed")
    parser.add_argument("--campaign", help="only those that this campaign must notice")
    parser.add_argument("--name", help="only this one")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> Result:
    chosen = [
        rule
        for rule in broken_rules()
        if options.campaign in (None, rule.campaign) and options.name in (None, rule.name)
    ]
    table: list[dict[str, object]] = []
    findings: list[str] = []
    for rule in chosen:
        row = _play(rule)
        table.append(row)
        sys.stdout.write("{campaign:12} {name:52} {noticed}\n".format_map(row))
        sys.stdout.flush()
        if row["missed"]:
            findings.append(f"{rule.campaign} does not notice {rule.name}: {rule.what}")
    caught = sum(row["after"] is not None for row in table)
    left_out = sum(row["left out"] is not None for row in table)
    sys.stdout.write(f"{caught} of {len(table)} rules that were broken were noticed; {left_out} cannot be tried here\n")
    for finding in findings:
        sys.stdout.write(f"  {finding}\n")
    return Result(
        counts={"rules broken": len(table), "noticed": caught, "cannot be tried here": left_out},
        findings=findings,
        figures={"table": table},
    )


def _play(rule: BrokenRule) -> dict[str, object]:
    began = time.perf_counter()
    after = None if rule.needs else _in_a_process(rule)
    return {
        "campaign": rule.campaign,
        "name": rule.name,
        "what": rule.what,
        "unit": rule.unit,
        "most": rule.most,
        "after": after,
        "left out": rule.needs,
        "missed": after is None and rule.needs is None,
        "noticed": rule.needs
        or (f"after {after:,} {rule.unit}" if after is not None else f"NOT NOTICED in {rule.most:,} {rule.unit}"),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _in_a_process(rule: BrokenRule) -> int | None:
    """A process of its own for each: what a broken engine leaves in memory is nobody else's business."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_until_noticed, rule.campaign, rule.name).result()


def _until_noticed(campaign: str, name: str) -> int | None:
    (rule,) = _named(campaign, name)
    return rule.until_noticed()


def _named(campaign: str, name: str) -> Sequence[BrokenRule]:
    return [rule for rule in broken_rules() if (rule.campaign, rule.name) == (campaign, name)]
