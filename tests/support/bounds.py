"""What of a campaign is played with each change, and what only at full length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

__all__ = ["bounded"]


def bounded(values: Sequence[int], number: int) -> list[Any]:
    """These values for a test, of which all but the first so many are left to runs at full length."""
    return [pytest.param(each, marks=[pytest.mark.full] if at >= number else []) for at, each in enumerate(values)]
