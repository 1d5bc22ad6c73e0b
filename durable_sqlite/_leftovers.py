"""What a body asked of others and no longer waits for: questions that stand open, child runs that go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ._call import Call
from ._errands import child_id, is_detached
from ._ledger import Ledger
from ._records import Kind, Memory, Request, RunRow, abandoner

__all__ = ["Leftovers"]


class Leftovers:
    """Remembers what was asked, and tidies up what was given up.

    Args:
        row: The run.
        memory: What earlier passes asked.
    """

    def __init__(self, row: RunRow, memory: Memory) -> None:
        self._row = row
        self._questions = {question.key for question in memory.questions if question.is_open}
        self._children = set(memory.children)
        self._withdrawn: list[str] = []
        self._abandoned: list[str] = []

    def begun(self, call: Call) -> None:
        """Note that somebody was asked something by this call."""
        if call.kind is Kind.QUESTION:
            self._questions.add(call.key)
        elif call.kind is Kind.CHILD:
            self._children.add(child_id(self._row, call))

    def give_up(self, call: Call) -> None:
        """Note that the body no longer waits for this call."""
        if call.kind is Kind.QUESTION and call.key in self._questions:
            self._withdrawn.append(call.key)
        elif (
            call.kind is Kind.CHILD and (child := child_id(self._row, call)) in self._children and not is_detached(call)
        ):
            self._abandoned.append(child)

    def tidy_up(self, ledger: Ledger, now: int, told: Callable[[Sequence[RunRow]], object]) -> None:
        """Withdraw the questions, and ask the child runs to end; `told` hears which of them were told."""
        if self._withdrawn:
            keys, self._withdrawn = self._withdrawn, []
            ledger.withdraw(keys, now)
        if self._abandoned:
            children, self._abandoned = self._abandoned, []
            write = ledger.abandon(
                children, Request(now, f"run {self._row.id} no longer waits for it", abandoner(self._row.id))
            )

            def done(write: asyncio.Future[Sequence[RunRow]]) -> None:
                if not write.cancelled() and write.exception() is None:
                    told(write.result())

            write.add_done_callback(done)
