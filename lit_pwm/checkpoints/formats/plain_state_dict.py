"""The weights of a `WorldModel` alone, as `torch.save(world_model.state_dict(), F)` writes them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_pwm.checkpoints.formats.base import (
    FOREIGN_KEY,
    WORLD_MODEL,
    Format,
    TaskNames,
    native_checkpoint,
    notice,
    part_of,
)
from lit_pwm.checkpoints.formats.key_check import check_keys, shape_of
from lit_pwm.checkpoints.formats.mlp_world_model import fresh_state
from lit_pwm.checkpoints.formats.sizes_in_tensors import sizes_in, structure
from lit_pwm.checkpoints.formats.task_names import known_widths, names_of_rows, require_same_names, tasks_with_widths
from lit_pwm.checkpoints.migration import DESCRIPTION_KEY
from lit_pwm.checkpoints.networks import building, unbuilt
from lit_pwm.errors import LitPWMError
from lit_pwm.models.dynamics import MLPDynamics
from lit_pwm.models.world_model import DESCRIPTION_IN_METADATA, WorldModel

_PARTS = ("encoder.", "dynamics.", "heads.reward.")
_EMBEDDING = "task_embedding.weight"
_STATISTICS = ("obs_mean", "obs_std")
_HINT = (
    "A state_dict as torch.save(world_model.state_dict(), F) writes it says what it is made of; a copy of its tensors "
    "(dict(...)) does not, and is taken for MLPs of two hidden layers."
)


class PlainStateDict(Format):
    """Tensors by the keys of `WorldModel`, or of a module that has one as `world_model`; also under `state_dict`.

    Its metadata, which `torch.save` keeps, describe the model. Where they were lost, sizes come from the tensors, and
    options that no tensor shows are the classes' defaults.
    """

    name = "state-dict"
    title = "a plain state_dict"

    def recognises(self, raw: Mapping[Any, Any]) -> bool:
        """By the keys of encoder, dynamics and reward head."""
        weights = _weights_in(raw)
        prefix = _prefix_in(weights)
        return all(any(isinstance(key, str) and key.startswith(prefix + part) for key in weights) for part in _PARTS)

    def read(self, raw: Mapping[Any, Any], path: str | Path, tasks: TaskNames | None) -> dict[str, Any]:
        """As `Format`."""
        weights = _weights_in(raw)
        prefix = _prefix_in(weights)
        own = part_of({str(key): value for key, value in weights.items()}, prefix)
        metadata = getattr(weights, "_metadata", None)
        description = _described_in(metadata, prefix)
        if description is None:
            model = _inferred(own, path, tasks)
        else:
            with building(path):
                model = unbuilt(lambda: WorldModel.from_description(description))
            if tasks is not None:
                require_same_names({"world_model": model.description()}, tasks, path)
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        if description is None:
            shapes = {key: shape for key, shape in shapes.items() if key not in _STATISTICS or key in own}
        if not model.task_dim and _EMBEDDING not in own:
            shapes.pop(_EMBEDDING)
        check_keys(own, shapes, path, self.title, "" if description else _HINT)
        state = fresh_state(model, own) | own
        layout = {
            "wrapped": weights is not raw,
            "prefix": prefix,
            "metadata": None if metadata is None else dict(metadata),
        }
        carried = {key: value for key, value in weights.items() if not str(key).startswith(prefix)}
        foreign = {"format": self.name, "layout": layout, "keys": list(weights), "carried": carried}
        return native_checkpoint(
            {"kind": "world model", "world_model": model.description()},
            {f"{WORLD_MODEL}{key}": value for key, value in state.items()},
            foreign,
        )

    def write(self, native: Mapping[str, Any], path: str | Path, partial: bool = False) -> dict[str, Any]:
        """As `Format`; of a policy, its world model."""
        model, state = native[DESCRIPTION_KEY]["world_model"], part_of(native["state_dict"], WORLD_MODEL)
        foreign = native.get(FOREIGN_KEY) or {}
        if foreign.get("format") != self.name:
            found = OrderedDict(state)
            _annotate(found, {"": {"version": 1, DESCRIPTION_IN_METADATA: model}})
            return found
        layout = foreign["layout"]
        whole = {f"{layout['prefix']}{key}": value for key, value in state.items()} | foreign["carried"]
        found = OrderedDict((key, whole[key]) for key in foreign["keys"])
        if layout["metadata"] is not None:
            _annotate(found, layout["metadata"])
        return {"state_dict": found} if layout["wrapped"] else found


def _annotate(state: OrderedDict[str, Any], metadata: Mapping[str, Any]) -> None:
    vars(state)["_metadata"] = OrderedDict(metadata)


def _weights_in(raw: Mapping[Any, Any]) -> Mapping[Any, Any]:
    inner = raw.get("state_dict")
    return inner if isinstance(inner, Mapping) else raw


def _prefix_in(weights: Mapping[Any, Any]) -> str:
    return WORLD_MODEL if any(isinstance(key, str) and key.startswith(WORLD_MODEL) for key in weights) else ""


def _described_in(metadata: Any, prefix: str) -> Mapping[str, Any] | None:
    own = metadata.get(prefix.removesuffix(".")) if isinstance(metadata, Mapping) else None
    found = own.get(DESCRIPTION_IN_METADATA) if isinstance(own, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _inferred(own: Mapping[str, Any], path: str | Path, tasks: TaskNames | None) -> WorldModel:
    shapes = {key: shape_of(value) for key, value in own.items()}
    rows = (shapes.get(_EMBEDDING) or (None,))[0]
    names, told = names_of_rows(rows, tasks, path)
    sizes = sizes_in(shapes, known_widths(names), certain=told)
    if not sizes.are_known:
        check_keys(own, dict.fromkeys([_EMBEDDING, *structure(sizes)]), path, PlainStateDict.title, _HINT)
        raise LitPWMError(
            f"The checkpoint {str(path)!r} is not what {PlainStateDict.title} holds: the shapes of its tensors "
            f"contradict each other ({sizes}). {_HINT}"
        )
    with building(path):
        widths = (sizes.obs_dim or 0, sizes.action_dim or 0)
        model = unbuilt(
            lambda: sizes.world_model(
                tasks_with_widths(names, widths, path),
                lambda *dims: MLPDynamics(*dims, hidden_dim=sizes.dynamics_dim or 0),
            )
        )
    notice(
        f"The state_dict {path} does not say which options its dynamics have: rescale_inputs is taken for the default, "
        f"true. {_HINT}"
    )
    return model
