"""The pytest plugin: the fixture `durable`. Loading it imports neither the engine nor pydantic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from ._harness import Harness

__all__ = ["durable", "pytest_configure"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, for those who run with `--strict-markers`."""
    config.addinivalue_line(
        "markers", "durable(**options): options of `harness()` for the fixture `durable` of this test"
    )


@pytest.fixture
def durable(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """An engine on a journal of its own, on a clock that the test moves.

    `@pytest.mark.durable(...)` gives it the options of `harness()`; `file=True` puts the journal into a temporary file.
    """
    from ._harness import harness  # noqa: PLC0415 - most tests of most programs do not ask for it

    node = cast(pytest.Item, request.node)  # pyright: ignore[reportUnknownMemberType] - pytest leaves it open
    marker = node.get_closest_marker("durable")
    if marker is not None and marker.args:
        raise pytest.UsageError(f"{node.nodeid}: @pytest.mark.durable takes options by name, as harness() does")
    options: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    if options.pop("file", False):
        options["path"] = request.getfixturevalue("tmp_path") / "journal.db"
    with harness(**options) as opened:
        yield opened
