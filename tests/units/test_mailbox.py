"""What is in a run's mailbox."""

from __future__ import annotations

from durable_sqlite._mail import Mailbox
from durable_sqlite._records import Mail, Message


def letter(no: int) -> Message:
    return Message(no, "paid", b"%d" % no, at=no)


def test_what_comes_without_a_look_is_behind_what_was_there() -> None:
    mailbox = Mailbox([letter(1)], [])
    mailbox.put(letter(2))
    assert mailbox.there("paid") == [letter(1), letter(2)]
    assert mailbox.latest == 2


def test_what_a_look_has_found_by_then_is_there_once() -> None:
    mailbox = Mailbox([], [])
    mailbox.refill(Mail([letter(1), letter(2)]))
    mailbox.put(letter(1))
    assert mailbox.there("paid") == [letter(1), letter(2)]
    assert mailbox.latest == 2


def test_what_was_taken_does_not_come_again_with_a_look() -> None:
    mailbox = Mailbox([], [])
    mailbox.put(letter(1))
    mailbox.remove(letter(1))
    mailbox.refill(Mail([letter(1), letter(2)]))
    assert mailbox.there("paid") == [letter(2)]
