"""Why a run does not move, told from the journal alone: one paragraph, and what can be typed next."""

from __future__ import annotations

from collections.abc import Iterator

from ._commands import Call
from ._facts import Facts
from ._light import NamedTuple
from ._payload import error_of
from ._rows import Attempt, Wait
from ._text import cells, instant, length, plural, safe
from ._words import liveness, stands_still, wait_words

__all__ = ["Reasons", "explain", "tell"]

_NAMED = 3
"""Waits that are told of one by one."""
_VALUE = 200
"""Characters of a question."""

_REASONS = {
    "retries_exhausted": "a step failed on each of its attempts",
    "permanent": "a step failed, and said that to try again is of no use",
    "error": "its body raised an error",
    "deadline": "its deadline passed",
    "diverged": "its code asks for something else than what is recorded, so nothing more was done",
    "undecodable": "something that is recorded no longer fits its type in the code",
    "crash_loop": "the processes that drove it died one after the other without a new outcome",
    "ambiguous": "nobody knows whether an at-most-once step had its effect",
    "max_entries": "it has recorded as much as an engine allows for one run",
    "not_durable": "its body waits for something that no journal can give back",
    "damaged": "its rows do not fit their checksums",
}


class Reasons(NamedTuple):
    """Why a run does not move."""

    text: str
    """One paragraph."""
    commands: list[str]
    """What can be typed next, the most likely first."""


def explain(call: Call, facts: Facts, path: str) -> Reasons:
    """Why a run does not move."""
    return _Teller(call, facts, path).tell()


def tell(call: Call, reasons: Reasons) -> None:
    """Print it: the paragraph, then the commands, each in a line of its own."""
    for line in _wrapped(safe(reasons.text), min(call.out.width, 100)):
        call.out.line(line)
    if reasons.commands:
        call.out.line()
        for command in reasons.commands:
            call.out.line("  ", (command, "strong"))


def _wrapped(text: str, width: int) -> Iterator[str]:
    line, used = "", 0
    for word in text.split(" "):
        wide = cells(word)
        if line and used + 1 + wide > width:
            yield line
            line, used = word, wide
        else:
            line, used = (f"{line} {word}", used + 1 + wide) if line else (word, wide)
    yield line


class _Teller:
    """Tells of one run."""

    def __init__(self, call: Call, facts: Facts, path: str) -> None:
        self._call = call
        self._facts = facts
        self._run = facts.run
        self._now = call.now()
        self._path = path
        self._others = [(worker, liveness(path, worker)) for worker in facts.workers if worker.no != facts.run.owner]
        self._owner = liveness(path, facts.owner)
        self._commands: list[str] = []

    def tell(self) -> Reasons:
        """All of it."""
        run = self._run
        parts: list[str] = []
        told = {
            "pending": self._pending,
            "running": self._running,
            "suspended": self._suspended,
            "paused": self._paused,
            "completed": self._completed,
            "cancelled": self._cancelled,
            "failed": self._stopped,
            "parked": self._stopped,
        }.get(run.state)
        parts += [f"Run {run.id} of workflow {run.workflow} is {run.state}."] if told is None else told()
        if run.ended_at is None:
            parts += self._requests()
        return Reasons(" ".join(parts), list(dict.fromkeys(self._commands)))

    def _since(self, at: int) -> str:
        return f"since {instant(at, self._now)} ({length(self._now - at)})"

    def _ago(self, at: int) -> str:
        return f"at {instant(at, self._now)} ({length(self._now - at)} ago)"

    def _in(self, at: int) -> str:
        if at <= self._now:
            return f"{instant(at, self._now)}, which was {length(self._now - at)} ago"
        return f"{instant(at, self._now)} (in {length(at - self._now)})"

    def _when(self, at: int) -> str:
        return self._ago(at) if at <= self._now else f"at {self._in(at)}"

    def _head(self, what: str) -> str:
        return f"Run {self._run.id} of workflow {self._run.workflow} {what}"

    def _resume(self) -> None:
        self._commands.append(self._call.command("resume", self._run.id))

    # States ----------------------------------------------------------------------------------------------------------

    def _pending(self) -> list[str]:
        run = self._run
        parts = [self._head(f"could go on at once, and nobody drives it, {self._since(run.updated_at)}.")]
        parts += self._failures()
        if run.deaths:
            one = "The process that drove it died" if run.deaths == 1 else f"{run.deaths:,} processes in a row died"
            parts.append(f"{one} without a new outcome; after too many it is parked as a crash loop.")
        parts += self._nobody_or()
        self._resume()
        return parts

    def _nobody_or(self) -> list[str]:
        """Who could take the run up."""
        alive = [worker for worker, seen in self._others if seen.alive is not False]
        known = f"A worker that knows {self._run.workflow} ({self._run.origin or 'no origin is recorded'})"
        if not alive:
            return [f"No worker is open here. {known} takes it up, or you do:"]
        pids = ", ".join(str(worker.pid) for worker in alive[:_NAMED]) + (", …" if len(alive) > _NAMED else "")
        opened = "1 engine is" if len(alive) == 1 else f"{len(alive)} engines are"
        others = "if it does not, none of these drives such runs, and you can:"
        return [f"{opened} open here (process {pids}). {known} takes it up in a moment; {others}"]

    def _running(self) -> list[str]:
        run, owner = self._run, self._facts.owner
        if owner is None:
            return [self._head(f"is driven by worker {run.owner}, which is not enrolled: the journal is damaged.")]
        process = f"worker {owner.no} (process {owner.pid})"
        if self._owner.alive is False:
            self._resume()
            parts = [
                self._head(f"was driven by {process}, but {self._owner.words}."),
                "The next engine that opens the journal takes it up where its last commit left it, or you do:",
            ]
            return [parts[0], *self._progress(), *self._failures(), parts[1]]
        parts = [self._head(f"is driven by {process}: {self._owner.words}."), *self._lease(owner.lease)]
        still = stands_still(owner)
        if still:
            parts.append(
                f"But its event loop had stood still for {length(still)} when it last said so: it seems to hang in code "
                "that blocks."
            )
        parts += [*self._progress(), *self._failures()]
        if self._owner.alive:
            parts.append(
                f"Its steps in flight are known to that process alone. If it hangs, end process {owner.pid}: then the run "
                "is taken up elsewhere from its last commit."
            )
        return parts

    def _lease(self, lease: int) -> Iterator[str]:
        sign = self._facts.sign
        if sign is None:
            return
        if self._owner.alive:
            yield f"It renews a lease of {length(lease)}, and last wrote something {self._ago(sign)}."
            return
        end = (
            f"its lease of {length(lease)} {'ends' if sign + lease > self._now else 'ended'} {self._when(sign + lease)}"
        )
        yield f"It last wrote something {self._ago(sign)}, so {end}, by its own clock, and whatever it writes renews it."
        yield "An engine that is open here takes the run over once it has itself seen nothing of it for that long."

    def _progress(self) -> list[str]:
        facts = self._facts
        if facts.last_at is None:
            parts = [f"Nothing is recorded of it yet; it was started {self._ago(self._run.created_at)}."]
        else:
            last = facts.entries[-1] if facts.entries else None
            what = "" if last is None else f", {last.key},"
            many = plural(facts.entry_count, "outcome")
            parts = [f"It has recorded {many}, the last{what} {self._ago(facts.last_at)}."]
        done = {entry.key for entry in facts.entries}
        for intent in [each for each in facts.intents if each.key not in done][:_NAMED]:
            parts.append(f"The at-most-once step {intent.key} began {self._ago(intent.at)}.")
        if self._run.status:
            parts.append(f"It says of itself: {self._run.status}.")
        return parts

    def _suspended(self) -> list[str]:
        waits, count = self._facts.waits, self._facts.wait_count
        if not waits:
            self._resume()
            return [self._head("is suspended, and no wait of it is recorded.")]
        first = [self._wait(wait) for wait in waits[:_NAMED]]
        more = [f"and for {plural(count - len(first), 'other thing')}"] if count > len(first) else []
        parts = [self._head(f"waits for {'; for '.join([*first, *more])}.")]
        parts += self._failures({wait.key for wait in waits})
        for wait in waits[:_NAMED]:
            parts += self._unblock(wait)
        overdue = [wait.deadline_at for wait in waits if wait.deadline_at is not None and wait.deadline_at <= self._now]
        if overdue:
            parts.append(f"That time came {self._ago(min(overdue))}.")
            parts += self._nobody_or()
            self._resume()
        return parts

    def _wait(self, wait: Wait) -> str:
        until = "" if wait.deadline_at is None else f" until {self._in(wait.deadline_at)}"
        over = ", which has ended by now" if wait.over else ""
        return f"{wait_words(wait)} ({wait.key}){over}, {self._since(wait.since_at)}{until}"

    def _unblock(self, wait: Wait) -> Iterator[str]:
        run, call = self._run, self._call
        match wait.kind:
            case "question":
                asked = next((each for each in self._facts.questions if each.key == wait.key), None)
                if asked is None:
                    return
                error = error_of(asked.error, self._facts.codec)
                aside = "" if error is None else f" Its last answer did not fit and was set aside: {error.words}."
                yield f"It asks: {self._facts.payload(asked).text(_VALUE)}.{aside} An answer lets it go on:"
                same = [each for each in self._facts.questions if each.name == asked.name]
                key = ["--key", wait.key] if len(same) > 1 else []
                self._commands.append(call.command("answer", run.id, wait.name, *_example(asked.schema), *key))
            case "signal":
                yield f"A message {wait.name} lets it go on. This shows how one is sent:"
                self._commands.append(call.command("signal", run.id, wait.name))
            case "child" | "run":
                target = wait.target or ""
                child = next((each for each in self._facts.children if each.id == target), None)
                reason = f" ({child.reason})" if child is not None and child.reason else ""
                state = "" if child is None else f"; that one is {child.state}{reason}"
                yield f"It goes on once run {target} has ended{state}."
                self._commands.append(call.command("why", target))
            case _:
                if wait.deadline_at is not None and wait.deadline_at > self._now:
                    alive = any(seen.alive is not False for _, seen in self._others)
                    yield f"It goes on by itself then, while a worker is open{'' if alive else '; none is open here now'}."

    def _failures(self, keys: set[str] | None = None) -> Iterator[str]:
        """The last failed attempt of each step that is tried again."""
        trying = self._facts.trying
        for failed in [trying[key] for key in trying if keys is None or key in keys][:_NAMED]:
            last: Attempt = failed[-1]
            error = error_of(last.error, self._facts.codec)
            words = "" if error is None else f" with {error.words}"
            again = "" if last.next_at is None else f"; attempt {last.number + 1} may begin {self._in(last.next_at)}"
            yield f"Attempt {last.number} of {last.key} failed {self._ago(last.ended_at)}{words}{again}."

    def _paused(self) -> list[str]:
        self._resume()
        waits = self._facts.waits
        first = f" It would wait for {'; for '.join(map(self._wait, waits[:_NAMED]))}." if waits else ""
        return [self._head(f"is paused{self._by()}, {self._since(self._run.pause_at or 0)}.{first} It goes on with:")]

    def _by(self) -> str:
        run = self._run
        by = f" by {run.pause_by}" if run.pause_by else ""
        return f"{by} ({run.pause_reason})" if run.pause_reason else by

    def _completed(self) -> list[str]:
        run = self._run
        ended = run.ended_at or run.updated_at
        took = length(ended - run.created_at)
        return [self._head(f"has completed {self._ago(ended)}, after {took}: it has no need to move.")]

    def _cancelled(self) -> list[str]:
        run = self._run
        by = f" by {run.cancel_by}" if run.cancel_by else ""
        why = f" ({run.reason})" if run.reason else ""
        return [self._head(f"was cancelled{by}{why}, and ended {self._ago(run.ended_at or 0)}. That is final.")]

    def _stopped(self) -> list[str]:
        run, error = self._run, self._facts.error
        reason = _REASONS.get(run.reason, run.reason or "no reason is recorded")
        failed, at = run.state == "failed", run.ended_at or run.updated_at
        what = f"failed {self._ago(at)}" if failed else f"is parked {self._since(at)}, and no engine goes on with it"
        parts = [self._head(f"{what}, because {reason} ({run.reason}).")]
        if error is not None:
            attempts = f", after {plural(error.attempts, 'attempt')}" if error.attempts > 1 else ""
            parts.append(f"The error is {error.words}{attempts}.")
            cause = error.cause
            if cause is not None and cause.words not in error.words:
                parts.append(f"It comes from {cause.words}.")
        if run.discarded_at is not None:
            parts.append(f"It was marked as seen to {self._ago(run.discarded_at)}.")
        open_children = [child for child in self._facts.children if child.state in ("failed", "parked")]
        for child in open_children[:_NAMED]:
            parts.append(f"Its child run {child.id} is {child.state} ({child.reason}).")
            self._commands.append(self._call.command("why", child.id))
        keys = _keys(run.failed_keys)
        again = f", and tries {', '.join(keys[:_NAMED])} again with a fresh budget" if keys else ""
        parts.append(f"Once the cause is mended, this goes on with what is recorded{again}:")
        self._commands.insert(0, self._call.command("resume", run.id))
        return parts

    def _requests(self) -> Iterator[str]:
        run = self._run
        if run.cancel_at is not None:
            by = f" by {run.cancel_by}" if run.cancel_by else ""
            why = f" ({run.cancel_reason})" if run.cancel_reason else ""
            yield f"It was asked to end{by}{why} {self._ago(run.cancel_at)}, and its clean-up has not ended yet."
        if run.pause_at is not None and run.state != "paused":
            yield f"It is to be paused{self._by()} once what is in flight has ended."
        if run.deadline_at is not None:
            yield f"Its deadline is {self._in(run.deadline_at)}."


def _example(schema: str) -> list[str]:
    """An answer as it is typed; nothing where none is known: without one the command shows the question."""
    from ._sample import sample  # noqa: PLC0415 - for a question alone

    found = sample(schema)
    return [] if found is None else [found]


def _keys(stored: str) -> list[str]:
    import json  # noqa: PLC0415

    try:
        return [str(key) for key in json.loads(stored) if key != "~cancel"]
    except (ValueError, TypeError, RecursionError):
        return []
