"""A folder with an application and its journal, for the commands that act."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.cli.support import Said, durable_sqlite, environment

__all__ = ["Stand"]


class Stand:
    """The folder, and what can be typed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(Path(__file__).with_name("shop.py"), folder / "shop.py")

    def script(self, *words: str) -> int:
        """Run the application as a script; its exit code."""
        return subprocess.run(
            [sys.executable, "shop.py", *words], cwd=self.folder, env=environment(), capture_output=True, check=False
        ).returncode

    def type(
        self, *words: str | Path, codes: tuple[int, ...] = (0,), by: tuple[str | Path, ...] = (), **variables: str
    ) -> Said:
        """Type a command about the journal."""
        env = {"DURABLE_SQLITE_DB": "runs.db", **variables}
        return durable_sqlite(*words, cwd=self.folder, env=env, codes=codes, by=by)

    def state(self, run: str) -> str:
        """How a run stands."""
        return str(self.type("show", run, "--json").data["state"])
