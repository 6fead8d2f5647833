"""Batches hold what the store holds, whatever the storage, the workers, and the model they are bound to."""

import multiprocessing
import pickle
from functools import partial

import h5py
import numpy as np
import pytest
import torch

import datamodules.batches_of_steps
from datamodules import EpisodeStore, MultitaskDataModule
from datamodules.columns import LargeMappedColumn
from datamodules.second_stream import SecondStream
from lit_pwm.batch import DataSource
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks import TASK_SETS

KEYS = ("obs", "action", "reward", "task")


def module(store, **options):
    """A small datamodule, set up."""
    data = MultitaskDataModule(**{"store": store, "horizon": 5, "batch_size": 32, "batches_per_epoch": 12} | options)
    data.setup()
    return data


def batches(store, **options):
    return list(module(store, **options).train_dataloader())


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        for key in KEYS:
            assert torch.equal(a[key], b[key]), key


def test_is_a_data_source(mixed_store):
    assert isinstance(module(mixed_store), DataSource)


def test_batches_are_slices_of_single_episodes(mixed_store):
    store = EpisodeStore(mixed_store)
    names = list(store.tasks)
    for batch in batches(mixed_store):
        assert {key: tuple(batch[key].shape) for key in KEYS} == {
            "obs": (6, 32, 24), "action": (5, 32, 6), "reward": (5, 32), "task": (32,),
        }  # fmt: skip
        assert [batch[key].dtype for key in KEYS] == [torch.float32] * 3 + [torch.int64]
        assert all(batch[key].is_contiguous() for key in KEYS)
        for b in range(32):
            number, start = divmod(int(batch["obs"][0, b, 0]), 1000)
            episode = store[number]
            assert names[int(batch["task"][b])] == episode.task
            obs_dim, action_dim = store.tasks[episode.task]
            for key, width, stop in (("obs", obs_dim, start + 6), ("action", action_dim, start + 5)):
                rows = torch.from_numpy(getattr(episode, key)[start:stop])
                assert torch.equal(batch[key][:, b, :width], rows)
                assert (batch[key][:, b, width:] == 0).all()
            assert torch.equal(batch["reward"][:, b], torch.from_numpy(episode.reward[start : start + 5]))


def test_batches_are_finite_up_to_the_end_of_episodes(make_store):
    """The horizon equal to the length leaves one slice: the last row's NaN must stay out."""
    path = make_store([("cup-catch", 5)] * 8)
    for batch in batches(path, batch_size=4):
        assert all(torch.isfinite(batch[key]).all() for key in KEYS)
        assert (batch["obs"][0, :, 0] % 1000 == 0).all()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_batches_do_not_depend_on_workers(mixed_store, num_workers):
    loader = module(mixed_store, num_workers=num_workers, batches_per_epoch=7).train_dataloader()
    reference = module(mixed_store, batches_per_epoch=7).train_dataloader()
    for _ in range(2):  # two epochs, which differ
        assert_same(list(loader), list(reference))


@pytest.mark.parametrize("storage", ["ram", "device"])
@pytest.mark.parametrize("tasks", [None, ["walker-walk", "cup-catch"]])
def test_batches_do_not_depend_on_where_rows_live(mixed_store, make_store, storage, tasks, monkeypatch):
    monkeypatch.setattr("datamodules.storages._BLOCK_ROWS", 50)
    second = make_store([("cup-catch", 30), ("cartpole-swingup", 9)] * 4, name="second.h5")
    stores = [str(mixed_store), str(second)]
    for bound in (False, True):
        found = []
        for where in ("memmap", storage):
            data = module(stores, storage=where, tasks=tasks)
            if bound:
                data.bind_tasks(TASK_SETS["mt30"], 26, 8)
            found.append([*data.train_dataloader(), *data.val_dataloader()])
        assert_same(*found)


@pytest.fixture
def chunked_store(mixed_store, tmp_path):
    with h5py.File(mixed_store) as source, h5py.File(tmp_path / "chunked.h5", "w") as target:
        target.attrs.update(source.attrs)
        source.copy("episode", target)
        for name in ("obs", "action", "reward", "terminated"):
            target.create_dataset(name, data=source[name][:], chunks=True, compression=4)
    return tmp_path / "chunked.h5"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_chunked_stores_give_the_same_batches_and_one_warning(mixed_store, chunked_store, num_workers):
    with pytest.warns(UserWarning, match="lie in chunks") as warned:
        found = batches(chunked_store, num_workers=num_workers)
    assert sum("lie in chunks" in str(one.message) for one in warned) == 1
    assert_same(batches(mixed_store), found)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_open_files_by_themselves(mixed_store, chunked_store, start):
    """Those of a store that is open here already."""
    context, firsts = multiprocessing.get_context(start), range(0, 900, 300)
    for path in (mixed_store, chunked_store):
        store = EpisodeStore(path)
        store.column("action")
        here = [_obs_windows(store, first)[0] for first in firsts]
        with context.Pool(2) as pool:
            there = pool.map(partial(_obs_windows, store), firsts)
        assert all(np.array_equal(own, found) for own, (found, _) in zip(here, there, strict=True))
        assert all(opened == ["obs"] for _, opened in there)


def _obs_windows(store, first):
    return store.column("obs").windows(np.arange(first, first + 500), 6), list(store._columns)


def test_stores_too_large_for_the_page_cache_give_the_same_batches(mixed_store, monkeypatch):
    expected = module(mixed_store)
    monkeypatch.setattr("datamodules.columns._physical_memory", lambda: 10_000)
    large = module(mixed_store)
    assert_same(list(expected.train_dataloader()), list(large.train_dataloader()))
    assert isinstance(large._stores[0].column("obs"), LargeMappedColumn)
    assert large.observation_statistics() == expected.observation_statistics()


def test_epochs_go_on_and_do_not_repeat(mixed_store):
    data = module(mixed_store)
    loader = data.train_dataloader()
    epochs = [*loader, *loader]
    assert_same(epochs, batches(mixed_store, batches_per_epoch=24))
    assert len({tuple(batch["obs"][0, :, 0].tolist()) for batch in epochs}) == 24


def test_the_loaders_state_resumes_to_the_batch(mixed_store):
    everything = batches(mixed_store, batches_per_epoch=24)
    for num_workers in (0, 2):
        loader = module(mixed_store, num_workers=num_workers).train_dataloader()
        for handed_out, _ in enumerate(loader, start=1):
            if handed_out == 7:
                state = pickle.loads(pickle.dumps(loader.state_dict()))
                break
        resumed = module(mixed_store, num_workers=num_workers).train_dataloader()
        resumed.load_state_dict(state)
        assert_same(list(resumed), everything[7:19])


@pytest.mark.parametrize("storage", ["memmap", "ram", "device"])
def test_is_pickled_without_rows_that_were_read(mixed_store, storage):
    data = module(mixed_store, storage=storage, prefetch=2)
    before, iterator = len(pickle.dumps(data)), iter(data.train_dataloader())
    first = next(iterator)
    pickled = pickle.dumps(data)
    assert len(pickled) == before
    assert_same([next(iter(pickle.loads(pickled).train_dataloader()))], [first])
    iterator.close()


def test_seeds(mixed_store, monkeypatch):
    assert_same(batches(mixed_store), batches(mixed_store, seed=0))
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    assert_same(batches(mixed_store), batches(mixed_store, seed=3))
    assert not torch.equal(batches(mixed_store)[0]["obs"], batches(mixed_store, seed=0)[0]["obs"])


def test_balance_by_tasks(make_store):
    path = make_store([("walker-walk", 200)] * 9 + [("cup-catch", 20)] * 3)
    share = {}
    for balance in ("transitions", "tasks"):
        drawn = torch.cat([b["task"] for b in batches(path, balance=balance, batch_size=64)])
        share[balance] = float((drawn == 1).float().mean())
    assert share["transitions"] < 0.05
    assert 0.4 < share["tasks"] < 0.6


# -- validation -------------------------------------------------------------------------------------------------------
def episodes_of(loader):
    return {int(x) // 1000 for batch in loader for x in batch["obs"][0, :, 0]}


def test_tasks_by_weight_in_both_streams(mixed_store):
    second = SecondStream(4, 200, task_weights={"cup-catch": 8.0, "cartpole-swingup": 1.0})
    weights = {"walker-walk": 6}
    data = module(
        mixed_store, batch_size=200, batches_per_epoch=10, balance="tasks", task_weights=weights, second=second
    )
    batches = list(data.train_dataloader())
    names = list(data.tasks)
    shares = np.bincount(torch.cat([batch["task"] for batch in batches]), minlength=3) / 2000
    np.testing.assert_allclose(shares, [6 / 8 if name == "walker-walk" else 1 / 8 for name in names], atol=0.04)
    shares = np.bincount(torch.cat([batch["second"]["task"] for batch in batches]), minlength=3) / 2000
    np.testing.assert_allclose(shares, [8 / 10 if name == "cup-catch" else 1 / 10 for name in names], atol=0.04)
    alone = module(mixed_store, batch_size=200, batches_per_epoch=10, balance="tasks", task_weights=weights)
    for one, both in zip(alone.train_dataloader(), batches, strict=True):
        assert torch.equal(one["obs"], both["obs"])


def test_training_and_validation_share_no_episode(mixed_store):
    data = module(mixed_store, val_fraction=0.2, batches_per_epoch=60)
    train, held = episodes_of(data.train_dataloader()), episodes_of(data.val_dataloader())
    assert not train & held
    assert train | held == set(range(40))
    store = EpisodeStore(mixed_store)
    per_task = np.bincount(store.task[sorted(held)])
    assert per_task.tolist() == [round(0.2 * count) for count in np.bincount(store.task)]


def test_all_seeds_hold_out_the_same_episodes_and_windows(mixed_store):
    loaders = [list(module(mixed_store, seed=seed).val_dataloader()) for seed in (0, 5)]
    assert_same(*loaders)
    again = module(mixed_store).val_dataloader()
    assert_same(list(again), list(again))


def test_an_episode_held_out_stays_so_when_stores_and_tasks_join(mixed_store, make_store):
    second = make_store([("cup-catch", 30)] * 20, name="second.h5")
    alone = module(mixed_store)
    joined = module([str(mixed_store), str(second)])
    assert joined.held_out[:40].tolist() == alone.held_out.tolist()
    assert joined.held_out[40:].sum() == 1
    cup = module(mixed_store, tasks=["cup-catch"])
    assert cup.held_out.tolist() == alone.held_out[alone.table.task == 2].tolist()


def test_held_out_at_least_one_of_two(make_store):
    path = make_store([("cup-catch", 30)] * 2 + [("walker-walk", 30)], name="few.h5")
    data = module(path, batch_size=8)
    assert data.held_out.sum() == 1
    assert not data.held_out[2]
    singles = [str(make_store([("cup-catch", 30)], name=f"{i}.h5")) for i in range(2)]
    assert module(singles, batch_size=8).held_out.tolist() == [False, True]


def test_without_held_out_episodes_there_is_no_validation(make_store, mixed_store):
    assert module(mixed_store, val_fraction=0).val_dataloader() == []
    assert module(mixed_store, val_batches=0).val_dataloader() == []
    assert module(make_store([("cup-catch", 30)]), batch_size=8).val_dataloader() == []


def test_validation_horizon(make_store):
    path = make_store([("cup-catch", 40)] * 10 + [("walker-walk", 12)] * 10)
    used = {
        (5, None): 12, (14, None): 12, (5, 7): 7, (14, 3): 3,
    }  # fmt: skip
    for (horizon, asked), expected in used.items():
        tasks = ["cup-catch"] if horizon > 12 else None
        data = module(path, horizon=horizon, val_horizon=asked, tasks=tasks)
        found = {len(batch["reward"]) for batch in data.val_dataloader()}
        assert found == {expected if tasks is None or asked else 16}
    with pytest.raises(LitPWMError, match=r"val_horizon is 13.*at most 12"):
        module(path, val_horizon=13)


def test_validation_batches_are_full_and_as_many_as_asked_or_all_there_is(make_store):
    path = make_store([("cup-catch", 100)] * 20)
    loader = module(path, val_batches=2, batch_size=16).val_dataloader()
    assert len(loader) == 2
    assert [b["obs"].shape[1] for b in loader] == [16, 16]
    loader = module(path, val_batches=10).val_dataloader()
    assert [b["obs"].shape[1] for b in loader] == [32, 32, 21]  # 85 slices of 16 transitions in 100
    assert len({float(x) for b in loader for x in b["obs"][0, :, 0]}) == 85


# -- tasks ------------------------------------------------------------------------------------------------------------
def test_two_stores_are_joined_by_task_name(make_store, tmp_path):
    first = make_store([("cup-catch", 30)] * 4, name="first.h5", tasks={"cup-catch": (8, 2)})
    second = make_store(
        [("walker-walk", 30), ("cup-catch", 25)], name="second.h5", tasks={"walker-walk": (24, 6), "cup-catch": (8, 2)}
    )
    data = module([str(first), str(second)], val_fraction=0, batches_per_epoch=30)
    assert data.tasks == {"cup-catch": (8, 2), "walker-walk": (24, 6)}
    seen = set()
    for batch in data.train_dataloader():
        assert batch["obs"].shape[-1] == 24
        # Which store a row is of: the widths of its padding tell walker-walk, the length of the episode the rest.
        for x, task, obs in zip(batch["obs"][0, :, 0], batch["task"], batch["obs"][0], strict=True):
            assert (int(task) == 1) == bool((obs[8:] != 0).any())
            seen.add((int(x) // 1000, int(task)))
    assert seen == {(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)} | {(1, 0)}


def test_stores_that_disagree_are_refused(make_store):
    first = make_store([("a", 30)], name="first.h5", tasks={"a": (8, 2)})
    second = make_store([("a", 30)], name="second.h5", tasks={"a": (7, 2)})
    with pytest.raises(LitPWMError, match=r"'a' has widths .*\(7, 2\).*\(8, 2\)"):
        module([str(first), str(second)])


def test_ids_are_translated_by_name_and_rows_padded(mixed_store):
    """A store of three tasks with a model of all 30 of MT30."""
    data = module(mixed_store)
    loader = data.train_dataloader()
    plain = batches(mixed_store)
    data.bind_tasks(TASK_SETS["mt30"], obs_dim=24, action_dim=6)
    names = list(EpisodeStore(mixed_store).tasks)
    for own, bound in zip(plain, loader, strict=True):
        assert [TASK_SETS["mt30"][i] for i in bound["task"]] == [names[i] for i in own["task"]]
        assert torch.equal(own["obs"], bound["obs"])
    data.bind_tasks(TASK_SETS["mt30"], obs_dim=39, action_dim=7)
    batch = next(iter(module(mixed_store).train_dataloader()))
    wide = next(iter(data.train_dataloader()))
    assert wide["obs"].shape[-1] == 39
    assert wide["action"].shape[-1] == 7
    assert torch.equal(wide["obs"][..., :24], batch["obs"])
    assert (wide["obs"][..., 24:] == 0).all()


@pytest.mark.parametrize("storage", ["memmap", "ram", "device"])
def test_padding_is_cut_for_narrower_models(mixed_store, storage):
    data = module(mixed_store, tasks=["cartpole-swingup", "cup-catch"], storage=storage)
    assert data.tasks == {"cartpole-swingup": (5, 1), "cup-catch": (8, 2)}
    wide = list(data.train_dataloader())
    assert wide[0]["obs"].shape[-1] == 24
    data.bind_tasks(["cup-catch", "cartpole-swingup"], 8, 2)
    for own, cut in zip(wide, data.train_dataloader(), strict=True):
        assert torch.equal(own["obs"][..., :8], cut["obs"])
        assert torch.equal(own["action"][..., :2], cut["action"])
        assert torch.equal(1 - own["task"], cut["task"])
        assert cut["obs"].is_contiguous()


def test_a_task_the_model_does_not_know_names_both_lists(mixed_store):
    data = module(mixed_store)
    with pytest.raises(LitPWMError) as error:
        data.bind_tasks(["cup-catch", "walker-run"], 24, 6)
    for name in (
        "'cartpole-swingup'",
        "'walker-walk'",
        "cup-catch, walker-run",
        "cartpole-swingup, walker-walk, cup-catch",
    ):
        assert name in str(error.value)
    with pytest.raises(LitPWMError, match=r"24 observation and 6 action entries.*takes 23 and 6"):
        data.bind_tasks(TASK_SETS["mt30"], 23, 6)


def test_observation_statistics_are_those_of_the_training_episodes(mixed_store):
    data = module(mixed_store, val_fraction=0.3)
    store, held = EpisodeStore(mixed_store), data.held_out
    statistics = data.observation_statistics()
    assert list(statistics) == list(store.tasks)
    for name, (mean, std) in statistics.items():
        rows = [e.obs for i, e in enumerate(store) if e.task == name and not held[i]]
        rows = np.concatenate(rows).astype(np.float64)
        np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(std, rows.std(axis=0), rtol=1e-9)


def test_has_terminations_looks_at_chosen_tasks(make_store):
    path = make_store([("cup-catch", 30), ("walker-walk", 30)] * 3, terminated=[4])
    assert module(path, batch_size=8).has_terminations
    assert not module(path, batch_size=8, tasks=["walker-walk"]).has_terminations


# -- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tasks": ["cup-cath"]}, "Did you mean 'cup-catch'"),
        ({"tasks": []}, "No episodes are chosen"),
        ({"horizon": 60}, "horizon is 60.*at most 5[0-9]"),
        ({"horizon": 0}, "horizon 0; give"),
        ({"batch_size": 100_000}, "batch_size is 100000.*holds only [0-9]+ training slices"),
        ({"batch_size": 0}, "batch_size 0; give"),
        ({"balance": "task"}, "Did you mean 'tasks'"),
        ({"storage": "rom"}, "'ram'"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"seed": -1}, "seed -1; give"),
        ({"store": []}, "store .*at least 1 entry"),
        ({"store": "nowhere.h5"}, "nowhere.h5.*does not exist"),
        ({"storage": "device", "num_workers": 1}, "num_workers to 0"),
        ({"task_weights": {"cup-catch": 2}}, "data.task_weights is given, and data.balance is 'transitions'"),
        ({"task_weights": {"cup-cath": 2}, "balance": "tasks"}, "data.task_weights names 'cup-cath'.*'cup-catch'"),
        ({"task_weights": {"cup-catch": 2}, "balance": "tasks", "tasks": ["walker-walk"]}, "names 'cup-catch'"),
        ({"task_weights": {"cup-catch": 0.0}, "balance": "tasks"}, "task_weights .*a mapping of names, each.*above 0"),
        ({"task_weights": {"cup-catch": -1}, "balance": "tasks"}, "task_weights .*above 0"),
        ({"task_weights": {"cup-catch": float("nan")}, "balance": "tasks"}, "task_weights .*above 0"),
        ({"task_weights": {"cup-catch": float("inf")}, "balance": "tasks"}, "task_weights .*above 0"),
        ({"task_weights": {"cup-catch": "2"}, "balance": "tasks"}, "task_weights .*above 0"),
        ({"task_weights": ["cup-catch"], "balance": "tasks"}, "task_weights .*a mapping of names"),
        (
            {"second": SecondStream(5, 4, task_weights={"hopper-hop": 2.0}), "balance": "tasks"},
            "data.second.task_weights names 'hopper-hop'",
        ),
    ],
)
def test_refusals(mixed_store, options, says):
    with pytest.raises(LitPWMError, match=says):
        module(**{"store": mixed_store} | options)


def test_a_task_that_offers_no_slice_is_named(make_store):
    path = make_store([("cup-catch", 30)] * 4 + [("walker-walk", 3)] * 4)
    with pytest.raises(LitPWMError, match=r"longest training episode of 'walker-walk'.*has 3"):
        module(path)


def test_short_episodes_are_counted_and_left_out(make_store, monkeypatch):
    path = make_store([("cup-catch", 30)] * 4 + [("cup-catch", 3)] * 4)
    said = []
    monkeypatch.setattr(datamodules.batches_of_steps, "rank_zero_info", said.append)
    data = module(path, val_fraction=0, batch_size=16)
    assert episodes_of(data.train_dataloader()) == {0, 1, 2, 3}
    assert said == ["4 of 8 training episodes are shorter than the horizon of 5 and are not used."]
