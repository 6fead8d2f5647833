"""From shards to a store under its final name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from datamodules.check import check
from datamodules.layout import ROW_COLUMNS, block_rows, column_checksum, observation_moments, rows_checksum
from datamodules.origin import write_origin
from datamodules.shard_folder import ShardFolder
from datamodules.shards import Record, read
from datamodules.skeleton import PlainFile
from datamodules.store_plan import SUMS, StorePlan, written_statistics
from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.atomic import replacing
from lit_pwm.tasks.stored_specs import StoredSpec

_BLOCK_ROWS = 65_536


def finish(
    folder: ShardFolder,
    tasks: Mapping[str, tuple[int, int]],
    action_repeat: int,
    records: Sequence[Record],
    settings: Mapping[str, object],
    specs: Mapping[str, StoredSpec],
) -> None:
    """Assemble a store from shards, check it, give it its final name, and remove the shards.

    Args:
        folder: where the shards lie.
        tasks: task name → (obs_dim, action_dim).
        action_repeat: control steps for each action.
        records: the episodes in the store's order.
        settings: how they were made, which is written beside the store.
        specs: task name → what is known of its environment, of those of which anything is.

    Raises:
        LitPWMError: a shard is damaged, or a file of that name has appeared meanwhile.
    """
    with replacing(folder.path / "assembled.h5", f"The store {str(folder.final)!r}") as beside:
        assemble(beside, tasks, action_repeat, records, specs)
        faults = check(beside)
        if faults:
            raise LitPWMError(f"The store assembled for {str(folder.final)!r} has faults: {'; '.join(faults)}.")
        with beside.open("rb") as file:
            os.fsync(file.fileno())
    write_origin(folder.final, settings)
    folder.publish(folder.path / "assembled.h5")


def assemble(
    path: Path,
    tasks: Mapping[str, tuple[int, int]],
    action_repeat: int,
    records: Sequence[Record],
    specs: Mapping[str, StoredSpec],
) -> None:
    """Write a store file from records of shards, a block of rows at a time.

    Raises:
        OSError: it cannot be written.
    """
    rows = np.array([record.length + 1 for record in records], np.int64)
    task = np.array([record.task for record in records], np.int32)
    plan = StorePlan(tasks, rows, task, [record.source for record in records], action_repeat, specs or None)
    table, checksums = plan.table(), plan.no_checksums()
    if "last_obs_known" in table:
        table["last_obs_known"][:] = 1
    moved = sum(record.clipped for record in records), sum(record.clamped for record in records)
    with PlainFile(path, plan.datasets(table), plan.promised_attributes()) as file:
        _write_rows(file, plan.widths, records, table["checksum"], checksums)
        for name, values in table.items():
            file.put(f"episode/{name}", 0, values)
            checksums[name] = column_checksum(plan.sources if name == "source" else values)
        file.put_attributes(plan.attributes(checksums, *moved, written_statistics(file, plan).arrays()))


def _write_rows(
    file: PlainFile,
    widths: Mapping[str, tuple[int, ...]],
    records: Sequence[Record],
    row_checksums: np.ndarray,
    checksums: dict[str, int],
) -> None:
    """Write the rows and their statistics.

    Args:
        file: where to.
        widths: shape of each column's rows.
        records: the episodes.
        row_checksums: takes the checksum of each episode's rows [E].
        checksums: takes those of the statistics, by name.
    """
    start = number = 0
    for block in _blocks(records, block_rows(max(*widths["obs"], *widths["action"]), _BLOCK_ROWS)):
        arrays, first = _padded(block, widths), 0
        sums = {name: np.zeros((len(block), *widths["obs"])) for name in SUMS}
        for place, record in enumerate(block):
            rows = {name: array[first : first + record.length + 1] for name, array in arrays.items()}
            row_checksums[number + place] = rows_checksum(rows)
            moments = observation_moments(rows["obs"][:, : record.obs_dim])
            for own, values in zip(sums.values(), moments, strict=True):
                own[place, : record.obs_dim] = values
            first += record.length + 1
        for name, values in sums.items():
            file.put(f"episode/{name}", number, values)
            checksums[name] = column_checksum(values, checksums[name])
        for name, array in arrays.items():
            file.put(name, start, array)
        start, number = start + first, number + len(block)


def _blocks(records: Sequence[Record], most: int) -> Iterable[list[Record]]:
    block, rows = [], 0
    for record in records:
        block.append(record)
        rows += record.length + 1
        if rows >= most:
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
