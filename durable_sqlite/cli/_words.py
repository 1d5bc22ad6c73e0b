"""What is said of runs, waits and workers in more than one command, and what is typed for a length of time."""

from __future__ import annotations

import argparse

from ._light import NamedTuple
from ._out import Part
from ._rows import Run, Wait, Worker
from ._text import instant, plural

__all__ = ["Liveness", "duration", "limit", "liveness", "stands_still", "state_part", "summary", "wait_words"]

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST = 10_000 * 366 * 86_400  # seconds
_HANGS = 5_000_000
"""Microseconds for which an event loop may stand still before its worker is said to hang."""


def duration(text: str) -> int:
    """A length of time as people type it (`90s`, `15m`, `2h`, `7d`), in microseconds."""
    unit = text.lstrip("0123456789.")
    number = text[: len(text) - len(unit)]
    try:
        seconds = float(number) * _UNITS[unit.strip().lower()]
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time such as 90s, 15m, 2h or 7d") from None
    return int(min(seconds, _LONGEST) * 1_000_000)


def limit(text: str) -> int:
    """A number from 0 on, as people type it."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9:  # noqa: PLR2004 - SQLite takes it, and so do people
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 999999999")
    return int(text)


def state_part(state: str) -> Part:
    """A state in its colour."""
    return (state, state)


class Liveness(NamedTuple):
    """What can be known here of a worker."""

    alive: bool | None
    """None where it cannot be known."""
    words: str


def liveness(journal: str, worker: Worker | None) -> Liveness:
    """Whether a worker lives, as far as this host can see: it holds a lock on its side file for as long."""
    if worker is None:
        return Liveness(None, "nobody")
    if worker.fenced:
        return Liveness(False, "it was given up, and may write no more")  # noqa: FBT003
    from pathlib import Path  # noqa: PLC0415 - asked only of runs that somebody drives

    from .._liveness import is_dead, side_file, this_start  # noqa: PLC0415

    if worker.host and worker.host != this_start():
        return Liveness(None, "it runs on another machine, or ran before this one was started anew")
    try:
        dead = is_dead(side_file(Path(journal).absolute(), worker.name))
    except OSError as error:
        return Liveness(None, f"whether it lives cannot be seen from here ({error.strerror})")
    return Liveness(not dead, "its process has ended" if dead else "it lives")


def stands_still(worker: Worker) -> int:
    """For how many microseconds the event loop of a worker had not turned when it last renewed its lease, if for long."""
    if worker.beat_at is None or worker.ticked_at is None or worker.beat_at - worker.ticked_at < _HANGS:
        return 0
    return worker.beat_at - worker.ticked_at


def wait_words(wait: Wait) -> str:
    """What a wait is for: `an answer to Review`."""
    words = {
        "sleep": "its sleep",
        "timer": f"a timer ({wait.name})",
        "step": f"the next attempt of {wait.name}",
        "transaction": f"the next attempt of {wait.name}",
        "signal": f"a message {wait.name}",
        "question": f"an answer to {wait.name}",
        "child": f"child run {wait.target}",
        "run": f"the end of run {wait.target}",
    }
    return words.get(wait.kind, f"{wait.kind} {wait.name}")


def summary(run: Run, waits: list[Wait], most: int, owner: Liveness, now: int) -> str:
    """In a few words, what a run does or waits for, or why it stopped."""
    match run.state:
        case "running":
            words = f"worker {run.owner}" if owner.alive is not False else f"worker {run.owner} is gone"
            return f"{words}, to end: {run.cancel_reason}" if run.cancel_at is not None else words
        case "pending":
            return (
                "anybody to drive it"
                if run.deaths == 0
                else f"anybody to drive it ({plural(run.deaths, 'crash', 'crashes')})"
            )
        case "suspended":
            said = [_until(wait, now) for wait in waits[:most]]
            return ", ".join(said) + (", …" if len(waits) > most else "")
        case "paused":
            return " ".join(
                filter(
                    None,
                    ("paused", run.pause_by and f"by {run.pause_by}", run.pause_reason and f"({run.pause_reason})"),
                )
            )
        case _:
            by = f" (by {run.cancel_by})" if run.state == "cancelled" and run.cancel_by else ""
            return f"{run.reason}{by}"


def _until(wait: Wait, now: int) -> str:
    words = wait_words(wait)
    return words if wait.deadline_at is None else f"{words} until {instant(wait.deadline_at, now)}"
