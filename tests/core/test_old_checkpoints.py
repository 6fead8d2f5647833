"""Stores and checkpoints that commit 5ffa8ba wrote (tests/fixtures_v1/write.py) are read, act, and train on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.overrides import TorchFunctionMode

from datamodules import EpisodeStore, MultitaskDataModule
from datamodules.check import check
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_policy, load_world_model, migration
from lit_pwm.checkpoints.migration import key_since_1
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.evaluator import evaluate_policy
from lit_pwm.options import renamed
from lit_pwm.updates.from_checkpoint import arrange_by_group

OLD = Path(__file__).parent.parent / "fixtures_v1"
WORLD_MODELS = ["mlp", "refinement", "flow", "sampled_flow", "steadied"]
POLICIES = ["mlp_policy", "flow_policy"]
# Since then the running variances, which these losses are measured in, move once per update.
OTHER_UPDATES = {"sampled_flow"}
STEADIED = {"steadied"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed from"),
]


class Replayed(TorchFunctionMode):
    """Hands out recorded draws, in order, instead of drawing."""

    def __init__(self, draws):
        super().__init__()
        self.draws = list(draws)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.randn, torch.rand, torch.randperm):
            assert result.shape == self.draws[0].shape, "another draw than the one that was recorded"
            return self.draws.pop(0)
        return result


class GivenBatches:
    """A loader of the batches that were recorded."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return 1000

    def __iter__(self):
        return iter(self.batches)

    def state_dict(self):
        return {"next_step": 8}

    def load_state_dict(self, state):
        assert state == {"next_step": 5}


def recorded(name):
    return torch.load(OLD / f"{name}.pt", weights_only=True)


def assert_close(ours, theirs, tolerance):
    ours, theirs = (x if isinstance(x, tuple) else (x,) for x in (ours, theirs))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def assert_outputs(functions, outputs):
    for name, function in functions.items():
        saved = outputs[name]
        with Replayed(saved["draws"]) as replayed:
            assert_close(function(**saved["inputs"]), saved["results"], 1e-5)
        assert not replayed.draws, name


def functions_of(world_model):
    names = ("encode_logits", "encode", "next", "reward_logits", "reward", "rollout")
    return {name: getattr(world_model, name) for name in names}


@pytest.mark.parametrize("name", WORLD_MODELS)
def test_world_models_predict_what_they_did(name):
    world_model, outputs = load_world_model(OLD / f"{name}.ckpt").eval(), recorded(name)["outputs"]
    assert set(functions_of(world_model)) == set(outputs)
    assert_outputs(functions_of(world_model), outputs)


@pytest.mark.parametrize("name", POLICIES)
def test_policies_act_as_they_did(name):
    policy, outputs = load_policy(OLD / f"{name}.ckpt").eval(), recorded(name)["outputs"]
    assert_outputs(
        functions_of(policy.world_model), {k: v for k, v in outputs.items() if k not in ("deterministic", "sampled")}
    )
    assert_outputs(dict.fromkeys(("deterministic", "sampled"), policy.actor), outputs)
    task = outputs["sampled"]["inputs"]["task"]
    narrow = outputs["sampled"]["results"][task == policy.task_names.index("cartpole-swingup")]
    assert (narrow[:, 0] != 0).all()
    assert (narrow[:, 1] == 0).all(), "the mask did not matter"


@pytest.mark.parametrize("name", POLICIES)
def test_policies_earn_what_they_did(name):
    policy, returns = load_policy(OLD / f"{name}.ckpt").eval(), recorded(name)["returns"]
    result = evaluate_policy(policy, list(returns), episodes=2, seed=0)
    for task, earned in returns.items():
        np.testing.assert_allclose(result.tasks[task].returns, earned, rtol=1e-3, atol=1e-2)


def resume(name, root, monkeypatch, *options, config=None):
    """The state after a run of the command line that goes on from a checkpoint."""
    monkeypatch.chdir(OLD)  # the config names the world model of a policy by the name that it had
    argv = ["fit", "--config", str(config or f"{name}.yaml"), "--data.store", "collected.h5"]
    argv += ["--ckpt_path", f"{name}.ckpt"]
    assert run([*argv, "--trainer.default_root_dir", str(root), *options]) == 0
    (last,) = root.rglob("last.ckpt")
    content = torch.load(last, weights_only=True)
    assert content["global_step"] == 8
    assert content["lit_pwm"]["format"] == 3
    return content["state_dict"]


def hand_in(module, draws, monkeypatch):
    """Let the next update of a module take draws that were recorded."""
    if isinstance(module, PolicyLearning):
        noise, *orders = (draw["value"] for draw in draws)
        minibatches = [chosen for order in orders for chosen in order.chunk(module.critic_optimizer.minibatches)]
        monkeypatch.setattr(module, "update_noise", lambda size: {"actor": noise})
        monkeypatch.setattr(module, "update_minibatches", lambda size: minibatches)
        return Replayed([])
    return Replayed([draw["value"] for draw in draws])


@pytest.mark.parametrize("name", [name for name in WORLD_MODELS + POLICIES if name not in OTHER_UPDATES | STEADIED])
def test_updates_arrive_where_they_did(name, tmp_path, monkeypatch):
    assert_same_updates(name, tmp_path, monkeypatch)


def assert_same_updates(name, root, monkeypatch, *options, config=None):
    saved = recorded(name)
    module = PolicyLearning if name in POLICIES else WorldModelPretraining
    step, updates = module.training_step, list(saved["updates"])

    def training_step(self, batch, batch_idx):
        with hand_in(self, updates.pop(0)["draws"], monkeypatch) as replayed:
            step(self, batch, batch_idx)
        assert not replayed.draws

    given = GivenBatches([update["batch"] for update in updates])
    monkeypatch.setattr(module, "training_step", training_step)
    monkeypatch.setattr(MultitaskDataModule, "train_dataloader", lambda self: given)
    now = resume(name, root, monkeypatch, *options, config=config)
    assert not updates
    before = torch.load(OLD / f"{name}.ckpt", weights_only=True)["state_dict"]
    assert any((before[key] - value).abs().max() > 1e-2 for key, value in saved["after"].items() if value.numel())
    for key, value in saved["after"].items():
        if key.endswith("action_mask"):
            continue  # made from the model, not trained
        torch.testing.assert_close(now[key_since_1(key)], value, atol=1e-4, rtol=1e-4, msg=key)


def test_what_steadied_an_encoder_goes_on_by_the_class_that_its_refusal_names(tmp_path, monkeypatch, capfd):
    config = yaml.safe_load((OLD / "steadied.yaml").read_text())
    plain = config["model"]["init_args"]
    monkeypatch.chdir(OLD)
    going_on = ["--data.store", "collected.h5", "--ckpt_path", "steadied.ckpt"]
    assert run(["fit", "--config", "steadied.yaml", *going_on]) == 2
    assert "benchmarks.encoder_steadying.SteadiedObjective" in " ".join(capfd.readouterr().err.split())
    steadying = {name: plain.pop(name) for name in ("target_encoder_rate", "sigreg_coef")}
    (tmp_path / "steadied.yaml").write_text(yaml.safe_dump(config))
    assert run(["fit", "--config", str(tmp_path / "steadied.yaml"), *going_on]) == 2
    told = " ".join(capfd.readouterr().err.split())
    assert "--model.objective benchmarks.encoder_steadying.SteadiedObjective" in told
    assert "checkout" in told

    named = [("", "benchmarks.encoder_steadying.SteadiedObjective"), *((f".{k}", v) for k, v in steadying.items())]
    options = [word for name, value in named for word in (f"--model.objective{name}", str(value))]
    assert_same_updates("steadied", tmp_path / "run", monkeypatch, *options, config=tmp_path / "steadied.yaml")


def test_a_file_of_before_is_told_of_once_and_comes_with_its_options(monkeypatch, capsys):
    monkeypatch.setattr(migration, "_told", set())
    monkeypatch.setattr(renamed, "_told", set())
    module = WorldModelPretraining.load_from_checkpoint(OLD / "sampled_flow.ckpt")
    load_world_model(OLD / "sampled_flow.ckpt")
    said = capsys.readouterr().err
    assert said.count("has format 1") == 1
    assert "Old spellings" not in said
    assert module.optimizer_settings.lr == 0.01
    assert (module.world_model_options.latent_dim, module.world_model_options.task_dim) == (16, 4)
    assert module.objective.coefficients == {"reward": 0.1}
    policy = PolicyLearning.load_from_checkpoint(OLD / "mlp_policy.ckpt")
    assert policy.critic_optimizer.minibatches == 4
    assert policy.noise_seed == torch.load(OLD / "mlp_policy.ckpt", weights_only=True)["state_dict"]["noise_seed"]


def test_what_steadied_an_encoder_is_loaded_without_it():
    module = WorldModelPretraining.load_from_checkpoint(OLD / "steadied.ckpt")
    saved = recorded("steadied")["outputs"]["encode"]
    assert_close(module.world_model.encode(**saved["inputs"]).detach(), saved["results"], 1e-5)


def test_settings_of_before_are_compared_in_the_new_spelling():
    checkpoint = torch.load(OLD / "mlp.ckpt", weights_only=True)
    settings = {"model.latent_dim": 16, "model.dynamics.class_path": "lit_pwm.models.MLPDynamics", "model.lr": 0.01}
    settings |= {"model.dynamics.hidden_dim": 8, "data.horizon": 4, "model.sigreg_coef": 0.1}
    checkpoint["lit_pwm_settings"] = settings
    migration.migrate(checkpoint, "made.ckpt")
    assert checkpoint["lit_pwm_settings"] == {
        "data.horizon": 4,
        "model.world_model.latent_dim": 16,
        "model.world_model.dynamics.class_path": "lit_pwm.models.MLPDynamics",
        "model.world_model.dynamics.hidden_dim": 8,
        "model.optimizer.lr": 0.01,
        "model.sigreg_coef": 0.1,
    }


def test_states_of_optimizers_go_by_the_names_of_their_groups():
    checkpoint = torch.load(OLD / "mlp.ckpt", weights_only=True)
    theirs = checkpoint["optimizer_states"][0]["param_groups"]
    names = [(group["name"], len(group["params"])) for group in theirs]
    assert [name for name, _ in names] == ["encoder", "dynamics", "reward", "task_embedding"]
    arrange_by_group(checkpoint, [names[::-1]], "mlp.ckpt")
    assert [group["name"] for group in checkpoint["optimizer_states"][0]["param_groups"]] == [n for n, _ in names[::-1]]
    for wrong, says in (([("encoder", 3)], "has 8 there"), ([*names, ("size", 2)], "'size'.*not among them")):
        with pytest.raises(LitPWMError, match=says):
            arrange_by_group(checkpoint, [wrong], "mlp.ckpt")
    policy = torch.load(OLD / "mlp_policy.ckpt", weights_only=True)
    migration.migrate(policy, "mlp_policy.ckpt")
    assert [state["param_groups"][0]["name"] for state in policy["optimizer_states"]] == ["actor", "critic"]


@pytest.mark.parametrize("part", ["lit_pwm", "optimizer_states", "hyper_parameters", "lit_pwm_settings"])
def test_a_damaged_file_of_before_is_refused_by_name(part, tmp_path):
    checkpoint = torch.load(OLD / "mlp_policy.ckpt", weights_only=True)
    checkpoint[part] = {
        "lit_pwm": checkpoint["lit_pwm"] | {"world_model": checkpoint["lit_pwm"]["world_model"] | {"encoder_dim": "x"}},
        "optimizer_states": [{"param_groups": "x"}],
        "hyper_parameters": 3,
        "lit_pwm_settings": {3: 4},
    }[part]
    torch.save(checkpoint, tmp_path / "damaged.ckpt")
    with pytest.raises(LitPWMError, match=r"damaged\.ckpt|MLPEncoder has hidden_dim"):
        load_policy(tmp_path / "damaged.ckpt")


@pytest.mark.parametrize("name", sorted(OTHER_UPDATES))
def test_others_train_on(name, tmp_path, monkeypatch):
    assert all(torch.isfinite(value).all() for value in resume(name, tmp_path, monkeypatch).values())


def test_evaluated_by_the_command_line(tmp_path):
    out = tmp_path / "result.json"
    argv = ["evaluate", "--checkpoint", str(OLD / "mlp_policy.ckpt"), "--tasks", "cartpole-swingup"]
    assert run([*argv, "--episodes", "2", "--seed", "0", "--out", str(out)]) == 0
    returns = json.loads(out.read_text())["tasks"]["cartpole-swingup"]["returns"]
    np.testing.assert_allclose(returns, recorded("mlp_policy")["returns"]["cartpole-swingup"], rtol=1e-3)


def test_collected_stores_are_read():
    assert check(OLD / "collected.h5") == []
    store = EpisodeStore(OLD / "collected.h5")
    assert store.tasks == {"cartpole-swingup": (5, 1), "reacher-easy": (6, 2)}
    assert store.length.tolist() == [500] * 4


def test_written_stores_are_read():
    assert check(OLD / "made.h5") == []
    store, rng = EpisodeStore(OLD / "made.h5"), np.random.default_rng(7)
    assert store.tasks == {"walk": (3, 1), "turn": (5, 2)}
    assert [episode.task for episode in store] == ["walk", "turn", "walk"]
    for number, episode in enumerate(store):
        width, actions = store.tasks[episode.task]
        length = 20 + number
        np.testing.assert_array_equal(episode.obs, rng.normal(size=(length + 1, width)).astype(np.float32))
        np.testing.assert_array_equal(episode.action, rng.uniform(-1, 1, (length, actions)).astype(np.float32))
        np.testing.assert_array_equal(episode.reward, rng.uniform(0, 1, length).astype(np.float32))
        assert episode.terminated == (number == 2)
        assert episode.source == f"source {number}"
