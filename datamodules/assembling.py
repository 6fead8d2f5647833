"""From shards to a store under its final name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datamodules.check import check
from datamodules.layout import (
    EPISODE_COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    ROW_COLUMNS,
    TEXT,
    attribute_checksum,
    column_checksum,
    observation_moments,
    rows_checksum,
)
from datamodules.shards import Record, ShardFolder, read
from datamodules.structure import one_line
from lit_pwm.atomic import replacing
from lit_pwm.errors import LitPWMError

_BLOCK_ROWS = 65_536
_PAGE = 4096


def finish(
    folder: ShardFolder, tasks: Mapping[str, tuple[int, int]], action_repeat: int, records: Sequence[Record]
) -> None:
    """Assemble a store from shards, check it, give it its final name, and remove the shards.

    Args:
        folder: where the shards lie.
        tasks: task name → (obs_dim, action_dim).
        action_repeat: control steps for each action.
        records: the episodes in the store's order.

    Raises:
        LitPWMError: a shard is damaged, or a file of that name has appeared meanwhile.
    """
    with replacing(folder.path / "assembled.h5", f"The store {str(folder.final)!r}") as beside:
        assemble(beside, tasks, action_repeat, records)
        faults = check(beside)
        if faults:
            raise LitPWMError(f"The store assembled for {str(folder.final)!r} has faults: {'; '.join(faults)}.")
        with beside.open("rb") as file:
            os.fsync(file.fileno())
    folder.publish(folder.path / "assembled.h5")


def assemble(path: Path, tasks: Mapping[str, tuple[int, int]], action_repeat: int, records: Sequence[Record]) -> None:
    """Write a store file from records of shards, a block of rows at a time.

    Raises:
        OSError: it cannot be written.
    """
    rows = np.array([record.length + 1 for record in records], np.int64)
    dims = np.array(list(tasks.values()), np.int64)
    widths = {"obs": (int(dims[:, 0].max()),), "action": (int(dims[:, 1].max()),), "reward": (), "terminated": ()}
    try:
        # Page-aligned, so that mapped columns are aligned arrays. Since version 1.8 of HDF5's own format its structures
        # have checksums, and attributes may be larger than 64 kB.
        options = {"libver": ("v108", "v108"), "alignment_threshold": _PAGE, "alignment_interval": _PAGE}
        with h5py.File(path, "w", track_times=False, **options) as file:
            group = file.create_group("episode", track_times=False)
            table: dict[str, Any] = {
                "offset": np.cumsum(rows) - rows,
                "length": rows,
                "task": np.array([record.task for record in records], np.int32),
                "source": [record.source for record in records],
            } | _write_rows(file, widths, records)
            for name, dtype in EPISODE_COLUMNS[FORMAT_VERSION].items():
                group.create_dataset(name, data=_texts(table[name]) if dtype == TEXT else table[name])
            _write_attributes(file, tasks, action_repeat, records, table)
    except RuntimeError as error:  # h5py's, where a file cannot be closed because the disk is full
        raise OSError(one_line(error)) from error


def _write_attributes(
    file: h5py.File,
    tasks: Mapping[str, tuple[int, int]],
    action_repeat: int,
    records: Sequence[Record],
    table: Mapping[str, Any],
) -> None:
    attributes: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "task_names": list(tasks),
        "obs_dims": [obs_dim for obs_dim, _ in tasks.values()],
        "action_dims": [action_dim for _, action_dim in tasks.values()],
        "action_repeat": action_repeat,
        "clipped_actions": sum(record.clipped for record in records),
        "clamped_rewards": sum(record.clamped for record in records),
        "column_checksums": [column_checksum(table[name]) for name in EPISODE_COLUMNS[FORMAT_VERSION]],
    }
    attributes["attribute_checksum"] = attribute_checksum(attributes)
    file.attrs["format"] = _texts([FORMAT])[0]
    for name, value in attributes.items():
        file.attrs[name] = _texts(value) if name == "task_names" else value


def _texts(values: Sequence[str]) -> np.ndarray:
    """Texts of one length, that of the longest: texts of variable length lie in a heap that has no checksums."""
    encoded = [value.encode() for value in values]
    return np.array(encoded, h5py.string_dtype("utf-8", max(len(value) for value in encoded)))


def _write_rows(
    file: h5py.File, widths: Mapping[str, tuple[int, ...]], records: Sequence[Record]
) -> dict[str, np.ndarray]:
    """Write the rows; returns what is kept of each episode's beside."""
    total, count = sum(record.length + 1 for record in records), len(records)
    columns = {
        name: file.create_dataset(name, (total, *widths[name]), dtype) for name, dtype in ROW_COLUMNS.items()
    }  # fmt: skip
    kept: dict[str, np.ndarray] = {"checksum": np.zeros(count, "<u4"), "obs_count": np.zeros(count, "<i8")}
    kept |= {name: np.zeros((count, *widths["obs"]), "<f8") for name in ("obs_sum", "obs_m2")}
    start = number = 0
    for block in _blocks(records):
        arrays = _padded(block, widths)
        first = 0
        for record in block:
            rows = {name: array[first : first + record.length + 1] for name, array in arrays.items()}
            kept["checksum"][number], kept["obs_count"][number] = rows_checksum(rows), record.length + 1
            total_and_m2 = observation_moments(rows["obs"][:, : record.obs_dim])
            for name, values in zip(("obs_sum", "obs_m2"), total_and_m2, strict=True):
                kept[name][number, : record.obs_dim] = values
            first, number = first + record.length + 1, number + 1
        for name, column in columns.items():
            column[start : start + first] = arrays[name]
        start += first
    return kept


def _blocks(records: Sequence[Record]) -> Iterable[list[Record]]:
    block, rows = [], 0
    for record in records:
        block.append(record)
        rows += record.length + 1
        if rows >= _BLOCK_ROWS:
            yield block
            block, rows = [], 0
    if block:
        yield block


def _padded(block: Sequence[Record], widths: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Rows of some episodes in the store's convention: padded with zeros, NaN where nothing followed."""
    total = sum(record.length + 1 for record in block)
    out = {name: np.zeros((total, *widths[name]), dtype) for name, dtype in ROW_COLUMNS.items()}
    start = 0
    for record in block:
        rows, last = read(record), start + record.length
        out["obs"][start : last + 1, : record.obs_dim] = rows.obs
        out["action"][start:last, : record.action_dim] = rows.action
        out["action"][last, : record.action_dim] = np.nan
        out["reward"][start:last], out["reward"][last] = rows.reward, np.nan
        out["terminated"][last] = record.terminated
        start = last + 1
    return out
