"""Rehearsal chunks: what is made of a store comes back as that store, and each synthetic episode once."""

import numpy as np
import pytest
from rehearsal_chunks import main

from datamodules import EpisodeStore, EpisodeWriter
from datamodules.importers.torch_chunks import load_tensors
from datamodules.importing import import_data
from lit_pwm.tasks.registry import TASK_SETS

TASKS = {"cup-catch": (8, 2), "walker-run": (24, 6), "cartpole-swingup": (5, 1)}


@pytest.fixture
def store(tmp_path) -> EpisodeStore:
    drawn = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "whole.h5", TASKS) as writer:
        for number in range(9):
            task = list(TASKS)[number % 3]
            obs_dim, action_dim = TASKS[task]
            obs, action = drawn.normal(size=(501, obs_dim)), drawn.uniform(-1, 1, (500, action_dim))
            writer.append(task=task, obs=obs, action=action, reward=drawn.uniform(0, 2, 500), source="noise")
    return EpisodeStore(tmp_path / "whole.h5")


def rows_by_first(store):
    """Episodes by task and first observation, of which no two are the same."""
    return {(episode.task, episode.obs[0].tobytes()): episode for episode in store}


@pytest.mark.parametrize("legacy", [True, False])
def test_a_stores_episodes_come_back(store, tmp_path, legacy):
    main([str(store.path), "--out", str(tmp_path / "chunks"), "--chunks", "2", *(["--legacy"] if legacy else [])])
    tensors = load_tensors(tmp_path / "chunks" / "chunk_0.pt")
    assert {key: tuple(value.shape) for key, value in tensors.items()} == {
        "obs": (5, 501, 24), "action": (5, 501, 6), "reward": (5, 501), "task": (5, 501),
    }  # fmt: skip
    assert tensors["reward"][:, 0].isnan().all()
    assert tensors["action"][:, 0].isfinite().all()
    assert float(tensors["action"][:, 0].abs().max()) > 1
    back = rows_by_first(import_data([tmp_path / "chunks"], tmp_path / "back.h5", progress=False))
    assert len(back) == len(store)
    for key, episode in rows_by_first(store).items():
        for name in ("obs", "action", "reward"):
            assert np.array_equal(getattr(back[key], name), getattr(episode, name))
    assert EpisodeStore(tmp_path / "back.h5").whole_episodes.all()


def test_mt80_has_pieces_of_episodes(store, tmp_path):
    main([str(store.path), "--out", str(tmp_path / "chunks"), "--chunks", "1", "--task-set", "mt80"])
    back = import_data([tmp_path / "chunks"], tmp_path / "back.h5", progress=False)
    assert len(back) == 5 * len(store)
    assert set(back.length.tolist()) == {100}
    found = rows_by_first(back)
    for episode in store:
        for start in range(0, 500, 100):
            piece = found[episode.task, episode.obs[start].tobytes()]
            assert np.array_equal(piece.obs, episode.obs[start : start + 101])
            assert np.array_equal(piece.action, episode.action[start : start + 100])
            assert np.array_equal(piece.reward, episode.reward[start : start + 100])


def test_synthetic_episodes_are_each_there_once(tmp_path):
    main(["--synthetic", "0.004", "--chunk-gb", "0.002", "--out", str(tmp_path / "chunks")])
    back = import_data([tmp_path / "chunks"], tmp_path / "back.h5", progress=False)
    assert [int(episode.obs[0, 0]) for episode in back] == list(range(len(back)))
    assert len(back) == 60
    assert list(back.tasks) == list(TASK_SETS["mt30"])
