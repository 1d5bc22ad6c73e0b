"""`resume`: drives a run in this process until it ends or waits; or everything that is due."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ._commands import Call, Command
from ._facts import EVERYTHING, Facts, gather
from ._journal import Tables
from ._light import TYPE_CHECKING
from ._text import instant, iso, length, plural
from ._trouble import BUSY, DONE, FAILED, Trouble
from ._words import duration, liveness

if TYPE_CHECKING:
    from typing import Any

    from ..engine import Engine
    from ._code import Code

__all__ = ["COMMANDS"]

_EPILOG = """\
It goes on with what is recorded: no step that has an outcome runs again. Where it stops, it says what it waits for and
what to type next. Your code is found by --app, DURABLE_SQLITE_APP or pyproject.toml; else where the run was started
from, if that file is below the directory you are in.

exit codes: 0 it completed, 1 it failed or was cancelled, 4 it waits, 5 it is parked, 75 a live worker drives it

examples:
  durable_sqlite resume @
  durable_sqlite resume order-A1 --app shop.flows
  durable_sqlite resume --due --app shop.flows     everything that is due, then the time of the next call
"""
_STAY = 10_000_000
"""Microseconds."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Drive one run here until it ends or waits: one whose process died, one that is due, paused, failed or parked."
    )
    parser.epilog = _EPILOG
    parser.add_argument(
        "run", metavar="ID", nargs="?", help="its id, a beginning or an ending of it, or @ for the newest run"
    )
    parser.add_argument(
        "--due", action="store_true", help="drive everything that is due instead, and say when to call again"
    )
    parser.add_argument(
        "--stay", metavar="TIME", type=duration, default=_STAY, help="stay for pauses and sleeps of at most this (10s)"
    )
    parser.add_argument(
        "--accept-changes", action="store_true", help="of a parked run: take the code as it is now for right"
    )
    parser.add_argument(
        "--retry", metavar="KEY", action="append", default=[], help="of a failed or parked run: try this one again, too"
    )


def _run(call: Call) -> int:
    options = call.options
    if options.due == (options.run is not None):
        raise Trouble("name a run, or say --due", "see `durable_sqlite resume --help`")
    if options.due:
        return _resume_due(call)
    with call.journal() as journal:
        facts = journal.read(lambda tables: gather(journal, tables, options.run, entries=100, most=EVERYTHING))
        path = journal.path
        has_work = facts.run.state != "suspended" or journal.read(
            lambda tables: _has_work(tables, facts, call.now() + options.stay)
        )
    _refuse_held(call, facts, path)
    from ._follow import tell_end  # noqa: PLC0415 - refusing needs no engine

    if facts.run.state in ("completed", "cancelled"):
        call.out.note(f"there is nothing to resume: run {facts.run.id} is {facts.run.state}")
        return tell_end(call, path, facts, extra={"tried_again": []})
    if not has_work:
        call.out.note(f"nothing of run {facts.run.id} is due, so nothing was done")
        return tell_end(call, path, facts, extra={"tried_again": []})
    return _drive(call, path, facts)


def _has_work(tables: Tables, facts: Facts, until: int) -> bool:
    """Whether a run at rest, or one below it, can go on, by then."""
    return bool(tables.first("work_below", run=facts.run.no, until=until)[0])


def _refuse_held(call: Call, facts: Facts, path: str) -> None:
    run, owner = facts.run, facts.owner
    seen = liveness(path, owner)
    if run.state != "running" or seen.alive is False or owner is None:
        return
    raise Trouble(
        f"run {run.id} is driven by process {owner.pid} (worker {owner.no}): {seen.words}",
        f"see it go on with `{call.command('watch', run.id)}`",
        "where that process hangs, end it: then the run can be resumed here",
        code=BUSY,
    )


def _drive(call: Call, path: str, facts: Facts) -> int:
    from ._code import load_app, load_origin  # noqa: PLC0415 - the engine is imported with it
    from ._follow import Teller, drive, stands, tell_end  # noqa: PLC0415
    from ._open import make_engine, opened, perform  # noqa: PLC0415

    run, options = facts.run, call.options
    code = load_app(call) or load_origin(call, run.workflow, run.origin)
    code.workflow(run.workflow)
    _say_from_where(call, facts)
    engine = make_engine(path, code, drive=True, only=[run.id])

    async def work() -> Sequence[str]:
        # Whoever reads lets go first: whoever closes last takes the WAL away, and can only do that if it may write.
        async with opened(engine):
            with call.journal() as journal:
                teller = Teller(call, journal, run.no)
                again = await _begin(call, engine, run.id)
                if again:
                    teller.begin_anew()
                    call.out.note(f"tries again, with a fresh budget: {', '.join(again)}")
                await drive(engine, teller, patience=options.stay)
        return again

    again = perform(call, work)
    with call.journal() as journal:
        after = stands(journal, run.no)
    return tell_end(call, path, after, extra={"tried_again": list(again)})


async def _begin(call: Call, engine: Engine, run_id: str) -> Sequence[str]:
    """Let a run that has stopped or is paused go on; the keys that are tried again."""
    options, run = call.options, engine.run(run_id)
    state = str((await run.info()).state)
    if state == "paused":
        return await run.resume()
    if state in ("failed", "parked"):
        return await run.resume(accept_changes=options.accept_changes, retry=options.retry)
    return ()


def _say_from_where(call: Call, facts: Facts) -> None:
    run, out = facts.run, call.out
    recorded = (
        "nothing is recorded yet" if not facts.entry_count else f"{plural(facts.entry_count, 'outcome')} recorded"
    )
    how = {
        "running": f"its process {facts.owner.pid if facts.owner else '?'} has died",
        "pending": "nobody drives it",
        "suspended": "it is due",
        "paused": "it was paused",
        "failed": f"it had failed ({run.reason})",
        "parked": f"it was parked ({run.reason})",
    }.get(run.state, run.state)
    out.note(f"resumes run {run.id} of workflow {run.workflow}: {how}; {recorded}")


# Everything that is due ----------------------------------------------------------------------------------------------


def _resume_due(call: Call) -> int:
    from ._code import load_app, load_origin  # noqa: PLC0415
    from ._follow import drive, keep_driven  # noqa: PLC0415
    from ._open import make_engine, opened, perform  # noqa: PLC0415

    with call.journal() as journal:
        path = journal.path
        origins = journal.read(lambda tables: tables.all("origins_under_way"))
    code = load_app(call)
    codes: list[Code] = [] if code is None else [code]
    for workflow, origin in origins if code is None else ():
        try:
            codes.append(load_origin(call, workflow, origin))
        except Trouble as trouble:
            call.out.note(f"runs of {workflow} are left alone: {trouble.what}", "; ".join(("", *trouble.then)))
    ours: set[str] = set()
    if codes:
        engine = make_engine(path, codes[-1], drive=True)
        ours = keep_driven(engine)

        async def work() -> None:
            async with opened(engine):
                await drive(engine, None, patience=call.options.stay)

        perform(call, work)
    import json  # noqa: PLC0415

    with call.journal() as journal:
        driven = journal.read(lambda tables: tables.all("states_of", ids=json.dumps(sorted(ours))))
        due, left = journal.read(lambda tables: tables.first("next_time"))
    return _tell_due(call, driven, due, left)


def _tell_due(call: Call, driven: list[Any], due: int | None, left: int) -> int:
    now = call.now()
    if call.out.json:
        runs = [{"id": run_id, "workflow": workflow, "state": state} for run_id, workflow, state in driven]
        call.out.document({"driven": runs, "next_due": iso(due), "pending": left})
        return FAILED if any(state in ("failed", "parked") for _, _, state in driven) else DONE
    if driven:
        call.out.table(("run", "workflow", "state"), [(run_id, name, (state, state)) for run_id, name, state in driven])
    else:
        call.out.line("nothing was due")
    if left:
        call.out.note(
            f"{plural(left, 'run')} could go on at once and did not: no code for them was loaded, or others drive"
        )
    if due is None:
        call.out.line("nothing comes due by itself: call again when something was sent or answered")
    else:
        when = "at once" if due <= now else f"at {instant(due, now)} (in {length(due - now)})"
        call.out.line(f"call again {when}")
    return FAILED if any(state in ("failed", "parked") for _, _, state in driven) else DONE


COMMANDS = {"resume": Command(_arguments, _run)}
