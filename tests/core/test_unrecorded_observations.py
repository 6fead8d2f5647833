"""A transition whose next observation was not recorded teaches nothing of what follows, and its reward all the same."""

from __future__ import annotations

import pytest
import torch
from objective_parts import KINDS, TASKS, lost, same, small_model

from lit_pwm.losses import WorldModelObjective, discounted_mean
from lit_pwm.measures.decoded_error import DecodedError
from lit_pwm.measures.open_loop import OpenLoopError
from lit_pwm.models import WorldModel
from lit_pwm.models.running_stats import RunningVariance, update_together


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def model(request):
    return small_model(request.param)


def batch_of(horizon=3, size=6, unknown=(1, 4)):
    generator = torch.Generator().manual_seed(horizon)
    consistent = torch.ones(horizon, size, dtype=torch.bool)
    consistent[-1, list(unknown)] = False
    return {
        "obs": torch.randn(horizon + 1, size, 5, generator=generator),
        "action": torch.rand(horizon, size, 2, generator=generator),
        "reward": torch.randn(horizon, size, generator=generator),
        "task": torch.randint(2, (size,), generator=generator),
        "consistent": consistent,
    }


@pytest.mark.parametrize("horizon", [1, 3])
def test_what_was_not_recorded_moves_nothing(model, horizon):
    """Neither losses nor gradients nor running variances: of the whole observation that stands in its place."""
    batch = batch_of(horizon)
    other = {**batch, "obs": batch["obs"].clone()}
    other["obs"][-1, [1, 4]] = 100 * torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    assert same(lost(model, batch), lost(model, other))
    everything = {name: value for name, value in other.items() if name != "consistent"}
    assert not same(lost(model, batch), lost(model, everything))


def test_its_reward_is_learned(model):
    batch = batch_of()
    other = {**batch, "reward": batch["reward"].clone()}
    other["reward"][-1, 1] += 1
    assert lost(model, batch)["reward"] != lost(model, other)["reward"]


def test_where_all_were_recorded_the_mark_changes_no_number(model):
    batch = batch_of(unknown=())
    plain = lost(model, {name: value for name, value in batch.items() if name != "consistent"})
    for name, value in lost(model, batch).items():
        torch.testing.assert_close(value, plain[name], rtol=1e-5, atol=1e-7)


def test_the_sum_is_divided_by_the_whole_batch():
    """As ranks divide theirs by equal shares: Σ_b x_b / B, and not by the number of those that are known."""
    torch.manual_seed(0)
    model = WorldModel(TASKS, KINDS["mlp"], latent_dim=16, encoder_dim=16, reward_dim=16, task_dim=4)
    batch, objective = batch_of(), WorldModelObjective(rho=0.9)
    errors = objective._roll_out(model, batch, {}).consistency
    errors = torch.where(batch["consistent"], errors, 0.0)
    torch.testing.assert_close(objective(model, batch)["consistency"], discounted_mean(errors, 0.9))


def test_running_variances_are_of_known_values():
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    known = torch.arange(40) % 3 > 0
    of_all, of_known = RunningVariance(), RunningVariance()
    of_known.update(x[known])
    x[~known] = torch.nan
    update_together([of_all], [x], known)
    torch.testing.assert_close(of_all.value, of_known.value, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "metric",
    [
        lambda: OpenLoopError(list(TASKS), 16, steps=(1, 2, 3)),
        lambda: DecodedError(list(TASKS), 16, 5, steps=(1, 2, 3)),
    ],
    ids=["open loop", "decoded"],
)
def test_measures_leave_it_out(metric):
    """The figures after a full slice are those of the other slices; rewards count in both."""
    torch.manual_seed(0)
    model = WorldModel(TASKS, KINDS["mlp"], latent_dim=16, encoder_dim=16, reward_dim=16, task_dim=4).eval()
    whole = batch_of(size=12, unknown=())
    marked = batch_of(size=12)
    marked["obs"][-1, [1, 4]] = marked["obs"][-2, [1, 4]]
    others = [b for b in range(12) if b not in (1, 4)]
    rest = {name: value[..., others] if name == "task" else value[:, others] for name, value in marked.items()}
    found = {}
    for name, batch in (("whole", whole), ("marked", marked), ("rest", rest)):
        one = metric()
        one.update(model, {key: value for key, value in batch.items() if key != "consistent" or name == "marked"})
        found[name] = one.compute()
    last = [key for key in found["marked"] if key.endswith("_3") and "reward" not in key]
    assert last
    for key in last:
        if key.startswith("latent"):  # the decoded figure's probe is fitted on all observations that there are
            torch.testing.assert_close(found["marked"][key], found["rest"][key])
        assert found["marked"][key] != found["whole"][key]
    for key in ("reward_error_3", "latent_error_2"):
        if key in found["whole"]:
            assert found["marked"][key] == found["whole"][key]


def test_decoded_errors_sum_over_what_was_recorded_alone():
    """The probe is fitted on all observations there are, so that sums, and not figures, are those of the rest."""
    torch.manual_seed(0)
    model = WorldModel(TASKS, KINDS["mlp"], latent_dim=16, encoder_dim=16, reward_dim=16, task_dim=4).eval()
    marked, sums = batch_of(size=12), []
    others = [b for b in range(12) if b not in (1, 4)]
    rest = {name: value[..., others] if name == "task" else value[:, others] for name, value in marked.items()}
    for batch in (marked, rest):
        one = DecodedError(list(TASKS), 16, 5, steps=(2, 3))
        one.update(model, batch)
        sums.append(one)
    assert [one.count[:, 1].sum() for one in sums] == [12, 10]
    for name in ("count", "pp", "po", "o", "oo"):
        torch.testing.assert_close(getattr(sums[0], name)[:, 2], getattr(sums[1], name)[:, 2])
