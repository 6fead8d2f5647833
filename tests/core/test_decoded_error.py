"""The decoded error against plain numpy, and its promise: no encoder's scale enters it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from lit_pwm.measures.decoded_error import DecodedError
from lit_pwm.models import ChainedMatching, FlowDynamics, MLPDynamics, NoiseSource, WorldModel
from lit_pwm.models.noise import seed_noise

TASKS = {"a": (5, 2), "b": (3, 1), "never-seen": (4, 2)}


def make_model(dynamics=MLPDynamics, **options):
    torch.manual_seed(0)
    model = WorldModel(
        TASKS, partial(dynamics, hidden_dim=16, **options), latent_dim=16, encoder_dim=16, reward_dim=16, task_dim=4
    )
    for p in model.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    model.set_observation_statistics({"a": ([0.5] * 5, [2.0] * 5)})
    return model.eval()


def make_batch(seed, size=40, horizon=5):
    generator = torch.Generator().manual_seed(seed)
    task = torch.randint(2, (size,), generator=generator)
    obs = torch.randn(horizon + 1, size, 5, generator=generator)
    obs[:, task == 1, 3:] = 0
    return {"obs": obs, "action": torch.rand(horizon, size, 2, generator=generator), "task": task}


@torch.no_grad()
def by_numpy(model, batches, task, k, ridge=1e-3):
    latents, observed, predicted, truth = [], [], [], []
    for batch in batches:
        mine = batch["task"] == task
        ids = batch["task"][mine]
        obs = batch["obs"][:, mine]
        latents.append(model.encode(obs, ids).flatten(0, 1))
        observed.append(model.standardise(obs, ids).flatten(0, 1))
        predicted.append(model.rollout(model.encode(obs[0], ids), batch["action"][:, mine], ids)[0][k])
        truth.append(model.standardise(obs[k], ids))
    z, o, zh, ok = (torch.cat(x).double().numpy() for x in (latents, observed, predicted, truth))
    centred_z = z - z.mean(0)
    penalty = ridge * centred_z.var(0).mean()
    covariance, cross = centred_z.T @ centred_z / len(z), centred_z.T @ (o - o.mean(0)) / len(z)
    weights = np.linalg.solve(covariance + penalty * np.eye(16), cross)
    decoded = (zh - z.mean(0)) @ weights + o.mean(0)
    return ((decoded - ok) ** 2).sum() / ((ok - ok.mean(0)) ** 2).sum()


def test_agrees_with_a_ridge_regression_in_numpy():
    model, batches = make_model(), [make_batch(1), make_batch(2)]
    metric = DecodedError(TASKS, 16, 5)
    for batch in batches:
        metric.update(model, batch)
    scores = metric.compute()
    assert set(scores) == {f"decoded_error_{k}{task}" for k in (0, 1, 4) for task in ("", "/a", "/b")}  # 16 > horizon
    for row, task in enumerate("ab"):
        for k in (1, 4):
            expected = by_numpy(model, batches, row, k)
            assert scores[f"decoded_error_{k}/{task}"].item() == pytest.approx(expected, rel=1e-5)
    mean = (scores["decoded_error_4/a"] + scores["decoded_error_4/b"]) / 2
    torch.testing.assert_close(scores["decoded_error_4"], mean)
    assert scores["decoded_error_0"] < scores["decoded_error_1"]


def test_samples_are_averaged():
    options = {"source": NoiseSource, "loss": ChainedMatching()}
    model, errors = make_model(FlowDynamics, **options), []
    for samples in (1, 32):
        seed_noise(model, 0)
        metric = DecodedError(TASKS, 16, 5, samples=samples)
        metric.update(model, make_batch(1, size=200))
        errors.append(metric.compute()["decoded_error_4"].item())
    assert errors[1] < errors[0]
