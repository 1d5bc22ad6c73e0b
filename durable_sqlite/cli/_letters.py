"""`dead-letters`: the runs that failed or are parked, and that nobody has seen to."""

from __future__ import annotations

import argparse

from ._commands import Call, Command
from ._facts import EVERYTHING, Facts, gather
from ._light import TYPE_CHECKING, NamedTuple
from ._payload import Error, error_of
from ._text import age, iso
from ._trouble import DONE, REFUSED, Trouble
from ._words import limit, state_part

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from .._handle import Run
    from ._journal import Tables

__all__ = ["COMMANDS"]

_RUN = "its id, a beginning or an ending of it, or @ for the newest run"
_FILTERS = """\
examples:
  durable_sqlite dead-letters {name} {first}
  durable_sqlite dead-letters {name} {second}
"""


class Letter(NamedTuple):
    """A row of `letters`."""

    no: int
    id: str
    workflow: str
    state: str
    reason: str
    ended_at: int
    failed_keys: str
    error: bytes | None


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    parser.add_argument("--reason", metavar="REASON", help="only runs that stopped for this reason")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the runs that failed or are parked and that nobody has seen to, newest first."
    parser.epilog = _FILTERS.format(name="list", first="", second="--workflow fulfil --reason retries_exhausted --json")
    _filters(parser)
    parser.add_argument("--limit", metavar="N", type=limit, default=20, help="at most so many; 0 for all (20)")


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show one dead letter: the error with its causes, what a resume would try again, the input."
    parser.epilog = _FILTERS.format(name="show", first="@", second="order-A1 --json")
    parser.add_argument("run", metavar="ID", help=_RUN)


def _act_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    parser.epilog = _FILTERS.format(name=name, first="order-A1 order-A2", second="--all --workflow fulfil")
    parser.add_argument("runs", metavar="ID", nargs="*", help=_RUN)
    parser.add_argument("--all", action="store_true", help="all that fit the filters")
    _filters(parser)


def _redrive_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Let dead letters go on with a fresh budget, where a worker or `resume --due` drives them."
    _act_arguments("redrive", parser)


def _discard_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Mark dead letters as seen to, so that they are listed no longer. The runs stay as they are."
    _act_arguments("discard", parser)


def _letters(tables: Tables, workflow: str | None, reason: str | None, most: int) -> list[Letter]:
    rows = tables.all("letters", workflow=workflow, reason=reason, limit=most or -1)
    return [Letter(*row) for row in rows]


def _codec(tables: Tables) -> str:
    return str((tables.first("meta_value", name="codec") or ("",))[0])


def _list(call: Call) -> int:
    options = call.options
    with call.journal() as journal:
        path = journal.path
        letters, codec = journal.read(
            lambda tables: (_letters(tables, options.workflow, options.reason, options.limit), _codec(tables))
        )
    errors = [error_of(letter.error, codec) for letter in letters]
    if call.out.json:
        call.out.document([_document(letter, error) for letter, error in zip(letters, errors, strict=True)])
        return DONE
    if not letters:
        call.out.note(f"{path} holds no dead letters" + (" that fit" if options.workflow or options.reason else ""))
        return DONE
    now = call.now()
    rows = [
        (
            letter.id,
            letter.workflow,
            state_part(letter.state),
            letter.reason,
            age(now - letter.ended_at),
            error.words if error else "",
        )
        for letter, error in zip(letters, errors, strict=True)
    ]
    call.out.table(("ID", "WORKFLOW", "STATE", "REASON", "FOR", "ERROR"), rows, whole={0})
    call.out.note(f"next: {call.command('dead-letters', 'show', letters[0].id)}")
    return DONE


def _document(letter: Letter, error: Error | None) -> dict[str, Any]:
    return {
        "id": letter.id,
        "workflow": letter.workflow,
        "state": letter.state,
        "reason": letter.reason,
        "stopped_at": iso(letter.ended_at),
        "keys": _keys(letter.failed_keys),
        "error": None if error is None else error.document(),
    }


def _keys(stored: str) -> list[str]:
    import json  # noqa: PLC0415

    try:
        return [str(key) for key in json.loads(stored) if key != "~cancel"]
    except (ValueError, TypeError, RecursionError):
        return []


def _show(call: Call) -> int:
    with call.journal() as journal:
        facts = journal.read(lambda tables: gather(journal, tables, call.options.run, entries=100, most=EVERYTHING))
    run, error, out = facts.run, facts.error, call.out
    if run.state not in ("failed", "parked"):
        raise Trouble(
            f"run {run.id} is {run.state}, so it is no dead letter",
            f"see it with `{call.command('show', run.id)}`",
            code=REFUSED,
        )
    letter = Letter(
        run.no, run.id, run.workflow, run.state, run.reason, run.ended_at or run.updated_at, run.failed_keys, None
    )
    if out.json:
        more = {"input": facts.input.document(), "discarded_at": iso(run.discarded_at)}
        out.document({**_document(letter, error), **more, "commands": _following(call, facts)})
        return DONE
    out.line((run.id, "strong"), "  ", run.workflow, "  ", state_part(run.state), f"  {run.reason}")
    out.line("  input        ", facts.input.text(2_000))
    if run.discarded_at is not None:
        out.line("  it was marked as seen to")
    while error is not None:
        out.line("  error        ", (error.words, "bad"))
        for line in error.traceback.rstrip("\n").split("\n") if error.traceback else ():
            out.line("    ", line)
        error = error.cause
    keys = _keys(run.failed_keys)
    if keys:
        out.line("  tried again  ", ", ".join(keys))
    out.line()
    for command in _following(call, facts):
        out.line("  ", (command, "strong"))
    return DONE


def _following(call: Call, facts: Facts) -> list[str]:
    run_id = facts.run.id
    return [call.command("resume", run_id), call.command("dead-letters", "discard", run_id)]


def _chosen(call: Call, word: str) -> tuple[str, list[str]]:
    """The journal's path, and the ids of the runs that are meant.

    Raises:
        Trouble: They are named in two ways, or in none; or one of them is not there.
    """
    options = call.options
    if bool(options.runs) == options.all:
        raise Trouble("name dead letters, or say --all", f"see `durable_sqlite dead-letters {word} --help`")
    if options.runs and (options.workflow or options.reason):
        raise Trouble("--workflow and --reason choose among --all", "leave them out where you name the runs")
    with call.journal() as journal:

        def look(tables: Tables) -> list[str]:
            if options.all:
                return [letter.id for letter in _letters(tables, options.workflow, options.reason, 0)]
            return list(dict.fromkeys(journal.find(tables, typed).id for typed in options.runs))

        return journal.path, journal.read(look)


def _each(
    call: Call, word: str, act: Callable[[Run[Any]], Coroutine[Any, Any, Any]], tell: Callable[[dict[str, Any]], str]
) -> int:
    """Do something with each that is meant; one that somebody else was faster with does not hold up the others."""
    path, ids = _chosen(call, word)
    from ..errors import WrongState  # noqa: PLC0415
    from ._open import opened, perform, plain_engine  # noqa: PLC0415

    engine = plain_engine(call)
    done: list[dict[str, Any]] = []
    refused: list[str] = []

    async def work() -> None:
        async with opened(engine):
            for run_id in ids:
                try:
                    keys = await act(engine.run(run_id))
                except WrongState as error:
                    refused.append(str(error))
                else:
                    done.append({"id": run_id, "tried_again": list(keys or ())})

    if ids:
        perform(call, work)
    if call.out.json:
        call.out.document({"done": done, "refused": refused})
        return REFUSED if refused else DONE
    if not ids:
        call.out.note(f"{path} holds no dead letters that fit")
    for each in done:
        call.out.line(tell(each))
    for words in refused:
        call.out.note(words)
    return REFUSED if refused else DONE


def _redrive(call: Call) -> int:
    async def act(run: Run[Any]) -> Any:
        if (await run.info()).state == "paused":
            raise Trouble(f"run {run.id} is paused, so it is no dead letter", code=REFUSED)
        return await run.resume()

    def tell(each: dict[str, Any]) -> str:
        keys = ", ".join(each["tried_again"])
        return f"{each['id']} goes on" + (f", and tries {keys} again" if keys else "")

    code = _each(call, "redrive", act, tell)
    if code == DONE and not call.out.json:
        call.out.note("a worker that is open drives them by itself; else:")
        call.out.note(f"  {call.command('resume', '--due')}")
    return code


def _discard(call: Call) -> int:
    async def act(run: Run[Any]) -> Any:
        await run.discard()

    return _each(call, "discard", act, lambda each: f"{each['id']} is marked as seen to")


COMMANDS = {
    "dead-letters list": Command(_list_arguments, _list),
    "dead-letters show": Command(_show_arguments, _show),
    "dead-letters redrive": Command(_redrive_arguments, _redrive),
    "dead-letters discard": Command(_discard_arguments, _discard),
}
