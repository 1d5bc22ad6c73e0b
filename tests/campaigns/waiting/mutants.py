"""The engine or its journal with one rule about waiting broken, for each rule: the campaign must notice."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false
# What stands in for a rule looks at nothing that it is given.

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from durable_sqlite import _errands
from durable_sqlite._body_loop import BodyLoop
from durable_sqlite._call import Call
from durable_sqlite._desk import Desk
from durable_sqlite._ledger import Ledger
from durable_sqlite._mail import Mailbox
from durable_sqlite._records import (
    Entry,
    Hold,
    Kind,
    Mail,
    Memory,
    Message,
    NewAnswer,
    NewMessage,
    NewQuestion,
    Question,
    Request,
    RunRow,
    State,
)
from durable_sqlite._run import Pass
from durable_sqlite._worker import Worker
from tests.support.disk import Disk
from tests.support.memory import clients, control, driving
from tests.support.memory_journal import MemoryJournal

__all__ = ["MUTANTS"]

Mutant = Callable[[], AbstractContextManager[object]]


# Messages ------------------------------------------------------------------------------------------------------------


def a_suspension_does_not_look_again() -> AbstractContextManager[object]:
    """A run rests although what it waits for came just before."""
    return patch.object(driving, "_has_come", lambda *_: False)


def a_message_wakes_nobody() -> AbstractContextManager[object]:
    """A message is stored, and the run that waits for it rests on."""

    def mutant(disk: Disk, row: RunRow, message: NewMessage) -> object:
        with patch.object(Disk, "ready", lambda _disk, row, _at, **_changes: row):
            return store(disk, row, message)

    store = clients._store
    return patch.object(clients, "_store", mutant)


def taking_a_message_is_not_recorded() -> AbstractContextManager[object]:
    """A message stays in the journal when it was taken."""
    record = MemoryJournal.record

    def mutant(self: MemoryJournal, hold: Hold, entry: Entry, takes: Sequence[int] = ()) -> asyncio.Future[None]:
        del takes
        return record(self, hold, entry)

    return patch.object(MemoryJournal, "record", mutant)


def a_new_pass_gets_old_mail() -> AbstractContextManager[object]:
    """Messages that were taken are there again after a restart."""
    memory = MemoryJournal.memory

    async def mutant(self: MemoryJournal, run: int) -> Memory:
        known = await memory(self, run)
        return replace(known, messages=[replace(one, taken_by=None) for one in self.disk.mail.get(run, ())])

    return patch.object(MemoryJournal, "memory", mutant)


def the_newest_message_comes_first() -> AbstractContextManager[object]:
    """Messages are taken in the wrong order."""
    refill = Mailbox.refill

    def mutant(self: Mailbox, mail: Mail) -> None:
        refill(self, replace(mail, messages=list(mail.messages)[::-1]))

    return patch.object(Mailbox, "refill", mutant)


def who_asked_last_is_served_first() -> AbstractContextManager[object]:
    """Of several branches that wait for one class of messages, the last one gets the first."""
    first = Mailbox._first

    def mutant(self: Mailbox, name: str, calls: dict[str, Call]) -> object:
        return first(self, name, dict(reversed(calls.items())))

    return patch.object(Mailbox, "_first", mutant)


def a_drain_takes_one() -> AbstractContextManager[object]:
    """A drain leaves all but the oldest message."""
    there = Mailbox.there

    def mutant(self: Mailbox, name: str) -> list[Message]:
        return there(self, name)[:1]

    return patch.object(Mailbox, "there", mutant)


def a_repeated_message_is_another_one() -> AbstractContextManager[object]:
    """The dedupe value is ignored."""
    send = clients._send

    def mutant(disk: Disk, row: RunRow, message: NewMessage) -> object:
        return send(disk, row, replace(message, dedupe=None))

    return patch.object(clients, "_send", mutant)


def a_bodys_message_is_sent_on_each_pass() -> AbstractContextManager[object]:
    """What a body sends is not told apart by the entry it comes from."""
    signal, numbers = MemoryJournal.signal, itertools.count()

    def mutant(
        self: MemoryJournal, run_id: str, message: NewMessage, *, caller: Hold | None = None
    ) -> asyncio.Future[Any]:
        fresh = message if caller is None else replace(message, dedupe=f"{message.dedupe} {next(numbers)}")
        return signal(self, run_id, fresh, caller=caller)

    return patch.object(MemoryJournal, "signal", mutant)


def ended_runs_take_messages() -> AbstractContextManager[object]:
    """A message to a run that has ended is accepted."""
    return patch.object(clients, "ENDED", frozenset[State]())


def a_timeout_does_not_look_for_a_message() -> AbstractContextManager[object]:
    """A wait times out at its deadline, whatever was stored before."""
    expire = MemoryJournal.expire

    def mutant(self: MemoryJournal, hold: Hold, entry: Entry, deadline: int) -> asyncio.Future[bool]:
        return expire(self, hold, entry, deadline if entry.kind is Kind.QUESTION else -1)

    return patch.object(MemoryJournal, "expire", mutant)


def a_late_message_wins() -> AbstractContextManager[object]:
    """A wait takes a message that was sent after its deadline."""
    first = Mailbox._first

    def mutant(self: Mailbox, name: str, calls: dict[str, Call]) -> object:
        with ExitStack() as stack:
            for call in calls.values():
                deadline, call.deadline = call.deadline, None
                stack.callback(setattr, call, "deadline", deadline)
            return first(self, name, calls)

    return patch.object(Mailbox, "_first", mutant)


# Questions -----------------------------------------------------------------------------------------------------------


@contextmanager
def the_second_answer_is_accepted() -> Generator[None, None, None]:
    """A question takes another answer than its first."""

    def give(disk: Disk, no: int, question: Question, answer: NewAnswer) -> None:
        answered = replace(question, answer=answer.payload, answered_at=answer.at, answered_by=answer.by)
        disk.asked[no][question.key] = answered

    with patch.object(clients, "_over", lambda *_: None), patch.object(clients, "give", give):
        yield


def an_answer_without_a_key_goes_to_the_newest() -> AbstractContextManager[object]:
    """A click for the first question answers the second."""
    meant = clients._meant

    def mutant(disk: Disk, row: RunRow, answer: NewAnswer) -> object:
        asked = [question.key for question in disk.questions(row.no) if question.name == answer.name]
        return meant(disk, row, answer if len(asked) < 2 else replace(answer, key=asked[-1]))

    return patch.object(clients, "_meant", mutant)


def early_answers_are_lost() -> AbstractContextManager[object]:
    """A question does not look for an answer that came before it."""
    ask = MemoryJournal.ask

    def mutant(self: MemoryJournal, hold: Hold, question: NewQuestion) -> asyncio.Future[bool]:
        self.disk.early[hold.run].clear()
        return ask(self, hold, question)

    return patch.object(MemoryJournal, "ask", mutant)


def questions_stay_open() -> AbstractContextManager[object]:
    """A question that the body no longer waits for stands open."""
    withdraw = MemoryJournal.withdraw

    def mutant(self: MemoryJournal, hold: Hold, keys: Sequence[str], at: int) -> asyncio.Future[None]:
        return withdraw(self, hold, keys[:0], at)

    return patch.object(MemoryJournal, "withdraw", mutant)


def late_answers_are_accepted() -> AbstractContextManager[object]:
    """A question takes an answer after its deadline, until somebody closes it."""
    over = clients._over

    def mutant(row: RunRow, question: Question, answer: NewAnswer) -> object:
        return over(row, replace(question, deadline=None), answer)

    return patch.object(clients, "_over", mutant)


# Runs and their children ---------------------------------------------------------------------------------------------


@contextmanager
def a_child_has_another_id_on_each_pass() -> Generator[None, None, None]:
    """The id of a child run does not derive from the entry that starts it."""
    child_id, numbers = _errands.child_id, itertools.count()

    def mutant(row: RunRow, call: Call) -> str:
        return f"{child_id(row, call)}-{next(numbers)}"

    with patch.object(_errands, "child_id", mutant):
        yield


def children_that_nobody_waits_for_go_on() -> AbstractContextManager[object]:
    """A child whose call was given up is not told to end."""
    abandon = MemoryJournal.abandon

    def mutant(self: MemoryJournal, hold: Hold, children: Sequence[str], request: Any) -> asyncio.Future[Any]:
        return abandon(self, hold, children[:0], request)

    return patch.object(MemoryJournal, "abandon", mutant)


def nobody_hears_of_an_end() -> AbstractContextManager[object]:
    """A run that waits for the end of another rests on."""
    return patch.object(Disk, "wake_waiters", lambda *_: 0)


@contextmanager
def _without_family(verb: str) -> Generator[None, None, None]:
    """What this function of the journal does, it does to one run alone."""
    function = getattr(control, verb)

    def mutant(disk: Disk, *args: Any) -> Any:
        with patch.object(Disk, "family", lambda *_: []):
            return function(disk, *args)

    with patch.object(control, verb, mutant):
        yield


def cancel_does_not_cascade() -> AbstractContextManager[object]:
    """The children of a run that is cancelled go on."""
    return _without_family("_tell_to_end")


def detached_runs_are_cancelled() -> AbstractContextManager[object]:
    """A cancellation reaches runs that are detached."""

    def mutant(self: Disk, no: int) -> list[RunRow]:
        children = [row for row in self.runs.values() if row.parent == no]
        return sorted(children + [row for child in children for row in mutant(self, child.no)], key=lambda row: row.no)

    return patch.object(Disk, "family", mutant)


# Control and time ----------------------------------------------------------------------------------------------------


def a_pause_is_heard_only_at_rest() -> AbstractContextManager[object]:
    """A body that works hears of a pause when it is suspended; until then, it begins what it likes."""
    hear = Pass.hear

    def mutant(self: Pass, cancel: Request | None, pause: Request | None) -> None:
        hear(self, cancel, pause if self.at_rest else None)

    return patch.object(Pass, "hear", mutant)


def timers_fire_in_a_pause() -> AbstractContextManager[object]:
    """A paused run is due at its nearest deadline, and goes on then."""
    lay_aside = Disk.lay_aside

    def mutant(self: Disk, row: RunRow, at: int, **changes: Any) -> RunRow:
        row = lay_aside(self, row, at, **changes)
        dues = [each.deadline for each in self.open_waits[row.no] if each.deadline is not None]
        return self.put(row, due_at=min(dues, default=row.due_at))

    return patch.object(Disk, "lay_aside", mutant)


def a_pause_ends_no_deadline() -> AbstractContextManager[object]:
    """A run's own deadline is not in force while it is paused."""
    lay_aside = Disk.lay_aside

    def mutant(self: Disk, row: RunRow, at: int, **changes: Any) -> RunRow:
        return self.put(lay_aside(self, row, at, **changes), due_at=None)

    return patch.object(Disk, "lay_aside", mutant)


def a_status_is_said_again_on_replay() -> AbstractContextManager[object]:
    """A new pass does not know what the body has said of itself already."""
    init = Pass.__init__

    def mutant(self: Pass, *args: Any, **others: Any) -> None:
        init(self, *args, **others)
        self._reported = (None, None)

    return patch.object(Pass, "__init__", mutant)


def a_status_is_not_kept() -> AbstractContextManager[object]:
    """Nobody sees what a body says of itself."""
    return patch.object(Desk, "report_status", lambda *_: None)


def an_idle_body_misses_its_timer() -> AbstractContextManager[object]:
    """No alarm is set for a run that rests."""
    rested = Worker.rested

    def mutant(self: Worker, run: Any, due: int | None) -> None:
        del due
        rested(self, run, None)

    return patch.object(Worker, "rested", mutant)


def an_intent_is_not_written_down() -> AbstractContextManager[object]:
    """Nobody knows of an at-most-once step that it was about to begin."""
    return patch.object(Ledger, "intend", lambda *_: None)


def a_time_limit_that_is_over_tells_nobody() -> AbstractContextManager[object]:
    """It is recorded that time is up, and the body goes on."""
    return patch.object(BodyLoop, "fire", lambda *_: None)


def a_new_pass_forgets_transactions() -> AbstractContextManager[object]:
    """Replay knows of all outcomes but those of transactions."""
    memories = MemoryJournal.memories

    async def mutant(self: MemoryJournal, runs: Sequence[int]) -> list[Memory]:
        kept = await memories(self, runs)
        return [
            replace(one, entries=[entry for entry in one.entries if entry.kind is not Kind.TRANSACTION]) for one in kept
        ]

    return patch.object(MemoryJournal, "memories", mutant)


MUTANTS: dict[str, Mutant] = {
    mutant.__name__.replace("_", "-"): mutant
    for mutant in (
        a_suspension_does_not_look_again,
        a_message_wakes_nobody,
        taking_a_message_is_not_recorded,
        a_new_pass_gets_old_mail,
        the_newest_message_comes_first,
        who_asked_last_is_served_first,
        a_drain_takes_one,
        a_repeated_message_is_another_one,
        a_bodys_message_is_sent_on_each_pass,
        ended_runs_take_messages,
        a_timeout_does_not_look_for_a_message,
        a_late_message_wins,
        the_second_answer_is_accepted,
        an_answer_without_a_key_goes_to_the_newest,
        early_answers_are_lost,
        questions_stay_open,
        late_answers_are_accepted,
        a_child_has_another_id_on_each_pass,
        children_that_nobody_waits_for_go_on,
        nobody_hears_of_an_end,
        cancel_does_not_cascade,
        detached_runs_are_cancelled,
        a_pause_is_heard_only_at_rest,
        timers_fire_in_a_pause,
        a_pause_ends_no_deadline,
        a_status_is_said_again_on_replay,
        a_status_is_not_kept,
        an_idle_body_misses_its_timer,
        an_intent_is_not_written_down,
        a_time_limit_that_is_over_tells_nobody,
        a_new_pass_forgets_transactions,
    )
}
"""By name, what each breaks."""
