"""An update with anything that is not finite leaves everything as it was, and the checkpoint of before it trains on."""

from __future__ import annotations

import copy
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

import callbacks
from benchmarks.encoder_steadying import SteadiedObjective
from datamodules import MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.errors import NonFiniteLossError
from lit_pwm.flow import Dopri5
from lit_pwm.models import CriticEnsemble, EndPointError, FlowDynamics, FlowMatching, MLPActor, MLPDynamics, NoiseSource

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

BAD = 2
"""The update that is not finite."""


class PlainCalls(callbacks.CUDAGraphs):
    """The callback with a plain call in the place of a recording, for devices without graphs."""

    device_type = "cpu"
    record = staticmethod(lambda function, modules, inputs: function)


def everything(trainer):
    """All that an update moves, copied."""
    module = trainer.lightning_module
    state = {name: buffer for part in (module.named_parameters(), module.named_buffers()) for name, buffer in part}
    return copy.deepcopy(
        {
            "module": {name: tensor.detach() for name, tensor in state.items()},
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedulers": [{k: v for k, v in s.state_dict().items() if k != "lr_lambdas"} for s in schedulers(module)],
            "counters": [trainer.global_step, trainer.fit_loop.epoch_loop.manual_optimization.state_dict()],
            "random": [torch.get_rng_state(), *np.random.get_state()[1:3]],  # noqa: NPY002
        }
    )


def schedulers(module):
    found = module.lr_schedulers()
    return found if isinstance(found, list) else [found]


def assert_same(ours, theirs, where=""):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in ours.items():
            assert_same(value, theirs[key], f"{where}.{key}")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), where
        for index, value in enumerate(ours):
            assert_same(value, theirs[index], f"{where}[{index}]")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert np.all(ours == theirs), where


class Plant(pl.Callback):
    """Lets a function of the module go wrong in one update, at its n-th call, and keeps what was there before it."""

    def __init__(self, name, update, call=1, spoil=None):
        self.name, self.update, self.call, self.spoil = name, update, call, spoil or self.not_finite
        self.batches = []

    @staticmethod
    def not_finite(value):
        if isinstance(value, dict):
            return value | {"total": value["total"] * torch.nan}
        return value * torch.nan

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch["obs"].clone())
        if trainer.global_step != self.update:
            return
        self.before, own, calls = everything(trainer), getattr(pl_module, self.name), []

        def spoiled(*arguments):
            calls.append(1)
            value = own(*arguments)
            return self.spoil(value) if len(calls) == self.call else value

        setattr(pl_module, self.name, spoiled)


def data_of(store, **options):
    return MultitaskDataModule(store, **{"horizon": 3, "batch_size": 16, "batches_per_epoch": 5, **options})


def pretraining(dynamics=MLPDynamics, **options):
    sizes = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4, "warmup_steps": 2}
    objective = SteadiedObjective(target_encoder_rate=0.5)
    return WorldModelPretraining(dynamics=partial(dynamics, hidden_dim=16, **options), objective=objective, **sizes)


def policy_learning(world_model):
    return PolicyLearning(
        str(world_model),
        actor=partial(MLPActor, hidden_dims=(8,), task_dim=4),
        critic=partial(CriticEnsemble, hidden_dims=(8,), task_dim=4),
        horizon=8,
        actor_optimizer={"average_rate": 0.5},
        critic_optimizer={"target_rate": 0.5},
    )


SAMPLED = {"source": NoiseSource, "loss": EndPointError(matching=FlowMatching())}


@pytest.fixture(scope="module")
def world_models(linear_store, fit, tmp_path_factory):
    folder, files = tmp_path_factory.mktemp("models"), {}
    for kind, options in {"plain": {}, "sampled": SAMPLED}.items():
        files[kind] = folder / f"{kind}.ckpt"
        module = pretraining(FlowDynamics, **options) if options else pretraining()
        fit(module, data_of(linear_store), 3).save_checkpoint(files[kind])
    return files


CASES = {
    "the model's loss": ("pretraining", "update_loss", 1, "world-model"),
    "the model's loss, with variances and draws": ("pretraining-flow", "update_loss", 1, "world-model"),
    "the actor's loss": ("policy", "actor_loss", 1, "actor"),
    "critic minibatch 17": ("policy", "critic_loss", 17, r"critic \(minibatch 17\)"),
    "the last critic minibatch, with draws": ("policy-sampled", "critic_loss", 32, r"critic \(minibatch 32\)"),
}


def module_of(kind, world_models):
    return {
        "pretraining": pretraining,
        "pretraining-flow": lambda: pretraining(FlowDynamics, **SAMPLED),
        "policy": lambda: policy_learning(world_models["plain"]),
        "policy-sampled": lambda: policy_learning(world_models["sampled"]),
    }[kind]()


@pytest.mark.parametrize(("update", "graphs"), [(0, False), (BAD, False), (BAD, True)], ids=["first", "", "graphs"])
@pytest.mark.parametrize("case", CASES)
def test_everything_is_as_before_and_training_goes_on_from_it(
    linear_store, world_models, fit, tmp_path, case, update, graphs
):
    kind, function, call, name = CASES[case]
    plant = Plant(function, update, call)
    module, extra = module_of(kind, world_models), [PlainCalls()] if graphs else []
    guard, random = callbacks.NonFiniteGuard(), callbacks.RNGState()
    with pytest.raises(NonFiniteLossError, match=rf"The {name} loss is nan .* at update {update}; the .* undone") as e:
        fit(module, data_of(linear_store), BAD + 1, callbacks=[*extra, plant, guard, random], default_root_dir=tmp_path)
    assert e.value.exit_code == 3
    file = tmp_path / "last_good.ckpt"
    content = torch.load(file, weights_only=True)
    assert content["global_step"] == update
    before = plant.before["module"]
    for key, value in content["state_dict"].items():
        assert torch.equal(value, before[key]), key
        assert value.isfinite().all(), key
    assert_same(content["optimizer_states"], plant.before["optimizers"])

    seen = Plant("", -1)
    resumed = module_of(kind, world_models)
    callbacks_of_resumed, updates = [*extra, seen, callbacks.RNGState()], update + 2
    trainer = fit(resumed, data_of(linear_store), updates, ckpt_path=file, callbacks=callbacks_of_resumed)
    assert trainer.global_step == updates
    assert all(value.isfinite().all() for value in resumed.state_dict().values())
    data = data_of(linear_store)
    data.setup()
    batches = [batch["obs"] for batch in data.train_dataloader()]
    given = seen.batches[0]  # a policy is given first observations alone
    assert torch.equal(given, batches[update + 1][: len(given)]), "it goes on after the batch that was bad"


def gradient_only(value):
    """The value as it is, with a gradient that is none."""
    loss = value["total"] if isinstance(value, dict) else value
    loss.register_hook(lambda gradient: gradient * torch.nan)
    return value


def interrupt(value):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("kind", "function", "call", "spoil", "error"),
    [
        ("pretraining-flow", "update_loss", 1, gradient_only, NonFiniteLossError),
        ("policy", "critic_loss", 17, gradient_only, NonFiniteLossError),
        ("policy-sampled", "critic_loss", 5, interrupt, SystemExit),
        ("policy-sampled", "actor_loss", 1, None, NonFiniteLossError),
        ("pretraining", "update_loss", 1, lambda loss: 1 / 0, ZeroDivisionError),
    ],
)
@pytest.mark.parametrize("update", [0, BAD])
def test_nothing_moves_whatever_ends_it(linear_store, world_models, fit, kind, function, call, spoil, error, update):
    plant, found = Plant(function, update, call, spoil), {}

    class Compare(pl.Callback):
        def on_exception(self, trainer, pl_module, exception):
            found.update(everything(trainer))

    module = module_of(kind, world_models)
    with pytest.raises(error):
        fit(module, data_of(linear_store), BAD + 1, callbacks=[plant, Compare()])
    assert_same(found, plant.before)


class Remembers(MLPDynamics):
    """Keeps the action it saw last in a buffer that holds nothing before the first update."""

    def __init__(self, *dimensions, **options):
        super().__init__(*dimensions, **options)
        self.register_buffer("last", None, persistent=False)

    def forward(self, z, action, embedding):
        self.last = action.detach().clone()
        return super().forward(z, action, embedding)


@pytest.mark.parametrize("update", [0, BAD])
def test_buffers_that_an_update_makes_are_as_before(linear_store, fit, update):
    plant, found = Plant("update_loss", update), {}

    class Compare(pl.Callback):
        def on_exception(self, trainer, pl_module, exception):
            found.update(everything(trainer))

    with pytest.raises(NonFiniteLossError):
        fit(pretraining(Remembers), data_of(linear_store), BAD + 1, callbacks=[plant, Compare()])
    assert_same(found, plant.before)
    assert ("world_model.dynamics.last" in found["module"]) == (update > 0)


def test_a_solver_that_finds_no_step_refuses_the_update_like_any_number_that_is_none(linear_store, fit):
    class Spoil(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            batch["obs"][:, 0] *= torch.nan

    module = pretraining(FlowDynamics, solver=Dopri5, parametrisation="velocity")
    with pytest.raises(NonFiniteLossError, match="world-model loss is nan"):
        fit(module, data_of(linear_store), 1, callbacks=[Spoil()])


def test_a_refused_update_differs_from_none_and_a_passed_one_moves_all(linear_store, world_models, fit):
    """What is compared above would notice: without the refusal every part moves."""
    plant, after = Plant("critic_loss", BAD, 17, lambda value: value), {}

    class Compare(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == BAD + 1:
                after.update(everything(trainer))

    fit(module_of("policy-sampled", world_models), data_of(linear_store), BAD + 1, callbacks=[plant, Compare()])
    moved = {name for name, value in after["module"].items() if not torch.equal(value, plant.before["module"][name])}
    parts = ("actor.", "averaged_actor.", "critic.", "target_critic.", "return_stats.var")
    assert all(any(name.startswith(part) for name in moved) for part in parts), moved
    for key in ("optimizers", "schedulers", "counters"):
        with pytest.raises(AssertionError):
            assert_same(after[key], plant.before[key])
