"""Mean and population variance over all values ever seen, on all ranks (Chan et al., 1979)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_pwm.models.accumulation import accumulation_dtype
from lit_pwm.options import Rate, checked


class RunningStats(nn.Module):
    """Running moments of a scalar, or of a scalar of each group. The start (mean 0, variance 1, count 1e-4) is PWM's.

    Args:
        dtype: of the moments, see `accumulation_dtype`.
        groups: how many groups have moments of their own; None for one of all values.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, dtype: torch.dtype = torch.float64, groups: int | None = None) -> None:
        super().__init__()
        self.groups = groups
        shape = () if groups is None else (groups,)
        self.register_buffer("mean", torch.zeros(shape, dtype=dtype))
        self.register_buffer("var", torch.ones(shape, dtype=dtype))
        self.register_buffer("count", torch.full(shape, 1e-4, dtype=dtype))

    @staticmethod
    def moments(x: Tensor) -> Tensor:
        """[3]: count, mean and population variance of the values in `x`, float64 where its device has it."""
        x = x.detach().to(accumulation_dtype(x.device))
        return torch.stack([x.new_tensor(float(x.numel())), x.mean(), x.var(unbiased=False)])

    def moments_by_group(self, x: Tensor, group: Tensor) -> Tensor:
        """[3, groups]: as `moments`, of the values [B] whose group [B] it is; zeros for a group without values."""
        x = x.detach().to(accumulation_dtype(x.device))
        member = (group == torch.arange(len(self.mean), device=group.device)[:, None]).to(x.dtype)
        count = member.sum(1)
        mean = (member @ x) / count.clamp_min(1)
        spread = (member * (x - mean[:, None]).square()).sum(1)
        return torch.stack([count, mean, spread / count.clamp_min(1)])

    def merge(self, x: Tensor, group: Tensor) -> None:
        """Merge the batches of all ranks: values [B] of this one, and the group of each [B] if there are groups."""
        moments = self.moments_by_group(x, group) if self.groups is not None else self.moments(x)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everywhere = [torch.empty_like(moments) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(everywhere, moments)
            moments = torch.stack(everywhere)
        self.update(moments)

    @torch.no_grad()
    def update(self, moments: Tensor) -> None:
        """Merge batches described by `moments` [..., 3], or [..., 3, groups]; one row for each rank."""
        for count, mean, var in moments.reshape(-1, 3, *self.mean.shape):
            total = self.count + count
            delta = mean - self.mean
            spread = self.var * self.count + var * count + delta.square() * self.count * count / total
            self.mean += delta * count / total
            self.var.copy_(spread / total)
            self.count.copy_(total)


class RunningVariance(nn.Module):
    """Running mean over updates of a batch's variance per entry, averaged over entries; the same on all ranks.

    It moves once per update, by all that the update sees: moved at each of H steps of a rollout, its rate would be
    1 − (1 − rate)^H (0.15 for H = 16), and late steps would weigh more.

    Args:
        rate: fraction by which each update moves it; the first one sets it.
    """

    value: Tensor
    updates: Tensor

    @checked
    def __init__(self, rate: Rate = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("value", torch.ones(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def update(self, x: Tensor) -> None:
        """Merge a batch [..., D], of which each rank holds an equal share."""
        update_together([self], [x])

    @torch.no_grad()
    def merge(self, moments: Tensor) -> None:
        """Merge a batch whose first two moments are [2, D]."""
        variance = (moments[1] - moments[0].square()).clamp_min(0).mean()
        rate = torch.where(self.updates == 0, 1.0, self.rate)
        self.value.lerp_(variance.to(self.value.dtype), rate.to(self.value.dtype))
        self.updates += 1


@torch.no_grad()
def update_together(
    variances: Sequence[RunningVariance], batches: Sequence[Tensor], known: Tensor | None = None
) -> None:
    """Merge into each variance its batch [..., D], with one reduction over ranks for all of them.

    Args:
        variances: those that are moved.
        batches: of each.
        known: which of a batch's values count, bool [N] of N values [N, D]; all if not given.
    """
    if known is not None:
        _update_by_known(variances, batches, known)
        return
    moments = torch.stack([_moments(x) for x in batches])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(moments)
        moments /= torch.distributed.get_world_size()
    for variance, moment in zip(variances, moments, strict=True):
        variance.merge(moment)


def _update_by_known(variances: Sequence[RunningVariance], batches: Sequence[Tensor], known: Tensor) -> None:
    """As `update_together`, where ranks may know different numbers of their values: sums and counts are added up."""
    share = known.to(torch.float32).mean()
    moments = torch.stack([_moments(x.where(known[:, None], 0)) for x in batches])
    everything = torch.cat([moments.flatten(), share[None]])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(everything)
    moments = (everything[:-1] / everything[-1].clamp_min(1e-12)).view_as(moments)
    for variance, moment in zip(variances, moments, strict=True):
        variance.merge(moment)


def _moments(x: Tensor) -> Tensor:
    """Means of the entries and of their squares, [..., D] → [2, D], in single precision at least."""
    x = x.flatten(0, -2)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.stack([x.mean(0), x.square().mean(0)])
