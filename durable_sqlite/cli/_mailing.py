"""`answer` and `signal`: what a run waits for, typed by a person."""

from __future__ import annotations

import argparse

from ._commands import Call, Command
from ._facts import EVERYTHING, Facts, gather
from ._light import TYPE_CHECKING
from ._payload import Payload
from ._rows import STOPPED, Question, Stored, checked
from ._text import instant, iso
from ._trouble import DONE, REFUSED, Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from .._codec import Shape
    from .._context import Host
    from ._code import Code

__all__ = ["COMMANDS"]

_ANSWER = """\
Without JSON it only shows the question, and what an answer looks like. Where --app names your code, the answer is held
against its type; else against the types in the JSON schema that is stored with the question.

examples:
  durable_sqlite answer @ Review
  durable_sqlite answer order-A1 Review '{"granted": true, "by": "ada"}'
  echo true | durable_sqlite answer order-A1 Ready -
"""
_SIGNAL = """\
Without JSON it only shows what a message looks like, as far as that is known. Where --app names your code, the message is
held against its type; else it is stored as it is, and the run sets it aside if it does not fit.

examples:
  durable_sqlite signal order-A1 Paid --app shop.flows
  durable_sqlite signal order-A1 Paid '{"receipt": "r-1"}'
  durable_sqlite signal order-A1 Paid '{"receipt": "r-1"}' --dedupe msg-17 --app shop.flows
"""
_RUN = "its id, a beginning or an ending of it, or @ for the newest run"
_SHOWN = 1_000
"""Characters of a question."""


def _answer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Answer a question of a run. It goes on once a worker drives it, or by `resume`."
    parser.epilog = _ANSWER
    parser.add_argument("run", metavar="ID", help=_RUN)
    parser.add_argument("point", metavar="POINT", help="the name of the suspend point, or the key of the question")
    parser.add_argument("answer", metavar="JSON", nargs="?", help="the answer; - reads it from standard input")
    parser.add_argument("--key", metavar="KEY", help="which question, where the point has asked several")
    parser.add_argument("--by", metavar="WHO", help="who answers (your name on this system)")


def _signal_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Send a message to a run. It is kept until the run takes it."
    parser.epilog = _SIGNAL
    parser.add_argument("run", metavar="ID", help=_RUN)
    parser.add_argument("name", metavar="NAME", help="the name of the signal")
    parser.add_argument(
        "message", metavar="JSON", nargs="?", help="the message, a JSON object; - reads it from standard input"
    )
    parser.add_argument("--dedupe", metavar="WORD", help="a second message with the same word changes nothing")


def _look(call: Call) -> tuple[Facts, str]:
    with call.journal() as journal:
        run = call.options.run
        return journal.read(lambda tables: gather(journal, tables, run, entries=100, most=EVERYTHING)), journal.path


# Answers -------------------------------------------------------------------------------------------------------------


def _answer(call: Call) -> int:
    facts, path = _look(call)
    question = _question(call, facts)
    _show(call, facts, question)
    if call.options.answer is None:
        return DONE
    from .._specs import AnswerQuestion  # noqa: PLC0415 - looking at the question needs no engine
    from ._code import load_app  # noqa: PLC0415
    from ._open import as_json, json_argument, who  # noqa: PLC0415

    value = json_argument(call.options.answer, "the answer")
    code = load_app(call)
    from .._signals import known_point  # noqa: PLC0415

    spec = known_point(question.name)
    if spec is not None:
        data = _of_type(spec.answer, value, "the answer", f"the type that answers {question.name}")
        held = f"held against the type in {code.source if code else 'the code'}"
    else:
        _hold_against_schema(value, question)
        data = as_json(value)
        held = "held against the types in the stored JSON schema, no further: name your code with --app for all of it"
    by = who() if call.options.by is None else call.options.by
    said = AnswerQuestion(facts.run.id, question.name, question.key, data, by, early=False)
    _send(call, path, code, lambda host: host.answer(said))
    return _sent(
        call,
        facts,
        f"answered {question.key} of run {facts.run.id}",
        held,
        {"key": question.key, "by": by, "checked_by": "type" if spec else "schema"},
    )


def _question(call: Call, facts: Facts) -> Question:
    """The open question that is meant.

    Raises:
        Trouble: There is none, or there are several.
    """
    run, options = facts.run, call.options
    wanted = [
        each for each in facts.questions if options.point in (each.name, each.key) and options.key in (None, each.key)
    ]
    open_ones = [each for each in wanted if each.is_open]
    if len(open_ones) == 1:
        return open_ones[0]
    if open_ones:
        lines = [f"  {each.key}: {facts.payload(each).text(_SHOWN)}" for each in open_ones]
        raise Trouble(f"run {run.id} asks {options.point} more than once", *lines, "say which with --key KEY")
    asked = [f"  {each.key}" for each in facts.questions if each.is_open]
    if wanted:
        last = wanted[-1]
        by = f" by {last.answered_by}" if last.answered_by else ""
        at = last.answered_at or last.closed_at or 0
        how = "was answered" if last.answered_at is not None else "was closed"
        what = f"question {last.key} of run {run.id} {how}{by} at {instant(at, call.now())}"
        raise Trouble(what, *(["it asks these now:", *asked] if asked else []), code=REFUSED)
    what = f"run {run.id} ({run.state}) asks no question {options.point!r}"
    raise Trouble(what, *(["it asks these:", *asked] if asked else ["it asks nothing now"]), code=REFUSED)


def _show(call: Call, facts: Facts, question: Question) -> None:
    run, out = facts.run, call.out
    only = call.options.answer is None
    if only and out.json:
        import json  # noqa: PLC0415

        try:
            schema = json.loads(question.schema)
        except (ValueError, RecursionError):
            schema = None
        out.document(
            {
                "id": run.id,
                "key": question.key,
                "point": question.name,
                "question": facts.payload(question).document(),
                "schema": schema,
                "asked_at": iso(question.asked_at),
                "until": iso(question.deadline_at),
            }
        )
        return
    from ._sample import sample  # noqa: PLC0415

    tell = out.line if only else out.note
    until = "" if question.deadline_at is None else f", until {instant(question.deadline_at, call.now())}"
    tell(f"{question.key} of run {run.id} asks{until}: {facts.payload(question).text(_SHOWN)}")
    if only:
        tell(f"  answer schema  {question.schema}")
        key = [] if call.options.key is None else ["--key", call.options.key]
        found = sample(question.schema)
        if found is None:
            tell("  an answer is typed as JSON behind the point; no example is known here")
        else:
            out.line("  ", (call.command("answer", run.id, call.options.point, found, *key), "strong"))


def _hold_against_schema(value: Any, question: Question) -> None:
    import json  # noqa: PLC0415

    from ._sample import sample  # noqa: PLC0415
    from ._schema import misfits  # noqa: PLC0415

    try:
        schema = json.loads(question.schema)
    except (ValueError, RecursionError):
        return
    wrong = misfits(value, schema)
    if wrong:
        raise Trouble(
            f"the answer does not fit what {question.key} asks for",
            *wrong,
            *([] if (found := sample(question.schema)) is None else [f"an answer looks like {found}"]),
        )


# Messages ------------------------------------------------------------------------------------------------------------


def _signal(call: Call) -> int:
    facts, path = _look(call)
    run, options = facts.run, call.options
    if run.state in STOPPED and run.state != "parked":
        raise Trouble(f"run {run.id} is {run.state}, so it takes no message", code=REFUSED)
    from .._ids import check_name, check_text  # noqa: PLC0415
    from .._specs import SendMessage  # noqa: PLC0415
    from ._code import load_app  # noqa: PLC0415
    from ._open import as_json, json_argument  # noqa: PLC0415

    check_name("the name of a signal", options.name)
    check_text("dedupe", options.dedupe)
    if options.message is None:
        return _show_message(call, facts)
    value = json_argument(options.message, "the message")
    if not isinstance(value, dict):
        raise Trouble(f'a message is a JSON object, such as {{"receipt": "r-1"}}, and not {options.message!r:.100}')
    code = load_app(call)
    from .._signals import known_signal  # noqa: PLC0415

    spec = known_signal(options.name)
    if spec is not None:
        data = _of_type(spec.shape, value, "the message", f"signal {options.name}")
        held = f"held against the type in {code.source if code else 'the code'}"
    elif code is not None:
        raise Trouble(f"{code.source} defines no signal {options.name!r}", *_known_signals())
    else:
        data = as_json(value)
        held = "not held against its type: name your code with --app for that"
    _send(call, path, code, lambda host: host.signal(SendMessage(run.id, options.name, data, options.dedupe)))
    return _sent(
        call,
        facts,
        f"sent {options.name} to run {run.id}",
        held,
        {"name": options.name, "checked_by": "type" if spec else None},
    )


def _show_message(call: Call, facts: Facts) -> int:
    """What a message of this name looks like: by its type, or by the last one that was sent to this run."""
    from .._signals import known_signal  # noqa: PLC0415
    from ._code import load_app  # noqa: PLC0415
    from ._sample import sample  # noqa: PLC0415

    run, name, out = facts.run, call.options.name, call.out
    code = load_app(call)
    spec = known_signal(name)
    if spec is None and code is not None:
        raise Trouble(f"{code.source} defines no signal {name!r}", *_known_signals())
    import json  # noqa: PLC0415

    schema = None if spec is None else json.dumps(spec.shape.json_schema())
    last = _last_message(call, facts)
    example = _as_typed(last) if schema is None else sample(schema)
    waits = any(wait.kind == "signal" and wait.name == name for wait in facts.waits)
    command = None if example is None else call.command("signal", run.id, name, example)
    if out.json:
        out.document(
            {
                "id": run.id,
                "name": name,
                "awaited": waits,
                "schema": None if schema is None else json.loads(schema),
                "last": None if last is None else last.document(),
                "commands": [] if command is None else [command],
            }
        )
        return DONE
    out.line(f"run {run.id} {'waits' if waits else 'does not wait now'} for a message {name}")
    if schema is not None:
        out.line(f"  message schema  {schema}")
    elif example is not None:
        out.line("  one that was sent to it before is shown here")
    else:
        out.line("  what it has to hold is known to your code alone: name that with --app MODULE, and it is shown here")
    if command is not None:
        out.line("  ", (command, "strong"))
    return DONE


def _as_typed(sent: Payload | None) -> str | None:
    """A stored message as it is typed; None where it is not known, or too long for a line."""
    if sent is None or sent.size > _SHOWN:
        return None
    value = sent.document().get("value")
    import json  # noqa: PLC0415

    return json.dumps(value) if isinstance(value, dict) else None


def _last_message(call: Call, facts: Facts) -> Payload | None:
    name = call.options.name
    with call.journal() as journal:
        found = journal.read(
            lambda tables: checked(Stored, tables.all("last_message", run=facts.run.no, name=name, most=EVERYTHING))
        )
    return Payload(found[0].size, found[0].data, facts.codec) if found else None


def _known_signals() -> list[str]:
    from .._signals import known_names  # noqa: PLC0415

    names = known_names("signal")
    return ["it knows these:", *(f"  {name}" for name in names)] if names else ["it defines none"]


# Both ----------------------------------------------------------------------------------------------------------------


def _of_type(shape: Shape[Any], value: Any, what: str, name: str) -> bytes:
    """The stored form of what was typed.

    Raises:
        Trouble: It does not fit; each place is named.
    """
    from ..errors import PayloadError  # noqa: PLC0415
    from ._open import as_json, reason_of  # noqa: PLC0415

    try:
        return shape.dump(shape.load(as_json(value), what), what)
    except PayloadError as error:
        raise Trouble(f"{what} does not fit {name}: {reason_of(error)}") from None


def _send(call: Call, path: str, code: Code | None, send: Callable[[Host], Awaitable[None]]) -> None:
    from ._open import make_engine, opened, perform  # noqa: PLC0415

    async def work() -> None:
        async with opened(make_engine(path, code)) as engine:
            await send(engine.host)

    perform(call, work)


def _sent(call: Call, facts: Facts, what: str, held: str, more: dict[str, Any]) -> int:
    following = call.command("resume", facts.run.id)
    if call.out.json:
        call.out.document({"id": facts.run.id, **more, "commands": [following]})
        return DONE
    call.out.line(what)
    call.out.note(f"  {held}")
    call.out.note("a worker that is open goes on with the run by itself; else it goes on with:")
    call.out.line("  ", (following, "strong"))
    return DONE


COMMANDS = {"answer": Command(_answer_arguments, _answer), "signal": Command(_signal_arguments, _signal)}
