"""One table: batches are the same to the bit for each storage, one and two ranks, and 0 and 2 worker processes.

Under a real Trainer, with real ranks; of a store whose episodes are all cut off, and of one with terminations, a last
observation that was not recorded and episodes shorter than a slice.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import support
import torch
from lightning.pytorch import LightningModule
from numbered_episodes import TASKS, write_ends

from datamodules import MultitaskDataModule

WAYS = [("memmap", 0), ("memmap", 2), ("ram", 0), ("ram", 2), ("device", 0)]
"""Storage and worker processes; `device` takes none."""
WHOLE, SECOND = 12, 6


def stores(folder: Path) -> dict[str, str]:
    names = list(TASKS)
    cut = [(names[n % 3], 20 + (n * 7) % 40, False, True) for n in range(24)]
    ended = [(names[n % 3], (3, 21, 34)[n // 3 % 3], n % 4 > 0, n % 4 < 3) for n in range(24)]
    ended = [(task, length + 18 * (not terminated), terminated, known) for task, length, terminated, known in ended]
    return {"cut": write_ends(folder / "cut.h5", cut), "ended": write_ends(folder / "ended.h5", ended)}


class Draws(LightningModule):
    """Draws, at the start of a run, the batches of all ways."""

    def __init__(self, paths: dict[str, str]) -> None:
        super().__init__()
        self.paths, self.weight, self.found = paths, torch.nn.Parameter(torch.zeros(1)), {}

    def on_train_start(self) -> None:
        ranks = self.trainer.world_size
        for name, path in self.paths.items():
            for storage, workers in WAYS:
                second = {"horizon": 9, "batch_size": SECOND // ranks, "every": 2, "task_weights": {"cup-catch": 2.0}}
                data = MultitaskDataModule(
                    path, horizon=7, batch_size=WHOLE // ranks, batches_per_epoch=5, val_fraction=0.2, seed=3,
                    balance="tasks", storage=storage, num_workers=workers, second=second, val_batches=1,
                )  # fmt: skip
                data.trainer = self.trainer
                data.setup()
                training, validation = list(data.train_dataloader()), list(data.val_dataloader())
                self.found[name, storage, workers] = training + validation

    def train_dataloader(self) -> list[int]:
        return [0]

    def training_step(self, batch: object) -> torch.Tensor:
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def draw(paths: dict[str, str], **options: object) -> Draws:
    module = Draws(paths)
    support.quiet_trainer(1, use_distributed_sampler=False, **options).fit(module)
    return module


RANKS = """
import json, sys
import torch
from test_identical_batches import draw

if __name__ == "__main__":
    module = draw(json.loads(sys.argv[1]), strategy="ddp", devices=2)
    torch.save(module.found, f"{sys.argv[2]}/rank{module.global_rank}.pt")
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """By number of ranks, the batches of all ways, those of two ranks joined."""
    folder = tmp_path_factory.mktemp("identical")
    paths = stores(folder)
    script = folder / "run.py"
    script.write_text(RANKS)
    environment = support.environment_of_programs()
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(paths), str(folder)],
        check=False, timeout=300, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, other = (torch.load(folder / f"rank{rank}.pt") for rank in (0, 1))
    joined = {way: [join(*pair) for pair in zip(first[way], other[way], strict=True)] for way in first}
    return {1: draw(paths).found, 2: joined}


def join(first: dict, other: dict) -> dict:
    """A whole batch of two ranks' shares."""
    return {
        key: join(value, other[key]) if key == "second" else torch.cat([value, other[key]], 0 if key == "task" else 1)
        for key, value in first.items()
    }


def assert_equal(one: dict, other: dict) -> None:
    assert list(one) == list(other)
    for key, value in one.items():
        if key == "second":
            assert_equal(value, other[key])
        else:
            assert value.dtype == other[key].dtype
            assert torch.equal(value, other[key]), key


@pytest.mark.long
@pytest.mark.parametrize("store", ["cut", "ended"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("storage", "workers"), WAYS)
def test_batches_are_the_same_to_the_bit(drawn, store, ranks, storage, workers):
    reference, found = drawn[1][store, "memmap", 0], drawn[ranks][store, storage, workers]
    assert len(found) == len(reference) > 5  # training, then validation
    for one, other in zip(reference, found, strict=True):
        assert_equal(one, other)


@pytest.mark.long
def test_the_stores_are_what_they_are_meant_to_be(drawn):
    cut, ended = (drawn[1][store, "memmap", 0] for store in ("cut", "ended"))
    assert all("valid" not in batch for batch in cut)
    assert any(not batch["valid"].all() for batch in ended)
    assert any((batch["valid"] != batch["consistent"]).any() for batch in ended)
    assert [("second" in batch) for batch in cut[:5]] == [True, False, True, False, True]
    assert not torch.equal(cut[0]["obs"], cut[1]["obs"])
    assert (cut[0]["obs"].shape[1], cut[0]["second"]["obs"].shape[1]) == (WHOLE, SECOND)
