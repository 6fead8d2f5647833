"""The shipped configs are the one source of what the demo and the studies train."""

import logging
import re
import shutil
import warnings

import pytest
import torch
import yaml

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments import recipes, training
from lit_pwm.experiments.recipes import DEMO_POLICY, DEMO_WORLD_MODEL, POLICY, WORLD_MODEL, Recipe
from lit_pwm.paths import config_root


def written(stack):
    """Name of an option → its value, of configs read as plain YAML, later ones over earlier ones."""
    found = {}

    def flatten(content, place):
        for key, value in content.items():
            here = place if key == "init_args" else (*place, key)
            if isinstance(value, dict):
                flatten(value, here)
            elif key != "class_path" and not isinstance(value, list):
                found[".".join(here)] = value

    for name in stack:
        content = yaml.safe_load((config_root() / name.removeprefix("configs/")).read_text())
        flatten({section: content.get(section, {}) for section in ("model", "data")}, ())
    return found


@pytest.mark.parametrize(
    "stack", [WORLD_MODEL, DEMO_WORLD_MODEL, POLICY, DEMO_POLICY], ids=["model", "demo", "policy", "demo"]
)
def test_a_recipe_is_what_its_configs_say(stack):
    recipe, said = Recipe(stack, {"data.store": ["x.h5"]}), written(stack)
    assert len(said) > 10
    for name, value in said.items():
        assert recipe[name] == pytest.approx(value) if isinstance(value, float) else recipe[name] == value, name


def test_options_and_objects_come_over_the_configs():
    recipe = Recipe(WORLD_MODEL, {"data.store": ["a", "b"], "data.batch_size": 7, "model.initial_checkpoint": None})
    assert (recipe["data.store"], recipe["data.batch_size"]) == (["a", "b"], 7)
    recipe["data.batch_size"] = 9
    assert recipe["data.batch_size"] == 9
    with pytest.raises(LitPWMError, match="batch_sise"):
        Recipe(WORLD_MODEL, {"data.store": "a", "data.batch_sise": 7})
    with pytest.raises(LitPWMError, match=r"critic_optimizer\.minibatches"):
        Recipe(POLICY, {"data.store": "a", "model.horizon": 2}).made(logger=False)


def test_files_of_the_same_name_in_the_current_folder_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/pretrain.yaml").write_text("nonsense: 1")
    monkeypatch.chdir(tmp_path)
    assert Recipe(WORLD_MODEL, {"data.store": "a"})["data.horizon"] == 4


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """Changes a shipped config, in a copy of them all, by other words in its text."""

    def change(name, old, new):
        path = tmp_path / "configs" / name
        if not path.exists():
            shutil.copytree(config_root(), tmp_path / "configs")
            monkeypatch.setattr(recipes, "config_root", lambda: tmp_path / "configs")
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))

    return change


def hyper_parameters(checkpoint):
    return torch.load(checkpoint, weights_only=False)["hyper_parameters"]


def test_training_leaves_the_process_as_it_was(small_store, tmp_path):
    """Lightning speaks and warns again, in as many threads as before, also after an error."""
    logger = logging.getLogger("lightning.pytorch")
    before = (logger.level, list(warnings.filters), torch.get_num_threads())
    training.train_world_model([str(small_store)], str(tmp_path / "a"), training.WorldModelPlan(1), 0, progress=False)
    with pytest.raises(LitPWMError):
        training.train_world_model([str(tmp_path / "no.h5")], str(tmp_path / "b"), training.WorldModelPlan(1), 0)
    assert (logger.level, list(warnings.filters), torch.get_num_threads()) == before
    with training.quiet():
        assert not logger.isEnabledFor(logging.WARNING)


def test_the_demos_world_model_follows_the_configs(changed, small_store, tmp_path):
    plan = training.WorldModelPlan(3)
    before = training.train_world_model([str(small_store)], str(tmp_path / "before"), plan, 0, progress=False)
    changed("pretrain_tiny.yaml", "rho: 0.9", "rho: 0.5")
    changed("pretrain_tiny.yaml", "batch_size: 128", "batch_size: 4")
    after = training.train_world_model([str(small_store)], str(tmp_path / "after"), plan, 0, progress=False)
    assert before.curves.keys() == after.curves.keys()
    assert before.curves["train/loss"] != after.curves["train/loss"]
    theirs, ours = (str(hyper_parameters(trained.last)) for trained in (before, after))
    assert re.sub(r"(rho\W+)0\.9\b", r"\g<1>0.5", theirs) == ours != theirs
