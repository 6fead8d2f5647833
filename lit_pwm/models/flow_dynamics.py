"""Latent dynamics by a flow: the next latent is where an ODE ends that is conditioned on this latent and the action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from lit_pwm.errors import LitPWMError
from lit_pwm.flow import FixedStep, Solver, TauDistribution, TimeWidth, integrate, straight_path, times
from lit_pwm.models.component import made
from lit_pwm.models.conditioned_field import ConditionedField
from lit_pwm.models.dynamics import Dynamics, LatentTarget
from lit_pwm.models.flow_losses import EndPointError, FlowLoss, FlowStep
from lit_pwm.models.latent_spaces import SPACES, LatentSpace
from lit_pwm.models.layers import LatentWidth, rescaled
from lit_pwm.models.parametrisations import PARAMETRISATIONS
from lit_pwm.models.running_stats import RunningVariance, update_together
from lit_pwm.models.sources import Source, ZeroSource
from lit_pwm.options import Count, CountOrZero

Space = Literal["logit", "latent"]
Parametrisation = Literal["velocity", "endpoint", "residual"]


class FlowDynamics(Dynamics):
    """ẑ_{t+1} = read-out of x(1), where dx/dτ = c(v_θ[S(x), ẑ_t, task, a_t, φ(τ)]) and x(0) is the source.

    No gradient of a target reaches the encoder, nor does flow matching move what its path starts from.

    Known to fail, and why (docs/flow_dynamics.md has the measurements): a velocity added to a source of the latent lets
    the encoder collapse; flow matching from a zero source shows the network its answer for τ > 0; an end-point error
    silences a noise source, so train that one by `EnergyLoss` or `ChainedMatching`; the number of substeps in training
    and in use must agree.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        task_dim: width of the task embedding.
        hidden_dim: width of the hidden layers.
        layers: number of hidden layers.
        time_dim: features of τ.
        space: the state is logits before SimNorm (`logit`), or simplex entries (`latent`).
        source: x(0): the uniform latent (`ZeroSource`), the current latent (`LatentSource`), or noise (`NoiseSource`),
            with which predictions are samples.
        parametrisation: the network gives the velocity; the `endpoint` x̂ (velocity (x̂ − x) / (1 − τ)); or a `residual`
            of the straight line's own end point, x̂ = x/τ + network, which needs a zero source.
        solver: how the ODE is integrated: `FixedStep` or `Dopri5`.
        adjoint: compute gradients by integrating backwards instead of through the steps (see `lit_pwm.flow.integrate`),
            for a velocity and a loss that does not look into the steps.
        loss: what trains it: `EndPointError`, `EnergyLoss`, `FlowMatching` or `ChainedMatching`.
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
        source: Callable[[int, LatentSpace], Source] = ZeroSource,
        parametrisation: Parametrisation = "endpoint",
        solver: Callable[[], Solver] = FixedStep,
        adjoint: bool = False,
        loss: Callable[[], FlowLoss] = EndPointError,
        rescale_inputs: bool = True,
    ) -> None:
        super().__init__(latent_dim, action_dim, task_dim)
        owner = type(self).__name__
        self.hidden_dim, self.layers = hidden_dim, layers
        self.space, self.parametrisation = SPACES[space], PARAMETRISATIONS[parametrisation]
        self.solver = made(solver, Solver, option="solver", owner=owner)
        self.loss = made(loss, FlowLoss, option="loss", owner=owner)
        self.adjoint, self.rescale_inputs = adjoint, rescale_inputs
        start = made(source, Source, latent_dim, self.space, option="source", owner=owner)
        self._refuse_what_cannot_be(parametrisation, start)
        # The network is shown zeros at τ = 0; one Euler step from there never shows it another state.
        self._starts_at_zero = isinstance(start, ZeroSource) and rescale_inputs
        sees_state = self.solver.evaluations != 1 or not self._starts_at_zero or self.loss.matches
        width = latent_dim + task_dim + action_dim
        self.field = ConditionedField(latent_dim, width, hidden_dim, layers, time_dim, sees_state)
        self.latent_variance, self.state_variance = RunningVariance(), RunningVariance()
        self.start = start
        self.samples, self.averages_over_ranks = self.loss.samples, self.loss.relative
        self.noise_shape = start.noise_shape
        self.loss_noise_shape = () if self.loss.matches else None

    def _refuse_what_cannot_be(self, parametrisation: Parametrisation, source: Source) -> None:
        solver, loss = type(self.solver).__name__, type(self.loss).__name__
        if parametrisation != "velocity" and (self.adjoint or self.solver.reads_end):
            raise LitPWMError(
                f"FlowDynamics with parametrisation {parametrisation!r} has no velocity at τ = 1, which "
                f"{'the adjoint' if self.adjoint else f'{self.solver}'} evaluates. Use FixedStep with method euler or "
                f"midpoint, without adjoint, or parametrisation: velocity."
            )
        if self.adjoint and self.loss.reads_estimates:
            raise LitPWMError(
                f"FlowDynamics has adjoint: true, whose gradients know the end of {solver}'s steps alone, and the loss "
                f"{loss} with readout_weight {getattr(self.loss, 'readout_weight', 0):g}, which looks into them. Set "
                f"readout_weight to 0, or leave adjoint out."
            )
        if parametrisation == "residual" and not isinstance(source, ZeroSource):
            raise LitPWMError(
                f"FlowDynamics with parametrisation 'residual' continues the straight line from a zero source, but the "
                f"source is {type(source).__name__}. Use ZeroSource, or parametrisation: endpoint."
            )
        if self.loss.samples > 1 and source.noise_shape is None:
            raise LitPWMError(
                f"FlowDynamics has the loss {loss}, which compares samples, but its source {type(source).__name__} "
                f"draws nothing, so that all samples are the same. Use source: NoiseSource, or the loss EndPointError."
            )

    @property
    def source(self) -> Source:
        """Where x(0) comes from."""
        return self.start

    # -- prediction -------------------------------------------------------------------------------------------------
    def forward(self, z: Tensor, action: Tensor, embedding: Tensor, noise: Tensor | None = None) -> Tensor:
        """z [..., Z], action [..., A], embedding [..., E] → next latent [..., Z], sampled if the source draws."""
        start = self.start(z, self.noise_for(z, noise))
        return self.solve(start, self.condition(z, action, embedding))[0]

    def condition(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        """What the field is conditioned on, the same in all substeps [..., hidden]."""
        return self.field.condition(self._seen(z), embedding, action)

    def read_out(self, x: Tensor) -> Tensor:
        """The latent of a state, both [..., Z]."""
        return self.space.read_out(x)

    def _seen(self, point: Tensor) -> Tensor:
        return rescaled(point) if self.rescale_inputs else point

    def evaluate(self, tau: float | Tensor, x: Tensor, condition: Tensor) -> Tensor:
        """The network's value at a state: a velocity or an end point, as the parametrisation says."""
        if self._starts_at_zero and isinstance(tau, float) and tau == 0:
            return self.field(tau, None, condition)  # the uniform latent, rescaled, is zero: no product
        seen = self.parametrisation.seen(x, tau, self.space)
        return self.field(tau, self._seen(self.space.point(seen)), condition)

    def solve(self, x: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The next latent, and the one-step estimates of x(1) at each evaluation, in order; none with the adjoint."""
        estimates: list[Tensor] = []
        solver, kind = self.solver, self.parametrisation
        if isinstance(solver, FixedStep) and solver.method == "euler" and not self.adjoint:  # no detour by the velocity
            dt = 1 / solver.substeps
            for k in range(solver.substeps):
                value = self.evaluate(k * dt, x, condition)
                estimates.append(kind.estimate(value, x, k * dt, self.space))
                x = kind.euler(value, x, k * dt, dt, self.space)
            return self.read_out(x), estimates

        def velocity(tau: float, state: Tensor) -> Tensor:
            value = self.evaluate(tau, state, condition)
            if not self.adjoint:
                estimates.append(kind.estimate(value, state, tau, self.space))
            return kind.velocity(value, state, tau, self.space)

        through = (condition, *self.field.read_by_velocity()) if self.adjoint else None
        return self.read_out(integrate(velocity, x, solver, through)), estimates

    # -- training ---------------------------------------------------------------------------------------------------
    def predict_with_loss(
        self, z: Tensor, action: Tensor, embedding: Tensor, target: LatentTarget
    ) -> tuple[Tensor, Tensor]:
        """The next latent of the training rollout [..., B, Z], and this step's consistency loss [..., B]."""
        if self.training and target.step == 0 and self.loss.relative:
            pooled = target.pooled()
            variances = self.latent_variance, self.state_variance
            known = None if target.known is None else target.known.flatten()
            update_together(variances, (pooled.latent, self.space.of_target(pooled)), known)
        condition, start = self.condition(z, action, embedding), self.start(z, self.noise_for(z, target.noise))
        return self.loss.step(self, FlowStep(z, action, embedding, condition, start, target))

    def match(
        self, step: FlowStep, distribution: TauDistribution, teacher_forced: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Flow matching at a time drawn for each state.

        Args:
            step: gives the path: from its start to its target.
            distribution: of the times.
            teacher_forced: condition the network on the encoder's latent instead of the rolled-out one.

        Returns:
            The error [..., B], in units of the end point's, and the one-step estimates of x(1) [..., B, Z].
        """
        z, target, condition, start = step.z, step.target, step.condition, step.start
        if teacher_forced:
            current = target.current.detach().expand_as(z)
            condition = self.condition(current, step.action, step.embedding)
            start = self.start(current, None) if self.start.noise_shape is None else start
        begin, end = start.detach(), self.space.of_target(target).detach()
        numbers = self.loss_noise_for(z, target.loss_noise)
        assert numbers is not None, "only a loss that matches is asked to"
        tau = times(distribution, numbers)
        state = straight_path(begin, end, tau)
        value = self.evaluate(tau, state, condition)
        error = self.parametrisation.matching_error(value, begin, end, state, tau, self.space)
        ratio = self.latent_variance.value / self.state_variance.value.clamp_min(1e-12)
        return ratio * error, self.parametrisation.estimate(value, state, tau, self.space)
