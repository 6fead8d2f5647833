"""What trains flow dynamics: an end-point error, an energy score of samples, flow matching; objects of options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from torch import Tensor

from lit_pwm.flow import TauDistribution
from lit_pwm.models.component import made
from lit_pwm.models.dynamics import LatentTarget, consistency_error
from lit_pwm.models.energy_score import GroupScore, energy_score
from lit_pwm.options import NonNegative, OptionObject, Positive, Range

if TYPE_CHECKING:
    from lit_pwm.models.flow_dynamics import FlowDynamics

Samples = Annotated[int, Range(2)]
"""The energy score compares samples with each other."""
Starts = Literal["rolled_out", "teacher_forced"]


@dataclass(frozen=True)
class FlowStep:
    """One step of a training rollout.

    Attributes:
        z: latents that it starts from, [..., B, Z].
        action: [..., B, A].
        embedding: [..., B, E].
        condition: their part of the field's first layer, [..., B, hidden].
        start: the flow's x(0), [..., B, Z].
        target: where it should lead.
    """

    z: Tensor
    action: Tensor
    embedding: Tensor
    condition: Tensor
    start: Tensor
    target: LatentTarget


class FlowLoss(OptionObject, ABC):
    """Rolls flow dynamics on by one step and says how wrong they were; it holds options and no state."""

    @abstractmethod
    def step(self, flow: FlowDynamics, at: FlowStep) -> tuple[Tensor, Tensor]:
        """The next latent of the training rollout [..., B, Z], and the loss of the step [..., B]."""

    @property
    def samples(self) -> int:
        """Rollouts of each slice that are compared."""
        return 1

    @property
    def matches(self) -> bool:
        """Whether flow matching is part of it: it draws times, and shows states between the source and the target."""
        return False

    @property
    def relative(self) -> bool:
        """Whether it is measured in units of running variances."""
        return self.matches

    @property
    def reads_estimates(self) -> bool:
        """Whether its gradient flows through the one-step estimates within a solver's step."""
        return False


class SolverLoss(FlowLoss):
    """A loss of the solver's own prediction, with flow matching beside it if that is asked for."""

    def __post_init__(self) -> None:
        if self.matching is not None:
            matching = made(self.matching, FlowMatching, option="matching", owner=type(self).__name__)
            object.__setattr__(self, "matching", matching)
        super().__post_init__()

    @property
    @abstractmethod
    def readout_weight(self) -> float:
        """Weight of errors before the last."""

    @property
    @abstractmethod
    def matching(self) -> FlowMatching | None:
        """Flow matching beside it."""

    @property
    def matches(self) -> bool:
        """As `FlowLoss`."""
        return self.matching is not None

    @property
    def reads_estimates(self) -> bool:
        """As `FlowLoss`."""
        return self.readout_weight > 0

    def with_earlier(self, error: Callable[[Tensor], Tensor], predicted: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """An error of the prediction, and `readout_weight` of its mean over earlier latents."""
        total = error(predicted)
        for latent in earlier:
            total = total.add(error(latent), alpha=self.readout_weight / len(earlier))
        return total

    def rolled_out(self, flow: FlowDynamics, at: FlowStep) -> tuple[Tensor, list[Tensor]]:
        """The prediction, and the read-outs of the estimates before the last that the loss looks at."""
        predicted, estimates = flow.solve(at.start, at.condition)
        return predicted, [flow.read_out(x) for x in estimates[:-1]] if self.readout_weight else []

    def plus_matching(self, loss: Tensor, flow: FlowDynamics, at: FlowStep) -> Tensor:
        """The loss with the matching's."""
        return loss if self.matching is None else loss + self.matching.error(flow, at)


@dataclass(frozen=True)
class FlowMatching(FlowLoss):
    """Flow matching on the straight path from the source to the target (arXiv 2209.03003).

    In units of relative error: multiplied by the ratio of the running variances of latents and states, so that `weight`
    is its ratio to an end-point error's. Alone it trains what the rollout does not depend on; the rollout goes on by
    the solver.

    Attributes:
        weight: w.
        tau: distribution of the times to train at.
        starts: it is conditioned on the rolled-out latent, or on the encoder's (`teacher_forced`).
    """

    weight: Positive = 1.0
    tau: TauDistribution = "uniform"
    starts: Starts = "rolled_out"

    @property
    def matches(self) -> bool:
        """As `FlowLoss`."""
        return True

    def step(self, flow: FlowDynamics, at: FlowStep) -> tuple[Tensor, Tensor]:
        """As `FlowLoss`."""
        return flow.solve(at.start, at.condition)[0], self.error(flow, at)

    def error(self, flow: FlowDynamics, at: FlowStep) -> Tensor:
        """The weighted error alone [..., B], a term beside others."""
        return self.weight * flow.match(at, self.tau, self.starts == "teacher_forced")[0]


@dataclass(frozen=True)
class ChainedMatching(FlowLoss):
    """Flow matching whose one-step estimates are the training rollout: one evaluation a step.

    At the time drawn for matching, x + (1 − τ) v estimates x(1), and the next step starts from its read-out. That state
    lies on the path to the target, so outside of training the rollout is the solver's, as in use.

    Attributes:
        weight: of flow matching's error, as `FlowMatching`.
        tau: distribution of the times.
        end_weight: weight of the squared error of the estimates' read-outs; it silences a noise source.
    """

    weight: Positive = 1.0
    tau: TauDistribution = "uniform"
    end_weight: NonNegative = 0.0

    @property
    def matches(self) -> bool:
        """As `FlowLoss`."""
        return True

    def step(self, flow: FlowDynamics, at: FlowStep) -> tuple[Tensor, Tensor]:
        """As `FlowLoss`."""
        matching, estimate = flow.match(at, self.tau)
        predicted = flow.read_out(estimate) if flow.training else flow.solve(at.start, at.condition)[0]
        loss = self.weight * matching
        if self.end_weight:
            loss = loss + self.end_weight * consistency_error(predicted, at.target.latent)
        return predicted, loss


@dataclass(frozen=True)
class EndPointError(SolverLoss):
    """Squared error of the prediction, with the gradient through the solver.

    Attributes:
        weight: of the error.
        readout_weight: weight within it of the mean error of the one-step estimates x + (1 − τ) v at the evaluations
            before the last.
        matching: flow matching beside it.
    """

    weight: Positive = 1.0
    readout_weight: NonNegative = 0.5
    matching: FlowMatching | None = None

    def step(self, flow: FlowDynamics, at: FlowStep) -> tuple[Tensor, Tensor]:
        """As `FlowLoss`."""
        predicted, earlier = self.rolled_out(flow, at)
        error = self.with_earlier(lambda z: consistency_error(z, at.target.latent), predicted, earlier)
        return predicted, self.plus_matching(self.weight * error, flow, at)


@dataclass(frozen=True)
class EnergyLoss(SolverLoss):
    """The energy score of rolled-out samples, in units of squared error: a proper score of the rollout's distribution.

    It needs a source that draws; `samples` of each slice are rolled out side by side.

    Attributes:
        weight: of the score.
        samples: how many, two or more: the more, the less noise in the gradient, at their cost.
        readout_weight: weight within it of the mean score of the one-step estimates at the evaluations before the last.
        groups: scores of each SimNorm group beside that of whole latents.
        end_weight: weight of each sample's squared error. Above zero it pulls the samples together.
        matching: flow matching beside it.
    """

    weight: Positive = 1.0
    samples: Samples = 2
    readout_weight: NonNegative = 0.5
    groups: GroupScore | None = None
    end_weight: NonNegative = 0.0
    matching: FlowMatching | None = None

    def __post_init__(self) -> None:
        if self.groups is not None:
            object.__setattr__(self, "groups", made(self.groups, GroupScore, option="groups", owner="EnergyLoss"))
        super().__post_init__()

    @property
    def relative(self) -> bool:
        """As `FlowLoss`."""
        return True

    def step(self, flow: FlowDynamics, at: FlowStep) -> tuple[Tensor, Tensor]:
        """As `FlowLoss`; the loss of a sample is the score of all together."""
        predicted, earlier = self.rolled_out(flow, at)
        target, deviation = at.target.latent, flow.latent_variance.value.sqrt()
        score = self.with_earlier(lambda z: energy_score(z, target, deviation, self.groups), predicted, earlier)
        loss = (self.weight * score).expand(predicted.shape[:-1])
        if self.end_weight:
            error = self.with_earlier(lambda z: consistency_error(z, target), predicted, earlier)
            loss = self.end_weight * error + loss
        return predicted, self.plus_matching(loss, flow, at)
