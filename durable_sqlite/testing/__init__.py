"""What helps people to test their own workflows. Nothing is imported before somebody asks for it."""

TYPE_CHECKING = False

if TYPE_CHECKING:
    from .._check import Difference, DifferenceKind, ReplayReport, UnknownWorkflow, check_replay
    from ._plans import Crash, Fail
    from ._schedules import Schedules, schedules

__all__ = [
    "Crash",
    "Difference",
    "DifferenceKind",
    "Fail",
    "ReplayReport",
    "Schedules",
    "UnknownWorkflow",
    "check_replay",
    "schedules",
]

# Where each of them is defined, one name a line.
_HOMES = {
    "Crash": "._plans",
    "Difference": ".._check",
    "DifferenceKind": ".._check",
    "Fail": "._plans",
    "ReplayReport": ".._check",
    "Schedules": "._schedules",
    "UnknownWorkflow": ".._check",
    "check_replay": ".._check",
    "schedules": "._schedules",
}

if not TYPE_CHECKING:  # a checker reads the imports above, and knows of no other name

    def __getattr__(name: str) -> object:
        """Import what is asked for, once."""
        from importlib import import_module  # noqa: PLC0415

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_HOMES[name], __name__), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


del TYPE_CHECKING
