from __future__ import annotations

import pytest

from durable_sqlite.testing.plugin import durable
from tests.kit import flows

__all__ = ["durable"]  # the plugin's own, which a checkout may not have installed


@pytest.fixture(autouse=True)
def _new_world() -> None:
    flows.world.clear()
