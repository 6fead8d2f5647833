"""Runs start from files of other formats: tasks are found by name, and what is carried is dropped with a notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from foreign_files import current_file, original_file, world_model_weights
from support import fit

from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_world_model
from lit_pwm.errors import LitPWMError
from lit_pwm.models import CriticEnsemble, MLPActor
from lit_pwm.tasks import TASK_SETS

TASKS = {"cup-catch": (8, 2), "walker-walk": (24, 6), "cheetah-run": (17, 6)}
"""Of MT30, in another order than there."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("store") / "three.h5", np.random.default_rng(0)
    with EpisodeWriter(path, tasks=TASKS) as writer:
        for task, (obs, action) in TASKS.items():
            for _ in range(2):
                drawn = {"obs": rng.normal(size=(21, obs)), "action": rng.uniform(-1, 1, (20, action))}
                writer.append(task=task, reward=rng.uniform(size=20), source="drawn", **drawn)
    return path


def data(store):
    return MultitaskDataModule(store=store, horizon=4, batch_size=48, val_fraction=0, num_workers=0)


def policy_of(checkpoint, **options):
    actor, critic = (
        (lambda *dims: MLPActor(*dims, hidden_dims=(8,))),
        (lambda *dims: CriticEnsemble(*dims, hidden_dims=(8,))),
    )
    return PolicyLearning(checkpoint, actor=actor, critic=critic, horizon=4, **options)


def test_pretraining_goes_on_from_a_file_of_mt30_with_those_tasks_embeddings(store, saved, tmp_path, capsys):
    path = saved(original_file(world_model_weights()))
    before, module = load_world_model(path), WorldModelPretraining(initial_checkpoint=str(path))
    trainer = fit(module, data(store), 1, limit_val_batches=0)
    assert (
        "also holds _pi, _Qs, _target_Qs, which do not fit a model that is trained further" in capsys.readouterr().err
    )
    assert module.world_model.task_names == TASK_SETS["mt30"]
    moved = (module.world_model.task_embedding.weight - before.task_embedding.weight).abs().amax(1)
    gradient = module.world_model.task_embedding.weight.grad.abs().amax(1)
    used = [before.task_names.index(name) for name in TASKS]
    assert sorted(gradient.nonzero().flatten().tolist()) == sorted(used)
    assert (moved[used] > 0).all()
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    assert "foreign" not in torch.load(tmp_path / "trained.ckpt", weights_only=True)


def test_a_policy_starts_on_a_file_whose_tasks_are_named(store, saved, capsys):
    content = current_file(world_model_weights(rows=3), action_dims=[6, 2, 6])
    path, names = saved(content), ["walker-walk", "cup-catch", "cheetah-run"]
    with pytest.raises(LitPWMError, match=r"holds 3 tasks.*--model\.checkpoint_tasks"):
        fit(policy_of(str(path)), data(store), 1, limit_val_batches=0)
    module = policy_of(str(path), checkpoint_tasks=names)
    fit(module, data(store), 1, limit_val_batches=0)
    assert "_detach_Qs_params, _target_Qs_params, which have no use in this run" in capsys.readouterr().err
    assert module.world_model.task_names == tuple(names)
    assert module.hparams["checkpoint_tasks"] == names
    state = module.world_model.state_dict()
    assert all(
        torch.equal(state[key], value) for key, value in load_world_model(path, tasks=names).state_dict().items()
    )


def test_pretraining_takes_names_too(store, saved):
    path = saved({"model": world_model_weights(rows=3)})
    module = WorldModelPretraining(initial_checkpoint=str(path), checkpoint_tasks=list(TASKS))
    fit(module, data(store), 1, limit_val_batches=0)
    assert module.world_model.tasks == TASKS
    with pytest.raises(LitPWMError, match="tasks"):
        fit(
            WorldModelPretraining(initial_checkpoint=str(path), checkpoint_tasks=["a", "b", "c"]),
            data(store),
            1,
            limit_val_batches=0,
        )


def test_a_run_from_a_foreign_file_is_resumed_without_it(store, saved, tmp_path):
    path = saved({"model": world_model_weights(rows=3)})
    options = {"initial_checkpoint": str(path), "checkpoint_tasks": list(TASKS)}
    fit(WorldModelPretraining(**options), data(store), 1, limit_val_batches=0).save_checkpoint(tmp_path / "one.ckpt")
    path.unlink()
    resumed = WorldModelPretraining(**options)
    fit(resumed, data(store), 2, limit_val_batches=0, ckpt_path=tmp_path / "one.ckpt")
    assert resumed.world_model.tasks == TASKS
