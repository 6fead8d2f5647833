"""The broken loss is ours but for its reward term, the study's arms are what they say, and its criteria can fail."""

import copy
from dataclasses import replace

import pytest
import torch
from finetuning_study import ARMS, MODELS
from finetuning_table import criteria, rows
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
    after = {"decoded_error": error, "reward_cross_entropy": entropy, "reward_correlation": correlation}
    numbers = {"flops": 1e9, "cpu_seconds": 60.0}
    return {"arm": arm, "seed": seed, "last": [100.0 + seed, 200.0], "after": after, **numbers}


def test_criteria_hold_and_fail_one_by_one():
    values = {"frozen": (0.2, 1.0, 0.9), "tuned": (0.208, 1.04, 0.82), "broken": (0.21, 4.6, 0.1)}
    arms = {arm: {seed: made(arm, *numbers, seed) for seed in range(3)} for arm, numbers in values.items()}
    assert all(criteria(arms).values())
    assert [row[1] for row in rows("a", arms)] == ["frozen", "tuned", "broken"]
    for arm, measure, value, says in (
        ("tuned", "decoded_error", 0.22, "tuned keeps the decoded error"),
        ("tuned", "reward_cross_entropy", 1.1, "tuned keeps the cross-entropy"),
        ("tuned", "reward_correlation", 0.8, "tuned keeps the correlation"),
        ("broken", "reward_cross_entropy", 1.04, "broken loses the cross-entropy"),
        ("broken", "reward_correlation", 0.85, "broken loses the correlation"),
    ):
        changed = copy.deepcopy(arms)
        for record in changed[arm].values():
            record["after"][measure] = value
        assert [name for name, ok in criteria(changed).items() if not ok] == [says]


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
