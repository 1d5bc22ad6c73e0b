"""What a command is, and the table of all of them. The module of a command is imported when it is called."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from importlib import import_module

from ._journal import Journal
from ._light import NamedTuple
from ._out import Out
from ._settings import Setting, find_app, find_db
from ._text import quote, wall

__all__ = ["TABLE", "Call", "Command", "Entry", "load"]


class Call:
    """One command as it was called: its options, where it writes, and which journal it is about."""

    def __init__(self, options: argparse.Namespace, out: Out, *, now: Callable[[], int] | None = None) -> None:
        self.options = options
        self.out = out
        self.now = wall if now is None else now
        """The time in microseconds UTC."""
        self._noted: set[str] = set()

    def db(self) -> Setting:
        """The journal's path, and where it was found."""
        return find_db(self.options.db, os.environ, os.getcwd())  # noqa: PTH109

    def app(self) -> Setting | None:
        """The module of the application, where something names it."""
        return find_app(self.options.app, os.environ, os.getcwd())  # noqa: PTH109

    def journal(self, *, any_version: bool = False) -> Journal:
        """The journal, to be read as a context manager; one that has to be migrated first only on wish."""
        return Journal(self.db(), self._note_once, any_version=any_version)

    def _note_once(self, text: str) -> None:
        # Some commands open the journal several times.
        if text not in self._noted:
            self._noted.add(text)
            self.out.note(text)

    def command(self, *words: str) -> str:
        """A command line that a person can type next, about the same journal."""
        said = [] if self.options.db is None else ["--db", self.options.db]
        return " ".join(map(quote, ("durable_sqlite", *words, *said)))


class Command(NamedTuple):
    """What the module of a command defines for each of its commands, in `COMMANDS`, by name."""

    arguments: Callable[[argparse.ArgumentParser], object]
    """Describes the command and adds its arguments; `--db`, `--app` and `--json` are there already."""
    run: Callable[[Call], int]
    """Does it; the exit code."""


class Entry(NamedTuple):
    """A line of the table."""

    name: str
    module: str
    group: str
    help: str


TABLE = (
    Entry("demo", "_demo", "Begin", "a run killed with -9 in the middle of a step, and finished by another process"),
    Entry("start", "_start", "Begin", "start a run of a workflow of your code"),
    Entry("worker", "_start", "Begin", "drive runs until told to stop"),
    Entry("list", "_list", "Look", "the runs, newest first"),
    Entry("show", "_show", "Look", "all of one run: entries, attempts, waits, messages, children, errors"),
    Entry("why", "_why", "Look", "why a run does not move, and what would unblock it"),
    Entry("timeline", "_timeline", "Look", "one run as bars over time, on the terminal or as a picture"),
    Entry("watch", "_watch", "Look", "one run, or all that is under way, as it changes"),
    Entry("stats", "_stats", "Look", "how many runs there are in which state, sizes, workers"),
    Entry("resume", "_resume", "Act", "drive one run here until it ends or waits, or everything that is due"),
    Entry("answer", "_mailing", "Act", "answer a question of a run"),
    Entry("signal", "_mailing", "Act", "send a message to a run"),
    Entry("cancel", "_control", "Act", "ask a run to end, in good order"),
    Entry("pause", "_control", "Act", "let a run begin nothing more until it is resumed"),
    Entry("terminate", "_control", "Act", "end a run at once, without clean-up"),
    Entry("dead-letters list", "_letters", "Act", "the runs that failed or are parked, and that nobody has seen to"),
    Entry(
        "dead-letters show", "_letters", "Act", "one of them: its error with all causes, and what would be tried again"
    ),
    Entry("dead-letters redrive", "_letters", "Act", "let one or many go on with a fresh budget"),
    Entry("dead-letters discard", "_letters", "Act", "mark one or many as seen to"),
    Entry("doctor", "_doctor", "Care", "whether the journal and what it stands on are sound"),
    Entry("check", "_check", "Care", "whether every run fits your code as it is now, before that is deployed"),
    Entry("migrate", "_keep", "Care", "bring the journal to the schema of this version"),
    Entry("backup", "_keep", "Care", "copy the journal into one file, while it is used"),
    Entry("prune", "_keep", "Care", "forget runs that ended long ago"),
    Entry("export", "_keep", "Care", "all of one run as one JSON document"),
)
"""All commands, in the order of `--help`."""


def load(entry: Entry) -> Command:
    """The command of a line of the table."""
    commands: Mapping[str, Command] = import_module(f".{entry.module}", __package__).COMMANDS
    return commands[entry.name]
