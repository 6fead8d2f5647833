"""A data set as LeRobot's version 3 has it: columns of numbers in Parquet files (`lerobot.datasets`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.importers.arrow_arrays import pyarrow_or_error

if TYPE_CHECKING:
    from datamodules.store_export import Exported

_FPS = 1
_FILE_NUMBERS = 2**24
_STATISTICS = ("min", "max", "mean", "std", "count")


def write_lerobot(folder: Path, what: Exported) -> None:
    """Write episodes as frames, and what describes them.

    Args:
        folder: the data set's, which exists and is empty.
        what: is exported. The time between frames is not known; `fps` is 1.

    Raises:
        LitPWMError: pyarrow is not installed.
        OSError: it cannot be written.
    """
    arrow = pyarrow_or_error()
    from pyarrow import parquet

    one = {"dtype": "float32", "shape": [1], "names": None}
    whole, truth = {**one, "dtype": "int64"}, {**one, "dtype": "bool"}
    features: dict[str, dict[str, Any]] = {
        "observation.state": {**one, "shape": [what.obs_dim]},
        "action": {**one, "shape": [len(what.low)]},
        "next.reward": one,
        "next.done": truth,
        "next.truncated": truth,
        "timestamp": one,
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), whole),
    }
    rows, file, held, episodes, frames = [], 0, 0, [], 0
    data = folder / "data/chunk-000"
    data.mkdir(parents=True)

    def flush() -> None:
        joined = {name: np.concatenate([row[name] for row in rows]) for name in features}
        table = arrow.table({name: _column(arrow, values, features[name]) for name, values in joined.items()})
        parquet.write_table(table, data / f"file-{file:03d}.parquet")

    for number, episode in enumerate(what.episodes):
        length = len(episode)
        last = np.arange(length) == length - 1
        own = {
            "observation.state": episode.obs[:-1],
            "action": episode.action,
            "next.reward": episode.reward,
            "next.done": last & episode.terminated,
            "next.truncated": last & (not episode.terminated),
            "timestamp": np.arange(length, dtype=np.float32) / _FPS,
            "frame_index": np.arange(length),
            "episode_index": np.full(length, number),
            "index": frames + np.arange(length),
            "task_index": np.zeros(length, np.int64),
        }
        if held > _FILE_NUMBERS:
            flush()
            rows, held, file = [], 0, file + 1
        rows.append(own)
        held += length * (what.obs_dim + len(what.low))
        about = {"episode_index": number, "tasks": [what.task], "length": length, "data/chunk_index": 0}
        about |= {"data/file_index": file, "dataset_from_index": frames, "dataset_to_index": frames + length}
        about |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        episodes.append((about, {name: _statistics(own[name]) for name in features}))
        frames += length
    flush()
    meta = folder / "meta"
    (meta / "episodes/chunk-000").mkdir(parents=True)
    flat = [
        about | {f"stats/{name}/{kind}": value for name, found in stats.items() for kind, value in found.items()}
        for about, stats in episodes
    ]
    parquet.write_table(arrow.Table.from_pylist(flat), meta / "episodes/chunk-000/file-000.parquet")
    pooled = {name: _pooled([stats[name] for _, stats in episodes]) for name in features}
    (meta / "stats.json").write_text(json.dumps(pooled))
    parquet.write_table(_tasks(arrow, what.task), meta / "tasks.parquet")
    info = {
        "codebase_version": "v3.0", "robot_type": None, "total_episodes": what.count, "total_frames": frames,
        "total_tasks": 1, "chunks_size": 1000, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200,
        "fps": _FPS, "splits": {"train": f"0:{what.count}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path": None,
        "features": features,
    }  # fmt: skip
    (meta / "info.json").write_text(json.dumps(info, indent=4))


def _column(arrow: Any, values: np.ndarray, feature: Mapping[str, Any]) -> Any:
    """One column, a list of fixed size in each row where there are several numbers, as LeRobot reads them."""
    values = np.ascontiguousarray(values.astype(feature["dtype"]))
    if feature["shape"] == [1]:
        return arrow.array(values.reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(arrow.array(values.reshape(-1)), feature["shape"][0])


def _tasks(arrow: Any, task: str) -> Any:
    """The table of tasks, of which pandas takes the text for the index."""
    table = arrow.table({"task_index": [0], "task": [task]})
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    of_pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    return table.replace_schema_metadata({"pandas": json.dumps(of_pandas)})


def _statistics(values: np.ndarray) -> dict[str, list[float]]:
    rows = values.reshape(len(values), -1).astype(np.float64)
    found = (rows.min(0), rows.max(0), rows.mean(0), rows.std(0))
    return {**{kind: one.tolist() for kind, one in zip(_STATISTICS, found, strict=False)}, "count": [len(rows)]}


def _pooled(parts: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Statistics of all episodes together."""
    low, high, mean, std, count = (np.array([part[kind] for part in parts]) for kind in _STATISTICS)
    weight = count / count.sum()
    middle = (weight * mean).sum(0)
    spread = np.sqrt((weight * (std**2 + (mean - middle) ** 2)).sum(0))
    found = (low.min(0), high.max(0), middle, spread)
    return {
        **{kind: one.tolist() for kind, one in zip(_STATISTICS, found, strict=False)},
        "count": [int(count.sum())],
    }
