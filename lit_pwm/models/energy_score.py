"""The energy score of rolled-out samples: what trains dynamics to predict a distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from lit_pwm.models.layers import SIMNORM_GROUP
from lit_pwm.options import OptionObject, Positive, Range

ProperExponent = Annotated[float, Range(0, 2, open_least=True, open_most=True)]
"""The energy score is proper for exponents between these."""
_NEAR = 1e-8
"""Added to squared distances, whose powers below one have no slope at zero and a steep one beside it."""


def energy_error(predicted: Tensor, target: Tensor, groups: int = 1, exponent: float = 1.0) -> Tensor:
    """The fair energy score of M ≥ 2 samples (Gneiting & Raftery 2007), for each entry's scale, [M, ..., Z] → [...].

    mean_i ‖ẑ_i − z‖^β − ½ mean_{i<j} ‖ẑ_i − ẑ_j‖^β, norms over √Z: least in expectation where the samples are
    distributed as the target is, for every exponent 0 < β < 2. With several `groups` of consecutive entries: the mean
    of the groups' own scores, each of which sees small errors of its entries beside a large spread of the others. A
    small β weighs the near misses: what is almost certain stays sharp beside a rare large outcome.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        squares = (a - b).square().unflatten(-1, (groups, -1)).mean(-1)
        return (squares + _NEAR).pow(exponent / 2).mean(-1)

    first, second = torch.triu_indices(len(predicted), len(predicted), 1, device=predicted.device)
    return distance(predicted, target).mean(0) - 0.5 * distance(predicted[first], predicted[second]).mean(0)


@dataclass(frozen=True)
class GroupScore(OptionObject):
    """The mean of the energy scores of SimNorm groups, to be added to that of whole latents.

    Attributes:
        weight: of the mean.
        exponent: β of its distances, see `energy_error`: with 0.5 samples stay sharp where little is uncertain.
    """

    weight: Positive = 1.0
    exponent: ProperExponent = 0.5

    def score(self, samples: Tensor, target: Tensor, deviation: Tensor) -> Tensor:
        """As `energy_score`, of the groups alone."""
        groups = target.shape[-1] // SIMNORM_GROUP
        return self.weight * deviation ** (2 - self.exponent) * energy_error(samples, target, groups, self.exponent)


def energy_score(samples: Tensor, target: Tensor, deviation: Tensor, groups: GroupScore | None = None) -> Tensor:
    """The score of whole latents, with β = 1, and that of their groups if it is asked for, in units of squared error.

    Args:
        samples: M latents [M, ..., Z].
        target: [..., Z].
        deviation: the latents' standard deviation.
        groups: how SimNorm groups are scored.

    Returns:
        [...].
    """
    total = deviation * energy_error(samples, target)
    return total if groups is None else total + groups.score(samples, target, deviation)
