"""Paths as users write them, and where the shipped configs live, in a checkout and in an installed wheel."""

from __future__ import annotations

import argparse
import os
import re
import zlib
from pathlib import Path
from urllib.parse import quote

from lit_pwm.errors import LitPWMError, did_you_mean

_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+(?:::|://))+")
_LONGEST_NAME = 180
_HOME = Path(__file__).resolve().parent.parent


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with `~` as the user's home folder, as a shell would read it.

    Raises:
        LitPWMError: it is no text or empty, no file can have such a name, or `~` names a user that there is not.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str):
        raise LitPWMError(f"The path {path!r} is {type(path).__name__}, and should be text or a pathlib.Path.")
    if not text or "\0" in text:
        raise LitPWMError(
            f"The path {text!r} {'holds a NUL character' if text else 'is empty'}. Name a file or a folder."
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LitPWMError(
            f"The path {text!a} is no text: it holds the lone surrogate {text[error.start]!a}, or bytes that are "
            f"no UTF-8. Rename the file or folder."
        ) from error
    found = os.path.expanduser(text)
    if found == text and text.startswith("~") and not os.path.lexists(text):
        raise LitPWMError(
            f"The path {text!r} begins with the home folder of a user that there is not. Write {f'./{text}'!r} for a "
            f"file of that name."
        )
    return Path(found)


def file_name(name: str) -> str:
    """Any name, such as a task's (`gym:Hopper-v5`), as that of a file in a folder of any file system.

    Letters, digits and `-_.` stay; other signs are escaped as in URLs (`gym%3AHopper-v5`), so that different names are
    different files. One too long for a file is cut, and ends with a checksum.
    """
    escaped = quote(name, safe="", errors="surrogatepass")
    escaped = re.sub(r"^\.|\.$", "%2E", escaped) or "%"
    if len(escaped) <= _LONGEST_NAME:
        return escaped
    return f"{escaped[:_LONGEST_NAME]}%{zlib.crc32(escaped.encode()):08x}"


def absolute(path: str | os.PathLike[str]) -> Path:
    """As `expanded`, from the root of the file system: it means the same wherever the process goes later.

    Symbolic links in it stay, so that messages show what was given.

    Raises:
        LitPWMError: as `expanded`.
    """
    return expanded(path).absolute()


def holds_current(folder: Path) -> bool:
    """Whether a folder is this process's current one or above it: to delete it is to take it away from a shell."""
    try:
        return Path.cwd().is_relative_to(folder.resolve())
    except OSError:  # it has been deleted already
        return False


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL as fsspec writes them, such as `hf://ORG/REPO/FILE` or `simplecache::s3://BUCKET/FILE`."""
    return isinstance(path, str) and _URL.match(path) is not None


def located(path: str | os.PathLike[str]) -> str:
    """`absolute` of a path, as text; a URL as it is.

    Raises:
        LitPWMError: as `expanded`.
    """
    return path if isinstance(path, str) and is_url(path) else str(absolute(path))


def checkpoint_argument(text: str) -> str:
    """What argparse's `type` takes for a checkpoint: a path, as `path_argument`, or a URL."""
    return text if is_url(text) else path_argument(text)


def path_argument(text: str) -> str:
    """What argparse's `type` takes for a path on this machine: `expanded`, as text."""
    if is_url(text):
        raise argparse.ArgumentTypeError(f"{text!r} is a URL, and a path on this machine is needed here")
    try:
        return str(expanded(text))
    except LitPWMError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error


def config_root() -> Path:
    """The folder of shipped configs: `configs/` beside `lit_pwm/` in a checkout, else the wheel's copy."""
    checkout = _HOME / "configs"
    return checkout if (checkout / "pretrain.yaml").is_file() else _HOME / "lit_pwm_configs"


def find_config(name: str) -> Path:
    """The file that a `--config` argument names, looked for here first and then among the shipped configs.

    Args:
        name: a path, or a shipped config written with or without the leading `configs/`.

    Raises:
        LitPWMError: no such file, here or among the shipped ones.
    """
    given = expanded(name)
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
