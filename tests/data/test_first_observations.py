"""Policy learning is given the first observations of its slices, and nothing else is read for it."""

import h5py
import pytest
import torch

from datamodules import MultitaskDataModule

SECOND = {"horizon": 4, "batch_size": 8, "every": 2}


def batches(store, only_starts, **options):
    data = MultitaskDataModule(str(store), horizon=5, batch_size=32, batches_per_epoch=6, **options)
    data.setup()
    if only_starts:
        data.give_first_observations_only()
    return data, list(data.train_dataloader())


@pytest.mark.parametrize("storage", ["memmap", "ram", "device"])
def test_the_same_starts_without_what_follows(mixed_store, storage):
    _, whole = batches(mixed_store, False, storage=storage, second=SECOND)
    data, starts = batches(mixed_store, True, storage=storage, second=SECOND)
    for one, other in zip(whole, starts, strict=True):
        assert torch.equal(other["obs"], one["obs"][:1])
        assert torch.equal(other["task"], one["task"])
        assert other["action"].shape == (0, 32, 6)
        assert other["reward"].shape == (0, 32)
        assert ("second" in one) == ("second" in other)
        if "second" in one:
            assert all(torch.equal(one["second"][key], other["second"][key]) for key in one["second"])
    assert next(iter(data.val_dataloader()))["action"].shape[0] == 16
    data.setup()
    assert next(iter(data.train_dataloader()))["action"].shape[0] == 5


@pytest.mark.filterwarnings("ignore:The rows of")
def test_of_compressed_stores_too(mixed_store, tmp_path):
    with h5py.File(mixed_store) as source, h5py.File(tmp_path / "chunked.h5", "w") as target:
        target.attrs.update(source.attrs)
        source.copy("episode", target)
        for name in ("obs", "action", "reward", "terminated"):
            target.create_dataset(name, data=source[name][:], chunks=True, compression=4)
    _, plain = batches(mixed_store, True)
    _, compressed = batches(tmp_path / "chunked.h5", True)
    for one, other in zip(plain, compressed, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_terminated_episodes_too(make_store):
    path = make_store([("cup-catch", 30)] * 8, terminated=[1, 4])
    _, starts = batches(path, True)
    assert starts[0]["valid"].shape == (0, 32)
    assert (starts[0]["obs"][0, :, 0] % 1000 < 30).all()
