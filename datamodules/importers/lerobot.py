"""LeRobot's data sets, versions 2 and 3: columns of numbers in Parquet files (huggingface/lerobot, `lerobot.datasets`).

Version 2 has a file for each episode, version 3 several in each; the rows are the same. A row is a frame: what was
observed, the action taken then, and in `next.reward` what that action earned. Videos and images are not imported.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.importers.arrow_arrays import own_table, values_of
from datamodules.importers.flat_columns import flags, task_name
from datamodules.importers.importer import ImportedTask, ImportOption, Plan
from datamodules.importers.json_files import json_object
from datamodules.importers.lerobot_episodes import episode_pieces, in_order_of_ids
from datamodules.importers.row_files import Pieces, ReadRows, RowFile, row_plan
from datamodules.importers.shared_options import ACTION_BOUNDS, TASK, bounds_of
from lit_pwm.errors import LitPWMError
from lit_pwm.options.names import names_in

DONE = ImportOption(
    "--done",
    "what `next.done` means: `terminated`; it often means success or the end, so that without the option no episode "
    "terminates",
    "terminated",
    choices=("terminated",),
)
REWARD_ROW = ImportOption(
    "--reward-row",
    "where a column `reward` has what action t earned: in row t (`same`) or in row t + 1 (`next`)",
    "same|next",
    choices=("same", "next"),
)


OBS_COLUMNS = ImportOption(
    "--obs-columns", "columns of observations, side by side", "A,B", names_in, ("observation.state",)
)
_INFO = "meta/info.json"


class LeRobot:
    """Reads LeRobot's data sets; see the module."""

    name = "lerobot"
    title = "LeRobot's data sets of versions 2 and 3, the folder with meta/"
    options = (TASK, ACTION_BOUNDS, OBS_COLUMNS, DONE, REWARD_ROW)

    def recognises(self, path: Path) -> bool:
        """Whether it is a data set's folder."""
        try:
            return "codebase_version" in json_object(path / _INFO)
        except LitPWMError:
            return False

    def plan(self, sources: Sequence[Path], options: Mapping[str, Any]) -> Plan:
        """What the data set holds."""
        if len(sources) != 1:
            raise LitPWMError("LeRobot's data sets are imported one at a time; name one folder, and merge the stores.")
        return _DataSet.of(sources[0], options).plan()


@dataclass(frozen=True, eq=False)
class _DataSet:
    path: Path
    features: Mapping[str, Any]
    obs: tuple[str, ...]
    reward: str
    reward_row: int
    done: bool
    totals: tuple[int | None, int | None]
    options: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path, options: Mapping[str, Any]) -> _DataSet:
        info = json_object(path / _INFO)
        version, features = str(info.get("codebase_version")), info.get("features")
        if not re.match(r"v?[23](\.|$)", version):
            raise LitPWMError(
                f"{str(path)!r} is of LeRobot's version {version}; 2 and 3 are read. Convert it with lerobot."
            )
        if not isinstance(features, dict):
            raise LitPWMError(f"{str(path / _INFO)!r} does not describe its features. It is damaged.")
        reward, reward_row = _reward(path, features, options[REWARD_ROW.key])
        obs = tuple(options[OBS_COLUMNS.key])
        if not obs:
            raise LitPWMError("The option --obs-columns names no column. Write names separated by commas.")
        for name in (*obs, "action"):
            _require_numbers(path, features, name)
        if (done := options[DONE.key] is not None) and "next.done" not in features:
            raise LitPWMError(f"{str(path)!r} has no `next.done`, of which --done speaks. Leave the option out.")
        totals = info.get("total_episodes"), info.get("total_frames")
        return cls(path, features, obs, reward, reward_row, done, totals, options)

    def plan(self) -> Plan:
        """The plan of its files."""
        files = sorted(
            (self.path / "data").rglob("*.parquet"),
            key=lambda file: [int(number) for number in re.findall(r"\d+", str(file.relative_to(self.path)))],
        )
        if not files:
            raise LitPWMError(f"{str(self.path)!r} has no Parquet files in data/; it is incomplete.")
        ids, pieces, task_of = in_order_of_ids(self.path, [(file, *self._file(file)) for file in files])
        episodes, frames = sum(len(found) for found in ids.values()), sum(len(task) for task in task_of.values())
        for what, said, there in (("episodes", self.totals[0], episodes), ("frames", self.totals[1], frames)):
            if said is not None and said != there:
                raise LitPWMError(
                    f"{str(self.path / _INFO)!r} says that there are {said} {what}, and {there} are there. Download "
                    f"the data set anew, whole."
                )
        kept = [file for file in pieces if len(pieces[file].length)]
        tasks, numbers = self._tasks({file: task_of[file][pieces[file].first] for file in kept})
        row_files = [
            RowFile(file, pieces[file], lambda file=file: self._opened(file), self.obs, None, "action", self.reward,
                    self.reward_row)
            for file in pieces
        ]  # fmt: skip
        return row_plan(
            row_files,
            tasks,
            "lerobot",
            task_of=[numbers.get(file, np.zeros(0, np.int64)) for file in pieces],
        )

    def _file(self, file: Path) -> tuple[np.ndarray, Pieces, np.ndarray]:
        """Ids of a file's episodes, where they lie, and the task of each row."""
        wanted = ["episode_index", "frame_index", "task_index", *(["next.done"] if self.done else [])]
        there = [name for name in wanted if name in self.features or name == "episode_index"]
        table = own_table([file], "parquet", there)
        columns = {name: values_of(table, [name], file).reshape(-1) for name in there}
        done = flags(file, "next.done", columns["next.done"]) if self.done else None
        task = columns.get("task_index", np.zeros(len(table), np.int64))
        ids, pieces = episode_pieces(
            file, columns["episode_index"], columns.get("frame_index"), task, done, self.reward_row == 1
        )
        return ids, pieces, task

    def _tasks(self, task_of: Mapping[Path, np.ndarray]) -> tuple[dict[str, ImportedTask], dict[Path, np.ndarray]]:
        """The tasks by name, and the number among them of each file's episodes."""
        what = f"LeRobot's data set {str(self.path)!r}"
        found = np.unique(np.concatenate([*task_of.values(), np.zeros(0, np.int64)]))
        given = task_name(self.options, what)
        names = [given] if len(found) <= 1 else names_in(given)
        if len(names) != max(len(found), 1) or len(set(names)) < len(names):
            raise LitPWMError(
                f"{what} has {len(found)} tasks (task_index {', '.join(map(str, found[:8].tolist()))}"
                f"{', …' if len(found) > 8 else ''}; meta/tasks says what they are), which are not one. Name each, in "
                f"that order: --task A,B,…"
            )
        width = math.prod(self.features["action"]["shape"])
        low, high = bounds_of(self.options[ACTION_BOUNDS.key], width, what)
        obs_dim = sum(math.prod(self.features[name]["shape"]) for name in self.obs)
        spec = {"obs_order": list(self.obs)} if len(self.obs) > 1 else {}
        tasks = {name: ImportedTask(obs_dim, width, low, high, spec) for name in names}
        return tasks, {file: np.searchsorted(found, task) for file, task in task_of.items()}

    @contextlib.contextmanager
    def _opened(self, file: Path) -> Generator[ReadRows]:
        table = own_table([file], "parquet", [*dict.fromkeys((*self.obs, "action", self.reward))])
        arrays = {name: values_of(table, [name], file) for name in table.column_names}
        yield lambda name, start, stop: arrays[name][start:stop]


def _reward(path: Path, features: Mapping[str, Any], reward_row: str | None) -> tuple[str, int]:
    """The column of rewards, and by how many rows they stand after their actions."""
    if reward_row is not None:
        if "reward" not in features:
            raise LitPWMError(f"{str(path)!r} has no column `reward`, of which --reward-row speaks. Leave it out.")
        return "reward", int(reward_row == "next")
    if "next.reward" in features:
        return "next.reward", 0
    if "reward" in features:
        raise LitPWMError(
            f"{str(path)!r} has its rewards in a column `reward`, of which it is not known whether row t has what "
            f"action t earned or what led to it. Say which: --reward-row same (row t) or --reward-row next (row t + 1)."
        )
    raise LitPWMError(
        f"{str(path)!r} has no rewards (`next.reward`); it has {', '.join(features)}. Demonstrations without rewards "
        f"are not imported; add the column with lerobot."
    )


def _require_numbers(path: Path, features: Mapping[str, Any], name: str) -> None:
    """Make sure that a column is one of numbers, and its width is known."""
    numbers = [key for key, one in features.items() if one.get("dtype") not in ("video", "image", "string")]
    if name not in features:
        raise LitPWMError(
            f"{str(path)!r} has no column {name!r}; its columns of numbers are {', '.join(numbers)}. Name those of "
            f"observations with --obs-columns A,B."
        )
    if name not in numbers:
        raise LitPWMError(
            f"{name!r} of {str(path)!r} is {features[name]['dtype']}; only columns of numbers are imported."
        )
