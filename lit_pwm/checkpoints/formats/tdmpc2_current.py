"""TD-MPC2's layout since October 2024, whose Q functions lie in a tensordict: other keys with each version of that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_pwm.checkpoints.formats.key_check import check_keys, shape_of
from lit_pwm.checkpoints.formats.mlp_world_model import MLPWorldModelFormat
from lit_pwm.checkpoints.formats.policy_prior import numbered_to_named, prior_shapes, stacked_shapes
from lit_pwm.checkpoints.formats.sizes_in_tensors import Sizes
from lit_pwm.checkpoints.formats.tdmpc2_original import TDMPC2_KEYS, has_world_model, weights_in, wrapped
from lit_pwm.errors import LitPWMError

_MASKS = "_action_masks"
_MARKS = (_MASKS, "log_std_min", "log_std_dif", "_detach_Qs", "_target_Qs_params.", "_Qs.module.")
_NAMED_VALUE = re.compile(r"_Qs\.params\.\d+\.")
_LOG_STD_MIN, _LOG_STD_DIF = -10, 12
"""TD-MPC2's defaults; whole numbers in its config, and so in its files."""


class TDMPC2Current(MLPWorldModelFormat):
    """`{"model": weights}`, or the weights alone, with buffers of the policy prior, and Q functions by named keys.

    The world model is picked by its keys. Of the Q functions, which versions of tensordict lay out differently, all
    keys that begin with `_Qs`, `_detach_Qs` or `_target_Qs` are carried as they are. Files are written as with the
    version that TD-MPC2 pins.
    """

    name = "tdmpc2"
    takes_over = ("tdmpc2-original",)
    title = "TD-MPC2's current format"
    keys = TDMPC2_KEYS
    optional: ClassVar[Mapping[str, str]] = {
        _MASKS: "action masks",
        "log_std_": "bounds of the policy prior's deviation",
        "_pi.": "policy prior",
        "_Qs.": "Q functions",
        "_detach_Qs": "detached Q functions",
        "_target_Qs": "target Q functions",
    }

    def recognises(self, raw: Mapping[Any, Any]) -> bool:
        """By TD-MPC2's world model with the buffers or the named Q functions that its original files do not have."""
        weights = weights_in(raw)
        named = (isinstance(key, str) and (key.startswith(_MARKS) or _NAMED_VALUE.match(key)) for key in weights)
        return has_world_model(weights) and any(named)

    def unwrap(self, raw: Mapping[Any, Any]) -> tuple[dict[str, Any], Mapping[Any, Any]]:
        """As `MLPWorldModelFormat`: whether the weights lie under `model`."""
        return {"wrapped": "model" in raw}, weights_in(raw)

    def wrap(self, layout: Mapping[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
        """As `MLPWorldModelFormat`."""
        return wrapped(layout, weights)

    def refuse(self, weights: Mapping[Any, Any], path: str | Path) -> None:
        """As `MLPWorldModelFormat`, and the head of episodes that end."""
        super().refuse(weights, path)
        if found := [key for key in weights if isinstance(key, str) and key.startswith("_termination.")]:
            raise LitPWMError(
                f"The checkpoint {str(path)!r} holds {found[0]!r}: TD-MPC2 trained it on episodes that end "
                f"(episodic: true), with a termination head that sees the latent alone. lit_pwm's continuation "
                f"head sees latent, action and task, so that it cannot be converted, and without it rewards beyond an "
                f"end would be imagined. "
                f"Use a file that was trained with episodic: false."
            )

    def action_dims(self, carried: Mapping[str, Any], tasks: int) -> Sequence[int] | None:
        """As `MLPWorldModelFormat`, by the masks."""
        masks = carried.get(_MASKS)
        if not isinstance(masks, Tensor) or masks.ndim != 2 or len(masks) != tasks:
            return None
        if masks.layout is not torch.strided or masks.is_meta or not ((masks == 0) | (masks == 1)).all():
            return None
        dims = [int(row.sum()) for row in masks]
        is_mask = all(dims) and torch.equal(
            masks, (torch.arange(masks.shape[1]) < torch.tensor(dims)[:, None]).to(masks)
        )
        return dims if is_mask else None

    def check_optional(self, carried: Mapping[str, Any], sizes: Sizes, path: str | Path) -> None:
        """As `MLPWorldModelFormat`, of what all versions of tensordict lay out alike."""
        checked, wanted = {}, {}
        if held := {key: value for key, value in carried.items() if key.startswith("_pi.")}:
            checked |= held
            wanted |= prior_shapes(sizes)
        if held := {key: value for key, value in carried.items() if _NAMED_VALUE.match(key)}:
            checked |= held
            wanted |= stacked_shapes(held, "_Qs.params.", "_Qs.params.0.weight", sizes)
        if _MASKS in carried:
            rows = (shape_of(carried[_MASKS]) or (0,))[:1]
            checked[_MASKS], wanted[_MASKS] = carried[_MASKS], (*rows, sizes.action_dim or 0)
        check_keys(checked, wanted, path, self.title)

    def carried_from(self, foreign: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        """As `MLPWorldModelFormat`: the buffers, and what an original file of TD-MPC2's carries by its new keys."""
        dims = torch.tensor([dims[1] for dims in model["tasks"].values()])
        found: dict[str, Any] = {"log_std_min": torch.tensor(_LOG_STD_MIN), "log_std_dif": torch.tensor(_LOG_STD_DIF)}
        if model["task_dim"]:
            found[_MASKS] = (torch.arange(model["action_dim"]) < dims[:, None]).float()
        if foreign.get("format") == "tdmpc2-original":
            found |= numbered_to_named(foreign["carried"])
        return found

    def order(self, weights: Mapping[str, Any]) -> list[str]:
        """As `MLPWorldModelFormat`: buffers, world model, policy prior, Q functions."""
        places = [_MASKS, "log_std_", "_task_emb.", "_encoder.", "_dynamics.", "_reward.", "_pi.", *self.optional, ""]
        return sorted(weights, key=lambda key: next(i for i, place in enumerate(places) if key.startswith(place)))

    def required_optional(self) -> Sequence[str]:
        """As `MLPWorldModelFormat`."""
        return ("_pi.", "_Qs.", "_target_Qs")
