"""What a run costs: parameters, evaluations, FLOPs, seconds, memory."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import nn

from callbacks.measuring import write_metrics
from lit_pwm.batch import Batch
from lit_pwm.errors import LitPWMError
from lit_pwm.measures.compute import (
    KnownCosts,
    Stopwatch,
    UpdateCost,
    cost_of_update,
    counting,
    decides_evaluations,
    device_name,
    peak_memory,
)
from lit_pwm.measures.compute_record import ComponentRecord, ComputeRecord
from lit_pwm.models.component import Component
from lit_pwm.models.parity import count_parameters
from lit_pwm.optim import logs_now
from lit_pwm.policy_learning import PolicyLearning
from lit_pwm.pretraining import WorldModelPretraining
from lit_pwm.runtime.atomic import replacing

RECORD = "compute.json"
FORMAT_VERSION = 1


@dataclass
class Totals:
    """Sums over the updates of a run, over all ranks, also those before it was resumed; seconds are wall-clock."""

    updates: int = 0
    samples: int = 0
    seconds: float = 0.0
    flops: float = 0.0


class ComputeLedger(Callback):
    """Records what a run costs, so that results can be compared at equal compute.

    Logs at the updates at which the Trainer logs: `compute/flops` and `compute/seconds`, sums since the run's first
    update, `compute/samples_per_second` since the last logged update, and `compute/peak_memory_bytes`. At the end, also
    when the run is interrupted, writes `compute.json` into the run's folder (`default_root_dir`); docs/metrics.md
    explains its entries.

    Seconds are those within training steps (on a GPU, of the kernels they launch): data, validation and other callbacks
    are left out. FLOPs and evaluations are counted in the first update of each kind (shapes of slices, and the parts of
    a policy's world model that are trained), which is slower for it: its seconds are those of the updates beside it.
    While training, the module's `training_step` is wrapped, so that what other callbacks compute is never counted. The
    evaluations of a part whose solver chooses its steps by what it computes are counted in every update, and its FLOPs
    follow from them. Weights are the same to the bit with and without it.

    Hooks: `on_train_start`, `on_train_batch_end`, `on_train_end`, `on_exception`, `teardown`. The sums are in
    checkpoints. Under several ranks, FLOPs and samples are this rank's times their number.
    """

    def __init__(self) -> None:
        self.totals = Totals()
        self._costs: dict[Hashable, KnownCosts] = {}
        self._last: UpdateCost | None = None
        self._evaluations: dict[str, int] = {}
        self._updates_evaluated = 0
        self._measured_uncounted = 0
        self._logged = Totals()
        self._watch: Stopwatch | None = None

    # -- measuring --------------------------------------------------------------------------------------------------
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the training step."""
        parts = swapped_parts(pl_module)
        varying = {name: part for name, part in parts.items() if decides_evaluations(part)}
        step, watch = pl_module.training_step, Stopwatch(pl_module.device)
        self._watch = watch
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self._logged = Totals(**asdict(self.totals))

        @wraps(step)
        def measured(batch: Batch, *arguments: object, **options: object) -> object:
            costs = self._costs.setdefault(_kind_of_update(pl_module, batch), KnownCosts(list(varying)))
            if costs.settled:
                with counting(varying) as evaluated:
                    watch.start()
                    result = step(batch, *arguments, **options)
                    watch.stop(1 + self._measured_uncounted)  # updates that were counted take the time of the next
                self._measured_uncounted = 0
                cost = costs.of(evaluated)
            else:
                result, cost = cost_of_update(lambda: step(batch, *arguments, **options), parts)
                costs.add(cost)
                self._measured_uncounted += 1
            self._add(trainer, cost, batch["task"].numel())
            return result

        cast("Any", pl_module).training_step = measured

    def _add(self, trainer: Trainer, cost: UpdateCost, samples: int) -> None:
        totals, self._last = self.totals, cost
        totals.updates += 1
        totals.samples += samples * trainer.world_size
        totals.flops += cost.flops * trainer.world_size
        self._updates_evaluated += 1
        for name, evaluations in cost.nfe.items():
            self._evaluations[name] = self._evaluations.get(name, 0) + evaluations

    def _settle(self) -> None:
        """Add the seconds of the updates since the last time, which waits for a GPU to have done them."""
        if self._watch is not None:
            self.totals.seconds += self._watch.take()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Log the sums."""
        if not logs_now(pl_module):
            return
        self._settle()
        since = self.totals.seconds - self._logged.seconds
        metrics: dict[str, float] = {
            "compute/flops": self.totals.flops,
            "compute/seconds": self.totals.seconds,
            "compute/peak_memory_bytes": peak_memory(pl_module.device),
        }
        if since > 0:
            metrics["compute/samples_per_second"] = (self.totals.samples - self._logged.samples) / since
        write_metrics(trainer, pl_module, metrics)
        self._logged = Totals(**asdict(self.totals))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Unwrap the training step."""
        self._unwrap(pl_module)

    @staticmethod
    def _unwrap(module: LightningModule) -> None:
        module.__dict__.pop("training_step", None)

    # -- keeping ----------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, object]:
        """The sums."""
        self._settle()
        evaluated = {"updates": self._updates_evaluated, "by_part": dict(self._evaluations)}
        return asdict(self.totals) | {"evaluated": evaluated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the sums of the run that is resumed."""
        totals = dict(state_dict)
        evaluated = totals.pop("evaluated", {"updates": 0, "by_part": {}})  # which older checkpoints do not hold
        self.totals = Totals(**totals)
        self._updates_evaluated, self._evaluations = evaluated["updates"], dict(evaluated["by_part"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record."""
        self._write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the record of a run that ends early, if it had begun, and unwrap the training step."""
        self._unwrap(pl_module)
        if self._last is not None:
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero and not cast("Any", trainer).fast_dev_run:
            with replacing(Path(trainer.default_root_dir) / RECORD, "The record of what a run costs") as beside:
                beside.write_text(json.dumps(self.record(trainer, module), indent=1) + "\n", encoding="utf-8")

    def record(self, trainer: Trainer, module: LightningModule) -> ComputeRecord:
        """The content of compute.json, plain values."""
        self._settle()
        totals, parts = self.totals, swapped_parts(module)
        parity = module.parity() if isinstance(module, (WorldModelPretraining, PolicyLearning)) else None
        updates = max(1, self._updates_evaluated)
        nfe = {name: _plain(total / updates) for name, total in self._evaluations.items()}
        return {
            "format": FORMAT_VERSION,
            "module": type(module).__name__,
            "components": {
                name: cast("ComponentRecord", part.description())
                for name, part in parts.items()
                if isinstance(part, Component)
            },
            "parameters": parameters_by_part(module),
            "parity": None if parity is None else parity.to_json(),
            "updates": totals.updates,
            "samples": totals.samples,
            "seconds": totals.seconds,
            "flops": totals.flops,
            "flops_per_update": _plain(totals.flops / totals.updates) if totals.updates else None,
            "nfe_per_update": _plain(sum(nfe.values())),
            "nfe_per_update_by_part": nfe,
            "seconds_per_update": totals.seconds / totals.updates if totals.updates else None,
            "samples_per_second": totals.samples / totals.seconds if totals.seconds else None,
            "peak_memory_bytes": peak_memory(module.device),
            "device": device_name(module.device),
            "world_size": trainer.world_size,
            "threads": torch.get_num_threads(),
            "precision": str(trainer.precision),
            "torch": torch.__version__,
        }


def _kind_of_update(module: LightningModule, batch: Batch) -> Hashable:
    """What its cost depends on: shapes of slices, and which parts of a policy's world model learn from which."""
    steps = module.model_steps if isinstance(module, PolicyLearning) else None
    second = None if steps is None else steps.due(batch)
    shapes = tuple(batch["action"].shape), None if second is None else tuple(second["action"].shape)
    return shapes if steps is None or second is None else (*shapes, steps.part.names)


def _plain(mean: float) -> float:
    """A mean of whole numbers that are the same as a whole number."""
    return int(mean) if mean == int(mean) else mean


def swapped_parts(module: LightningModule) -> dict[str, nn.Module]:
    """The parts that a comparison swaps and whose evaluations are counted."""
    if isinstance(module, WorldModelPretraining):
        return {"dynamics": module.world_model.dynamics}
    if isinstance(module, PolicyLearning):
        return {"dynamics": module.world_model.dynamics, "actor": module.actor}
    raise LitPWMError(
        f"ComputeLedger records WorldModelPretraining and PolicyLearning, but the Trainer fits a "
        f"{type(module).__name__}. Remove the callback from trainer.callbacks."
    )


def parameters_by_part(module: LightningModule) -> dict[str, int]:
    """Numbers of parameters of the parts and of all together; target networks and averages are not counted."""
    if not isinstance(module, (WorldModelPretraining, PolicyLearning)):
        return {"total": count_parameters(module)}
    model = module.world_model
    parts: dict[str, nn.Module] = {"world_model": model, **model.parts()}
    whole: list[nn.Module] = [model]
    if isinstance(module, PolicyLearning):
        parts |= {"actor": module.actor, "critic": module.critic}
        whole += [module.actor, module.critic]
    found = {name: count_parameters(part) for name, part in parts.items()}
    return {"total": sum(count_parameters(part) for part in whole)} | {name: n for name, n in found.items() if n}
