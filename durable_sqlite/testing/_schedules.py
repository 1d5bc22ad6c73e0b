"""Orders in which outcomes may arrive, drawn by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Self

from .._clock import microseconds
from .._context import NOWHERE
from ..errors import UsageError

__all__ = ["Schedules", "schedules"]


class Schedules:
    """A context manager: while it is entered, the outcomes of steps that run beside each other arrive in a drawn order.

    It holds for all engines of the process. What a journal holds already is replayed as it is, and keys stay what they are.
    """

    def __init__(self, seed: int, patience: float) -> None:
        self.seed = seed
        """What the order is drawn by."""
        self.patience = patience
        """Seconds for which outcomes that have arrived are held back, until all that are on their way have arrived too."""

    def __enter__(self) -> Self:
        NOWHERE.orders.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        NOWHERE.orders.remove(self)

    def __repr__(self) -> str:
        return f"schedules({self.seed})"

    def pick(self, place: int, keys: Sequence[str]) -> int:
        """Which outcome arrives next.

        Args:
            place: How many outcomes the run has recorded.
            keys: The keys of the calls whose outcomes are there.

        Returns:
            The index of its key. It depends on the seed, the place and the keys, and on nothing else: not on when they came.
        """
        drawn = blake2b("\0".join([str(self.seed), str(place), *sorted(keys)]).encode(), digest_size=8).digest()
        return keys.index(sorted(keys)[int.from_bytes(drawn, "big") % len(keys)])


def schedules(seed: int, *, patience: float = 1.0) -> Schedules:
    """Let outcomes of steps arrive in another order than that of their calls, for a `with` block.

    Branches, and calls in a `gather`, are told of their outcomes in an order that the seed draws, each time out of all that
    could have come next. Whatever comes of it could have come of another day in production. The same seed draws the same
    order again, in every process.

    Args:
        seed: What the order is drawn by.
        patience: Seconds to wait for the slowest of the steps under way. One that takes longer, because it waits for what the
            body does next, arrives when it comes, and so does what is then drawn without it.

    Raises:
        UsageError: The seed is no whole number, or the patience no positive time.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"schedules takes a whole number as its seed, not {seed!r}")
    if microseconds(patience) <= 0:
        raise UsageError(f"schedules(patience=...) takes a positive time in seconds, not {patience!r}")
    return Schedules(seed, patience)
