"""Time and chance that are the same on every pass of a body."""

from __future__ import annotations

import uuid as uuids
from datetime import UTC, datetime
from random import Random

from ._clock import to_datetime
from ._context import body

__all__ = ["now", "random", "uuid"]


def now() -> datetime:
    """The time of the last thing that the body was given, as an aware UTC datetime; outside a body, the time."""
    here = body()
    return datetime.now(UTC) if here is None else to_datetime(here.now())


def uuid() -> uuids.UUID:
    """A new UUID, the same on every pass of this branch of the body; outside a body, any."""
    here = body()
    return uuids.uuid4() if here is None else here.uuid()


def random() -> Random:
    """The source of chance of this branch of the body, the same on every pass; outside a body, a new one."""
    here = body()
    return Random() if here is None else here.random()
