"""Which journal, and whose code: by option, by environment, by pyproject.toml."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ._light import NamedTuple
from ._trouble import Trouble

__all__ = ["Setting", "find_app", "find_db"]

_TABLE = "[tool.durable_sqlite]"


class Setting(NamedTuple):
    """A value, and where it was found."""

    value: str
    source: str
    folder: str = ""
    """Of the pyproject.toml that it stands in; empty where it was given otherwise."""


def find_db(given: str | None, environment: Mapping[str, str], folder: str) -> Setting:
    """The journal's path.

    Args:
        given: What was given as `--db`.
        environment: The environment variables.
        folder: The working directory: pyproject.toml is looked for there and above.

    Raises:
        Trouble: Nothing names a journal, or the pyproject.toml that does cannot be read.
    """
    found = _find("db", given, environment, folder)
    if found is None:
        raise Trouble(
            "nothing says which journal is meant",
            "name its file with --db FILE, or set DURABLE_SQLITE_DB,",
            f'or write into pyproject.toml here or above:  {_TABLE}  db = "runs.db"',
        )
    if found.folder:
        return found._replace(value=os.path.join(found.folder, found.value))  # noqa: PTH118 - pathlib takes longer than the rest
    return found


def find_app(given: str | None, environment: Mapping[str, str], folder: str) -> Setting | None:
    """The module of the application, as `module` or `module:attribute`; None where nothing names one.

    A module that pyproject.toml names is imported with that file's folder on the path.
    """
    return _find("app", given, environment, folder)


def _find(name: str, given: str | None, environment: Mapping[str, str], folder: str) -> Setting | None:
    if given is not None:
        return Setting(given, f"--{name}")
    variable = f"DURABLE_SQLITE_{name.upper()}"
    if environment.get(variable):
        return Setting(environment[variable], variable)
    return _in_pyproject(name, folder)


def _in_pyproject(name: str, folder: str) -> Setting | None:
    """From the nearest pyproject.toml with our table, here or above."""
    while True:
        path = os.path.join(folder, "pyproject.toml")  # noqa: PTH118
        table = _table_of(path) if os.path.isfile(path) else None  # noqa: PTH113
        if table is not None:
            value = table.get(name)
            if value is None:
                return None
            if not isinstance(value, str) or not value:
                raise Trouble(f"{path}: `{name}` in {_TABLE} is {value!r}", "it takes a text")
            return Setting(value, path, folder)
        above = os.path.dirname(folder)  # noqa: PTH120
        if above == folder:
            return None
        folder = above


def _table_of(path: str) -> Mapping[str, object] | None:
    import tomllib  # noqa: PLC0415 - most often an option or the environment has said it

    try:
        with open(path, "rb") as file:  # noqa: PTH123
            document = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Trouble(f"{path} is no TOML ({error})", "mend it, or name the journal with --db FILE") from None
    except OSError:  # whoever runs us may not read it: it is not theirs
        return None
    table = document.get("tool", {}).get("durable_sqlite")
    if table is None:
        return None
    if not isinstance(table, dict):
        raise Trouble(f"{path}: `tool.durable_sqlite` is {table!r}", "it is a table")
    return table  # pyright: ignore[reportUnknownVariableType] - TOML's keys are texts
