"""Writes the fixture of LeRobot's with its own writer (version 3).

    python -m venv /tmp/lerobot && /tmp/lerobot/bin/pip install lerobot  # or lerobot-dataset==0.4.4 alone
    /tmp/lerobot/bin/python tests/fixtures_lerobot/write_lerobot.py /tmp/sets/v3
    tar -C /tmp/sets --sort=name --owner=0 --group=0 -caf tests/fixtures_lerobot/data_sets.tar.xz .

Twelve episodes of 2 to 5 frames; numbers say which episode and frame they are of.
"""

import sys

import numpy as np

try:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
except ImportError:  # lerobot-dataset
    from ledataset.datasets.lerobot_dataset import LeRobotDataset

one = {"dtype": "float32", "shape": (1,), "names": None}
features = {
    "observation.state": {"dtype": "float32", "shape": (2,), "names": ["row", "ten"]},
    "observation.goal": one,
    "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "next.reward": one,
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    "next.truncated": {"dtype": "bool", "shape": (1,), "names": None},
}
found = LeRobotDataset.create(repo_id="me/made", fps=10, features=features, root=sys.argv[1], use_videos=False)
for episode in range(12):
    frames = 2 + episode % 4
    for frame in range(frames):
        row = 100 * episode + frame
        last = frame == frames - 1
        frame_values = {
            "observation.state": np.array([row, 10 * row], np.float32),
            "observation.goal": np.array([-row], np.float32),
            "action": np.array([row, -row], np.float32) / 2048,
            "next.reward": np.array([row / 64], np.float32),
            "next.done": np.array([last and episode % 2 == 1]),
            "next.truncated": np.array([last and episode % 2 == 0]),
            "task": "reach",
        }
        found.add_frame(frame_values)
    found.save_episode()
found.finalize()
