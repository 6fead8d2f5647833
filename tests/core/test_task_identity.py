"""Wherever a checkpoint meets data or another checkpoint, tasks go by name, or it is refused."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from support import quiet_trainer

from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.errors import LitPWMError
from lit_pwm.models import CriticEnsemble, MLPActor, MLPDynamics

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

DIMS = {"alpha": (3, 1), "beta": (5, 2), "gamma": (5, 2)}
SHIFT = {"alpha": 0.0, "beta": 100.0, "gamma": -50.0}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One store of each task; where their observations lie tells them apart."""
    folder, paths = tmp_path_factory.mktemp("stores"), {}
    for name, (obs_dim, action_dim) in DIMS.items():
        rng, paths[name] = np.random.default_rng(0), folder / f"{name}.h5"
        with EpisodeWriter(paths[name], tasks={name: (obs_dim, action_dim)}) as writer:
            for _ in range(10):
                action = rng.uniform(-1, 1, (40, action_dim))
                obs = SHIFT[name] + rng.standard_normal((41, obs_dim)).cumsum(0)
                writer.append(task=name, obs=obs, action=action, reward=-np.square(action).sum(1), source="script")
    return paths


@pytest.fixture(scope="module")
def data_of(stores):
    """A datamodule of the tasks' stores in this order."""

    def make(*names):
        return MultitaskDataModule([str(stores[name]) for name in names], horizon=3, batch_size=16, val_horizon=3)

    return make


def pretraining(**options):
    sizes = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4}
    return WorldModelPretraining(**{"dynamics": partial(MLPDynamics, hidden_dim=16), **sizes, **options})


def policy_learning(world_model, **options):
    parts = {
        "actor": partial(MLPActor, hidden_dims=(8,), task_dim=4),
        "critic": partial(CriticEnsemble, hidden_dims=(8,), task_dim=4),
    }
    return PolicyLearning(
        str(world_model), **{**parts, "horizon": 2, "critic_optimizer": {"passes": 1, "minibatches": 2}, **options}
    )


@pytest.fixture(scope="module")
def world_models(data_of, fit, tmp_path_factory):
    """World models of alpha and beta, and of beta and alpha, from as many updates."""
    folder, files = tmp_path_factory.mktemp("models"), {}
    for names in (("alpha", "beta"), ("beta", "alpha")):
        files[names] = folder / f"{'-'.join(names)}.ckpt"
        fit(pretraining(), data_of(*names), 6).save_checkpoint(files[names])
    return files


@pytest.fixture(scope="module")
def world_model(world_models):
    return world_models["alpha", "beta"]


@pytest.fixture(scope="module")
def policy(world_model, data_of, fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.ckpt"
    fit(
        policy_learning(world_model, actor_optimizer={"average_rate": 0.5}), data_of("alpha", "beta"), 3
    ).save_checkpoint(path)
    return path


def means(model):
    """Where each task's observations lie, by name."""
    return {name: model.obs_mean[row, : DIMS[name][0]].tolist() for row, name in enumerate(model.task_names)}


def embeddings(model):
    return {name: model.task_embedding.weight[row].tolist() for row, name in enumerate(model.task_names)}


@pytest.mark.parametrize("names", [("beta", "alpha"), ("beta",), ("alpha",)])
def test_resuming_keeps_the_checkpoints_order_whatever_the_stores(world_model, data_of, fit, tmp_path, names):
    resumed = pretraining(lr=0.0)
    trainer = fit(resumed, data_of(*names), 8, ckpt_path=world_model)
    trainer.save_checkpoint(tmp_path / "resumed.ckpt")
    before, after = load_world_model(world_model), load_world_model(tmp_path / "resumed.ckpt")
    assert after.task_names == ("alpha", "beta")
    assert after.tasks == before.tasks
    assert means(after) == means(before)
    assert embeddings(after) == embeddings(before)
    batch = next(iter(trainer.datamodule.train_dataloader()))
    for row, name in enumerate(after.task_names):
        mine = batch["obs"][:, batch["task"] == row, : DIMS[name][0]]
        assert mine.numel() or name not in names
        assert mine.numel() == 0 or abs(mine.mean() - SHIFT[name]) < 30


def test_validation_and_test_with_a_checkpoint_measure_the_same_whatever_the_order(world_model, data_of, fit):
    found = []
    for names in (("alpha", "beta"), ("beta", "alpha")):
        trainer = quiet_trainer(1)
        keywords = {"datamodule": data_of(*names), "ckpt_path": world_model, "verbose": False, "weights_only": True}
        (validated,) = trainer.validate(pretraining(), **keywords)
        (tested,) = trainer.test(pretraining(), **keywords)
        found.append((validated["val/latent_error_1"], tested["test/latent_error_1"]))
    assert found[1] == pytest.approx(found[0], rel=0.2)  # other windows; with the tasks exchanged it is thousands


def test_a_model_that_exists_already_is_bound_to_the_data_of_every_run(world_model, data_of, fit):
    module = WorldModelPretraining.load_from_checkpoint(world_model, dynamics=partial(MLPDynamics, hidden_dim=16))
    data = data_of("beta", "alpha")
    fit(module, data, 1)
    assert data._binding.task_ids.tolist() == [1, 0]
    third = data_of("beta", "gamma")
    with pytest.raises(LitPWMError, match=r"'gamma', which the model does not know"):
        fit(module, third, 1)


def test_bare_loaders_are_refused_because_nobody_knows_how_they_number_tasks(world_model, data_of):
    data = data_of("beta", "alpha")
    data.setup()
    module = WorldModelPretraining.load_from_checkpoint(world_model)
    trainer = quiet_trainer(1)
    with pytest.raises(LitPWMError, match=r"names of tasks from the data.*NoneType.*MultitaskDataModule"):
        trainer.validate(module, dataloaders=data.val_dataloader(), verbose=False)


def test_a_task_of_the_same_name_and_other_widths_is_refused(world_model, fit, tmp_path):
    with EpisodeWriter(tmp_path / "alpha.h5", tasks={"alpha": (4, 1)}) as writer:
        for _ in range(4):
            writer.append(
                task="alpha", obs=np.zeros((21, 4)), action=np.zeros((20, 1)), reward=np.zeros(20), source="s"
            )
    data = MultitaskDataModule(tmp_path / "alpha.h5", horizon=3, batch_size=4)
    with pytest.raises(LitPWMError, match=r"'alpha' has 4 observation and 1 action entries in the data, and 3 and 1"):
        fit(pretraining(initial_checkpoint=str(world_model)), data, 1)


def test_tasks_that_a_checkpoint_does_not_hold_are_refused(world_model, data_of, fit):
    with pytest.raises(LitPWMError, match=r"'gamma'.*data's tasks are alpha, gamma; the model's are alpha, beta"):
        fit(pretraining(), data_of("alpha", "gamma"), 8, ckpt_path=world_model)
    with pytest.raises(LitPWMError, match=r"task_set is 'mt30'.*knows alpha, beta"):
        fit(pretraining(task_set="mt30", initial_checkpoint=str(world_model)), data_of("alpha"), 1)


def test_a_policy_is_resumed_by_the_names_of_tasks(policy, world_models, data_of, fit, tmp_path):
    before = load_policy(policy)
    obs = {name: np.full((2, DIMS[name][0]), SHIFT[name], np.float32) for name in ("alpha", "beta")}
    for file, names in [
        (world_models["alpha", "beta"], ("beta", "alpha")),
        (world_models["beta", "alpha"], ("alpha", "beta")),
        (world_models["beta", "alpha"], ("beta",)),
    ]:
        resumed = policy_learning(
            file,
            actor_optimizer={"lr": 1e-30, "final_lr": 1e-30, "average_rate": 0.5},
            critic_optimizer={"lr": 1e-30, "final_lr": 1e-30, "passes": 1, "minibatches": 2},
        )
        fit(resumed, data_of(*names), 4, ckpt_path=policy).save_checkpoint(tmp_path / "resumed.ckpt")
        after = load_policy(tmp_path / "resumed.ckpt")
        assert after.task_names == after.trained_tasks == ("alpha", "beta")
        assert means(after.world_model) == means(before.world_model)
        assert after.actor.action_mask.tolist() == [[1, 0], [1, 1]]
        for name, rows in obs.items():
            np.testing.assert_allclose(after.act(rows, name), before.act(rows, name), atol=0.05)


def test_a_policy_goes_on_with_its_own_tasks_only(policy, data_of, fit, tmp_path):
    three = tmp_path / "three.ckpt"
    fit(pretraining(), data_of("alpha", "beta", "gamma"), 1).save_checkpoint(three)
    trained = tmp_path / "trained.ckpt"
    fit(policy_learning(three), data_of("beta"), 1).save_checkpoint(trained)
    with pytest.raises(LitPWMError, match=r"was trained for beta, and the data also holds gamma.*initial_policy"):
        fit(policy_learning(three), data_of("gamma", "beta"), 2, ckpt_path=trained)


def test_a_resumed_policy_needs_no_file_but_its_own(policy, data_of, fit, tmp_path):
    """The world model that it began with may be missing, or another one by now."""
    three = tmp_path / "three.ckpt"
    fit(pretraining(), data_of("alpha", "beta", "gamma"), 1).save_checkpoint(three)
    trained = load_policy(policy).world_model.state_dict()
    for file in (three, tmp_path / "missing.ckpt"):
        resumed = policy_learning(file, initial_policy_checkpoint=str(tmp_path / "gone.ckpt"))
        fit(resumed, data_of("beta"), 4, ckpt_path=policy)
        assert resumed.world_model.task_names == ("alpha", "beta")
        assert all(torch.equal(value, trained[key]) for key, value in resumed.world_model.state_dict().items())
    wider = policy_learning(three, critic=partial(CriticEnsemble, hidden_dims=(9,), task_dim=4))
    with pytest.raises(LitPWMError, match=r"policy\.ckpt.*another kind or size.*critic\.init_args\.hidden_dims"):
        fit(wider, data_of("beta"), 4, ckpt_path=policy)
    scaled = policy_learning(three, returns={"scale": "task"})
    with pytest.raises(LitPWMError, match=r"trained with returns.scale 'shared', and this run has 'task'"):
        fit(scaled, data_of("beta"), 4, ckpt_path=policy)


def test_a_policy_continues_only_on_a_world_model_that_numbers_tasks_alike(
    policy, world_models, data_of, fit, tmp_path
):
    for names, shown in ((("beta", "alpha"), "beta, alpha"), (("alpha", "gamma"), "alpha, gamma")):
        file = tmp_path / f"{shown}.ckpt"
        fit(pretraining(), data_of(*names), 1).save_checkpoint(file)
        module = policy_learning(file, initial_policy_checkpoint=str(policy))
        with pytest.raises(LitPWMError, match=rf"policy\.ckpt.*tasks alpha, beta, in this order.*has {shown}"):
            fit(module, data_of("alpha"), 1)
    module = policy_learning(world_models["alpha", "beta"], initial_policy_checkpoint=str(policy))
    fit(module, data_of("beta", "alpha"), 1)
    assert module.trained_tasks == ("beta", "alpha")


def test_masks_are_made_from_the_world_model_and_those_of_old_checkpoints_ignored(policy, world_model, data_of, fit):
    content = torch.load(policy, weights_only=True)
    assert not [key for key in content["state_dict"] if "action_mask" in key]
    for part in ("actor", "averaged_actor"):  # as checkpoints of earlier versions have it, but of other tasks
        content["state_dict"][f"{part}.action_mask"] = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    old = policy.with_name("old.ckpt")
    torch.save(content, old)
    resumed = policy_learning(world_model, actor_optimizer={"average_rate": 0.5})
    fit(resumed, data_of("alpha", "beta"), 4, ckpt_path=old)
    continued = policy_learning(world_model, initial_policy_checkpoint=str(old))
    fit(continued, data_of("alpha", "beta"), 1)
    alone = PolicyLearning.load_from_checkpoint(old)
    for actor in (load_policy(old).actor, *(m.averaged_actor for m in (resumed, continued, alone)), alone.actor):
        assert actor.action_mask.tolist() == [[1, 0], [1, 1]]
