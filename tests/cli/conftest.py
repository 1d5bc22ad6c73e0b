"""Journals that the tests of the command line share: nobody changes them."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli import journals
from tests.cli.stand import Stand


@pytest.fixture(scope="session", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands by the hundred: their modules are compiled once, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("compiled")))
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with a run in each state, alone in its folder."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    journals.every_state(path)
    return path


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    """A folder with an application that has not run yet."""
    return Stand(tmp_path)


@pytest.fixture(scope="session")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an application that was killed in the middle of its first order, with a second one begun."""
    stand = Stand(tmp_path_factory.mktemp("crash"))
    (stand.folder / "die").touch()
    assert stand.script("order", "order-1,order-2", "teapot") == -signal.SIGKILL
    return stand.folder


@pytest.fixture
def crashed(tmp_path: Path, crash: Path) -> Stand:
    """The same for one test alone."""
    shutil.copytree(crash, tmp_path, dirs_exist_ok=True)
    return Stand(tmp_path)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal in which each text is out to harm whoever looks."""
    path = tmp_path_factory.mktemp("hostile") / "hostile.db"
    journals.hostile(path)
    return path
