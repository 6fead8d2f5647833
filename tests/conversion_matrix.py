"""The table of conversions in docs/checkpoints.md: from each format to each, with the largest difference of outputs.

Run as a script, it writes the table; a test holds the page to it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from foreign_files import current_file, original_file, world_model_weights

from lit_pwm.checkpoints import DESCRIPTION_KEY, convert, describe_world_model, load_world_model
from lit_pwm.checkpoints.formats.format_registry import FORMATS
from lit_pwm.errors import LitPWMError
from lit_pwm.models import FlowDynamics, MLPDynamics, MLPEncoder, TwoHotReward, WorldModel

REFUSED = "–"
THREE = ["walker-walk", "cup-catch", "cheetah-run"]
TASKS = {"walker-walk": (24, 6), "walker-run": (24, 6)}
SHARED = torch.linspace(-2, 2, 24).tolist(), torch.linspace(0.4, 3, 24).tolist()


def own_model(dynamics: Any = MLPDynamics, **options: Any) -> WorldModel:
    """A small world model of ours."""
    torch.manual_seed(0)
    encoder, reward = partial(MLPEncoder, hidden_dim=20), partial(TwoHotReward, hidden_dim=24)
    model = WorldModel(TASKS, partial(dynamics, hidden_dim=24, **options), 16, 4, encoder, reward)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.2 * torch.randn_like(value))
    return model


def native(model: WorldModel) -> dict[str, Any]:
    """A checkpoint that holds nothing else."""
    state = {f"world_model.{key}": value for key, value in model.state_dict().items()}
    return {"state_dict": state, DESCRIPTION_KEY: describe_world_model(model)}


def standardising(statistics: dict[str, Any]) -> WorldModel:
    """A model of ours with observation statistics."""
    model = own_model()
    model.set_observation_statistics(statistics)
    return model


PWM_FILES = Path(__file__).parent / "formats" / "pwm_files"
SOURCES: dict[str, Callable[[], Any] | Path] = {
    "native, MLP": lambda: native(own_model()),
    "native, shared statistics": lambda: native(standardising(dict.fromkeys(TASKS, SHARED))),
    "native, statistics of each task": lambda: native(standardising({"walker-run": SHARED})),
    "native, flow": lambda: native(own_model(FlowDynamics)),
    "tdmpc2-original": lambda: original_file(world_model_weights(2)),
    "tdmpc2": lambda: current_file(world_model_weights(2)),
    "pwm-model": lambda: {"model": world_model_weights(2)},
    "pwm-module": lambda: {"model": world_model_weights(2, state="")},
    "pwm": PWM_FILES / "pwm_training.pt",
    "flow-mbpo": PWM_FILES / "flow_mbpo_training.pt",
    "flow-mbpo, flow": PWM_FILES / "flow_mbpo_flow_training.pt",
    "state-dict": lambda: own_model(rescale_inputs=False).state_dict(),
}
"""What each row starts from."""
NAMES = {"pwm": THREE, "flow-mbpo": THREE, "flow-mbpo, flow": THREE}


def outputs(model: WorldModel) -> list[torch.Tensor]:
    """Latents, rewards and reward logits of a rollout of 5 steps, of 256 states."""
    generator = torch.Generator().manual_seed(5)
    task = torch.randint(len(model.tasks), (256,), generator=generator)
    obs = 2 * torch.randn(256, model.obs_dim, generator=generator)
    actions = torch.rand(5, 256, model.action_dim, generator=generator) * 2 - 1
    with torch.no_grad():
        z = model.encode(obs, task)
        latents, rewards = model.rollout(z, actions, task)
        return [z, latents, rewards, model.reward_logits(latents[:-1], actions, task)]


def measured(source: str, target: str, folder: Path) -> tuple[float, bool] | None:
    """The largest difference of outputs, and whether it took `partial`; None where it is refused."""
    start = folder / "source.pt"
    made, names = SOURCES[source], NAMES.get(source, list(TASKS))
    if isinstance(made, Path):
        shutil.copy(made, start)
    else:
        torch.save(made(), start)
    for is_partial in (False, True):
        try:
            end = convert(start, target, folder / f"out-{target}.pt", tasks=names, partial=is_partial)
        except LitPWMError:
            continue
        pairs = zip(
            outputs(load_world_model(start, tasks=names)), outputs(load_world_model(end, tasks=names)), strict=True
        )
        return max(float((one - other).abs().max()) for one, other in pairs), is_partial
    return None


def cell(found: tuple[float, bool] | None) -> str:
    """What the table says."""
    if found is None:
        return REFUSED
    difference, is_partial = found
    return ("0" if difference == 0 else f"{difference:.0e}") + "*" * is_partial


def table(folder: Path) -> list[list[str]]:
    """Head and rows."""
    targets = [one.name for one in FORMATS]
    rows = [[source, *(cell(measured(source, target, folder)) for target in targets)] for source in SOURCES]
    return [["from ↓ to →", *targets], *rows]


if __name__ == "__main__":
    import sys

    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    from pages import DOCS, markdown, put

    with tempfile.TemporaryDirectory() as scratch:
        head, *rows = table(Path(scratch))
    put(DOCS / "checkpoints.md", "conversions", markdown(head, rows))
