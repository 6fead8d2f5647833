"""The deterministic policy as one graph that runs without lit_pwm: observation and task id in, action out."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lit_pwm
from lit_pwm.checkpoints.exported_policy import DESCRIPTION_NAME, FORMATS, ExportedPolicy, require_format
from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.flow import Solver
from lit_pwm.models.policy import Policy
from lit_pwm.runtime.atomic import replacing

TOLERANCE = 1e-5
"""Largest difference of an exported policy's actions from the original's."""
OBSERVATIONS = 1000
"""Of each task that the policy was trained for, on which the actions of both are compared."""
_CHATTER = "torch.onnx._internal.exporter._registration"  # says that torchvision, which nothing here needs, is missing


class DeterministicPolicy(nn.Module):
    """What an exported file computes: standardisation, encoder, actor without noise, mask.

    Args:
        policy: whose networks these are; they are copied, in single precision on the CPU, and frozen.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        world_model = copy.copy(policy.world_model)  # without what acting does not need
        world_model._modules = {name: getattr(policy.world_model, name) for name in ("task_embedding", "encoder")}
        self.world_model, self.actor = copy.deepcopy(world_model), copy.deepcopy(policy.actor)
        self.float().cpu().eval().requires_grad_(False)

    def forward(self, obs: Tensor, task: Tensor) -> Tensor:
        """Padded observations [B, O] and task ids [B] → padded actions [B, A], zero where a task has no such entry."""
        return self.actor(self.world_model.encode(obs, task), task, deterministic=True)


def export_policy(
    policy: Policy, to: str, out: str | Path, tolerance: float = TOLERANCE, tasks: Sequence[str] | None = None
) -> tuple[ExportedPolicy, dict[str, float]]:
    """Write the deterministic policy to a file, once its actions have been found equal to the original's.

    The file takes `obs` [B, O] float32, zero-padded on the right to the world model's width, and `task` [B] int64, the
    place of each row's task in `task_names`; it gives `action` [B, A]. B is any number of rows. With it goes, as JSON
    under `lit_pwm.json` (extra files of torch.export, metadata of ONNX), which tasks there are and how wide each is.

    Args:
        policy: to be exported.
        to: `torch-export` or `onnx`.
        out: the file to write.
        tolerance: largest difference that an action may have, on 1,000 observations of each task, which are drawn from
            a normal distribution of the mean and deviation that the world model knows of them.
        tasks: where actions are compared; by default in those that the policy was trained for, or in all that it knows
            where that is not known.

    Returns:
        The written policy, and its largest difference by task.

    Raises:
        LitPWMError: there is no such format or its packages are missing, the policy decides by what it computes how
            often to evaluate a field (an adaptive solver), it cannot be traced, its actions differ, or the file cannot
            be written.
    """
    require_format(to)
    _require_fixed_steps(policy)
    with _quiet():
        program = _traced(policy)
        with replacing(out, "The exported policy") as beside:
            _WRITERS[to](program, beside, _description(policy))
            written = ExportedPolicy(beside, to)
            differences = differences_of(policy, written, tasks or policy.trained_tasks or policy.task_names)
            if (worst := max(differences, key=differences.__getitem__)) and not differences[worst] <= tolerance:
                raise LitPWMError(
                    f"The policy exported to {to} chooses other actions than the original: in {worst!r} they differ by "
                    f"up to {differences[worst]:.1e}, and {tolerance:g} is allowed, so {str(out)!r} was not written. "
                    f"Where that much is only rounding, as for a policy that amplifies it, allow it with --tolerance."
                )
    return written, differences


def differences_of(policy: Policy, exported: ExportedPolicy, tasks: Sequence[str], seed: int = 0) -> dict[str, float]:
    """Task → the largest difference of an action of both policies; see `export_policy`.

    Raises:
        LitPWMError: a task is none of the policy's.
    """
    found, model = {}, policy.world_model
    for task in tasks:
        if task not in policy.task_names:
            raise LitPWMError(f"The policy does not know the task {task!r}. {did_you_mean(task, policy.task_names)}")
        row, width = policy.task_names.index(task), model.tasks[task][0]
        mean, std = (values[row, :width].float().cpu() for values in (model.obs_mean, model.obs_std))
        drawn = torch.randn(OBSERVATIONS, width, generator=torch.Generator().manual_seed(seed + row))
        obs = (mean + std * drawn).numpy()
        found[task] = float(abs(exported.act(obs, task) - policy.act(obs, task)).max())
    return found


def _require_fixed_steps(policy: Policy) -> None:
    for name, part in (("actor", policy.actor), ("encoder", policy.world_model.encoder)):
        for module in part.modules():
            for value in vars(module).values():
                if isinstance(value, Solver) and value.evaluations is None:
                    raise LitPWMError(
                        f"The {name} of this policy, {type(part).__name__}, integrates with {type(value).__name__}, an "
                        f"adaptive solver, whose number of steps depends on what it computes: a graph has a fixed "
                        f"number. Export a policy that was trained with FixedStep, for example "
                        f"`--model.actor.solver FixedStep --model.actor.solver.substeps 4`."
                    )


def _traced(policy: Policy) -> torch.export.ExportedProgram:
    module = DeterministicPolicy(policy)
    batch = torch.export.Dim("batch")
    example = torch.zeros(2, policy.world_model.obs_dim), torch.zeros(2, dtype=torch.int64)
    try:
        return torch.export.export(module, example, dynamic_shapes={"obs": {0: batch}, "task": {0: batch}})
    except Exception as error:  # an actor or encoder of one's own fails in any way
        raise _cannot(f"traced by torch.export ({_first_line(error)})", policy) from error


def _cannot(what: str, policy: Policy) -> LitPWMError:
    parts = f"{type(policy.world_model.encoder).__name__} and {type(policy.actor).__name__}"
    return LitPWMError(
        f"The policy of {parts} cannot be {what}. Let their forward passes read no value on the host and branch on "
        f"none; --debug shows where it happens."
    )


def _first_line(error: Exception) -> str:
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _description(policy: Policy) -> str:
    model = policy.world_model
    return json.dumps(
        {
            "lit_pwm": lit_pwm.__version__,
            "task_names": list(policy.task_names),
            "trained_tasks": list(policy.trained_tasks),
            "tasks": {name: {"obs_dim": dims[0], "action_dim": dims[1]} for name, dims in model.tasks.items()},
            "obs_dim": model.obs_dim,
            "action_dim": model.action_dim,
        }
    )


def _write_torch(program: torch.export.ExportedProgram, path: Path, description: str) -> None:
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={DESCRIPTION_NAME: description})


def _write_onnx(program: torch.export.ExportedProgram, path: Path, description: str) -> None:
    names: dict[str, Any] = {"input_names": ["obs", "task"], "output_names": ["action"]}
    try:
        found = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)
    except Exception as error:  # an operation that ONNX does not have
        raise LitPWMError(
            f"The policy cannot be written as ONNX ({_first_line(error)}). Export it with --to torch-export; --debug "
            f"shows which operation is not translated."
        ) from error
    assert found is not None
    found.model.metadata_props[DESCRIPTION_NAME] = description
    found.save(str(path), external_data=False)


_WRITERS: dict[str, Callable[[torch.export.ExportedProgram, Path, str], None]] = {
    "torch-export": _write_torch,
    "onnx": _write_onnx,
}
assert set(_WRITERS) == set(FORMATS)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Without what torch's exporters say of themselves."""
    logger = logging.getLogger(_CHATTER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
