"""Two processes in which updates are refused, and how each rank ends; started by `test_ddp_refusals.py`.

Usage: ddp_refusals.py STORE OUT.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from support import quiet_trainer
from torch import Tensor

import callbacks
from benchmarks.encoder_steadying import SteadiedObjective
from datamodules import MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.errors import LitPWMError
from lit_pwm.models import CriticEnsemble, Dynamics, MLPActor, MLPDynamics

BAD = 2


class DroppingOut(MLPDynamics):
    """Somebody's own dynamics, which draw."""

    def forward(self, z: Tensor, action: Tensor, embedding: Tensor) -> Tensor:
        return super().forward(torch.nn.functional.dropout(z, 0.1), action, embedding)


class Plant(Callback):
    """Lets a function of the module go wrong in one update, at its n-th call, on rank 1 alone."""

    def __init__(self, name: str, call: int) -> None:
        self.name, self.call, self.before = name, call, {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step != BAD:
            return
        self.before = {name: value.clone() for name, value in pl_module.state_dict().items()}
        own, calls = getattr(pl_module, self.name), []

        def spoiled(*arguments: Tensor) -> Tensor:
            calls.append(1)
            return own(*arguments) * (torch.nan if trainer.global_rank == 1 and len(calls) == self.call else 1.0)

        setattr(pl_module, self.name, spoiled)


def pretraining(kind: type[Dynamics] = MLPDynamics, **options: Any) -> WorldModelPretraining:
    sizes = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4}
    return WorldModelPretraining(dynamics=partial(kind, hidden_dim=16), **sizes, **options)


def policy_learning(checkpoint: Path) -> PolicyLearning:
    critic = partial(CriticEnsemble, hidden_dims=(8,), task_dim=4)
    return PolicyLearning(
        str(checkpoint), actor=partial(MLPActor, hidden_dims=(8,), task_dim=4), critic=critic, horizon=4
    )


def main(store: Path, out: Path) -> None:
    def run(name: str, module: LightningModule, *extra: Callback) -> Trainer:
        """Fits `module` and saves how this rank ended under `name`."""
        seed_everything(1, verbose=False)
        trainer = quiet_trainer(
            BAD + 2, devices=2, strategy="ddp", default_root_dir=out / name,
            callbacks=[*extra, callbacks.NonFiniteGuard()],
        )  # fmt: skip
        data = MultitaskDataModule(store, horizon=3, batch_size=8, batches_per_epoch=10)
        result: dict[str, Any] = {"error": "", "code": 0}
        try:
            trainer.fit(module, datamodule=data)
        except LitPWMError as error:
            result = {"error": str(error), "code": error.exit_code}
        plant = next((callback for callback in extra if isinstance(callback, Plant)), None)
        result |= {"state": module.state_dict(), "before": plant.before if plant else {}, "step": trainer.global_step}
        torch.save(result, out / f"{name}-{trainer.global_rank}.pt")
        return trainer

    plain = out / "plain.ckpt"
    run("plain", pretraining()).save_checkpoint(plain)
    run("actor", policy_learning(plain), Plant("actor_loss", 1))
    run("critic", policy_learning(plain), Plant("critic_loss", 17))

    run("sigreg", pretraining(objective=SteadiedObjective(sigreg_coef=1.0)))
    rank = run("own", pretraining(DroppingOut)).global_rank
    # A world model of these dynamics, which no two ranks can have trained.
    content = torch.load(plain, weights_only=True)
    content["lit_pwm"]["world_model"]["dynamics"]["class_path"] = "__main__.DroppingOut"
    own = out / f"own-{rank}.ckpt"
    torch.save({key: value for key, value in content.items() if "checksum" not in key}, own)
    run("policy-own", policy_learning(own))


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
