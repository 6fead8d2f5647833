"""Modules that a checkpoint may name classes of, and options of those classes that it may have had in vain.

A checkpoint is a file from elsewhere: what it names is never imported because it names it. The command line's
`--import MODULE` and `--ignore-options A,B` are kept in the environment, so that worker processes, the other ranks of a
distributed run and the cells of a sweep, which all inherit it, follow them too.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import ModuleType

from lit_pwm.errors import LitPWMError

IMPORTS = "LIT_PWM_IMPORT"
IGNORED_OPTIONS = "LIT_PWM_IGNORE_OPTIONS"
_OURS = "lit_pwm"
_DEEPEST = 50
"""Parts of a class's path, each of which may be a package to look for."""
_HOME = str(Path(__file__).resolve().parents[2])
_ignored: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar("ignored_options", default=frozenset())


@contextlib.contextmanager
def current_folder_importable() -> Generator[None, None, None]:
    """Within the block, modules in the current folder can be imported, after all others: they hide no package."""
    try:
        folder = os.getcwd()
    except OSError:  # it has been removed
        folder = ""
    # An editable installation is found after all of sys.path: its home goes before the folder.
    added = [place for place in (_HOME, folder) if place and place not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for place in added:
            with contextlib.suppress(ValueError):
                sys.path.remove(place)


def current_folder_as_here() -> dict[str, str]:
    """What to add to the environment of a `python -m lit_pwm` that finds modules where this process does.

    Python looks into the current folder first for `-m`, where folders called `callbacks` or `datamodules` would hide
    ours; the installed command does not, and neither do the commands that it starts.
    """
    try:
        first = os.path.realpath(sys.path[0] or os.curdir) if sys.path else ""
        return {} if first == os.path.realpath(os.curdir) else {"PYTHONSAFEPATH": "1"}
    except OSError:  # the current folder has been removed
        return {}


@contextlib.contextmanager
def importing(modules: Sequence[str], options: Iterable[str] = ()) -> Generator[None, None, None]:
    """Import modules and ignore options, here and in all processes that are started within the block.

    Raises:
        LitPWMError: a module cannot be imported.
    """
    before = {name: os.environ.get(name) for name in (IMPORTS, IGNORED_OPTIONS)}
    try:
        for name, added in ((IMPORTS, modules), (IGNORED_OPTIONS, options)):
            if named := [*_listed(name), *added]:
                os.environ[name] = ",".join(dict.fromkeys(named))
        import_named()
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def ignoring_options(options: Iterable[str]) -> Generator[None, None, None]:
    """Within the block, options of these names that a checkpoint holds and its class does not know are passed over."""
    token = _ignored.set(_ignored.get() | frozenset(options))
    try:
        yield
    finally:
        _ignored.reset(token)


def ignored_options() -> frozenset[str]:
    """The options that may be passed over."""
    return _ignored.get() | frozenset(_listed(IGNORED_OPTIONS))


def named_modules() -> tuple[str, ...]:
    """The modules named by `--import`, of this process or of the one that started it."""
    return tuple(_listed(IMPORTS))


def is_named(module: str) -> bool:
    """Whether `--import` names a module, or a package that holds it; what it names is imported first.

    Raises:
        LitPWMError: as `import_named`.
    """
    import_named()
    return any(module == name or module.startswith(f"{name}.") for name in named_modules())


def import_named() -> None:
    """Import the modules named by `--import`, of this process or of the one that started it.

    Raises:
        LitPWMError: one cannot be imported.
    """
    for name in named_modules():
        if name in sys.modules:
            continue
        missing = LitPWMError(
            f"The module {name!r} named by --import was not found. Name it as in Python, without folders and .py; run "
            f"from the folder that holds it, install it, or put its folder on PYTHONPATH."
        )
        if not all(part.isidentifier() for part in name.split(".")):
            raise missing
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise  # the module is there, and what it imports is not
            raise missing from error


def trusted_module(path: str) -> tuple[ModuleType, str] | None:
    """The module of a class's path and the rest of the path, where a checkpoint may name it; else None.

    That is a module of lit_pwm, one that has been imported already, or one named by `--import`.
    """
    import_named()
    parts = path.split(".")
    if len(parts) > _DEEPEST:
        return None
    for length in range(len(parts) - 1, 0, -1):
        name, rest = ".".join(parts[:length]), ".".join(parts[length:])
        if parts[0] == _OURS and name not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        if isinstance(found := sys.modules.get(name), ModuleType):  # None, where an import is blocked
            return found, rest
    return None


def _listed(variable: str) -> list[str]:
    return [name for name in os.environ.get(variable, "").split(",") if name]
