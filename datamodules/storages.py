"""Where the rows of the chosen episodes live: in their files, in memory, or on the accelerator.

Each class turns windows into the slices of a batch, time-major, the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from datamodules.columns import ArrayColumn
from datamodules.episodes import EpisodeTable
from datamodules.layout import block_rows
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
    """Rows of the chosen episodes are read once into this process's memory.

    Args:
        stores: the files.
        table: the chosen episodes.
    """

    def __init__(self, stores: Sequence[EpisodeStore], table: EpisodeTable) -> None:
        obs_dim, action_dim = widest(stores)
        total, self._first = _places(table)
        self._last = self._first + table.length if table.terminated.any() else None
        obs = np.zeros((total, obs_dim), np.float32)
        action = np.zeros((total, action_dim), np.float32)
        reward = np.empty(total, np.float32)
        for place, rows in _blocks(stores, table):
            stop = place + len(rows["reward"])
            obs[place:stop, : rows["obs"].shape[1]] = rows["obs"]
            action[place:stop, : rows["action"].shape[1]] = rows["action"]
            reward[place:stop] = rows["reward"]
        self._obs, self._action, self._reward = ArrayColumn(obs), ArrayColumn(action), ArrayColumn(reward)

    def slices(self, windows: Windows, horizon: int, obs_dim: int, action_dim: int) -> Slices:
        """One gather for each column."""
        starts = self._first[windows.episode] + windows.start
        ends = None if self._last is None else self._last[windows.episode]
        obs = torch.from_numpy(self._obs.windows(starts, horizon + 1, last=ends))
        action = torch.from_numpy(self._action.windows(starts, horizon, last=ends))
        reward = torch.from_numpy(self._reward.windows(starts, horizon, last=ends))
        return Slices(_fitted(obs, obs_dim), _fitted(action, action_dim), reward)


class DeviceStorage:
    """Rows of the chosen episodes are copied once to a torch device, where batches are gathered.

    Args:
        stores: the files.
        table: the chosen episodes.
        device: where the rows live.
    """

    def __init__(self, stores: Sequence[EpisodeStore], table: EpisodeTable, device: torch.device) -> None:
        obs_dim, action_dim = widest(stores)
        total, self._first = _places(table)
        self._last = self._first + table.length if table.terminated.any() else None
        self._device = device
        self._obs = torch.zeros(total, obs_dim, device=device)
        self._action = torch.zeros(total, action_dim, device=device)
        self._reward = torch.empty(total, device=device)
        for place, rows in _blocks(stores, table):
            stop = place + len(rows["reward"])
            self._obs[place:stop, : rows["obs"].shape[1]] = torch.from_numpy(rows["obs"].copy()).to(device)
            self._action[place:stop, : rows["action"].shape[1]] = torch.from_numpy(rows["action"].copy()).to(device)
            self._reward[place:stop] = torch.from_numpy(rows["reward"].copy()).to(device)

    def slices(self, windows: Windows, horizon: int, obs_dim: int, action_dim: int) -> Slices:
        """One gather for each column, on the device; only the starts travel to it."""
        starts = torch.from_numpy(self._first[windows.episode] + windows.start).to(self._device)
        rows = torch.arange(horizon + 1, device=self._device)[:, None] + starts
        if self._last is not None:
            rows = rows.minimum(torch.from_numpy(self._last[windows.episode]).to(self._device))
        obs, action, reward = self._obs[rows], self._action[rows[:-1]], self._reward[rows[:-1]]
        return Slices(_fitted(obs, obs_dim), _fitted(action, action_dim), reward)


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


def _places(table: EpisodeTable) -> tuple[int, np.ndarray]:
    """The number of rows of the chosen episodes, and where each episode starts when they are laid one after another."""
    rows = table.length + 1
    return int(rows.sum()), np.cumsum(rows) - rows


def _blocks(stores: Sequence[EpisodeStore], table: EpisodeTable) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The chosen episodes' rows in the table's order, with the place of each block, all values looked at.

    Raises:
        LitPWMError: a store has rows that cannot be trained on.
    """
    _, places = _places(table)
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
