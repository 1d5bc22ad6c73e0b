"""The application's code: where it is, that it is the right one, and what it defines. Only commands that act load it."""

from __future__ import annotations

import ast
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from .._workflows import Workflow
from ..engine import Engine
from ._commands import Call
from ._trouble import Trouble

__all__ = ["Code", "at_origin", "load_app", "load_origin", "need_app"]

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - as tracebacks have it
_HOW = (
    'name your code with --app MODULE, set DURABLE_SQLITE_APP, or write  app = "MODULE"  beside `db` in pyproject.toml'
)
_CAUSES = 5


class Code(NamedTuple):
    """What an application defines."""

    workflows: dict[str, Workflow[..., Any]]
    engine: Engine | None
    """An engine of the application, whose options are used."""
    source: str
    """What was loaded, and because of what."""

    def workflow(self, name: str) -> Workflow[..., Any]:
        """The workflow of this name.

        Raises:
            Trouble: There is none; it lists those that there are.
        """
        found = self.workflows.get(name)
        if found is None:
            known = [f"  {each}" for each in sorted(self.workflows)] or ["  (none)"]
            raise Trouble(f"{self.source} defines no workflow {name!r}", "it knows these:", *known)
        return found


def load_app(call: Call) -> Code | None:
    """The application that an option, the environment or pyproject.toml names; None where nothing does.

    Raises:
        Trouble: It cannot be imported, or is none.
    """
    setting = call.app()
    if setting is None:
        return None
    name, _, attribute = setting.value.partition(":")
    if not all(part.isidentifier() for part in name.split(".")):
        raise Trouble(f"{setting.value!r} ({setting.source}) names no module", "write it as in `--app shop.flows`")
    _on_path(Path(setting.folder or os.getcwd()))  # noqa: PTH109
    source = f"{name} ({setting.source})"
    module = _import(call, name, source)
    if not attribute:
        return Code(_defined(sys.modules.values()), None, source)
    thing: Any = module
    for part in attribute.split("."):
        thing = getattr(thing, part, None)
    return _of_attribute(_made_by(thing, source), setting.value, source)


def need_app(call: Call) -> Code:
    """The same where a command cannot do without.

    Raises:
        Trouble: Nothing names one, or it cannot be imported.
    """
    code = load_app(call)
    if code is None:
        raise Trouble("nothing says where your code is", _HOW)
    return code


def load_origin(call: Call, workflow: str, origin: str) -> Code:
    """The code that a run says it was started from, if it is below the directory one stands in.

    Raises:
        Trouble: It is not, or it cannot be imported.
    """
    file, root = at_origin(workflow, origin)
    name = origin.partition(":")[0]
    _on_path(root)
    source = f"{_short(file)} (where the run was started from)"
    _is_this_one(name, root, file)
    _import(call, name, source)
    code = Code(_defined(sys.modules.values()), None, source)
    code.workflow(workflow)
    return code


def at_origin(workflow: str, origin: str) -> tuple[Path, Path]:
    """The file that defines a workflow, and the folder from which it is imported; nothing of it is run.

    Raises:
        Trouble: There is no such file below the working directory, or it does not define the workflow.
    """
    name, _, qualname = origin.partition(":")
    here = Path.cwd().resolve()
    parts = name.split(".")
    if not qualname or not all(part.isidentifier() for part in parts):
        raise Trouble(f"the run does not say where its workflow {workflow} is defined (it says {origin!r})", _HOW)
    for root in (here, here / "src"):
        base = root.joinpath(*parts)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if not file.is_file():
                continue
            if not file.resolve().is_relative_to(here):
                raise Trouble(f"{_short(file)} leads out of {here}, so it was not loaded", _HOW)
            if not _defines(file, workflow, qualname):
                raise Trouble(
                    f"{_short(file)} defines no `@workflow` {workflow} as {qualname}, so it was not loaded", _HOW
                )
            return file, root
    raise Trouble(
        f"workflow {workflow} was defined in {name}, which is not below {here}",
        "go to the directory that has it, or",
        _HOW,
    )


# Looking at a file without running it --------------------------------------------------------------------------------


def _defines(file: Path, workflow: str, qualname: str) -> bool:
    """Whether a file has this function, decorated as this workflow, by what can be read of it."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        told = traceback.format_exception_only(error) if isinstance(error, SyntaxError) else [str(error)]
        lines = [line.rstrip() for line in "".join(told).splitlines()]
        raise Trouble(f"{_short(file)} is no Python, so it was not loaded", *lines) from None
    names = _names_of_the_decorator(tree)
    body: list[ast.stmt] = tree.body
    *above, last = qualname.split(".")
    for outer in above:
        body = [part for each in body if isinstance(each, ast.ClassDef) and each.name == outer for part in each.body]
    return any(
        isinstance(each, ast.AsyncFunctionDef) and each.name == last and _is_decorated(each, workflow, names)
        for each in _with_branches(body)
    )


def _with_branches(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements, and those under `if` and `try`, but not what needs the program to be a script."""
    for each in body:
        yield each
        if isinstance(each, (ast.If, ast.Try)):
            yield from _with_branches([*each.body, *each.orelse])


def _names_of_the_decorator(tree: ast.Module) -> set[str]:
    """How this file can write `@workflow`."""
    names: set[str] = set()
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom) and each.module == "durable_sqlite":
            names |= {known.asname or known.name for known in each.names if known.name == "workflow"}
        elif isinstance(each, ast.Import):
            names |= {
                f"{known.asname or known.name}.workflow" for known in each.names if known.name == "durable_sqlite"
            }
    return names


def _is_decorated(function: ast.AsyncFunctionDef, workflow: str, names: set[str]) -> bool:
    for decorator in function.decorator_list:
        made = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(made) not in names:
            continue
        given = [each.value for each in getattr(decorator, "keywords", []) if each.arg == "name"]
        if not given:
            return function.name == workflow
        return isinstance(given[0], ast.Constant) and given[0].value in (workflow, None)
    return False


# Importing -----------------------------------------------------------------------------------------------------------


def _on_path(folder: Path) -> None:
    if str(folder) not in sys.path[:1]:
        sys.path.insert(0, str(folder))


def _is_this_one(name: str, root: Path, file: Path) -> None:
    """See that this name stands for this file here: something installed may have the same name."""
    top = name.partition(".")[0]
    other = sys.modules.get(top)
    spec = other.__spec__ if other is not None else find_spec(top)
    places = [] if spec is None else [*(spec.submodule_search_locations or []), spec.origin or ""]
    if not any(Path(place).is_relative_to(root) for place in places if place):
        raise Trouble(f"{_short(file)} cannot be imported as {name}: another module has the name {top}", _HOW)


def _import(call: Call, name: str, source: str) -> ModuleType:
    call.out.note(f"loads {source}")
    try:
        with redirect_stdout(sys.stderr):  # what it prints is not what was asked for
            return import_module(name)
    except KeyboardInterrupt:
        raise
    except SystemExit as end:
        raise Trouble(
            f"{source} ended the program while it was imported (exit code {end.code!r})",
            'put what it does as a script under  if __name__ == "__main__":',
        ) from None
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Trouble(
                f"there is no module {error.name} ({source})", f"modules are looked for in {sys.path[0]}"
            ) from None
        raise Trouble(f"{source} cannot be imported", *_told(error)) from None
    except BaseException as error:  # noqa: BLE001 - whatever an application does at import
        raise Trouble(f"{source} cannot be imported", *_told(error)) from None


def _told(error: BaseException) -> Iterator[str]:
    """Where an error of the application was raised, from its own file on, and what it is."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain and len(chain) < _CAUSES:
        chain.append(found)
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    for place, one in enumerate(reversed(chain)):
        if place:
            yield "and while that was handled, or because of it:"
        frames = traceback.extract_tb(one.__traceback__)
        first = next((n for n, frame in enumerate(frames) if not _is_machinery(frame.filename)), len(frames))
        kept = [frame for frame in frames[first:] if not frame.filename.startswith("<frozen importlib")]
        for text in (*traceback.format_list(kept), *traceback.format_exception_only(one)):
            yield from text.rstrip("\n").split("\n")


def _is_machinery(filename: str) -> bool:
    return filename.startswith((_OURS, "<frozen ")) or filename.endswith(os.path.join("importlib", "__init__.py"))  # noqa: PTH118


# What is defined -----------------------------------------------------------------------------------------------------


def _defined(modules: Iterable[ModuleType | None]) -> dict[str, Workflow[..., Any]]:
    """All workflows that stand in these modules. Those of ours are examples."""
    found: dict[str, Workflow[..., Any]] = {}
    for module in list(modules):
        if getattr(module, "__name__", "").split(".")[0] == "durable_sqlite":
            continue
        for thing in list(getattr(module, "__dict__", {}).values()):
            if isinstance(thing, Workflow):
                one: Workflow[..., Any] = thing  # pyright: ignore[reportUnknownVariableType]
                found.setdefault(one.name, one)
    return found


def _made_by(thing: Any, source: str) -> Any:
    """What a function of the application makes; anything else as it is."""
    if not callable(thing) or isinstance(thing, (Workflow, type)) or iscoroutinefunction(thing):
        return thing  # pyright: ignore[reportUnknownVariableType]
    try:
        with redirect_stdout(sys.stderr):
            return thing()
    except Exception as error:  # noqa: BLE001 - whatever an application does
        raise Trouble(f"{source} raised an error", *_told(error)) from None


def _of_attribute(made: Any, value: str, source: str) -> Code:
    if isinstance(made, Engine):
        return Code(_defined(sys.modules.values()), made, source)
    several: list[Any] = [made] if isinstance(made, Workflow) else []
    if isinstance(made, (list, tuple, set)):
        several = [*made]  # pyright: ignore[reportUnknownVariableType]
    if several and all(isinstance(each, Workflow) for each in several):
        return Code({each.name: each for each in several}, None, source)
    raise Trouble(
        f"{value} is {made!r:.100}, and no workflow, no list of workflows, no Engine and no function that makes one",
        _HOW,
    )


def _short(file: Path) -> str:
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)
