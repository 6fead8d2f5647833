"""The broken loss is ours but for its reward term, the study's arms are what they say, and its criteria can fail."""

import copy
from dataclasses import replace

import pytest
import torch
from finetuning_figure import figure
from finetuning_study import ARMS, MODELS
from finetuning_table import criteria, sections
from policy_study import Study, pretrain, run_arm, work_of

from benchmarks.broken_reward import BroadcastRewardObjective
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.recipes import Recipe
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import WorldModel


def slices(horizon=3, batch=5):
    generator = torch.Generator().manual_seed(0)
    return {
        "obs": torch.randn(horizon + 1, batch, 4, generator=generator),
        "action": torch.rand(horizon, batch, 2, generator=generator),
        "reward": torch.rand(horizon, batch, generator=generator),
        "task": torch.zeros(batch, dtype=torch.int64),
    }


def test_only_the_rewards_term_is_replaced_by_an_error_against_all_bins():
    torch.manual_seed(0)
    model, batch = WorldModel({"a": (4, 2)}, latent_dim=16, encoder_dim=16, reward_dim=16, task_dim=4), slices()
    with torch.no_grad():
        for parameter in model.reward_head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours, broken = (kind(rho=0.8, coefficients={"reward": 0.5})(model, batch) for kind in KINDS)
    assert torch.equal(ours["consistency"], broken["consistency"])
    assert ours.keys() == broken.keys()
    z, latents = model.encode(batch["obs"][0], batch["task"]), []
    for action in batch["action"]:
        latents.append(z)
        z = model.next(z, action, batch["task"])
    logits = model.reward_logits(torch.stack(latents), batch["action"], batch["task"])
    errors = torch.stack([(logits[..., n] - batch["reward"]).square() for n in range(logits.shape[-1])]).mean(0)
    expected = sum(0.8**t * errors[t].mean() for t in range(3)) / 3
    torch.testing.assert_close(broken["reward"], expected)
    torch.testing.assert_close(broken["total"], ours["total"] + 0.5 * (expected - ours["reward"]))


KINDS = (WorldModelObjective, BroadcastRewardObjective)


@pytest.mark.parametrize("arm", ARMS)
def test_arms_differ_by_what_their_names_say(arm):
    recipe = Recipe(ARMS[arm].configs, {"data.store": "x.h5", **ARMS[arm].options})
    kinds = [entry.class_path for entry in recipe.parsed.trainer.callbacks]
    assert ("callbacks.FinetuneSchedule" in kinds) == (arm not in ("frozen", "longer"))
    assert (recipe["model.world_model"] is not None) == (arm == "scratch")
    assert recipe["model.actor.hidden_dims"] == [128, 128]
    objective = recipe["model.objective"]
    assert ("Broadcast" in str(objective)) == (arm == "broken")
    assert (objective is None) == (arm in ("frozen", "longer", "tuned")), "the model's own"


def made(arm, error, entropy, correlation, seed):
    before, after = (
        {"decoded_error": e, "reward_cross_entropy": c, "reward_correlation": r}
        for e, c, r in ((0.2, 1.0, 0.9), (error, entropy, correlation))
    )
    numbers = {
        "updates": 400,
        "model_updates": 2000,
        "flops": 1e9,
        "cpu_seconds": 60.0,
        "last": [100.0 + seed, 200.0],
        "best": [200.0],
    }
    return {"arm": arm, "seed": seed, "before": None if arm == "scratch" else before, "after": after} | numbers


def arms_of(values):
    return {arm: {seed: made(arm, *numbers, seed) for seed in range(3)} for arm, numbers in values.items()}


def test_the_longer_arm_has_made_as_many_updates_of_its_model_as_the_tuned_one(tmp_path):
    study = Study(ARMS, MODELS, (), tmp_path, tmp_path, 20, 4, 12, longer=("longer-model",))
    assert [study.numbers(arm)["model_updates"] for arm in ("frozen", "longer", "tuned", "scratch")] == [20, 24, 20, 0]
    assert [study.numbers(arm)["updates"] for arm in ("longer", "tuned", "scratch")] == [4, 4, 12]


VALUES = {"frozen": (0.2, 1.0, 0.9), "tuned": (0.208, 1.04, 0.82), "broken": (0.21, 4.6, 0.1)}


def test_criteria_hold_and_fail_one_by_one():
    arms = arms_of(VALUES)
    assert all(one.holds for one in criteria(arms))
    for arm, measure, value, says, ratio in (
        ("tuned", "decoded_error", 0.22, "tuned keeps the decoded error at 16 steps", 1.1),
        ("tuned", "reward_cross_entropy", 1.1, "tuned keeps the reward cross-entropy", 1.1),
        ("tuned", "reward_correlation", 0.81, "tuned keeps the reward correlation", 0.9),
        ("broken", "reward_cross_entropy", 1.05, "broken loses the reward cross-entropy", 1.05),
        ("broken", "reward_correlation", 0.85, "broken loses the reward correlation", 0.85 / 0.9),
    ):
        changed = copy.deepcopy(arms)
        for record in changed[arm].values():
            record["after"][measure] = value
        (failed,) = [one for one in criteria(changed) if not one.holds]
        assert failed.name == says
        assert failed.value == pytest.approx(ratio)


def cells_of(table, *start):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    (found,) = [row[len(start) :] for row in rows if row[: len(start)] == [*start]]
    return found


def test_tables_show_what_the_records_say_at_equal_seeds():
    arms = arms_of(VALUES | {"scratch": (0.1, 2.0, -0.9)})
    arms["tuned"] = {seed: made("tuned", 0.25, 1.0, 0.9, seed) | {"last": [160.0 + seed]} for seed in (1, 2)}
    made_of = sections({"a": arms})
    assert cells_of(made_of["returns"], "a", "frozen")[:3] == ["3", "2000 + 400", "150 (149 to 152)"]
    difference, detectable = cells_of(made_of["returns"], "a", "tuned − frozen")[:2]  # 161 and 162 − 150.5 and 151
    assert difference == "+11 (+8 to +14)"
    assert int(detectable) > 0
    assert "tuned − longer" not in made_of["returns"], "which there are no records of"
    assert "These 11 policies took 11 CPU minutes" in made_of["returns"]
    assert "what other pre-trainings took was not recorded." in made_of["returns"]
    assert cells_of(made_of["models"], "a", "scratch")[:2] == ["–", "0.100 (0.100 to 0.100)"]
    assert cells_of(made_of["ratios"], "a", "tuned ÷ frozen")[0] == "1.250 (1.250 to 1.250)"
    assert cells_of(made_of["ratios"], "a", "scratch ÷ frozen")[2] == "-1.000 (-1.000 to -1.000)"
    assert cells_of(made_of["criteria"], "a", "tuned keeps the decoded error at 16 steps")[2] == "NO"
    assert cells_of(made_of["criteria"], "a", "tuned keeps the reward cross-entropy")[2] == "yes"
    arms["longer"] = {seed: made("longer", 0.125, 1.0, 0.9, seed) for seed in (0, 1, 2)}
    assert cells_of(sections({"a": arms})["ratios"], "a", "tuned ÷ longer")[0] == "2.000 (2.000 to 2.000)"
    assert "NO" not in sections({"a": arms_of({"frozen": VALUES["frozen"]})})["criteria"], "nothing is compared yet"


def test_the_figure_has_a_dot_for_each_seed_and_a_row_for_each_task():
    drawn = figure({"a": arms_of(VALUES), "b": arms_of(VALUES)})
    assert len(drawn.axes) == 2 * 4
    dots = [line for line in drawn.axes[1].lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[VALUES[arm][0]] * 3 for arm in VALUES]
    assert drawn.axes[2].get_xscale() == "log"


@pytest.mark.long
def test_the_study_runs(tmp_path):
    from support import ROOT

    stores = (str(ROOT / "tests" / "fixtures_v1" / "collected.h5"),)
    study = Study(ARMS, MODELS, stores, tmp_path / "runs", tmp_path / "results", 4, 4, 4, episodes=1)
    assert len(work_of(study, ["cartpole-swingup"], list(ARMS), range(7, 9))) == 2 * (len(MODELS) + len(ARMS))
    pretrain(study, "model", 0)
    for arm in ("tuned", "scratch"):
        run_arm(study, arm, "cartpole-swingup", 0)
        assert study.record(arm, "cartpole-swingup", 0).is_file()
    assert run_arm(study, "tuned", "cartpole-swingup", 0) == "finished before"
    other = replace(study, updates=5)
    with pytest.raises(LitPWMError, match="5 updates"):
        run_arm(other, "tuned", "cartpole-swingup", 0)
