"""The arms of the study on stochastic dynamics: which world models are trained, and how each arm predicts.

To add a world model, add its dynamics to `MODELS` and, unless it only serves other arms, an arm to `ARMS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from stochastic_controls import GaussianDynamics, resampled_residuals
from stochastic_outcomes import Futures
from stochastic_samplers import NoisyMLP, NoisyRefinement

from lit_pwm.flow import FixedStep
from lit_pwm.measures.linear_probe import LinearProbe
from lit_pwm.models import (
    ChainedMatching,
    Dynamics,
    EnergyLoss,
    FlowDynamics,
    GroupScore,
    MLPDynamics,
    NoiseSource,
    RefinementDynamics,
    WorldModel,
)


@dataclass(frozen=True)
class ModelArm:
    """How a world model is trained; its loss is that of its dynamics.

    Attributes:
        dynamics: makes the dynamics from its dimensions. Widths match `mlp`'s parameters within 2 %, as a test checks.
        horizon: transitions of a slice.
        batch_size: slices of a batch; the product of the two is the same for all.
    """

    dynamics: Callable[[int, int, int], Dynamics]
    horizon: int = 4
    batch_size: int = 128


HEAVY = partial(NoiseSource, power=3.0, dim=4)
"""Noise in few directions with heavy tails, because kicks are rare."""

SHARP = {"hidden_dim": 216, "source": HEAVY, "loss": EnergyLoss(groups=GroupScore(exponent=0.5))}
"""Also scores the first estimate, and each group of the latent by distances to the power 1/2: what is almost certain
stays sharp."""

MODELS: dict[str, ModelArm] = {
    "mlp": ModelArm(partial(MLPDynamics, hidden_dim=256, rescale_inputs=True)),
    "refinement": ModelArm(partial(RefinementDynamics, hidden_dim=219)),
    "gaussian": ModelArm(partial(GaussianDynamics, hidden_dim=228), horizon=1, batch_size=512),
    "gaussian-chained": ModelArm(partial(GaussianDynamics, hidden_dim=228)),
    # Flow matching on one-step estimates, as one would train a generative model of one step.
    "flow-matching": ModelArm(
        partial(FlowDynamics, hidden_dim=216, source=NoiseSource, solver=FixedStep(substeps=4), loss=ChainedMatching())
    ),
    # The energy score of two rolled-out samples: a proper score of the rollout's distribution at every step of a slice.
    "flow-energy": ModelArm(
        partial(FlowDynamics, hidden_dim=216, source=NoiseSource, loss=EnergyLoss(readout_weight=0.0))
    ),
    "flow-energy-sharp": ModelArm(partial(FlowDynamics, **SHARP)),
    # The same with one part left out: the power of the distances; the tails; the groups.
    "flow-energy-heavy": ModelArm(
        partial(FlowDynamics, **SHARP | {"loss": EnergyLoss(groups=GroupScore(exponent=1.0))})
    ),
    "flow-energy-normal": ModelArm(partial(FlowDynamics, **SHARP | {"source": partial(NoiseSource, dim=4)})),
    "flow-energy-joint": ModelArm(partial(FlowDynamics, **SHARP | {"loss": EnergyLoss()})),
    # Samplers without an ODE, with the noise and the score of flow-energy-sharp: its own field at one Euler step (one
    # evaluation of noise, latent and action), a refinement that starts at noise, an MLP with noise beside its inputs.
    "one-step-energy": ModelArm(partial(FlowDynamics, **SHARP, solver=FixedStep(substeps=1))),
    "refinement-energy": ModelArm(partial(NoisyRefinement, hidden_dim=219)),
    "mlp-energy": ModelArm(partial(NoisyMLP, hidden_dim=256)),
}


@dataclass(frozen=True)
class Windows:
    """Observations and the actions and observations after them; observations standardised where `outcome`.

    Attributes:
        obs: as the environment gives them, [N, O].
        action: [T, N, A].
        outcome: standardised, [T, N, O].
    """

    obs: np.ndarray
    action: np.ndarray
    outcome: np.ndarray


@dataclass
class Subject:
    """A trained world model with the linear probe that reads observations out of its latents.

    Attributes:
        model: the world model, in evaluation mode.
        probe: gives standardised observations.
        training: windows of training episodes, for arms that learn from the model's errors there.
    """

    model: WorldModel
    probe: LinearProbe
    training: Windows = field(repr=False)

    @torch.no_grad()
    def predict(self, obs: np.ndarray, action: np.ndarray, samples: int = 1) -> np.ndarray:
        """Open-loop rollouts, decoded: obs [N, O], action [T, N, A] → standardised observations [M, T, N, O]."""
        task = torch.zeros(samples * len(obs), dtype=torch.int64)
        start = self.model.encode(torch.from_numpy(obs).repeat(samples, 1), task)
        latents, _ = self.model.rollout(start, torch.from_numpy(action).repeat(1, samples, 1), task)
        return self.probe(latents[1:]).unflatten(1, (samples, len(obs))).transpose(0, 1).numpy()


Predict = Callable[[Subject, Futures, int], np.ndarray]
"""(Subject, held-out states and futures with standardised outcomes, number of samples M) → samples [M, T, N, O]."""


@dataclass(frozen=True)
class Arm:
    """A world model of `MODELS` and how predictions are drawn from it."""

    model: str
    predict: Predict


def rollouts(subject: Subject, futures: Futures, samples: int) -> np.ndarray:
    """Independent rollouts, which draw the dynamics' own noise."""
    return subject.predict(futures.obs, futures.action, samples)


def point(subject: Subject, futures: Futures, samples: int) -> np.ndarray:
    """One rollout for all samples: a prediction without a spread."""
    return np.repeat(subject.predict(futures.obs, futures.action), samples, axis=0)


def with_residuals(subject: Subject, futures: Futures, samples: int) -> np.ndarray:
    """The point prediction with errors that the model makes on training episodes."""
    past = subject.predict(subject.training.obs, subject.training.action)[0]
    prediction = subject.predict(futures.obs, futures.action)[0]
    return resampled_residuals(prediction, past, subject.training.outcome, samples, seed=0)


ARMS: dict[str, Arm] = {
    "mlp": Arm("mlp", point),
    "mlp-residuals": Arm("mlp", with_residuals),
    "refinement": Arm("refinement", point),
    "refinement-residuals": Arm("refinement", with_residuals),
    "gaussian": Arm("gaussian", rollouts),
    "gaussian-chained": Arm("gaussian-chained", rollouts),
    **{name: Arm(name, rollouts) for name in MODELS if name.startswith("flow")},
    "one-step-energy": Arm("one-step-energy", rollouts),
    "refinement-energy": Arm("refinement-energy", rollouts),
    "mlp-energy": Arm("mlp-energy", rollouts),
}


def oracle(futures: Futures, samples: int) -> np.ndarray:
    """The simulator's own futures."""
    return futures.samples[:samples]


def climatology(futures: Futures, samples: int) -> np.ndarray:
    """Observations of the task at random times, the same distribution at every step."""
    shape = (samples, *futures.outcome.shape[:2])
    return futures.climatology[np.random.default_rng(0).integers(len(futures.climatology), size=shape)]


REFERENCES: dict[str, Callable[[Futures, int], np.ndarray]] = {"oracle": oracle, "climatology": climatology}
"""Predictions that need no model: the best and the least informed."""
