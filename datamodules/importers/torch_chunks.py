"""Reading TensorDicts that were pickled into torch files, without the package and without running what is in a file.

A pickle names the classes and functions that it is made of. `torch.load(weights_only=True)` refuses all but tensors and
plain values; the few names that TensorDicts of versions 0.1 to 0.15 are made of are given stand-ins here that keep what
they are handed and do nothing.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_pwm.errors import LitPWMError

if TYPE_CHECKING:
    import torch

_LOOKED_AT = 2**20
_ZIP, _LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."


class _TensorDict:
    """In place of a TensorDict: keeps its state."""

    def __new__(cls, *arguments: object, **named: object) -> _TensorDict:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        self.state = state


def _make_td(cls: type, state: object) -> _TensorDict:
    """In place of the function of version 0.15 that remakes one."""
    made = _TensorDict()
    made.state = state
    return made


_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_TensorDict, "tensordict.tensordict.TensorDict"),  # 0.1, 0.2
    (_TensorDict, "tensordict._td.TensorDict"),  # 0.3 and later
    (dict, "tensordict.utils._StringOnlyDict"),  # 0.3 and later
    (_make_td, "tensordict._reductions._make_td"),  # 0.15
]


def is_zip(path: Path) -> bool:
    """Whether a torch file is of the zip format, which can be mapped into memory.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(4) == _ZIP


def texts_in(path: Path) -> set[str]:
    """The texts of a torch file's pickle, without unpickling it; none where it is no torch file."""
    try:
        if is_zip(path):
            with zipfile.ZipFile(path) as archive:
                (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
                with archive.open(name) as pickled:
                    return _texts(pickled.read(_LOOKED_AT))
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT)
        if not start.startswith(_LEGACY):
            return set()
        found, stream = set(), io.BytesIO(start)
        for _ in range(4):  # a magic number, the protocol's version, the machine's properties, the object
            found |= _texts(stream)
        return found
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        return set()


def _texts(pickled: bytes | io.BytesIO) -> set[str]:
    """The texts of a pickle."""
    found: set[str] = set()
    try:
        for _, argument, _ in pickletools.genops(pickled):
            if isinstance(argument, str):
                found.add(argument)
    except Exception:  # what is no pickle, or is cut off, may be met with any
        return found
    return found


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickled TensorDict, by key: mapped from a zip file, in memory from a legacy one.

    Raises:
        LitPWMError: the file cannot be read, or holds something else, of which nothing has been run.
    """
    import torch

    try:
        with torch.serialization.safe_globals(_STAND_INS):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))
    except Exception as error:  # torch meets a damaged file with exceptions of any class
        what = _reason(error)
        raise LitPWMError(
            f"The file {str(path)!r} could not be read as a chunk of TD-MPC2's data: {what}. A chunk is a TensorDict "
            f"of tensors saved by torch.save; nothing in the file has been run. Copy it again from where it came from, "
            f"and do not load it by other means unless you trust who made it."
        ) from error
    content: Any = loaded
    if isinstance(loaded, _TensorDict):
        state = loaded.__dict__.get("state")
        content = state.get("_tensordict") if isinstance(state, Mapping) else None
    if not isinstance(content, dict):
        raise LitPWMError(
            f"The file {str(path)!r} holds {type(loaded).__name__.lstrip('_')} without tensors by name. A chunk of "
            f"TD-MPC2's data is a pickled TensorDict of obs, action, reward and task."
        )
    return {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}


def _reason(error: Exception) -> str:
    """Why torch did not load a file, without its advice to load it all the same."""
    said = " ".join(str(error).split()).rpartition("WeightsUnpickler error: ")[2]
    if found := re.search(r"GLOBAL ([\w.<>]+)", said):
        return f"it names {found[1]!r}, which is neither a tensor nor a part of a TensorDict"
    return f"{type(error).__name__}: {said.partition(' Please ')[0].partition(' Check the doc')[0][:200].rstrip('.')}"
