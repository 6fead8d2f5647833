"""A policy whose action is where a flow ends that starts from the actor's noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_pwm.flow import FixedStep, Solver, TimeFeatures, TimeWidth, VelocityField, integrate, log_abs_det_jacobian
from lit_pwm.flow.density import of_autograd
from lit_pwm.models.actors import LOG_STD_FLOOR, LOG_STD_INIT, Actor, LogStd, Widths, policy_trunk
from lit_pwm.models.component import made
from lit_pwm.models.layers import TaskEmbedding, mish
from lit_pwm.options import Count, CountOrZero, LogDeviation
from lit_pwm.runtime.transforms import added

VelocityForm = Literal["plain", "gated"]


class ActorField(VelocityField):
    """PWM's policy blocks (Linear → Mish → LayerNorm) over [z, task], the last also over [state, φ(τ)]; a linear head.

    State and time enter at the last hidden layer. What comes before it, and its own product with that, is the same in
    all substeps: `condition` computes it once, so that a substep costs little beside an MLP of as many parameters.

    Args:
        action_dim: width of the state, and of the result.
        condition_dim: width of [z, task].
        hidden_dims: widths of the hidden layers.
        time_dim: features of τ.
        form: the head gives the velocity; or a gate g and a goal c, and the velocity is sigmoid(g) ⊙ (c − x), whose
            steps contract (SAC Flow, arXiv 2509.25756: a flow policy is a residual recurrent network over K).
    """

    def __init__(
        self, action_dim: int, condition_dim: int, hidden_dims: Sequence[int], time_dim: int, form: VelocityForm
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        *before, last = hidden_dims
        self.trunk = policy_trunk(condition_dim, before)
        self.from_condition = nn.Linear([condition_dim, *before][-1], last)
        # One product for both: on the few entries of an action, operations cost by their number.
        self.from_state_and_time = nn.Linear(action_dim + time_dim, last, bias=False)
        self.time = TimeFeatures(time_dim)
        self.ln = nn.LayerNorm(last)
        self.form = form
        self.head = nn.Linear(last, action_dim * (2 if form == "gated" else 1))
        self._initialise_last_layer()

    @torch.no_grad()
    def _initialise_last_layer(self) -> None:
        """As one `nn.Linear` over [state, φ(τ), what the trunk gives].

        Each part by its own fan-in would let a state of two entries and the time outweigh a hundred features, and the
        normalisation after it would leave little of those.
        """
        parts = self.from_state_and_time.weight, self.from_condition.weight
        bound = 1 / math.sqrt(sum(weight.shape[1] for weight in parts))
        for values in (*parts, self.from_condition.bias):
            values.uniform_(-bound, bound)

    def condition(self, z: Tensor, embedding: Tensor) -> Tensor:
        """z [..., Z] and task embedding [..., E] → their part of the last hidden layer [..., hidden]."""
        return self.from_condition(self.trunk(torch.cat([z, embedding], dim=-1)))

    def velocity(self, tau: float | Tensor, x: Tensor | None, context: Tensor) -> Tensor:
        """State [..., A], zeros if None, and what `condition` returned → dx/dτ [..., A]."""
        x = context.new_zeros(*context.shape[:-1], self.action_dim) if x is None else x
        state_and_time = torch.cat([x, self.time(tau, x).expand(*x.shape[:-1], -1)], dim=-1)
        first = added(self.from_state_and_time(state_and_time), context)
        value = self.head(self.ln(mish(first)))
        if self.form == "plain":
            return value
        gate, goal = value.chunk(2, dim=-1)
        return gate.sigmoid() * (goal - x)


class FlowActor(Actor):
    """a = m ⊙ tanh x_1, where x_1 = Φ_K(x_0; z, task) is the K-step flow map and x_0 = m ⊙ e^s ⊙ ε, ε ~ N(0, I).

    s starts at and is floored like `MLPActor`'s. The deterministic action is that of ε = 0, which is not the mean
    action: a flow may bend.

    Args:
        latent_dim: width of the latent.
        action_dim: width of the padded action.
        num_tasks: number of tasks that task ids count.
        hidden_dims: widths of the hidden layers.
        task_dim: width of the actor's own task embedding; 0 for a policy that does not look at the task.
        time_dim: features of τ.
        form: `plain` or `gated` velocity, see `ActorField`. A plain one passes the noise on whole, as an MLP actor
            does; half-open gates, as at the start, halve it on its way to the action (K = 2), and the goal too.
        solver: how the ODE is integrated: `FixedStep` or `Dopri5`.
        log_std_init: initial log σ.
        log_std_floor: lowest log σ.
    """

    width_option = "hidden_dims"

    def __init__(
        self,
        latent_dim: Count,
        action_dim: Count,
        num_tasks: Count,
        hidden_dims: Widths = (400, 200, 100),
        task_dim: CountOrZero = 0,
        time_dim: TimeWidth = 8,
        form: VelocityForm = "plain",
        solver: Callable[[], Solver] = FixedStep,
        log_std_init: LogDeviation = LOG_STD_INIT,
        log_std_floor: LogDeviation = LOG_STD_FLOOR,
    ) -> None:
        super().__init__(latent_dim, action_dim, num_tasks)
        self.hidden_dims, self.task_dim = tuple(hidden_dims), task_dim
        self.solver = made(solver, Solver, option="solver", owner=type(self).__name__)
        self.task_embedding = TaskEmbedding(num_tasks, task_dim)
        self.field = ActorField(action_dim, latent_dim + task_dim, self.hidden_dims, time_dim, form)
        self.log_std = LogStd(action_dim, log_std_init, log_std_floor)

    def forward(self, z: Tensor, task: Tensor, deterministic: bool = False, noise: Tensor | None = None) -> Tensor:
        """z [..., Z], task ids that broadcast to [...] → actions [..., A] in (-1, 1)."""
        task = task.expand(z.shape[:-1])
        mask = self.action_mask[task]
        return mask * self._flow(z, task, mask, self._start(mask, deterministic, noise)).tanh()

    def _start(self, mask: Tensor, deterministic: bool, noise: Tensor | None) -> Tensor:
        """x_0 [..., A]."""
        if deterministic:
            return torch.zeros_like(mask)
        noise = self.own_noise.normal(*mask.shape, like=mask) if noise is None else noise
        return mask * self.log_std().exp() * noise

    def _flow(self, z: Tensor, task: Tensor, mask: Tensor, start: Tensor) -> Tensor:
        """Φ_K(x_0) [..., A]; padded dimensions stay at zero, so that they cannot influence others."""
        condition = self.field.condition(z, self.task_embedding(task))
        return integrate(lambda tau, x: mask * self.field(tau, x, condition), start, self.solver)

    def log_prob(self, z: Tensor, task: Tensor, noise: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """The actions that follow from `noise`, and the logarithm of their density, exact for the K-step map.

        log N(x_0) − log |det ∂Φ_K/∂x_0| − Σ log(1 − a²), over the dimensions that are not padding. It is the density
        while the map does not fold, as continuous flows never do and a few large steps may. In inference mode too.

        Args:
            z: latents [..., Z].
            task: task ids that broadcast to [...].
            noise: standard normal noise [..., A].
            create_graph: keep the result differentiable.

        Returns:
            Actions [..., A] and log densities [...].
        """
        differentiable = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(differentiable):
            z, noise, task = of_autograd(z), of_autograd(noise), of_autograd(task).expand(z.shape[:-1])
            mask, scale = self.action_mask[task], self.log_std()
            start = self._start(mask, deterministic=False, noise=noise)
            end, log_det = log_abs_det_jacobian(lambda x: self._flow(z, task, mask, x), start, mask, create_graph)
            log_source = mask * (-0.5 * noise.square() - scale - 0.5 * math.log(2 * math.pi))
            # log(1 − tanh²x), which underflows as written.
            log_squash = mask * 2 * (math.log(2) - end - F.softplus(-2 * end))
            log_density = (log_source - log_squash).sum(-1) - log_det
            return mask * end.tanh(), log_density if create_graph else log_density.detach()
