"""Writes the fixtures of Minari's with Minari itself.

    python -m venv /tmp/minari && /tmp/minari/bin/pip install 'minari[hdf5,arrow,create]==0.5.4' pillow
    /tmp/minari/bin/python tests/fixtures_minari/write_minari.py /tmp/sets
    tar -C /tmp/sets --sort=name --owner=0 --group=0 -caf tests/fixtures_minari/data_sets.tar.xz .

Each data set holds 11 episodes (more than ten, so that ids in the order of texts would be seen) of an environment whose
observations are a dictionary in an order that is not the alphabet's, nested, or of gymnasium's Pendulum-v1.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

os.environ["MINARI_DATASETS_PATH"] = tempfile.mkdtemp()
import minari

HERE = Path(sys.argv[1])
OBSERVATIONS = spaces.Dict(
    [
        ("observation", spaces.Box(-np.inf, np.inf, (3,), np.float64)),
        ("goal", spaces.Dict([("z", spaces.Box(-1, 1, (1, 2), np.float32)), ("kind", spaces.Discrete(3, start=1))])),
        ("achieved_goal", spaces.Box(-np.inf, np.inf, (2,), np.float64)),
    ]
)


class Reaching(gymnasium.Env):
    """Ends by termination in odd episodes, and by its time limit in the others."""

    observation_space = OBSERVATIONS
    action_space = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.steps = options["number"], 0
        return self._observed(), {}

    def _observed(self):
        row = 100 * self.number + self.steps
        goal = {"z": np.array([[row / 4096, -row / 4096]], np.float32), "kind": 1 + self.steps % 3}
        return {"observation": row + np.arange(3.0), "goal": goal, "achieved_goal": -row - np.arange(2.0)}

    def step(self, action):
        self.steps += 1
        ended = self.steps == 2 + self.number % 4
        odd = self.number % 2 == 1
        return self._observed(), self.number + self.steps / 16, ended and odd, ended and not odd, {}


def collect(env, name, data_format, episodes, options=lambda number: {}):
    collector = minari.DataCollector(env, data_format=data_format)
    for number in range(episodes):
        collector.reset(seed=number, options=options(number))
        collector.action_space.seed(number)
        over = False
        while not over:
            *_, terminated, truncated, _ = collector.step(collector.action_space.sample())
            over = terminated or truncated
    return collector.create_dataset(name, algorithm_name="uniform")


def keep(dataset, folder):
    target = HERE / folder
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(dataset.storage.data_path, target / "data")
    print(folder, sum(file.stat().st_size for file in target.rglob("*") if file.is_file()))


class Mangled(gymnasium.Wrapper):
    spec = None


def numbered(number):
    return {"number": number}


for data_format in ("hdf5", "arrow", "parquet"):
    env = Mangled(Reaching())
    keep(collect(env, f"reaching/{data_format}-v0", data_format, 11, numbered), f"reaching_{data_format}")
keep(collect(gymnasium.make("Pendulum-v1", max_episode_steps=4), "pendulum/uniform-v0", "hdf5", 2), "pendulum")
