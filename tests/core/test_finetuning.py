"""A world model that is trained while a policy learns on it: what moves, when, by which loss, and what goes on."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from tuned import MODEL, Given, Saving, Seen, learner, moments, same, schedule, two_streams

from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.errors import LitPWMError, NonFiniteLossError
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import EnergyLoss, FlowDynamics, MLPDynamics, NoiseSource
from lit_pwm.options.optimizers import WorldModelOptimizer
from lit_pwm.pulls import DistillationPull, L2Pull

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]
PARTS = ("encoder", "dynamics", "reward", "task_embedding")
OF = {"encoder": "encoder.", "dynamics": "dynamics.", "reward": "heads.reward.", "task_embedding": "task_embedding."}


@pytest.fixture(scope="module")
def model_file(linear_store, fit, tmp_path_factory):
    module = WorldModelPretraining(dynamics=partial(MLPDynamics, hidden_dim=16), objective=OBJECTIVE(), **MODEL)
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    fit(module, two_streams(linear_store), 5).save_checkpoint(path)
    return path


def OBJECTIVE():
    return WorldModelObjective(rho=0.8, coefficients={"reward": 0.3})


def slices_of(store):
    data = two_streams(store)
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def of_part(state, part):
    return {key: value for key, value in state.items() if key.startswith(OF[part])}


# -- what moves, and when -------------------------------------------------------------------------------------------
def test_without_a_schedule_the_model_keeps_its_bits_whatever_the_data_brings(model_file, linear_store, fit, caplog):
    module, alone = learner(model_file), learner(model_file)
    caplog.set_level("INFO", logger="lightning.pytorch")
    fit(module, two_streams(linear_store), 3)
    assert "its world model is frozen. Add callbacks.FinetuneSchedule" in caplog.text
    fit(alone, two_streams(linear_store, second=False), 3)
    same(module.state_dict(), alone.state_dict())
    same(module.world_model.state_dict(), load_world_model(model_file).state_dict())
    assert not module.optimized["world_model"].optimizer.state, "no memory for what is never trained"


def test_a_part_keeps_its_bits_until_it_opens_and_the_others_for_good(model_file, linear_store, fit):
    seen, module = Seen(), learner(model_file)
    fit(module, two_streams(linear_store), 5, callbacks=[schedule(reward=2), seen])
    before = load_world_model(model_file).state_dict()
    for update, model in enumerate(seen.models):
        for part in PARTS:
            moved = [key for key, value in of_part(model, part).items() if not torch.equal(value, before[key])]
            assert bool(moved) == (part == "reward" and update >= 2), (update, part)
    found = {group["name"]: group for group in module.optimized["world_model"].optimizer.param_groups}
    state = module.optimized["world_model"].optimizer.state
    assert [p.numel() > 0 for p in found["reward"]["params"]] == [bool(state.get(p)) for p in found["reward"]["params"]]
    assert all(state[p]["step"] == 3 for p in found["reward"]["params"] if p.numel())
    assert not any(state.get(p) for part in PARTS if part != "reward" for p in found[part]["params"])


def test_an_opening_resets_nothing(model_file, linear_store, fit):
    """Until it, all is as in the run of a frozen model, and what has been learned goes on from there."""
    runs = {}
    for name, extra in (("frozen", []), ("opened", [schedule(all=3)])):
        seen, module = Seen(), learner(model_file)
        fit(module, two_streams(linear_store), 4, callbacks=[*extra, seen])
        runs[name] = seen, moments(module)
    for update in range(3):
        same(runs["frozen"][0].states[update], runs["opened"][0].states[update])
    with pytest.raises(AssertionError):
        same(runs["frozen"][0].states[3], runs["opened"][0].states[3])
    for part in ("actor", "critic"):
        frozen, opened = (run[1][part] for run in runs.values())
        assert [s["step"] for s in frozen.values()] == [s["step"] for s in opened.values()]
    assert runs["opened"][0].states[3]["return_stats.count"] == runs["frozen"][0].states[3]["return_stats.count"]


class Order(Callback):
    """What an update calls, and in which state the model is then."""

    def __init__(self):
        self.calls = []

    def on_train_start(self, trainer, pl_module):
        model, heads = pl_module.world_model, pl_module.world_model.heads
        for name in ("world_model_loss", "imagined_returns", "critic_loss"):
            setattr(pl_module, name, partial(self.watched, name, getattr(pl_module, name), pl_module))
        self.model, self.reward = model, next(heads["reward"].parameters())

    def watched(self, name, function, module, *inputs):
        trained = {key for key, p in module.world_model.named_parameters() if p.requires_grad}
        self.calls.append(
            (name, trained, module.world_model.training, self.reward.detach().clone(), module.global_step)
        )
        return function(*inputs)


def test_the_model_steps_first_then_the_actor_through_it_then_the_critics(model_file, linear_store, fit):
    order, module = Order(), learner(model_file)
    fit(module, two_streams(linear_store), 2, callbacks=[schedule(reward=0), order])
    minibatches = 2 * 3
    once = ["world_model_loss", "imagined_returns", *["critic_loss"] * minibatches]
    assert [call[0] for call in order.calls] == 2 * once
    for name, trained, training, reward, step in order.calls:
        is_step = name == "world_model_loss"
        assert training == is_step
        assert (trained != set()) == is_step
        assert all(key.startswith("heads.reward.") for key in trained)
        before = next(r for n, _, _, r, s in order.calls if n == "world_model_loss" and s == step)
        assert torch.equal(reward, before) == is_step, "the actor and the critics see the model after its step"
    assert module.global_step == 2, "the model's steps do not count"


def test_a_step_is_that_of_pretraining(model_file, linear_store, fit):
    """By the model's own objective, which its checkpoint names, on the second stream, with the same optimizer."""
    optimizer, batches = WorldModelOptimizer(lr=2e-3, weight_decay=0.1, clip_norm=0.5), []
    module, seen = learner(model_file, world_model_optimizer=optimizer), Seen(batches)
    fit(module, two_streams(linear_store), 2, callbacks=[schedule(all=0), seen])
    plain = WorldModelPretraining(initial_checkpoint=str(model_file), objective=OBJECTIVE(), optimizer=optimizer)
    given = [batch["second"] for batch in batches]
    fit(plain, Given(linear_store, given), 2)
    same(module.world_model.state_dict(), plain.world_model.state_dict())
    other = learner(model_file, world_model_optimizer=optimizer, objective=WorldModelObjective(rho=0.1))
    fit(other, two_streams(linear_store), 2, callbacks=[schedule(all=0)])
    with pytest.raises(AssertionError):
        same(module.world_model.state_dict(), other.world_model.state_dict())


@pytest.mark.parametrize("every", [1, 2, 3])
def test_it_steps_where_the_second_stream_brings_slices_and_logs_at_any_interval(every, model_file, linear_store, fit):
    module, seen = learner(model_file), Seen()
    trainer = fit(
        module, two_streams(linear_store, every=every), 6, callbacks=[schedule(reward=0), seen], log_every_n_steps=2
    )
    state = module.optimized["world_model"].optimizer.state
    steps = {int(value["step"]) for value in state.values() if value}
    assert steps == {len(range(0, 6, every))}
    logged = trainer.callback_metrics
    assert {"train/world_model_loss", "train/consistency", "train/reward_cross_entropy"} <= logged.keys()
    assert logged["train/learning_rate_reward"] == pytest.approx(3e-4)
    assert {name for name in logged if "learning_rate" in name} == {"train/learning_rate_reward"}


def test_rates_and_warm_up_count_from_the_opening(model_file, linear_store, fit):
    settings = WorldModelOptimizer(lr=1e-3, encoder_lr_scale=0.5, warmup_steps=2, final_lr_fraction=0.1)
    parts = {"encoder": {}, "reward": {"update": 2, "lr": 4e-3, "warmup_steps": 4}}
    module, seen = learner(model_file, world_model_optimizer=settings), Seen()
    fit(module, two_streams(linear_store), 6, callbacks=[schedule(**parts), seen])
    assert seen.rates["reward"][:5] == pytest.approx([0, 0, 1e-3, 2e-3, 3e-3])
    assert seen.rates["encoder"][:3] == pytest.approx([2.5e-4, 5e-4, 5e-4])
    assert seen.rates["encoder"][5] < 2e-4, "the cosine of the optimizer's settings ends with the run"
    assert seen.rates["dynamics"] == [0] * 6


# -- resuming --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stop", [1, 2, 3, 5])
@pytest.mark.parametrize("pull", [None, L2Pull(0.1)])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(stop, pull, model_file, linear_store, fit, tmp_path):
    parts = {"reward": {"update": 1, "warmup_steps": 3}, "encoder": 3}
    runs = {}

    def run(updates, *extra, **options):
        seen, module = Seen(), learner(model_file)
        fit(
            module,
            two_streams(linear_store, every=2),
            updates,
            callbacks=[schedule(pull, **parts), seen, *extra],
            **options,
        )
        return module, seen

    runs["whole"] = run(6, Saving(stop, tmp_path / "half.ckpt"))
    hidden = model_file.rename(tmp_path / "gone")
    try:
        runs["resumed"] = run(6, ckpt_path=tmp_path / "half.ckpt")
    finally:
        hidden.rename(model_file)
    same(runs["resumed"][0].state_dict(), runs["whole"][0].state_dict())
    for ours, theirs in zip(moments(runs["resumed"][0]).values(), moments(runs["whole"][0]).values(), strict=True):
        assert ours.keys() == theirs.keys()
        for index, state in ours.items():
            same(state, theirs[index])
    assert runs["resumed"][1].logged == runs["whole"][1].logged[stop:]


def test_a_frozen_run_goes_on_with_open_parts_and_the_other_way_round(model_file, linear_store, fit, tmp_path):
    fit(learner(model_file), two_streams(linear_store), 2).save_checkpoint(tmp_path / "frozen.ckpt")
    module = learner(model_file)
    trainer = fit(module, two_streams(linear_store), 4, callbacks=[schedule(all=0)], ckpt_path=tmp_path / "frozen.ckpt")
    assert {int(s["step"]) for s in module.optimized["world_model"].optimizer.state.values() if s} == {2}
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    frozen = learner(model_file)
    fit(frozen, two_streams(linear_store), 5, ckpt_path=tmp_path / "tuned.ckpt")
    same(frozen.world_model.state_dict(), module.world_model.state_dict())
    same(load_policy(tmp_path / "tuned.ckpt").world_model.state_dict(), module.world_model.state_dict())


# -- what it is made of ----------------------------------------------------------------------------------------------
def test_a_model_that_samples_draws_from_streams_of_its_own(linear_store, fit, tmp_path):
    dynamics = partial(FlowDynamics, hidden_dim=16, source=NoiseSource, loss=EnergyLoss)
    path = tmp_path / "sampled.ckpt"
    fit(WorldModelPretraining(dynamics=dynamics, **MODEL), two_streams(linear_store), 2).save_checkpoint(path)
    noises = []

    class Noises(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            noises.append(pl_module.world_model_noise(batch) | pl_module.update_noise(4))

    states = []
    for _ in range(2):
        module = learner(path)
        fit(module, two_streams(linear_store), 3, callbacks=[schedule(all=0), Noises()])
        states.append(module.state_dict())
    same(*states)
    first = noises[0]
    assert {"actor", "dynamics", "world model, dynamics"} <= first.keys()
    model, policy = first["world model, dynamics"].flatten(), first["dynamics"].flatten()
    assert not set(model.tolist()) & set(policy.tolist())
    assert not torch.equal(noises[0]["world model, dynamics"], noises[1]["world model, dynamics"])
    assert torch.equal(noises[0]["world model, dynamics"], noises[3]["world model, dynamics"])


def test_a_loss_that_is_not_finite_undoes_the_whole_update_by_name(model_file, linear_store, fit):
    kept = {}

    class Poison(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            kept.update(state={k: v.clone() for k, v in pl_module.state_dict().items()}, moments=moments(pl_module))
            if trainer.global_step == 2:
                batch["second"]["reward"][0, 0] = float("nan")

    module = learner(model_file)
    with pytest.raises(NonFiniteLossError, match=r"The world-model loss is nan.*at update 2"):
        fit(module, two_streams(linear_store), 4, callbacks=[schedule(all=0), Poison()])
    same(module.state_dict(), kept["state"])
    for name, before in kept["moments"].items():
        for index, state in moments(module)[name].items():
            same(state, before[index])


@pytest.mark.parametrize("pull", [L2Pull, DistillationPull])
def test_a_pull_keeps_the_model_near_what_it_was(pull, model_file, linear_store, fit, tmp_path):
    def after(given):
        options = {"world_model_optimizer": {"lr": 1e-3, "clip_norm": 1e6}}
        module = learner(model_file, **options)
        trainer = fit(module, two_streams(linear_store), 12, callbacks=[schedule(given, all=0)])
        return module, trainer

    origin = load_world_model(model_file)
    (free, _), (held, trainer) = after(None), after(pull(coefficient=100.0))
    same(held.pretrained.state_dict(), origin.state_dict())
    assert trainer.callback_metrics["train/pull"] > 0
    batch = slices_of(linear_store)
    obs, task = batch["obs"][0], batch["task"]

    def distance(module):
        if pull is L2Pull:
            pairs = zip(module.world_model.parameters(), origin.parameters(), strict=True)
            return sum((a - b).square().sum() for a, b in pairs).item()
        return (module.world_model.encode(obs, task) - origin.encode(obs, task)).square().mean().item()

    assert distance(held) < 0.5 * distance(free)
    trainer.save_checkpoint(tmp_path / "held.ckpt")
    assert not hasattr(load_policy(tmp_path / "held.ckpt"), "pretrained")
    assert PolicyLearning.load_from_checkpoint(tmp_path / "held.ckpt").pretrained is None


def test_pulls_are_what_they_say(model_file, linear_store):
    model, before = load_world_model(model_file), load_world_model(model_file)
    batch = slices_of(linear_store)
    pairs = list(zip(model.parameters(), before.parameters(), strict=True))
    for pull in (L2Pull(), DistillationPull()):
        assert pull.term(model, before, pairs, batch, {}).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        next(model.encoder.parameters()).add_(0.5)
    entries = next(model.encoder.parameters()).numel()
    assert L2Pull(0.2).term(model, before, pairs, batch, {}).item() == pytest.approx(0.1 * 0.25 * entries, rel=1e-4)
    task = batch["task"].expand(batch["action"].shape[:2])
    shift = model.encode(batch["obs"][:-1], task) - before.encode(batch["obs"][:-1], task)
    expected = 3 * 20 * shift.square().mean().item()
    assert DistillationPull(3.0).term(model, before, pairs, batch, {}).item() == pytest.approx(expected, rel=1e-4)


# -- what is refused -------------------------------------------------------------------------------------------------
def test_what_a_schedule_cannot_be(model_file, linear_store, fit, tmp_path):
    def refused(match, *extra, module=None, data=None, **options):
        module, data = module or learner(model_file), data or two_streams(linear_store)
        with pytest.raises(LitPWMError, match=match):
            fit(module, data, 4, callbacks=list(extra), **options)

    refused("part 'rewards'.*does not have.*Did you mean 'reward'", schedule(rewards=0))
    refused("no second|has none.*data.second", schedule(all=0), data=two_streams(linear_store, second=False))
    refused("opens nothing in this run of 4 updates.*reward at update 4", schedule(reward=4))
    referring = learner(model_file, save_world_model="reference")
    refused("save_world_model is 'reference'.*opens parts", schedule(reward=0), module=referring)
    refused("holds 2 schedules", schedule(reward=0), schedule(encoder=0))
    refused("WorldModelPretraining.*Remove", schedule(all=0), module=WorldModelPretraining(**MODEL))
    with pytest.raises(LitPWMError, match=r"no parts.*stays frozen"):
        schedule()
    with pytest.raises(LitPWMError, match=r"parts.reward 'soon', where an opening is expected"):
        schedule(reward="soon")
    with pytest.raises(LitPWMError, match=r"update -1; give"):
        schedule(reward=-1)
    with pytest.raises(LitPWMError, match=r"parts.reward has no 'rate'"):
        schedule(reward={"rate": 1})
    fit(learner(model_file), two_streams(linear_store), 1).save_checkpoint(tmp_path / "frozen.ckpt")
    pulled = schedule(L2Pull(), reward=0)
    refused("does not hold the model that FinetuneSchedule's pull", pulled, ckpt_path=tmp_path / "frozen.ckpt")


# -- from scratch ----------------------------------------------------------------------------------------------------
def joint(**options):
    world_model = {"dynamics": partial(MLPDynamics, hidden_dim=16), "latent_dim": 16, "task_dim": 4}
    return learner(None, world_model=world_model, objective=OBJECTIVE(), **options)


def test_joint_training_from_scratch(linear_store, fit, tmp_path):
    runs = []
    for _ in range(2):
        module = joint(world_model_optimizer={"lr": 1e-3, "encoder_lr_scale": 1.0})
        trainer = fit(module, two_streams(linear_store), 30, callbacks=[seen := Seen(), schedule(all=0)])
        runs.append((module, seen))
    same(runs[0][0].state_dict(), runs[1][0].state_dict())
    losses = [row["train/world_model_loss"] for row in runs[0][1].logged]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert (module.world_model.obs_std != 1).any(), "observations are standardised, as in pre-training"
    trainer.save_checkpoint(tmp_path / "joint.ckpt")
    resumed = joint(world_model_optimizer={"lr": 1e-3, "encoder_lr_scale": 1.0})
    fit(resumed, two_streams(linear_store), 31, ckpt_path=tmp_path / "joint.ckpt", callbacks=[schedule(all=0)])
    assert resumed.global_step == 31
    same(load_world_model(tmp_path / "joint.ckpt").state_dict(), module.world_model.state_dict())


def test_what_joint_training_needs(linear_store, fit):
    with pytest.raises(LitPWMError, match=r"world_model_checkpoint is not set.*joint\.yaml"):
        fit(joint(), two_streams(linear_store), 1)
    for parts in ({"reward": 0, "encoder": 0}, {"all": 0, "dynamics": 1}):
        with pytest.raises(LitPWMError, match=r"dynamics.* would stay random.*Open all parts at update 0"):
            fit(joint(), two_streams(linear_store), 2, callbacks=[schedule(**parts)])
    with pytest.raises(LitPWMError, match=r"pull, L2Pull.*fresh weights"):
        fit(joint(), two_streams(linear_store), 2, callbacks=[schedule(L2Pull(), all=0)])
