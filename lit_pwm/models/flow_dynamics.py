"""Latent dynamics by a flow: the next latent is where an ODE ends that is conditioned on this latent and the action."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from lit_pwm.errors import LitPWMError
from lit_pwm.flow import Method, Solver, TauDistribution, TimeWidth, integrate, sample_tau, straight_path
from lit_pwm.models.conditioned_field import ConditionedField
from lit_pwm.models.dynamics import Dynamics, LatentTarget, consistency_error
from lit_pwm.models.energy_score import EnergyScore, ProperExponent
from lit_pwm.models.latent_spaces import SPACES
from lit_pwm.models.layers import LatentWidth, rescaled
from lit_pwm.models.parametrisations import PARAMETRISATIONS
from lit_pwm.models.running_stats import RunningVariance, update_together
from lit_pwm.models.sources import LatentSource, NoisePower, NoiseSource, Source, ZeroSource
from lit_pwm.options import Count, CountOrZero, NonNegative, Positive, Range

Space = Literal["logit", "latent"]
SourceName = Literal["zero", "latent", "noise"]
Parametrisation = Literal["velocity", "endpoint", "residual"]
Rollout = Literal["solver", "estimate"]
Starts = Literal["rolled_out", "teacher_forced"]
Samples = Annotated[int, Range(2)]
"""The energy score compares samples with each other."""


class FlowDynamics(Dynamics):
    """ẑ_{t+1} = read-out of x(1), where dx/dτ = c(v_θ[S(x), ẑ_t, task, a_t, φ(τ)]) and x(0) is the source.

    The consistency loss of a step is `end_weight` · (squared error of ẑ_{t+1} + `readout_weight` · mean error of the
    one-step estimates x + (1 − τ) v at earlier evaluations) + `flow_weight` · L_fm, where L_fm is flow matching on the
    straight path from the source to the target (arXiv 2209.03003), in units of relative error: multiplied by the
    ratio of the running variances of latents and states; + `energy_weight` · the energy score of the rolled-out samples
    in units of squared error (times the latents' standard deviation), which is a proper score of the rollout's
    distribution at every step. No gradient of a target reaches the encoder, nor does flow
    matching move what its path starts from.

    Known to fail, and why (docs/flow_dynamics.md has the measurements): a velocity added to a source of `latent` lets
    the encoder collapse; flow matching from a `zero` source shows the network its answer for τ > 0; an end-point error
    silences a `noise` source, so train that one by `rollout: estimate` with `end_weight: 0`; the number of substeps in
    training and in use must agree.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the hidden layers.
        layers: number of hidden layers.
        time_dim: features of τ.
        space: the state is logits before SimNorm (`logit`), or simplex entries (`latent`).
        source: x(0) is the uniform latent (`zero`), the current latent (`latent`), or `source_scale` times centred
            Gaussian noise (`noise`), drawn from torch's global generator: predictions are then samples.
        source_scale: σ of the noise.
        noise_power: p; the noise is sign(ε) |ε|^p of a normal ε, scaled to unit variance. With 3 its tails are heavy:
            most draws are near zero and few are large, as rare events want it, because a smooth map hardly makes heavy
            tails of light ones (arXiv 1907.04481).
        noise_dim: dimensions of the noise, which fixed orthonormal directions embed in the state; 0 for noise in all of
            them. What a network cannot tell apart from the outcome it leaves in its samples, so few are better where
            few suffice.
        parametrisation: the network gives the velocity; the `endpoint` x̂ (velocity (x̂ − x) / (1 − τ)); or a `residual`
            of the straight line's own end point, x̂ = x/τ + network, which needs a zero source.
        method: how the ODE is integrated.
        substeps: K.
        rtol: relative tolerance of dopri5.
        atol: absolute tolerance of dopri5.
        adjoint: see `lit_pwm.flow.Solver`.
        end_weight: weight of the prediction's squared error.
        readout_weight: weight of the earlier estimates' errors within it.
        energy_weight: weight of the energy score, for a noise source; samples of each slice are then rolled out.
            Earlier estimates are scored too, with `readout_weight`.
        energy_group_weight: weight, within the energy score, of the mean of the scores of each SimNorm group.
        energy_group_exponent: β of these scores, see `energy_error`: with 0.5 samples stay sharp where little is
            uncertain.
        energy_samples: how many, two or more: the more, the less noise in the gradient, at their cost.
        flow_weight: w, the ratio of the flow-matching error to the end point's.
        tau: distribution of flow matching's times.
        rollout: training rolls out the solver's end point, or the one-step estimate at the time drawn for flow
            matching (`estimate`: one evaluation a step).
        starts: flow matching is conditioned on the rolled-out latent, or on the encoder's.
        rescale_inputs: show the network G·z − 1 (G = 8, the group size) instead of simplex entries z.

    Raises:
        LitPWMError: options that do not go together.
    """

    width_option = "hidden_dim"

    def __init__(
        self,
        latent_dim: LatentWidth,
        action_dim: Count,
        task_dim: CountOrZero,
        hidden_dim: Count = 512,
        layers: Count = 2,
        time_dim: TimeWidth = 8,
        space: Space = "logit",
        source: SourceName = "zero",
        source_scale: Positive = 1.0,
        noise_power: NoisePower = 1.0,
        noise_dim: CountOrZero = 0,
        parametrisation: Parametrisation = "endpoint",
        method: Method = "euler",
        substeps: Count = 2,
        rtol: Positive = 1e-5,
        atol: Positive = 1e-5,
        adjoint: bool = False,
        end_weight: NonNegative = 1.0,
        readout_weight: NonNegative = 0.5,
        energy_weight: NonNegative = 0.0,
        energy_group_weight: NonNegative = 0.0,
        energy_group_exponent: ProperExponent = 1.0,
        energy_samples: Samples = 2,
        flow_weight: NonNegative = 0.0,
        tau: TauDistribution = "uniform",
        rollout: Rollout = "solver",
        starts: Starts = "rolled_out",
        rescale_inputs: bool = True,
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        self.hidden_dim, self.layers, self.time_dim = hidden_dim, layers, time_dim
        self.space, self.source, self.parametrisation = space, source, parametrisation
        self.source_scale, self.noise_power, self.noise_dim = source_scale, noise_power, noise_dim
        self.solver = Solver(method, substeps, rtol, atol, adjoint)
        self.end_weight, self.readout_weight, self.flow_weight = end_weight, readout_weight, flow_weight
        self.energy_weight, self.energy_samples = energy_weight, energy_samples
        self.energy = EnergyScore(energy_group_weight, energy_group_exponent)
        self.samples = energy_samples if energy_weight else 1
        self.tau, self.rollout, self.starts, self.rescale_inputs = tau, rollout, starts, rescale_inputs
        self._refuse_what_cannot_be()
        self._space, self._parametrisation = SPACES[space], PARAMETRISATIONS[parametrisation]
        # One Euler step from the uniform latent never shows the network another state.
        sees_state = self.solver.evaluations != 1 or not self._starts_at_zero or bool(flow_weight)
        width = latent_dim + task_dim + action_dim
        self.field = ConditionedField(latent_dim, width, hidden_dim, layers, time_dim, sees_state)
        self.latent_variance, self.state_variance = RunningVariance(), RunningVariance()
        self.start = self._make_source(source)

    def _refuse_what_cannot_be(self) -> None:
        if self.parametrisation != "velocity" and self.solver.reads_end:
            raise LitPWMError(
                f"FlowDynamics with parametrisation {self.parametrisation!r} has no velocity at τ = 1, which "
                f"{'the adjoint' if self.solver.adjoint else f'method {self.solver.method!r}'} evaluates. Use euler or "
                f"midpoint without adjoint, or parametrisation: velocity."
            )
        if self.parametrisation == "residual" and self.source != "zero":
            raise LitPWMError(
                f"FlowDynamics with parametrisation 'residual' continues the straight line from a zero source, but the "
                f"source is {self.source!r}. Use source: zero, or parametrisation: endpoint."
            )
        if self.energy_weight and (self.source != "noise" or self.rollout != "solver"):
            raise LitPWMError(
                f"FlowDynamics has energy_weight {self.energy_weight:g}, which scores rolled-out samples, but "
                f"source {self.source!r} and rollout {self.rollout!r}. Use source: noise and rollout: solver."
            )
        idle = {"source_scale": 1.0, "noise_power": 1.0, "noise_dim": 0} if self.source != "noise" else {}
        for option, default in idle.items():
            if getattr(self, option) != default:
                raise LitPWMError(
                    f"FlowDynamics has {option} {getattr(self, option):g}, which describes a noise source, but source "
                    f"{self.source!r}. Use source: noise, or leave it out."
                )
        if self.energy.group_weight and not self.energy_weight:
            raise LitPWMError(
                f"FlowDynamics has energy_group_weight {self.energy.group_weight:g}, a part of the energy score, but "
                f"energy_weight 0. Set energy_weight above zero, or leave it out."
            )
        if not (self.end_weight or self.flow_weight or self.energy_weight):
            raise LitPWMError(
                "FlowDynamics has end_weight, flow_weight and energy_weight 0, so nothing trains it. Set one of them "
                "above zero."
            )

    def _make_source(self, source: SourceName) -> Source:
        if source == "noise":
            return NoiseSource(self._space, self.latent_dim, self.source_scale, self.noise_power, self.noise_dim)
        return LatentSource(self._space) if source == "latent" else ZeroSource(self._space)

    @property
    def init_args(self) -> dict[str, Any]:
        """The options this was built with."""
        names = (
            "hidden_dim", "layers", "time_dim", "space", "source", "source_scale", "noise_power", "noise_dim",
            "parametrisation", "end_weight", "readout_weight", "energy_weight", "energy_samples",
            "flow_weight", "tau", "rollout", "starts", "rescale_inputs",
        )  # fmt: skip
        solver = {name: getattr(self.solver, name) for name in ("method", "substeps", "rtol", "atol", "adjoint")}
        groups = {f"energy_{name}": getattr(self.energy, name) for name in ("group_weight", "group_exponent")}
        return {name: getattr(self, name) for name in names} | solver | groups

    @property
    def _starts_at_zero(self) -> bool:
        """Whether the network is shown zeros at τ = 0."""
        return self.source == "zero" and self.rescale_inputs

    # -- prediction -------------------------------------------------------------------------------------------------
    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → next latent [..., Z], sampled if the source is noise."""
        return self._solve(self.start(z), self._condition(z, action, embedding))[0]

    def _seen(self, point: Tensor) -> Tensor:
        return rescaled(point) if self.rescale_inputs else point

    def _condition(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        return self.field.condition(self._seen(z), embedding, action)

    def _evaluate(self, tau: float | Tensor, x: Tensor, condition: Tensor) -> Tensor:
        """The network's value at a state: a velocity or an end point, as the parametrisation says."""
        if self._starts_at_zero and isinstance(tau, float) and tau == 0:
            return self.field(tau, None, condition)  # the uniform latent, rescaled, is zero: no product
        seen = self._parametrisation.seen(x, tau, self._space)
        return self.field(tau, self._seen(self._space.point(seen)), condition)

    def _solve(self, x: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The next latent, and the one-step estimates of x(1) at each evaluation, in order."""
        estimates: list[Tensor] = []
        if self.solver.method == "euler" and not self.solver.adjoint:  # the default, without a detour by the velocity
            dt = 1 / self.solver.substeps
            for k in range(self.solver.substeps):
                value = self._evaluate(k * dt, x, condition)
                estimates.append(self._parametrisation.estimate(value, x, k * dt, self._space))
                x = self._parametrisation.euler(value, x, k * dt, dt, self._space)
            return self._space.read_out(x), estimates

        def velocity(tau: float, state: Tensor) -> Tensor:
            value = self._evaluate(tau, state, condition)
            estimates.append(self._parametrisation.estimate(value, state, tau, self._space))
            return self._parametrisation.velocity(value, state, tau, self._space)

        end = integrate(velocity, x, self.solver, (condition, *self.field.parameters()))
        return self._space.read_out(end), estimates

    # -- training ---------------------------------------------------------------------------------------------------
    def predict_with_loss(
        self, z: Tensor, action: Tensor, embedding: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        """The next latent of the training rollout [B, Z], and this step's consistency loss [B]."""
        condition, start = self._condition(z, action, embedding), self.start(z)
        if self.training and target.step == 0 and (self.energy_weight or self.flow_weight):
            pooled = target.pooled()
            variances = self.latent_variance, self.state_variance
            update_together(variances, (pooled.latent, self._space.of_target(pooled)))
        if self.rollout == "estimate":
            return self._estimate_with_loss(z, action, embedding, condition, start, target)
        predicted, estimates = self._solve(start, condition)
        losses = []
        if self.end_weight:
            losses.append(self.end_weight * self._end_error(predicted, estimates, target))
        if self.energy_weight:
            score = self._energy(predicted, estimates, target)  # [B], of all samples together
            losses.append((self.energy_weight * score).expand(predicted.shape[:-1]))
        if self.flow_weight:
            matching, _ = self._match(z, action, embedding, condition, start, target)
            losses.append(self.flow_weight * matching)
        return predicted, functools.reduce(torch.add, losses)

    def _end_error(self, predicted: Tensor, estimates: list[Tensor], target: LatentTarget) -> Tensor:
        """Squared error of the prediction, and of the estimates before the last."""
        return self._with_earlier(lambda latent: consistency_error(latent, target.latent), predicted, estimates)

    def _energy(self, predicted: Tensor, estimates: list[Tensor], target: LatentTarget) -> Tensor:
        """Energy score of the samples, and of the estimates before the last."""
        deviation = self.latent_variance.value.sqrt()
        return self._with_earlier(lambda z: self.energy(z, target.latent, deviation), predicted, estimates)

    def _with_earlier(self, error: Callable[[Tensor], Tensor], predicted: Tensor, estimates: list[Tensor]) -> Tensor:
        """An error of the prediction, and `readout_weight` of its mean over the estimates before the last."""
        total, earlier = error(predicted), estimates[:-1] if self.readout_weight else []
        for x in earlier:
            total = total.add(error(self._space.read_out(x)), alpha=self.readout_weight / len(earlier))
        return total

    def _estimate_with_loss(
        self, z: Tensor, action: Tensor, embedding: Tensor, condition: Tensor, start: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        matching, estimate = self._match(z, action, embedding, condition, start, target)
        predicted = self._space.read_out(estimate)
        loss = self.flow_weight * matching
        if self.end_weight:
            loss = loss + self.end_weight * consistency_error(predicted, target.latent)
        return predicted, loss

    def _match(
        self, z: Tensor, action: Tensor, embedding: Tensor, condition: Tensor, start: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        """Flow matching's loss [B] in units of the end point's, and the one-step estimate of x(1) [B, Z]."""
        if self.starts == "teacher_forced":
            current = target.current.detach().expand_as(z)
            condition = self._condition(current, action, embedding)
            start = self._space.of_latent(current) if self.source == "latent" else start
        begin, end = start.detach(), self._space.of_target(target).detach()
        tau = sample_tau(self.tau, z.shape[:-1], z)
        state = straight_path(begin, end, tau)
        value = self._evaluate(tau, state, condition)
        error = self._parametrisation.matching_error(value, begin, end, state, tau, self._space)
        ratio = self.latent_variance.value / self.state_variance.value.clamp_min(1e-12)
        return ratio * error, self._parametrisation.estimate(value, state, tau, self._space)
