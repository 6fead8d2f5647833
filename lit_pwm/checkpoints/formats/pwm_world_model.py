"""The world models in PWM's and Flow-MBPO-PWM's files, by the keys of their modules: with MLP or flow dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lit_pwm.checkpoints.formats.base import TaskNames
from lit_pwm.checkpoints.formats.folding import folded
from lit_pwm.checkpoints.formats.key_check import shape_of
from lit_pwm.checkpoints.formats.key_map import KeyMap, KeyRow
from lit_pwm.checkpoints.formats.pwm_entries import say_once
from lit_pwm.checkpoints.formats.pwm_model import PWM_KEYS, PWMModule
from lit_pwm.checkpoints.formats.sizes_in_tensors import HIDDEN_LAYERS, Sizes
from lit_pwm.checkpoints.migration import DESCRIPTION_KEY
from lit_pwm.errors import LitPWMError
from lit_pwm.models.legacy_flow_dynamics import LegacyFlowDynamics
from lit_pwm.models.named_classes import known_class
from lit_pwm.models.world_model import WorldModel

FLOW_KEYS = KeyMap(
    [
        KeyRow("_task_emb.weight", "task_embedding.weight"),
        KeyRow("_encoder.", "encoder.net."),
        KeyRow("_velocity.", "dynamics.net."),
        KeyRow("_reward.", "heads.reward.net.", ("z", "action", "task")),
    ]
)
"""Of Flow-MBPO-PWM's flow world model, whose reward head is shown the task last. `LegacyFlowDynamics` has the
velocity's own order."""
METHODS = ("heun", "euler")
Method = Literal["heun", "euler"]


class PWMWorldModel(PWMModule):
    """Weights of PWM's `WorldModel`, which Flow-MBPO-PWM's MLP variant shares.

    Args:
        name: of the format of the file that they lie in.
        title: likewise.
    """

    keys = PWM_KEYS

    def __init__(self, name: str, title: str) -> None:
        self.name, self.title = name, title  # ty: ignore[invalid-attribute-access]

    def unwrap(self, raw: Mapping[Any, Any]) -> tuple[dict[str, Any], Mapping[Any, Any]]:
        """As they are."""
        return {}, raw

    def wrap(self, layout: Mapping[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
        """As they are."""
        return weights

    def refuse(self, weights: Mapping[Any, Any], path: str | Path) -> None:
        """As `MLPWorldModelFormat`; and a reward head without bins.

        Raises:
            LitPWMError: of one of these.
        """
        super().refuse(weights, path)
        if (shape_of(weights.get(f"_reward.{HIDDEN_LAYERS}.bias")) or (0,))[:1] == (1,):
            raise LitPWMError(
                f"The checkpoint {str(path)!r} has a reward head that gives one number (num_bins empty or 1, as in "
                f"PWM's settings for dflex), and lit_pwm's gives the logits of two-hot bins. Use a model with bins."
            )


class FlowWorldModel(PWMWorldModel):
    """Weights of Flow-MBPO-PWM's `FlowWorldModel`.

    Args:
        name: of the format of the file that they lie in.
        title: likewise.
        method: how its flow is integrated.
        substeps: in so many steps.
    """

    keys = FLOW_KEYS
    further_inputs = 1

    def __init__(self, name: str, title: str, method: Method = "heun", substeps: int = 4) -> None:
        super().__init__(name, title)
        self.method, self.substeps = method, substeps

    def read(self, raw: Mapping[Any, Any], path: str | Path, tasks: TaskNames | None) -> dict[str, Any]:
        """As `MLPWorldModelFormat`.

        Raises:
            LitPWMError: the inputs of a single task's networks are wider than the task.
        """
        native = super().read(raw, path, tasks)
        model = native[DESCRIPTION_KEY]["world_model"]
        ((name, widths), *others) = model["tasks"].items()
        if not model["task_dim"] and not others and list(widths) != [model["obs_dim"], model["action_dim"]]:
            raise LitPWMError(
                f"The checkpoint {str(path)!r} holds a flow world model of a single task with inputs of "
                f"{model['obs_dim']} observation and {model['action_dim']} action entries, and {name!r} has "
                f"{widths[0]} and {widths[1]}: Flow-MBPO-PWM fills the place of a task embedding that is not there "
                f"with zeros, and nothing in the file tells these columns from others. Name the task that it was "
                f"trained on; if it is this one, its file cannot be read."
            )
        return native

    def make_model(self, sizes: Sizes, tasks: Mapping[str, tuple[int, int]]) -> WorldModel:
        """As `MLPWorldModelFormat`."""
        return sizes.world_model(
            tasks,
            partial(
                LegacyFlowDynamics,
                hidden_dim=sizes.dynamics_dim or 0,
                layers=HIDDEN_LAYERS,
                method=self.method,
                substeps=self.substeps,
            ),
        )

    def fold(self, model: Mapping[str, Any], state: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
        """As `MLPWorldModelFormat`; the dynamics are as the format has them."""
        for part in ("dynamics", "reward"):
            layers = (model[part].get("init_args") or {}).get("layers", HIDDEN_LAYERS)
            if layers != HIDDEN_LAYERS:
                raise LitPWMError(
                    f"The checkpoint {str(path)!r} has a {part} of {layers} hidden layers, and in {self.title} it has "
                    f"{HIDDEN_LAYERS}. Convert it --to native, which holds any networks."
                )
        return folded(model, state, path, self.title, dynamics=False)


def has_legacy_flow(model: Mapping[str, Any]) -> bool:
    """Whether a world model is described with Flow-MBPO-PWM's flow step."""
    dynamics = model.get("dynamics")
    named = dynamics.get("class_path") if isinstance(dynamics, Mapping) else None
    return isinstance(named, str) and known_class(named) is LegacyFlowDynamics


def solver_in(config: Any, path: str | Path) -> tuple[Method, int]:
    """Integrator and number of steps as a file's config says, in `alg` or at its top; Heun and 4 where it does not.

    Raises:
        LitPWMError: it says something that Flow-MBPO-PWM does not know either.
    """
    places = [place for place in (_mapping(config).get("alg"), config) if isinstance(place, Mapping)]
    method = _first(places, "flow_integrator")
    substeps = _first(places, "flow_substeps")
    if method is not None and method not in METHODS:
        raise LitPWMError(
            f"The config in the checkpoint {str(path)!r} says flow_integrator {method!r:.80}. Accepted: "
            f"{', '.join(METHODS)}, which are all that Flow-MBPO-PWM has."
        )
    if substeps is not None and (type(substeps) is not int or substeps < 1):
        raise LitPWMError(
            f"The config in the checkpoint {str(path)!r} says flow_substeps {substeps!r:.80}. Accepted: a whole number "
            f"of at least 1."
        )
    missing = [name for name, value in (("flow_integrator", method), ("flow_substeps", substeps)) if value is None]
    found: tuple[Method, int] = (method or "heun", substeps or 4)
    if missing:
        say_once(
            path,
            "flow",
            f"The checkpoint {path} does not say its {' and '.join(missing)}: its flow is integrated by {found[0]} in "
            f"{found[1]} steps.",
        )
    return found


def require_known_config(config: Any, path: str | Path) -> None:
    """Refuse a world model whose config says that its networks are others than their tensors look like.

    Raises:
        LitPWMError: other bounds of the bins, or another group of SimNorm.
    """
    alg = _mapping(_mapping(config).get("alg"))
    model = _mapping(alg.get("world_model_config"))
    acts = {
        f"{part}.last_layer_kwargs.act.simnorm_dim": _deep(model, part, "last_layer_kwargs", "act", "simnorm_dim")
        for part in ("encoder", "dynamics")
    }
    said: dict[str, tuple[Any, float]] = {
        "vmin": (model.get("vmin"), -10.0),
        "vmax": (model.get("vmax"), 10.0),
        **{name: (value, 8) for name, value in acts.items()},
    }
    for name, (value, wanted) in said.items():
        if value is not None and value != wanted:
            raise LitPWMError(
                f"The config in the checkpoint {str(path)!r} says world_model_config.{name} {value!r:.80}, and the "
                f"networks that lit_pwm reads have {wanted:g}. Use a model of these settings, which are PWM's own."
            )


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _deep(value: Any, *names: str) -> Any:
    for name in names:
        value = _mapping(value).get(name)
    return value


def _first(places: Sequence[Mapping[Any, Any]], name: str) -> Any:
    return next((place[name] for place in places if place.get(name) is not None), None)
