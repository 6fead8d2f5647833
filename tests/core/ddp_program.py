"""Trains both modules in one or two processes and leaves what every rank ended with; started by `test_ddp_core.py`.

Usage: ddp_program.py STORE OUT DEVICES. In-process `strategy="ddp"` would start pytest again, hence a program.
"""

from __future__ import annotations

import logging
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from support import fit

from datamodules import MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining, optim
from lit_pwm.errors import LitPWMError
from lit_pwm.models import CriticEnsemble, Dynamics, EndPointError, FlowDynamics, FlowMatching, MLPActor, MLPDynamics

GLOBAL_BATCH, UPDATES = 16, 5


class Record(Callback):
    """What the trainer logged after each update on this rank."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.metrics.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def run(name: str, module: LightningModule, store: Path, out: Path, devices: int, validate: bool = False) -> Trainer:
    """Fits `module` and saves this rank's state under `name`."""
    record = Record()
    data = MultitaskDataModule(
        store, horizon=4, batch_size=GLOBAL_BATCH // devices, batches_per_epoch=1000, val_batches=2, val_horizon=8
    )
    trainer = fit(module, data, UPDATES, devices=devices, strategy="ddp" if devices > 1 else "auto", callbacks=[record])
    result = {"state": module.state_dict(), "metrics": record.metrics, "global_step": trainer.global_step}
    if validate:
        result["validation"] = trainer.validate(module, datamodule=data, verbose=False)[0]
    torch.save(result, out / f"{name}-{devices}-{trainer.global_rank}.pt")
    return trainer


def pretraining(kind: type[Dynamics] = MLPDynamics, **options: Any) -> WorldModelPretraining:
    dynamics = partial(kind, hidden_dim=32, **options)
    return WorldModelPretraining(dynamics=dynamics, latent_dim=32, encoder_dim=32, reward_dim=32, task_dim=4, lr=1e-3)


def policy_learning(checkpoint: Path) -> PolicyLearning:
    return PolicyLearning(
        str(checkpoint),
        actor=partial(MLPActor, hidden_dims=(16,), task_dim=4),
        critic=partial(CriticEnsemble, hidden_dims=(16,), task_dim=4),
        horizon=4,
        critic_optimizer={"passes": 2, "minibatches": 2},
    )


def main(store: Path, out: Path, devices: int) -> None:
    trainer = run("pretraining", pretraining(), store, out, devices, validate=True)
    checkpoint = out / f"world-model-{devices}.ckpt"
    trainer.save_checkpoint(checkpoint)
    run("policy", policy_learning(checkpoint), store, out, devices)
    run("pretraining-flow", pretraining(FlowDynamics), store, out, devices)
    if devices > 1:
        try:
            run(
                "pretraining-matching",
                pretraining(FlowDynamics, loss=EndPointError(matching=FlowMatching())),
                store,
                out,
                devices,
            )
        except LitPWMError as error:
            torch.save({"error": str(error)}, out / f"refused-{devices}-{trainer.global_rank}.pt")
        # The same without our one reduction: what the tests must be able to notice.
        optim._reduce_gradients = lambda parameters: None
        run("pretraining-unreduced", pretraining(), store, out, devices)
        run("policy-unreduced", policy_learning(checkpoint), store, out, devices)


if __name__ == "__main__":
    warnings.filterwarnings("error", message=".*sync_dist.*")  # a nuisance for every user with two devices
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
