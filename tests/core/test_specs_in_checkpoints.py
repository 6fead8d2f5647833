"""Checkpoints keep the specs of their tasks, which the data brings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import fit

from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining, load_world_model
from lit_pwm.checkpoints import DESCRIPTION_KEY, load_policy
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks import task_spec

SMALL = {"latent_dim": 16, "task_dim": 4}
TASKS = {"cup-catch": (8, 2), "mine": (8, 2), "nameless": (3, 1)}


def write(path, *specs):
    with EpisodeWriter(path, TASKS, specs=specs) as writer:
        for name, (obs_dim, action_dim) in TASKS.items():
            for number in range(4):
                drawn = np.random.default_rng(number)
                writer.append(
                    task=name, obs=drawn.normal(size=(9, obs_dim)), action=drawn.uniform(-1, 1, (8, action_dim)),
                    reward=np.ones(8),
                )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("specs")
    mine = replace(task_spec("cup-catch"), name="mine", episode_length=8)
    store = write(folder / "s.h5", mine)
    trainer = fit(WorldModelPretraining(world_model=SMALL), data(store), 1)
    trainer.save_checkpoint(folder / "wm.ckpt")
    return folder


def data(store):
    return MultitaskDataModule(str(store), horizon=3, batch_size=4, val_batches=1, val_fraction=0.25)


def test_a_world_models_specs_are_the_stores_or_this_processs(pretrained):
    specs = load_world_model(pretrained / "wm.ckpt").task_specs
    assert specs["mine"]["episode_length"] == 8
    assert specs["mine"]["versions"]
    assert specs["cup-catch"]["episode_length"] == 500  # of a task that is registered here
    assert "versions" not in specs["cup-catch"]  # by which simulators its data was made is not known
    assert "nameless" not in specs


def test_a_policys_are_its_world_models_and_its_datas(pretrained):
    module = PolicyLearning(str(pretrained / "wm.ckpt"))
    trainer = fit(module, data(pretrained / "s.h5"), 1)
    trainer.save_checkpoint(pretrained / "policy.ckpt")
    assert load_policy(pretrained / "policy.ckpt").world_model.task_specs == module.world_model.task_specs
    assert module.world_model.task_specs["mine"]["domain"] == "ball_in_cup"


def test_a_file_without_specs_is_read_as_before_and_one_with_others_is_damaged(pretrained, tmp_path):
    content = torch.load(pretrained / "wm.ckpt", weights_only=True)
    del content[DESCRIPTION_KEY]["task_specs"]
    torch.save(content, tmp_path / "old.ckpt")
    assert load_world_model(tmp_path / "old.ckpt").task_specs == {}
    for wrong in (3, {"mine": 3}, ["mine"]):
        content[DESCRIPTION_KEY]["task_specs"] = wrong
        torch.save(content, tmp_path / "wrong.ckpt")
        with pytest.raises(LitPWMError, match=r"its task_specs are .* a spec for each of some tasks"):
            load_world_model(tmp_path / "wrong.ckpt")
