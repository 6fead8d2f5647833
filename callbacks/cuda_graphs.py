"""Updates on a GPU as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError
from lit_pwm.imagination import Imagined
from lit_pwm.models import FlowActor, FlowDynamics
from lit_pwm.policy_learning import PolicyLearning
from lit_pwm.pretraining import WorldModelPretraining
from lit_pwm.runtime.graphs import Function, graphed
from lit_pwm.updates.world_model_steps import WorldModelSteps

_MODEL_LOSS = "world_model_loss"


class CUDAGraphs(Callback):
    """Replays the losses of either module and their gradients as CUDA graphs (`lit_pwm.runtime.graphs.graphed`).

    Updates of small networks wait for kernels to be launched, hundreds for each imagined or unrolled step; a graph
    launches all of them at once. Which numbers are computed does not change. docs/gpu.md has the gain by size.

    The first update of a run is made without, so that what others measure in it (`ComputeLedger`'s operations) is
    there; graphs are recorded after it, in about a second. They keep the memory of an update for themselves. Batches of
    another size than the first are trained on without a graph. Where a policy's world model is trained too, its step
    has a graph of its own. When other parts of the model open, the next update with a step is made without graphs, and
    this one is recorded anew; no other is. Nothing of it is in checkpoints. Hooks: `on_train_start` (checks),
    `on_train_batch_start`, `on_train_batch_end`, `teardown`.

    Raises:
        LitPWMError: the Trainer does not run on a CUDA device, or fits another module; a flow chooses its steps by what
            it computes (dopri5, the adjoint); or several ranks train a flow by flow matching or an energy score, whose
            running variances are averaged over ranks within the loss.
    """

    device_type: ClassVar[str] = "cuda"
    record: ClassVar[Callable[..., Function]] = staticmethod(graphed)
    """What makes a function of tensors another that gives the same; a test on another device puts a plain call here."""

    def __init__(self) -> None:
        self._recorded: dict[str, Callable[..., object]] = {}
        self._made: set[frozenset[str]] = set()
        self._kind = frozenset[str]()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that it can be done."""
        if not isinstance(pl_module, (WorldModelPretraining, PolicyLearning)):
            raise LitPWMError(
                f"CUDAGraphs speeds up WorldModelPretraining and PolicyLearning, but the Trainer fits a "
                f"{type(pl_module).__name__}. Remove the callback from trainer.callbacks."
            )
        if pl_module.device.type != self.device_type:
            raise LitPWMError(
                f"CUDAGraphs needs a CUDA device, but the Trainer runs on {pl_module.device}. Remove the callback from "
                f"trainer.callbacks, or set trainer.accelerator to gpu."
            )
        _check_solvers(pl_module)
        dynamics = pl_module.world_model.dynamics
        averages = dynamics.averages_over_ranks
        trained = isinstance(pl_module, WorldModelPretraining) or pl_module.finetuning is not None
        if trainer.world_size > 1 and averages and trained:
            raise LitPWMError(
                f"CUDAGraphs cannot record a loss that averages over ranks, as that of {type(dynamics).__name__} does "
                f"with flow matching or an energy score, and there are {trainer.world_size} ranks. Remove the callback "
                f"from trainer.callbacks, or train on one device."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let recordings take the place of functions in updates of a kind that has been made."""
        self._kind = _kind_of_update(pl_module, batch)
        if self._kind not in self._made:
            self._restore(pl_module)
            return
        for name, function in self._recorded.items():
            setattr(pl_module, name, function)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the first update of a kind, record what it needs, on batches like its own."""
        if self._kind in self._made:
            return
        with trainer.precision_plugin.train_step_context():
            if isinstance(pl_module, WorldModelPretraining):
                self._recorded["update_loss"] = _update_loss(pl_module, batch, self.record)
                self._made.add(self._kind)
            else:
                self._record_policy(cast("PolicyLearning", pl_module), batch)

    def _record_policy(self, module: PolicyLearning, batch: Batch) -> None:
        steps, trained = cast("WorldModelSteps", module.model_steps), self._kind
        if trained and trained != steps.part.names:  # others open in the next update, which makes their kind
            return
        if "imagined_returns" not in self._recorded:
            self._recorded |= _policy_functions(module, batch, self.record)
        if trained:
            with steps.training():
                self._recorded[_MODEL_LOSS] = _model_loss(module, batch, self.record)
            self._made = {kind for kind in self._made if not kind}  # of earlier openings nothing is left
        self._made.add(trained)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its own functions back."""
        self._forget(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Likewise."""
        self._forget(pl_module)

    def _forget(self, module: LightningModule) -> None:
        self._restore(module)
        self._recorded, self._made = {}, set()

    def _restore(self, module: LightningModule) -> None:
        for name in self._recorded:
            module.__dict__.pop(name, None)


def _kind_of_update(module: LightningModule, batch: Batch) -> frozenset[str]:
    """Which parts of a policy's world model an update trains: by this it calls other functions than others do."""
    steps = module.model_steps if isinstance(module, PolicyLearning) else None
    return frozenset() if steps is None or steps.due(batch) is None else frozenset(steps.part.names or ())


def _check_solvers(module: WorldModelPretraining | PolicyLearning) -> None:
    flows = [part for part in module.modules() if isinstance(part, (FlowDynamics, FlowActor))]
    for flow in flows:
        adjoint = getattr(flow, "adjoint", False)
        if flow.solver.evaluations is None or adjoint:
            raise LitPWMError(
                f"CUDAGraphs records a fixed sequence of kernels, but {type(flow).__name__} integrates by "
                f"{'the adjoint' if adjoint else type(flow.solver).__name__}, which looks at what it computes. "
                f"Choose the solver FixedStep without adjoint, or remove the callback."
            )


def _update_loss(
    module: WorldModelPretraining, batch: Batch, record: Callable[..., Function]
) -> Callable[..., dict[str, Tensor]]:
    noise = module.update_noise(batch)
    return _loss(module.update_loss, [module.world_model], batch, noise, record)


def _model_loss(
    module: PolicyLearning, batch: Batch, record: Callable[..., Function]
) -> Callable[..., dict[str, Tensor]]:
    steps, slices = cast("WorldModelSteps", module.model_steps), batch["second"]
    modules = [module.world_model, steps.objective]
    return _loss(module.world_model_loss, modules, slices, module.world_model_noise(batch), record)


def _loss(
    own: Callable[..., dict[str, Tensor]],
    modules: Sequence[nn.Module],
    batch: Batch,
    noise: Mapping[str, Tensor],
    record: Callable[..., Function],
) -> Callable[..., dict[str, Tensor]]:
    """A loss with its parts, of slices and noise, recorded."""
    drawn, parts = list(noise), list[str]()
    fields = [name for name in Batch.__annotations__ if name in batch and name != "second"]

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        slices = cast("Batch", dict(zip(fields, inputs, strict=False)))
        found = own(slices, dict(zip(drawn, inputs[len(fields) :], strict=True)))
        parts[:] = found
        return tuple(part if name == "total" else part.detach() for name, part in found.items())

    def tensors(batch: Batch, noise: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        held = cast("dict[str, Tensor]", batch)
        return *(held[name] for name in fields), *(noise[name] for name in drawn)

    replay = record(function, modules, tensors(batch, noise))
    return lambda batch, noise: dict(zip(parts, replay(*tensors(batch, noise)), strict=True))


def _policy_functions(
    module: PolicyLearning, batch: Batch, record: Callable[..., Function]
) -> dict[str, Callable[..., object]]:
    own_returns, own_critic_loss = module.imagined_returns, module.critic_loss

    def returns(z: Tensor, task: Tensor, *noise: Tensor) -> tuple[Tensor, ...]:
        rollout, returns = own_returns(z, task, *noise)
        return *(value.detach() for value in rollout.tensors()), returns

    task = batch["task"]
    with torch.no_grad():
        z = module.world_model.encode(batch["obs"][0], task)
    noise = tuple(module.update_noise(len(task)).values())
    replay = record(returns, [module.world_model, module.actor, module.target_critic], (z, task, *noise))

    def imagined_returns(z: Tensor, task: Tensor, *noise: Tensor) -> tuple[Imagined, Tensor]:
        *rollout, returns = replay(z, task, *noise)
        return Imagined(*rollout), returns

    rollout, _ = imagined_returns(z, task, *noise)
    chosen = module.update_minibatches(len(task))[0]
    states = rollout.latents[:-1].flatten(0, 1)[chosen]
    tasks = task.expand(module.horizon, -1).flatten()[chosen]
    targets = rollout.rewards.flatten()[chosen]
    weights = () if rollout.survival is None else (rollout.survival[:-1].flatten()[chosen],)
    of_states = states, tasks, targets, *weights
    replay_critic = record(lambda *inputs: (own_critic_loss(*inputs),), [module.critic], of_states)
    return {"imagined_returns": imagined_returns, "critic_loss": lambda *inputs: replay_critic(*inputs)[0]}
