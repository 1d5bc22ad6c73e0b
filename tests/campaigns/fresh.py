"""Plays parts of a campaign in processes of their own: what a program leaves in memory is not the campaign's business."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["in_fresh_processes"]

C = TypeVar("C")
T = TypeVar("T")


def in_fresh_processes(
    play: Callable[[C], T], chunks: Iterable[C], processes: int, *, chunks_each: int = 1
) -> Iterator[T]:
    """What comes of each chunk, in their order; a process is gone after so many of them."""
    # Not an executor: one that renews its processes waits for ever now and then, in Python 3.11.
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=chunks_each) as pool:
        yield from pool.imap(play, chunks)
