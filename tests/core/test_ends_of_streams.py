"""Which stream a continuation head learns ends from: it knows of those alone that it is trained on."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from tuned import learner, schedule

from datamodules import EpisodeWriter, MultitaskDataModule
from datamodules.second_stream import SecondStream
from lit_pwm import WorldModelPretraining
from lit_pwm.errors import LitPWMError
from lit_pwm.models import ContinuationHead, MLPDynamics, MLPEncoder, TwoHotReward, WorldModelOptions

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Of one task: episodes that end, and others that go on."""
    folder, rng, found = tmp_path_factory.mktemp("streams"), np.random.default_rng(0), {}
    for name, terminated in (("ends", True), ("goes_on", False)):
        found[name] = str(folder / f"{name}.h5")
        with EpisodeWriter(found[name], tasks={"hop": (3, 2)}) as writer:
            for length in range(6, 18):
                writer.append(
                    task="hop", obs=rng.normal(size=(length + 1, 3)), action=rng.uniform(-1, 1, (length, 2)),
                    reward=rng.normal(size=length), terminated=terminated,
                )  # fmt: skip
    return found


def options(**heads):
    parts = partial(MLPEncoder, hidden_dim=8), partial(TwoHotReward, hidden_dim=8)
    return WorldModelOptions(partial(MLPDynamics, hidden_dim=8), 8, 4, *parts, heads=heads or None)


def data_of(first, second):
    other = SecondStream(horizon=4, batch_size=8, stores=second)
    return MultitaskDataModule(first, horizon=3, batch_size=8, batches_per_epoch=100, val_fraction=0.2, second=other)


@pytest.fixture(scope="module")
def blind(stores, fit, tmp_path_factory):
    """A world model whose head has seen no end."""
    module = WorldModelPretraining(options(continuation=partial(ContinuationHead, hidden_dim=8)))
    path = tmp_path_factory.mktemp("models") / "blind.ckpt"
    fit(module, MultitaskDataModule(stores["goes_on"], horizon=3, batch_size=8), 1).save_checkpoint(path)
    return path


def test_rates_are_those_of_a_stream(stores):
    data = data_of(stores["goes_on"], stores["ends"])
    assert data.termination_rates() == data.termination_rates("first") == {"hop": 0.0}
    rate = data.termination_rates("second")["hop"]
    assert 1 / 17 < rate < 1 / 6
    assert 0 < data.termination_rates("both")["hop"] < rate
    alone = MultitaskDataModule(stores["ends"])
    assert alone.termination_rates("both") == alone.termination_rates()
    assert alone.termination_rates("second") == {}


def test_pretraining_learns_nothing_from_a_stream_that_it_does_not_use(stores, fit):
    module = WorldModelPretraining(options())
    fit(module, data_of(stores["goes_on"], stores["ends"]), 1)
    assert module.world_model.continuation_head is not None
    assert module.world_model.terminating_tasks == ()


def test_a_head_that_is_trained_beside_a_policy_sees_the_second_stream_alone(stores, blind, fit):
    expected = r"episodes of hop that ended.*trained on none.*in data\.second"
    opened = {"callbacks": [schedule(continuation=0)]}
    with pytest.raises(LitPWMError, match=expected):
        fit(learner(blind), data_of(stores["ends"], stores["goes_on"]), 1, **opened)
    with pytest.raises(LitPWMError, match=expected):
        fit(learner(None, world_model=options()), data_of(stores["ends"], stores["goes_on"]), 1,
            callbacks=[schedule(all=0)])  # fmt: skip
    tuned = learner(blind)
    fit(tuned, data_of(stores["goes_on"], stores["ends"]), 1, **opened)
    assert tuned.world_model.terminating_tasks == ("hop",)


def test_a_head_that_opens_after_the_run_is_not_trained(stores, blind, fit):
    late = schedule(reward=0, continuation=5)
    with pytest.raises(LitPWMError, match="trained on none"):
        fit(learner(blind), data_of(stores["ends"], stores["ends"]), 1, callbacks=[late])
