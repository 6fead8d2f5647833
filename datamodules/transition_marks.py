"""What a batch says of the transitions of its slices: which there are, which terminate, and what is known of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.episodes import EpisodeTable
from datamodules.sampler import Windows


class Marks(NamedTuple):
    """Of H transitions of B slices, bool [H, B] each, as `lit_pwm.batch.Batch` has them."""

    terminated: Tensor
    valid: Tensor
    consistent: Tensor


def transition_marks(windows: Windows, horizon: int, table: EpisodeTable, device: torch.device) -> Marks:
    """The marks of slices.

    Args:
        windows: slices of the table's episodes.
        horizon: transitions H of each.
        table: the episodes.
        device: where the marks are wanted.
    """
    step, episode = np.arange(horizon)[:, None], windows.episode
    last = table.length[episode] - windows.start - 1  # the step of the episode's last transition
    valid, is_last = step <= last, step == last
    terminated = is_last & table.terminated[episode]
    consistent = valid & (~is_last | table.last_obs_known[episode])
    return Marks(*(torch.from_numpy(mark).to(device) for mark in (terminated, valid, consistent)))


def clear_padding(obs: Tensor, action: Tensor, reward: Tensor, valid: Tensor) -> None:
    """Set to zero, in place, what lies beyond an episode's end.

    Args:
        obs: [H+1, B, O]; the observation after each transition that there is stays.
        action: [H, B, A].
        reward: [H, B].
        valid: which transitions there are, bool [H, B].
    """
    beyond = ~valid
    obs[1:].masked_fill_(beyond[..., None], 0)
    action.masked_fill_(beyond[..., None], 0)
    reward.masked_fill_(beyond, 0)
