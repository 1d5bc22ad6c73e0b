from __future__ import annotations

from collections.abc import Iterator

import pytest

from durable_sqlite.testing import Harness, harness
from tests.kit import flows


@pytest.fixture
def durable(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """As the plugin's own, which this checkout may not have installed."""
    flows.world.clear()
    marker = request.node.get_closest_marker("durable")
    with harness(**({} if marker is None else marker.kwargs)) as opened:
        yield opened
