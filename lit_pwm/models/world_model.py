"""The latent world model: encoder, swappable dynamics, two-hot reward head, task embeddings (TD-MPC2's)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_pwm.errors import LitPWMError
from lit_pwm.models.component import factory_from, known_options
from lit_pwm.models.dynamics import Dynamics, MLPDynamics
from lit_pwm.models.layers import LatentWidth, NormedLinear, TaskEmbedding, init_tdmpc2_, mlp, simnorm
from lit_pwm.models.two_hot import Bins, TwoHot
from lit_pwm.options import Count, CountOrZero, checked

_RESOLUTION = 2 * torch.finfo(torch.float32).eps
_SIMULATED_ZERO = 1e-8


class WorldModel(nn.Module):
    """Predicts latents and rewards of many tasks; plain torch, usable without a Trainer.

    A task id always indexes `task_names`. Actions are expected as the data holds them: zero in padded dimensions.

    Args:
        tasks: name → (obs_dim, action_dim) of each task, in the order of the task ids.
        dynamics: a factory of (latent_dim, action_dim, task_dim), or a component's description.
        latent_dim: width Z of the latent, a multiple of 8.
        encoder_dim: width of the encoder's hidden layers.
        encoder_layers: number of the encoder's hidden layers.
        reward_dim: width of the reward head's two hidden layers.
        task_dim: width of the task embedding.
        num_bins: bins of the two-hot reward, over symlog in [-10, 10].
        obs_dim: padded observation width; the widest task's if not given.
        action_dim: padded action width; the widest task's if not given.

    Raises:
        LitPWMError: no tasks, an option out of its range, or a width smaller than a task's.
    """

    obs_mean: Tensor
    obs_std: Tensor

    @checked
    def __init__(
        self,
        tasks: Mapping[str, tuple[int, int]],
        dynamics: Callable[[int, int, int], Dynamics] | Mapping[str, Any] = MLPDynamics,
        latent_dim: LatentWidth = 512,
        encoder_dim: Count = 256,
        encoder_layers: Count = 1,
        reward_dim: Count = 512,
        task_dim: CountOrZero = 64,
        num_bins: Bins = 101,
        obs_dim: Count | None = None,
        action_dim: Count | None = None,
    ) -> None:
        super().__init__()
        if not tasks:
            raise LitPWMError("A world model needs at least one task, but the mapping of tasks it was given is empty.")
        if strange := [name for name in tasks if not isinstance(name, str) or not name]:
            raise LitPWMError(f"A world model's tasks are named by texts, and {strange[0]!r:.80} is none.")
        self.tasks = {str(name): (int(dims[0]), int(dims[1])) for name, dims in tasks.items()}
        widest_obs = max(dims[0] for dims in self.tasks.values())
        widest_action = max(dims[1] for dims in self.tasks.values())
        self.obs_dim = widest_obs if obs_dim is None else obs_dim
        self.action_dim = widest_action if action_dim is None else action_dim
        if self.obs_dim < widest_obs or self.action_dim < widest_action:
            raise LitPWMError(
                f"The world model's widths (obs_dim {self.obs_dim}, action_dim {self.action_dim}) are smaller than "
                f"those of its widest task ({widest_obs}, {widest_action}). Leave them out, or raise them."
            )
        self.latent_dim, self.encoder_dim, self.encoder_layers = latent_dim, encoder_dim, encoder_layers
        self.reward_dim, self.task_dim, self.num_bins = reward_dim, task_dim, num_bins

        self.task_embedding = TaskEmbedding(len(self.tasks), task_dim)
        self.encoder = mlp(
            self.obs_dim + task_dim,
            [encoder_dim] * encoder_layers,
            NormedLinear(encoder_dim, latent_dim, nn.Identity()),
        )
        self.dynamics = factory_from(dynamics, Dynamics)(latent_dim, self.action_dim, task_dim)
        head = nn.Linear(reward_dim, num_bins)
        self.reward_head = mlp(latent_dim + task_dim + self.action_dim, [reward_dim] * 2, head)
        self.two_hot = TwoHot(num_bins)
        init_tdmpc2_(self.encoder)
        init_tdmpc2_(self.reward_head)
        nn.init.zeros_(head.weight)  # so that an untrained head decodes to exactly zero
        self.register_buffer("obs_mean", torch.zeros(len(self.tasks), self.obs_dim))
        self.register_buffer("obs_std", torch.ones(len(self.tasks), self.obs_dim))

    # -- what it is -------------------------------------------------------------------------------------------------
    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks it knows, in the order of task ids."""
        return tuple(self.tasks)

    def description(self) -> dict[str, Any]:
        """Plain values from which `from_description` rebuilds the model without its weights."""
        return {
            "tasks": {name: list(dims) for name, dims in self.tasks.items()},
            "dynamics": self.dynamics.description(),
            "latent_dim": self.latent_dim,
            "encoder_dim": self.encoder_dim,
            "encoder_layers": self.encoder_layers,
            "reward_dim": self.reward_dim,
            "task_dim": self.task_dim,
            "num_bins": self.num_bins,
            "obs_dim": self.obs_dim,
            "action_dim": self.action_dim,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> WorldModel:
        """The model, with fresh weights, that `description` describes.

        Raises:
            LitPWMError: it names options or classes that there are not, or that may not be loaded (`factory_from`).
        """
        return cls(**known_options(cls, description, "the world model"))

    def numbers_tasks_like(self, description: Mapping[str, Any]) -> bool:
        """Whether a model of this description has the same tasks, of the same widths, in the same order."""
        ours = self.description()
        return list(ours["tasks"].items()) == list(description["tasks"].items()) and all(
            ours[width] == description[width] for width in ("obs_dim", "action_dim")
        )

    def action_mask(self) -> Tensor:
        """[N, A]: one where a task has that action dimension, zero where it is padding."""
        dims = torch.tensor([dims[1] for dims in self.tasks.values()], device=self.obs_mean.device)
        return (torch.arange(self.action_dim, device=dims.device) < dims[:, None]).float()

    def set_observation_statistics(
        self, statistics: Mapping[str, tuple[list[float], list[float]]]
    ) -> dict[str, list[int]]:
        """Standardise observations of these tasks from now on: name → (mean, standard deviation) of each entry.

        Entries that do not vary keep their scale, so that rounding in them is not blown up: those whose deviation is no
        larger than float32 can tell apart at their mean, or than what a simulator's arithmetic leaves of a zero.

        Returns:
            The tasks that have such entries with a deviation above zero, and which entries these are.
        """
        kept: dict[str, list[int]] = {}
        for name, (mean, std) in statistics.items():
            row, width = self.task_names.index(name), len(mean)
            centre, scale = torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(std, dtype=torch.float64)
            varies = scale > (_RESOLUTION * centre.abs()).clamp_min(_SIMULATED_ZERO)
            self.obs_mean[row, :width] = centre.to(self.obs_mean)
            self.obs_std[row, :width] = torch.where(varies, scale, torch.ones_like(scale)).to(self.obs_std)
            if left := (~varies & (scale > 0)).nonzero().flatten().tolist():
                kept[name] = left
        return kept

    # -- what it does -----------------------------------------------------------------------------------------------
    def encode_logits(self, obs: Tensor, task: Tensor) -> Tensor:
        """Observations [..., O] and task ids [...] → the encoder's output before SimNorm [..., Z]."""
        embedding = self.task_embedding(task.expand(obs.shape[:-1]))
        return self.encoder(torch.cat([self.standardise(obs, task), embedding], dim=-1))

    def standardise(self, obs: Tensor, task: Tensor) -> Tensor:
        """Observations [..., O] and task ids [...] → observations with each task's mean 0 and deviation 1 [..., O]."""
        task = task.expand(obs.shape[:-1])
        return (obs - self.obs_mean[task]) / self.obs_std[task]

    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        """Observations [..., O] and task ids [...] → latents [..., Z]."""
        return simnorm(self.encode_logits(obs, task))

    def next(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Latents [..., Z], actions [..., A], task ids [...] → next latents [..., Z]."""
        return self.dynamics(z, action, self.task_embedding(task.expand(z.shape[:-1])))

    def reward_logits(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Latents [..., Z], actions [..., A], task ids [...] → two-hot logits [..., bins]."""
        return self.reward_logits_embedded(z, action, self.task_embedding(task.expand(z.shape[:-1])))

    def reward_logits_embedded(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """As `reward_logits`, with the task embedding [..., E] looked up once for a whole rollout."""
        return self.reward_head(torch.cat([z, embedding.expand(*z.shape[:-1], -1), action], dim=-1))

    def reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Latents [..., Z], actions [..., A], task ids [...] → rewards in environment units [...]."""
        return self.two_hot.decode(self.reward_logits(z, action, task))

    def rollout(self, z: Tensor, actions: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Open-loop prediction.

        Args:
            z: first latents [B, Z].
            actions: actions [T, B, A].
            task: task ids [B].

        Returns:
            Latents [T+1, B, Z], the first being `z`, and rewards [T, B] in environment units.
        """
        embedding = self.task_embedding(task)
        latents = [z]
        for action in actions:
            latents.append(self.dynamics(latents[-1], action, embedding))
        zs = torch.stack(latents)
        logits = self.reward_logits_embedded(zs[:-1], actions, embedding)
        return zs, self.two_hot.decode(logits)
