"""What holds for all tests: Hypothesis is bounded and repeatable every day, and new journals are made in one step."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from durable_sqlite._sqlite import connect
from tests.support.template import Template

settings.register_profile("everyday", derandomize=True, max_examples=60, deadline=None, database=None, print_blob=False)
settings.register_profile(  # long, for campaigns: `--hypothesis-profile=long`
    "long", max_examples=5_000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("everyday")


@pytest.fixture(scope="session", autouse=True)
def _template() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connect, "migrate", Template())
        yield
