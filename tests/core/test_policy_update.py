"""The update of `PolicyLearning` as a function: of its arguments alone, and without a look at what it computes."""

from __future__ import annotations

import copy
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules import MultitaskDataModule
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.errors import LitPWMError
from lit_pwm.models import (
    ContinuationHead,
    CriticEnsemble,
    FlowActor,
    MLPActor,
    MLPDynamics,
    RunningStats,
    WorldModelOptions,
)
from lit_pwm.optim import linear_decay

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


@pytest.fixture(scope="module")
def world_model(linear_store, fit, tmp_path_factory):
    sizes = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4}
    module = WorldModelPretraining(dynamics=partial(MLPDynamics, hidden_dim=16), **sizes)
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    fit(module, data_of(linear_store), 5).save_checkpoint(path)
    return path


def data_of(store):
    return MultitaskDataModule(store, horizon=2, batch_size=12, batches_per_epoch=100)


def learner(world_model, actor=MLPActor, **options):
    settings = {
        "actor": partial(actor, hidden_dims=(8,), task_dim=4),
        "critic": partial(CriticEnsemble, hidden_dims=(8,), task_dim=4),
        "horizon": 5,
        "actor_optimizer": {"average_rate": 0.5},
        "critic_optimizer": {"target_rate": 0.5, "passes": 2, "minibatches": 3},
    }
    return PolicyLearning(str(world_model), **{**settings, **options})


class NoLook(TorchDispatchMode):
    """Fails where a number is read on the host, or a shape depends on one."""

    reads = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "allclose")

    def __torch_dispatch__(self, func, types, args: tuple = (), kwargs=None):
        assert func._overloadpacket.__name__.partition(".")[0] not in self.reads, func
        return func(*args, **(kwargs or {}))


class AtUpdate(pl.Callback):
    """Does something with the module and the batch before the update of one number."""

    def __init__(self, number, act):
        self.number, self.act = number, act

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.number:
            self.act(pl_module, batch)


def state(module):
    moments = [part.optimizer.state_dict()["state"] for part in module.optimized.values()]
    return copy.deepcopy({"weights": module.state_dict(), "moments": moments})


def put_back(module, before):
    module.load_state_dict(before["weights"])
    for part, moments in zip(module.optimized.values(), before["moments"], strict=True):
        part.optimizer.load_state_dict({**part.optimizer.state_dict(), "state": copy.deepcopy(moments)})


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(
    ("actor", "return_scale", "precision"),
    [(MLPActor, "shared", "32-true"), (FlowActor, "task", "32-true"), (MLPActor, "task", "bf16-mixed")],
)
def test_it_reads_nothing_on_the_host(
    world_model, linear_store, fit, actor, return_scale, precision, ends, monkeypatch, tmp_path
):
    monkeypatch.setattr("lit_pwm.models.cpu_functions.is_for_cpu", lambda x: False)  # what runs on other devices
    if ends:
        head = {"continuation": partial(ContinuationHead, hidden_dim=8)}
        knows = WorldModelPretraining(WorldModelOptions(partial(MLPDynamics, hidden_dim=16), 16, 4, heads=head))
        trainer = fit(knows, data_of(linear_store), 1)
        knows.world_model.know_ends_({"spin": True})
        world_model = tmp_path / "ends.ckpt"
        trainer.save_checkpoint(world_model)
    module, own, updates = learner(world_model, actor, returns={"scale": return_scale}), PolicyLearning.update, []

    def watched(*arguments):
        with NoLook():
            updates.append(own(module, *arguments))
        return updates[-1]

    module.update = watched
    fit(module, data_of(linear_store), 2, precision=precision)
    assert len(updates) == 2
    for frozen in (module.world_model, module.target_critic, module.averaged_actor):
        assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())
    with pytest.raises(AssertionError), NoLook():
        bool(torch.ones(()))


def test_it_is_a_function_of_its_arguments_and_what_training_calls(world_model, linear_store, fit):
    found = {}

    def twice(module, batch):
        before, size = state(module), len(batch["task"])
        noise, minibatches = module.update_noise(size), module.update_minibatches(size)
        for name in ("first", "second"):
            torch.randn(3)
            module.update(batch, noise, minibatches)
            found[name] = state(module)["weights"]
            put_back(module, before)
        module.update(batch, noise, minibatches, {"actor": 0.0, "critic": 1e-2})
        found["rates"] = state(module)["weights"]
        put_back(module, before)
        module.update(batch, noise, minibatches, {"actor": 5e-4, "critic": 5e-4}, terminal_discount=0.0)
        found["discount"] = state(module)["weights"]
        put_back(module, before)
        module.update(batch, {"actor": -noise["actor"]}, minibatches)
        found["noise"] = state(module)["weights"]
        put_back(module, before)
        module.update(batch, noise, minibatches[1:])
        found["minibatches"] = state(module)["weights"]
        put_back(module, before)
        for part in module.optimized.values():
            part.set_rates({"actor": 5e-4, "critic": 5e-4})
        found["before"] = before["weights"]

    module = learner(
        world_model,
        actor_optimizer={"lr": 5e-4, "final_lr": 5e-4},
        critic_optimizer={"lr": 5e-4, "final_lr": 5e-4, "passes": 2, "minibatches": 5},
    )
    fit(module, data_of(linear_store), 3, callbacks=[AtUpdate(2, twice)])
    trained = module.state_dict()
    for key, value in trained.items():
        assert torch.equal(found["first"][key], value), key
        assert torch.equal(found["second"][key], value), key
    moved = {
        name: {key.partition(".")[0] for key, value in trained.items() if not torch.equal(weights[key], value)}
        for name, weights in found.items()
    }
    assert moved["noise"] >= {"actor", "critic", "return_stats"}
    assert moved["discount"] >= {"actor", "return_stats"}
    assert moved["minibatches"] == {"critic", "target_critic"}
    assert moved["rates"] == {"actor", "averaged_actor", "critic", "target_critic"}
    assert all(torch.equal(found["rates"][k], v) for k, v in found["before"].items() if k.startswith("actor."))


def test_states_have_their_places_before_the_first_update(world_model, linear_store, fit):
    places = []

    def note(module, batch):
        tensors = [t for part in module.optimized.values() for t in (*part.parameters, *part.state_tensors())]
        tensors += list(module.buffers()) + list(module.parameters())
        places.append([(id(t), t.data_ptr()) for t in tensors])

    module = learner(world_model)
    fit(module, data_of(linear_store), 3, callbacks=[AtUpdate(0, note), AtUpdate(2, note)])
    assert places[0] == places[1]
    assert all(
        part.optimizer.state[p]["step"] > 0 for part in module.optimized.values() for p in part.parameters if p.numel()
    )


def test_returns_are_scaled_by_the_deviation_of_their_own_task(world_model, linear_store, fit):
    stats, x, group = RunningStats(groups=3), torch.randn(40, dtype=torch.float64), torch.randint(2, (40,)) * 2
    for part in (slice(0, 15), slice(15, 40)):
        stats.merge(x[part], group[part])
    for task in (0, 2):
        own = RunningStats()
        for part in (slice(0, 15), slice(15, 40)):
            own.update(RunningStats.moments(x[part][group[part] == task]))
        for name in ("mean", "var", "count"):
            torch.testing.assert_close(getattr(stats, name)[task], getattr(own, name), atol=1e-12, rtol=1e-12)
    assert stats.var[1] == 1, "no value of this one came"

    module = learner(world_model, returns={"scale": "task"})
    fit(module, data_of(linear_store), 2)
    assert module.return_stats.var.shape == (2,)
    assert module.return_stats.count.sum().item() == pytest.approx(24 + 2e-4)
    returns, task = torch.tensor([1.0, 2.0, 30.0]), torch.tensor([0, 0, 1])
    module.return_stats.var.copy_(torch.tensor([4.0, 100.0]))
    wanted = -(1 / 2 + 2 / 2 + 30 / 10) / 3
    assert module.actor_loss(returns, task).item() == pytest.approx(wanted, rel=1e-5)


def test_the_gradient_is_cut_at_the_actors_input_unless_it_is_asked_not_to_be(world_model, linear_store, fit):
    """Uncut, an action of a later step depends on earlier ones through the actor too."""
    found = []
    for options in ({}, {"detach_input": True}, {"detach_input": False}):
        module = learner(world_model, actor_optimizer=options)

        def keep(module, batch):
            torch.manual_seed(0)
            z = module.world_model.encode(batch["obs"][0], batch["task"]).detach()
            noise = torch.randn(module.horizon, len(z), module.world_model.action_dim)
            module.imagined_returns(z, batch["task"], noise)[1].sum().backward()
            found.append(torch.cat([parameter.grad.flatten() for parameter in module.actor.parameters()]))
            module.zero_grad()

        fit(module, data_of(linear_store), 1, callbacks=[AtUpdate(0, keep)])
    by_default, cut, uncut = found
    assert torch.equal(by_default, cut)
    assert not torch.allclose(cut, uncut, rtol=1e-3)


def test_a_rate_of_zero_is_refused_and_divides_nothing():
    for name in ("actor_optimizer", "critic_optimizer"):
        with pytest.raises(LitPWMError, match=r"has lr 0; give a number, above 0"):
            PolicyLearning(**{name: {"lr": 0}})
    assert [linear_decay(10, 0.0, 0.0)(step) for step in (0, 5, 20)] == [1, 1, 1]


def test_groups_of_options_are_checked():
    with pytest.raises(LitPWMError, match=r"option actor_optimizer has no 'rl'.*lr"):
        PolicyLearning(actor_optimizer={"rl": 1e-3})
    with pytest.raises(LitPWMError, match=r"final_lr 0.01.*lr 0.001"):
        PolicyLearning(critic_optimizer={"lr": 1e-3, "final_lr": 1e-2})
    with pytest.raises(LitPWMError, match=r"4 critic_optimizer.minibatches.*only 3"):
        PolicyLearning(horizon=3)
