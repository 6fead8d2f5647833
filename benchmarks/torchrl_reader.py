"""torchrl's SliceSampler over a store's rows in memory, as TD-MPC2 uses it, for `data.py`; in its own environment.

python torchrl_reader.py STORE HORIZON      # answers each line "BATCH_SIZE SECONDS" with a line of JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import torch
from reader_turns import answer_turns


def reader(path: str, horizon: int) -> tuple[Callable[[int], Callable[[], Any]], dict[str, str]]:
    """Makes a drawer of batches for a batch size; and the versions of what it is made with."""
    import tensordict  # ty: ignore[import-not-found]
    import torchrl  # ty: ignore[import-not-found]
    from torchrl.data import LazyTensorStorage, ReplayBuffer, SliceSampler  # ty: ignore[import-not-found]

    with h5py.File(path) as file:
        rows = {name: torch.from_numpy(file[name][:]) for name in ("obs", "action", "reward")}
        length, task = file["episode/length"][:].astype(np.int64), file["episode/task"][:].astype(np.int64)
    # TD-MPC2's convention, in which a row holds the action and the reward that led to it: what is in the last row
    # stands in the first, which a batch leaves out.
    rows["action"], rows["reward"] = rows["action"].roll(1, 0), rows["reward"].roll(1, 0)
    rows["task"] = torch.from_numpy(np.repeat(task, length))
    rows["episode"] = torch.from_numpy(np.repeat(np.arange(len(length)), length))
    count, slice_rows = len(rows["reward"]), horizon + 1
    storage = LazyTensorStorage(count)
    data = tensordict.TensorDict(rows, [count])

    def drawer(batch_size: int) -> Callable[[], Any]:
        # Trajectories are found once (cache_values), slices are of whole length, no value is looked up twice.
        sampler = SliceSampler(
            slice_len=slice_rows, traj_key="episode", cache_values=True, strict_length=True, compile=False
        )
        buffer = ReplayBuffer(storage=storage, sampler=sampler, batch_size=batch_size * slice_rows)
        if not len(storage):
            buffer.extend(data)

        def draw() -> Any:
            # TD-MPC2's `Buffer.sample` and `_prepare_batch`.
            slices = buffer.sample().view(-1, slice_rows).permute(1, 0)
            slices = slices.select("obs", "action", "reward", "task", strict=False)
            obs = slices.get("obs").contiguous()
            action, reward = slices.get("action")[1:].contiguous(), slices.get("reward")[1:].contiguous()
            return {"obs": obs, "action": action, "reward": reward, "task": slices.get("task")[0].contiguous()}

        return draw

    return drawer, {"torchrl": torchrl.__version__, "tensordict": tensordict.__version__, "torch": torch.__version__}


if __name__ == "__main__":
    torch.set_num_threads(1)
    made, versions = reader(sys.argv[1], int(sys.argv[2]))
    print(json.dumps(versions), flush=True)
    answer_turns(made)
