"""The arms of the formulation study: controls, and a flow with one factor changed at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lit_pwm.flow import FixedStep
from lit_pwm.models import (
    ChainedMatching,
    Dynamics,
    EndPointError,
    FlowDynamics,
    FlowMatching,
    LatentSource,
    MLPDynamics,
    NoiseSource,
    RefinementDynamics,
)


@dataclass(frozen=True)
class Arm:
    """One world model of the study.

    Attributes:
        what: a phrase for the table.
        dynamics: makes the dynamics from (latent, action, task) widths and `hidden_dim`.
        options: options of `WorldModelPretraining`.
        control: whether it is a control that a flow must beat.
        match: what the width is solved for: as many parameters as the MLP's, or as many FLOPs as the default flow's.
        updates: factor on the number of updates.
        samples: rollouts averaged in scoring.
    """

    what: str
    dynamics: Callable[..., Dynamics]
    options: Mapping[str, Any] = field(default_factory=dict)
    control: bool = False
    match: str = "parameters"
    updates: float = 1.0
    samples: int = 1


def _flow(what: str, options: Mapping[str, object] | None = None, samples: int = 1, **dynamics: object) -> Arm:
    return Arm(what, partial(FlowDynamics, **dynamics), options or {}, samples=samples)


def _steadied(**options: float) -> dict[str, object]:
    """Another objective, in options of the command line."""
    named = {f"objective.init_args.{name}": value for name, value in options.items()}
    return {"objective": "encoder_steadying.SteadiedObjective", **named}


_MLP = partial(MLPDynamics, rescale_inputs=True)

ARMS: dict[str, Arm] = {
    "mlp": Arm("MLP", _MLP, control=True),
    "mlp-wide": Arm("MLP widened to the flow's FLOPs", _MLP, control=True, match="flops"),
    "mlp-long": Arm("MLP trained longer, to the flow's FLOPs", _MLP, control=True, updates=0.0),
    "refinement": Arm("refinement, read-outs supervised", RefinementDynamics, control=True),
    "refinement-end": Arm(
        "refinement, last read-out alone", partial(RefinementDynamics, readout_weight=0.0), control=True
    ),
    "flow-k1": Arm("flow at K = 1", partial(FlowDynamics, solver=FixedStep(substeps=1)), control=True),
    "flow": _flow("logit space, zero source, end point, K = 2 (the default)"),
    "flow-k4": _flow("K = 4", solver=FixedStep(substeps=4)),
    "flow-end": _flow("last read-out alone", loss=EndPointError(readout_weight=0.0)),
    "flow-velocity": _flow("velocity instead of end point", parametrisation="velocity"),
    "flow-residual": _flow("residual end point", parametrisation="residual"),
    "flow-latent-source": _flow("source is the latent", source=LatentSource),
    "flow-simplex": _flow("simplex space", space="latent"),
    "flow-matching": _flow("with flow matching, w = 1", loss=EndPointError(matching=FlowMatching())),
    "flow-matching-early": _flow(
        "with flow matching, w = 1, early times", loss=EndPointError(matching=FlowMatching(tau="early"))
    ),
    "flow-noise-end": _flow("noise source, loss through the solver", source=NoiseSource, samples=8),
    "flow-noise": _flow(
        "noise source, flow matching on one-step estimates",
        source=NoiseSource, loss=ChainedMatching(), samples=8,
    ),
    "flow-teacher": _flow(
        "with flow matching, w = 1, teacher-forced", loss=EndPointError(matching=FlowMatching(starts="teacher_forced"))
    ),
    "flow-ema": _flow("target encoder is an average (rate .01)", _steadied(target_encoder_rate=0.01)),
    "flow-sigreg": _flow("SIGReg before SimNorm, weight .1", _steadied(sigreg_coef=0.1)),
}  # fmt: skip
