"""The energy score of rolled-out samples: what trains dynamics to predict a distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from lit_pwm.models.layers import SIMNORM_GROUP
from lit_pwm.options import NonNegative, Range, check_options

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
class EnergyScore:
    """The score of whole latents, and that of their SimNorm groups beside it.

    Attributes:
        group_weight: weight of the mean of the groups' scores.
        group_exponent: β of the groups' distances; whole latents have β = 1.

    Raises:
        LitPWMError: an exponent for which the score is not proper.
    """

    group_weight: NonNegative = 0.0
    group_exponent: ProperExponent = 1.0

    def __post_init__(self) -> None:
        check_options(EnergyScore, vars(self))

    def __call__(self, samples: Tensor, target: Tensor, deviation: Tensor) -> Tensor:
        """Samples [M, ..., Z], target [..., Z], the latents' standard deviation → in units of squared error [...]."""
        total = deviation * energy_error(samples, target)
        if self.group_weight:
            groups, exponent = target.shape[-1] // SIMNORM_GROUP, self.group_exponent
            in_groups = energy_error(samples, target, groups, exponent)
            total = total + self.group_weight * deviation ** (2 - exponent) * in_groups
        return total
