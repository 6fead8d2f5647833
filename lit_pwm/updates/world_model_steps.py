"""The world model's own steps while a policy learns on it: who is trained, by which loss, from which draws."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pwm.batch import Batch
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models.world_model import WorldModel
from lit_pwm.pulls import Pull
from lit_pwm.runtime.casts import cached_casts
from lit_pwm.updates.atomic_update import AtomicUpdate
from lit_pwm.updates.draws import Draws
from lit_pwm.updates.finetuning import Plan
from lit_pwm.updates.optimized_part import OptimizedPart
from lit_pwm.updates.over_ranks import averaged_over_ranks

_NOISE = "world model, "
"""Before the names of what these steps draw, so that it shares no stream with the policy's."""
_METRICS = {"total": "world_model_loss", "reward": "reward_cross_entropy"}
"""Names of parts of the loss that metrics call otherwise."""


class WorldModelSteps:
    """Steps of a world model within the updates of a policy, by the world model's own objective.

    Which parts are open is a function of (schedule, update), to which `arrive` brings parts and rates; moments, and all
    that the policy has learned, go on. The objective runs in training mode, with gradients of the open parts alone;
    outside of `training` the model is in evaluation mode and takes none.

    Args:
        module: that trains the policy.
        world_model: the model.
        objective: what it descends on.
        part: the optimizer of all its parameters.
        plan: when which of them opens.
        pull: what keeps it near `pretrained`, if anything.
        pretrained: what it was; needed where there is a pull.

    Attributes:
        values: what the last step found, by the names of metrics, averaged over ranks; empty before the first.
    """

    def __init__(
        self,
        module: LightningModule,
        world_model: WorldModel,
        objective: WorldModelObjective,
        part: OptimizedPart,
        plan: Plan,
        pull: Pull | None = None,
        pretrained: WorldModel | None = None,
    ) -> None:
        self._module, self.world_model, self.objective, self.part = module, world_model, objective, part
        self.plan, self._pull, self._pretrained = plan, pull, pretrained
        self.values: dict[str, Tensor] = {}
        self._found: dict[str, Tensor] = {}
        part.open(plan.openings)
        part.create_states()
        self.is_open = False

    def arrive(self, update: int) -> None:
        """Open what this update trains, and set the rates that it steps with."""
        names = self.plan.open_at(update)
        self.part.open(names)
        self.part.set_rates(self.plan.rates_at(update))
        self.is_open = bool(names)

    def rates(self) -> dict[str, float]:
        """The learning rates of the parts that the schedule names, by the names of metrics."""
        groups = self.part.optimizer.param_groups
        found = {group["name"]: group["lr"] for group in groups if group["name"] in self.plan.openings}
        return {f"learning_rate_{name}": float(rate) for name, rate in found.items()}

    def due(self, batch: Batch) -> Batch | None:
        """The slices that the model is to learn from in the update of this batch; None where it makes no step."""
        return batch.get("second") if self.is_open else None

    # -- a step -----------------------------------------------------------------------------------------------------
    def noise(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """What a step on these slices draws, [B, *shape] each, under names of its own."""
        horizon = len(batch["action"])
        shapes = self.objective.noise_shapes(self.world_model, horizon)
        if self._pull is not None:
            shapes = shapes | self._pull.noise_shapes(self.world_model, horizon)
        names = ((f"{_NOISE}{name}", shape) for name, shape in shapes.items())
        return {name: draws.normal(name, len(batch["task"]), shape) for name, shape in names}

    @contextmanager
    def training(self) -> Generator[None, None, None]:
        """A block in which the model is in training mode and its open parts take gradients."""
        self.world_model.train()
        self.objective.train()
        for parameter in self.part.parameters:
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter in self.part.parameters:
                parameter.requires_grad_(False)
            self.world_model.eval()

    def loss(self, batch: Batch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a step descends on (`total`) and its parts, scalars; within `training`."""
        drawn = {name.removeprefix(_NOISE): value for name, value in noise.items() if name.startswith(_NOISE)}
        with cached_casts(self._module.device, frozen=[self.world_model]):
            parts = self.objective(self.world_model, batch, drawn)
            if self._pull is not None and self._pretrained is not None:
                own = {id(p): name for name, p in self.world_model.named_parameters()}
                pairs = [(p, self._pretrained.get_parameter(own[id(p)])) for p in self.part.parameters]
                pull = self._pull.term(self.world_model, self._pretrained, pairs, batch, drawn)
                parts = parts | {"total": parts["total"] + pull, "pull": pull}
        return parts

    def step(self, parts: Mapping[str, Tensor], update: AtomicUpdate) -> None:
        """Step by the loss and its parts, within `training` and within `update`."""
        norm = self.part.compute_gradients(parts["total"])
        update.watch("world-model", parts["total"], norm)
        self.part.step()
        values = {_METRICS.get(name, name): part.detach() for name, part in parts.items()}
        self._found = self._over_ranks(values | {"world_model_gradient_norm": norm})

    def accept(self) -> None:
        """Keep what the step found as `values`, once the update has been made."""
        if self._found:
            self.values, self._found = self._found, {}

    def _over_ranks(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Averaged at once: they may be logged, or saved, some updates later."""
        if self._module._trainer is None or self._module.trainer.world_size == 1:
            return values
        together = averaged_over_ranks(torch.stack([value.float() for value in values.values()]))
        return dict(zip(values, together, strict=True))

    def follow(self, update: AtomicUpdate) -> None:
        """Let the objective's slow copies follow, after `update`'s block."""
        for slow, fast, rate in self.objective.followers(self.world_model):
            update.follow(slow, fast, rate)
