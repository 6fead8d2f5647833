"""Oracles of the reference implementations, and the key maps from their weights to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import support
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_pwm.models import CriticEnsemble, MLPActor, MLPDynamics, WorldModel

ORACLES = Path(__file__).parent.parent / "oracles" / "algorithm"
Oracle = dict[str, Tensor]


@pytest.fixture(scope="session")
def oracle() -> Callable[[str], Oracle]:
    """Reads tests/oracles/algorithm/NAME.npz as tensors."""

    def read(name: str) -> Oracle:
        with np.load(ORACLES / f"{name}.npz", allow_pickle=False) as file:
            return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}

    return read


def our_key(key: str) -> str:
    """A world-model key of TD-MPC2 or PWM in our names."""
    pairs = {"_task_emb.": "task_embedding.", "_encoder.state.": "encoder.net.", "_encoder.": "encoder.net."}
    pairs |= {"_dynamics.": "dynamics.net.", "_reward.": "heads.reward.net."}
    for theirs, ours in pairs.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    raise KeyError(key)


def part(oracle: Mapping[str, Tensor], prefix: str) -> Oracle:
    """The entries under `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in oracle.items() if key.startswith(prefix)}


def load_weights(model: WorldModel, weights: Mapping[str, Tensor]) -> None:
    """Give a world model the weights in the reference's names; what it has besides stays."""
    renamed = {our_key(key): value for key, value in weights.items()}
    assert not model.load_state_dict(renamed, strict=False).unexpected_keys


@pytest.fixture(scope="session")
def load_reference() -> Callable[[WorldModel, Mapping[str, Tensor]], None]:
    """`load_weights`."""
    return load_weights


@pytest.fixture(scope="session")
def reference_world_model() -> Callable[..., WorldModel]:
    """Builds a 30-task world model of given widths around weights in the reference's names."""

    def build(weights: Mapping[str, Tensor], latent: int, encoder: int, hidden: int, task_dim: int) -> WorldModel:
        tasks = {f"task-{i}": (24, 6) for i in range(30)}
        model = WorldModel(
            tasks,
            lambda *dims: MLPDynamics(*dims, hidden_dim=hidden, rescale_inputs=False),
            latent_dim=latent,
            encoder_dim=encoder,
            reward_dim=hidden,
            task_dim=task_dim,
        )
        load_weights(model, weights)
        return model

    return build


@pytest.fixture(scope="session")
def reference_actor() -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """PWM's actor weights in the names of `MLPActor`."""

    def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        renamed = {}
        for key, value in weights.items():
            if key == "logstd":
                renamed["log_std.value"] = value
            elif key.startswith("mu_net.9."):
                renamed[key.replace("mu_net.9.", "mean.")] = value
            else:
                renamed[key.replace("mu_net.", "trunk.")] = value
        return renamed

    return rename


@pytest.fixture(scope="session")
def reference_critic() -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """PWM's stacked critic weights in the names and layout of `CriticEnsemble`."""
    names = [f"net.{i}.{kind}" for i in (0, 2, 3, 5, 6) for kind in ("weight", "bias")]

    def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        renamed = {}
        for i, name in enumerate(names):
            value = weights[f"params.{i}"]
            renamed[name] = value.transpose(1, 2) if value.ndim == 3 else value[:, None, :]
        return renamed

    return rename


@pytest.fixture
def pwm_networks(oracle, reference_world_model, reference_actor, reference_critic):
    """The world model, actor and critics of the oracle's PWM update, before the first one."""
    numbers = oracle("pwm_update")
    world_model = reference_world_model(part(numbers, "wm/"), latent=64, encoder=128, hidden=128, task_dim=64)
    actor = MLPActor(64, 6, 30, hidden_dims=(64, 32, 16))
    actor.load_state_dict(reference_actor(part(numbers, "actor0/")) | {"action_mask": torch.ones(30, 6)}, strict=False)
    critic = CriticEnsemble(64, 30, hidden_dims=(32, 16))
    critic.load_state_dict(reference_critic(part(numbers, "critic0/")), strict=False)
    return world_model, actor, critic


# -- what the shipped configs make -----------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def padless_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An episode store of 30 tasks as wide as the oracles' batches, so that no action is padded."""
    from datamodules import EpisodeWriter

    path, rng = tmp_path_factory.mktemp("padless") / "padless.h5", np.random.default_rng(0)
    tasks = {f"task-{number}": (24, 6) for number in range(30)}
    with EpisodeWriter(path, tasks=tasks) as writer:
        for task in tasks:
            obs, action, reward = rng.normal(size=(18, 24)), rng.uniform(-1, 1, (17, 6)), rng.uniform(size=17)
            writer.append(task=task, obs=3 + 2 * obs, action=action, reward=reward, source="drawn")
    return path


class _BeforeTraining(Callback):
    def __init__(self, act: Callable[[Any], None]) -> None:
        self.act = act

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        trainer.should_stop = True
        self.act(pl_module)


@pytest.fixture(scope="session")
def before_training(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trainer]:
    """Starts a run of stacked configs and options, parsed as by `lit-pwm fit`, and acts on the module when it is ready.

    One update of the run's own follows, and the run ends.
    """

    def start(configs: Sequence[str], options: Mapping[str, object], act: Callable[[Any], None]) -> Trainer:
        from lit_pwm.cli.trainer import build

        quiet = {
            "accelerator": "cpu", "devices": 1, "logger": False, "callbacks": "null", "limit_val_batches": 0,
            "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        }  # fmt: skip
        root = tmp_path_factory.mktemp("run")
        own = {"trainer.default_root_dir": root, "data.batch_size": 4, "data.val_fraction": 0}
        argv = [part for name in configs for part in ("--config", name)]
        given = {**{f"trainer.{name}": value for name, value in quiet.items()}, **own, **options}
        cli = build([*argv, *(f"--{name}={value}" for name, value in given.items())], run=False)
        cast("Any", cli.trainer).callbacks.append(_BeforeTraining(act))
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        return cli.trainer

    return start


# -- a linear system, whose future is a function of state and action ---------------------------------------------------
LINEAR_TASKS = {"spring": (2, 1), "spin": (4, 2)}
"""`spring`: a pushed, damped oscillator. `spin`: two of them, of which the second's period is longer."""


def linear_episode(task: str, seed: int, length: int = 60) -> dict[str, np.ndarray]:
    """An episode under held random actions; the reward is highest where the first coordinate is 1."""
    rng = np.random.default_rng(seed)
    pairs, frequencies = (1, [0.9]) if task == "spring" else (2, [0.7, 0.5])
    state = rng.normal(size=(pairs, 2))
    held = rng.uniform(-1, 1, size=(length // 5 + 1, pairs)).repeat(5, axis=0)[:length]
    observations, rewards = [state.reshape(-1).copy()], []
    for action in held:
        for i, frequency in enumerate(frequencies):
            c, s = np.cos(frequency), np.sin(frequency)
            state[i] = 0.97 * np.array([[c, s], [-s, c]]) @ state[i] + np.array([0.0, 0.5 * action[i]])
        observations.append(state.reshape(-1).copy())
        rewards.append(np.exp(-((state[0, 0] - 1) ** 2)))
    return {"obs": np.array(observations), "action": held, "reward": np.array(rewards)}


@pytest.fixture(scope="session")
def linear_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An episode store of both linear tasks, 30 episodes of 60 steps of each."""
    from datamodules import EpisodeWriter

    path = tmp_path_factory.mktemp("linear") / "linear.h5"
    with EpisodeWriter(path, tasks=LINEAR_TASKS) as writer:
        for index in range(30):
            for number, task in enumerate(LINEAR_TASKS):
                writer.append(task=task, **linear_episode(task, 1000 * number + index), source="held")
    return path


@pytest.fixture(scope="session")
def fit() -> Callable[..., Trainer]:
    """Runs a module on the CPU for `updates` updates and returns its trainer."""
    return support.fit


@pytest.fixture
def checkpoint_every(tmp_path: Path) -> Callable[[int], object]:
    """A callback that keeps a checkpoint of every so many updates as `step=K.ckpt` in the test's folder."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    def make(updates: int) -> ModelCheckpoint:
        return ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=updates, save_top_k=-1)

    return make
