"""What docs/differences.md names is there: files, tests, and options with the values that restore the references'."""

import re

import pytest
from support import ROOT

from lit_pwm.experiments.recipes import Recipe

PAGE = (ROOT / "docs" / "differences.md").read_text()
QUOTED = re.findall(r"`([^`\n]+)`", PAGE)
OPTIONS = sorted({text for text in QUOTED if re.fullmatch(r"(model|data|trainer)\.[\w.]+: [\w.]+", text)})
POLICY = ("model.lam", "model.returns", "model.actor", "model.critic")


@pytest.mark.parametrize("name", sorted({text for text in QUOTED if re.fullmatch(r"[\w/]+\.(py|yaml)", text)}))
def test_files_it_names_exist(name):
    assert (ROOT / name).is_file() or (ROOT / "tests" / name).is_file()


def test_it_names_options():
    assert len(OPTIONS) > 10


@pytest.mark.parametrize("option", OPTIONS)
def test_options_it_names_are_accepted(option):
    name, value = option.split(": ")
    is_policy = name.startswith(POLICY)
    stack = ("policy_learning.yaml", "policy/mlp.yaml") if is_policy else ("pretrain.yaml", "world_model/mlp_1m.yaml")
    recipe = Recipe(stack, {"data.store": "x.h5", name: value})
    assert str(recipe[name]).lower() == value


def test_the_exact_stacks_restore_what_it_says_can_be_restored():
    """Options whose restoring value is not the default, or another one than for PWM's models, stand in the stacks."""
    exact = {
        True: Recipe(("policy_learning.yaml", "pwm_exact.yaml"), {"data.store": "x.h5"}),
        False: Recipe(("pretrain.yaml", "world_model/mlp_1m.yaml", "tdmpc2_exact.yaml"), {"data.store": "x.h5"}),
    }
    # TD-MPC2's own horizon, widths for MT80, and what leaves validation out, are named beside.
    beside = {"data.horizon: 3", "model.objective.rho: 0.5", "data.val_fraction: 0.0", "trainer.limit_val_batches: 0"}
    beside |= {"model.world_model.task_dim: 96", "model.world_model.latent_dim: 768"}
    assert beside < set(OPTIONS)
    for option in set(OPTIONS) - beside:
        name, value = option.split(": ")
        is_policy = name.startswith((*POLICY, "trainer.val_check_interval"))
        assert str(exact[is_policy][name]).lower() == value, option
