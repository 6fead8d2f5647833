"""Files go through our own format and come back the same; our models are folded into formats that lack a part."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from functools import partial

import pytest
import torch
from conversion_matrix import PWM_FILES
from foreign_files import current_file, original_file, world_model_weights

from lit_pwm.checkpoints import DESCRIPTION_KEY, convert, describe_world_model, load_world_model
from lit_pwm.errors import LitPWMError
from lit_pwm.models import FlowDynamics, MLPDynamics, MLPEncoder, RefinementDynamics, TwoHotReward, WorldModel

MADE = {
    "tdmpc2-original": original_file,
    "tdmpc2": current_file,
    "tdmpc2 0.15": partial(current_file, tensordict="0.15"),
    "pwm-model": lambda weights: {"model": weights},
    "pwm-module": lambda weights: {"model": {key.replace("state.", ""): value for key, value in weights.items()}},
}
TARGETS = ["tdmpc2-original", "tdmpc2", "pwm-model", "pwm-module"]


def own_model(tasks=None, seed=0, rescale=True, hidden=24, **widths):
    torch.manual_seed(seed)
    tasks = tasks or {"walker-walk": (24, 6), "cup-catch": (8, 2)}
    model = WorldModel(
        tasks,
        widths.pop("dynamics", partial(MLPDynamics, hidden_dim=hidden, rescale_inputs=rescale)),
        **{"latent_dim": 16, "task_dim": 4} | widths,
        encoder=partial(MLPEncoder, hidden_dim=20, layers=2),
        reward=partial(TwoHotReward, hidden_dim=hidden),
    )
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.2 * torch.randn_like(value))
    return model


def save_own(model, path):
    state = {f"world_model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, DESCRIPTION_KEY: describe_world_model(model)}, path)
    return path


def outputs(model, tasks=None):
    generator = torch.Generator().manual_seed(5)
    task = torch.randint(len(model.tasks), (64,), generator=generator)
    dims = torch.tensor([dims[0] for dims in model.tasks.values()])[task]
    obs = 3 * torch.randn(64, model.obs_dim, generator=generator) + 1
    obs = torch.where(torch.arange(model.obs_dim) < dims[:, None], obs, 0.0)
    actions = torch.rand(5, 64, model.action_dim, generator=generator) * 2 - 1
    with torch.no_grad():
        z = model.encode(obs, task)
        latents, rewards = model.rollout(z, actions, task)
        return z, latents, rewards, model.reward_logits(latents[:-1], actions, task)


def same(first, second, tolerance=0.0):
    for a, b in zip(outputs(first), outputs(second), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def assert_identical(one, other):
    """Keys in the same order; tensors of the same type, shape and bits; plain values of the same type."""
    assert type(other) is type(one) or {type(one), type(other)} <= {dict, OrderedDict}
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_identical(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.contiguous().flatten().view(torch.uint8).equal(other.contiguous().flatten().view(torch.uint8))
    else:
        assert one == other


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("rows", [30, None])
@pytest.mark.parametrize("bare", [False, True])
def test_through_our_format_and_back_nothing_is_lost(kind, rows, bare, saved, tmp_path):
    content = MADE[kind](world_model_weights(rows))
    weights = content["model"]
    if rows:
        weights["_task_emb.weight"] = weights["_task_emb.weight"].double()
        weights["_reward.2.bias"] = weights["_reward.2.bias"].bfloat16()
        weights["_dynamics.1.bias"][0] = torch.tensor(-0.0)
    shuffled = dict(sorted(weights.items(), key=lambda item: item[0][::-1]))  # an order of nobody's
    source = saved(shuffled if bare else {"model": shuffled})
    names = None if rows else ["walker-run"]
    native = convert(source, "native", tmp_path / "native.ckpt", tasks=names)
    back = convert(native, kind.partition(" ")[0], tmp_path / "back.pt")
    assert_identical(torch.load(source, weights_only=True), torch.load(back, weights_only=True))
    same(load_world_model(native), load_world_model(source, tasks=names))


def test_a_model_that_was_trained_further_has_lost_what_was_carried(saved, tmp_path, capsys):
    source = saved(original_file(world_model_weights(rows=2)))
    native = save_own(load_world_model(source, tasks="a,b"), tmp_path / "trained.ckpt")
    with pytest.raises(LitPWMError, match=r"no policy prior and no Q functions.*_pi\..*dropped when.*--partial"):
        convert(native, "tdmpc2-original", tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()
    out = convert(native, "tdmpc2-original", tmp_path / "out.pt", partial=True)
    kept = {
        key: value for key, value in torch.load(source)["model"].items() if not key.startswith(("_pi", "_Q", "_target"))
    }
    assert_identical({"model": kept}, torch.load(out))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("statistics", ["none", "one task", "shared"])
def test_what_a_format_lacks_is_folded(target, rescale, statistics, tmp_path):
    tasks = {"walker-walk": (24, 6)} if statistics == "one task" else {"walker-walk": (24, 6), "walker-run": (24, 6)}
    model = own_model(tasks, rescale=rescale)
    if statistics != "none":
        mean, std = torch.linspace(-3, 3, 24).tolist(), torch.linspace(0.3, 4, 24).tolist()
        model.set_observation_statistics(dict.fromkeys(tasks, (mean, std)))
    out = convert(save_own(model, tmp_path / "own.ckpt"), target, tmp_path / "out.pt", partial=True)
    found = load_world_model(out, tasks=list(tasks))
    assert not found.dynamics.rescale_inputs
    assert not found.obs_mean.any()
    same(model, found, 1e-5)
    if not rescale and statistics == "none":
        same(model, found)


def refused(model, target, tmp_path, partial=True):
    with pytest.raises(LitPWMError) as error:
        convert(save_own(model, tmp_path / "own.ckpt"), target, tmp_path / "out.pt", partial=partial)
    assert not (tmp_path / "out.pt").exists()
    assert str(tmp_path / "own.ckpt") in str(error.value)
    return str(error.value)


class Ends(TwoHotReward):
    """Stands for a head beside the reward's."""


@pytest.mark.parametrize("target", TARGETS)
def test_what_cannot_be_folded_is_refused_by_name_with_a_road(target, tmp_path):
    model = own_model()
    model.set_observation_statistics({"cup-catch": ([1.0] * 8, [2.0] * 8)})
    said = refused(model, target, tmp_path)
    assert "walker-walk and cup-catch" in said
    assert "`standardise_observations: false`" in said
    for kind in (FlowDynamics, RefinementDynamics):
        said = refused(own_model(dynamics=partial(kind, hidden_dim=24)), target, tmp_path)
        assert "the dynamics 'lit_pwm.models" in said
        assert kind.__name__ in said
        assert "--to native" in said
    said = refused(own_model(heads={"ends": Ends}), target, tmp_path)
    assert "the head 'ends' beside its reward" in said
    said = refused(own_model(dynamics=partial(MLPDynamics, hidden_dim=24, layers=3)), target, tmp_path)
    assert "`layers: 2`" in said


def test_parts_of_unlike_widths_are_written_with_a_notice(tmp_path, capsys):
    model = own_model(dynamics=partial(MLPDynamics, hidden_dim=32))
    out = convert(save_own(model, tmp_path / "own.ckpt"), "tdmpc2", tmp_path / "out.pt", partial=True)
    assert "32 wide and its reward head 24" in capsys.readouterr().err
    same(model, load_world_model(out, tasks=list(model.tasks)), 1e-5)


def test_a_current_file_of_ours_has_the_buffers_of_tdmpc2(tmp_path):
    out = convert(save_own(own_model(), tmp_path / "own.ckpt"), "tdmpc2", tmp_path / "out.pt", partial=True)
    weights = torch.load(out)["model"]
    assert list(weights)[:4] == ["_action_masks", "log_std_min", "log_std_dif", "_task_emb.weight"]
    assert weights["_action_masks"].tolist() == [[1.0] * 6, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    assert (weights["log_std_min"].item(), weights["log_std_dif"].item()) == (-10, 12)
    assert weights["log_std_min"].dtype == torch.int64


def test_original_and_current_files_turn_into_each_other(saved, tmp_path, capsys):
    """As TD-MPC2's own converter does: the Q functions get names, their detached copies are the same."""
    weights = world_model_weights()
    original, current = original_file(weights), current_file(weights)
    action_dims = [dims[1] for dims in load_world_model(saved(original)).tasks.values()]
    current["model"]["_action_masks"] = (torch.arange(6) < torch.tensor(action_dims)[:, None]).float()
    there = convert(saved(original), "tdmpc2", tmp_path / "there.pt")
    assert_identical(current, torch.load(there, weights_only=True))
    back = convert(there, "tdmpc2-original", tmp_path / "back.pt")
    assert capsys.readouterr().err == ""
    assert_identical(original, torch.load(back, weights_only=True))


def test_what_another_format_has_no_place_for_is_said(saved, tmp_path, capsys):
    out = convert(saved(original_file(world_model_weights())), "pwm-model", tmp_path / "out.pt")
    assert "PWM's model format has no place for _pi, _Qs, _target_Qs" in capsys.readouterr().err
    assert_identical({"model": world_model_weights()}, torch.load(out, weights_only=True))


def test_a_file_is_not_converted_in_its_own_place_or_into_nothing_known(saved):
    source = saved({"model": world_model_weights()})
    with pytest.raises(LitPWMError, match="Name another"):
        convert(source, "native", source)
    with pytest.raises(LitPWMError, match=r"no format of checkpoints 'tdmpc'\. Did you mean 'tdmpc2'"):
        convert(source, "tdmpc", source.with_name("other.pt"))


@pytest.mark.parametrize(
    "junk", [3, {}, {"format": "tdmpc2"}, {"format": "tdmpc2", "layout": 1, "carried": [[]], "keys": {}}]
)
def test_a_damaged_foreign_entry_ends_in_our_error_or_is_not_used(junk, saved, tmp_path):
    content = torch.load(
        convert(saved({"model": world_model_weights()}), "native", tmp_path / "n.ckpt"), weights_only=True
    )
    path = saved(content | {"foreign": junk}, "junk.ckpt")
    load_world_model(path)
    for target in ("tdmpc2", "pwm-model", "pwm", "flow-mbpo", "state-dict"):
        with contextlib.suppress(LitPWMError):
            convert(path, target, tmp_path / "out.pt", partial=True)


def test_a_policy_that_a_format_has_no_place_for_is_said(tmp_path, capsys):
    source = PWM_FILES / "pwm_training.pt"
    convert(source, "pwm-model", tmp_path / "out.pt", tasks="walker-walk,cup-catch,cheetah-run")
    assert (
        f"PWM's model format holds a world model alone: the policy of {source} is left out" in capsys.readouterr().err
    )


# -- a plain state_dict ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "dynamics", [partial(MLPDynamics, hidden_dim=24, rescale_inputs=False), partial(FlowDynamics, hidden_dim=24)]
)
@pytest.mark.parametrize("prefix", ["", "world_model."])
def test_a_plain_state_dict_says_what_it_is_made_of(dynamics, prefix, tmp_path):
    model = own_model(dynamics=dynamics)
    model.set_observation_statistics({"cup-catch": ([1.0] * 8, [2.0] * 8)})
    holder = torch.nn.Module()
    holder.world_model = model
    torch.save((holder if prefix else model).state_dict(), tmp_path / "weights.pt")
    found = load_world_model(tmp_path / "weights.pt")
    assert found.description() == model.description()
    same(model, found)
    with pytest.raises(LitPWMError, match="names its own tasks"):
        load_world_model(tmp_path / "weights.pt", tasks="a,b")
    native = convert(tmp_path / "weights.pt", "native", tmp_path / "native.ckpt")
    back = torch.load(convert(native, "state-dict", tmp_path / "back.pt"), weights_only=True)
    source = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert_identical(source, back)
    assert back._metadata == source._metadata


def test_our_checkpoints_become_plain_state_dicts(tmp_path):
    model = own_model()
    out = convert(save_own(model, tmp_path / "own.ckpt"), "state-dict", tmp_path / "out.pt")
    fresh = own_model(seed=1)
    fresh.load_state_dict(torch.load(out, weights_only=True))
    same(model, fresh)
    same(model, load_world_model(out))


def test_a_state_dict_without_metadata_needs_names_and_is_of_default_options(tmp_path, capsys):
    model = own_model()
    for content in (dict(model.state_dict()), {"state_dict": dict(model.state_dict())}):
        torch.save(content, tmp_path / "weights.pt")
        with pytest.raises(LitPWMError, match="holds 2 tasks"):
            load_world_model(tmp_path / "weights.pt")
        same(model, load_world_model(tmp_path / "weights.pt", tasks=list(model.tasks)))
        assert "rescale_inputs is taken for the default, true" in capsys.readouterr().err
    for change in ({"dynamics.net.1.weight": torch.zeros(3)}, {"dynamics.net.9.weight": torch.zeros(3)}):
        torch.save(content["state_dict"] | change, tmp_path / "weights.pt")
        with pytest.raises(LitPWMError, match=rf"'{next(iter(change))}'.*a copy of its tensors"):
            load_world_model(tmp_path / "weights.pt", tasks=list(model.tasks))


@pytest.mark.parametrize(
    "description", [3, {}, {"tasks": 3}, {"tasks": {"a": (1, 1)}, "dynamics": {"class_path": "os.system"}}]
)
def test_metadata_of_any_kind_end_in_our_error(description, tmp_path):
    state = own_model().state_dict()
    state._metadata[""]["lit_pwm"] = description
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(LitPWMError):
        load_world_model(tmp_path / "weights.pt")


@pytest.mark.parametrize(("mean", "deviation", "said"), [(1.0, 2.0, False), (1e4, 1.0, True), (0.5, 1e-6, True)])
def test_statistics_that_single_precision_cannot_fold_are_said(mean, deviation, said, tmp_path, capsys):
    """Their weights are as good as none of W o − W μ is left when o is all but μ."""
    model = own_model({"walker-walk": (24, 6)})
    model.set_observation_statistics({"walker-walk": ([mean] * 24, [deviation] * 24)})
    convert(save_own(model, tmp_path / "own.ckpt"), "pwm-model", tmp_path / "folded.pt")
    assert ("are rounded by" in capsys.readouterr().err) == said


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_folded_in_single(dtype, tmp_path):
    model = own_model({"walker-walk": (24, 6)}).to(dtype)
    model.set_observation_statistics({"walker-walk": ([0.5] * 24, [2.0] * 24)})
    path = save_own(model, tmp_path / "own.ckpt")
    ours = load_world_model(path)
    folded = load_world_model(convert(path, "pwm-model", tmp_path / "folded.pt"), tasks=["walker-walk"])
    for own, other in zip(outputs(ours), outputs(folded), strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=0)
