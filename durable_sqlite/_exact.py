"""One attempt of a transaction step: its body run on the journal's thread, inside the commit that records its outcome."""

from __future__ import annotations

from contextvars import Context
from typing import Any

from ._attempt import declared_answer
from ._codec import Vault
from ._context import StepInfo, StepScope, scope
from ._orders import Orders
from ._records import Outcome
from ._specs import StepCall
from ._tables import Door, Effect
from ._tx import Tx
from .errors import DurableError

__all__ = ["ExactAttempt"]


class ExactAttempt:
    """Calls a transaction's body and encodes what it gives, as often as the commit needs.

    Args:
        call: The call.
        info: What the body may know of its attempt.
        context: The caller's, to run in a copy of.
        vault: Seals what is stored.
        orders: What the body asks of runs.
    """

    def __init__(self, call: StepCall, info: StepInfo, context: Context | None, vault: Vault, orders: Orders) -> None:
        self._call = call
        self._info = info
        self._context = context
        self._vault = vault
        self.orders = orders
        self.unfit = False
        """The last call failed because its arguments or its result cannot be stored: so would the next."""

    def __call__(self, door: Door) -> Effect:
        """Run the body once. What it raises and has not declared passes through."""
        context = Context() if self._context is None else self._context.copy()
        return context.run(self._run, door)

    def _run(self, door: Door) -> Effect:
        spec = self._call.spec
        where = f"run {self._info.run_id}, step {self._info.key}"
        scope.set(StepScope(self._info))
        self.orders.begin()
        args, kwargs = self._copied(where)
        try:
            value = spec.fn(Tx(door, self.orders), *args, **kwargs)
        except Exception as error:
            answer = declared_answer(error, spec, self._vault, where)
            if answer is None:
                raise
            return Effect(answer.outcome, answer.payload, keep=False)
        return Effect(Outcome.VALUE, self._encoded(value, f"{where}: result"))

    def _copied(self, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.unfit = True
        (_, *args), kwargs = self._call.spec.parameters.copy(self._call.bound, where)
        self.unfit = False
        return tuple(args), kwargs

    def _encoded(self, value: Any, where: str) -> bytes:
        try:
            return self._vault.seal(self._call.spec.parameters.returns.dump(value, where), where)
        except DurableError:
            self.unfit = True
            raise
