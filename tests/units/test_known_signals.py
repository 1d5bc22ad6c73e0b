"""Signals and suspend points that imported modules define, found by their names."""

from __future__ import annotations

from durable_sqlite import Signal, Suspend
from durable_sqlite._signals import known_names, known_point, known_signal


class Known(Signal, name="known-signal"):
    pass


class Asked(Suspend[int], name="known-point"):
    pass


def test_what_a_module_defines_is_found_by_its_stored_name_and_kind() -> None:
    signal, point = known_signal("known-signal"), known_point("known-point")
    assert signal is not None
    assert point is not None
    assert (signal.name, point.name) == ("known-signal", "known-point")
    assert known_signal("known-point") is None
    assert known_point("known-signal") is None


def test_all_names_of_a_kind_are_listed() -> None:
    assert "known-signal" in known_names("signal")
    assert "known-point" in known_names("suspend point")
    assert "known-point" not in known_names("signal")
