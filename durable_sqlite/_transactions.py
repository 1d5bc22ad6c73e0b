"""Transactions: plain functions whose rows, result and journal entry are one commit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Coroutine
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ._codec import Parameters
from ._context import NOWHERE, StepScope, body, scope
from ._definition import (
    Decorated,
    check_function,
    check_raises,
    check_retry,
    is_method,
    locals_around,
    name_of,
    positive,
    stand_in_for,
)
from ._ids import check_name
from ._specs import Mode, StepCall, StepSpec
from ._tx import Tx
from .errors import DefinitionError, UsageError
from .retry import Retry

__all__ = ["Transaction", "transaction"]

P = ParamSpec("P")
R = TypeVar("R")

_BUDGET = 5_000_000  # microseconds that a transaction may hold up everybody else who writes, unless it says more


class Transaction(Decorated, Generic[P, R]):
    """A decorated function: in the body of a workflow a step that takes effect exactly once. Its `Tx` is injected."""

    _spec: StepSpec
    _key: str | None

    def __init__(self, spec: StepSpec) -> None:
        self._spec = spec
        self._key = None
        stand_in_for(self, spec.plain)

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's signature without the `Tx`."""
        signature = inspect.signature(self._spec.plain)
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    @property
    def name(self) -> str:
        """The name under which it is recorded: a promise to every journal that holds it."""
        return self._spec.name

    @property
    def key(self) -> str | None:
        """The explicit key of its calls, where `options` chose one."""
        return self._key

    @property
    def fn(self) -> Callable[Concatenate[Tx, P], R]:
        """The function as it was written."""
        return self._spec.plain

    @property
    def budget(self) -> int:
        """Microseconds after which its SQL is interrupted."""
        return self._spec.timeout or _BUDGET

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Fix the key of this call; awaiting what is returned gives its outcome.

        Raises:
            UsageError: The caller is not the body of a workflow.
        """
        here = body()
        if here is None:
            name = self._spec.name
            if isinstance(scope.get(), StepScope):
                raise UsageError(
                    f"transaction {name} was called inside a step: call it in the body of the workflow; one transaction makes "
                    f"part of another with `{name}.fn(tx, ...)`"
                )
            raise UsageError(
                f"transaction {name} was called outside a run: call it in the body of a workflow, or run it unrecorded with "
                f"`await engine.transact({name}, ...)` from the application"
            )
        return here.call(self.request(args, kwargs))

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepCall:
        """What a body asks for by a call with these arguments.

        Raises:
            Unstorable: An argument has no JSON form; the message has its path.
        """
        bound = self._spec.parameters.bind((None, *args), kwargs)
        digest = self._spec.parameters.digest(bound, f"transaction {self._spec.name}: arguments")
        return StepCall(self._spec, self._key, bound, digest)

    def options(
        self, *, key: str | None = None, retry: Retry | None = None, timeout: float | timedelta | None = None
    ) -> Transaction[P, R]:
        """The same transaction with options for one call; an option that is not given stays as it is.

        Args:
            key: Identifies the call in its branch instead of its name and count; unique in a run.
            retry: When a failed attempt is followed by another.
            timeout: After how many seconds its SQL is interrupted.

        Raises:
            DefinitionError: An option makes no sense.
        """
        chosen: dict[str, Any] = {}
        if retry is not None:
            chosen["retry"] = check_retry(f"@transaction {self._spec.name}", retry)
        if timeout is not None:
            chosen["timeout"] = positive(f"@transaction {self._spec.name}: timeout", timeout)
        other: Transaction[P, R] = copy(self)
        vars(other).update(_spec=replace(self._spec, **chosen) if chosen else self._spec, _key=key or self._key)
        return other

    def __repr__(self) -> str:
        return f"<transaction {self._spec.name}>"


class _TransactionDecorator:
    """`@transaction(...)` with its options, waiting for the function."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def __call__(self, fn: Callable[Concatenate[Tx, P], R], /) -> Transaction[P, R]:
        made: Transaction[P, R] = _make(fn, **self._options)
        return made


@overload
def transaction(fn: Callable[Concatenate[Tx, P], R], /) -> Transaction[P, R]: ...
@overload
def transaction(
    *,
    name: str | None = None,
    ignore: Collection[str] = (),
    raises: tuple[type[Exception], ...] = (),
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
) -> _TransactionDecorator: ...
def transaction(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    ignore: Collection[str] = (),
    raises: tuple[type[Exception], ...] = (),
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
) -> Any:
    """Make a plain function a transaction: the rows that it writes, its result and its journal entry are one commit.

    Its first parameter is the `Tx`, which callers do not pass. It runs on the journal's own thread, inside the commit, so it
    should be short, and cannot await. It may be called more than once, for instance when another write of the same commit
    failed; its rows count once. What it raises undoes its rows, and is then treated as by any step.

    Args:
        fn: The function, where the decorator is used without options.
        name: The name under which it is recorded, else the function's. Keep it when you rename the function.
        ignore: Parameters that do not belong to the call's identity.
        raises: Errors that are answers: recorded, and raised as their own class on every replay. Rows are undone all the same.
        retry: When a failed attempt is followed by another; else as the engine says.
        timeout: After how many seconds its SQL is interrupted, in seconds or as a timedelta; 5 unless said otherwise. The
            attempt has failed then.

    Raises:
        DefinitionError: The function or an option cannot be taken.
    """
    options: dict[str, Any] = {"name": name, "ignore": ignore, "raises": raises, "retry": retry, "timeout": timeout}
    return _TransactionDecorator(options) if fn is None else _make(fn, **options)


def _make(
    fn: Callable[..., Any],
    *,
    name: str | None,
    ignore: Collection[str],
    raises: tuple[type[Exception], ...],
    retry: Retry | None,
    timeout: float | timedelta | None,
) -> Any:
    check_function("transaction", fn)
    own = name_of(fn)
    if inspect.iscoroutinefunction(fn):
        raise DefinitionError(
            f"@transaction {own}: a transaction is a plain function, not `async def`: it runs inside the journal's commit, "
            "where nothing can be awaited. Do the waiting in a @step, and hand its result over"
        )
    first = next(iter(inspect.signature(fn).parameters.values()), None)
    if is_method(fn) or first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise DefinitionError(
            f"@transaction {own}: a function whose first parameter is the Tx, as in `def {own}(tx: Tx, ...)`; methods are none"
        )
    check_raises(f"@transaction {own}", raises)
    spec = StepSpec(
        name=check_name("a transaction's name", name or own),
        plain=fn,
        fn=fn,
        mode=Mode.TRANSACTION,
        executor=None,
        parameters=Parameters(fn, ignore=ignore, skip_first=True, localns=locals_around(fn)),
        raises=tuple(raises),
        retry=None if retry is None else check_retry(f"@transaction {own}", retry),
        timeout=positive(f"@transaction {own}: timeout", timeout) if timeout is not None else _BUDGET,
        at_most_once=False,
        probe=None,
    )
    made = Transaction[..., Any](spec)
    NOWHERE.define(made)
    return made
