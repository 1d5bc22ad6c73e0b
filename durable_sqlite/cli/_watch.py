"""`watch`: one run, or all that is under way, as it changes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from ._commands import Call, Command
from ._facts import Facts, gather
from ._journal import Journal, Tables
from ._light import TYPE_CHECKING, NamedTuple
from ._out import Out, Part
from ._payload import error_of
from ._rows import STOPPED, Run, Wait, Worker
from ._text import age, cells, cut, instant, iso, length, pad, safe
from ._trouble import DONE, WAITS, code_of_state
from ._words import duration, liveness, state_part, summary

if TYPE_CHECKING:
    from typing import Any

__all__ = ["COMMANDS", "progress_bar"]

_EPILOG = """\
On a terminal it is drawn in place; elsewhere there is a line for each change. With an ID it ends when the run has
stopped, with the run's exit code: 0 completed, 1 failed or cancelled, 5 parked. Ctrl-C ends it at any time.

examples:
  durable_sqlite watch @
  durable_sqlite watch order-A1 --for 10m && echo done
  durable_sqlite watch --json | jq -r '.id + " " + .state'
"""
_LOOK_EVERY = 0.2  # seconds between two looks at whether anybody has written
_DRAW_EVERY = 5  # looks after which it is drawn again, so that times go on
_LAST = 6
"""Outcomes that are shown of one run."""
_MANY = 1_000
"""Changes that are told in one go."""
_BAR = 30


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Watch one run, or all that is under way, as it changes."
    parser.epilog = _EPILOG
    parser.add_argument(
        "run", metavar="ID", nargs="?", help="its id, a beginning or an ending of it, or @ for the newest run"
    )
    parser.add_argument(
        "--for",
        metavar="TIME",
        dest="most",
        type=duration,
        help="end after this time: 30s, 10m; with an ID, with code 4",
    )


def _run(call: Call) -> int:
    ends = None if call.options.most is None else call.now() + call.options.most
    with call.journal() as journal:
        if call.options.run is None:
            return _All(call, journal).follow(ends)
        return _One(call, journal).follow(ends)


class _Follower:
    """Looks again whenever somebody has written."""

    def __init__(self, call: Call, journal: Journal) -> None:
        self.call = call
        self.out: Out = call.out
        self.journal = journal
        self.in_place = call.out.on_terminal and not call.out.json
        self._drawn = 0

    def follow(self, ends: int | None) -> int:
        """Until it has nothing more to say, or `ends` has come; the exit code."""
        seen: object = None
        looks = 0
        while True:
            pulse = self.journal.pulse()
            if pulse != seen or (self.in_place and looks % _DRAW_EVERY == 0):
                seen = pulse
                code = self.look()
                self.out.flush()
                if code is not None:
                    return code
            if ends is not None and self.call.now() >= ends:
                return self.code_at_the_end()
            looks += 1
            time.sleep(_LOOK_EVERY)

    def look(self) -> int | None:
        """Look, and say what is new; an exit code when that was the last."""
        raise NotImplementedError

    def code_at_the_end(self) -> int:
        """The exit code where the time is over."""
        return DONE

    def draw(self, lines: list[str]) -> None:
        """Draw these lines, made harmless before, over those that were drawn last."""
        if self._drawn:
            self.out.raw(f"\x1b[{self._drawn}F\x1b[J")
        lines = lines[: self.out.height - 1]
        self.out.raw("".join(f"{line}\n" for line in lines))
        self._drawn = len(lines)


class _One(_Follower):
    """Follows one run to its end."""

    def __init__(self, call: Call, journal: Journal) -> None:
        super().__init__(call, journal)
        self._no: int | None = None
        self._told: object = None

    def _gather(self, tables: Tables) -> Facts:
        typed = self.call.options.run if self._no is None else self._no
        return gather(self.journal, tables, typed, entries=_LAST, most=400)

    def look(self) -> int | None:
        facts = self.journal.read(self._gather)
        run = facts.run
        self._no = run.no  # another run may be the newest by now
        news = (run.changed, facts.entry_count, len(facts.attempts))
        if self.in_place:
            self.draw(list(self._page(facts)))
        elif news != self._told:
            self._told = news
            news_of = _News(facts.run, facts.waits, facts.owner, facts)
            _tell(self.out, self.call.now(), self.journal.path, news_of)
        return code_of_state(run.state) if run.state in STOPPED else None

    def code_at_the_end(self) -> int:
        return WAITS

    def _page(self, facts: Facts) -> Iterator[str]:
        out, now, run = self.out, self.call.now(), facts.run
        width = out.width

        def line(*parts: Part) -> str:
            room = width
            shown: list[Part] = []
            for part in parts:
                text, style = (part, "") if isinstance(part, str) else part
                text = cut(safe(text), max(room, 0))
                room -= cells(text)
                shown.append((text, style))
            return out.styled(*shown)

        yield line((run.id, "strong"), f"  {run.workflow}  ", state_part(run.state), f"  {age(now - run.created_at)}")
        if run.done is not None or run.status is not None:
            yield line("  ", progress_bar(run.done, run.total, _BAR, unicode=out.unicode), f" {run.status or ''}")
        what = summary(run, facts.waits, 3, liveness(self.journal.path, facts.owner), now)
        if what:
            yield line(f"  {what}")
        error = facts.error
        if error is not None:
            yield line("  ", (error.words, "bad"))
        for failed in facts.trying.values():
            found = error_of(failed[-1].error, facts.codec)
            told = f"{failed[-1].key} attempt {failed[-1].number}: {found.words if found else ''}"
            yield line("  ", ("✗ " if out.unicode else "x ", "bad"), told)
        for entry in facts.entries[-_LAST:]:
            took = length(entry.recorded_at - entry.started_at)
            bad = entry.outcome in ("error", "timeout")
            mark: Part = (("✗ " if out.unicode else "x "), "bad") if bad else (("✓ " if out.unicode else "+ "), "good")
            yield line("  ", mark, f"{instant(entry.recorded_at, now)}  {entry.key}  {took}")


class _All(_Follower):
    """Follows all runs."""

    def __init__(self, call: Call, journal: Journal) -> None:
        super().__init__(call, journal)
        self._since: int | None = None

    def look(self) -> int | None:
        if self.in_place:
            self.draw(self.journal.read(self._page))
            return None
        while self.journal.read(self._tell_news):
            pass
        return None

    def _page(self, tables: Tables) -> list[str]:
        out, now = self.out, self.call.now()
        counts = dict(tables.all("count_by_state"))
        told = "  ".join(f"{state} {count:,}" for state, count in counts.items())
        lines = [out.styled((cut(safe(f"{self.journal.path}  {told}"), out.width), "strong"))]
        runs = _runs(tables, [no for (no,) in tables.all("under_way", limit=max(out.height - 4, 1))])
        workers = {row[0]: Worker(*row) for row in tables.all("workers")}
        wide = max((cells(safe(run.id)) for run in runs), default=0)
        named = max((cells(safe(run.workflow)) for run in runs), default=0)
        for run in runs:
            owner = None if run.owner is None else workers.get(run.owner)
            what = summary(run, _waits(tables, run), 2, liveness(self.journal.path, owner), now)
            bar = "" if run.done is None else progress_bar(run.done, run.total, 12, unicode=out.unicode)
            rest = "  ".join(filter(None, (f"{age(now - run.updated_at):>6}", bar, run.status, what)))
            shown = cut(f"  {pad(safe(run.id), wide)}  {pad(safe(run.workflow), named)}  ", out.width)
            state = pad(run.state, 9)
            left = max(out.width - cells(shown) - cells(state) - 2, 0)
            lines.append(out.styled(shown, (state, run.state), "  ", cut(safe(rest), left)))
        return lines

    def _tell_news(self, tables: Tables) -> bool:
        """Tell what changed since; whether there may be more."""
        if self._since is None:
            self._since = tables.first("last_change")[0] or 0
            return False
        numbers = [no for (no,) in tables.all("changed_since", since=self._since, limit=_MANY)]
        runs = sorted(_runs(tables, numbers), key=lambda run: (run.changed, run.no))
        workers = {row[0]: Worker(*row) for row in tables.all("workers")}
        for run in runs:
            owner = None if run.owner is None else workers.get(run.owner)
            _tell(self.out, self.call.now(), self.journal.path, _News(run, _waits(tables, run), owner))
            self._since = max(self._since, run.changed)
        return len(numbers) == _MANY


def _runs(tables: Tables, numbers: list[int]) -> list[Run]:
    sql = f"{tables.sql['run_select']}\n{tables.sql['runs_of']}"
    found = {row[0]: Run(*row) for row in tables.ask(sql, {"numbers": f"[{','.join(map(str, numbers))}]"})}
    return [found[no] for no in numbers]


def _waits(tables: Tables, run: Run) -> list[Wait]:
    if run.state != "suspended":
        return []
    return [Wait(*row) for row in tables.all("first_waits", run=run.no, limit=3)]


class _News(NamedTuple):
    """A run as it is now, for one line."""

    run: Run
    waits: list[Wait]
    owner: Worker | None
    facts: Facts | None = None
    """All of it, where one run is watched."""


def _tell(out: Out, now: int, path: str, news: _News) -> None:
    """One line, or one JSON document, of a run."""
    run, waits, owner, facts = news
    what = summary(run, waits, 2, liveness(path, owner), now)
    last = facts.entries[-1].key if facts is not None and facts.entries else None
    if out.json:
        document: dict[str, Any] = {
            "id": run.id,
            "workflow": run.workflow,
            "state": run.state,
            "reason": run.reason,
            "at": iso(now),
            "updated_at": iso(run.updated_at),
            "status": run.status,
            "progress": None if run.done is None else {"done": run.done, "total": run.total},
            "what": what,
        }
        if facts is not None:
            document |= {"entries": facts.entry_count, "last": last}
        out.document(document, lines=True)
        return
    progress = None if run.done is None else f"{run.done:,}/{run.total:,}"
    parts = (run.status, progress, what, last and f"last: {last}")
    out.line(f"{instant(now, now)}  {run.id}  ", state_part(run.state), *(f"  {part}" for part in parts if part))


def progress_bar(done: int | None, total: int | None, width: int, *, unicode: bool) -> str:
    """A bar of so many columns with its numbers; empty where a run set none."""
    if done is None or total is None:
        return ""
    filled = width if total <= 0 else min(max(done, 0) * width // total, width)
    full, rest = ("█", "░") if unicode else ("#", ".")
    percent = 100 if total <= 0 else min(max(done, 0) * 100 // total, 100)
    return f"{full * filled}{rest * (width - filled)} {done:,}/{total:,} {percent} %"


COMMANDS = {"watch": Command(_arguments, _run)}
