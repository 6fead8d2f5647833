"""The latent world model: encoder, dynamics, heads and task embeddings, each but the last swappable (TD-MPC2's)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_pwm.errors import LitPWMError
from lit_pwm.models.component import factory_from
from lit_pwm.models.dynamics import Dynamics, MLPDynamics
from lit_pwm.models.encoders import Encoder, MLPEncoder
from lit_pwm.models.heads import Head, RewardHead, TwoHotReward
from lit_pwm.models.layers import LatentWidth, TaskEmbedding, simnorm
from lit_pwm.models.model_heads import ModelHeads
from lit_pwm.models.named_classes import known_options
from lit_pwm.options import Count, CountOrZero, checked
from lit_pwm.options.renamed import accepting_old_spellings

DESCRIPTION_IN_METADATA = "lit_pwm"
"""Where the metadata of a `state_dict`, which `torch.save` keeps, describe the model."""
_RESOLUTION = 2 * torch.finfo(torch.float32).eps
_SIMULATED_ZERO = 1e-8


class WorldModel(ModelHeads):
    """Predicts latents, and by its heads rewards and more, of many tasks; plain torch, usable without a Trainer.

    A task id always indexes `task_names`. Actions are expected as the data holds them: zero in padded dimensions. Parts
    are given as factories of their dimensions or as the description that a checkpoint holds of them.

    Args:
        tasks: name → (obs_dim, action_dim) of each task, in the order of the task ids.
        dynamics: of (latent_dim, action_dim, task_dim).
        latent_dim: width Z of the latent, a multiple of 8.
        task_dim: width of the task embedding.
        encoder: of (obs_dim, task_dim, latent_dim).
        reward: the head of the reward, of (latent_dim, action_dim, task_dim).
        heads: others by name, of the same.
        obs_dim: padded observation width; the widest task's if not given.
        action_dim: padded action width; the widest task's if not given.

    Attributes:
        task_specs: task name → what is known of its environment, plain JSON (`lit_pwm.tasks.stored_specs`). Data and
            checkpoints bring it and checkpoints keep it; no network depends on it.

    Raises:
        LitPWMError: no tasks, an option out of its range, a width smaller than a task's, or a head's name that is no
            name in Python or that of a parameter group.
    """

    obs_mean: Tensor
    obs_std: Tensor

    @accepting_old_spellings
    @checked
    def __init__(
        self,
        tasks: Mapping[str, tuple[int, int]],
        dynamics: Callable[[int, int, int], Dynamics] | Mapping[str, Any] = MLPDynamics,
        latent_dim: LatentWidth = 512,
        task_dim: CountOrZero = 64,
        encoder: Callable[[int, int, int], Encoder] | Mapping[str, Any] = MLPEncoder,
        reward: Callable[[int, int, int], RewardHead] | Mapping[str, Any] = TwoHotReward,
        heads: Mapping[str, Callable[[int, int, int], Head] | Mapping[str, Any]] | None = None,
        obs_dim: Count | None = None,
        action_dim: Count | None = None,
    ) -> None:
        super().__init__()
        if not tasks:
            raise LitPWMError("A world model needs at least one task, but the mapping of tasks it was given is empty.")
        if strange := [name for name in tasks if not isinstance(name, str) or not name]:
            raise LitPWMError(f"A world model's tasks are named by texts, and {strange[0]!r:.80} is none.")
        self.tasks = {str(name): (int(dims[0]), int(dims[1])) for name, dims in tasks.items()}
        self.task_specs: dict[str, dict[str, Any]] = {}
        widest_obs = max(dims[0] for dims in self.tasks.values())
        widest_action = max(dims[1] for dims in self.tasks.values())
        self.obs_dim = widest_obs if obs_dim is None else obs_dim
        self.action_dim = widest_action if action_dim is None else action_dim
        if self.obs_dim < widest_obs or self.action_dim < widest_action:
            raise LitPWMError(
                f"The world model's widths (obs_dim {self.obs_dim}, action_dim {self.action_dim}) are smaller than "
                f"those of its widest task ({widest_obs}, {widest_action}). Leave them out, or raise them."
            )
        self.latent_dim, self.task_dim = latent_dim, task_dim
        dimensions = latent_dim, self.action_dim, task_dim

        self.task_embedding = TaskEmbedding(len(self.tasks), task_dim)
        self.encoder = factory_from(encoder, Encoder)(self.obs_dim, task_dim, latent_dim)
        self.dynamics = factory_from(dynamics, Dynamics)(*dimensions)
        self.make_heads_(reward, heads or {}, dimensions)
        for part in (self.encoder, *self.heads.values()):
            cast("Encoder | Head", part).initialise_()
        self.register_buffer("obs_mean", torch.zeros(len(self.tasks), self.obs_dim))
        self.register_buffer("obs_std", torch.ones(len(self.tasks), self.obs_dim))

    # -- what it is -------------------------------------------------------------------------------------------------
    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks it knows, in the order of task ids."""
        return tuple(self.tasks)

    def parts(self) -> dict[str, nn.Module]:
        """What the parameters belong to, each to one: the names of what is measured of it."""
        heads = {f"{name}_head": head for name, head in self.heads.items()}
        return {"task_embedding": self.task_embedding, "encoder": self.encoder, "dynamics": self.dynamics, **heads}

    def description(self) -> dict[str, Any]:
        """Plain values from which `from_description` rebuilds the model without its weights."""
        heads = {name: cast("Head", head).description() for name, head in self.heads.items()}
        return {
            "tasks": {name: list(dims) for name, dims in self.tasks.items()},
            "latent_dim": self.latent_dim,
            "task_dim": self.task_dim,
            "encoder": self.encoder.description(),
            "dynamics": self.dynamics.description(),
            "reward": heads.pop("reward"),
            "heads": heads,
            "obs_dim": self.obs_dim,
            "action_dim": self.action_dim,
        }

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Describe the model in the metadata of a `state_dict`, so that a file of nothing else can be read."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if (metadata := getattr(destination, "_metadata", None)) is not None:
            with contextlib.suppress(LitPWMError):  # of a component with options that are not plain
                metadata.setdefault(prefix[:-1], {})[DESCRIPTION_IN_METADATA] = self.description()

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
        return self.encoder(self.standardise(obs, task), embedding)

    def standardise(self, obs: Tensor, task: Tensor) -> Tensor:
        """Observations [..., O] and task ids [...] → observations with each task's mean 0 and deviation 1 [..., O]."""
        task = task.expand(obs.shape[:-1])
        return (obs - self.obs_mean[task]) / self.obs_std[task]

    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        """Observations [..., O] and task ids [...] → latents [..., Z]."""
        return simnorm(self.encode_logits(obs, task))

    def next(self, z: Tensor, action: Tensor, task: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents [..., Z], actions [..., A], task ids [...] → next latents [..., Z].

        Of dynamics that draw (`Dynamics.noise_shape`), `noise` [..., *noise_shape] decides; without it they draw from a
        generator of their own.
        """
        return self.dynamics(z, action, self.task_embedding(task.expand(z.shape[:-1])), *given_noise(noise))

    def rollout(self, z: Tensor, actions: Tensor, task: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Open-loop prediction.

        Args:
            z: first latents [..., Z].
            actions: actions [T, ..., A].
            task: task ids [...].
            noise: of dynamics that draw, [T, ..., *noise_shape]; without it they draw from a generator of their own.

        Returns:
            Latents [T+1, ..., Z], the first being `z`, and rewards [T, ...] in environment units.
        """
        embedding = self.task_embedding(task.expand(z.shape[:-1]))
        latents = [z]
        for t, action in enumerate(actions):
            step = given_noise(None if noise is None else noise[t])
            latents.append(self.dynamics(latents[-1], action, embedding, *step))
        zs = torch.stack(latents)
        return zs, self.reward_head.decode(self.reward_logits_embedded(zs[:-1], actions, embedding))


def given_noise(noise: Tensor | None) -> tuple[Tensor, ...]:
    """The last argument of dynamics that are given noise; those that declare none are called without."""
    return () if noise is None else (noise,)
