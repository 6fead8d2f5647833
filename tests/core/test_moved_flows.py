"""Flows in the spelling of before are the flows of now: same losses, same networks, and void pairs mended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lit_pwm.checkpoints.migration import renewed
from lit_pwm.errors import LitPWMError
from lit_pwm.flow import Dopri5, FixedStep
from lit_pwm.models import (
    ChainedMatching,
    Dynamics,
    EndPointError,
    EnergyLoss,
    FlowActor,
    FlowDynamics,
    FlowMatching,
    GroupScore,
    LatentTarget,
    NoiseSource,
)
from lit_pwm.models.component import factory_from
from lit_pwm.models.dynamics import consistency_error
from lit_pwm.models.layers import simnorm
from lit_pwm.options.renamed import gathering_spellings

FLOW: Any = FlowDynamics
FLOW_ACTOR: Any = FlowActor
"""As a type checker, which knows no old spellings, lets them pass."""
SAMPLED = {"source": "noise", "end_weight": 0.0, "energy_weight": 1.0}
ONE, TWO = FixedStep(substeps=1), FixedStep()
MOVED = [
    ({"substeps": 2}, EndPointError(), TWO),
    ({"readout_weight": 0.0, "method": "midpoint"}, EndPointError(readout_weight=0.0), FixedStep("midpoint")),
    ({"end_weight": 2.0, "substeps": 1, "rtol": 1e-3}, EndPointError(weight=2.0), ONE),
    ({"flow_weight": 0.5}, EndPointError(matching=FlowMatching(0.5)), TWO),
    (
        {"flow_weight": 1.0, "tau": "early", "starts": "teacher_forced", "readout_weight": 0.25},
        EndPointError(readout_weight=0.25, matching=FlowMatching(1.0, "early", "teacher_forced")),
        TWO,
    ),
    ({"end_weight": 0, "flow_weight": 2.0, "tau": "early"}, FlowMatching(2.0, "early"), TWO),
    ({"rollout": "estimate", "end_weight": 0, "flow_weight": 1.0}, ChainedMatching(), TWO),
    ({"rollout": "estimate", "flow_weight": 1.0}, ChainedMatching(end_weight=1.0), TWO),
    (SAMPLED, EnergyLoss(), TWO),
    (SAMPLED | {"energy_weight": 2.0, "energy_samples": 4}, EnergyLoss(2.0, 4), TWO),
    (SAMPLED | {"energy_group_weight": 0.5}, EnergyLoss(groups=GroupScore(0.5, 1.0)), TWO),
    (
        SAMPLED | {"energy_group_weight": 1.0, "energy_group_exponent": 0.5, "flow_weight": 0.1, "readout_weight": 0.0},
        EnergyLoss(readout_weight=0.0, groups=GroupScore(), matching=FlowMatching(0.1)),
        TWO,
    ),
    ({"source": "noise", "energy_weight": 1.0}, EnergyLoss(end_weight=1.0), TWO),
    ({"parametrisation": "velocity", "method": "dopri5", "rtol": 1e-2, "substeps": 7}, EndPointError(), Dopri5(1e-2)),
    # What never trained several steps is the loss that it was, with the rollout that is used.
    (
        {"rollout": "estimate", "starts": "teacher_forced", "end_weight": 0, "flow_weight": 1.0},
        FlowMatching(starts="teacher_forced"),
        TWO,
    ),
    # What had no state to show keeps its network.
    ({"rollout": "estimate", "substeps": 1}, EndPointError(), ONE),
]


@pytest.mark.parametrize(("old", "loss", "solver"), MOVED)
def test_old_options_are_the_objects_of_now_in_python_and_in_checkpoints(old, loss, solver):
    flow = FLOW(16, 2, 4, hidden_dim=8, **old)
    assert (flow.loss, flow.solver) == (loss, solver)
    description = {"class_path": "lit_pwm.models.flow_dynamics.FlowDynamics", "init_args": {"hidden_dim": 8} | old}
    again = factory_from(renewed(description), Dynamics)(16, 2, 4)
    assert again.description() == flow.description()


def test_sources_by_word():
    for word, name in (("zero", "ZeroSource"), ("latent", "LatentSource"), ("noise", "NoiseSource")):
        assert type(FLOW(16, 2, 4, source=word).source).__name__ == name
    noise = FLOW(16, 2, 4, source="noise", noise_dim=3, noise_power=3.0, source_scale=0.5).source
    assert noise.init_args == {"dim": 3, "power": 3.0, "scale": 0.5}
    for old, words in (
        ({"source": "gauss"}, "'gauss'"),
        ({"source": "zero", "noise_dim": 3}, "noise_dim 3, which describes a noise source"),
        ({"end_weight": 0.0}, "nothing trains it"),
        ({"energy_weight": 1.0}, "draws nothing"),
    ):
        with pytest.raises(LitPWMError, match=words):
            FLOW(16, 2, 4, **old)


def test_flow_actors_too():
    assert FLOW_ACTOR(16, 2, 1, method="heun", substeps=3).solver == FixedStep("heun", 3)
    assert FLOW_ACTOR(16, 2, 1, method="dopri5", atol=1e-3).solver == Dopri5(atol=1e-3)


def test_a_checkpoint_of_the_adjoint_is_read_as_it_trained():
    """Read-outs that got no gradient are no part of the loss any more; given anew they are refused."""
    old = {"adjoint": True, "parametrisation": "velocity", "readout_weight": 0.5, "end_weight": 1.0}
    path = "lit_pwm.models.flow_dynamics.FlowDynamics"
    flow = factory_from(renewed({"class_path": path, "init_args": old}), Dynamics)(16, 2, 4)
    assert type(flow) is FlowDynamics
    assert flow.adjoint
    assert flow.loss == EndPointError(readout_weight=0.0)
    with pytest.raises(LitPWMError, match="Set readout_weight to 0"):
        FLOW(16, 2, 4, **old)


def test_both_errors_of_samples_by_hand():
    """Squared error beside the energy score, which two weights above zero meant before."""
    torch.manual_seed(0)
    both = FLOW(16, 2, 4, source="noise", energy_weight=2.0, end_weight=0.5)
    z, noise = simnorm(torch.randn(2, 5, 16)), torch.randn(2, 5, 16)
    logits = torch.randn(5, 16)
    given = z, torch.randn(2, 5, 2), torch.randn(2, 5, 4), LatentTarget(simnorm(logits), logits, z[0], 1, noise=noise)
    alone = FLOW(16, 2, 4, source=NoiseSource, loss=EnergyLoss(weight=2.0))
    alone.load_state_dict(both.state_dict())
    (predicted, loss), (_, score) = both.predict_with_loss(*given), alone.predict_with_loss(*given)
    earlier = simnorm(both.solve(both.start(z, noise), both.condition(*given[:3]))[1][0])
    target = replace(given[3]).latent
    error = consistency_error(predicted, target) + 0.5 * consistency_error(earlier, target)
    torch.testing.assert_close(loss, score + 0.5 * error)


def test_the_new_spelling_is_shown_as_a_config_has_it():
    with gathering_spellings() as told:
        FLOW(16, 2, 4, source="noise", noise_dim=4, substeps=3, energy_weight=1.0, end_weight=0.0)
    assert told == {
        "substeps of FlowDynamics": "solver: {class_path: lit_pwm.flow.FixedStep, init_args: {substeps: 3}}",
        "source, noise_dim of FlowDynamics": "source: {class_path: lit_pwm.models.NoiseSource, init_args: {dim: 4}}",
        "end_weight, energy_weight of FlowDynamics": (
            "loss: {class_path: lit_pwm.models.EnergyLoss, init_args: {weight: 1.0, end_weight: 0.0}}"
        ),
    }
