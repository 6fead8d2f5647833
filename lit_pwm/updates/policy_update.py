"""One update of policy learning: actor and critics on what the world model imagines (PWM, arXiv 2407.02466)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from lit_pwm.batch import Batch
from lit_pwm.discounting import Discounting
from lit_pwm.imagination import Imagined, discounted_return, imagine, td_lambda
from lit_pwm.options.return_units import ReturnOptions
from lit_pwm.runtime.casts import cached_casts
from lit_pwm.updates.optimized_part import OptimizedPart, Rates
from lit_pwm.updates.over_ranks import averaged_over_ranks
from lit_pwm.updates.policy_draws import PolicyDraws
from lit_pwm.updates.world_model_steps import WorldModelSteps


class PolicyUpdate(PolicyDraws):
    """The part of policy learning that an update is; a subclass sets the attributes in its constructor.

    Attributes:
        gamma: discount.
        discounting: what the policy believes of ends.
        lam: λ of the critics' targets.
        returns: in which units rewards are trained on, and what returns are divided by.
    """

    gamma: float
    discounting: Discounting
    lam: float
    returns: ReturnOptions

    def update(
        self,
        batch: Batch,
        noise: Mapping[str, Tensor],
        minibatches: Sequence[Tensor],
        rates: Rates | None = None,
        terminal_discount: float | None = None,
    ) -> dict[str, Tensor]:
        """One update: the world model if it is due, the actor, and the critics.

        The actor steps once, on what the world model imagines after its own step, and the critics once for each
        minibatch of the same imagined states.

        It reads no number on the host, and moves nothing if a loss or gradient of it is not finite on any rank
        (`lit_pwm.updates.atomic_update`, whose `require` says so).

        Args:
            batch: slices, of which the first observations `obs[0]` [B, O] and `task` [B] are used; and under `second`
                those that the world model learns from, if parts of it are open and it is due.
            noise: standard normal numbers: `actor` [H, B, A], and `dynamics` [H, B, *noise_shape] where the dynamics
                sample; and what `world_model_noise` names.
            minibatches: the critics' minibatches in order, each as indices [n] into the H·B imagined states, of which
                state t of start b is number t·B + b.
            rates: learning rates by the name of the group: `actor`, `critic`, and, where the world model is due, those
                of its parts; as the schedules left them if not given.
            terminal_discount: factor of the last state's value in returns, beside Π c_k; γ^H if not given.

        Returns:
            What is logged, scalars of this rank without gradient, by name.
        """
        task, actor, critic = batch["task"], self.optimized["actor"], self.optimized["critic"]
        for part in (actor, critic):
            part.set_rates(rates)
        discount = {} if terminal_discount is None else {"terminal_discount": terminal_discount}
        draws = [noise[name] for name in ("actor", "dynamics") if name in noise]
        steps = cast("WorldModelSteps", self.model_steps)
        second = steps.due(batch)
        with self._atomic as update:
            if second is not None:
                steps.part.set_rates(rates)
                with steps.training():
                    steps.step(self.world_model_loss(second, noise), update)
            with torch.no_grad():
                z = self.world_model.encode(batch["obs"][0], task)
            with cached_casts(self.device, frozen=[self.world_model, self.target_critic]):
                rollout, returns = self.imagined_returns(z, task, *draws, **discount)
            self.return_stats.merge(-returns, task)
            loss = self.actor_loss(returns, task)
            actor_norm = actor.compute_gradients(loss)
            update.watch("actor", loss, actor_norm)
            critic_loss, critic_norm = self._fit_critics(rollout, task, minibatches, critic)
        update.step(actor)
        if second is not None:
            steps.follow(update)
        update.follow(self.target_critic, self.critic, self.critic_optimizer.target_rate)
        update.follow(self.averaged_actor, self.actor, self.actor_optimizer.average_rate)
        return {
            "imagined_return": returns.detach().mean(),
            "actor_loss": loss.detach(),
            "critic_loss": critic_loss,
            "actor_gradient_norm": actor_norm,
            "critic_gradient_norm": critic_norm,
            "imagined_reward": self._mean_reward(rollout),
            "return_std": self.return_stats.var.sqrt().mean().float(),
        }

    def world_model_loss(self, batch: Batch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a step of the world model descends on (`total`), and its parts, for slices of the second stream."""
        return cast("WorldModelSteps", self.model_steps).loss(batch, noise)

    def imagined_returns(
        self,
        z: Tensor,
        task: Tensor,
        noise: Tensor,
        dynamics_noise: Tensor | None = None,
        *,
        terminal_discount: float | None = None,
    ) -> tuple[Imagined, Tensor]:
        """What an update of the actor is made from; nothing of this module changes.

        Args:
            z: first latents [B, Z].
            task: task ids [B].
            noise: the actor's standard normal noise [H, B, A].
            dynamics_noise: that of dynamics which sample [H, B, *noise_shape].
            terminal_discount: factor of the last state's value, beside Π c_k; γ^H if not given.

        Returns:
            The rollout, and the return of each start [B], Σ_t (Π_{k<t} γ c_k) r_t + (Π_{k<H} γ c_k) min V(z_H), with
            gradient to the actor through rewards, latents and c.
        """
        found = imagine(
            self.world_model, self.actor, z, task, noise, self.returns.reward_space, self.actor_optimizer.detach_input,
            dynamics_noise=dynamics_noise, discounting=self.discounting,
        )  # fmt: skip
        rollout = replace(found, rewards=self.returns.reward_scale * found.rewards)
        rewards, value = rollout.rewards, self.target_critic.minimum(rollout.latents[-1], task)
        if (survival := rollout.survival) is not None:
            rewards, value = survival[:-1] * rewards, survival[-1] * value
        return rollout, discounted_return(rewards, value, self.gamma, terminal_discount)

    def actor_loss(self, returns: Tensor, task: Tensor) -> Tensor:
        """PWM's loss of returns [B]: their negative mean, divided by the running deviation of all returns so far."""
        deviation = (self.return_stats.var + 1e-5).sqrt().to(returns.dtype)
        if self.returns_of_each_task:
            return -(returns / deviation[task]).mean()
        return -returns.mean() / deviation

    def _mean_reward(self, rollout: Imagined) -> Tensor:
        """The mean imagined reward; its average over ranks, which see as many starts each, is that of all of them."""
        if rollout.survival is None:
            return rollout.rewards.detach().mean()
        rewards, weights = rollout.counted()
        return rewards / averaged_over_ranks(weights)

    def critic_loss(self, states: Tensor, task: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean of all critics' squared errors, each times its weight where weights are given; not over their sum.

        Args:
            states: latents [N, Z].
            task: ids [N].
            targets: TD(λ) targets [N].
            weights: [N].
        """
        errors = (self.critic(states, task) - targets).square()
        return (errors if weights is None else weights * errors).mean()

    def _fit_critics(
        self, rollout: Imagined, task: Tensor, minibatches: Sequence[Tensor], critic: OptimizedPart
    ) -> tuple[Tensor, Tensor]:
        """Step once for each minibatch; returns the mean loss and the last gradient norm.

        With c, targets discount by γ c_t and a state's error counts by P(the episode has not ended before it).
        """
        latents = rollout.latents.detach()
        gamma = self.gamma if rollout.continuation is None else self.gamma * rollout.continuation.detach()
        with torch.no_grad():
            next_values = self.target_critic.minimum(latents[1:], task)
            targets = td_lambda(rollout.rewards.detach(), next_values, gamma, self.lam).flatten()
        states, tasks = latents[:-1].flatten(0, 1), task.expand(self.horizon, -1).flatten()
        of_states = [states, tasks, targets]
        if rollout.survival is not None:
            of_states.append(rollout.survival[:-1].detach().flatten())
        factors, losses, norm = self._deal(len(task)).factors, [], torch.zeros(())
        for number, chosen in enumerate(minibatches):
            with cached_casts(self.device):
                loss = self.critic_loss(*(values[chosen] for values in of_states))
            if (factor := factors[number % len(factors)]) != 1:
                loss = factor * loss
            norm = critic.compute_gradients(loss)
            critic.step()
            losses.append(loss.detach())
            self._atomic.watch(f"critic (minibatch {len(losses)})", loss, norm)
        return torch.stack(losses).mean(), norm
