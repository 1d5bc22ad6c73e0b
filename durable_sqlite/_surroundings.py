"""What all passes of one engine share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ._attempt import Runner
from ._clock import Clock
from ._codec import Vault
from ._context import Host
from .journal import Journal
from .retry import Retry

__all__ = ["Surroundings"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every pass of one engine shares."""

    host: Host
    journal: Journal
    loop: asyncio.AbstractEventLoop
    clock: Clock
    vault: Vault
    runner: Runner
    max_entries: int
    retry: Retry
    """For steps that have no policy of their own."""
    chance: Random
    step_exists: Callable[[str], bool]
    failpoint: Callable[[str], None]
