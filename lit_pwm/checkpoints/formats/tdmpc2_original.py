"""TD-MPC2's layout of October 2023 to October 2024, which PWM's fork of it wrote too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lit_pwm.checkpoints.formats.key_check import check_keys
from lit_pwm.checkpoints.formats.key_map import KeyMap, KeyRow
from lit_pwm.checkpoints.formats.mlp_world_model import MLPWorldModelFormat
from lit_pwm.checkpoints.formats.policy_prior import ensemble_shapes, named_to_numbered, prior_shapes
from lit_pwm.checkpoints.formats.sizes_in_tensors import Sizes

TDMPC2_KEYS = KeyMap(
    [
        KeyRow("_task_emb.weight", "task_embedding.weight"),
        KeyRow("_encoder.state.", "encoder.net."),
        KeyRow("_dynamics.", "dynamics.net."),
        KeyRow("_reward.", "heads.reward.net."),
    ]
)
WORLD_MODEL_KEYS = ("_task_emb.", "_encoder.", "_dynamics.", "_reward.")


class TDMPC2Original(MLPWorldModelFormat):
    """`{"model": weights}`, or the weights alone: world model, policy prior `_pi`, stacked `_Qs.params` and targets."""

    name = "tdmpc2-original"
    takes_over = ("tdmpc2",)
    title = "TD-MPC2's original format"
    keys = TDMPC2_KEYS
    optional: ClassVar[Mapping[str, str]] = {
        "_pi.": "policy prior",
        "_Qs.": "Q functions",
        "_target_Qs.": "target Q functions",
    }

    def recognises(self, raw: Mapping[Any, Any]) -> bool:
        """By TD-MPC2's world model with an encoder of states, and its policy prior or stacked Q functions."""
        weights = weights_in(raw)
        return has_world_model(weights) and any(self.is_optional(key) for key in weights)

    def unwrap(self, raw: Mapping[Any, Any]) -> tuple[dict[str, Any], Mapping[Any, Any]]:
        """As `MLPWorldModelFormat`: whether the weights lie under `model`."""
        return {"wrapped": "model" in raw}, weights_in(raw)

    def wrap(self, layout: Mapping[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
        """As `MLPWorldModelFormat`."""
        return wrapped(layout, weights)

    def carried_from(self, foreign: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        """As `MLPWorldModelFormat`: what a current file of TD-MPC2's carries, by the original keys."""
        return named_to_numbered(foreign["carried"]) if foreign.get("format") == "tdmpc2" else {}

    def check_optional(self, carried: Mapping[str, Any], sizes: Sizes, path: str | Path) -> None:
        """As `MLPWorldModelFormat`."""
        wanted = {}
        for prefix in self.optional:
            held = [key for key in carried if key.startswith(prefix)]
            if held and prefix == "_pi.":
                wanted |= prior_shapes(sizes)
            elif held:
                wanted |= ensemble_shapes(carried, f"{prefix}params.", sizes)
        check_keys(carried, wanted, path, self.title)


def weights_in(raw: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The weights of a file of TD-MPC2's, which lie under `model` or are all that it holds."""
    model = raw.get("model")
    return model if isinstance(model, Mapping) else raw


def wrapped(layout: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """A file's content as TD-MPC2's own: an ordered dictionary, under `model` where nothing else is known."""
    ordered = OrderedDict(weights)
    return {"model": ordered} if layout.get("wrapped", True) else ordered


def has_world_model(weights: Mapping[Any, Any]) -> bool:
    """Whether keys are those of TD-MPC2's world model."""
    found = {prefix for key in weights if isinstance(key, str) for prefix in WORLD_MODEL_KEYS if key.startswith(prefix)}
    return len(found) > 1
