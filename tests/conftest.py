"""What holds for all tests: Hypothesis is bounded and repeatable every day, new journals are made in one step, and no test
leaves anything behind."""

from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from durable_sqlite._sqlite import connect
from tests.support.leftovers import Leftovers
from tests.support.template import Template

settings.register_profile("everyday", derandomize=True, max_examples=60, deadline=None, database=None, print_blob=False)
settings.register_profile(  # long, for campaigns: `--hypothesis-profile=long`
    "long", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("everyday")

_LEFTOVERS = pytest.StashKey[Leftovers]()


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
    yield
    item.config.stash[_LEFTOVERS].begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """No thread, task, descriptor or connection outlives a test."""
    yield
    if found := item.config.stash[_LEFTOVERS].found():
        pytest.fail("the test has left behind:\n" + "\n".join(found), pytrace=False)
