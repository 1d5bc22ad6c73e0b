"""What a test is left with: nothing. And where the kit may be used."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import re
import threading
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_sqlite import testing
from durable_sqlite.errors import UsageError
from durable_sqlite.testing import Harness, harness
from tests.kit import flows
from tests.support.house import ROOT, python


def test_nothing_outlives_a_test_whatever_it_leaves_unfinished() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    threads, files = set(threading.enumerate()), descriptors()
    with harness() as durable:
        durable.start(flows.hears)
        durable.start(flows.rests, 3600)
        durable.start(flows.both, 1)
        durable.start(flows.weeks, 5)
        assert descriptors() > files
    gc.collect()
    assert set(threading.enumerate()) == threads
    assert descriptors() == files


def test_nothing_outlives_a_test_whose_process_died() -> None:
    threads = set(threading.enumerate())
    with harness() as durable:
        durable.crash(after=flows.grind)
        durable.run_until_crash(flows.both, 1)
    assert set(threading.enumerate()) == threads


def test_nothing_outlives_an_exploration() -> None:
    before = set(threading.enumerate())
    with harness() as durable:
        durable.crash_everywhere(flows.both, 1)
        assert set(threading.enumerate()) == before


def test_what_the_test_raises_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), harness():
        raise ZeroDivisionError


def test_a_closed_harness_says_so() -> None:
    with harness() as durable:
        run = durable.start(flows.once, 1)
    durable.close()  # again is harmless
    for late in (lambda: durable.state(run), durable.restart, durable.settle):
        with pytest.raises(UsageError, match="this harness is closed"):
            late()


def test_only_coroutines_are_awaited(durable: Harness) -> None:
    wrong: Any = durable.engine.count
    with pytest.raises(UsageError, match="takes a coroutine"):
        durable.do(wrong)


async def _in_an_async_test(durable: Harness) -> None:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    assert durable.run(flows.weeks, 2) == 2
    durable.crash(after=flows.fetch)
    durable.run_until_crash(flows.once, 1)
    durable.restart()
    assert durable.crash_everywhere(flows.once, 2).result == 20
    assert asyncio.current_task() is task
    assert asyncio.get_running_loop() is loop
    await asyncio.sleep(0)


def test_it_is_used_in_async_tests_as_it_is(durable: Harness) -> None:
    asyncio.run(_in_an_async_test(durable))


def test_it_is_used_in_a_callback_of_a_loop(durable: Harness) -> None:
    results: list[int] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: results.append(durable.run(flows.once, 1)))
        await asyncio.sleep(0.001)

    asyncio.run(main())
    assert results == [10]


@settings(max_examples=5)
@given(st.integers(min_value=0, max_value=100))
def test_it_is_used_under_given(number: int) -> None:
    with harness(seed=number) as durable:
        assert durable.run(flows.once, number) == number * 10


def test_the_same_seed_gives_the_same_ids() -> None:
    ids: list[str] = []
    for seed in (1, 1, 2):
        with harness(seed=seed) as durable:
            ids.append(durable.start(flows.once, 1).id)
    assert ids[0] == ids[1] != ids[2]


def test_two_harnesses_do_not_disturb_each_other() -> None:
    with harness() as one, harness() as other:
        run = one.start(flows.hears)
        one.advance(timedelta(days=1))
        assert other.do(other.engine.count()) == 0
        assert other.now < one.now
        assert one.state(run) == "suspended"


def test_an_error_that_nobody_has_caught_is_still_told(durable: Harness, caplog: pytest.LogCaptureFixture) -> None:
    def wrong() -> None:
        raise ZeroDivisionError("in a callback")

    async def call() -> None:
        asyncio.get_running_loop().call_soon(wrong)

    durable.do(call())
    durable.settle()
    assert "in a callback" in caplog.text


def test_the_exports_are_found_when_they_are_asked_for() -> None:
    assert set(testing.__all__) == set(testing._HOME_OF) <= set(dir(testing))
    for name in testing.__all__:
        assert getattr(testing, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nobody'"):
        _ = testing.nobody  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


_HEAVY = """
import json, sys
import {0}
print(json.dumps([name for name in ("pydantic", "aiosqlite", "sqlite3", "hypothesis", "durable_sqlite.engine")
                  if name in sys.modules]))
"""


@pytest.mark.parametrize("module", ["durable_sqlite.testing", "durable_sqlite.testing.plugin"])
def test_loading_it_imports_nothing_heavy(module: str) -> None:
    assert python("-c", _HEAVY.format(module)) == "[]\n"


_WITHOUT = """
import sys
class Nobody:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("hypothesis", "pytest"):
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Nobody())
from durable_sqlite import step, workflow
from durable_sqlite.testing import harness
@workflow
async def plus(number: int) -> int:
    return number + 1
with harness() as durable:
    print(durable.crash_everywhere(plus, 1).result)
    try:
        durable.crash_everywhere(plus)
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_it_works_without_hypothesis_and_without_pytest() -> None:
    result, refusal = python("-c", _WITHOUT).splitlines()
    assert result == "2"
    assert refusal == (
        "UsageError plus takes an input and none was given: give one, or install hypothesis, which draws some"
    )


def test_the_exports_are_exactly_the_documented_ones() -> None:
    reference = (ROOT / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: durable_sqlite\.testing\.(\w+)$", reference, re.MULTILINE)
    assert sorted(documented) == sorted(testing.__all__)


@pytest.mark.parametrize("name", testing.__all__)
def test_every_export_says_what_it_does(name: str) -> None:
    thing = getattr(testing, name)
    members = vars(thing).items() if inspect.isclass(thing) else ()
    public = [(member, value) for member, value in members if not member.startswith("_")]
    functions = [
        (member, value) for member, value in public if inspect.isfunction(value) or isinstance(value, property)
    ]
    assert not [member for member, value in [(name, thing), *functions] if not inspect.getdoc(value)]
