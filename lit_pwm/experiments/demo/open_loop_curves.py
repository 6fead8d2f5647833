"""Open-loop predictions beside the truth, for a figure: what a world model thinks will happen, decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules import EpisodeStore, MultitaskDataModule
from lit_pwm.checkpoints import load_world_model
from lit_pwm.experiments.record_types import OpenLoopRecord, SeriesRecord
from lit_pwm.measures.linear_probe import fit_probe
from lit_pwm.models import WorldModel

_PROBE_ROWS = 4096


@torch.no_grad()
def open_loop_curves(
    checkpoint: str, stores: Sequence[str], task: str, steps: int = 50, dimensions: int = 3, seed: int = 0
) -> OpenLoopRecord:
    """One held-out episode's window: truth, open-loop prediction and copy-last, of observations and reward.

    The window is the held-out one whose rewards vary most, so that there is something to predict; the observation
    entries are those that vary most within it. Where no held-out episode is as long as a window, it is shorter.

    Args:
        checkpoint: of the world model.
        stores: the stores it was trained on; the probe is fitted on training episodes, the window is held out.
        task: the task.
        steps: length of the window.
        dimensions: observation entries to show.
        seed: of the probe's rows.

    Returns:
        Plain values: `steps`, and under `series` a list of `name`, `truth`, `prediction`, `copy_last`.
    """
    world_model = load_world_model(checkpoint)
    data = MultitaskDataModule(store=list(stores), tasks=[task], horizon=1, val_horizon=1)
    data.setup()
    held_out, opened = data.held_out, [EpisodeStore(path) for path in stores]
    episodes = [opened[store][number] for store, number in zip(data.table.store, data.table.number, strict=True)]
    task_id = torch.tensor(world_model.task_names.index(task))

    rng = np.random.default_rng(seed)
    rows = np.concatenate([e.obs for e, out in zip(episodes, held_out, strict=True) if not out])
    rows = torch.from_numpy(rows[rng.integers(len(rows), size=_PROBE_ROWS)])
    probe = fit_probe(world_model.encode(padded(rows, world_model), task_id), rows)

    kept = [e for e, out in zip(episodes, held_out, strict=True) if out]
    steps = min(steps, max(len(e.reward) for e in kept))
    windows = [(e, start) for e in kept for start in range(0, len(e.reward) - steps + 1, steps)]
    episode, start = max(windows, key=lambda w: float(np.std(w[0].reward[w[1] : w[1] + steps])))
    obs = torch.from_numpy(episode.obs[start : start + steps + 1])
    action = np.zeros((steps, 1, world_model.action_dim), np.float32)
    action[:, 0, : episode.action.shape[1]] = episode.action[start : start + steps]
    z0 = world_model.encode(padded(obs[:1], world_model), task_id)
    latents, rewards = world_model.rollout(z0, torch.from_numpy(action), task_id[None])
    predicted = probe(latents[:, 0])
    shown = obs.std(0).argsort(descending=True)[:dimensions].sort().values.tolist()
    series: list[SeriesRecord] = [
        {
            "name": f"observation {i}",
            "truth": obs[:, i].tolist(),
            "prediction": predicted[:, i].tolist(),
            "copy_last": [float(obs[0, i])] * (steps + 1),
        }
        for i in shown
    ]
    held = world_model.reward(z0.expand(steps, -1), torch.from_numpy(action)[:, 0], task_id)
    series.append(
        {
            "name": "reward",
            "truth": episode.reward[start : start + steps].tolist(),
            "prediction": rewards[:, 0].tolist(),
            "copy_last": held.tolist(),
        }
    )
    return {"task": task, "steps": steps, "series": series}


def padded(obs: Tensor, world_model: WorldModel) -> Tensor:
    """Observations [..., O] zero-padded to the model's width."""
    return torch.nn.functional.pad(obs, (0, world_model.obs_dim - obs.shape[-1]))
