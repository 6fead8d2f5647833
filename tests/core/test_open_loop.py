"""The open-loop metric against plain numpy, and its reduction over ranks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from lit_pwm.measures.open_loop import OpenLoopError
from lit_pwm.models import MLPDynamics, WorldModel

TASKS = {"a": (5, 2), "b": (3, 1), "never-seen": (4, 2)}
STEPS = (1, 4, 16)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = WorldModel(
        TASKS, partial(MLPDynamics, hidden_dim=16), latent_dim=16, encoder_dim=16, reward_dim=16, task_dim=4
    )
    for p in model.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    return model.eval()


def make_batch(seed, size=10, horizon=5, tasks=2):
    generator = torch.Generator().manual_seed(seed)
    return {
        "obs": torch.randn(horizon + 1, size, 5, generator=generator),
        "action": torch.rand(horizon, size, 2, generator=generator),
        "reward": torch.randn(horizon, size, generator=generator) + 2,
        "task": torch.randint(tasks, (size,), generator=generator),
    }


def brute_force(model, batches):
    """Each relative error of each task, by loops over samples."""
    rows = {}
    with torch.no_grad():
        for batch in batches:
            for b in range(len(batch["task"])):
                task = batch["task"][b]
                truth = [model.encode(o[b], task) for o in batch["obs"]]
                z = truth[0]
                for t, action in enumerate(batch["action"][:, b]):
                    predicted = model.reward(z, action, task).item()
                    held = model.reward(truth[0], action, task).item()
                    z = model.next(z, action, task)
                    row = (truth[t + 1].numpy(), z.numpy(), truth[0].numpy(), batch["reward"][t, b].item())
                    rows.setdefault((task.item(), t + 1), []).append((*row, predicted, held))
    result = {}
    for (task, k), entries in rows.items():
        if k not in STEPS:
            continue
        true_z, z, z0, r, predicted, held = (np.array(column, np.float64) for column in zip(*entries, strict=True))
        variance, r_variance = true_z.var(0).mean(), r.var()
        result[list(TASKS)[task], k] = {
            "latent_error": ((z - true_z) ** 2).mean() / variance,
            "latent_error_copy_last": ((z0 - true_z) ** 2).mean() / variance,
            "latent_variance": variance,
            "reward_error": ((predicted - r) ** 2).mean() / r_variance,
            "reward_error_copy_last": ((held - r) ** 2).mean() / r_variance,
            "reward_explained_variance": 1 - (predicted - r).var() / r_variance,
        }
    return result


def filled(model, batches):
    metric = OpenLoopError(model.task_names, model.latent_dim, STEPS)
    for batch in batches:
        metric.update(model, batch)
    return metric


def test_against_a_loop_over_samples(model):
    batches = [make_batch(seed) for seed in range(3)]
    expected = brute_force(model, batches)
    metric = filled(model, batches)
    per_task, means = metric.per_task(), metric.compute()
    assert set(per_task) == {"a", "b"}
    assert {k for _, k in expected} == {1, 4}
    for (task, k), entries in expected.items():
        for name, value in entries.items():
            assert per_task[task][f"{name}_{k}"] == pytest.approx(value, rel=1e-4), (task, name, k)
    for key, value in means.items():
        name, _, k = key.rpartition("_")
        wanted = np.mean([expected[task, int(k)][name] for task in ("a", "b")])
        assert value.item() == pytest.approx(wanted, rel=1e-4)
    assert len(means) == 12, "the 16 steps are beyond these slices' horizon and not reported"


def test_the_mean_predictor_would_score_one(model):
    """The scale of every relative error is the mean predictor's squared error, so its own score is one."""
    batches = [make_batch(seed, tasks=1) for seed in range(3)]
    metric = filled(model, batches)
    with torch.no_grad():
        truth = torch.cat([model.encode(batch["obs"][4], batch["task"]) for batch in batches])
    error = (truth - truth.mean(0)).square().mean().item()
    assert metric.compute()["latent_variance_4"].item() == pytest.approx(error, rel=1e-5)


def test_sums_of_two_ranks_equal_one_process(model):
    batches = [make_batch(seed) for seed in range(4)]
    one, first, second = filled(model, batches), filled(model, batches[:2]), filled(model, batches[2:])
    merged = OpenLoopError(model.task_names, model.latent_dim, STEPS)
    for name, reduce in merged._reductions.items():
        # What torchmetrics does with the states it gathers from all ranks.
        setattr(merged, name, reduce(torch.stack([getattr(first, name), getattr(second, name)])))
    assert set(merged._reductions) >= {"count", "latent", "latent_copy", "reward", "residual", "z", "z_squared"}
    for key, value in one.compute().items():
        torch.testing.assert_close(merged._ratios()[key].nanmean().float(), value, rtol=1e-6, atol=0)


def test_reset_forgets(model):
    metric = filled(model, [make_batch(0)])
    first = metric.compute()
    metric.reset()
    metric.update(model, make_batch(0))
    for key, value in metric.compute().items():
        torch.testing.assert_close(value, first[key])


def test_constant_rewards_have_no_reward_entries(model):
    batch = make_batch(0)
    batch["reward"] = torch.ones_like(batch["reward"])
    assert not [key for key in filled(model, [batch]).compute() if key.startswith("reward")]


def test_states_stay_out_of_checkpoints(model):
    assert not OpenLoopError(model.task_names, model.latent_dim).state_dict()


def test_a_perfect_model_scores_zero(model):
    """Observations that follow the model's own prediction: with the encoder undone, open loop is exact."""

    class Exact:
        def encode(self, obs, task):
            return obs

        def rollout(self, z, actions, task):
            zs = torch.cat([z[None], z[None] + actions.cumsum(0)])
            return zs, zs[1:].sum(-1)

        def reward(self, z, action, task):
            return z.sum(-1)

    generator = torch.Generator().manual_seed(0)
    action = torch.randn(4, 32, 8, generator=generator)
    start = torch.randn(1, 32, 8, generator=generator)
    obs = torch.cat([start, start + action.cumsum(0)])
    batch = {"obs": obs, "action": action, "reward": obs[1:].sum(-1), "task": torch.zeros(32, dtype=torch.int64)}
    metric = OpenLoopError(["exact"], 8, (1, 4))
    metric.update(Exact(), batch)
    result = metric.compute()
    assert result["latent_error_4"] < 1e-10
    assert result["reward_error_4"] < 1e-10
    assert result["reward_explained_variance_4"] == pytest.approx(1)
    assert result["latent_error_copy_last_4"] > result["latent_error_copy_last_1"] > 0.1
