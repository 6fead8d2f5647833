"""A second stream has slices of its own beside the first's, which it leaves as they are."""

import pickle
from functools import partial

import numpy as np
import pytest
import support
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule

from datamodules import EpisodeStore, MultitaskDataModule
from datamodules.second_stream import SecondStream
from lit_pwm import WorldModelPretraining
from lit_pwm.errors import LitPWMError
from lit_pwm.models import MLPDynamics
from lit_pwm.models.world_model_options import WorldModelOptions
from lit_pwm.tasks import TASK_SETS
from lit_pwm.updates.binding import bind

KEYS = ("obs", "action", "reward", "task")
SECOND = {"horizon": 9, "batch_size": 12}


def module(store, second=SECOND, **options):
    defaults = {"store": store, "horizon": 5, "batch_size": 32, "batches_per_epoch": 9, "val_fraction": 0.2}
    data = MultitaskDataModule(**defaults | options, second=second)
    data.setup()
    return data


def batches(store, second=SECOND, **options):
    return list(module(store, second, **options).train_dataloader())


def assert_same(first, second):
    """All batches of both streams, to the bit."""
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        if "second" in a:
            assert_same([a["second"]], [b["second"]])
        assert all(torch.equal(a[key], b[key]) for key in KEYS)


def starts(batch):
    return batch["obs"][0, :, 0].tolist()


@pytest.fixture
def other_store(make_store):
    """Of one task that the other store has too and of one that it has not, under episode numbers from 0."""
    tasks = {"finger-spin": (9, 2), "cup-catch": (8, 2)}
    return make_store([("finger-spin", 30), ("cup-catch", 25)] * 6, name="other.h5", tasks=tasks)


# -- what it holds ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("storage", ["memmap", "ram", "device"])
@pytest.mark.parametrize("second", [SECOND, {"horizon": 3, "tasks": ["walker-walk"], "batch_size": 5}])
def test_the_first_stream_is_the_same_with_and_without_it(mixed_store, other_store, storage, second):
    for stores in (None, [str(other_store), str(mixed_store)]):
        alone = batches(mixed_store, None, storage=storage, tasks=["cup-catch", "cartpole-swingup"])
        beside = batches(
            mixed_store, second | {"stores": stores}, storage=storage, tasks=["cup-catch", "cartpole-swingup"]
        )
        assert all("second" in batch for batch in beside)
        assert_same(alone, [{key: batch[key] for key in KEYS} for batch in beside])
    data = module(mixed_store, second, tasks=["cup-catch"])
    assert_same(list(module(mixed_store, None, tasks=["cup-catch"]).val_dataloader()), list(data.val_dataloader()))


def test_its_batches_are_slices_of_single_training_episodes(mixed_store):
    store, data = EpisodeStore(mixed_store), module(mixed_store, tasks=["cup-catch"], batches_per_epoch=40)
    assert list(data.all_tasks) == ["cup-catch", "cartpole-swingup", "walker-walk"]
    seen, names = set(), list(data.all_tasks)
    for batch in data.train_dataloader():
        second = batch["second"]
        assert {key: tuple(second[key].shape) for key in KEYS} == {
            "obs": (10, 12, 24), "action": (9, 12, 6), "reward": (9, 12), "task": (12,),
        }  # fmt: skip
        for b, first in enumerate(starts(second)):
            number, start = divmod(int(first), 1000)
            episode = store[number]
            assert names[int(second["task"][b])] == episode.task
            for key, stop in (("obs", start + 10), ("action", start + 9)):
                rows = torch.from_numpy(getattr(episode, key)[start:stop])
                assert torch.equal(second[key][:, b, : rows.shape[1]], rows)
                assert (second[key][:, b, rows.shape[1] :] == 0).all()
            assert torch.equal(second["reward"][:, b], torch.from_numpy(episode.reward[start : start + 9]))
            seen.add(number)
    # What the first stream holds out stays unseen, of the tasks that it has not as well, by the same rule.
    held = module(mixed_store, None).held_out
    assert seen == set(np.flatnonzero(~held))


def test_an_episode_held_out_by_the_first_stream_is_never_drawn(make_store):
    """Although the second stream alone, on its shorter horizon, would hold out others."""
    path = make_store([("cup-catch", length) for length in (40, 40, 20, 40, 20, 20, 40, 20, 20, 40)], name="uneven.h5")
    data = module(path, {"horizon": 3, "batch_size": 16}, horizon=30, val_fraction=0.3, batch_size=8)
    short = MultitaskDataModule(path, horizon=3, val_fraction=0.3)
    assert data.held_out.tolist() != short.held_out.tolist()
    held = {int(start) // 1000 for batch in data.val_dataloader() for start in starts(batch)}
    assert held
    assert not held & {int(x) // 1000 for batch in data.train_dataloader() for x in starts(batch["second"])}


def test_it_depends_on_seed_step_and_key_alone(mixed_store):
    """Not on the first stream's tasks, size or horizon."""
    base = [batch["second"] for batch in batches(mixed_store)]
    again = batches(mixed_store, tasks=["walker-walk", "cup-catch"], batch_size=3, horizon=2)
    assert [starts(batch["second"]) for batch in again] == [starts(batch) for batch in base]
    others = [batches(mixed_store, SECOND | {"seed_key": 2}), batches(mixed_store, seed=1)]
    drawn = [[starts(batch["second"]) for batch in other] for other in others]
    assert [starts(batch) for batch in base] not in drawn
    assert drawn[0] != drawn[1]
    # Of the same size on the same episodes, it is not the first stream over again.
    alike = batches(mixed_store, {"horizon": 5, "batch_size": 32})
    assert all(starts(batch) != starts(batch["second"]) for batch in alike)


def test_every_n_steps(mixed_store):
    every_step = batches(mixed_store)
    third = batches(mixed_store, SECOND | {"every": 3})
    assert [step for step, batch in enumerate(third) if "second" in batch] == [0, 3, 6]
    for step in (0, 3, 6):
        assert_same([third[step]], [every_step[step]])
    loader = module(mixed_store, SECOND | {"every": 4}).train_dataloader()
    due = ["second" in batch for _ in range(2) for batch in loader]  # counted over epochs
    assert due == [step % 4 == 0 for step in range(18)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("every", [1, 2])
def test_it_does_not_depend_on_workers(mixed_store, every):
    second = SECOND | {"every": every}
    loader = module(mixed_store, second, num_workers=2).train_dataloader()
    reference = module(mixed_store, second).train_dataloader()
    for _ in range(2):
        assert_same(list(loader), list(reference))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_resumes_at_any_step(mixed_store, num_workers):
    second = SECOND | {"every": 2}
    everything = batches(mixed_store, second, batches_per_epoch=18)
    loader = module(mixed_store, second, num_workers=num_workers).train_dataloader()
    states = []
    for _ in loader:
        states.append(pickle.loads(pickle.dumps(loader.state_dict())))
    for done in (1, 2, 7, 9) if not num_workers else (7,):
        resumed = module(mixed_store, second, num_workers=num_workers).train_dataloader()
        resumed.load_state_dict(states[done - 1])
        assert_same(list(resumed), everything[done : done + 9])


@pytest.mark.parametrize("storage", ["ram", "device"])
def test_it_does_not_depend_on_where_rows_live(mixed_store, other_store, storage, monkeypatch):
    monkeypatch.setattr("datamodules.storages._BLOCK_ROWS", 50)
    for tasks, stores in ((None, None), (["walker-walk"], None), (["cup-catch"], [str(mixed_store), str(other_store)])):
        second = SECOND | {"tasks": tasks, "stores": stores}
        found = [batches(mixed_store, second, storage=where, tasks=["cup-catch"]) for where in ("memmap", storage)]
        assert_same(*found)


def test_rows_that_both_streams_use_are_held_once(mixed_store):
    rows = [
        len(module(mixed_store, second, storage="ram", tasks=["cup-catch"])._rows()._rows)
        for second in (None, SECOND | {"tasks": ["cup-catch"]}, SECOND)
    ]
    store = EpisodeStore(mixed_store)
    assert rows[0] == rows[1] < rows[2] == store.num_rows


def test_other_stores(mixed_store, other_store):
    second = SECOND | {"stores": str(other_store)}
    data = module(mixed_store, second, tasks=["cup-catch", "walker-walk"], batches_per_epoch=30)
    assert data.tasks == {"walker-walk": (24, 6), "cup-catch": (8, 2)}
    assert data.all_tasks == data.tasks | {"finger-spin": (9, 2)}
    first, drawn = set(), set()
    for batch in data.train_dataloader():
        assert batch["second"]["obs"].shape[-1] == 9  # as wide as its own stores until a model is bound
        first |= set(zip((int(x) // 1000 for x in starts(batch)), batch["task"].tolist(), strict=True))
        theirs = batch["second"]
        drawn |= set(zip((int(x) // 1000 for x in starts(theirs)), theirs["task"].tolist(), strict=True))
    assert {task for _, task in first} == {0, 1}
    assert {number for number, _ in drawn} < set(range(12))
    assert all(task == (1 if number % 2 else 2) for number, task in drawn)
    alone = module(mixed_store, None, tasks=["cup-catch", "walker-walk"])
    beside = module(mixed_store, SECOND | {"tasks": ["cup-catch"]}, tasks=["cup-catch", "walker-walk"])
    assert data.fingerprint != alone.fingerprint == beside.fingerprint is not None
    statistics = data.observation_statistics()
    assert {name: len(mean) for name, (mean, _) in statistics.items()} == {
        "walker-walk": 24, "cup-catch": 8, "finger-spin": 9,
    }  # fmt: skip


# -- with a model -----------------------------------------------------------------------------------------------------
def test_its_ids_and_widths_are_the_models(mixed_store, other_store):
    data = module(mixed_store, SECOND | {"stores": [str(other_store)]}, tasks=["walker-walk"])
    loader = data.train_dataloader()
    own = list(loader)
    loader.load_state_dict({"next_step": 0})
    data.bind_tasks(TASK_SETS["mt30"], 30, 7)
    names = list(data.all_tasks)
    for before, bound in zip(own, loader, strict=True):
        for one, other in ((before, bound), (before["second"], bound["second"])):
            assert [TASK_SETS["mt30"][i] for i in other["task"]] == [names[i] for i in one["task"]]
            assert other["obs"].shape[-1] == 30
            assert other["action"].shape[-1] == 7
            width = one["obs"].shape[-1]
            assert torch.equal(other["obs"][..., :width], one["obs"])
            assert (other["obs"][..., width:] == 0).all()


def test_a_task_the_model_does_not_know_is_refused_by_name(mixed_store, other_store):
    second = SECOND | {"stores": [str(other_store)]}
    data = module(mixed_store, second, tasks=["walker-walk"])
    with pytest.raises(LitPWMError, match=r"'finger-spin', which the model does not know.*data\.second\.tasks"):
        data.bind_tasks(["walker-walk", "cup-catch"], 24, 6)
    known = module(mixed_store, second | {"tasks": ["cup-catch"]}, tasks=["walker-walk"])
    known.bind_tasks(["walker-walk", "cup-catch"], 24, 6)

    other = WorldModelOptions(latent_dim=16, task_dim=2).build({"walker-walk": (24, 6), "cup-catch": (7, 2)}, 24, 6)
    with pytest.raises(LitPWMError, match=r"'cup-catch' has 8 observation.*another task of the same name"):
        bind(known, other)


class Recorder(LightningModule):
    """Remembers what it is given, by the first entries of slices."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[list[list[float]]] = []

    def training_step(self, batch, batch_idx):
        second = [starts(batch["second"])] if "second" in batch else []
        self.seen.append([starts(batch), *second])
        return self.layer(batch["reward"].mean().reshape(1, 1)).square().mean()

    def validation_step(self, batch, batch_idx):
        assert "second" not in batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-6)


def fit(store, updates, ckpt_path=None):
    recorder, second = Recorder(), SECOND | {"every": 2}
    data = MultitaskDataModule(str(store), horizon=5, batch_size=8, batches_per_epoch=5, second=second)
    return recorder, support.fit(recorder, data, updates, None, ckpt_path, max_epochs=-1, limit_val_batches=0)


def test_a_run_resumes_inside_an_epoch(mixed_store, tmp_path):
    whole, _ = fit(mixed_store, 12)
    assert [len(seen) for seen in whole.seen] == [2, 1] * 6
    _, trainer = fit(mixed_store, 7)
    trainer.save_checkpoint(tmp_path / "seven.ckpt")
    resumed, _ = fit(mixed_store, 12, ckpt_path=tmp_path / "seven.ckpt")
    assert resumed.seen == whole.seen[7:]


def test_it_is_moved_to_the_device_and_cast_with_the_batch(mixed_store):
    batch = batches(mixed_store)[0]
    moved = Recorder().transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {value.device.type for part in (moved, moved["second"]) for key, value in part.items() if key in KEYS} == {
        "meta"
    }

    class Typed(Recorder):
        def training_step(self, batch, batch_idx):
            self.types = [batch["obs"].dtype, batch["second"]["obs"].dtype, batch["second"]["task"].dtype]
            return super().training_step(batch, batch_idx)

    typed, data = Typed(), MultitaskDataModule(str(mixed_store), horizon=5, batch_size=8, second=SECOND)
    support.fit(typed, data, 1, precision="64-true", limit_val_batches=0)
    assert typed.types == [torch.float64, torch.float64, torch.int64]


@pytest.mark.filterwarnings("error:Trying to infer the `batch_size`")
def test_pre_training_is_the_same_to_the_bit_beside_it(mixed_store, caplog):
    """What is logged too, whose means are weighted by the number of slices; and that nobody uses it is said."""
    found = []
    caplog.set_level("INFO", logger="lightning.pytorch")
    for second in (None, SECOND):
        assert "second stream" not in caplog.text
        model = WorldModelOptions(latent_dim=16, task_dim=2, dynamics=partial(MLPDynamics, hidden_dim=16))
        pretraining, data = (
            WorldModelPretraining(model),
            MultitaskDataModule(str(mixed_store), horizon=3, batch_size=8, val_batches=1, second=second),
        )
        trainer = support.fit(pretraining, data, 3, limit_val_batches=1, val_check_interval=3)
        found.append((pretraining.state_dict(), trainer.callback_metrics))
    assert found[0][0].keys() == found[1][0].keys()
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())
    assert found[0][1] == found[1][1]
    assert caplog.text.count("a second stream (data.second), which this run does not use: pre-training") == 1


# -- options ----------------------------------------------------------------------------------------------------------
def test_options_from_the_command_line(mixed_store, tmp_path):
    config = tmp_path / "second.yaml"
    config.write_text("data: {init_args: {second: {horizon: 7, every: 2}}}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LightningDataModule, "data")
    arguments = parser.parse_args([
        "--data", "datamodules.MultitaskDataModule", "--data.store", str(mixed_store), f"--config={config}",
        "--data.second.batch_size", "9", "--data.second.tasks", "[cup-catch]",
    ])  # fmt: skip
    data = parser.instantiate_classes(arguments).data
    assert data.second == SecondStream(horizon=7, every=2, batch_size=9, tasks=["cup-catch"])
    again = parser.parse_string(parser.dump(arguments))
    assert parser.instantiate_classes(again).data.second == data.second
    assert MultitaskDataModule(mixed_store).second is None


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"horizon": 0}, r"SecondStream has horizon 0; give"),
        ({"every": 0}, r"SecondStream has every 0; give"),
        ({"batch_size": 2.5}, r"SecondStream has batch_size 2\.5; give"),
        ({"seed_key": 0}, r"SecondStream has seed_key 0; give"),
        ({"stores": []}, r"SecondStream has stores"),
        ({"horizn": 3}, r"data\.second has no 'horizn'.*'horizon'"),
        ({"tasks": ["cup-cath"]}, r"\(data\.second\).*Did you mean 'cup-catch'"),
        ({"tasks": []}, r"\(data\.second\).*No episodes are chosen"),
        ({"stores": "nowhere.h5"}, r"\(data\.second\).*nowhere\.h5.*does not exist"),
        ({"horizon": 60}, r"data\.second\.horizon is 60.*at most 5[0-9].*data\.second\.tasks"),
        ({"batch_size": 100_000}, r"data\.second\.batch_size is 100000, but .* holds only [0-9]+ training slices"),
    ],
)
def test_refusals(mixed_store, second, says):
    with pytest.raises(LitPWMError, match=says):
        module(mixed_store, second)


def test_as_many_slices_as_there_are_and_no_more(make_store):
    path = make_store([("cup-catch", 12)] * 2, name="small.h5")
    most = 2 * (12 - 9 + 1)
    module(path, {"horizon": 9, "batch_size": most}, batch_size=4, val_fraction=0)
    with pytest.raises(LitPWMError, match=rf"data\.second\.batch_size is {most + 1}.*only {most} .*at most {most}"):
        module(path, {"horizon": 9, "batch_size": most + 1}, batch_size=4, val_fraction=0)


def test_stores_that_disagree_with_the_first_streams_are_refused(mixed_store, make_store):
    path = make_store([("cup-catch", 30)] * 3, name="wide.h5", tasks={"cup-catch": (9, 2)})
    with pytest.raises(LitPWMError, match=r"\(data\.second\).*'cup-catch' has widths"):
        module(mixed_store, {"stores": str(path)})


def test_bad_rows_that_only_the_second_stream_uses_are_noticed(make_store):
    import h5py

    path = make_store([("cup-catch", 30), ("walker-walk", 30)] * 3, name="bad.h5")
    with h5py.File(path, "r+") as file:
        file["reward"][31:61] = np.nan
    with pytest.raises(LitPWMError, match=r"reward of episode 1 \('walker-walk'\)"):
        batches(path, tasks=["cup-catch"], batch_size=8, val_fraction=0)


@pytest.mark.parametrize("saved", [{}, [], {"ranks": "2", "batch_size": 8}, {"ranks": 1, "batch_size": 32}])
def test_sizes_that_a_checkpoint_holds(mixed_store, saved):
    data = module(mixed_store)
    assert data.state_dict() == {"ranks": 1, "batch_size": 32, "second_batch_size": 12}
    data.load_state_dict(data.state_dict())
    if saved == {"ranks": 1, "batch_size": 32}:  # of a run without a second stream
        data.load_state_dict(saved)
        return
    with pytest.raises(LitPWMError, match=r"sizes of whole batches.*damaged"):
        data.load_state_dict(saved)
