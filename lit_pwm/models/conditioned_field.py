"""The network inside flow and refinement dynamics: a state that changes within a step, a condition that does not."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_pwm.flow import TimeEmbedding, VelocityField
from lit_pwm.models.layers import SIMNORM_GROUP, Constrained, NormedLinear, init_tdmpc2_, mish
from lit_pwm.runtime.transforms import added


def centred(x: Tensor, group: int = SIMNORM_GROUP) -> Tensor:
    """Subtract the mean of each group of the last axis; SimNorm does not see what is subtracted."""
    groups = x.unflatten(-1, (-1, group))
    return (groups - groups.mean(-1, keepdim=True)).flatten(-2)


class CentredLinear(nn.Linear, Constrained):
    """A linear layer whose outputs have mean zero in each group: its weights are kept so, at no cost to a forward."""

    @torch.no_grad()
    def constrain_(self) -> None:
        """Subtract each group's mean from the rows of the weight and from the bias."""
        self.weight.copy_(centred(self.weight.T).T)
        self.bias.copy_(centred(self.bias))


class ConditionedField(VelocityField):
    """`NormedLinear` layers over [state, condition, φ(τ)] with an unconstrained, centred linear head.

    The first layer's product with the condition is the same in all substeps: `condition` computes it once.

    Args:
        state_dim: width of the state, and of the result.
        condition_dim: width of the condition.
        hidden_dim: width of the hidden layers.
        layers: number of hidden layers, at least one.
        time_dim: features of τ; 0 for a field that does not look at it.
        sees_state: whether it is ever shown a state that is not zero; without, it holds no weights for it.
    """

    def __init__(
        self,
        state_dim: int,
        condition_dim: int,
        hidden_dim: int,
        layers: int,
        time_dim: int = 0,
        sees_state: bool = True,
    ) -> None:
        super().__init__()
        self.from_condition = nn.Linear(condition_dim, hidden_dim)
        self.from_state = nn.Linear(state_dim, hidden_dim, bias=False) if sees_state else None
        self.from_time = TimeEmbedding(time_dim, hidden_dim) if time_dim else None
        self.ln = nn.LayerNorm(hidden_dim)
        self.hidden = nn.Sequential(*(NormedLinear(a, b) for a, b in pairwise([hidden_dim] * layers)))
        self.head = CentredLinear(hidden_dim, state_dim)
        init_tdmpc2_(self)
        self.head.constrain_()

    def condition(self, *parts: Tensor) -> Tensor:
        """Tensors [..., *] that together are the condition → its part of the first layer [..., hidden_dim]."""
        return self.from_condition(torch.cat(parts, dim=-1))

    def read_by_velocity(self) -> list[nn.Parameter]:
        """The parameters that `velocity` reads: all but those behind the condition."""
        behind = {id(parameter) for parameter in self.from_condition.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in behind]

    def velocity(self, tau: float | Tensor, x: Tensor | None, context: Tensor) -> Tensor:
        """State [..., state_dim] or None, and what `condition` returned → [..., state_dim], each group of mean zero.

        In the precision of the weights under autocast too: steps and corrections are summed in it.
        """
        time = None if self.from_time is None else self.from_time(tau)
        if x is None or self.from_state is None:
            first = context if time is None else context + time
        else:  # sums in place, which take a third of the time
            first = added(self.from_state(x), context)
            first = first if time is None else added(first, time)
        return self.head(self.hidden(mish(self.ln(first)))).to(self.head.weight.dtype)
