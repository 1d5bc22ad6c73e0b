"""Who waits for runs to change, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from ._records import RunRow

__all__ = ["Listeners"]


class Listeners:
    """Futures that are done once a run has changed; nobody is left behind who no longer listens."""

    def __init__(self) -> None:
        self._waiting: dict[str | None, list[asyncio.Future[RunRow | None]]] = {}
        """By the id of the run; under None, who listens for any."""

    def __len__(self) -> int:
        """How many listen."""
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def listening(self, run_id: str | None) -> Generator[asyncio.Future[RunRow | None]]:
        """A future that is done once this run has changed, or any where no id is given, from this moment on.

        It gives the run where that has completed here, so that nobody needs to look it up.
        """
        news: asyncio.Future[RunRow | None] = asyncio.get_running_loop().create_future()
        listeners = self._waiting.setdefault(run_id, [])
        listeners.append(news)
        try:
            yield news
        finally:
            listeners.remove(news)
            if news.done() and not news.cancelled():
                news.exception()  # whoever was busy with something else meanwhile has heard it there
            if not listeners and self._waiting.get(run_id) is listeners:
                del self._waiting[run_id]

    def tell(self, run_id: str | None, completed: RunRow | None = None) -> None:
        """A run has changed, and this is how it has completed; where no id is given, any may have changed."""
        told = list(self._waiting.values()) if run_id is None else [self._waiting.get(run_id), self._waiting.get(None)]
        for listeners in told:
            for news in listeners or ():
                if not news.done():
                    news.set_result(completed)

    def fail(self, error: Exception) -> None:
        """Nothing will change any more that could be heard of."""
        for listeners in self._waiting.values():
            for news in listeners:
                if not news.done():
                    news.set_exception(error)
