"""Where the rows of the chosen episodes live: in their files, in memory, or on the accelerator.

Each class turns windows into the slices of a batch, time-major, the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from datamodules.episodes import EpisodeTable
from datamodules.layout import block_rows
from datamodules.runs_of_rows import gather_runs, time_major
from datamodules.sampler import Windows
from datamodules.store import EpisodeStore
from datamodules.values import Block, Tally, tally_rows
from lit_pwm.errors import LitPWMError

Placement = Literal["memmap", "ram", "device"]
_BLOCK_ROWS = 65_536


class Slices(NamedTuple):
    """B slices of H transitions: obs [H+1, B, O], action [H, B, A], reward [H, B]."""

    obs: Tensor
    action: Tensor
    reward: Tensor


class Storage(Protocol):
    """Gives slices of chosen episodes."""

    def slices(self, windows: Windows, horizon: int, obs_dim: int, action_dim: int) -> Slices:
        """Slices whose episodes count in the table, with rows padded by zeros or cut to the given widths.

        Where a slice runs past its episode's last row, that one stands for all behind it, NaN included.
        """
        ...


class FileStorage:
    """Rows stay in their files and are mapped: memory is the page cache's, which processes share.

    Args:
        stores: the files.
        table: the chosen episodes.
    """

    def __init__(self, stores: Sequence[EpisodeStore], table: EpisodeTable) -> None:
        self._stores, self._table, self._pass_ends = stores, table, bool(table.terminated.any())

    def slices(self, windows: Windows, horizon: int, obs_dim: int, action_dim: int) -> Slices:
        """One gather for each column of each store."""
        table, count = self._table, len(windows.episode)
        origin, offset = table.store[windows.episode], table.offset[windows.episode]
        first, last = offset + windows.start, offset + table.length[windows.episode]
        obs = np.zeros((horizon + 1, count, obs_dim), np.float32)
        action = np.zeros((horizon, count, action_dim), np.float32)
        reward = np.empty((horizon, count), np.float32)
        for index in np.unique(origin):
            store, mine = self._stores[index], origin == index
            starts, everything = first[mine], bool(mine.all())
            ends = last[mine] if self._pass_ends else None
            obs_width, action_width = min(obs_dim, store.obs_dim), min(action_dim, store.action_dim)
            from_obs = store.column("obs").windows(starts, horizon + 1, obs_width, ends)
            from_action = store.column("action").windows(starts, horizon, action_width, ends)
            from_reward = store.column("reward").windows(starts, horizon, last=ends)
            if everything and (obs_width, action_width) == (obs_dim, action_dim):
                obs, action, reward = from_obs, from_action, from_reward
            else:
                obs[:, mine, :obs_width] = from_obs
                action[:, mine, :action_width] = from_action
                reward[:, mine] = from_reward
        return Slices(torch.from_numpy(obs), torch.from_numpy(action), torch.from_numpy(reward))


class MemoryStorage:
    """Rows of the chosen episodes are read once into this process's memory, where a row's columns lie side by side.

    Args:
        stores: the files.
        table: the chosen episodes.
    """

    def __init__(self, stores: Sequence[EpisodeStore], table: EpisodeTable) -> None:
        self._places = _Places(table)
        self._obs_dim, self._action_dim = widest(stores)
        self._rows = np.zeros((self._places.total, self._obs_dim + self._action_dim + 1), np.float32)
        for place, block in _side_by_side(stores, table):
            self._rows[place : place + len(block)] = block

    def slices(self, windows: Windows, horizon: int, obs_dim: int, action_dim: int) -> Slices:
        """One gather."""
        starts, ends = self._places.of(windows)
        runs, widths = gather_runs(self._rows, starts, horizon + 1, ends), (self._obs_dim, self._action_dim)
        obs, action = np.split(runs[..., :-1], [self._obs_dim], axis=-1)
        parts = [
            time_major(part, slice(width))
            for part, width in ((obs, obs_dim), (action[:, :horizon], action_dim), (runs[:, :horizon, -1:], 1))
        ]
        for index, (own, width) in enumerate(zip(widths, (obs_dim, action_dim), strict=True)):
            if own < width:
                parts[index] = np.pad(parts[index], ((0, 0), (0, 0), (0, width - own)))
        return Slices(*map(torch.from_numpy, (parts[0], parts[1], parts[2][..., 0])))


class DeviceStorage:
    """Rows of the chosen episodes are copied once to a torch device, side by side, and batches are gathered there.

    Args:
        stores: the files.
        table: the chosen episodes.
        device: where the rows live.
    """

    def __init__(self, stores: Sequence[EpisodeStore], table: EpisodeTable, device: torch.device) -> None:
        self._places, self._device = _Places(table), device
        self._obs_dim, self._action_dim = widest(stores)
        self._rows = torch.zeros(self._places.total, self._obs_dim + self._action_dim + 1, device=device)
        for place, block in _side_by_side(stores, table):
            self._rows[place : place + len(block)] = torch.from_numpy(block).to(device)

    def slices(self, windows: Windows, horizon: int, obs_dim: int, action_dim: int) -> Slices:
        """One gather, on the device; only the starts travel to it."""
        first, last = self._places.of(windows)
        rows = torch.arange(horizon + 1, device=self._device)[:, None] + torch.from_numpy(first).to(self._device)
        if last is not None:
            rows = rows.minimum(torch.from_numpy(last).to(self._device))
        runs = self._rows.index_select(0, rows.flatten()).view(*rows.shape, -1)
        obs, action = runs[..., : self._obs_dim], runs[:-1, :, self._obs_dim : -1]
        return Slices(_fitted(obs, obs_dim), _fitted(action, action_dim), runs[:-1, :, -1].contiguous())


def storage_of(
    placement: Placement, stores: Sequence[EpisodeStore], table: EpisodeTable, device: torch.device
) -> Storage:
    """Where the chosen episodes' rows live.

    Raises:
        LitPWMError: rows that are copied cannot be trained on.
    """
    if placement == "device":
        return DeviceStorage(stores, table, device)
    return (MemoryStorage if placement == "ram" else FileStorage)(stores, table)


def widest(stores: Sequence[EpisodeStore]) -> tuple[int, int]:
    """The largest padded widths of observations and actions."""
    return max(store.obs_dim for store in stores), max(store.action_dim for store in stores)


def _fitted(values: Tensor, width: int) -> Tensor:
    """Rows cut, or padded with zeros, to a width; contiguous."""
    missing = width - values.shape[-1]
    return torch.nn.functional.pad(values, (0, missing)) if missing > 0 else values[..., :width].contiguous()


class _Places:
    """Where the chosen episodes' rows are when they are laid one after another."""

    def __init__(self, table: EpisodeTable) -> None:
        rows = table.length + 1
        self.total, self.first = int(rows.sum()), np.cumsum(rows) - rows
        self._last = self.first + table.length if table.terminated.any() else None

    def of(self, windows: Windows) -> tuple[np.ndarray, np.ndarray | None]:
        """First rows of windows, and the last ones of their episodes where windows may run past them."""
        last = None if self._last is None else self._last[windows.episode]
        return self.first[windows.episode] + windows.start, last


def _side_by_side(stores: Sequence[EpisodeStore], table: EpisodeTable) -> Iterator[tuple[int, np.ndarray]]:
    """As `_blocks`, with the columns of a row side by side: observation and action, each padded, and reward."""
    obs_dim, action_dim = widest(stores)
    for place, rows in _blocks(stores, table):
        block = np.zeros((len(rows["reward"]), obs_dim + action_dim + 1), np.float32)
        block[:, : rows["obs"].shape[1]] = rows["obs"]
        block[:, obs_dim : obs_dim + rows["action"].shape[1]] = rows["action"]
        block[:, -1] = rows["reward"]
        yield place, block


def _blocks(stores: Sequence[EpisodeStore], table: EpisodeTable) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The chosen episodes' rows in the table's order, with the place of each block, all values looked at.

    Raises:
        LitPWMError: a store has rows that cannot be trained on.
    """
    places = _Places(table).first
    for first, last in table.runs():
        store = stores[table.store[first]]
        begin, end = int(table.offset[first]), int(table.offset[last - 1] + table.length[last - 1] + 1)
        step = block_rows(store.obs_dim, _BLOCK_ROWS)
        for start in range(begin, end, step):
            stop = min(start + step, end)
            rows = {name: store.column(name).read(start, stop) for name in ("obs", "action", "reward")}
            tallies: dict[str, Tally] = {}
            tally_rows(tallies, Block.of(rows, start, store.offset, store.length, store.task, store.tasks))
            if tallies:
                faults = "; ".join(tally.describe(kind) for kind, tally in tallies.items())
                raise LitPWMError(
                    f"The episode store {str(store.path)!r} cannot be trained on: {faults}. `lit-pwm data check "
                    f"{store.path}` lists all faults; write the store anew without them, or leave the task out with "
                    f"data.tasks."
                )
            yield int(places[first]) + start - begin, rows
