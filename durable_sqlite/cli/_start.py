"""`start` and `worker`: what needs an application's code and no run that is there already."""

from __future__ import annotations

import argparse
import os

from ._commands import Call, Command
from ._light import TYPE_CHECKING
from ._text import plural
from ._trouble import DONE, Trouble
from ._words import duration

if TYPE_CHECKING:
    from typing import Any

    from .._workflows import Workflow

__all__ = ["COMMANDS"]

_START = """\
The input is a JSON object by parameter; it is held against the workflow's own types before anything is stored.

examples:
  durable_sqlite start fulfil --app shop.flows --input '{"item": "teapot"}'
  durable_sqlite start fulfil --app shop.flows --input - --id order-A1 --tag team=eu --wait < order.json
"""
_WORKER = """\
SIGTERM and SIGINT let it drain: steps in flight may end, everything else is given back at once. A second signal ends it.

examples:
  durable_sqlite worker --app shop.flows
  durable_sqlite worker --app shop.flows:engine --drain 2m
"""
_STAY = 10_000_000
_DRAIN = 30_000_000


def _start_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Start a run of a workflow of your code."
    parser.epilog = _START
    parser.add_argument("workflow", metavar="WORKFLOW", help="the name of the workflow")
    parser.add_argument(
        "--input", metavar="JSON", default="{}", help="its input by parameter; - reads it from standard input"
    )
    parser.add_argument(
        "--id", metavar="ID", help="the id of the run; the same id and input attach to the run that is there"
    )
    parser.add_argument("--tag", metavar="NAME=VALUE", action="append", default=[], help="words to find the run by")
    parser.add_argument("--wait", action="store_true", help="drive it here until it ends or waits")
    parser.add_argument("--create", action="store_true", help="make the journal if it is not there")


def _worker_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Drive runs until told to stop by SIGTERM or SIGINT."
    parser.epilog = _WORKER
    parser.add_argument(
        "--drain", metavar="TIME", type=duration, default=_DRAIN, help="how long steps in flight may take to end (30s)"
    )
    parser.add_argument("--create", action="store_true", help="make the journal if it is not there")


def _path(call: Call) -> str:
    """The journal's path; there is one, unless it may be made.

    Raises:
        Trouble: There is none.
    """
    setting = call.db()
    if call.options.create and setting.value and not os.path.exists(setting.value):  # noqa: PTH110 - as everywhere here
        return setting.value
    with call.journal() as journal:
        return journal.path


def _start(call: Call) -> int:
    path, options = _path(call), call.options
    from ._code import need_app  # noqa: PLC0415 - where there is no journal, no code is loaded
    from ._follow import Teller, drive, stands, tell_end  # noqa: PLC0415
    from ._open import json_argument, make_engine, opened, perform  # noqa: PLC0415

    tags = dict(_tag(each) for each in options.tag)
    given = json_argument(options.input, "the input")
    code = need_app(call)
    workflow = code.workflow(options.workflow)
    args, kwargs = _arguments_of(workflow, given)
    chosen = workflow.options(id=options.id, tags=tags or None)
    engine = make_engine(path, code, drive=options.wait, only=[] if options.wait else None)

    async def work() -> tuple[str, bool, int]:
        async with opened(engine):
            before = call.now()  # its first steps may be recorded by the time `start` returns
            run = await chosen.options(engine=engine).start(*args, **kwargs)
            with call.journal() as journal:
                no = journal.read(lambda tables: journal.find(tables, run.id)).no
                call.out.note(f"{'started' if run.created else 'attached to'} run {run.id} of workflow {workflow.name}")
                if options.wait:
                    await drive(engine, Teller(call, journal, no, since=before), patience=_STAY)
            return run.id, run.created, no

    run_id, created, no = perform(call, work)
    if options.wait:
        with call.journal() as journal:
            after = stands(journal, no)
        return tell_end(call, path, after, extra={"created": created})
    following = [call.command("resume", run_id), call.command("why", run_id)]
    if call.out.json:
        call.out.document({"id": run_id, "workflow": workflow.name, "created": created, "commands": following})
        return DONE
    call.out.line((run_id, "strong"))
    call.out.note("a worker that is open goes on with it by itself; else it goes on with:")
    call.out.note(f"  {following[0]}")
    return DONE


def _tag(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise Trouble(f"{text!r} is no tag", "write it as in `--tag team=eu`")
    return name, value


def _arguments_of(workflow: Workflow[..., Any], given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, from JSON by parameter.

    Raises:
        Trouble: They do not fit the workflow's parameters.
    """
    from ..errors import PayloadError  # noqa: PLC0415
    from ._open import as_json, reason_of  # noqa: PLC0415

    if not isinstance(given, dict):
        raise Trouble("the input is a JSON object by parameter", _parameters(workflow))
    try:
        return workflow.spec.parameters.load(as_json(given), "the input")
    except PayloadError as error:
        raise Trouble(
            f"the input does not fit workflow {workflow.name}: {reason_of(error)}", _parameters(workflow)
        ) from None


def _parameters(workflow: Workflow[..., Any]) -> str:
    import inspect  # noqa: PLC0415
    import re  # noqa: PLC0415

    # Annotations that are kept as texts are shown as they were written.
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(workflow.fn)))
    return f"it is defined as {workflow.name}{signature}"


def _work(call: Call) -> int:
    path = _path(call)
    import asyncio  # noqa: PLC0415

    from ._code import need_app  # noqa: PLC0415
    from ._open import make_engine, perform  # noqa: PLC0415

    code = need_app(call)
    if not code.workflows:
        raise Trouble(f"{code.source} defines no workflow, so there is nothing to drive")
    engine = make_engine(path, code, drive=True)

    def begin() -> None:
        names = sorted(code.workflows)
        what = f"process {os.getpid()} drives {plural(len(names), 'workflow')} of {path}: {', '.join(names)}"
        call.out.note(f"{what}; SIGTERM or Ctrl-C lets it end")
        if call.out.json:
            call.out.document({"process": os.getpid(), "journal": path, "workflows": names}, lines=True)
            call.out.flush()

    async def work() -> None:
        async with engine:
            asyncio.get_running_loop().call_soon(begin)  # by its turn, signals are heard
            await engine.serve(drain=call.options.drain / 1_000_000)

    perform(call, work)
    call.out.note("ended: everything was given back")
    return DONE


COMMANDS = {"start": Command(_start_arguments, _start), "worker": Command(_worker_arguments, _work)}
