"""Steps that travel to another process by their names, so they stand in a module of their own."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from durable_sqlite import current_step, step

__all__ = [
    "Shop",
    "add",
    "fail",
    "one_step_in_another",
    "pool",
    "slow_pool",
    "stop",
    "threads",
    "wait_for_a_file",
    "where",
]

pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
"""Starts its process at the first use."""
slow_pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
threads = ThreadPoolExecutor(1)


@step(executor=pool)
def add(a: int, b: int = 2) -> int:
    return a + b


@step(executor=pool)
def where() -> tuple[int, str, int]:
    info = current_step()
    return os.getpid(), info.key, info.attempt


@step(executor=pool)
def fail() -> None:
    raise ValueError("in another process")


@step(executor=pool)
def stop() -> None:
    raise StopIteration


@step(executor=threads)
def one_step_in_another() -> str:
    return current_step().idempotency_key


@step(executor=slow_pool, timeout=5)
def wait_for_a_file(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.005)  # in another process, where the test's clock does not reach
    return "too late"


class Shop:
    """Its method is a step in another process, so the object is pickled."""

    def __init__(self, rate: int) -> None:
        self.rate = rate

    @step(executor=pool)
    def price(self, cents: int) -> int:
        return cents * self.rate
