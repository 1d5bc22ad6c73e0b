"""An engine as the commands that act open it, and what people type for them."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import re
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from ..engine import Engine
from ._code import Code
from ._commands import Call
from ._out import Out
from ._text import cells, safe
from ._trouble import BUSY, REFUSED, Trouble

__all__ = ["as_json", "heard", "json_argument", "make_engine", "opened", "perform", "plain_engine", "reason_of", "who"]

T = TypeVar("T")

_ENGINE = "name your own engine, or a function that makes it, with --app MODULE:ATTR"
_WHILE = 30.0  # seconds
_BEFORE, _BEHIND = 40, 30
"""Characters that are shown around a fault."""


def make_engine(
    path: str, code: Code | None = None, *, drive: bool = False, only: Collection[str] | None = None
) -> Engine:
    """An engine on the journal of this path, not open yet: with the options of the application's own, where it has one.

    Raises:
        Trouble: The application's engine is on another journal.
    """
    workflows = [] if code is None else list(code.workflows.values())
    if code is None or code.engine is None:
        return Engine(path, drive=drive, only=only, workflows=workflows)
    theirs = code.engine.path
    if theirs is None or theirs.resolve() != Path(path).resolve():
        raise Trouble(f"the engine of {code.source} is on {theirs or 'a journal in memory'}, not on {path}")
    return code.engine.anew(drive=drive, only=only, workflows=workflows)


def plain_engine(call: Call, *, any_version: bool = False) -> Engine:
    """An engine for what reads and writes no payload, so that it needs nobody's code: it drives nothing.

    Raises:
        Trouble: There is no journal.
    """
    with call.journal(any_version=any_version) as journal:
        path = journal.path
        try:
            name = str((journal.read(lambda tables: tables.first("meta_value", name="codec")) or ("",))[0])
        except sqlite3.OperationalError:  # it is older than this table
            name = ""
    return Engine(path, drive=False, codec=_Stranger(name) if name else None)


class _Stranger:
    """Stands for a codec that only the application has."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, data: bytes) -> bytes:
        """Refuse."""
        raise self._refusal(len(data))

    def decode(self, data: bytes) -> bytes:
        """Refuse."""
        raise self._refusal(len(data))

    def _refusal(self, size: int) -> Trouble:
        what = f"a value of {size} bytes of this journal needs its codec {self.name}"
        return Trouble(what, _ENGINE, code=REFUSED)


@asynccontextmanager
async def opened(engine: Engine) -> AsyncGenerator[Engine]:
    """The engine while it is open. A worker waits for a locked journal for as long as it takes; a person does not.

    Raises:
        Trouble: It could not be opened in a while.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(_WHILE):
                await stack.enter_async_context(engine)
        except TimeoutError:
            what = f"{engine.path} could not be opened within {_WHILE:g} s; what it waited for is told above"
            raise Trouble(what, "see to that, and try again", code=BUSY) from None
        yield engine


def perform(call: Call, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run what needs an event loop, heard as `heard` says."""
    with heard(call):
        return asyncio.run(work())


@contextmanager
def heard(call: Call) -> Generator[None]:
    """What the application prints meanwhile, and what the engine logs, goes to standard error."""
    logger = logging.getLogger("durable_sqlite")
    handler = _Notes(call.out)
    if not logger.handlers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.removeHandler(handler)


class _Notes(logging.Handler):
    """Says what is logged in one harmless line."""

    def __init__(self, out: Out) -> None:
        super().__init__(logging.WARNING)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        error = record.exc_info[1] if record.exc_info else None
        behind = "" if error is None else f" ({type(error).__name__}: {error})"
        self._out.note(f"{record.levelname.lower()}: {record.getMessage()}{behind}")


def who() -> str:
    """The name of whoever uses this, for the record; empty where the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def reason_of(error: Exception) -> str:
    """Why what was typed does not fit a type: without what is said where something stored does not."""
    text = re.sub(r"^.*?what is stored does not fit [^:]*: ", "", str(error), flags=re.DOTALL)
    text = re.sub(r"; (let the type accept it again|take the old parameters again).*$", "", text, flags=re.DOTALL)
    return text.replace("which is not stored", "which is not given").replace("is stored, but", "is given, but")


# JSON that is typed --------------------------------------------------------------------------------------------------


def as_json(value: Any) -> bytes:
    """A value as it is stored."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def json_argument(text: str, what: str) -> Any:
    """What was typed as JSON; `-` is read from standard input.

    Raises:
        Trouble: It is no JSON; the place is shown.
    """
    if text == "-":
        try:
            text = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise Trouble(f"{what} is no JSON: standard input is not UTF-8 ({error.reason})") from None
    try:
        text.encode()
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        raise Trouble(
            f"{what} is no JSON: {error.msg} (line {error.lineno}, column {error.colno})", *_place(error)
        ) from None
    except UnicodeEncodeError:
        raise Trouble(f"{what} is no JSON: it is not UTF-8") from None
    except RecursionError:
        raise Trouble(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise Trouble(f"{what} is no JSON: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is Python's, and no value of JSON")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it names {double!r} twice")
    return found


def _place(error: json.JSONDecodeError) -> tuple[str, str]:
    """The line with the fault, and a caret below it."""
    line = (error.doc.split("\n")[error.lineno - 1 : error.lineno] or [""])[0]
    at = error.colno - 1
    start = max(0, at - _BEFORE)
    before = safe(line[start:at])
    lead = "…" if start else ""
    return f"{lead}{before}{safe(line[at : at + _BEHIND])}", " " * cells(lead + before) + "^"
