"""The sizes of a world model, read from the shapes of its tensors.

Each size shows in several tensors. What most of them say counts, so that one misshapen tensor is the one that the error
names, and not all others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lit_pwm.models.dynamics import Dynamics, MLPDynamics
from lit_pwm.models.encoders import MLPEncoder
from lit_pwm.models.heads import TwoHotReward
from lit_pwm.models.world_model import WorldModel

Shapes = Mapping[str, tuple[int, ...] | None]
_LAYER = ("weight", "bias", "ln.weight", "ln.bias")
HIDDEN_LAYERS = 2
"""Of dynamics and reward head in TD-MPC2, PWM and Flow-MBPO-PWM."""


@dataclass(frozen=True)
class Sizes:
    """Of a world model of MLPs; None where no tensor says it.

    Attributes:
        task_dim: width of the task embedding, 0 for a single task without one.
        latent_dim: width of the latent.
        obs_dim: width of the padded observation.
        action_dim: width of the padded action.
        encoder_dim: width of the encoder's hidden layers.
        encoder_layers: number of them.
        dynamics_dim: width of the dynamics' hidden layers.
        reward_dim: width of the reward head's hidden layers.
        bins: of the reward.
    """

    task_dim: int | None
    latent_dim: int | None
    obs_dim: int | None
    action_dim: int | None
    encoder_dim: int | None
    encoder_layers: int
    dynamics_dim: int | None
    reward_dim: int | None
    bins: int | None

    @property
    def are_known(self) -> bool:
        """Whether each is a possible size."""
        counts = [value for name, value in vars(self).items() if name != "task_dim"]
        return self.task_dim is not None and self.task_dim >= 0 and all(value and value > 0 for value in counts)

    def world_model(
        self, tasks: Mapping[str, tuple[int, int]], dynamics: Callable[..., Dynamics] | None = None
    ) -> WorldModel:
        """A world model of these sizes.

        Args:
            tasks: its tasks.
            dynamics: makes other dynamics than an MLP, of its dimensions.
        """

        def plain_dynamics(*dims: int) -> Dynamics:
            return MLPDynamics(*dims, hidden_dim=_sure(self.dynamics_dim), layers=HIDDEN_LAYERS, rescale_inputs=False)

        return WorldModel(
            tasks,
            dynamics or plain_dynamics,
            _sure(self.latent_dim),
            _sure(self.task_dim),
            lambda *dims: MLPEncoder(*dims, hidden_dim=_sure(self.encoder_dim), layers=self.encoder_layers),
            lambda *dims: TwoHotReward(
                *dims, hidden_dim=_sure(self.reward_dim), layers=HIDDEN_LAYERS, num_bins=_sure(self.bins)
            ),
            obs_dim=self.obs_dim,
            action_dim=self.action_dim,
        )


def _sure(size: int | None) -> int:
    assert size is not None
    return size


def sizes_in(
    shapes: Shapes, widths: tuple[int, int] | None = None, certain: bool = False, dynamics: str = "dynamics.net",
    further_inputs: int = 0,
) -> Sizes:  # fmt: skip
    """The sizes of a world model of MLPs.

    Args:
        shapes: of its tensors, by our keys.
        widths: of the widest observation and action of its tasks, where these are known.
        certain: whether nothing else than `widths` can be.
        dynamics: what keys of the dynamics' layers begin with.
        further_inputs: columns of the dynamics' first layer beside latent, task and action.
    """
    last = max([1, *layer_numbers(shapes, "encoder.net.")])
    encoder, reward = "encoder.net", "heads.reward.net"

    def size(key: str, axis: int) -> int | None:
        shape = shapes.get(key)
        return None if shape is None or len(shape) <= axis else shape[axis]

    def less(key: str, *parts: int | None) -> int | None:
        whole = size(key, 1)
        return None if whole is None or None in parts else whole - sum(part or 0 for part in parts)

    def rows(*layers: str) -> list[int | None]:
        return [size(f"{layer}.{name}", 0) for layer in layers for name in _LAYER]

    hidden = {
        net: _most(
            [*rows(f"{net}.0", f"{net}.1"), size(f"{net}.1.weight", 1), size(f"{net}.{HIDDEN_LAYERS}.weight", 1)]
        )
        for net in (dynamics, reward)
    }
    latent = _most([*rows(f"{dynamics}.{HIDDEN_LAYERS}", f"{encoder}.{last}")])
    inner = [f"{encoder}.{number}" for number in range(last)]
    encoder_dim = _most([*rows(*inner), *(size(f"{encoder}.{number}.weight", 1) for number in range(1, last + 1))])
    first_dynamics, first_reward = f"{dynamics}.0.weight", f"{reward}.0.weight"
    task_dim = size("task_embedding.weight", 1) if "task_embedding.weight" in shapes else 0
    if widths is not None and certain and "task_embedding.weight" in shapes:
        obs, action = widths
        told = [less(first_dynamics, latent, action, further_inputs), less(first_reward, latent, action)]
        task_dim = _most([task_dim, less(f"{encoder}.0.weight", obs), *told])
    told = [less(first_dynamics, latent, task_dim, further_inputs), less(first_reward, latent, task_dim)]
    obs_dim = less(f"{encoder}.0.weight", task_dim)
    action_dim = _most([*told, None if widths is None else widths[1]])
    if widths is not None and certain:
        obs_dim, action_dim = widths
    bins = _most([size(f"{reward}.{HIDDEN_LAYERS}.{name}", 0) for name in ("weight", "bias")])
    return Sizes(task_dim, latent, obs_dim, action_dim, encoder_dim, last, hidden[dynamics], hidden[reward], bins)


def layer_numbers(keys: Iterable[str], prefix: str) -> list[int]:
    """The numbers of the layers whose keys begin so."""
    found = (re.match(rf"{re.escape(prefix)}(\d{{1,3}})\.", key) for key in keys)
    return [int(match[1]) for match in found if match]


def structure(sizes: Sizes, dynamics: str = "dynamics.net") -> list[str]:
    """Our keys of a world model of MLPs, task embedding left out, in order."""
    normed = [f"encoder.net.{number}" for number in range(sizes.encoder_layers + 1)]
    normed += [f"{dynamics}.{number}" for number in range(HIDDEN_LAYERS + 1)]
    normed += [f"heads.reward.net.{number}" for number in range(HIDDEN_LAYERS)]
    last = f"heads.reward.net.{HIDDEN_LAYERS}"
    return [*(f"{layer}.{name}" for layer in normed for name in _LAYER), f"{last}.weight", f"{last}.bias"]


def _most(votes: Iterable[int | None]) -> int | None:
    """What most say, the first of several."""
    counted = Counter(vote for vote in votes if vote is not None)
    return counted.most_common(1)[0][0] if counted else None
