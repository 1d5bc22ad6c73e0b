"""`cancel`, `pause` and `terminate`: what a person asks of a run."""

from __future__ import annotations

import argparse
from functools import partial

from ._commands import Call, Command
from ._facts import gather
from ._light import TYPE_CHECKING
from ._text import iso
from ._trouble import DONE
from ._words import state_part

if TYPE_CHECKING:
    from ._facts import Facts

__all__ = ["COMMANDS"]

_ABOUT = {
    "cancel": "Ask a run and its children to end: their bodies are cancelled, and may clean up with steps.",
    "pause": "Let what is in flight in a run and its children end, and nothing else begin, until it is resumed.",
    "terminate": "End a run and its children as cancelled, at once and without clean-up. Prefer `cancel`.",
}
_EXAMPLES = """\
It says who asked, and why, to whoever looks at the run.

examples:
  durable_sqlite {name} order-A1 --reason "ordered twice"
  durable_sqlite {name} @ --by ada --json
"""


def _arguments(name: str, parser: argparse.ArgumentParser) -> None:
    parser.description = _ABOUT[name]
    parser.epilog = _EXAMPLES.format(name=name)
    parser.add_argument("run", metavar="ID", help="its id, a beginning or an ending of it, or @ for the newest run")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why")
    parser.add_argument("--by", metavar="WHO", help="who asks (your name on this system)")


def _run(name: str, call: Call) -> int:
    options = call.options
    with call.journal() as journal:
        run_id = journal.read(lambda tables: journal.find(tables, options.run)).id
    from ._open import opened, perform, plain_engine, who  # noqa: PLC0415 - a run that is not there needs no engine

    by = who() if options.by is None else options.by
    engine = plain_engine(call)

    async def work() -> None:
        async with opened(engine):
            run = engine.run(run_id)
            act = {"cancel": run.cancel, "pause": run.pause, "terminate": run.terminate}[name]
            await act(reason=options.reason, by=by)

    perform(call, work)
    with call.journal() as journal:
        facts = journal.read(lambda tables: gather(journal, tables, run_id, entries=0, most=0))
    return _tell(name, call, facts)


def _tell(name: str, call: Call, facts: Facts) -> int:
    run = facts.run
    ended = run.ended_at is not None
    words = {
        "cancel": "was asked to end",
        "pause": "was asked to pause",
        "terminate": "was ended",
    }[name]
    resume = call.command("resume", run.id)
    following = [] if ended else [resume]
    if call.out.json:
        asked = {
            "cancel": {"at": iso(run.cancel_at), "by": run.cancel_by, "reason": run.cancel_reason},
            "pause": {"at": iso(run.pause_at), "by": run.pause_by, "reason": run.pause_reason},
        }
        request = asked["pause" if name == "pause" else "cancel"]
        call.out.document({"id": run.id, "state": run.state, "asked": request, "commands": following})
        return DONE
    by = run.pause_by if name == "pause" else run.cancel_by
    call.out.line(f"run {run.id} {words}{f' by {by}' if by else ''}: it is ", state_part(run.state))
    if name == "pause":
        call.out.note("it goes on with:")
        call.out.line("  ", (resume, "strong"))
    elif not ended and facts.owner is None:
        call.out.note("its clean-up is left to a worker that is open; where there is none, it ends with:")
        call.out.line("  ", (resume, "strong"))
    return DONE


COMMANDS = {name: Command(partial(_arguments, name), partial(_run, name)) for name in _ABOUT}
