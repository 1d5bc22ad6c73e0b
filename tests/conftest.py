"""What holds for all tests: Hypothesis is bounded and repeatable every day, new journals are made in one step, no test leaves
anything behind, and tests of behaviour may be played in another mode."""

import logging
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_HELPERS = ("behaviour", "campaigns", "cli", "codec", "conformance", "kill", "sqlite", "support")
pytest.register_assert_rewrite(
    *(f"tests.{name}" for name in _HELPERS)
)  # it holds what they assert, also under `python -O`

from durable_sqlite._sqlite import connect  # noqa: E402
from tests.support.leftovers import Leftovers  # noqa: E402
from tests.support.modes import MODES, Play  # noqa: E402
from tests.support.template import Template  # noqa: E402

settings.register_profile("everyday", derandomize=True, max_examples=60, deadline=None, database=None, print_blob=False)
settings.register_profile(  # long, for campaigns: `--hypothesis-profile=long`
    "long", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("everyday")

# In debug mode asyncio tells of each turn that took long: that is this machine's business, and no test's finding.
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing %s took"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and everything from there on: but Ctrl-C is one of the ways to end.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_LEFTOVERS = pytest.StashKey[Leftovers]()
_PLAY = pytest.StashKey[Play]()
_BEHAVIOUR = Path(__file__).with_name("behaviour")
_PROCESSES = {Path(__file__).with_name(name) for name in ("kill", "campaigns", "test_benchmarks.py")}
"""Where tests start processes by the dozen."""


@pytest.fixture(scope="session", autouse=True)
def _template() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connect, "migrate", Template())
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    leftovers = session.config.stash[_LEFTOVERS] = Leftovers()
    with leftovers.watching():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    # Behind the fixtures that are shared by several tests: what those open is not this test's.
    try:
        yield
    finally:
        if _PROCESSES.intersection([item.path, *item.path.parents]):
            # Python's own helpers stay for as long as the tests run.
            resource_tracker.ensure_running()
            forkserver.ensure_running()
        item.config.stash[_LEFTOVERS].begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """No thread, task, descriptor or connection outlives a test."""
    yield
    if item.get_closest_marker("leaves") is None and (found := item.config.stash[_LEFTOVERS].found()):
        pytest.fail("the test has left behind:\n" + "\n".join(found), pytrace=False)


# Modes ---------------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mode", choices=MODES, default=MODES[0], help="how tests of behaviour use engines; see tests/support/modes.py"
    )
    parser.addoption("--record", action="store_true", help="keep what came of it, for the report of the campaigns")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        # What they ask for is on here. A program that is started is to say what it says everywhere, and not each slow turn;
        # and what a test has it assert is to be held.
        os.environ.pop("PYTHONDEVMODE", None)
        os.environ.pop("PYTHONOPTIMIZE", None)
    config.stash[_PLAY] = Play(config.getoption("--mode") or MODES[0])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mode = config.stash[_PLAY].mode
    for item in items:
        for mark in item.iter_markers("contradicts"):
            if mode in mark.args:
                item.add_marker(pytest.mark.skip(reason=f"contradicts --mode={mode}: {mark.kwargs['reason']}"))


@pytest.fixture(autouse=True)
def _mode(request: pytest.FixtureRequest) -> Iterator[None]:
    if _BEHAVIOUR not in request.path.parents:
        yield
        return
    with request.config.stash[_PLAY].on(f"{request.path.name}::{request.function.__name__}"):
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    play = config.stash[_PLAY]
    if play.counts:
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(play.counts.items()))
        terminalreporter.write_line(f"--mode={play.mode}: {counts}")
    if config.getoption("--record"):
        _record(terminalreporter, play, config)


def _record(terminal: pytest.TerminalReporter, play: Play, config: pytest.Config) -> None:
    from tests.campaigns.record import save  # noqa: PLC0415 - seldom needed

    stats = terminal.stats
    failed = [*stats.get("failed", []), *stats.get("error", [])]
    save(
        f"behaviour-{play.mode.replace('_', '-')}",
        {
            "campaign": f"tests of behaviour, {play.mode.replace('_', ' ')}",
            "command": f"python -m pytest {' '.join(map(str, config.invocation_params.args))}",
            "seconds": round(time.monotonic() - play.began, 1),
            "passed": not failed,
            "seeds": f"PYTHONHASHSEED={os.environ.get('PYTHONHASHSEED', 'random')}, optimised {sys.flags.optimize}, "
            f"development mode {sys.flags.dev_mode}",
            "counts": {
                "tests": len(stats.get("passed", [])),
                "left out, because they contradict the mode": sum(
                    "contradicts --mode" in str(each.longrepr) for each in stats.get("skipped", [])
                ),
                **play.counts,
            },
            "findings": [each.nodeid for each in failed],
            "said": [],
        },
    )
