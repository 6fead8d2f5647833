"""Small real runs of both modules, for the callbacks that measure them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import support
from lightning.pytorch.loggers import CSVLogger

from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.models import CriticEnsemble, FlowActor, FlowDynamics, MLPActor, MLPDynamics, RefinementDynamics

DYNAMICS = {"mlp": MLPDynamics, "flow": FlowDynamics, "refinement": RefinementDynamics}
ACTORS = {"mlp": MLPActor, "flow": FlowActor}
SIZES = {"latent_dim": 16, "encoder_dim": 24, "reward_dim": 32, "task_dim": 4}


@pytest.fixture(scope="session")
def walks(tmp_path_factory):
    """A store of two tasks, of episodes of 40 steps."""
    path = tmp_path_factory.mktemp("walks") / "walks.h5"
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, tasks={"walk": (3, 1), "turn": (5, 2)}) as writer:
        for _ in range(20):
            for task, (width, actions) in {"walk": (3, 1), "turn": (5, 2)}.items():
                action = rng.uniform(-1, 1, (40, actions))
                obs = rng.standard_normal((41, width)).cumsum(0) / 5
                writer.append(task=task, obs=obs, action=action, reward=np.abs(action[:, 0]), source="t")
    return path


@pytest.fixture(scope="session")
def pretraining():
    """Makes a small pre-training module of a kind of dynamics."""

    def make(kind="mlp", **options):
        return WorldModelPretraining(**{"dynamics": partial(DYNAMICS[kind], hidden_dim=20), **SIZES, **options})

    return make


@pytest.fixture(scope="session")
def policy_learning():
    """Makes a small policy-learning module of a kind of actor."""

    def make(checkpoint, kind="mlp", **options):
        settings = {
            "actor": partial(ACTORS[kind], hidden_dims=(12, 8)),
            "critic": partial(CriticEnsemble, hidden_dims=(8,)),
            "horizon": 4,
            "critic_optimizer": {"passes": 2},
        }
        return PolicyLearning(str(checkpoint), **{**settings, **options})

    return make


@pytest.fixture(scope="session")
def run(walks):
    """Runs a module for some updates under `root`, with a CSV log, and returns its trainer."""

    def fit(module, root, callbacks=(), updates=6, seed=1, batch_size=16, ckpt_path=None, data=None, **options):
        settings = {
            "val_check_interval": 4, "check_val_every_n_epoch": None, "limit_val_batches": 2,
            "logger": CSVLogger(root, name="", version=""), "default_root_dir": root, "callbacks": list(callbacks),
        }  # fmt: skip
        data = data or MultitaskDataModule(walks, horizon=3, val_horizon=3, batch_size=batch_size, batches_per_epoch=40)
        return support.fit(module, data, updates, seed, ckpt_path, **{**settings, **options})

    return fit


@pytest.fixture(scope="session")
def world_model_files(pretraining, run, tmp_path_factory):
    """Checkpoints of world models after a few updates, by kind of dynamics."""
    root = tmp_path_factory.mktemp("world_models")
    files = {}
    for kind in DYNAMICS:
        trainer = run(pretraining(kind, lr=1e-2), root / kind, updates=20)
        files[kind] = root / f"{kind}.ckpt"
        trainer.save_checkpoint(files[kind])
    return files
