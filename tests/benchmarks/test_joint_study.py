"""The joint study's arms are what their names say, its curves count what they cost, and its controls are right."""

import json

import numpy as np
import pytest
from constant_actions import ConstantPolicy, constant_returns, data_returns, grid
from joint_study import ARMS, MODELS, all_work, controls
from policy_study import Study, learning_curve, run_arm
from support import ROOT

from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.evaluator import evaluate_task
from lit_pwm.experiments.recipes import Recipe
from lit_pwm.experiments.training import Trained

STORES = (str(ROOT / "tests" / "fixtures_v1" / "collected.h5"),)
TASK = "cartpole-swingup"


def study_in(folder, **numbers):
    return Study(ARMS, MODELS, STORES, folder / "runs", folder / "results", **numbers)


@pytest.mark.parametrize("arm", ARMS)
def test_arms_differ_by_what_their_names_say(arm):
    kind, dynamics = arm.split("-")
    recipe = Recipe(ARMS[arm].configs, {"data.store": "x.h5", **ARMS[arm].options})
    callbacks = [entry.class_path for entry in recipe.parsed.trainer.callbacks]
    assert ("callbacks.FinetuneSchedule" in callbacks) == (kind == "joint")
    assert callbacks.count("callbacks.ComputeLedger") == 1
    assert recipe["model.actor.hidden_dims"] == [128, 128]
    fresh = ARMS[arm].model is None
    assert fresh == (kind == "joint")
    model = recipe if fresh else Recipe(MODELS[ARMS[arm].model], {"data.store": "x.h5"})
    assert {"mlp": "MLPDynamics", "flow": "FlowDynamics"}[dynamics] in str(model["model.world_model.dynamics"])


def test_each_pre_training_is_done_once_for_those_that_need_it(tmp_path):
    work = all_work(study_in(tmp_path), [TASK], list(ARMS), range(100, 102))
    assert len(work) == 2 * (2 + 4) + 1
    assert work[f"{TASK} frozen-flow 101"].needs == ("flow-model 101",)
    assert work[f"{TASK} joint-flow 101"].needs == ()
    assert len(all_work(study_in(tmp_path), [TASK], ["joint-mlp"], range(3))) == 3 + 1


def test_an_evaluation_is_put_at_the_updates_and_flops_before_it():
    curves = {"eval/return": [(9, 1.0), (19, 2.0), (21, 3.0)], "compute/flops": [(4, 50.0), (14, 150.0), (19, 200.0)]}
    curve = learning_curve(Trained("", 0.0, "", curves, 0.0), updates=22, flops=220.0)
    assert curve == {"updates": [10.0, 20.0, 22.0], "flops": [100.0, 200.0, 220.0], "returns": [1.0, 2.0, 3.0]}


def test_a_policy_refuses_a_model_of_another_pre_training(tmp_path):
    study = study_in(tmp_path, model_updates=30)
    left = study.pretrained("mlp-model", 0)
    left.parent.mkdir(parents=True)
    left.write_text(json.dumps({"updates": 20, "checkpoint": "x.ckpt", "flops": 1.0, "cpu_seconds": 1.0}))
    with pytest.raises(LitPWMError, match=r"20 updates.*asks for 30 updates"):
        run_arm(study, "frozen-mlp", TASK, 0)


def test_constant_actions_are_a_grid_with_zero_and_act_the_same_everywhere():
    assert grid(1, 5) == [(-1.0,), (-0.5,), (0.0,), (0.5,), (1.0,)]
    assert len(grid(1)) == 21
    for width in (2, 3):
        assert (0.0,) * width in grid(width)
        assert len(set(grid(width))) == 3**width
    actions = ConstantPolicy("cup-catch", (0.5, -1.0)).act(np.zeros((3, 8)), "cup-catch")
    assert actions.tolist() == [[0.5, -1.0]] * 3


def test_a_constant_actions_return_is_that_of_an_evaluation():
    (low, mid, high) = constant_returns(TASK, episodes=1, seed=7, most=3)
    assert [low[0], mid[0], high[0]] == [(-1.0,), (0.0,), (1.0,)]
    assert high[1] == evaluate_task(ConstantPolicy(TASK, (1.0,)), TASK, 1, 7).returns[0]
    assert high[1] > mid[1] + 10, "the cart without a push stays where the pole hangs"


def test_the_datas_returns_are_those_of_the_tasks_episodes():
    store = EpisodeStore(STORES[0])
    rewards = [episode.reward for episode in store if episode.task == TASK]
    assert rewards
    found = data_returns(STORES * 2, TASK)
    assert found == pytest.approx([np.nansum(one, dtype=np.float64) for one in rewards] * 2)


@pytest.mark.long
def test_the_study_runs(tmp_path):
    study = study_in(tmp_path, updates=4, scratch_updates=4, model_updates=4, episodes=1)
    work = all_work(study, [TASK], ["frozen-flow", "joint-flow"], range(3, 4))
    for one in work.values():
        one.call.function(*one.call.arguments)
        assert one.leaves.is_file()
    joint, frozen = (json.loads(study.record(arm, TASK, 3).read_text()) for arm in ("joint-flow", "frozen-flow"))
    assert joint["pretraining"] is None
    assert joint["learning"]["updates"] == [1.0, 2.0, 3.0, 4.0]
    assert joint["learning"]["flops"][-1] == joint["flops"]
    assert frozen["learning"]["flops"][-1] + frozen["pretraining"]["flops"] == frozen["flops"]
    assert frozen["pretraining"]["updates"] == 4
    assert json.loads(controls(study, TASK).read_text())["best_constant"]["return"] > 0
