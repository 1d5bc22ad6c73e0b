"""One call for each of many items."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Literal, TypeGuard, TypeVar, overload

from ._context import body, looks_async
from ._specs import StepCall, Wish
from ._steps import Step
from ._transactions import Transaction
from ._workflows import Workflow
from .errors import UsageError

__all__ = ["each"]

A = TypeVar("A")
R = TypeVar("R")


@overload
def each(
    fn: Callable[[A], Coroutine[Any, Any, R]],
    items: Iterable[A],
    *,
    concurrency: int | None = None,
    on_error: Literal["fail"] = "fail",
) -> Coroutine[object, None, list[R]]: ...
@overload
def each(
    fn: Callable[[A], Coroutine[Any, Any, R]],
    items: Iterable[A],
    *,
    concurrency: int | None = None,
    on_error: Literal["collect"],
) -> Coroutine[object, None, list[R | Exception]]: ...
@looks_async
def each(
    fn: Callable[[A], Coroutine[Any, Any, R]],
    items: Iterable[A],
    *,
    concurrency: int | None = None,
    on_error: Literal["fail", "collect"] = "fail",
) -> Coroutine[object, None, list[Any]]:
    """Call a step, or a workflow as a child run, once for each item; the results in the order of the items.

    Each call is keyed by its item's index, so that after a crash only those are made that are not recorded. Outside a run it
    calls the function as often, in the same manner.

    Args:
        fn: The step or workflow; it takes one argument.
        items: What to call it with.
        concurrency: How many calls may be open at once; None: all.
        on_error: `fail` raises the first error and gives up what is open; `collect` puts errors in the place of results.

    Raises:
        UsageError: `fn` is neither a step nor a workflow, or an option makes no sense.
    """
    work: object = fn
    if not _is_durable(work):
        raise UsageError(f"each() takes a step or a workflow, not {fn!r}: decorate the function with @step")
    if concurrency is not None and (
        isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
    ):
        raise UsageError(f"each(concurrency=...) takes a whole number from 1, not {concurrency!r}")
    if on_error not in ("fail", "collect"):
        raise UsageError(f'each(on_error=...) takes "fail" or "collect", not {on_error!r}')
    fixed = tuple(items)
    here = body()
    collect = on_error == "collect"
    if here is None:
        return _outside(work, fixed, concurrency or len(fixed) or 1, collect=collect)

    def make(index: int) -> StepCall | Wish:
        return work.request((fixed[index],), {})

    return here.many(work.name, work.key, make, len(fixed), concurrency or len(fixed) or 1, collect=collect)


def _is_durable(thing: object) -> TypeGuard[Step[..., Any] | Transaction[..., Any] | Workflow[..., Any]]:
    return isinstance(thing, (Step, Transaction, Workflow))


async def _outside(
    fn: Callable[[Any], Coroutine[Any, Any, Any]], items: Sequence[Any], limit: int, *, collect: bool
) -> list[Any]:
    room = asyncio.Semaphore(limit)
    failed = False

    async def call(item: Any) -> Any:
        nonlocal failed
        async with room:
            if failed:
                return None  # nobody waits for it any more
            try:
                return await fn(item)
            except Exception as error:
                if collect:
                    return error
                failed = True
                raise

    tasks = [asyncio.ensure_future(call(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
