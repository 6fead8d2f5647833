"""Minari's data sets, in HDF5 and in Arrow or Parquet files (`minari.dataset._storages`, Farama-Foundation/Minari)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.importers.flat_columns import task_name
from datamodules.importers.importer import ImportedEpisode, ImportedTask, Plan
from datamodules.importers.json_files import json_object
from datamodules.importers.minari_storages import STORAGES, MinariEpisode, MinariStorage
from datamodules.importers.shared_options import ACTION_BOUNDS, TASK, Bounds, bounds_of
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks.flat_space import SpacePart, flattened, space_parts
from lit_pwm.tasks.spec import GYM_MAKE

_METADATA, _HDF5 = "data/metadata.json", "data/main_data.hdf5"


class Minari:
    """Reads Minari's data sets; see the module."""

    name = "minari"
    title = "Minari's data sets, the folder with data/"
    options = (TASK, ACTION_BOUNDS)

    def recognises(self, path: Path) -> bool:
        """Whether it is a data set's folder."""
        if not path.is_dir():
            return False
        try:
            return "data_format" in json.loads((path / _METADATA).read_bytes())
        except (OSError, ValueError, TypeError):
            return (path / _HDF5).is_file()

    def plan(self, sources: Sequence[Path], options: Mapping[str, Any]) -> Plan:
        """What the data sets hold."""
        sets = [_DataSet.of(path, options) for path in sources]
        tasks: dict[str, ImportedTask] = {}
        for one in sets:
            known = tasks.setdefault(one.task_name, one.task)
            if _what_must_agree(known) != _what_must_agree(one.task):
                raise LitPWMError(
                    f"The data sets, of which one is {str(one.path)!r}, are of one task {one.task_name!r} and differ "
                    f"in its widths, bounds or the order of its observation's parts. Import them into stores of their "
                    f"own, with a --task each."
                )
        counts = [len(one.lengths) for one in sets]
        ends = np.cumsum(counts)

        def place(number: int) -> tuple[_DataSet, int]:
            index = int(np.searchsorted(ends, number, side="right"))
            return sets[index], number - int(ends[index] - counts[index])

        def episodes(numbers: np.ndarray) -> Iterator[ImportedEpisode]:
            for number in numbers.tolist():
                one, own = place(number)
                yield one.episode(own)

        def called(number: int) -> str:
            one, own = place(number)
            return one.called(own)

        names = list(tasks)
        return Plan(
            tasks=tasks,
            length=np.concatenate([one.lengths for one in sets]),
            task=np.repeat([names.index(one.task_name) for one in sets], counts),
            source=[one.source for one in sets for _ in one.lengths],
            episodes=episodes,
            action_repeat=1,
            files=[file for one in sets for file in (one.path / _METADATA, *one.storage.files)],
            episode_name=called,
        )


def _what_must_agree(task: ImportedTask) -> tuple[object, ...]:
    bounds = [None if side is None else np.asarray(side).tolist() for side in (task.low, task.high)]
    return task.obs_dim, task.action_dim, *bounds, task.spec.get("obs_order")


@dataclass(frozen=True, eq=False)
class _DataSet:
    """One data set, open for reading."""

    path: Path
    storage: MinariStorage
    parts: list[SpacePart]
    action: SpacePart
    task_name: str
    task: ImportedTask
    source: str
    lengths: np.ndarray

    @classmethod
    def of(cls, path: Path, options: Mapping[str, Any]) -> _DataSet:
        """The data set of a folder."""
        if not (path / _METADATA).is_file():
            raise LitPWMError(
                f"{str(path)!r} has no {_METADATA}. A Minari data set is the folder with data/ in it, as versions from "
                f"0.5 write it; load an older one with minari and save it anew."
            )
        found = json_object(path / _METADATA)
        data_format = found.get("data_format", "hdf5")
        if data_format not in STORAGES:
            raise LitPWMError(
                f"{str(path)!r} keeps its data as {data_format!r}; {', '.join(STORAGES)} are read. Convert it with "
                f"minari."
            )
        storage = STORAGES[data_format](path / "data")
        count = found.get("total_episodes", len(storage.ids))
        if count != len(storage.ids) or not storage.ids:
            raise LitPWMError(
                f"{str(path)!r} says that it has {count} episodes, and {len(storage.ids)} are there. Download it anew."
            )
        parts, acts, low, high = _spaces(path, found, storage, options[ACTION_BOUNDS.key])
        environment = _environment(path, found)
        name = options[TASK.key] or (f"gym:{environment['id']}" if environment else None)
        spec: dict[str, object] = {}
        if environment:
            given = environment.get("kwargs")
            kwargs = {key: value for key, value in (given or {}).items() if key != "render_mode"}
            spec |= {"make": GYM_MAKE, "kwargs": {"id": environment["id"], **kwargs}, "action_repeat": 1}
        if environment.get("max_episode_steps"):
            spec["episode_length"] = int(environment["max_episode_steps"])
        if len(parts) > 1 or parts[0].keys:
            spec["obs_order"] = [part.name for part in parts]
        return cls(
            path,
            storage,
            parts,
            acts,
            name or task_name(options, f"Minari's data set {str(path)!r}"),
            ImportedTask(sum(part.width for part in parts), acts.width, low, high, spec),
            str(found.get("dataset_id") or "minari"),
            storage.lengths(),
        )

    def called(self, number: int) -> str:
        """What an episode is called in errors."""
        return f"episode {self.storage.ids[number]} of {str(self.path)!r}"

    def episode(self, number: int) -> ImportedEpisode:
        """An episode, by its place in the order of ids."""
        found, where = self.storage.episode(number), self.called(number)
        terminations = found.column("terminations")
        ended = np.flatnonzero(terminations)
        length = int(self.lengths[number])
        if len(ended) and ended[0] < length - 1:
            raise LitPWMError(
                f"The `terminations` of {where} are set in row {int(ended[0])}, and it goes on to row {length - 1}. An "
                f"episode ends where it terminates; mend the data, or leave the episode out with minari."
            )
        obs = flattened(self.parts, lambda keys: found.column("observations", *keys), f"the observations of {where}")
        action = flattened([self.action], lambda keys: found.column("actions"), f"the actions of {where}")
        return ImportedEpisode(obs, action, found.column("rewards").reshape(-1), bool(len(ended)))


def _spaces(
    path: Path, metadata: Mapping[str, Any], storage: MinariStorage, given: Bounds | None
) -> tuple[list[SpacePart], SpacePart, np.ndarray, np.ndarray]:
    """The parts of observations, actions, and the lower and upper bounds of these, float64 [A] each.

    Metadata without spaces (`observation_space`, `action_space`) does where bounds are given and what is observed is a
    plain array: its width is that of the first episode.
    """
    observation, action = (_space(path, metadata, name) for name in ("observation_space", "action_space"))
    what = f"Minari's data set {str(path)!r}"
    if observation is None or action is None:
        if given is None:
            raise LitPWMError(
                f"{str(path / _METADATA)!r} does not describe its observation_space and action_space, so that bounds "
                f"of actions are not known. Give them: --action-bounds LOW,HIGH for all entries, or "
                f"LOW,LOW,…:HIGH,HIGH,…; or save the data set anew with minari 0.5 or later, which writes the spaces."
            )
        first = storage.episode(0)
    if observation is not None:
        parts = space_parts(observation, f"observation_space of {str(path)!r}")
    else:
        parts = [SpacePart((), _plain_shape(first, "observations", path))]
    if action is None:
        acts = SpacePart((), _plain_shape(first, "actions", path))
        return parts, acts, *bounds_of(given, acts.width, what)
    if action["type"] != "Box":
        raise LitPWMError(
            f"The action_space of {str(path)!r} is of the kind {action['type']}; policies act in a Box, and discrete "
            f"or composed actions are not imported."
        )
    (acts,) = space_parts(action, f"action_space of {str(path)!r}")
    low, high = (np.array(action[side], np.float64).reshape(-1) for side in ("low", "high"))
    if given is not None or not (np.isfinite(low).all() and np.isfinite(high).all()):
        low, high = bounds_of(given, acts.width, what)
    return parts, acts, low, high


def _plain_shape(episode: MinariEpisode, column: str, path: Path) -> tuple[int, ...]:
    """The shape of a row of a column that is one array of floats."""
    try:
        values = episode.column(column)
    except LitPWMError as error:
        raise LitPWMError(
            f"{str(path / _METADATA)!r} does not describe the space of its {column}, and they are no plain array, so "
            f"that the order of their parts is not known ({error}). Save the data set anew with minari 0.5 or later."
        ) from error
    if values.dtype.kind != "f":
        raise LitPWMError(
            f"{str(path / _METADATA)!r} does not describe the space of its {column}, which are of type "
            f"{values.dtype}: choices and pixels look like that too. Save the data set anew with minari 0.5 or later."
        )
    return values.shape[1:]


def _space(path: Path, metadata: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """A space's description, which is JSON in JSON; None where there is none."""
    if metadata.get(name) is None:
        return None
    try:
        space = json.loads(metadata[name])
        space["type"]
    except (KeyError, ValueError, TypeError) as error:
        raise LitPWMError(
            f"The {name} in {str(path / _METADATA)!r} cannot be read ({error}). Save the data set anew with minari 0.5 "
            f"or later, which writes it."
        ) from error
    return space


def _environment(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of the environment; empty where nothing is."""
    text = metadata.get("env_spec")
    if text is None:
        return {}
    try:
        found = json.loads(text)
        if not isinstance(found["id"], str) or not isinstance(found.get("kwargs") or {}, dict):
            raise TypeError("its id is no text, or its kwargs are no object")
        return found if found["id"] else {}
    except (KeyError, ValueError, TypeError) as error:
        raise LitPWMError(
            f"The env_spec in {str(path / _METADATA)!r} cannot be read ({error}). The file is damaged."
        ) from error
