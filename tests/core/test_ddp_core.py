"""Two processes agree with each other, and in pre-training with one process that has the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import environment_of_programs

PROGRAM = Path(__file__).with_name("ddp_program.py")
UPDATES, GLOBAL_BATCH = 5, 16

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(linear_store, tmp_path_factory):
    """What one process, and each of two, ended with: (job, devices, rank) → saved state."""
    out = tmp_path_factory.mktemp("ddp")
    environment = environment_of_programs()
    for devices in (1, 2):
        command = [sys.executable, str(PROGRAM), str(linear_store), str(out), str(devices)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, cwd=out)
        assert done.returncode == 0, f"{done.stdout[-1000:]}\n{done.stderr[-4000:]}"
    loaded = {}
    for path in out.glob("*.pt"):
        job, devices, rank = path.stem.rsplit("-", 2)
        loaded[job, int(devices), int(rank)] = torch.load(path, weights_only=True)
    return loaded


def same_on_both_ranks(results, job):
    first, second = results[job, 2, 0]["state"], results[job, 2, 1]["state"]
    assert first.keys() == second.keys()
    return {key for key in first if not torch.equal(first[key], second[key])}


@pytest.mark.parametrize(
    "job", ["policy-exact", "policy-uneven", "policy-blurred", "policy-sampled", "policy-tuned-sampled", "policy-ended"]
)
def test_two_processes_of_half_a_batch_train_the_policy_of_one_process(results, job):
    one, two = results[job, 1, 0]["state"], results[job, 2, 0]["state"]
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-6, rtol=0, msg=lambda text, key=key: f"{key}: {text}")
    trained = results["policy-exact", 1, 0]["state"]
    assert trained["actor.mean.weight"].dtype == torch.float64
    unlike = {"policy-exact": "policy-blurred", "policy-blurred": "policy-exact"}.get(job)
    if unlike:  # the noise that the dynamics were given made a difference
        assert not torch.equal(one["critic.net.0.weight"], results[unlike, 1, 0]["state"]["critic.net.0.weight"])


def test_a_resumed_rank_draws_what_it_would_have_drawn(results):
    for rank in (0, 1):
        whole, resumed = (results[f"policy-{name}", 2, rank]["state"] for name in ("whole", "resumed"))
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
        drawn, later = (results[f"drawn-{name}", 2, rank]["drawn"] for name in ("whole", "resumed"))
        assert later == {step: drawn[step] for step in (4, 5)}
    ranks = [results["drawn-whole", 2, rank]["drawn"] for rank in (0, 1)]
    assert not set(ranks[0].values()) & set(ranks[1].values())


@pytest.mark.parametrize("job", ["pretraining", "pretraining-flow", "policy", "policy-tuned", "policy-tuned-sampled"])
def test_weights_and_statistics_are_identical_on_both_ranks(results, job):
    assert same_on_both_ranks(results, job) == set()
    assert results[job, 2, 0]["global_step"] == UPDATES


@pytest.mark.parametrize(
    "job",
    [
        *(f"pretraining-{kind}" for kind in ("sampled", "matching", "chained")),
        *(f"pretraining-ended-{kind}" for kind in ("mlp", "matching")),
    ],
)
def test_two_processes_of_half_a_batch_train_the_drawing_model_of_one_process(results, job):
    """Source noise of several samples, and the times of flow matching, are parts of one draw.

    Where slices end before their last step, a share's losses and variances weigh what it holds.
    """
    one, two = results[job, 1, 0]["state"], results[job, 2, 0]["state"]
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-6, rtol=0, msg=lambda text, key=key: f"{key}: {text}")
    assert same_on_both_ranks(results, job) == set()


@pytest.mark.parametrize(
    ("job", "part"),
    [("pretraining", "world_model.dynamics"), ("policy", "actor.mean"), ("policy-tuned", "world_model.encoder")],
)
def test_without_the_reduction_the_ranks_would_diverge(results, job, part):
    different = same_on_both_ranks(results, f"{job}-unreduced")
    assert any(key.startswith(part) for key in different)


@pytest.mark.parametrize("job", ["pretraining", "pretraining-flow"])
def test_two_processes_of_half_a_batch_train_the_world_model_of_one_process(results, job):
    one, two = results[job, 1, 0]["state"], results[job, 2, 0]["state"]
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


def test_without_the_reduction_two_processes_would_train_another_world_model(results):
    one = results["pretraining", 1, 0]["state"]
    unreduced = results["pretraining-unreduced", 2, 0]["state"]
    assert max((unreduced[key] - one[key]).abs().max() for key in one) > 1e-3


def test_gradient_norms_and_logged_metrics_are_global(results):
    one, first, second = (results["pretraining", *place]["metrics"] for place in ((1, 0), (2, 0), (2, 1)))
    assert len(one) == UPDATES
    assert one[0].keys() >= {"train/loss", "train/consistency", "train/gradient_norm"}
    for single, a, b in zip(one, first, second, strict=True):
        assert a == pytest.approx(b, rel=1e-6)
        # The variance within each half of a batch is not that within the whole.
        wanted = {name: value for name, value in single.items() if name != "train/latent_variance"}
        assert {name: a[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
    for a, b in zip(*(results["policy", 2, rank]["metrics"] for rank in (0, 1)), strict=True):
        assert a.keys() >= {"train/actor_gradient_norm", "train/critic_gradient_norm", "train/imagined_return"}
        assert a == pytest.approx(b, rel=1e-6)


def test_parts_that_open_in_the_middle_are_the_same_on_both_ranks_also_after_resuming(results):
    before = results["pretraining", 1, 0]["state"]
    for rank in (0, 1):
        whole, resumed = (results[f"policy-tuned{name}", 2, rank] for name in ("", "-resumed"))
        for key, value in whole["state"].items():
            assert torch.equal(resumed["state"][key], value), key
            opened = key.startswith(("world_model.encoder.", "world_model.dynamics.", "world_model.heads.reward."))
            if key.startswith("world_model.") and value.numel():
                assert torch.equal(value, before[key]) != opened, key
        assert resumed["metrics"] == whole["metrics"][3:]
    first, second = (results["policy-tuned", 2, rank]["metrics"] for rank in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert a.keys() >= {"train/world_model_loss", "train/learning_rate_encoder"}
        assert a == pytest.approx(b, rel=1e-6)
    one = results["policy-tuned", 1, 0]["metrics"]
    assert first[-1]["train/world_model_loss"] == pytest.approx(one[-1]["train/world_model_loss"], rel=1e-3)


def test_return_statistics_are_global(results):
    """Each rank imagines from its own half of the batch, and both keep the moments of the whole."""
    for rank in (0, 1):
        result = results["policy", 2, rank]
        returns = [update["train/imagined_return"] for update in result["metrics"]]
        assert result["state"]["return_stats.count"].item() == pytest.approx(UPDATES * GLOBAL_BATCH + 1e-4)
        assert result["state"]["return_stats.mean"].item() == pytest.approx(-sum(returns) / UPDATES, rel=1e-4)


def test_the_frozen_world_model_is_untouched_on_both_ranks(results):
    trained = {k: v for k, v in results["pretraining", 2, 0]["state"].items() if k.startswith("world_model.")}
    for rank in (0, 1):
        state = results["policy", 2, rank]["state"]
        for key, value in trained.items():
            assert torch.equal(state[key], value), key


def test_means_over_steps_that_survive_are_those_of_one_process(results):
    """Each rank's weights sum up to another number."""
    one, two = results["policy-ended", 1, 0], results["policy-ended", 2, 0]
    assert "world_model.heads.continuation.terminates" in one["state"]
    assert one["state"]["world_model.heads.continuation.terminates"].any()
    for ours, theirs in zip(one["metrics"], two["metrics"], strict=True):
        assert ours["train/imagined_reward"] == pytest.approx(theirs["train/imagined_reward"], rel=1e-6)
    assert one["validation"]["val/imagined_reward"] == pytest.approx(two["validation"]["val/imagined_reward"], rel=1e-6)


@pytest.mark.parametrize("job", ["pretraining", "pretraining-ended-mlp"])
def test_validation_metrics_equal_those_of_one_process(results, job):
    one, first, second = (results[job, *place]["validation"] for place in ((1, 0), (2, 0), (2, 1)))
    assert one.keys() == first.keys() == second.keys()
    assert "val/latent_error_4" in one
    for name, value in one.items():
        assert first[name] == pytest.approx(value, rel=1e-3), name
        assert second[name] == pytest.approx(first[name], rel=1e-6), name
