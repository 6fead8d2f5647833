"""Writing TensorDicts as torch.save pickles them in version 0.1 of tensordict, without the package.

tensordict itself loads them, of all versions: the class goes by a name that later ones keep.
"""

from __future__ import annotations

import pickle
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

TENSORDICT = ("tensordict.tensordict", "TensorDict")


_PythonPickler: Any = vars(pickle)["_Pickler"]  # whose parts can be replaced, unlike those of the one in C


class _TensorDict:
    """What is pickled under TensorDict's name."""


def _named(module: str, name: str) -> types.SimpleNamespace:
    """A module like `pickle`, whose pickler writes the class above under another name."""

    class Pickler(_PythonPickler):
        def save_global(self, obj: object, name_of: str | None = None) -> None:
            if obj is not _TensorDict:
                super().save_global(obj, name_of)
                return
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
            self.memoize(obj)

    return types.SimpleNamespace(Pickler=Pickler, dump=pickle.dump, __name__="pickle")


def save_tensordict(
    path: Path, arrays: Mapping[str, np.ndarray], zipped: bool = True, named: tuple[str, str] = TENSORDICT
) -> None:
    """Save arrays [N, T+1, …] as a TensorDict of batch size [N, T+1].

    Args:
        path: the file.
        arrays: by key.
        zipped: in the zip format that torch writes since 1.6, else in the one before.
        named: module and name of the class.
    """
    chunk: Any = _TensorDict()
    chunk._tensordict = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays.items()}
    chunk._batch_size = torch.Size(next(iter(arrays.values())).shape[:2])
    chunk._is_shared = chunk._is_memmap = chunk._is_locked = False
    chunk._device = chunk._names = None
    torch.save(chunk, path, pickle_module=_named(*named), _use_new_zipfile_serialization=zipped)
