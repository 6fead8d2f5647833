"""What a world model that samples scores in validation is a function of its weights, and training does not notice."""

from __future__ import annotations

from functools import partial

import torch

from datamodules import MultitaskDataModule
from lit_pwm import WorldModelPretraining
from lit_pwm.models import EnergyLoss, FlowDynamics, FlowMatching, NoiseSource


def make():
    loss = EnergyLoss(matching=FlowMatching())
    dynamics = partial(FlowDynamics, hidden_dim=8, source=partial(NoiseSource, dim=3), loss=loss)
    return WorldModelPretraining({"dynamics": dynamics, "latent_dim": 16, "task_dim": 4}, optimizer={"lr": 1e-2})


def data_of(store):
    return MultitaskDataModule(store, horizon=3, batch_size=8, val_batches=2, batches_per_epoch=40)


def test_a_validation_draws_the_same_each_time(linear_store, fit):
    module = make()
    trainer, scores = fit(module, data_of(linear_store), 2), []
    for draws in (0, 3, 0):
        module.world_model.dynamics.own_noise.normal(draws, like=torch.zeros(()))  # as evaluations in between do
        scores.append(trainer.validate(module, datamodule=data_of(linear_store), verbose=False)[0])
    assert scores[0] == scores[1] == scores[2]
    assert scores[0].keys() >= {"val/loss", "val/latent_error_1"}


def test_validations_in_between_change_no_weight(linear_store, fit):
    states = []
    for interval in (1, 6):
        module = make()
        fit(module, data_of(linear_store), 6, val_check_interval=interval, check_val_every_n_epoch=None)
        states.append(module.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert int(states[0]["world_model.dynamics.latent_variance.updates"]) == 6
