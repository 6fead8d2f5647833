"""Seeds in every cell: two differ in weights, batches and noise; one gives all cells the same data."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from lightning.pytorch import Callback

DYNAMICS, ACTORS, SEEDS = ("mlp", "flow", "refinement"), ("mlp", "flow"), (1, 2)


class Beginning(Callback):
    """Weights before the first update, the noise of the actor, and the batches."""

    def __init__(self):
        self.batches, self.noise = [], None

    def on_train_start(self, trainer, module):
        self.weights = {name: value.clone() for name, value in module.named_parameters()}

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append({name: value.clone() for name, value in batch.items()})


class Noise(Callback):
    """The actor's noise of each update."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.seen.append(module.update_noise(len(batch["task"]))["actor"])


@pytest.fixture(scope="module")
def beginnings(pretraining, policy_learning, world_model_files, run, tmp_path_factory):
    """(cell, seed) → how a run of two updates began; a cell is a kind of dynamics, or a pair with a kind of actor."""
    root, found = tmp_path_factory.mktemp("seeds"), {}
    for seed, kind in product(SEEDS, DYNAMICS):
        found[kind, seed] = Beginning()
        run(pretraining(kind), root, [found[kind, seed]], updates=2, seed=seed, logger=False)
    for seed, dynamics, actor in product(SEEDS, DYNAMICS, ACTORS):
        beginning, noise = Beginning(), Noise()
        module = policy_learning(world_model_files[dynamics], actor)
        run(module, root, [beginning, noise], updates=2, seed=seed, logger=False)
        beginning.noise = noise.seen
        found[f"{dynamics}-{actor}", seed] = beginning
    return found


def same_batches(ours, theirs):
    """Of what both have: policies are given the first observations of slices alone."""
    return [
        all(torch.equal(a[key][: len(b[key])], b[key][: len(a[key])]) for key in a)
        for a, b in zip(ours, theirs, strict=True)
    ]


CELLS = [*DYNAMICS, *(f"{dynamics}-{actor}" for dynamics, actor in product(DYNAMICS, ACTORS))]


@pytest.mark.parametrize("cell", CELLS)
def test_two_seeds_differ_in_everything(cell, beginnings):
    first, second = (beginnings[cell, seed] for seed in SEEDS)
    parts = ("actor", "critic") if "-" in cell else ("world_model.encoder", "world_model.dynamics")
    for part in parts:
        own = {name: value for name, value in first.weights.items() if name.startswith(part)}
        random = [name for name, value in own.items() if value.ndim > 1 and value.numel() > 1 and value.std() > 0]
        assert random, part
        assert not any(torch.equal(own[name], second.weights[name]) for name in random)
    assert same_batches(first.batches, second.batches) == [False, False]
    assert same_batches(first.batches[:1], first.batches[1:]) == [False]
    if first.noise is not None:
        draws = [*first.noise, *second.noise]
        assert len(draws) == 4
        assert not any(torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


@pytest.mark.parametrize("seed", SEEDS)
def test_one_seed_gives_all_cells_the_same_data(seed, beginnings):
    for cell in CELLS:
        assert same_batches(beginnings[cell, seed].batches, beginnings["mlp", seed].batches) == [True, True], cell
