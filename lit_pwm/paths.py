"""Paths: what a user gives, and where the shipped configs live, in a checkout and in an installed wheel."""

from __future__ import annotations

import os
from pathlib import Path

from lit_pwm.errors import LitPWMError, did_you_mean

_HOME = Path(__file__).resolve().parent.parent


def config_root() -> Path:
    """The folder of shipped configs: `configs/` beside `lit_pwm/` in a checkout, else the wheel's copy."""
    checkout = _HOME / "configs"
    return checkout if (checkout / "pretrain.yaml").is_file() else _HOME / "lit_pwm_configs"


def absolute(path: str | os.PathLike[str]) -> Path:
    """A path that means the same wherever the process goes later: absolute, with `~` for the home folder written out.

    Symbolic links in it stay, so that messages show what was given.
    """
    return Path(os.path.abspath(os.path.expanduser(path)))


def find_config(name: str) -> Path:
    """The file that a `--config` argument names, looked for here first and then among the shipped configs.

    Args:
        name: a path, or a shipped config written with or without the leading `configs/`.

    Raises:
        LitPWMError: no such file, here or among the shipped ones.
    """
    given = Path(name).expanduser()
    if given.is_file():
        return given
    root = config_root()
    shipped = root / Path(*[part for i, part in enumerate(given.parts) if i or part != "configs"])
    if not given.is_absolute() and shipped.is_file():
        return shipped
    names = sorted(f"configs/{path.relative_to(root)}" for path in root.rglob("*.yaml"))
    raise LitPWMError(
        f"The config file {name!r} was found neither from the folder {str(Path.cwd())!r} nor among the configs that "
        f"come with lit_pwm. {did_you_mean(name, names, shown=20)}"
    )


def check_siblings() -> None:
    """Make sure that `callbacks` and `datamodules` are ours and not same-named packages of the working directory.

    Raises:
        LitPWMError: one of them would be imported from elsewhere.
    """
    import importlib.util

    for name in ("callbacks", "datamodules"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != _HOME / name:
            raise LitPWMError(
                f"The package {name!r} that belongs to lit_pwm should lie in {str(_HOME / name)!r}, but Python finds "
                f"{str(found) if found else 'none'!r}. Another folder of that name comes first on the import path: "
                f"run the command `lit-pwm` instead of `python -m lit_pwm`, or start it from another directory."
            )
