"""Checkpoints that cannot be read are refused in one paragraph that names the file and says what to do."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch

from lit_pwm.checkpoints import (
    DESCRIPTION_KEY,
    describe_policy,
    describe_world_model,
    load_policy,
    load_world_model,
    read_checkpoint,
    read_description,
)
from lit_pwm.checkpoints.native import check_same_networks
from lit_pwm.errors import LitPWMError
from lit_pwm.models import CriticEnsemble, MLPActor, MLPDynamics, Policy, WorldModel

TASKS = {"walker-walk": (24, 6), "cup-catch": (8, 2)}


def make_world_model(**widths):
    torch.manual_seed(0)
    widths = {"latent_dim": 16, "encoder_dim": 16, "reward_dim": 16, "task_dim": 4} | widths
    return WorldModel(TASKS, partial(MLPDynamics, hidden_dim=16), **widths)


def prefixed(**modules):
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


@pytest.fixture
def world_model_file(tmp_path):
    model = make_world_model()
    model.set_observation_statistics({"cup-catch": ([0.5] * 8, [2.0] * 8)})
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": prefixed(world_model=model), DESCRIPTION_KEY: describe_world_model(model)}, path)
    return path, model


@pytest.fixture
def policy_file(tmp_path):
    model = make_world_model()
    actor, critic = MLPActor(16, 6, 2, hidden_dims=(12,), task_dim=3), CriticEnsemble(16, 2, hidden_dims=(12,))
    actor.set_action_mask(model.action_mask())
    path = tmp_path / "policy.ckpt"
    content = {
        "state_dict": prefixed(
            world_model=model,
            actor=MLPActor(16, 6, 2, hidden_dims=(12,), task_dim=3),
            averaged_actor=actor,
            critic=critic,
        ),
        DESCRIPTION_KEY: describe_policy(model, actor, critic, ["cup-catch"]),
    }
    torch.save(content, path)
    return path, model, actor


def refusal(load, path):
    with pytest.raises(LitPWMError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message, "names the file"
    assert "\n" not in message, "is one paragraph"
    return message


def test_world_model_round_trip(world_model_file):
    path, model = world_model_file
    again = load_world_model(path)
    assert not again.training
    assert again.description() == model.description()
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    obs, task = torch.randn(3, 24), torch.tensor([0, 1, 1])
    assert torch.equal(again.encode(obs, task), model.encode(obs, task))


def test_policy_round_trip_and_its_world_model(policy_file):
    path, model, actor = policy_file
    policy = load_policy(path)
    assert policy.trained_tasks == ("cup-catch",)
    assert policy.task_names == tuple(TASKS)
    obs = torch.randn(5, 8).numpy()
    actions = policy.act(obs, "cup-catch")
    assert actions.shape == (5, 2)
    expected = Policy(model, actor, ("cup-catch",)).act(obs, "cup-catch")
    assert (actions == expected).all()
    assert load_world_model(path).description() == model.description()


def test_acting_is_the_actor_on_the_encoded_padded_observation(policy_file):
    path, model, actor = policy_file
    obs, task = torch.randn(3, 8), torch.ones(3, dtype=torch.int64)
    padded = torch.cat([obs, torch.zeros(3, 16)], dim=-1)
    expected = actor(model.encode(padded, task), task, deterministic=True)[:, :2].detach()
    torch.testing.assert_close(torch.from_numpy(load_policy(path).act(obs.numpy(), "cup-catch")), expected)


def test_acting_does_not_depend_on_how_many_act(policy_file):
    policy = load_policy(policy_file[0])
    obs = torch.randn(37, 8).numpy()
    together = policy.act(obs, "cup-catch")
    for i in (0, 15, 16, 36):
        assert (policy.act(obs[i : i + 1], "cup-catch")[0] == together[i]).all()


def test_acting_for_an_unknown_task_or_with_another_width_is_refused(policy_file):
    policy = load_policy(policy_file[0])
    with pytest.raises(LitPWMError, match="'cup-catch'"):
        policy.act(torch.randn(1, 8).numpy(), "cup-catsh")
    for shape in ((1, 24), (8,)):
        with pytest.raises(LitPWMError, match=r"\[B, 8\]"):
            policy.act(torch.randn(*shape).numpy(), "cup-catch")


def test_missing_file_and_folder(tmp_path):
    for load in (load_world_model, load_policy, read_description):
        assert "does not exist" in refusal(load, tmp_path / "nothing.ckpt")
        assert "folder" in refusal(load, tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage that is no checkpoint", b"\x00" * 4096, b"PK\x03\x04 and no more", bytes(range(256)) * 64],
    ids=["empty", "text", "zeros", "zip head", "bytes"],
)
def test_garbage(tmp_path, content):
    path = tmp_path / "garbage.ckpt"
    path.write_bytes(content)
    assert "lit_pwm run wrote" in refusal(load_world_model, path)


def test_cut_or_damaged_files_never_end_in_another_exception(world_model_file, tmp_path):
    content = world_model_file[0].read_bytes()
    generator = torch.Generator().manual_seed(0)
    damaged = tmp_path / "damaged.ckpt"
    for fraction in (0.01, 0.3, 0.6, 0.9, 0.999):
        damaged.write_bytes(content[: int(fraction * len(content))])
        refusal(load_world_model, damaged)
    pickled = content.index(b"data.pkl")
    for i in range(200):
        low, high = (pickled, pickled + 2500) if i % 2 else (0, len(content))
        position = int(torch.randint(low, high, (), generator=generator))
        damaged.write_bytes(content[:position] + b"\xff\x00\xff" + content[position + 3 :])
        try:
            load_world_model(damaged)  # where nothing that is read has changed
        except LitPWMError as error:
            assert str(damaged) in str(error)  # noqa: PT017


def test_no_weight_changes_without_a_word(world_model_file, tmp_path):
    path, _ = world_model_file
    content, before = path.read_bytes(), torch.load(path, weights_only=True)["state_dict"]
    weight = before["world_model.heads.reward.net.0.weight"].numpy().tobytes()
    start, damaged = content.index(weight[:64]), tmp_path / "damaged.ckpt"
    for offset in range(0, len(weight), len(weight) // 7):
        changed = bytearray(content)
        changed[start + offset] ^= 1
        damaged.write_bytes(changed)
        assert "checksum" in refusal(load_world_model, damaged)


@pytest.mark.parametrize("written", [{"_use_new_zipfile_serialization": False}, {}], ids=["older", "without checksums"])
def test_files_without_checksums_are_read(world_model_file, written):
    path, model = world_model_file
    content, before = torch.load(path, weights_only=True), torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, path, **written)
    finally:
        torch.serialization.set_crc32_options(before)
    assert load_world_model(path).task_names == model.task_names


class Payload:
    """What an attacker would put into a pickle."""

    def __reduce__(self):
        return (print, ("this code ran",))


def test_a_checkpoint_with_python_objects_is_not_executed(tmp_path, capsys):
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, DESCRIPTION_KEY: Payload()}, path)
    said = refusal(load_world_model, path)
    assert "Python objects" in said
    assert "print" in said
    assert "weights_only" not in said  # torch's advice to read it nevertheless
    raw = tmp_path / "raw.pkl"
    raw.write_bytes(pickle.dumps({"state_dict": Payload()}))
    refusal(load_world_model, raw)
    assert "this code ran" not in capsys.readouterr().out


def test_foreign_checkpoints(tmp_path):
    path = tmp_path / "foreign.ckpt"
    torch.save({"model": {"weight": torch.zeros(3)}, "epoch": 3}, path)
    message = refusal(load_world_model, path)
    assert "'model'" in message
    assert "not written by lit_pwm" in message
    torch.save(torch.zeros(3), path)
    assert "Tensor" in refusal(load_world_model, path)


def test_a_newer_format(world_model_file):
    path, _ = world_model_file
    content = torch.load(path, weights_only=True)
    content[DESCRIPTION_KEY]["format"] = 99
    torch.save(content, path)
    message = refusal(load_world_model, path)
    assert "99" in message
    assert "Upgrade" in message


def test_a_policy_is_wanted_but_a_world_model_given(world_model_file):
    message = refusal(load_policy, world_model_file[0])
    assert "world model" in message
    assert "configs/policy_learning.yaml" in message


def test_weights_that_do_not_fit_the_description(world_model_file):
    path, _ = world_model_file
    content = torch.load(path, weights_only=True)
    content[DESCRIPTION_KEY]["world_model"]["latent_dim"] = 24
    torch.save(content, path)
    assert "do not fit" in refusal(load_world_model, path)
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["world_model.encoder.net.0.weight"]
    torch.save(content, path)
    assert "do not fit" in refusal(load_world_model, path)


def test_networks_of_another_size_are_told_apart_entry_by_entry():
    ours, theirs = describe_world_model(make_world_model()), describe_world_model(make_world_model(latent_dim=24))
    check_same_networks(ours, describe_world_model(make_world_model()), "x.ckpt")
    with pytest.raises(LitPWMError, match=r"'x\.ckpt'.*world_model\.latent_dim is 24 there and 16 here"):
        check_same_networks(ours, theirs, "x.ckpt")


def test_a_component_that_cannot_be_imported(world_model_file):
    path, _ = world_model_file
    content = torch.load(path, weights_only=True)
    content[DESCRIPTION_KEY]["world_model"]["dynamics"]["class_path"] = "my_project.MyDynamics"
    torch.save(content, path)
    with pytest.raises(LitPWMError, match=r"my_project\.MyDynamics.*--import my_project"):
        load_world_model(path)


def test_reading_runs_on_plain_values_only(world_model_file):
    content = read_checkpoint(world_model_file[0])
    assert set(content) == {"state_dict", DESCRIPTION_KEY}


def paths_of(value, path=()):
    """Where each value lies, as keys and indices from the top."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from paths_of(inner, (*path, key))


GONE = object()


@pytest.mark.parametrize("other", [GONE, None, [1, [2]], {"class_path": "os.system"}, 10**30], ids=range(5))
def test_descriptions_of_any_kind_never_end_in_another_exception(policy_file, other):
    path = policy_file[0]
    sound = torch.load(path, weights_only=True)
    refused = 0
    for keys in paths_of(sound[DESCRIPTION_KEY]):
        content = copy.deepcopy(sound)
        where = content
        *above, last = (DESCRIPTION_KEY, *keys)
        for key in above:
            where = where[key]
        if other is GONE:
            del where[last]
        else:
            where[last] = other
        torch.save(content, path)
        try:
            load_policy(path)
        except LitPWMError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": 3}, "its kind is 3"),
        ({"actor": None}, "does not describe its actor"),
        ({"trained_tasks": ["nosuch"]}, "trained_tasks"),
        ({"format": "1"}, "no description with a format"),
    ],
)
def test_what_is_wrong_with_a_description_is_named(policy_file, change, says):
    content = torch.load(policy_file[0], weights_only=True)
    torch.save({**content, DESCRIPTION_KEY: content[DESCRIPTION_KEY] | change}, policy_file[0])
    with pytest.raises(LitPWMError, match=says) as error:
        load_policy(policy_file[0])
    assert str(policy_file[0]) in str(error.value)


@pytest.mark.parametrize("state", [None, [], "x", {3: torch.zeros(1)}, {"world_model.heads.reward.two_hot.bins": "x"}])
def test_weights_of_any_kind_never_end_in_another_exception(policy_file, state):
    content = torch.load(policy_file[0], weights_only=True)
    torch.save({**content, "state_dict": state}, policy_file[0])
    for load in (load_policy, load_world_model):
        with pytest.raises(LitPWMError, match="do not fit the network"):
            load(policy_file[0])
