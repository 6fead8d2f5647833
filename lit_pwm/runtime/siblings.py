"""The packages `callbacks` and `datamodules`, whose names others use too: that they are lit_pwm's, and whose if not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from lit_pwm.errors import LitPWMError

NAMES = ("callbacks", "datamodules")
_DISTRIBUTION = "lit-pwm"
_REINSTALL = f"pip install --force-reinstall --no-deps {_DISTRIBUTION}"
_HOME = Path(__file__).resolve().parents[2]


def check_siblings() -> None:
    """Make sure that `callbacks` and `datamodules` are lit_pwm's own.

    Raises:
        LitPWMError: a folder or another distribution hides one of them, or has overwritten it; the message names it.
            Or files of them are gone.
    """
    for name in NAMES:
        spec = importlib.util.find_spec(name)
        places = [spec.origin] if spec and spec.origin else list(spec.submodule_search_locations or ()) if spec else []
        found = Path(places[0]) if places else None
        folder = found.parent if found and found.suffix == ".py" else found
        if folder is None or folder.resolve() != _HOME / name:
            raise LitPWMError(_hidden(name, folder))
    changed = _changed_files()
    if overwritten := _shipped_too(changed):
        raise LitPWMError(_overwritten(overwritten))
    gone = [str(file) for file in changed if not Path(str(file.locate())).is_file()]
    gone += [f"{name}/__init__.py" for name in NAMES if not (_HOME / name / "__init__.py").is_file()]
    if gone:
        raise LitPWMError(
            f"The file {gone[0]!r} of lit_pwm is not there in {str(_HOME)!r}. Uninstalling another distribution that "
            f"ships packages of the same names removes it. Install lit_pwm again: {_REINSTALL}."
        )


def _hidden(name: str, folder: Path | None) -> str:
    ours = f"The package {name!r} that belongs to lit_pwm should lie in {str(_HOME / name)!r}"
    if folder is None:
        return f"{ours}, and is not there. Install lit_pwm again: {_REINSTALL}."
    others = [other for other in _shipped_by(name) if _contains(other, folder)]
    if others:
        return (
            f"{ours}, but Python finds that of the distribution {others[0]!r} in {str(folder)!r} first. They cannot "
            f"be used in one environment: give lit_pwm its own, or uninstall the other: pip uninstall {others[0]}."
        )
    return (
        f"{ours}, but Python finds {str(folder)!r}. Another folder of that name comes first on the import path: run "
        f"the command `lit-pwm` instead of `python -m lit_pwm`, start it from another directory, or rename that folder."
    )


def _overwritten(files: dict[str, str]) -> str:
    file, other = next(iter(files.items()))
    return (
        f"The distribution {other!r} ships packages of the same names as lit_pwm and has overwritten {file!r} of it in "
        f"{str(_HOME)!r}. The two cannot be used in one environment: give lit_pwm one of its own, or restore it "
        f"without the other: pip uninstall {other}, then {_REINSTALL}."
    )


def _shipped_by(name: str) -> list[str]:
    """The other installed distributions that ship a top-level package of this name."""
    shipped = importlib.metadata.packages_distributions().get(name, ())
    return [other for other in dict.fromkeys(shipped) if _normal(other) != _DISTRIBUTION]


def _contains(distribution: str, folder: Path) -> bool:
    files = importlib.metadata.files(distribution) or ()
    return any(Path(str(file.locate())).resolve().parent == folder.resolve() for file in files)


def _changed_files() -> list[importlib.metadata.PackagePath]:
    """Files of ours that are not as they were installed."""
    try:
        own = importlib.metadata.files(_DISTRIBUTION) or ()
    except importlib.metadata.PackageNotFoundError:
        return []  # used from a checkout
    return [file for file in own if file.parts[0] in NAMES and file.suffix == ".py" and _is_changed(file)]


def _shipped_too(changed: list[importlib.metadata.PackagePath]) -> dict[str, str]:
    """Those files that another distribution ships too, with its name."""
    if not changed:
        return {}
    others = {other for name in NAMES for other in _shipped_by(name)}
    shipped = {str(file): other for other in others for file in importlib.metadata.files(other) or ()}
    return {str(file): shipped[str(file)] for file in changed if str(file) in shipped}


def _is_changed(file: importlib.metadata.PackagePath) -> bool:
    """Whether the file has another size than its distribution recorded: quick, as this runs at each start."""
    place = Path(str(file.locate()))
    if place.parent.parent.resolve() != _HOME or file.size is None:
        return False
    return not place.is_file() or place.stat().st_size != file.size


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
