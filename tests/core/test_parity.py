"""Equal numbers of parameters: the solver, and the modules that use it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import seed_everything

from datamodules import MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.errors import LitPWMError
from lit_pwm.flow import FixedStep
from lit_pwm.models import CriticEnsemble, Dynamics, FlowActor, FlowDynamics, MLPActor, MLPDynamics, RefinementDynamics
from lit_pwm.models.parity import count_parameters, match_parameters, parity_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]
DYNAMICS = {
    "flow": FlowDynamics,
    "flow-one-step": partial(FlowDynamics, solver=FixedStep(substeps=1)),
    "refinement": partial(RefinementDynamics, layers=3),
    "mlp": partial(MLPDynamics, layers=1),
}
REFERENCE = partial(MLPDynamics, hidden_dim=256)


@pytest.mark.parametrize("kind", DYNAMICS.values(), ids=DYNAMICS.keys())
@pytest.mark.parametrize("dimensions", [(128, 6, 16), (512, 1, 64)])
@pytest.mark.parametrize("tolerance", [0.02, 0.004])
def test_the_width_is_the_best_there_is(kind, dimensions, tolerance):
    before = torch.get_rng_state()
    make = match_parameters(kind, REFERENCE, dimensions, tolerance)
    assert torch.equal(before, torch.get_rng_state())
    component, target = make(*dimensions), count_parameters(REFERENCE(*dimensions))
    difference = abs(count_parameters(component) - target)
    assert difference <= tolerance * target

    def error(width):
        return abs(count_parameters(kind(*dimensions, hidden_dim=width)) - target)

    multiple = 8 * (component.hidden_dim // 8)
    if min(error(multiple), error(multiple + 8)) <= tolerance / 2 * target:
        assert component.hidden_dim % 8 == 0
        assert difference <= min(error(component.hidden_dim - 8), error(component.hidden_dim + 8))
    else:
        assert difference <= min(error(component.hidden_dim - 1), error(component.hidden_dim + 1))
    assert component.init_args == kind(*dimensions, hidden_dim=component.hidden_dim).init_args


def test_a_sequence_of_widths_keeps_its_ratios():
    dimensions, reference = (96, 4, 3), partial(MLPActor, hidden_dims=(400, 200, 100), task_dim=8)
    actor = match_parameters(partial(FlowActor, hidden_dims=(40, 20, 10)), reference, dimensions)(*dimensions)
    first, second, third = actor.hidden_dims
    assert second == pytest.approx(first / 2, abs=0.51)
    assert third == pytest.approx(first / 4, abs=0.51)
    parity = parity_of(actor, reference, dimensions)
    assert abs(parity.difference) < 0.01
    assert parity.to_json()["parameters"] == count_parameters(actor)
    for words in ("FlowActor: hidden_dims", "MLPActor has", f"{parity.parameters:,} parameters"):
        assert words in str(parity)


class Fixed(Dynamics):
    """A kind without a width."""

    @property
    def init_args(self):
        return {}

    def forward(self, z, action, embedding):
        return z


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(LitPWMError, match=r"width_option"):
        match_parameters(Fixed, REFERENCE, (16, 2, 4))
    actor = partial(FlowActor, hidden_dims=(4,))
    reference = partial(MLPActor, hidden_dims=(5,))
    with pytest.raises(LitPWMError, match=r"parameter_tolerance: 0\.\d+") as caught:
        match_parameters(actor, reference, (64, 2, 1))
    allowed = float(str(caught.value).split("parameter_tolerance: ")[1].rstrip("."))
    match_parameters(actor, reference, (64, 2, 1), allowed)


SMALL = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4}


@pytest.fixture(scope="module")
def matched_file(linear_store, fit, tmp_path_factory):
    module = WorldModelPretraining(
        dynamics=FlowDynamics,
        **SMALL,
        parameter_reference=partial(MLPDynamics, hidden_dim=48),
        parameter_tolerance=0.05,
    )
    data = MultitaskDataModule(linear_store, horizon=2, batch_size=8)
    trainer = fit(module, data, 1)
    path = tmp_path_factory.mktemp("matched") / "model.ckpt"
    trainer.save_checkpoint(path)
    parity = module.parity()
    assert abs(parity.difference) < 0.03
    assert parity.width == module.world_model.dynamics.hidden_dim != 512
    return path


def test_a_checkpoint_holds_the_width(matched_file, linear_store, fit):
    width = load_world_model(matched_file).dynamics.hidden_dim
    data = MultitaskDataModule(linear_store, horizon=2, batch_size=8)
    options = {"dynamics": FlowDynamics, "parameter_reference": partial(MLPDynamics, hidden_dim=48), **SMALL}
    resumed = WorldModelPretraining(**options, parameter_tolerance=0.05)
    fit(resumed, data, 2, ckpt_path=matched_file)
    assert resumed.world_model.dynamics.hidden_dim == width
    # Another reference does not change what a run starts from; that the sizes differ is said.
    options["parameter_reference"] = partial(MLPDynamics, hidden_dim=96)
    started = WorldModelPretraining(**options, initial_checkpoint=str(matched_file), parameter_tolerance=1.0)
    fit(started, data, 1)
    assert started.world_model.dynamics.hidden_dim == width
    with pytest.raises(LitPWMError, match="parameter_tolerance"):
        fit(WorldModelPretraining(**options, initial_checkpoint=str(matched_file)), data, 1)


def test_a_policy_is_matched_too(matched_file, linear_store, fit, tmp_path):
    reference = partial(MLPActor, hidden_dims=(64, 32))
    module = PolicyLearning(
        str(matched_file),
        actor=partial(FlowActor, hidden_dims=(8, 4)),
        critic=partial(CriticEnsemble, hidden_dims=(8,)),
        actor_parity={"reference": reference},
        horizon=2,
        critic_optimizer={"minibatches": 2},
    )
    trainer = fit(module, MultitaskDataModule(linear_store, horizon=2, batch_size=8), 1)
    assert abs(module.parity().difference) < 0.02
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    assert load_policy(tmp_path / "policy.ckpt").actor.hidden_dims == module.actor.hidden_dims
    assert module.parity().width == list(module.actor.hidden_dims)


def test_the_solver_leaves_the_weights_as_its_width_would_have_them():
    seed_everything(3, verbose=False)
    solved = match_parameters(RefinementDynamics, REFERENCE, (64, 2, 4))(64, 2, 4)
    seed_everything(3, verbose=False)
    named = RefinementDynamics(64, 2, 4, hidden_dim=solved.hidden_dim)
    for ours, theirs in zip(solved.parameters(), named.parameters(), strict=True):
        assert torch.equal(ours, theirs)
