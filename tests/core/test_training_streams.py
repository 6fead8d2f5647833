"""Nothing outside of an update moves what it draws: neither validation nor diagnostics, and a resume draws it again."""

from __future__ import annotations

from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import callbacks
from datamodules import MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.models import CriticEnsemble, MLPActor, MLPDynamics
from lit_pwm.updates.global_streams import GlobalStreams

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]


class Shaken(MLPDynamics):
    """Somebody's own dynamics, which draw from torch's and numpy's global generators whenever they predict."""

    def forward(self, z, action, embedding):
        noise = torch.randn_like(z) + np.random.randn()  # noqa: NPY002
        return super().forward(z + 0.01 * noise, action, embedding)


class Declared(MLPDynamics):
    """The same, with noise that is declared."""

    noise_shape = (2,)

    def forward(self, z, action, embedding, noise=None):
        noise = torch.randn(*z.shape[:-1], 2) if noise is None else noise
        return super().forward(z * (1 + 0.05 * noise.sum(-1, keepdim=True)), action, embedding)


class Draws(pl.Callback):
    """Moves every global generator wherever it can."""

    def on_train_batch_start(self, *_):
        torch.randn(3)
        np.random.randn(2)  # noqa: NPY002

    on_validation_batch_start = on_train_batch_start


def data_of(store):
    return MultitaskDataModule(
        store, seed=0, horizon=4, batch_size=16, val_batches=2, val_horizon=4, batches_per_epoch=100
    )


def pretraining(kind):
    sizes = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4}
    return WorldModelPretraining(dynamics=partial(kind, hidden_dim=16), **sizes)


@pytest.fixture(scope="module")
def world_models(linear_store, fit, tmp_path_factory):
    folder, files = tmp_path_factory.mktemp("models"), {}
    for kind in (Shaken, Declared, MLPDynamics):
        files[kind] = folder / f"{kind.__name__}.ckpt"
        fit(pretraining(kind), data_of(linear_store), 3).save_checkpoint(files[kind])
    return files


def policy_learning(path):
    actor, critic = partial(MLPActor, hidden_dims=(8,)), partial(CriticEnsemble, hidden_dims=(8,))
    return PolicyLearning(str(path), actor=actor, critic=critic, horizon=4, critic_optimizer={"passes": 1})


def module_of(job, kind, world_models):
    return pretraining(kind) if job == "pretraining" else policy_learning(world_models[kind])


JOBS = [("pretraining", Shaken), ("pretraining", Declared), ("policy", Shaken)]


@pytest.mark.parametrize(("job", "kind"), JOBS)
def test_weights_do_not_depend_on_how_often_a_run_validates_and_measures(world_models, linear_store, fit, job, kind):
    states = []
    for interval, extra in ((2, []), (10, []), (10, [Draws(), callbacks.GradientDiagnostics(3, 2)])):
        module = module_of(job, kind, world_models)
        options = {"val_check_interval": interval, "check_val_every_n_epoch": None}
        fit(module, data_of(linear_store), 10, callbacks=extra, **options)
        states.append(module.state_dict())
    for other in states[1:]:
        for key, value in states[0].items():
            assert torch.equal(other[key], value), key


@pytest.mark.parametrize(("job", "kind"), JOBS)
def test_a_resumed_run_draws_what_it_would_have_drawn(
    world_models, linear_store, fit, checkpoint_every, tmp_path, job, kind
):
    """Without saved states of global generators, and whatever these are then."""
    whole, resumed = module_of(job, kind, world_models), module_of(job, kind, world_models)
    fit(whole, data_of(linear_store), 6, callbacks=[checkpoint_every(3)], enable_checkpointing=True)
    fit(resumed, data_of(linear_store), 6, seed=99, ckpt_path=tmp_path / "step=3.ckpt", callbacks=[Draws()])
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_who_draws_is_named_once(world_models, linear_store, fit, caplog):
    for kind in (Shaken, Declared, MLPDynamics):
        caplog.clear()
        with caplog.at_level("INFO", logger="lightning.pytorch"):
            fit(policy_learning(world_models[kind]), data_of(linear_store), 3)
        said = caplog.text
        named = said.count("draws from a global random generator within an update")
        assert named == (1 if kind is Shaken else 0)
        assert ("Shaken draws from" in said) == (kind is Shaken)


def test_modules_within_a_component_are_named_by_it():
    class Dropping(MLPDynamics):
        def __init__(self, *dimensions):
            super().__init__(*dimensions, hidden_dim=8)
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, z, action, embedding):
            return super().forward(self.drop(z), action, embedding)

    streams, before = GlobalStreams(), torch.get_rng_state()
    seen = []
    for _ in range(2):
        with streams.seeded(5, torch.device("cpu")):
            seen.append(Dropping(16, 2, 3).drop(torch.ones(50)))
            assert not torch.equal(seen[-1], torch.ones(50))
    assert torch.equal(*seen)
    assert torch.equal(torch.get_rng_state(), before)
    part = Dropping(16, 2, 3)
    streams = GlobalStreams()
    with streams.seeded(5, torch.device("cpu")):
        part(torch.ones(4, 16), torch.ones(4, 2), torch.ones(4, 3))
    assert streams.drawers().endswith("Dropping")
