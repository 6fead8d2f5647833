"""Real Lightning runs: resuming to the batch, and ranks that share a batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import support
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import MultitaskDataModule
from lit_pwm.errors import LitPWMError

pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


class Recorder(LightningModule):
    """Remembers the batches it is trained on, by the first observations of their slices."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, list[float]]] = []
        self.second: list[tuple[int, list[float]]] = []
        self.validated: list[list[float]] = []

    def configure_model(self) -> None:
        """As the project's modules do: tell the data which tasks there are, after its setup."""
        data = self.trainer.datamodule
        names = ["walker-walk", *reversed([name for name in data.tasks if name != "walker-walk"])]
        data.bind_tasks(names, 24, 6)
        self.statistics = data.observation_statistics()
        self.rows_were_read = any("obs" in store._columns for store in data._opened()[0])

    def training_step(self, batch, batch_idx):
        assert batch["obs"].shape[-1] == 24
        self.seen.append((batch_idx, batch["obs"][0, :, 0].tolist()))
        if "second" in batch:
            self.second.append((batch_idx, batch["second"]["obs"][0, :, 0].tolist()))
        return self.layer(batch["reward"].mean().reshape(1, 1)).square().mean()

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch["obs"][0, :, 0].tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-6)


def fit(store, root, max_steps, *, ckpt_path=None, every=1, data_options=None, **options):
    module = Recorder()
    data = MultitaskDataModule(
        **{"store": str(store), "horizon": 5, "batch_size": 8, "batches_per_epoch": 6, "val_batches": 2}
        | (data_options or {})
    )
    keep = {"every_n_train_steps": every, "auto_insert_metric_name": True, "save_top_k": -1}
    keeper = ModelCheckpoint(root, "{step}", **keep)
    settings = {"max_epochs": -1, "callbacks": [keeper], "enable_checkpointing": True}
    support.fit(module, data, max_steps, None, ckpt_path, **settings | options)
    return module


@pytest.fixture(scope="module")
def straight(mixed_store, tmp_path_factory):
    root = tmp_path_factory.mktemp("straight")
    return fit(mixed_store, root, 21, check_val_every_n_epoch=2), root


def test_epochs_follow_the_steps(straight, mixed_store):
    module, _ = straight
    data = MultitaskDataModule(str(mixed_store), horizon=5, batch_size=8, batches_per_epoch=21, val_batches=2)
    data.setup()
    expected = [batch["obs"][0, :, 0].tolist() for batch in data.train_dataloader()]
    assert [seen for _, seen in module.seen] == expected
    assert [index for index, _ in module.seen] == [*range(6)] * 3 + [0, 1, 2]
    assert len(module.validated) == 2  # after epoch 2
    assert module.validated == [batch["obs"][0, :, 0].tolist() for batch in data.val_dataloader()][:2]


# Inside the first epoch, at the ends of two, inside the third.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("step", "num_workers"), [(4, 0), (6, 0), (12, 2), (15, 2)])
def test_resuming_is_exact_to_the_batch(straight, mixed_store, tmp_path, step, num_workers):
    module, root = straight
    resumed = fit(
        mixed_store, tmp_path, 21, ckpt_path=root / f"step={step}.ckpt", data_options={"num_workers": num_workers}
    )
    assert resumed.seen == module.seen[step:]


def test_resuming_a_resumed_run(straight, mixed_store, tmp_path):
    module, root = straight
    fit(mixed_store, tmp_path, 9, ckpt_path=root / "step=4.ckpt")
    resumed = fit(mixed_store, tmp_path / "again", 21, ckpt_path=tmp_path / "step=9.ckpt")
    assert resumed.seen == module.seen[9:]


def test_shortened_epochs_and_reloaded_loaders_go_on_too(straight, mixed_store, tmp_path):
    module, _ = straight
    for options in ({"limit_train_batches": 4}, {"reload_dataloaders_every_n_epochs": 1}):
        other = fit(mixed_store, tmp_path / next(iter(options)), 21, **options)
        assert [seen for _, seen in other.seen] == [seen for _, seen in module.seen]
        step = 10 if "limit_train_batches" in options else 8
        path = tmp_path / next(iter(options)) / f"step={step}.ckpt"
        resumed = fit(mixed_store, tmp_path / f"from {step}", 21, ckpt_path=path, **options)
        assert [seen for _, seen in resumed.seen] == [seen for _, seen in module.seen[step:]]


def test_validation_in_the_middle_of_epochs_changes_nothing(straight, mixed_store, tmp_path):
    module, _ = straight
    other = fit(mixed_store, tmp_path, 21, val_check_interval=5, check_val_every_n_epoch=None)
    assert other.seen == module.seen
    assert other.validated == module.validated * 4
    resumed = fit(
        mixed_store,
        tmp_path / "resumed",
        21,
        ckpt_path=tmp_path / "step=10.ckpt",
        val_check_interval=5,
        check_val_every_n_epoch=None,
    )
    assert resumed.seen == module.seen[10:]


def test_overfitting_repeats_its_batches(straight, mixed_store, tmp_path):
    module, _ = straight
    other = fit(mixed_store, tmp_path / "run", 9, overfit_batches=3)
    assert other.seen == module.seen[:3] * 3


def test_another_batch_size_on_as_many_ranks_is_said(straight, mixed_store, tmp_path, monkeypatch):
    _, root = straight
    notices = []
    monkeypatch.setattr("datamodules.global_batch.rank_zero_info", notices.append)
    checkpoint = root / "step=4.ckpt"
    assert len(fit(mixed_store, tmp_path / "again 2", 5, ckpt_path=checkpoint).seen) == 1
    assert not notices
    fit(mixed_store, tmp_path / "again 3", 5, ckpt_path=checkpoint, data_options={"batch_size": 4})
    (notice,) = notices
    assert "data.batch_size is 4 on each of 1 rank(s), and was 8" in notice


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_the_run_without_validation_data(make_store, tmp_path):
    path = make_store([("cup-catch", 60), ("walker-walk", 30)])
    assert len(fit(path, tmp_path / "run", 3).seen) == 3


DDP = """
import json, sys
from test_data_in_training import fit

if __name__ == "__main__":
    options = {"batch_size": 4, "second": {"horizon": 9, "batch_size": 3, "every": 2}}
    ranks = {"strategy": "ddp", "devices": 2}
    module = fit(sys.argv[1], sys.argv[2], 9, data_options=options, **ranks)
    straight = f"{sys.argv[3]}/step=4.ckpt"
    resumed = fit(sys.argv[1], f"{sys.argv[2]}/moved", 9, ckpt_path=straight, data_options=options, **ranks)
    found = [module.seen, module.second, module.validated, module.statistics, module.rows_were_read, resumed.seen]
    with open(f"{sys.argv[2]}/rank{module.global_rank}.json", "w") as file:
        json.dump(found, file)
"""


@pytest.mark.slow
def test_two_ranks_with_half_the_batch_see_what_one_process_sees(
    straight, mixed_store, version_1, tmp_path, monkeypatch
):
    """Of a store of version 1, whose rows are read for its statistics on the first rank alone.

    Each goes on from the other's checkpoint with the slices that come next.
    """
    module, root = straight
    script = tmp_path / "run.py"
    script.write_text(DDP)
    environment = support.environment_of_programs()
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    arguments = [str(version_1(mixed_store)), str(tmp_path), str(root)]
    subprocess.run([sys.executable, str(script), *arguments], check=True, timeout=120, env=environment)
    seen, second, validated, statistics, read, resumed = zip(
        *(json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)), strict=True
    )
    both = [first + second for (_, first), (_, second) in zip(*seen, strict=True)]
    assert both == [seen for _, seen in module.seen[:9]]
    options = {"horizon": 9, "batch_size": 6, "every": 2}
    alone = MultitaskDataModule(str(mixed_store), horizon=5, batch_size=8, batches_per_epoch=9, second=options)
    alone.setup()
    due = [batch["second"]["obs"][0, :, 0].tolist() for batch in alone.train_dataloader() if "second" in batch]
    assert [first + theirs for (_, first), (_, theirs) in zip(*second, strict=True)] == due
    assert [index for index, _ in second[0]] == [0, 2, 4, 0, 2]  # of epochs of 6 updates
    assert [first + second for first, second in zip(*validated, strict=True)] == module.validated[:2]
    assert read == (True, False)
    of_one = {name: list(found) for name, found in module.statistics.items()}
    assert [*statistics] == [of_one, of_one]
    assert not module.rows_were_read  # version 2
    assert [first + theirs for (_, first), (_, theirs) in zip(*resumed, strict=True)] == [
        seen for _, seen in module.seen[4:9]
    ]
    notices, checkpoint = [], tmp_path / "step=3.ckpt"
    monkeypatch.setattr("datamodules.global_batch.rank_zero_info", notices.append)
    one = fit(mixed_store, tmp_path / "again 4", 9, ckpt_path=checkpoint, data_options={"second": options})
    assert one.seen == module.seen[3:9]
    assert [seen for _, seen in one.second] == due[2:]
    assert len(notices) == 1
    assert "of 2 rank(s), and this one has 1" in notices[0]
    with pytest.raises(LitPWMError, match=r"has 1 with data\.batch_size 4, which makes 4.*Set data\.batch_size to 8"):
        fit(mixed_store, tmp_path / "again", 9, ckpt_path=checkpoint, data_options={"batch_size": 4, "second": options})
    other = options | {"batch_size": 3}
    with pytest.raises(LitPWMError, match=r"data\.second\.batch_size 3, which makes 3.*to 6"):
        fit(mixed_store, tmp_path / "again", 9, ckpt_path=checkpoint, data_options={"second": other})
