"""Trains both modules in one or two processes and leaves what every rank ended with; started by `test_ddp_core.py`.

Usage: ddp_program.py STORE OUT DEVICES. In-process `strategy="ddp"` would start pytest again, hence a program.
"""

from __future__ import annotations

import logging
import random
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numbered_episodes import TASKS, write_ends
from support import fit
from torch import Tensor
from tuned import Saving, schedule

import callbacks
from datamodules import MultitaskDataModule
from datamodules.second_stream import SecondStream
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.models import (
    Actor,
    ChainedMatching,
    CriticEnsemble,
    Dynamics,
    EndPointError,
    EnergyLoss,
    FlowActor,
    FlowDynamics,
    FlowMatching,
    MLPActor,
    MLPDynamics,
    NoiseSource,
)
from lit_pwm.updates import optimized_part

GLOBAL_BATCH, UPDATES = 16, 5


class Record(Callback):
    """What the trainer logged after each update on this rank."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.metrics.append({name: value.item() for name, value in trainer.callback_metrics.items()})


class Blurred(MLPDynamics):
    """Somebody's own dynamics, which declare their noise."""

    noise_shape = (3,)

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor, noise: Tensor | None = None) -> Tensor:
        noise = torch.zeros(*z.shape[:-1], 3) if noise is None else noise
        return super().forward(z + 0.05 * noise.sum(-1, keepdim=True) * z.roll(1, -1), action, embedding)


class Drawing(Callback):
    """Draws from a global generator, which each rank has seeded as it likes."""

    def __init__(self, seeds: bool) -> None:
        self.seeds, self.drawn = seeds, {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.seeds:
            random.seed(100 + trainer.global_rank)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.drawn[trainer.global_step] = random.random()
        if self.seeds and trainer.global_step == 3:
            trainer.save_checkpoint(f"{trainer.default_root_dir}/half.ckpt")


def run(
    name: str, module: LightningModule, store: Path, out: Path, devices: int, validate: bool = False,
    callbacks: tuple[Callback, ...] = (), ckpt_path: Path | None = None, precision: Any = "32-true",
    second: SecondStream | None = None,
) -> Trainer:  # fmt: skip
    """Fits `module` and saves this rank's state under `name`."""
    record = Record()
    data = MultitaskDataModule(
        store,
        horizon=4,
        batch_size=GLOBAL_BATCH // devices,
        batches_per_epoch=1000,
        val_batches=2,
        val_horizon=8,
        second=second,
    )
    trainer = fit(
        module, data, UPDATES, devices=devices, strategy="ddp" if devices > 1 else "auto",
        callbacks=[record, *callbacks], ckpt_path=ckpt_path, precision=precision, default_root_dir=out,
    )  # fmt: skip
    result = {"state": module.state_dict(), "metrics": record.metrics, "global_step": trainer.global_step}
    if validate:
        result["validation"] = trainer.validate(module, datamodule=data, verbose=False)[0]
    torch.save(result, out / f"{name}-{devices}-{trainer.global_rank}.pt")
    return trainer


def pretraining(kind: type[Dynamics] = MLPDynamics, **options: Any) -> WorldModelPretraining:
    dynamics = partial(kind, hidden_dim=32, **options)
    return WorldModelPretraining(dynamics=dynamics, latent_dim=32, encoder_dim=32, reward_dim=32, task_dim=4, lr=1e-3)


def policy_learning(checkpoint: Path, actor: type[Actor] = MLPActor, **options: Any) -> PolicyLearning:
    settings = {
        "actor": partial(actor, hidden_dims=(16,), task_dim=4),
        "critic": partial(CriticEnsemble, hidden_dims=(16,), task_dim=4),
        "horizon": 4,
        "critic_optimizer": {"passes": 2, "minibatches": 2},
    }
    return PolicyLearning(str(checkpoint), **{**settings, **options})


def main(store: Path, out: Path, devices: int) -> None:
    trainer = run("pretraining", pretraining(), store, out, devices, validate=True)
    checkpoint = out / f"world-model-{devices}.ckpt"
    trainer.save_checkpoint(checkpoint)
    run("policy", policy_learning(checkpoint), store, out, devices)
    # Of the models that one process trained, in double precision.
    plain, blurred, sampled = (out / f"{name}.ckpt" for name in ("world-model-1", "blurred", "sampled"))
    if devices == 1:
        run("blurred", pretraining(Blurred), store, out, devices).save_checkpoint(blurred)
        flow = pretraining(FlowDynamics, source=NoiseSource, loss=EnergyLoss)
        run("sampled", flow, store, out, devices).save_checkpoint(sampled)
    flows: dict[str, dict[str, Any]] = {
        "sampled": {"source": NoiseSource, "loss": EnergyLoss},
        "matching": {"source": NoiseSource, "loss": EndPointError(matching=FlowMatching())},
        "chained": {"source": NoiseSource, "loss": ChainedMatching},
    }
    for name, options in flows.items():
        module = pretraining(FlowDynamics, **options)
        run(f"pretraining-{name}", module, store, out, devices, precision="64-true")
    uneven = {"horizon": 5, "critic_optimizer": {"passes": 2, "minibatches": 3, "target_rate": 0.5}}
    exact: dict[str, Any] = {"precision": "64-true"}
    # Slices of episodes that terminated, of which each rank's share holds another number of transitions.
    ended = out / "ended.h5"
    if devices == 1:
        write_ends(
            ended, [(list(TASKS)[n % 3], 1 + n * 5 % 11, n % 4 > 0, n % 8 != 1 or n % 4 == 0) for n in range(60)]
        )
    for name, kind, options in (("mlp", MLPDynamics, {}), ("matching", FlowDynamics, flows["matching"])):
        module = pretraining(kind, **options)
        trainer = run(f"pretraining-ended-{name}", module, ended, out, devices, validate=True, precision="64-true")
        if devices == 1:
            trainer.save_checkpoint(out / f"ended-{name}.ckpt")
    of_ends: dict[str, Any] = {"returns": {"scale": "task"}, **uneven}
    run(
        "policy-ended", policy_learning(out / "ended-mlp.ckpt", **of_ends), ended, out, devices, validate=True,
        **exact,
    )  # fmt: skip
    run("policy-exact", policy_learning(plain, returns={"scale": "task"}), store, out, devices, **exact)
    run("policy-uneven", policy_learning(plain, FlowActor, **uneven), store, out, devices, **exact)
    run("policy-blurred", policy_learning(blurred), store, out, devices, **exact)
    run("policy-sampled", policy_learning(sampled), store, out, devices, **exact)
    # Opened in the middle, one part after the other.
    tuned = schedule(reward=0, dynamics=2, encoder={"update": 2, "warmup_steps": 2})
    both: dict[str, Any] = {"second": SecondStream(3, GLOBAL_BATCH // devices), "callbacks": (tuned,)}
    half = out / f"tuned-half-{devices}.ckpt"
    saving = {**both, "callbacks": (tuned, Saving(3, half))}
    run("policy-tuned", policy_learning(plain), store, out, devices, **saving)
    run("policy-tuned-resumed", policy_learning(plain), store, out, devices, ckpt_path=half, **both)
    run("policy-tuned-sampled", policy_learning(sampled), store, out, devices, **both, **exact)
    run("pretraining-flow", pretraining(FlowDynamics), store, out, devices)
    if devices > 1:
        for name, drawing, path in (("whole", Drawing(True), None), ("resumed", Drawing(False), out / "half.ckpt")):
            extra = (drawing, callbacks.RNGState())
            trainer = run(
                f"policy-{name}", policy_learning(plain), store, out, devices, callbacks=extra, ckpt_path=path
            )
            torch.save({"drawn": drawing.drawn}, out / f"drawn-{name}-{devices}-{trainer.global_rank}.pt")
        # The same without our one reduction: what the tests must be able to notice.
        optimized_part._reduce_gradients = lambda parameters: None  # ty: ignore[invalid-assignment]
        run("pretraining-unreduced", pretraining(), store, out, devices)
        run("policy-unreduced", policy_learning(checkpoint), store, out, devices)
        run("policy-tuned-unreduced", policy_learning(plain), store, out, devices, **both)


if __name__ == "__main__":
    warnings.filterwarnings("error", message=".*sync_dist.*")  # a nuisance for every user with two devices
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
