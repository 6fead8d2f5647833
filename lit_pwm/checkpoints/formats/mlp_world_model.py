"""What the formats share whose world model is TD-MPC2's: an encoder, dynamics and a reward head of normed layers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from lit_pwm.checkpoints.formats.base import (
    FOREIGN_KEY,
    WORLD_MODEL,
    Format,
    TaskNames,
    native_checkpoint,
    notice,
    part_of,
)
from lit_pwm.checkpoints.formats.folding import folded
from lit_pwm.checkpoints.formats.key_check import check_keys, shape_of
from lit_pwm.checkpoints.formats.key_map import KeyMap
from lit_pwm.checkpoints.formats.sizes_in_tensors import Sizes, sizes_in, structure
from lit_pwm.checkpoints.formats.task_names import known_widths, names_of_rows, tasks_with_widths
from lit_pwm.checkpoints.migration import DESCRIPTION_KEY
from lit_pwm.checkpoints.networks import building, unbuilt
from lit_pwm.errors import LitPWMError
from lit_pwm.models.world_model import WorldModel

_FLAT = re.compile(r"_(?:dynamics|reward|encoder\.state)\.\d+\.weight")


class MLPWorldModelFormat(Format):
    """A format whose file holds the weights of one world model of MLPs by keys of its own.

    Attributes:
        keys: the map of its keys.
        optional: what keys of further parts begin with, and what these are called; they are carried as they are.
        further_inputs: columns of the dynamics' first layer beside latent, task and action.
    """

    keys: ClassVar[KeyMap]
    optional: ClassVar[Mapping[str, str]] = {}
    further_inputs: ClassVar[int] = 0

    @abstractmethod
    def unwrap(self, raw: Mapping[Any, Any]) -> tuple[dict[str, Any], Mapping[Any, Any]]:
        """What is to be known of how the file holds the weights, as plain values, and the weights by its keys."""

    @abstractmethod
    def wrap(self, layout: Mapping[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
        """The way back of `unwrap`."""

    # -- reading ----------------------------------------------------------------------------------------------------
    def read(self, raw: Mapping[Any, Any], path: str | Path, tasks: TaskNames | None) -> dict[str, Any]:
        """As `Format`; sizes come from the tensors."""
        layout, weights = self.unwrap(raw)
        if weights is not raw and (beside := [f"{key!r:.60}" for key, value in raw.items() if value is not weights]):
            notice(
                f"The checkpoint {path} also holds {', '.join(beside[:8])}, which {self.title} does not: not read.",
                True,
            )
        self.refuse(weights, path)
        carried = {key: value for key, value in weights.items() if self.is_optional(key)}
        own = {key: value for key, value in weights.items() if key not in carried}
        names, told = self._names(own, tasks, path)
        sizes = self._sizes(own, names, told, path)
        action_dims = self.action_dims(carried, len(names))
        with building(path):
            widths = (int(sizes.obs_dim or 0), int(sizes.action_dim or 0))
            model = unbuilt(lambda: self.make_model(sizes, tasks_with_widths(names, widths, path, action_dims)))
        self._check(own, model, sizes, path, self._hint(told, widths))
        self.check_optional(carried, sizes, path)
        state = self.keys.to_native(own, widths_of(sizes))
        state |= fresh_state(model, state)
        description = {"kind": "world model", "world_model": model.description()}
        foreign = {"format": self.name, "layout": layout, "keys": list(weights), "carried": carried}
        return native_checkpoint(description, {f"{WORLD_MODEL}{key}": value for key, value in state.items()}, foreign)

    def make_model(self, sizes: Sizes, tasks: Mapping[str, tuple[int, int]]) -> WorldModel:
        """The world model of a file of these sizes."""
        return sizes.world_model(tasks)

    def is_optional(self, key: Any) -> bool:
        """Whether a key is of a part that is carried."""
        return isinstance(key, str) and key.startswith(tuple(self.optional))

    def refuse(self, weights: Mapping[Any, Any], path: str | Path) -> None:
        """Refuse what is known and cannot be read.

        Raises:
            LitPWMError: of the layout before TD-MPC2's publication.
        """
        flat = [
            key
            for key in weights
            if isinstance(key, str) and _FLAT.fullmatch(key) and len(shape_of(weights[key]) or ()) == 1
        ]
        normed = any(isinstance(key, str) and key.endswith(".ln.weight") and "_reward." in key for key in weights)
        if flat and not normed:
            raise LitPWMError(
                f"The checkpoint {str(path)!r} has the flat layout of TD-MPC2 before its publication (normalisation as "
                f"a layer of its own: {', '.join(map(repr, flat[:3]))}), which no published version of TD-MPC2 can "
                f"load. With its keys renamed it would load, and act badly, because the networks have changed since: "
                f"it is not converted. Use a file that a published version wrote."
            )

    def action_dims(self, carried: Mapping[str, Any], tasks: int) -> Sequence[int] | None:
        """The action width of each of so many tasks, where the file says it."""
        return None

    def check_optional(self, carried: Mapping[str, Any], sizes: Sizes, path: str | Path) -> None:
        """Refuse parts that are carried and are not whole.

        Raises:
            LitPWMError: a key of them is missing, extra or misshapen.
        """

    def _names(self, own: Mapping[Any, Any], tasks: TaskNames | None, path: str | Path) -> tuple[tuple[str, ...], bool]:
        embedding = self.keys.foreign("task_embedding.weight")
        if embedding not in own:
            mapped = {str(key): None for key in own if self.native_key(key) is not None}
            if len(mapped) < len(own):  # one of the others may be the embedding, misspelt
                check_keys(own, {str(embedding): None, **mapped}, path, self.title)
            return names_of_rows(None, tasks, path)
        shape = shape_of(own[embedding])
        if shape is not None and len(shape) == 2:
            return names_of_rows(shape[0], tasks, path)
        raise LitPWMError(
            f"The checkpoint {str(path)!r} is not what {self.title} holds: {embedding!r} has a row for each task, and "
            f"is {type(own[embedding]).__name__ if shape is None else f'of shape {list(shape)}'} there. Nothing of it "
            f"was loaded; use a whole file of that format."
        )

    def _sizes(self, own: Mapping[Any, Any], names: Sequence[str], told: bool, path: str | Path) -> Sizes:
        shapes = {ours: shape_of(value) for key, value in own.items() if (ours := self.native_key(key)) is not None}
        sizes = sizes_in(shapes, known_widths(names), certain=told, further_inputs=self.further_inputs)
        if not sizes.are_known:
            wanted = {str(self.keys.foreign(key)): None for key in structure(sizes)}
            embedding = str(self.keys.foreign("task_embedding.weight"))
            if embedding in own:
                wanted[embedding] = None
            check_keys(own, wanted, path, self.title)
            raise LitPWMError(
                f"The checkpoint {str(path)!r} is not what {self.title} holds: the shapes of its tensors contradict "
                f"each other ({sizes}). Use a whole file of that format."
            )
        return sizes

    def native_key(self, key: Any) -> str | None:
        """Our key of one in a file, which may be anything."""
        return self.keys.native(key) if isinstance(key, str) else None

    def _check(self, own: Mapping[Any, Any], model: WorldModel, sizes: Sizes, path: str | Path, hint: str) -> None:
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.startswith("obs_")}
        if not sizes.task_dim:
            shapes.pop("task_embedding.weight")
        check_keys(own, {str(self.keys.foreign(key)): shape for key, shape in shapes.items()}, path, self.title, hint)

    def _hint(self, told: bool, widths: tuple[int, int]) -> str:
        if not told:
            return ""
        return (
            f"By its number of tasks its observations are {widths[0]} wide and its actions {widths[1]}: if it was "
            f"trained on other tasks, name them (tasks=, --tasks, --model.checkpoint_tasks)."
        )

    # -- writing ----------------------------------------------------------------------------------------------------
    def write(self, native: Mapping[str, Any], path: str | Path, partial: bool = False) -> dict[str, Any]:
        """As `Format`; what the format lacks is folded into its first layers."""
        model = native[DESCRIPTION_KEY]["world_model"]
        state = self.fold(model, part_of(native["state_dict"], WORLD_MODEL), path)
        widths = {"z": model["latent_dim"], "task": model["task_dim"], "action": model["action_dim"]}
        if not model["task_dim"]:
            state.pop("task_embedding.weight", None)
        own = self.keys.to_foreign(state, widths)
        foreign = native.get(FOREIGN_KEY) or {}
        if foreign.get("format") == self.name:
            layout, carried, keys = foreign["layout"], foreign["carried"], foreign["keys"]
        else:
            layout, carried, keys = {}, self.carried_from(foreign, model), []
            self._require_optional(carried, path, partial)
        whole = own | dict(carried)
        order = [*(key for key in keys if key in whole), *(key for key in self.order(whole) if key not in keys)]
        return self.wrap(layout, {key: whole[key] for key in order})

    def fold(self, model: Mapping[str, Any], state: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
        """The weights as this format's networks need them, by our keys."""
        return folded(model, state, path, self.title)

    def carried_from(self, foreign: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
        """Further parts for a file of this format, from what another format's file carried."""
        return {}

    def order(self, weights: Mapping[str, Any]) -> list[str]:
        """The keys of a file in the format's own order."""
        places = [row.foreign for row in self.keys.rows]
        return sorted(
            weights, key=lambda key: next(i for i, place in enumerate([*places, ""]) if key.startswith(place))
        )

    def _require_optional(self, carried: Mapping[str, Any], path: str | Path, partial: bool) -> None:
        missing = {
            what: prefix
            for prefix, what in self.optional.items()
            if not any(key.startswith(prefix) for key in carried) and prefix in self.required_optional()
        }
        if missing and not partial:
            raise LitPWMError(
                f"The checkpoint {str(path)!r} holds no {' and no '.join(missing)}, which {self.title} holds beside "
                f"the world model ({', '.join(missing.values())}): it never had them, or they were dropped when the "
                f"model was trained further. Give --partial (partial=True) to write the file without."
            )

    def required_optional(self) -> Sequence[str]:
        """Of the further parts, those that the reference's own loader asks for."""
        return tuple(self.optional)


def widths_of(sizes: Sizes) -> dict[str, int]:
    """The widths of the inputs that columns are named by."""
    return {"z": sizes.latent_dim or 0, "task": sizes.task_dim or 0, "action": sizes.action_dim or 0}


def fresh_state(model: WorldModel, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a world model holds that the format does not: observations as they are, and no task embedding."""
    like = next(iter(state.values()))
    found = {
        "obs_mean": like.new_zeros(model.obs_mean.shape, dtype=model.obs_mean.dtype),
        "obs_std": like.new_ones(model.obs_std.shape, dtype=model.obs_std.dtype),
    }
    if "task_embedding.weight" not in state:
        found["task_embedding.weight"] = like.new_zeros((len(model.tasks), 0))
    return found
