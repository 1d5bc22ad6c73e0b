"""Workflows and steps that several scenarios run."""

from __future__ import annotations

from durable_sqlite import step, workflow

__all__ = ["count", "increment"]


@step
async def increment(number: int) -> int:
    """The smallest step whose result is worth recording."""
    return number + 1


@workflow
async def count(steps: int) -> int:
    """So many steps one after another, each with the result of the one before."""
    number = 0
    for _ in range(steps):
        number = await increment(number)
    return number
