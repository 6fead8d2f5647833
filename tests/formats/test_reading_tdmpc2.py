"""TD-MPC2's files, and PWM's `model` files, give the reference's outputs, or are refused by the key that is wrong."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from foreign_files import current_file, original_file, world_model_weights

from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.checkpoints.formats import FOREIGN_KEY, format_of, read_any
from lit_pwm.errors import LitPWMError
from lit_pwm.models.sizes import SIZES
from lit_pwm.tasks import TASK_SETS

FILES = {
    "tdmpc2-original": original_file,
    "tdmpc2": current_file,
    "tdmpc2, tensordict 0.15": lambda weights: current_file(weights, "0.15"),
    "pwm-model": lambda weights: {"model": weights},
    "pwm-module": lambda weights: {"model": {key.replace("state.", ""): value for key, value in weights.items()}},
}
IDS = list(FILES)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("bare", [False, True], ids=["under model", "bare"])
def test_outputs_are_the_references(kind, bare, oracle, oracle_weights, saved):
    content = FILES[kind](oracle_weights)
    path = saved(content["model"] if bare else content)
    assert format_of(torch.load(path, weights_only=True), path).name == kind.partition(",")[0]
    model, task, actions = load_world_model(path), oracle["task"], oracle["actions"]
    assert model.task_names == TASK_SETS["mt30"]
    assert not model.training
    assert model.tasks["cup-catch"] == (8, 2)
    with torch.no_grad():
        z = model.encode(oracle["obs"], task)
        latents, rewards = model.rollout(z, actions, task)
        close(z, oracle["z0"])
        close(model.next(z, actions[0], task), oracle["next_z"][0])
        close(latents[1:], oracle["next_z"])
        close(model.reward_logits(latents[:-1], actions, task), oracle["reward_logits"])
        close(rewards, oracle["reward_two_hot_inv"][..., 0])


@pytest.mark.parametrize("kind", FILES)
def test_a_single_task_has_no_embedding_and_needs_its_name(kind, saved, capsys):
    path = saved(FILES[kind](world_model_weights(rows=None, obs=5, action=2, encoder_layers=3)))
    with pytest.raises(LitPWMError, match=r"single task.*--tasks A,B.*tasks=.*--model\.checkpoint_tasks"):
        load_world_model(path)
    model = load_world_model(path, tasks=["my-robot"])
    assert (model.task_dim, model.tasks, model.encoder.layers) == (0, {"my-robot": (5, 2)}, 3)
    latents, _ = model.rollout(
        model.encode(torch.randn(3, 5), torch.zeros(3).long()), torch.randn(2, 3, 2), torch.tensor(0)
    )
    assert latents.shape == (3, 3, 16)
    with pytest.raises(LitPWMError, match=r"task 0 is to be 'walker-run', which has 24 and 6"):
        load_world_model(path, tasks="walker-run")
    assert load_world_model(path, tasks="cartpole-swingup").tasks == {"cartpole-swingup": (5, 1)}
    assert "'cartpole-swingup' has 5 and 1: the rest is taken for padding" in capsys.readouterr().err


@pytest.mark.parametrize("kind", FILES)
def test_two_rows_need_two_names(kind, saved):
    path = saved(FILES[kind](world_model_weights(rows=2)))
    with pytest.raises(LitPWMError, match=r"holds 2 tasks.*30 \(MT30\) and 80 \(MT80\)"):
        load_world_model(path)
    with pytest.raises(LitPWMError, match=r"holds 2 tasks, and 3 are named: a, b, c"):
        load_world_model(path, tasks="a,b,c")
    with pytest.raises(LitPWMError, match="'a' is named twice"):
        load_world_model(path, tasks="a,a")
    assert load_world_model(path, tasks="cup-catch, my-robot").tasks == {"cup-catch": (8, 2), "my-robot": (24, 6)}


def test_eighty_rows_are_mt80_and_names_go_before_the_number(saved):
    assert load_world_model(saved(original_file(world_model_weights(80, 39)))).task_names == TASK_SETS["mt80"]
    names = [f"robot-{number}" for number in range(30)]
    path = saved(original_file(world_model_weights(30, 7, 3)))
    with pytest.raises(LitPWMError, match=r"'_encoder\.state\.0\.weight' has shape.*on other tasks, name them"):
        load_world_model(path)
    assert load_world_model(path, tasks=names).tasks["robot-29"] == (7, 3)


def test_action_masks_say_how_wide_unknown_tasks_are(saved):
    path = saved(current_file(world_model_weights(rows=2), action_dims=[2, 6]))
    assert load_world_model(path, tasks=["mine", "other"]).tasks == {"mine": (24, 2), "other": (24, 6)}
    content = current_file(world_model_weights(rows=2))
    content["model"]["_action_masks"] = torch.rand(2, 6)
    assert load_world_model(saved(content), tasks=["mine", "other"]).tasks == {"mine": (24, 6), "other": (24, 6)}


def refusal(content):
    with pytest.raises(LitPWMError) as caught:
        format_of(content, "x.pt").read(content, "x.pt", None)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["tdmpc2-original", "tdmpc2", "pwm-model", "pwm-module"])
def test_a_key_that_is_missing_renamed_or_misshapen_is_named(kind):
    sound = FILES[kind](world_model_weights())["model"]
    checked = [key for key in sound if key.startswith(("_task", "_enc", "_dyn", "_rew", "_pi", "_Qs.params"))]
    checked = [key for key in checked if isinstance(sound[key], torch.Tensor)]
    assert len(checked) > 20
    for key in checked:
        value = sound[key]
        without = {name: tensor for name, tensor in sound.items() if name != key}
        said = refusal({"model": without})
        assert repr(key) in said or (key == "_task_emb.weight" and "no task embedding" in said)
        misspelt = key.replace("weight", "wieght").replace("bias", "bais").replace("params.", "parms.")
        if not (kind == "tdmpc2" and key.startswith("_Qs")):  # which versions of tensordict spell as they like
            said = refusal({"model": {**without, misspelt: value}})
            assert f"{key!r}" in said
            assert f"(nearest in the file: {misspelt!r})" in said
        misshapen = refusal({"model": sound | {key: torch.cat([value, value[..., :1]], dim=-1)}})
        expected = (
            f"{key!r} has shape {[*value.shape[:-1], value.shape[-1] + 1]}, where {list(value.shape)} is expected"
        )
        assert expected in misshapen
        assert misshapen.count("has shape") == 1


@pytest.mark.parametrize("value", ["text", None, torch.zeros(3), torch.zeros((), dtype=torch.complex64), {}, [1]])
def test_values_of_any_kind_end_in_our_error(value, saved):
    for kind in IDS:
        content = FILES[kind](world_model_weights())
        for key in ("_task_emb.weight", "_dynamics.0.weight", "_reward.2.bias", "_pi.0.weight"):
            if key in content["model"]:
                with pytest.raises(LitPWMError, match=key.replace(".", r"\.")):
                    load_world_model(saved({"model": content["model"] | {key: value}}))
    for content in (
        {"model": {3: torch.zeros(1), "_dynamics.x": value, "_reward.": value}},
        {"_encoder.": 1, "_reward.": 2},
    ):
        with pytest.raises(LitPWMError):
            load_world_model(saved(content))


def test_the_layout_before_publication_is_refused_with_the_reason(saved):
    flat = {}
    for net, last in (("_encoder.state", 3), ("_dynamics", 7), ("_reward", 6)):
        for number in range(last + 1):
            shape = (8, 8) if number % 3 == 0 else (8,)
            if number % 3 != 2:
                flat |= {f"{net}.{number}.weight": torch.zeros(shape), f"{net}.{number}.bias": torch.zeros(8)}
    for content in (flat, {"model": flat | {"_pi.0.weight": torch.zeros(8, 8)}}):
        with pytest.raises(LitPWMError, match=r"flat layout.*no published version of TD-MPC2 can load.*not converted"):
            load_world_model(saved(content), tasks="walker-run")


def test_a_termination_head_is_refused_by_name(saved):
    content = current_file(world_model_weights())
    content["model"]["_termination.0.weight"] = torch.zeros(4, 4)
    with pytest.raises(LitPWMError, match=r"'_termination\.0\.weight'.*episodic: false"):
        load_world_model(saved(content))


def test_a_file_of_no_format_names_those_that_are_read(saved):
    with pytest.raises(LitPWMError, match=r"it holds 'weights'.*TD-MPC2's original format"):
        load_world_model(saved({"weights": {}}))


def test_a_world_model_is_no_policy(saved):
    with pytest.raises(LitPWMError, match=r"holds a world model, and a policy is needed"):
        load_policy(saved(original_file(world_model_weights())))


def test_own_names_are_not_overruled(saved):
    native = read_any(saved(original_file(world_model_weights(rows=2))), tasks="a,b")
    assert list(native[FOREIGN_KEY]["carried"])[:1] == ["_pi.0.weight"]
    path = saved(native, "native.ckpt")
    assert load_world_model(path, tasks=["a", "b"]).task_names == ("a", "b")
    with pytest.raises(LitPWMError, match="names its own tasks, a, b, and these are to be b, a"):
        load_world_model(path, tasks="b,a")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("rows", [30, 80])
def test_all_sizes_are_read_off_the_tensors(size, rows):
    """Tensors of one repeated number take no memory, so that 317 M is as quick as the smallest."""
    obs = {30: 24, 80: 39}[rows]
    layers = [obs + size.task_dim, *[size.encoder_dim] * size.encoder_layers, size.latent_dim]
    inputs = size.latent_dim + size.task_dim + 6
    shapes = {"_task_emb.weight": (rows, size.task_dim)}
    for net, widths in {
        "_encoder.state": layers,
        "_dynamics": [inputs, size.dynamics_dim, size.dynamics_dim, size.latent_dim],
        "_reward": [inputs, size.reward_dim, size.reward_dim, 101],
    }.items():
        for number, (columns, width) in enumerate(pairwise(widths)):
            kinds = {"weight": (width, columns), "bias": (width,), "ln.weight": (width,), "ln.bias": (width,)}
            shapes |= {f"{net}.{number}.{kind}": shape for kind, shape in kinds.items()}
    raw = {"model": {key: torch.zeros(1).expand(shape) for key, shape in shapes.items() if "_reward.2.ln" not in key}}
    model = format_of(raw, "x.pt").read(raw, "x.pt", None)["lit_pwm"]["world_model"]
    assert (len(model["tasks"]), model["obs_dim"], model["action_dim"]) == (rows, obs, 6)
    assert (model["latent_dim"], model["task_dim"]) == (size.latent_dim, size.task_dim)
    encoder, dynamics, reward = (model[part]["init_args"] for part in ("encoder", "dynamics", "reward"))
    assert encoder == {"hidden_dim": size.encoder_dim, "layers": size.encoder_layers}
    assert dynamics == {"hidden_dim": size.dynamics_dim, "layers": 2, "rescale_inputs": False}
    assert reward == {"hidden_dim": size.reward_dim, "layers": 2, "num_bins": 101}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_keys_under_a_wrappers_name_are_told_from_those_of_no_format(kind, prefix, saved):
    weights = FILES[kind](world_model_weights())["model"]
    path = saved({"model": {f"{prefix}{key}": value for key, value in weights.items()}})
    with pytest.raises(LitPWMError, match=rf"begin with '{prefix}'.*those of (TD-MPC2|PWM)'s .*save the weights of"):
        load_world_model(path)


def odd_masks(value):
    content = current_file(world_model_weights())
    content["model"]["_action_masks"] = content["model"]["_action_masks"] * value
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (odd_masks(float("nan")), None),
        (odd_masks(1e30), None),
        ({"model": world_model_weights(bins=1)}, "num_bins 1"),
        ({"model": world_model_weights(latent=12)}, "latent_dim 12"),
        ({"model": world_model_weights() | {"_reward.2.bias": torch.zeros(101, device="meta")}}, "device meta"),
        ({"model": world_model_weights() | {"_reward.2.bias": torch.zeros(101).to_sparse()}}, "sparse"),
    ],
    ids=["masks of NaN", "masks of 1e30", "one bin", "latent 12", "meta", "sparse"],
)
def test_values_that_no_model_has_are_refused_with_the_files_name(content, said, saved):
    """Masks that are none say nothing of widths, which are the tasks' own."""
    path = saved(content)
    if said is None:
        assert load_world_model(path).tasks["cup-catch"] == (8, 2)
        return
    with pytest.raises(LitPWMError, match=rf"foreign\.pt.*{said}"):
        load_world_model(path)


def test_what_lies_beside_the_weights_is_said_not_to_be_read(saved, capsys):
    load_world_model(saved({"model": world_model_weights(), "metadata": {"date": "today"}}))
    assert "also holds 'metadata'" in capsys.readouterr().err


def test_an_error_that_nobody_foresaw_is_told_as_ours(saved, monkeypatch):
    def fail(*_):
        raise ValueError("an odd value")

    path = saved({"model": world_model_weights()})
    monkeypatch.setattr("lit_pwm.checkpoints.formats.pwm_model.PWMModel.refuse", fail)
    with pytest.raises(LitPWMError, match=r"foreign\.pt.*ValueError: an odd value"):
        load_world_model(path)
