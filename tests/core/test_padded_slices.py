"""What lies beyond the end of an episode moves no loss, gradient or measure, and a loss is divided by all slices."""

from __future__ import annotations

import copy

import pytest
import torch
from objective_parts import KINDS, TASKS, lost, same, small_model

from lit_pwm.losses import WorldModelObjective
from lit_pwm.measures.decoded_error import DecodedError
from lit_pwm.measures.open_loop import OpenLoopError
from lit_pwm.models import Head
from lit_pwm.pulls import DistillationPull

MARKS = ("terminated", "valid", "consistent")
HORIZON, LENGTHS, TERMINATED, UNKNOWN = 4, (4, 1, 3, 2, 4, 1), (1, 1, 1, 1, 0, 1), (2, 5)
"""Of each slice: its transitions, whether the last one terminates, and those whose last observation repeats."""


class GoesOn(Head):
    """Whether a transition does not terminate, by a squared error."""

    def __init__(self, latent_dim, action_dim, task_dim):
        super().__init__(latent_dim, action_dim, task_dim)
        self.net = torch.nn.Linear(latent_dim + action_dim + task_dim, 1)

    def forward(self, z, action, embedding):
        return self.net(torch.cat([z, embedding.expand(*z.shape[:-1], -1), action], dim=-1)).squeeze(-1)

    def loss(self, latents, actions, embedding, batch):
        goes_on = (~batch["terminated"]).to(latents.dtype)
        return (self(latents, actions, embedding) - self.per_state(goes_on, latents)).square()


def padded_batch():
    """Slices as the datamodule makes them."""
    generator = torch.Generator().manual_seed(0)
    step, length = torch.arange(HORIZON)[:, None], torch.tensor(LENGTHS)
    valid, last = step < length, step == length - 1
    known = torch.ones(len(LENGTHS), dtype=torch.bool)
    known[list(UNKNOWN)] = False
    batch = {
        "obs": torch.randn(HORIZON + 1, len(LENGTHS), 5, generator=generator),
        "action": torch.rand(HORIZON, len(LENGTHS), 2, generator=generator),
        "reward": torch.randn(HORIZON, len(LENGTHS), generator=generator),
        "task": torch.tensor([0, 0, 1, 0, 1, 1]),
        "terminated": last & torch.tensor(TERMINATED, dtype=torch.bool),
        "valid": valid,
        "consistent": valid & (~last | known),
    }
    return with_padding(batch, 0.0)


def with_padding(batch, value):
    """The batch with a value in all that does not count."""
    beyond = ~batch["valid"]
    changed = {name: batch[name].clone() for name in ("obs", "action", "reward")}
    changed["obs"][1:][beyond] = value
    changed["action"][beyond] = value
    changed["reward"][beyond] = value
    return batch | changed


def part_of(batch, slices):
    return {name: value[slices] if name == "task" else value[:, slices] for name, value in batch.items()}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def model(request):
    return small_model(request.param, heads={"goes_on": GoesOn})


@pytest.mark.parametrize("value", [1e3, torch.nan, torch.inf])
def test_what_stands_in_padding_moves_nothing(model, value):
    """Neither losses nor gradients nor running variances, to the bit, and all stay finite."""
    found = lost(model, padded_batch())
    assert same(found, lost(model, with_padding(padded_batch(), value)))
    assert all(entry.isfinite().all() for entry in found.values() if entry.is_floating_point())


def test_no_gradient_reaches_what_is_beyond_an_end(model):
    batch = padded_batch()
    batch["action"].requires_grad_()
    lost(model, batch)
    gradient = batch["action"].grad
    assert (gradient[~batch["valid"]] == 0).all()
    counted = batch["valid"].clone()
    assert (gradient[counted] != 0).any(-1).all()


def test_each_loss_is_the_sum_over_what_there_is_divided_by_all_slices():
    """By hand, slice after slice and step after step, each of its own length."""
    model, batch, rho = small_model(KINDS["mlp"], heads={"goes_on": GoesOn}), padded_batch(), 0.9
    expected = {"consistency": 0.0, "reward": 0.0, "goes_on": 0.0}
    with torch.no_grad():
        for b, length in enumerate(LENGTHS):
            task = batch["task"][b : b + 1]
            z, embedding = model.encode(batch["obs"][:1, b], task), model.task_embedding(task)
            for t in range(length):
                action, weight = batch["action"][t, b][None], rho**t / HORIZON / len(LENGTHS)
                logits = model.reward_logits(z, action, task)
                cross_entropy = model.reward_head.two_hot.cross_entropy(logits, batch["reward"][t, b][None])
                expected["reward"] += weight * cross_entropy.item()
                label = 0.0 if t == length - 1 and TERMINATED[b] else 1.0
                expected["goes_on"] += weight * (model.heads["goes_on"](z, action, embedding).item() - label) ** 2
                z = model.next(z, action, task)
                if t < length - 1 or b not in UNKNOWN:
                    target = model.encode(batch["obs"][t + 1, b][None], task)
                    expected["consistency"] += weight * (z - target).square().mean().item()
    found = WorldModelObjective(rho, 3.0, {"reward": 0.5})(model, batch)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-5), name
    total = 3 * expected["consistency"] + 0.5 * expected["reward"] + expected["goes_on"]
    assert found["total"].item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "refinement"])
def test_equal_shares_add_up_to_the_whole_batch(kind):
    """However unequal the numbers of transitions in them are: 11 and 4."""
    model, batch = small_model(KINDS[kind], heads={"goes_on": GoesOn}).double(), padded_batch()
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    shares = [lost(model, part_of(batch, share)) for share in ([0, 2, 4], [1, 3, 5])]
    whole = lost(model, batch)
    for name, value in whole.items():
        if name != "latent_variance" and value.is_floating_point():
            torch.testing.assert_close((shares[0][name] + shares[1][name]) / 2, value, msg=name)


def test_marks_that_leave_out_nothing_change_no_number(model):
    batch = padded_batch()
    batch |= {"valid": torch.ones_like(batch["valid"]), "consistent": torch.ones_like(batch["valid"])}
    plain = {name: value for name, value in batch.items() if name not in ("valid", "consistent")}
    expected = lost(model, plain)
    for name, value in lost(model, batch).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)


def test_running_variances_are_of_what_there_is():
    """Of the targets that were recorded, as one long batch of them alone has."""
    model, batch = small_model(KINDS["flow with matching"]), padded_batch()
    found = lost(model, batch | {"obs": with_padding(batch, 50.0)["obs"]})
    with torch.no_grad():
        targets = model.encode(batch["obs"][1:], batch["task"])[batch["consistent"]]
    torch.testing.assert_close(found["dynamics.latent_variance.value"], targets.var(0, unbiased=False).mean())


def test_where_only_the_ends_are_marked_what_followed_them_does_not_count():
    """A batch of somebody's own data need not say what was recorded."""
    model, batch = small_model(KINDS["mlp"]), padded_batch()
    both = lost(model, batch | {"consistent": batch["valid"]})
    assert same(both, lost(model, {name: value for name, value in batch.items() if name != "consistent"}))


def test_a_pull_is_of_transitions_that_there_are():
    model = small_model(KINDS["mlp"])
    before, batch = copy.deepcopy(model), padded_batch()
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))

    def term(batch):
        model.zero_grad()
        value = DistillationPull().term(model, before, [], batch, {})
        value.backward()
        return {"value": value.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    found = term(batch)
    assert same(found, term(with_padding(batch, torch.nan)))
    expected = 0.0
    for b, length in enumerate(LENGTHS):
        own = {name: value[b : b + 1] if name == "task" else value[:length, b : b + 1] for name, value in batch.items()}
        own["obs"] = batch["obs"][: length + 1, b : b + 1]
        own = {name: value for name, value in own.items() if name not in MARKS}
        expected += term(own)["value"].item() * length / HORIZON / len(LENGTHS)
    assert found["value"].item() == pytest.approx(expected, rel=1e-4)


# -- measures --------------------------------------------------------------------------------------------------------
def cut_to_length(batch):
    """Each slice as a batch of its own that ends where the episode does."""
    for b, length in enumerate(LENGTHS):
        own = {name: value[b : b + 1] if name == "task" else value[:length, b : b + 1] for name, value in batch.items()}
        own["obs"] = batch["obs"][: length + 1, b : b + 1]
        yield {name: value for name, value in own.items() if name not in ("terminated", "valid")}


@pytest.mark.parametrize(
    "metric",
    [
        lambda: OpenLoopError(list(TASKS), 16, steps=(1, 2, 3, 4)),
        lambda: DecodedError(list(TASKS), 16, 5, steps=(1, 2, 3, 4)),
    ],
    ids=["open loop", "decoded"],
)
@pytest.mark.parametrize("says", [MARKS, ("terminated", "valid")], ids=["all marks", "ends alone"])
def test_measures_are_those_of_slices_that_end_where_episodes_do(metric, says):
    model = small_model(KINDS["mlp"]).eval()
    padded, cut = metric(), metric()
    batch = {name: value for name, value in padded_batch().items() if name not in MARKS or name in says}
    padded.update(model, with_padding(batch, torch.nan))
    for own in cut_to_length(batch):
        cut.update(model, own)
    for name in padded._defaults:
        torch.testing.assert_close(getattr(padded, name), getattr(cut, name), rtol=1e-5, atol=1e-6, msg=name)
    found, expected = padded.compute(), cut.compute()
    assert found.keys() == expected.keys()
    assert all(value.isfinite() for value in found.values())
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_task_whose_episodes_end_too_soon_has_no_figure_of_that_many_steps():
    """And the mean over tasks is over those that have one."""
    model, batch = small_model(KINDS["mlp"]).eval(), padded_batch()
    batch["task"] = torch.tensor([1, 0, 1, 0, 1, 0])  # of task 0 no slice is longer than 2
    decoded, open_loop = DecodedError(list(TASKS), 16, 5, steps=(1, 4)), OpenLoopError(list(TASKS), 16, steps=(1, 4))
    decoded.update(model, batch)
    open_loop.update(model, batch)
    figures = decoded.compute()
    assert "decoded_error_4/a" not in figures
    assert figures["decoded_error_4"] == figures["decoded_error_4/b"]
    assert not [key for key in open_loop.per_task()["a"] if key.endswith("_4")]
    assert open_loop.compute()["latent_error_4"].item() == pytest.approx(open_loop.per_task()["b"]["latent_error_4"])
