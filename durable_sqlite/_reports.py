"""What a body says of itself, for people who look at its run."""

from __future__ import annotations

from ._context import Body, BodyScope, StepScope, scope
from ._ids import check_text
from .errors import UsageError

__all__ = ["set_progress", "set_status"]


def set_status(text: str | None) -> None:
    """Show people what the run is at, in a text of at most 1,000 characters; None shows nothing.

    It is queued for the journal and not waited for. A body that replays says nothing new. Outside a run it does nothing.

    Raises:
        UsageError: It is no text, or too long; or the caller is a step.
    """
    check_text("set_status()", text)
    here = _body("set_status()")
    if here is not None:
        here.report_status(text)


def set_progress(done: int, total: int) -> None:
    """Show people how far the run has come: `done` of `total`, whatever is counted.

    It is queued for the journal and not waited for. A body that replays says nothing new. Outside a run it does nothing.

    Raises:
        UsageError: The numbers are not whole, or not `0 <= done <= total`; or the caller is a step.
    """
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (done, total))
    if not whole or not 0 <= done <= total < 2**63:
        raise UsageError(f"set_progress() takes whole numbers with 0 <= done <= total, not {done!r} and {total!r}")
    here = _body("set_progress()")
    if here is not None:
        here.report_progress(done, total)


def _body(what: str) -> Body | None:
    match scope.get():
        case BodyScope(here):
            return here
        case StepScope(step):
            raise UsageError(f"run {step.run_id}, step {step.key}: {what} belongs in the body of the workflow")
        case _:
            return None
