"""Tests of durable workflows: a clock that a test moves, a process that it kills, and all the places to kill it at.

The pytest fixture `durable` gives a `Harness`; `harness()` makes one anywhere else. Importing this imports nothing more.
"""

TYPE_CHECKING = False  # as in the package's own door: nothing is imported before somebody asks for it

if TYPE_CHECKING:
    from ._explore import CrashFound, Explored
    from ._faults import Crashed, Effects, StepCalled
    from ._harness import Harness, Stuck, harness

__all__ = ["CrashFound", "Crashed", "Effects", "Explored", "Harness", "StepCalled", "Stuck", "harness"]

_HOMES = {
    "_explore": "CrashFound Explored",
    "_faults": "Crashed Effects StepCalled",
    "_harness": "Harness Stuck harness",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what is asked for, once."""
        from importlib import import_module  # noqa: PLC0415

        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


del TYPE_CHECKING
