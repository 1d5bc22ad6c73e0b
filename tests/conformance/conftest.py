from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.adapters import ADAPTERS, Lab, in_lab

Program = Callable[[Lab], Coroutine[Any, Any, None]]


@pytest.fixture(params=list(ADAPTERS))
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Program], None]:
    """Runs a program over each adapter."""
    return lambda program: in_lab(request.param, tmp_path, program)
