"""PWM's and Flow-MBPO-PWM's own files: a `world_model` with actor, critics and the rest of a run, or pre-training's."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lit_pwm.checkpoints.formats.base import FOREIGN_KEY, NO_POLICY, Format, TaskNames
from lit_pwm.checkpoints.formats.inert_objects import STUBS
from lit_pwm.checkpoints.formats.pwm_entries import FAMILY, Entries, fresh_optimizers
from lit_pwm.checkpoints.formats.pwm_policy import ACTOR, CRITIC, kind_of_actor, read_policy, write_policy
from lit_pwm.checkpoints.formats.pwm_tasks import tasks_of
from lit_pwm.checkpoints.formats.pwm_world_model import (
    FlowWorldModel,
    PWMWorldModel,
    has_legacy_flow,
    require_known_config,
    solver_in,
)
from lit_pwm.checkpoints.formats.tdmpc2_original import has_world_model
from lit_pwm.checkpoints.migration import DESCRIPTION_KEY, SETTINGS_KEY
from lit_pwm.errors import LitPWMError

_PROGRESS = {
    "iter_count": 0,
    "step_count": 0,
    "best_reward": -float("inf"),
    "best_policy_loss": float("inf"),
    "mean_horizon": 0.0,
}
"""What Flow-MBPO-PWM adds to PWM's training files, with its own defaults."""
_PRETRAINING = ("iter", "obs_dim", "act_dim", "horizon", "task_set", "is_best", "cfg")
_POLICY = ("actor", "critic")
_STATISTICS = ("obs_rms", "rew_rms", "ret_rms")
_OPTIMIZERS = ("actor_opt", "critic_opt", "world_model_opt")


class TrainingFile(Format):
    """A file that holds a world model by the keys of PWM's module under `world_model`, and perhaps a policy."""

    stubs = STUBS

    @abstractmethod
    def variant(self, raw: Mapping[Any, Any], path: str | Path) -> PWMWorldModel:
        """What reads the world model of a file."""

    @abstractmethod
    def order(self, has_policy: bool) -> tuple[str, ...]:
        """The entries of a new file, in order."""

    # -- reading ----------------------------------------------------------------------------------------------------
    def read(self, raw: Mapping[Any, Any], path: str | Path, tasks: TaskNames | None) -> dict[str, Any]:
        """As `Format`.

        Of a policy, `tasks` may be some of the world model's, where these are known without: those it was trained for.
        """
        entries = Entries.read(raw, path)
        rows, trained = tasks_of(raw, tasks, path)
        native = self.variant(raw, path).read(raw["world_model"], path, rows)
        description, foreign = native[DESCRIPTION_KEY], native[FOREIGN_KEY]
        foreign |= {"format": self.name, "layout": entries.plain()}
        if "actor" not in raw:
            foreign[NO_POLICY] = f"{self.title} without an actor"
        else:
            actor, critic = (_mapping(raw, name, path) for name in _POLICY)
            if (other := kind_of_actor(actor)) is not None:
                foreign[NO_POLICY] = f"{self.title} with {other}"
                foreign["carried"] = {f"{ACTOR}{key}": value for key, value in actor.items()}
                foreign["carried"] |= {f"{CRITIC}{key}": value for key, value in critic.items()}
            else:
                found = read_policy(actor, critic, description["world_model"], path, self.title)
                description |= {"kind": "policy", **found.description, "trained_tasks": trained}
                native["state_dict"] |= found.state
                foreign["layout"]["keys"] = {"actor": list(actor), "critic": list(critic)}
        entries.say(path)
        return native

    # -- writing ----------------------------------------------------------------------------------------------------
    def write(self, native: Mapping[str, Any], path: str | Path, partial: bool = False) -> dict[str, Any]:
        """As `Format`; entries that lit_pwm does not make are those of the file that the checkpoint came from."""
        foreign = native.get(FOREIGN_KEY) or {}
        held = Entries.of(foreign.get("layout")) if foreign.get("format") in FAMILY else None
        same = foreign.get("format") == self.name
        if held is not None and (lost := held.lost_statistics()) and not partial:
            raise LitPWMError(
                f"The checkpoint {str(path)!r} comes from a file with {' and '.join(lost)}, objects of PWM's that a "
                f"file is not made to hold again: they are written as None. Give --partial (partial=True) for that; "
                f"their numbers are in checkpoint['foreign']['layout']['statistics']."
            )
        parts: dict[str, Any] = {"world_model": self._world_model(native, foreign, path, partial)}
        parts |= self._policy(native, foreign, path)
        names = held.order if same and held is not None else self.order("actor" in parts)
        missing = [name for name in names if name in _POLICY and name not in parts]
        if missing and not partial:
            raise LitPWMError(
                f"The checkpoint {str(path)!r} holds no {' and no '.join(missing)}, which {self.title} holds beside "
                f"the world model. Give --partial (partial=True) to write the file without."
            )
        optimizers = fresh_optimizers(parts)
        file: dict[str, Any] = {}
        for name in names:
            if name in parts:
                file[name] = OrderedDict(parts[name])  # as `state_dict` gives them
            elif name in _OPTIMIZERS:
                kept = None if held is None else held.optimizers.get(name)
                if kept is not None or name in optimizers:
                    file[name] = {"state": {}, "param_groups": optimizers[name] if kept is None else kept}
            elif name in _STATISTICS:
                file[name] = None
            elif held is not None and name in held.values:
                file[name] = held.values[name]
            elif name not in _POLICY:
                file[name] = self.default(name, native)
        return file

    def default(self, name: str, native: Mapping[str, Any]) -> Any:
        """An entry of a file that does not come from one of this format."""
        raise KeyError(name)

    def _world_model(
        self, native: Mapping[str, Any], foreign: Mapping[str, Any], path: str | Path, partial: bool
    ) -> dict[str, Any]:
        flow = has_legacy_flow(native[DESCRIPTION_KEY]["world_model"]) and self.name == "flow-mbpo"
        inner = (FlowWorldModel if flow else PWMWorldModel)(self.name, self.title)
        same = {"format": self.name, "layout": {}, "keys": foreign.get("keys", []), "carried": {}}
        return inner.write({**native, FOREIGN_KEY: same}, path, partial)

    def _policy(
        self, native: Mapping[str, Any], foreign: Mapping[str, Any], path: str | Path
    ) -> dict[str, dict[str, Any]]:
        if native[DESCRIPTION_KEY]["kind"] == "policy":
            found = write_policy(native[DESCRIPTION_KEY], native["state_dict"], path, self.title)
            order = (foreign.get("layout") or {}).get("keys") or {} if foreign.get("format") in FAMILY else {}
            return {
                name: {key: found[name][key] for key in dict.fromkeys([*order.get(name, ()), *found[name]])}
                for name in _POLICY
            }
        carried = foreign.get("carried") or {}
        found = {
            name: {key.removeprefix(f"{name}."): value for key, value in carried.items() if key.startswith(f"{name}.")}
            for name in _POLICY
        }
        return found if foreign.get("format") == self.name and any(found.values()) else {}


class PWMTraining(TrainingFile):
    """What PWM's `save` writes: actor, critics, world model, running statistics, optimizers."""

    name = "pwm"
    title = "PWM's training format"
    _order: ClassVar[tuple[str, ...]] = (*_POLICY, "world_model", *_STATISTICS, *_OPTIMIZERS)

    def recognises(self, raw: Mapping[Any, Any]) -> bool:
        """By a world model under `world_model`."""
        return _holds_world_model(raw)

    def variant(self, raw: Mapping[Any, Any], path: str | Path) -> PWMWorldModel:
        """As `TrainingFile`."""
        return PWMWorldModel(self.name, self.title)

    def order(self, has_policy: bool) -> tuple[str, ...]:
        """As `TrainingFile`."""
        return self._order


class FlowMBPO(TrainingFile):
    """What Flow-MBPO-PWM writes: as PWM with its progress, or pre-training's file, each with MLP or flow dynamics."""

    name = "flow-mbpo"
    title = "Flow-MBPO-PWM's format"

    def recognises(self, raw: Mapping[Any, Any]) -> bool:
        """By what it writes beside PWM's entries, or by a velocity."""
        if not _holds_world_model(raw):
            return False
        return is_flow(raw["world_model"]) or any(name in raw for name in (*_PROGRESS, *_PRETRAINING))

    def variant(self, raw: Mapping[Any, Any], path: str | Path) -> PWMWorldModel:
        """As `TrainingFile`; integrator and steps of a flow are those of the file's config."""
        require_known_config(raw.get("cfg"), path)
        if is_flow(raw["world_model"]):
            return FlowWorldModel(self.name, self.title, *solver_in(raw.get("cfg"), path))
        return PWMWorldModel(self.name, self.title)

    def order(self, has_policy: bool) -> tuple[str, ...]:
        """As `TrainingFile`: without a policy, that of pre-training's file."""
        if has_policy:
            return (*PWMTraining._order, *_PROGRESS)
        return ("world_model", "world_model_opt", *_PRETRAINING)

    def default(self, name: str, native: Mapping[str, Any]) -> Any:
        """As `TrainingFile`."""
        model, step = native[DESCRIPTION_KEY]["world_model"], native.get("global_step", 0)
        options = model["dynamics"].get("init_args") or {}
        flow = {"flow_integrator": options.get("method", "heun"), "flow_substeps": options.get("substeps", 4)}
        is_legacy, horizon = has_legacy_flow(model), (native.get(SETTINGS_KEY) or {}).get("data.horizon")
        found = _PROGRESS | {
            "iter_count": step,
            "iter": step,
            "obs_dim": model["obs_dim"],
            "act_dim": model["action_dim"],
            "horizon": horizon if type(horizon) is int else 16,
            "task_set": list(model["tasks"]),
            "is_best": False,
            "cfg": {"alg": {"use_flow_dynamics": is_legacy, **(flow if is_legacy else {})}},
        }
        return found[name]


def is_flow(weights: Mapping[Any, Any]) -> bool:
    """Whether a world model's keys are those of Flow-MBPO-PWM's flow variant."""
    return any(isinstance(key, str) and key.startswith("_velocity.") for key in weights)


def _holds_world_model(raw: Mapping[Any, Any]) -> bool:
    weights = raw.get("world_model")
    return isinstance(weights, Mapping) and has_world_model(weights)


def _mapping(raw: Mapping[Any, Any], name: str, path: str | Path) -> Mapping[Any, Any]:
    value = raw.get(name)
    if not isinstance(value, Mapping):
        found = "no" if value is None else f"a {type(value).__name__} for"
        raise LitPWMError(
            f"The checkpoint {str(path)!r} holds {found} {name!r}, where the weights of PWM's {name} are "
            f"expected. Nothing of it was loaded; use a whole file."
        )
    return value
