"""What a store's file will hold, known before its rows are written: datasets, table of episodes, attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike

from datamodules.layout import (
    EPISODE_COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    ROW_COLUMNS,
    SPECS_VERSION,
    STATISTICS,
    attribute_checksum,
    content_hash,
    statistics_checksum,
    statistics_shapes,
)
from datamodules.skeleton import PlainFile
from datamodules.store_statistics import StoreStatistics, moment_blocks, statistics_of

SUMS = ("obs_sum", "obs_m2")


@dataclass(frozen=True, eq=False)
class StorePlan:
    """The episodes of a store that is about to be written.

    Attributes:
        tasks: task name → (obs_dim, action_dim).
        rows: rows of each episode, T + 1, int64 [E].
        task: index of each episode's task, int32 [E].
        sources: what acted in each episode, E texts.
        action_repeat: control steps for each action.
        specs: task name → what is known of its environment, plain JSON. With it the store is of version 3.
        whole_episodes: whether each task's episodes are whole, in the order of the tasks; all are if not given.
        moved: actions that were clipped, and rewards clamped, before.
    """

    tasks: Mapping[str, tuple[int, int]]
    rows: np.ndarray
    task: np.ndarray
    sources: Sequence[str]
    action_repeat: int
    specs: Mapping[str, Mapping[str, Any]] | None = None
    whole_episodes: Sequence[bool] | None = None
    moved: tuple[int, int] = (0, 0)

    @property
    def version(self) -> int:
        """The lowest format version that says all."""
        return FORMAT_VERSION if self.specs is None else SPECS_VERSION

    @property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """Shape of the rows of each column."""
        obs_dim, action_dim = (max(dims[place] for dims in self.tasks.values()) for place in (0, 1))
        return {"obs": (obs_dim,), "action": (action_dim,), "reward": (), "terminated": ()}

    def table(self) -> dict[str, np.ndarray]:
        """The columns of the table of episodes; checksums and what only the episodes say are zeros."""
        encoded = [value.encode() for value in self.sources]
        columns = {
            "offset": np.cumsum(self.rows) - self.rows,
            "length": self.rows,
            "task": self.task,
            "source": np.array(encoded, h5py.string_dtype("utf-8", max(len(value) for value in encoded))),
            "checksum": np.zeros(len(self.rows), np.uint32),
            "obs_count": self.rows,
        }
        return columns | ({"last_obs_known": np.zeros(len(self.rows), np.uint8)} if self.version > 2 else {})

    def datasets(self, table: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
        """Shape and type of each dataset, in the file's order."""
        datasets: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
            name: ((int(self.rows.sum()), *self.widths[name]), dtype) for name, dtype in ROW_COLUMNS.items()
        }
        datasets |= {f"episode/{name}": (values.shape, values.dtype) for name, values in table.items()}
        wide = (len(self.rows), *self.widths["obs"])
        return datasets | {f"episode/{name}": (wide, np.float64) for name in SUMS}

    def no_checksums(self) -> dict[str, int]:
        """0 for each column of the table of episodes, in the order in which they are kept."""
        return dict.fromkeys(EPISODE_COLUMNS[self.version], 0)

    def promised_attributes(self) -> dict[str, object]:
        """Attributes of the shapes and types of those that the file will have, before what they say is known."""
        shapes = statistics_shapes(len(self.tasks), *self.widths["obs"])
        return self.attributes(self.no_checksums(), 0, 0, {n: np.zeros(shapes[n], t) for n, t in STATISTICS.items()})

    def attributes(
        self, checksums: Mapping[str, int], clipped: int, clamped: int, statistics: Mapping[str, np.ndarray]
    ) -> dict[str, object]:
        """The file's attributes, as it holds them.

        Args:
            checksums: of each column of the table of episodes.
            clipped: actions that were moved into [-1, 1].
            clamped: rewards that were moved into the range of a model's bins.
            statistics: those that are computed from the columns.
        """
        attributes: dict[str, object] = {
            "format_version": self.version,
            "task_names": list(self.tasks),
            "obs_dims": [obs_dim for obs_dim, _ in self.tasks.values()],
            "action_dims": [action_dim for _, action_dim in self.tasks.values()],
            "action_repeat": self.action_repeat,
        }
        text = h5py.string_dtype()
        held: dict[str, object] = {"task_names": np.array(list(self.tasks), text)}
        if self.specs is not None:
            specs = [json.dumps(self.specs.get(name, {}), sort_keys=True) for name in self.tasks]
            whole = [int(value) for value in self.whole_episodes or [True] * len(self.tasks)]
            attributes |= {"task_specs": specs, "whole_episodes": whole}
            held["task_specs"] = np.array(specs, text)
        attributes |= {
            "clipped_actions": self.moved[0] + clipped,
            "clamped_rewards": self.moved[1] + clamped,
            "column_checksums": list(checksums.values()),
        }
        held |= {
            **statistics,
            "statistics_checksum": statistics_checksum(statistics),
            "content_hash": np.bytes_(content_hash(attributes)),
        }
        attributes["attribute_checksum"] = attribute_checksum(attributes)
        return {"format": FORMAT, **attributes, **held}


def written_statistics(file: PlainFile, plan: StorePlan) -> StoreStatistics:
    """The statistics of a store whose columns have all been written.

    Raises:
        OSError: it cannot be read.
    """
    (obs_dim,) = plan.widths["obs"]
    moments = moment_blocks(file.get, len(plan.rows), obs_dim)
    return statistics_of(file.get, moments, plan.rows, plan.task, len(plan.tasks), obs_dim)
