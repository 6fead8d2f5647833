"""Batches made ahead by a thread are those made when asked for; errors come where the batch would have come."""

import threading

import pytest
import torch

from datamodules import MultitaskDataModule
from datamodules.making_ahead import made_ahead


@pytest.mark.parametrize("depth", [0, 1, 3, 50])
def test_the_same_in_order_and_no_more_ahead_than_asked_for(depth):
    made, taken = [], 0

    def make(step):
        made.append(step)
        assert len(made) <= taken + depth + 1
        return step * step

    for found in made_ahead(make, range(20), depth):
        assert found == taken * taken
        taken += 1
    assert taken == 20
    assert made == list(range(20))


def test_a_batch_is_made_while_the_one_before_is_in_use():
    second = threading.Event()
    batches = made_ahead(lambda step: second.set() if step == 1 else None, range(2), 1)
    next(batches)
    assert second.wait(10)  # nobody has asked for it
    batches.close()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_comes_in_its_turn(depth):
    def make(step):
        if step == 3:
            raise ValueError("three")
        return step

    batches = made_ahead(make, range(9), depth)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(batches)


def test_no_thread_outlives_an_iteration_that_is_left():
    before = threading.active_count()
    batches = made_ahead(str, range(100), 2)
    assert next(batches) == "0"
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_what_nobody_will_take_is_not_made():
    made, go_on = [], threading.Event()

    def make(step):
        made.append(step)
        if step == 1:
            go_on.wait(10)
        return step

    batches = made_ahead(make, range(100), 20)
    assert next(batches) == 0
    threading.Timer(0.2, go_on.set).start()
    batches.close()
    assert made == [0, 1]


@pytest.mark.parametrize("storage", ["memmap", "ram"])
def test_slices_and_positions_do_not_depend_on_it(mixed_store, storage):
    found = {}
    for prefetch in (0, 1, 5):
        options = {"horizon": 5, "batch_size": 32, "batches_per_epoch": 9, "storage": storage, "prefetch": prefetch}
        data = MultitaskDataModule(str(mixed_store), **options)
        data.setup()
        loader = data.train_dataloader()
        batches = iter(loader)
        begun = [next(batches) for _ in range(4)]
        assert loader.state_dict() == {"next_step": 4}  # handed out, whatever was made
        batches.close()
        found[prefetch] = [*begun, *loader]  # goes on
        assert len(found[prefetch]) == 13
    for one, *others in zip(*found.values(), strict=True):
        assert all(torch.equal(one[key], other[key]) for other in others for key in one)
