"""Evaluation: the same to the bit however it is run, recorded, and refused where it makes no sense."""

import json
import multiprocessing
import os
import signal
from importlib.metadata import version

import numpy as np
import pytest

import lit_pwm
from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.acting import act_for_seeds
from lit_pwm.evaluation.evaluator import (
    EvaluationResult,
    Evaluator,
    RandomPolicy,
    TaskResult,
    evaluate_policy,
    evaluate_task,
    print_result,
    write_result,
)
from lit_pwm.tasks import make_env, task_spec
from lit_pwm.tasks.vector import close_vector_env, make_vector_env

TASK = "cheetah-run"  # its contacts make the smallest difference grow


@pytest.fixture(scope="module")
def policy(network_policy):
    return network_policy(TASK, "cup-catch")


@pytest.fixture(scope="module")
def returns(policy):
    return evaluate_task(policy, TASK, 4, 20, mode="sync").returns


def by_hand(policy, task, seed):
    """The definition, without any of evaluation's code: one environment, one row of the policy's batch of 16."""
    env = make_env(task)
    obs, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        batch = np.zeros((16, len(obs)), np.float32)
        batch[seed % 16] = obs
        obs, reward, terminated, truncated, _ = env.step(policy.act(batch, task)[seed % 16])
        total += reward
        ended = terminated or truncated
    return total


def test_a_return_is_the_sum_of_the_rewards_of_the_episode_of_its_seed(policy, returns):
    assert len(set(returns)) == 4
    assert returns[0] == by_hand(policy, TASK, 20)
    assert returns[3] == by_hand(policy, TASK, 23)


def test_workers_give_the_same_returns_to_the_bit(policy, returns):
    assert evaluate_task(policy, TASK, 4, 20, mode="async").returns == returns


def test_a_return_does_not_depend_on_the_episodes_beside_it(policy, returns):
    assert evaluate_task(policy, TASK, 1, 22, mode="sync").returns == returns[2:3]
    assert evaluate_task(policy, TASK, 2, 22, mode="sync").returns == returns[2:]


def test_an_action_depends_on_the_seed_and_the_observation_alone(policy):
    """Rounding may depend on a row's place in the batch, so a seed has a place of its own."""
    obs = np.random.default_rng(0).normal(size=(16, 17)).astype(np.float32)
    seeds = list(range(37, 53))
    together = act_for_seeds(policy, TASK, obs, seeds)
    alone = [act_for_seeds(policy, TASK, obs[i : i + 1], [seed])[0] for i, seed in enumerate(seeds)]
    np.testing.assert_array_equal(together, alone)
    order = np.random.default_rng(1).permutation(16)
    shuffled = act_for_seeds(policy, TASK, obs[order], [seeds[i] for i in order])
    np.testing.assert_array_equal(shuffled, together[order])


def test_a_return_does_not_depend_on_the_number_of_environments(policy, returns):
    env = make_vector_env(TASK, 2, "sync")
    assert evaluate_task(policy, TASK, 4, 20, vector_env=env).returns == returns
    assert not env.closed
    close_vector_env(env)


@pytest.mark.slow
def test_more_episodes_than_environments_follow_each_other(policy, returns):
    many = evaluate_task(policy, TASK, 17, 7, mode="sync").returns
    assert len(many) == 17
    assert many[13:17] == returns


def test_an_evaluator_gives_the_same_again_and_in_any_order_of_tasks(policy, returns):
    with Evaluator([TASK, "cup-catch"], 2, 20, mode="sync") as evaluator:
        first, second = evaluator.run(policy), evaluator.run(policy)
    assert first.tasks == second.tasks
    assert first.tasks[TASK].returns == returns[:2]
    other = evaluate_policy(policy, ["cup-catch", TASK], 2, 20, mode="sync")
    assert list(other.tasks) == ["cup-catch", TASK]
    assert dict(other.tasks) == dict(first.tasks)


@pytest.fixture
def made(monkeypatch):
    """The vectors of environments that evaluation makes; holding them here keeps their finalizers from tidying up."""
    vectors = []

    def make(*arguments):
        vectors.append(make_vector_env(*arguments))
        return vectors[-1]

    monkeypatch.setattr("lit_pwm.evaluation.evaluator.make_vector_env", make)
    return vectors


def test_an_evaluator_keeps_its_environments_and_closes_them_for_sure(short_task, constant_policy, made):
    before, policy = set(multiprocessing.active_children()), constant_policy([1.0], [short_task])

    def run_and_fail():
        with Evaluator([short_task], 2, 0, mode="async") as evaluator:
            evaluator.run(policy)
            workers = set(multiprocessing.active_children()) - before
            assert len(workers) == 2
            evaluator.run(policy)
            assert set(multiprocessing.active_children()) - before == workers
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_and_fail()
    assert [env.closed for env in made] == [True]
    assert set(multiprocessing.active_children()) <= before


def test_a_policy_that_fails_leaves_no_process_behind(short_task, constant_policy, made):
    before = set(multiprocessing.active_children())
    with pytest.raises(LitPWMError, match="not finite"):
        evaluate_task(constant_policy([np.nan], [short_task]), short_task, 2, 0, mode="async")
    assert [env.closed for env in made] == [True]
    assert set(multiprocessing.active_children()) <= before


def test_a_worker_that_dies_is_reported_and_the_others_end(constant_policy):
    env = make_vector_env("pendulum-swingup", 2, "async")
    os.kill(env.processes[1].pid, signal.SIGKILL)
    env.processes[1].join()
    with pytest.raises(LitPWMError, match="ended unexpectedly"):
        evaluate_task(constant_policy([0], ["pendulum-swingup"]), "pendulum-swingup", 2, 0, vector_env=env)
    close_vector_env(env)
    assert not env.processes[0].is_alive()


def test_the_policy_is_asked_in_batches_of_one_shape(constant_policy):
    policy = constant_policy([0.1, -0.1], ["cup-catch"])
    evaluate_task(policy, "cup-catch", 3, 0, mode="sync", deterministic=False)
    assert set(policy.seen) == {((16, 8), np.dtype(np.float32), "cup-catch", False)}
    assert len(policy.seen) == 500


def test_progress_counts_every_step_of_every_episode(constant_policy):
    steps = []
    evaluate_task(constant_policy([0] * 6, [TASK]), TASK, 3, 0, mode="sync", on_step=steps.append)
    assert steps == [3] * 500


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_episode_that_ends_early_stops_counting(short_task, constant_policy, mode):
    policy = constant_policy([1.0], [short_task])
    expected = [by_hand(policy, short_task, seed) for seed in range(4)]
    assert len(set(expected)) > 1
    assert max(expected) < 2 * task_spec(short_task).episode_length
    assert list(evaluate_task(policy, short_task, 4, 0, mode=mode).returns) == expected


def test_the_random_policy_is_uniform_and_repeats_itself():
    policy, again, other = RandomPolicy(3), RandomPolicy(3), RandomPolicy(4)
    obs = np.zeros((16, 24), np.float32)
    actions = np.stack([policy.act(obs, "walker-walk") for _ in range(300)])
    assert actions.shape == (300, 16, 6)
    assert actions.dtype == np.float32
    counts, _ = np.histogram(actions, bins=20, range=(-1, 1))
    assert counts.sum() == actions.size
    chi_square = ((counts - actions.size / 20) ** 2 / (actions.size / 20)).sum()
    assert chi_square < 43.8  # 0.1 % of 19 degrees of freedom
    correlations = np.corrcoef(actions.reshape(300, -1).T)
    assert np.abs(correlations - np.eye(96)).max() < 0.3
    np.testing.assert_array_equal(again.act(obs, "walker-walk"), actions[0])
    np.testing.assert_array_equal(again.act(obs[:4], "walker-walk"), actions[1, :4])
    assert not np.array_equal(other.act(obs, "walker-walk"), actions[0])


def test_the_random_policy_knows_the_tasks_it_is_told():
    assert "cup-catch" in RandomPolicy().task_names
    assert RandomPolicy(task_names=["cup-catch"]).task_names == ("cup-catch",)


def test_the_result_as_json(tmp_path, policy):
    result = evaluate_policy(policy, ["cup-catch"], 2, 5, checkpoint="runs/last.ckpt", mode="sync")
    path = tmp_path / "deep" / "R.json"
    write_result(result, path)
    written = json.loads(path.read_text())
    returns = written["tasks"]["cup-catch"]["returns"]
    assert len(returns) == 2
    entry = {
        "returns": returns,
        "mean": np.mean(returns),
        "std": np.std(returns),
        "normalised": np.mean(returns) / 1000,
    }
    assert {key: written["tasks"]["cup-catch"][key] for key in entry} == entry
    low, high = written["tasks"]["cup-catch"]["interval_95"]
    assert low <= np.mean(returns) <= high
    assert written["seeds"] == [5, 6]
    assert written["checkpoint"] == "runs/last.ckpt"
    assert written["deterministic"] is True
    assert written["versions"]["lit_pwm"] == lit_pwm.__version__
    for package in ("mujoco", "dm_control", "torch", "numpy"):
        assert written["versions"][package] == version(package)
    assert list(path.parent.iterdir()) == [path]


def test_the_statistics_of_a_result():
    result = EvaluationResult({"a": TaskResult((100.0, 300.0)), "b": TaskResult((500.0,))}, (0, 1))
    assert result.tasks["a"].mean == 200
    assert result.tasks["a"].std == 100
    assert result.tasks["a"].normalised == 0.2
    assert result.tasks["b"].interval is None
    assert result.to_json()["tasks"]["b"]["interval_95"] is None
    assert result.mean == 350


def test_a_result_that_cannot_be_written_leaves_the_old_file(tmp_path):
    result = EvaluationResult({"a": TaskResult((1.0,))}, (0,))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(LitPWMError, match="could not be written"):
        write_result(result, tmp_path / "folder.json")
    path = tmp_path / "R.json"
    path.write_text("old")
    broken = EvaluationResult({"a": TaskResult((1.0,))}, (0,), versions={"x": {1}})
    with pytest.raises(TypeError):
        write_result(broken, path)
    assert path.read_text() == "old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["R.json", "folder.json"]


def test_the_result_as_a_table(capsys):
    print_result(EvaluationResult({"cup-catch": TaskResult((100.0, 300.0))}, (4, 5)))
    text = capsys.readouterr().out
    for words in ("cup-catch", "200.0", "-1071 to 1471", "2 episodes, environment seeds 4 to 5"):
        assert words in text


@pytest.mark.parametrize(
    ("tasks", "episodes", "seed", "words"),
    [
        (["cup-cach"], 2, 0, "'cup-catch'"),
        (["walker-walk"], 2, 0, "does not know"),
        (["cup-catch"], 0, 0, "episodes 0; give"),
        (["cup-catch"], 2, -1, "seed -1; give"),
        (["cup-catch"], 2, 2**32 - 1, "Accepted: seeds"),
    ],
)
def test_bad_arguments_are_refused(policy, tasks, episodes, seed, words):
    with pytest.raises(LitPWMError, match=words):
        evaluate_policy(policy, tasks, episodes, seed)


def test_a_policy_of_another_width_is_refused(constant_policy):
    with pytest.raises(LitPWMError, match=r"must return shape \[16, 2\]"):
        evaluate_task(constant_policy([0.0], ["cup-catch"]), "cup-catch", 1, 0, mode="sync")


def test_environments_that_would_be_too_many_are_closed_after_each_task(short_task, constant_policy, monkeypatch):
    before = set(multiprocessing.active_children())
    monkeypatch.setattr("lit_pwm.evaluation.evaluator._MOST_OPEN_ENVS", 1)
    with Evaluator([short_task], 2, 0, mode="async") as evaluator:
        first = evaluator.run(constant_policy([1.0], [short_task]))
        assert set(multiprocessing.active_children()) <= before
        assert evaluator.run(constant_policy([1.0], [short_task])).tasks == first.tasks
