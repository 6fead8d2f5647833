"""Compares exported data sets, read by the projects' own readers, with the store that they were made from.

In environments of their own, which need not hold lit_pwm (lerobot-dataset is lerobot's data sets alone):

    pip install 'minari[hdf5]' h5py && python exports_read_back.py F.h5 --minari DIR
    pip install lerobot h5py && python exports_read_back.py F.h5 --lerobot DIR
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np


def of_store(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
    """Observations, actions in the environment's bounds, rewards, terminated: of each episode of a store."""
    with h5py.File(path) as file:
        specs = json.loads(file.attrs["task_specs"][0]) if "task_specs" in file.attrs else {}
        low, high = (np.array(specs.get(side, default)) for side, default in (("low", -1.0), ("high", 1.0)))
        for start, rows in zip(file["episode/offset"][:], file["episode/length"][:], strict=True):
            stop = start + rows - 1
            action = low + (file["action"][start:stop].astype(float) + 1) / 2 * (high - low)
            yield file["obs"][start : stop + 1], action, file["reward"][start:stop], bool(file["terminated"][stop])


def of_minari(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
    """The same of a data set of Minari's."""
    import minari  # ty: ignore[import-not-found]

    for episode in minari.MinariDataset(str(folder / "data")).iterate_episodes():
        yield episode.observations, episode.actions, episode.rewards, bool(episode.terminations[-1])


def of_lerobot(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
    """The same of a data set of LeRobot's, which has one observation less."""
    try:
        from lerobot.datasets.lerobot_dataset import LeRobotDataset  # ty: ignore[import-not-found]
    except ImportError:
        from ledataset.datasets.lerobot_dataset import LeRobotDataset  # ty: ignore[import-not-found]

    data = LeRobotDataset(repo_id="me/exported", root=folder)
    for episode in data.meta.episodes:
        frames = [data[i] for i in range(episode["dataset_from_index"], episode["dataset_to_index"])]
        columns = {
            name: np.stack([np.asarray(frame[name]) for frame in frames]) for name in frames[0] if name != "task"
        }
        yield (
            columns["observation.state"],
            columns["action"],
            columns["next.reward"].reshape(-1),
            bool(columns["next.done"].reshape(-1)[-1]),
        )


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--minari", type=Path)
    parser.add_argument("--lerobot", type=Path)
    arguments = parser.parse_args()
    for name, folder, read in (("Minari", arguments.minari, of_minari), ("LeRobot", arguments.lerobot, of_lerobot)):
        if folder is None:
            continue
        count = 0
        for ours, theirs in zip(of_store(arguments.store), read(folder), strict=True):
            rows = len(ours[0]) - (name == "LeRobot")
            np.testing.assert_array_equal(ours[0][:rows], theirs[0])
            np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-6 * np.abs(ours[1]).max())
            np.testing.assert_array_equal(ours[2], theirs[2])
            assert ours[3] == theirs[3]
            count += 1
        print(f"{name}: {count} episodes are the store's")


if __name__ == "__main__":
    main()
