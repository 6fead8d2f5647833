"""An exported policy as one acts with it, for comparing it with the original."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lit_pwm.errors import LitPWMError, did_you_mean

DESCRIPTION_NAME = "lit_pwm.json"
FORMATS: dict[str, tuple[str, ...]] = {"torch-export": (), "onnx": ("onnx", "onnxscript", "onnxruntime")}
"""What a policy can be exported to, and the packages that this needs besides."""
_Computes = Callable[[np.ndarray, np.ndarray], np.ndarray]


def require_format(name: str) -> None:
    """Make sure that policies can be exported to a format.

    Raises:
        LitPWMError: there is none of this name, or packages that it needs are not installed.
    """
    if name not in FORMATS:
        raise LitPWMError(f"A policy cannot be exported to {name!r}. {did_you_mean(name, FORMATS)}")
    if missing := [package for package in FORMATS[name] if importlib.util.find_spec(package) is None]:
        raise LitPWMError(
            f"An export to {name} needs {', '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not "
            f"installed. Install the extra: pip install 'lit-pwm[{name}]'; or export with --to torch-export, which "
            f"needs nothing more."
        )


class ExportedPolicy:
    """A file that `lit_pwm.checkpoints.export_policy` wrote; it acts as `lit_pwm.models.Policy` does.

    Open only files of your own: torch.export's hold a graph of torch's operations, and are not checked as checkpoints
    are.

    Args:
        path: the file, which is read whole.
        to: its format.
    """

    def __init__(self, path: str | Path, to: str) -> None:
        require_format(to)
        self._compute, description = (_open_onnx if to == "onnx" else _open_torch)(Path(path).read_bytes())
        self._tasks: dict[str, dict[str, int]] = description["tasks"]
        self._obs_dim: int = description["obs_dim"]
        self.trained_tasks = tuple(description["trained_tasks"])

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks that it knows, in the order of task ids."""
        return tuple(self._tasks)

    def act(self, obs: np.ndarray, task: str, deterministic: bool = True) -> np.ndarray:
        """Actions without noise [B, action_dim of the task] for unpadded observations [B, obs_dim of the task]."""
        padded = np.zeros((len(obs), self._obs_dim), np.float32)
        padded[:, : self._tasks[task]["obs_dim"]] = obs
        ids = np.full(len(obs), self.task_names.index(task), np.int64)
        return self._compute(padded, ids)[:, : self._tasks[task]["action_dim"]]


def _open_torch(content: bytes) -> tuple[_Computes, dict[str, Any]]:
    extra = {DESCRIPTION_NAME: ""}
    module = torch.export.load(io.BytesIO(content), extra_files=extra).module()

    @torch.no_grad()
    def compute(obs: np.ndarray, task: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(obs), torch.from_numpy(task)).numpy()

    return compute, json.loads(extra[DESCRIPTION_NAME])


def _open_onnx(content: bytes) -> tuple[_Computes, dict[str, Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def compute(obs: np.ndarray, task: np.ndarray) -> np.ndarray:
        return session.run(None, {"obs": obs, "task": task})[0]

    return compute, json.loads(session.get_modelmeta().custom_metadata_map[DESCRIPTION_NAME])
