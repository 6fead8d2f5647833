"""What foreign formats lack is folded into first layers, so that their networks give the same outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_pwm.checkpoints.formats.base import notice
from lit_pwm.checkpoints.formats.sizes_in_tensors import HIDDEN_LAYERS
from lit_pwm.checkpoints.networks import building, description_of_unbuilt
from lit_pwm.errors import LitPWMError
from lit_pwm.models.dynamics import MLPDynamics
from lit_pwm.models.encoders import MLPEncoder
from lit_pwm.models.heads import TwoHotReward
from lit_pwm.models.layers import SIMNORM_GROUP
from lit_pwm.models.named_classes import known_class
from lit_pwm.models.world_model import WorldModel

_KINDS = {"encoder": MLPEncoder, "dynamics": MLPDynamics, "reward": TwoHotReward}
_DRAWN = 256
_ROUNDING = 1e-5
"""Of a first layer's outputs by folding: what is more is said."""
_TO_NATIVE = "convert it --to native, which holds any networks"


@torch.no_grad()
def folded(
    model: Mapping[str, Any], state: Mapping[str, Tensor], path: str | Path, title: str, dynamics: bool = True
) -> dict[str, Tensor]:
    """The weights of a world model as TD-MPC2's networks need them, by our keys; observations need no scaling then.

    Dynamics that see G·z − 1 have W (G·z − 1) = (G·W) z − W·1 in their first layer; observations that are standardised
    have W (o − μ)/σ = (W/σ) o − W (μ/σ) in the encoder's. What needs no folding keeps its bits.

    Args:
        model: the world model's description.
        state: its weights by our keys; nothing of it is changed.
        path: the file, for errors.
        title: the format, for errors.
        dynamics: whether the format's dynamics are MLPs; if not, whoever calls looks after them.

    Raises:
        LitPWMError: the format cannot hold the networks.
    """
    _require_mlps(model, path, title, dynamics)
    with building(path):
        model = description_of_unbuilt(lambda: WorldModel.from_description(model))
    state = {key: value for key, value in state.items() if key not in ("obs_mean", "obs_std")} | _with_statistics(
        state, model, path, title
    )
    if dynamics:
        _require_two_layers(model, path, title)
        if model["dynamics"]["init_args"]["rescale_inputs"]:
            state |= _with_rescaled_inputs(state, model["latent_dim"])
    return state


def _require_mlps(model: Mapping[str, Any], path: str | Path, title: str, dynamics: bool) -> None:
    for part, kind in _KINDS.items():
        if part == "dynamics" and not dynamics:
            continue
        described = model.get(part)
        named = described.get("class_path") if isinstance(described, Mapping) else described
        if not (isinstance(named, str) and known_class(named) is kind):
            raise LitPWMError(
                f"The checkpoint {str(path)!r} has the {part} {named!r}, and {title} can hold no other than "
                f"{kind.__name__}'s. Train a world model with that, or {_TO_NATIVE}."
            )
    if heads := model.get("heads"):
        raise LitPWMError(
            f"The checkpoint {str(path)!r} has a world model with the head{'s' if len(heads) > 1 else ''} "
            f"{', '.join(map(repr, heads))} beside its reward, and {title} has no place for "
            f"{'them' if len(heads) > 1 else 'it'}. Train a world model without, or {_TO_NATIVE}."
        )


def _require_two_layers(model: Mapping[str, Any], path: str | Path, title: str) -> None:
    widths = {}
    for part in ("dynamics", "reward"):
        options = model[part]["init_args"]
        widths[part] = options["hidden_dim"]
        if options["layers"] != HIDDEN_LAYERS:
            raise LitPWMError(
                f"The checkpoint {str(path)!r} has a {part} of {options['layers']} hidden layers, and in {title} it "
                f"has {HIDDEN_LAYERS}. Train a world model with `layers: {HIDDEN_LAYERS}`, or {_TO_NATIVE}."
            )
    if len({*widths.values()}) > 1:
        notice(
            f"The dynamics of {path} are {widths['dynamics']} wide and its reward head {widths['reward']}: the tensors "
            f"are written as they are, and the code that {title} comes from builds both of one width.",
            once=True,
        )


def _with_statistics(
    state: Mapping[str, Tensor], model: Mapping[str, Any], path: str | Path, title: str
) -> dict[str, Tensor]:
    mean, std = (state[name].double() for name in ("obs_mean", "obs_std"))
    if not (mean.any() or (std != 1).any()):
        return {}
    unlike = [
        name
        for name, m, s in zip(model["tasks"], mean, std, strict=True)
        if not (torch.equal(m, mean[0]) and torch.equal(s, std[0]))
    ]
    if unlike:
        raise LitPWMError(
            f"The checkpoint {str(path)!r} standardises observations by each task's own statistics, which are not the "
            f"same for {next(iter(model['tasks']))} and {', '.join(unlike[:3])}{', …' if len(unlike) > 3 else ''}, and "
            f"{title} has no place for them: only one task's, or those that all tasks share, can be folded into the "
            f"encoder. Train with `standardise_observations: false`, or {_TO_NATIVE}."
        )
    weight, bias = (_single(state[f"encoder.net.0.{name}"]) for name in ("weight", "bias"))
    width = mean.shape[1]
    of_obs = (weight[:, :width].double() / std[0]).to(weight)  # whose rounding the bias makes good at the mean
    found = {
        "encoder.net.0.weight": torch.cat([of_obs, weight[:, width:]], dim=1),
        "encoder.net.0.bias": (bias.double() - of_obs.double() @ mean[0]).to(bias),
    }
    rounding = _rounding(weight[:, :width], bias, of_obs, found["encoder.net.0.bias"], mean[0], std[0])
    if not rounding <= _ROUNDING:
        notice(
            f"The observations of {path} have means of up to {float((mean[0] / std[0]).abs().max()):.1e} deviations: "
            f"folded into the encoder's first layer, as {title} needs, the outputs of that layer are rounded by "
            f"{rounding:.0e} of their deviation, and latents by as much.",
            once=True,
        )
    return found


def _rounding(
    weight: Tensor, bias: Tensor, folded_weight: Tensor, folded_bias: Tensor, mean: Tensor, std: Tensor
) -> float:
    """The largest difference that folding makes in the encoder's first layer, of the deviation over its outputs.

    It is taken in single precision, in which the layers run, at observations of the mean and deviation that are folded.
    """
    drawn = torch.randn(_DRAWN, len(mean), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    obs = (mean + std * drawn).float()
    own = torch.nn.functional.linear((obs - mean.float()) / std.float(), weight.float(), bias.float())
    other = torch.nn.functional.linear(obs, folded_weight.float(), folded_bias.float())
    return float(((own - other).abs() / own.std(1, correction=0, keepdim=True).clamp(min=1e-6)).max())


def _single(value: Tensor) -> Tensor:
    """In single precision, where it is in less: half of it has no room for what is folded."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _with_rescaled_inputs(state: Mapping[str, Tensor], latent_dim: int) -> dict[str, Tensor]:
    weight, bias = (_single(state[f"dynamics.net.0.{name}"]) for name in ("weight", "bias"))
    of_z = weight[:, :latent_dim]
    return {
        "dynamics.net.0.weight": torch.cat([SIMNORM_GROUP * of_z, weight[:, latent_dim:]], dim=1),
        "dynamics.net.0.bias": (bias.double() - of_z.double().sum(1)).to(bias),
    }
