"""Sees to a run's mail: looks what has come, opens it, and puts out of the way what does not fit its type."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ._attempt import Result
from ._call import Call
from ._codec import Vault
from ._errands import end_of
from ._ledger import Ledger
from ._mail import Mailbox
from ._records import Mail, Message, Outcome, Question, RunRow
from ._verdict import stored_error
from .errors import Undecodable
from .journal import Journal

__all__ = ["Clerk", "Letter"]

logger = logging.getLogger("durable_sqlite")


@dataclass(frozen=True, slots=True)
class Letter:
    """An outcome that has come by mail, for the call that waits for it."""

    call: Call
    result: Result
    takes: tuple[int, ...] = ()
    """The messages that are taken with it."""


class Clerk:
    """Looks at the mail of one run, and says what it brings.

    Args:
        run_id: Named in messages.
        journal: Where mail is looked for.
        ledger: Where it is noted that something was put out of the way.
        mailbox: What has come, and who waits.
        vault: Opens what is stored.
        looked: Is called after each look.
        refused: Is called with the reason where the journal cannot be looked at.
    """

    def __init__(
        self,
        run_id: str,
        *,
        journal: Journal,
        ledger: Ledger,
        mailbox: Mailbox,
        vault: Vault,
        looked: Callable[[], None],
        refused: Callable[[BaseException], None],
    ) -> None:
        self._run_id = run_id
        self._journal = journal
        self._ledger = ledger
        self._mailbox = mailbox
        self._vault = vault
        self._has_looked = looked
        self._refused = refused
        self._looking: asyncio.Task[Mail] | None = None
        self._wanted: list[Callable[[], None]] = []
        self._again = False

    # Looking ---------------------------------------------------------------------------------------------------------

    @property
    def looking(self) -> bool:
        """Whether what has come is being looked for."""
        return self._looking is not None

    def look(self, then: Callable[[], None] | None = None) -> None:
        """Look what has come, from this moment on, and call `then`."""
        if then is not None:
            self._wanted.append(then)
        if self._looking is None:
            self._begin()
        else:
            self._again = True  # what came since may be missed by the look that is under way

    def stop(self) -> None:
        """The pass is over."""
        self._wanted.clear()
        if self._looking is not None:
            self._looking.cancel()

    def _begin(self) -> None:
        self._again = False
        wanted, self._wanted = self._wanted, []
        self._looking = asyncio.get_running_loop().create_task(self._read())
        self._looking.add_done_callback(lambda task: self._looked(task, wanted))

    async def _read(self) -> Mail:
        return await self._journal.mail(self._ledger.hold.run, self._mailbox.awaited())

    def _looked(self, task: asyncio.Task[Mail], wanted: list[Callable[[], None]]) -> None:
        self._looking = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._refused(error)
            return
        self._mailbox.refill(task.result())
        if self._again:
            self._begin()
        for then in wanted:
            then()
        self._has_looked()

    # Opening ---------------------------------------------------------------------------------------------------------

    def next(self) -> Letter | None:
        """What can be given to the body now; it is out of the mailbox by then."""
        while (delivery := self._mailbox.next()) is not None:
            call, what = delivery.call, delivery.what
            if isinstance(what, RunRow):
                return Letter(call, end_of(what, self._vault))
            payload = what.payload if isinstance(what, Message) else what.answer or b""
            if self._opened(call, what, payload) is None:
                continue
            if isinstance(what, Question):
                return Letter(call, Result(Outcome.VALUE, payload))
            self._mailbox.remove(what)
            return Letter(call, Result(Outcome.VALUE, payload), (what.no,))
        return None

    def all_for(self, call: Call) -> Letter:
        """All messages of a call's name that are there, as far as one entry has room for them."""
        fitting = [
            (message, data)
            for message in self._mailbox.there(call.name)
            if (data := self._opened(call, message, message.payload, b"[", b"]")) is not None
        ]
        where = f"run {self._run_id}, {call.key}"
        payload, count = self._vault.seal_up([data for _, data in fitting], where)
        taken = [message for message, _ in fitting[:count]]
        for message in taken:
            self._mailbox.remove(message)
        return Letter(call, Result(Outcome.VALUE, payload), tuple(message.no for message in taken))

    def _opened(
        self, call: Call, what: Message | Question, payload: bytes, before: bytes = b"", after: bytes = b""
    ) -> bytes | None:
        """The encoded message or answer, if it is what the code can read; else it is put out of the way, for people to see."""
        assert call.wish is not None
        where = f"run {self._run_id}, {call.key}"
        try:
            data = self._vault.open(payload, where)
            call.wish.read(before + data + after, where)
        except Undecodable as problem:
            self._set_aside(what, problem)
            return None
        return data

    def _set_aside(self, what: Message | Question, problem: Undecodable) -> None:
        error = stored_error(problem, self._vault, self._run_id)
        if isinstance(what, Message):
            logger.warning("run %s: message %d, %s, was set aside: %s", self._run_id, what.no, what.name, problem)
            self._mailbox.remove(what)
            self._ledger.set_aside(what.no, error)
        else:
            logger.warning("run %s: the answer to %s was set aside: %s", self._run_id, what.key, problem)
            self._mailbox.unanswer(what.key)
            self._ledger.reopen(what.key, what.answer or b"", error)
