"""The controls do what they say, and the study's command leaves records, resumes, and makes its table of them."""

import json

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from stochastic_arms import ARMS, MODELS
from stochastic_controls import GaussianDynamics, resampled_residuals, simplex_basis
from stochastic_policies import run_policy
from stochastic_study import Study
from stochastic_table import policy_table, table, write_table
from torch.distributions import Normal

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.training import PolicyPlan
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import LatentTarget, WorldModel
from lit_pwm.models.layers import simnorm
from lit_pwm.models.noise import seed_noise


def inputs(batch, latent=16):
    generator = torch.Generator().manual_seed(0)
    z = simnorm(torch.randn(batch, latent, generator=generator))
    return z, torch.rand(batch, 2, generator=generator), torch.rand(batch, 3, generator=generator)


def moved(dynamics):
    """With weights large enough that mean, variance and factor depend on the input."""
    with torch.no_grad():
        for parameter in dynamics.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return dynamics


def test_the_basis_holds_all_that_matters_of_logits():
    basis, logits = simplex_basis(), torch.randn(5, 16)
    torch.testing.assert_close(basis.T @ basis, torch.eye(7))
    coordinates = logits.unflatten(-1, (-1, 8)) @ basis
    torch.testing.assert_close(simnorm((coordinates @ basis.T).flatten(-2)), simnorm(logits))


def test_gaussian_likelihood_and_samples_are_those_of_the_normal():
    dynamics = moved(GaussianDynamics(16, 2, 3, hidden_dim=12))
    z, action, embedding = inputs(4)
    mean, variance = dynamics.moments(z, action, embedding)
    assert variance.std() > 0.01
    logits = torch.randn(4, 16)
    target = LatentTarget(simnorm(logits), logits, simnorm(logits), noise=torch.randn(4, 14))
    predicted, loss = dynamics.predict_with_loss(z, action, embedding, target)
    y = (logits.unflatten(-1, (-1, 8)) @ dynamics.basis).flatten(-2)
    torch.testing.assert_close(loss, -0.05 * Normal(mean, variance.sqrt()).log_prob(y).mean(-1))
    torch.testing.assert_close(predicted.unflatten(-1, (-1, 8)).sum(-1), torch.ones(4, 2))
    seed_noise(dynamics, 0)
    draws = dynamics(*(x[:1].expand(40_000, -1) for x in (z, action, embedding)))
    seen = (draws.detach().log().unflatten(-1, (-1, 8)) @ dynamics.basis).flatten(-2)
    torch.testing.assert_close(seen.mean(0), mean[0].detach(), atol=0.03, rtol=0)
    torch.testing.assert_close(seen.T.cov(), variance[0].detach().diag(), atol=0.03, rtol=0.05)


def test_samples_differ_and_a_seed_repeats_them():
    dynamics, (z, action, embedding) = moved(GaussianDynamics(16, 2, 3, hidden_dim=12)), inputs(4)
    draws = []
    for seed in (0, 0, 1):
        seed_noise(dynamics, seed)
        draws.append(dynamics(z, action, embedding))
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert not torch.allclose(draws[0], draws[2])


def test_likelihood_trains_the_encoder_through_its_start_alone():
    torch.manual_seed(0)
    model = WorldModel(
        {"one": (3, 2)}, lambda *dims: GaussianDynamics(*dims, hidden_dim=12), 16, 3, encoder_dim=8, reward_dim=8
    )
    obs, batch = torch.randn(2, 4, 3), {"action": torch.rand(1, 4, 2), "reward": torch.rand(1, 4)}
    obs.requires_grad_()
    loss = WorldModelObjective(coefficients={"reward": 0.0})(
        model, {"obs": obs, "task": torch.zeros(4, dtype=torch.int64), **batch}
    )
    loss["total"].backward()
    assert obs.grad[0].abs().sum() > 0
    assert obs.grad[1].abs().sum() == 0


def test_residuals_are_drawn_whole():
    rng = np.random.default_rng(0)
    predictions, outcomes, point = (rng.standard_normal((16, n, 5)) for n in (40, 40, 7))
    drawn = resampled_residuals(point, predictions, outcomes, 3, seed=0) - point
    residuals = outcomes - predictions
    for sample in range(3):
        for case in range(7):
            distance = np.abs(residuals - drawn[sample, :, case][:, None]).max((0, 2))
            assert (distance < 1e-12).sum() == 1
    assert len({drawn[s, 0, c, 0] for s in range(3) for c in range(7)}) > 10


def test_models_have_equal_parameters_and_see_as_many_transitions():
    counts = {
        name: sum(p.numel() for p in arm.dynamics(128, 1, 16).parameters() if p.requires_grad)
        for name, arm in MODELS.items()
    }
    for name, count in counts.items():
        assert abs(count / counts["mlp"] - 1) <= 0.02, name
    assert {arm.horizon * arm.batch_size for arm in MODELS.values()} == {512}
    assert {arm.model for arm in ARMS.values()} <= set(MODELS)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    study = Study("cartpole-swingup-kicked", out, updates=4, training=6, held_out=2, starts=4)
    study.run_all(("oracle", "climatology", "mlp", "mlp-residuals", "gaussian"), seeds=1, workers=1)
    return study


def test_records_say_what_was_scored(study):
    records = {path.stem.split("_")[1]: json.loads(path.read_text()) for path in (study.out / "records").iterdir()}
    energy = {arm: record["energy_score"] for arm, record in records.items()}
    assert all(energy["oracle"][k] < energy["climatology"][k] for k in ("1", "4", "16"))
    assert energy["oracle"]["1"] < 0.15
    assert records["mlp"]["spread_ratio"] == [0.0] * 16
    assert min(records["mlp-residuals"]["spread_ratio"]) > 0
    assert min(records["gaussian"]["spread_ratio"]) > 0
    assert records["oracle"]["spread_ratio"][-1] == pytest.approx(1, abs=0.2)
    by_episode = records["gaussian"]["energy_score_episodes"]["16"]
    assert np.mean(by_episode) == pytest.approx(energy["gaussian"]["16"])  # episodes have equally many starts


def test_the_study_does_nothing_twice_and_refuses_to_mix(study):
    before = {path: path.stat().st_mtime_ns for path in study.out.rglob("*") if path.is_file()}
    Study(study.task, study.out, updates=4).run("gaussian", 0)
    assert {path: path.stat().st_mtime_ns for path in study.out.rglob("*") if path.is_file()} == before
    with pytest.raises(LitPWMError, match="a model of 4 updates, and this run asks for 5"):
        Study(study.task, study.out, updates=5).run("gaussian", 0)


@pytest.mark.long
def test_processes_leave_the_records_of_one(study, tmp_path):
    other = Study(study.task, study.out, updates=4, results=tmp_path)
    other.run_all(("mlp", "gaussian", "mlp-residuals"), seeds=1, workers=2)
    for path in (tmp_path / "records").iterdir():
        assert path.read_text() == (study.out / "records" / path.name).read_text()
    assert len(list((tmp_path / "records").iterdir())) == 3


def test_futures_of_another_seed_are_other_episodes_and_other_records(study):
    other = Study(study.task, study.out, updates=4, held_out=2, starts=4, futures_seed=0)
    assert not np.array_equal(other.futures.obs, study.futures.obs)
    for arm, kind in (("gaussian", "model"), ("oracle", "reference")):
        with pytest.raises(LitPWMError, match=f"a {kind} of held-out seed 1, and this run asks for held-out seed 0"):
            other.run(arm, 0)


def test_the_table_is_made_from_the_records(study, tmp_path):
    text = table(study.out / "records")
    rows = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ")]
    assert set(rows[2:]) == {"oracle", "climatology", "mlp", "mlp-residuals", "gaussian"}
    path = study.out / "records" / f"{study.task}_gaussian_0.json"
    record = json.loads(path.read_text())
    for seed, score in ((0, 0.25), (1, 0.75)):
        record |= {"seed": seed, "energy_score": dict.fromkeys(("1", "4", "16"), score)}
        (tmp_path / f"{seed}.json").write_text(json.dumps(record))
    assert "| gaussian | 2 | 137708 | 0.500 ± 0.354 |" in table(tmp_path)
    with pytest.raises(LitPWMError, match="holds no record"):
        table(tmp_path / "nothing")
    sizes = []
    for record in ({}, {"task": "another"}):  # a row for each task
        other = json.loads(path.read_text()) | record
        (tmp_path / "records").mkdir(exist_ok=True)
        for number, content in enumerate((json.loads(path.read_text()), other)):
            (tmp_path / "records" / f"{number}.json").write_text(json.dumps(content))
        write_table(tmp_path)
        sizes.append(pyplot.imread(tmp_path / "stochastic.png").shape[0])
    assert sizes[1] > 1.5 * sizes[0]
    assert (tmp_path / "table.md").read_text() == table(tmp_path / "records")


def test_a_policy_learns_through_samples(study):
    plan = PolicyPlan(2, evaluate_every=2, episodes=1, options={"data.batch_size": 8, "model.horizon": 4})
    run_policy(study, "gaussian", 0, plan, episodes=2)
    path = study.out / "policies" / f"{study.task}_gaussian_0.json"
    record = json.loads(path.read_text())
    assert len(record["best"]) == len(record["last"]) == 2
    assert f"| gaussian | 1 | {np.mean(record['best']):.0f} | {np.mean(record['last']):.0f} |" in policy_table(
        path.parent
    )
    before = path.stat().st_mtime_ns
    run_policy(study, "gaussian", 0, plan)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(LitPWMError, match="a policy of 2 updates"):
        run_policy(study, "gaussian", 0, PolicyPlan(updates=3, evaluate_every=3))
