"""PWM's `model` layout: what its `load_wm` takes of a file of TD-MPC2's, without policy prior and Q functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_pwm.checkpoints.formats.key_map import KeyMap, KeyRow
from lit_pwm.checkpoints.formats.mlp_world_model import MLPWorldModelFormat
from lit_pwm.checkpoints.formats.tdmpc2_original import TDMPC2_KEYS, has_world_model, weights_in, wrapped

PWM_KEYS = KeyMap(
    [
        KeyRow("_task_emb.weight", "task_embedding.weight"),
        KeyRow("_encoder.", "encoder.net."),
        KeyRow("_dynamics.", "dynamics.net."),
        KeyRow("_reward.", "heads.reward.net."),
    ]
)
"""Of PWM's own module: as TD-MPC2's, without `state`."""


class PWMModel(MLPWorldModelFormat):
    """`{"model": weights}`, or the weights alone, of nothing but a world model, by TD-MPC2's keys."""

    name = "pwm-model"
    title = "PWM's model format"
    keys = TDMPC2_KEYS

    def recognises(self, raw: Mapping[Any, Any]) -> bool:
        """By the keys of a world model without more."""
        weights = weights_in(raw)
        return has_world_model(weights) and any(is_of_state_encoder(key) for key in weights)

    def unwrap(self, raw: Mapping[Any, Any]) -> tuple[dict[str, Any], Mapping[Any, Any]]:
        """As `MLPWorldModelFormat`: whether the weights lie under `model`."""
        return {"wrapped": "model" in raw}, weights_in(raw)

    def wrap(self, layout: Mapping[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
        """As `MLPWorldModelFormat`."""
        return wrapped(layout, weights)


class PWMModule(PWMModel):
    """The same by the keys of PWM's own module, which its `load_wm` takes too."""

    name = "pwm-module"
    title = "PWM's model format, by the keys of its module,"
    keys = PWM_KEYS

    def recognises(self, raw: Mapping[Any, Any]) -> bool:
        """As `PWMModel`."""
        return has_world_model(weights_in(raw))


def is_of_state_encoder(key: object) -> bool:
    """Whether a key is of TD-MPC2's encoder of states."""
    return isinstance(key, str) and key.startswith("_encoder.state.")
