"""Makes the chunks beside it with tensordict itself, each version in an environment of its own.

uv venv td01 && uv pip install --python td01/bin/python torch==2.1.0 tensordict==0.1.2 "numpy<2"
uv venv td03 && uv pip install --python td03/bin/python torch==2.2.0 tensordict==0.3.0 packaging "numpy<2"
uv venv td15 && uv pip install --python td15/bin/python torch==2.13.0 tensordict==0.15.3 numpy
for v in 01 03 15; do td$v/bin/python tests/data/chunks/make.py $v; done
"""

import sys
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict

TASKS = {0: (24, 6), 4: (6, 2), 8: (5, 1)}
"""Ids of walker-stand, reacher-easy and cartpole-balance, and their widths."""
ROWS, WIDTHS = 4, (24, 6)


def main(version: str) -> None:
    ids = [8, 0, 4, 8]
    obs = np.zeros((len(ids), ROWS, WIDTHS[0]), np.float32)
    action = np.zeros((len(ids), ROWS, WIDTHS[1]), np.float32)
    reward = np.zeros((len(ids), ROWS), np.float32)
    for episode, task in enumerate(ids):
        obs_dim, action_dim = TASKS[task]
        for row in range(ROWS):
            obs[episode, row, :obs_dim] = episode + row / 8 + np.arange(obs_dim) / 256
            action[episode, row, :action_dim] = (row + np.arange(action_dim)) / 16 - episode / 4
            reward[episode, row] = episode + row / 4
    action[:, 0], reward[:, 0] = 1e9, np.nan  # filler, as it is met
    task = np.repeat(np.array(ids, np.int32)[:, None], ROWS, 1)
    arrays = {"obs": obs, "action": action, "reward": reward, "task": task}
    chunk = TensorDict({key: torch.from_numpy(value) for key, value in arrays.items()}, [len(ids), ROWS])
    for name, zipped in (("zip", True), ("legacy", False)):
        torch.save(
            chunk, Path(__file__).with_name(f"tensordict_{version}_{name}.pt"), _use_new_zipfile_serialization=zipped
        )


main(sys.argv[1])
