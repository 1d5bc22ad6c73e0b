"""From the words that were typed to an exit code: the one place where errors end and interruptions are heard."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

from ._commands import TABLE, Call, Command, Entry, load
from ._light import TYPE_CHECKING
from ._out import Out, OutputLost
from ._trouble import DONE, INTERRUPTED, NO_OUTPUT, USAGE, Trouble, trouble_of

if TYPE_CHECKING:
    from typing import Any, NoReturn, TextIO

__all__ = ["main"]

_PROGRAM = "durable_sqlite"
_ABOUT = """\
usage: durable_sqlite COMMAND [OPTION ...]

Durable coroutines in one SQLite file: look at their runs, and act on them.
"""
_MORE = """\
options of all commands:
  --db FILE            the journal; else DURABLE_SQLITE_DB, else `db` in [tool.durable_sqlite] of pyproject.toml
  --app MODULE[:ATTR]  your code, where a command needs it; else DURABLE_SQLITE_APP, else `app` in the same table
  --json               one JSON document on standard output instead of text
  -h, --help           what a command does, with examples
  --version            which version this is

a run is named by its id, or a beginning or an ending of it that no other run has; @ is the newest

exit codes: 0 done · 1 the run failed or was cancelled · 2 wrong use · 3 no such run · 4 it waits · 5 parked
            6 refused · 75 the journal is busy, or a live worker drives the run

examples:
  durable_sqlite list --db runs.db            what is there
  durable_sqlite why @                        why the newest run does not move
  durable_sqlite list --status failed --json  for a program
"""
_HINT = re.compile(f"`{_PROGRAM} ([a-z]+)`")
_WITH_VALUE = ("--db", "--app")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. It raises nothing, and shows no traceback of its own."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return _end(words)
    except KeyboardInterrupt:
        _let_go_of_output()
        return INTERRUPTED
    except BrokenPipeError:  # whoever read us has enough
        _let_go_of_output()
        return DONE
    except OSError as error:
        _let_go_of_output()
        Out().note(f"{_PROGRAM}: the output could not be written ({error.strerror or error})")
        return NO_OUTPUT


def _end(words: Sequence[str]) -> int:
    _never_fail_to_encode(sys.stdout, sys.stderr)
    try:
        code = _run(words)
    except (BrokenPipeError, OutputLost):
        raise
    except Exception as error:  # noqa: BLE001 - the one place where errors end
        code = _tell(error)
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


def _run(words: Sequence[str]) -> int:
    options, rest = _before_the_command(words)
    if not rest:
        Out().raw(_help(""))
        return USAGE
    first = rest[0]
    if first in ("-h", "--help"):
        Out().raw(_help(""))
        return DONE
    if first == "--version":
        from importlib.metadata import version  # noqa: PLC0415 - slow, and asked for rarely

        Out().line(f"{_PROGRAM} {version(_PROGRAM)}")
        return DONE
    if first.startswith("-"):
        raise Trouble(f"there is no option {first!r} before the command", f"see `{_PROGRAM} --help`")
    entry, rest = _entry(rest)
    if entry is None:
        Out().raw(_help(first))
        return DONE if {"-h", "--help"} & set(rest) else USAGE
    parser = _Parser(prog=f"{_PROGRAM} {entry.name}")
    command = load(entry)
    command.arguments(parser)
    try:
        chosen = parser.parse_args([*options, *rest])
    except SystemExit as done:  # --help has been printed
        return done.code if isinstance(done.code, int) else DONE
    return _carry_out(command, Call(chosen, Out(json=chosen.json)))


def _carry_out(command: Command, call: Call) -> int:
    try:
        return command.run(call)
    except (BrokenPipeError, OutputLost):
        raise
    except Exception as error:  # noqa: BLE001 - of a command that was understood, more is known
        return _tell(error, call)


def _before_the_command(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of all commands that stand before the command, and the rest."""
    at = 0
    while at < len(words):
        word = words[at]
        if word in _WITH_VALUE:
            at += 2
        elif word == "--json" or word.startswith(tuple(f"{option}=" for option in _WITH_VALUE)):
            at += 1
        else:
            break
    return list(words[:at]), list(words[at:])


def _entry(words: list[str]) -> tuple[Entry | None, list[str]]:
    """The line of the table, and the words behind its name; None for the first word of several commands alone."""
    by_name = {entry.name: entry for entry in TABLE}
    for count in (2, 1):
        entry = by_name.get(" ".join(words[:count]))
        if entry is not None and len(words) >= count:
            return entry, words[count:]
    family = [name for name in by_name if name.startswith(f"{words[0]} ")]
    if family and (len(words) == 1 or words[1].startswith("-")):
        return None, words[1:]
    from difflib import get_close_matches  # noqa: PLC0415 - for a slip of the finger

    typed = " ".join(words[:2]) if family else words[0]
    near = get_close_matches(typed, by_name, n=1)
    meant = f"do you mean `{_PROGRAM} {near[0]}`?" if near else f"see `{_PROGRAM} --help`"
    raise Trouble(f"there is no command {typed!r}", meant)


def _help(family: str) -> str:
    lines: list[str] = [_ABOUT]
    shown = [entry for entry in TABLE if entry.name.startswith(family)]
    wide = max(len(entry.name) for entry in shown) + 2
    for group in dict.fromkeys(entry.group for entry in shown):
        lines.append(f"{group}:")
        lines += [f"  {entry.name:<{wide}}{entry.help}" for entry in shown if entry.group == group]
        lines.append("")
    return "\n".join([*lines, _MORE])


class _Parser(argparse.ArgumentParser):
    """Of one command. Raises what is wrong with the words, instead of printing them as they are."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--db", metavar="FILE", help="the journal")
        self.add_argument("--app", metavar="MODULE[:ATTR]", help=argparse.SUPPRESS)
        self.add_argument("--json", action="store_true", help="print one JSON document instead of text")

    def error(self, message: str) -> NoReturn:
        raise Trouble(message, f"see `{self.prog} --help`", code=USAGE)


# Output --------------------------------------------------------------------------------------------------------------


def _tell(error: Exception, call: Call | None = None) -> int:
    if os.environ.get("DURABLE_SQLITE_TRACEBACK") == "1":
        import traceback  # noqa: PLC0415 - for developers

        traceback.print_exception(error)
    trouble = trouble_of(error, journal=None if call is None else _named(call))
    first, *rest = trouble.what.split("\n")
    out = Out()
    out.note(f"{_PROGRAM}: {first}")
    for line in (*rest, *trouble.then):
        out.note(f"  {line if call is None else _about_the_same(line, call)}")
    return trouble.code


def _named(call: Call) -> str | None:
    """The journal that was meant, if any was."""
    try:
        return call.db().value
    except (Trouble, OSError, ValueError):
        return None


def _about_the_same(line: str, call: Call) -> str:
    """A hint whose command can be typed as it is shown: about the journal that was named."""
    return _HINT.sub(lambda found: f"`{call.command(found[1])}`", line)


def _never_fail_to_encode(*streams: TextIO | None) -> None:
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """Let the interpreter find nothing to complain of when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
