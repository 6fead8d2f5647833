"""Runs start from files of other formats: tasks are found by name, and what is carried is dropped with a notice."""

from __future__ import annotations

import pytest
import torch
from foreign_files import THREE_TASKS as TASKS
from foreign_files import current_file, original_file, tiny_policy, world_model_weights
from support import fit

from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_world_model
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError
from lit_pwm.tasks import TASK_SETS


def test_pretraining_goes_on_from_a_file_of_mt30_with_those_tasks_embeddings(data, saved, tmp_path, capsys):
    path = saved(original_file(world_model_weights()))
    before, module = load_world_model(path), WorldModelPretraining(initial_checkpoint=str(path))
    trainer = fit(module, data(), 1, limit_val_batches=0)
    assert (
        "also holds _pi, _Qs, _target_Qs, which do not fit a model that is trained further" in capsys.readouterr().err
    )
    assert module.world_model.task_names == TASK_SETS["mt30"]
    moved = (module.world_model.task_embedding.weight - before.task_embedding.weight).abs().amax(1)
    gradient = module.world_model.task_embedding.weight.grad.abs().amax(1)
    used = [before.task_names.index(name) for name in TASKS]
    assert sorted(gradient.nonzero().flatten().tolist()) == sorted(used)
    assert (moved[used] > 0).all()
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    assert "foreign" not in torch.load(tmp_path / "trained.ckpt", weights_only=True)


def test_a_policy_starts_on_a_file_whose_tasks_are_named(data, saved, capsys):
    content = current_file(world_model_weights(rows=3), action_dims=[6, 2, 6])
    path, names = saved(content), ["walker-walk", "cup-catch", "cheetah-run"]
    with pytest.raises(LitPWMError, match=r"holds 3 tasks.*--model\.checkpoint_tasks"):
        fit(tiny_policy(str(path)), data(), 1, limit_val_batches=0)
    module = tiny_policy(str(path), checkpoint_tasks=names)
    fit(module, data(), 1, limit_val_batches=0)
    assert "_detach_Qs_params, _target_Qs_params, which have no use in this run" in capsys.readouterr().err
    assert module.world_model.task_names == tuple(names)
    assert module.hparams["checkpoint_tasks"] == names
    state = module.world_model.state_dict()
    assert all(
        torch.equal(state[key], value) for key, value in load_world_model(path, tasks=names).state_dict().items()
    )


def test_pretraining_takes_names_too(data, saved):
    path = saved({"model": world_model_weights(rows=3)})
    module = WorldModelPretraining(initial_checkpoint=str(path), checkpoint_tasks=list(TASKS))
    fit(module, data(), 1, limit_val_batches=0)
    assert module.world_model.tasks == TASKS
    with pytest.raises(LitPWMError, match="tasks"):
        fit(
            WorldModelPretraining(initial_checkpoint=str(path), checkpoint_tasks=["a", "b", "c"]),
            data(),
            1,
            limit_val_batches=0,
        )


def test_a_run_from_a_foreign_file_is_resumed_without_it(data, saved, tmp_path):
    path = saved({"model": world_model_weights(rows=3)})
    options = {"initial_checkpoint": str(path), "checkpoint_tasks": list(TASKS)}
    fit(WorldModelPretraining(**options), data(), 1, limit_val_batches=0).save_checkpoint(tmp_path / "one.ckpt")
    path.unlink()
    resumed = WorldModelPretraining(**options)
    fit(resumed, data(), 2, limit_val_batches=0, ckpt_path=tmp_path / "one.ckpt")
    assert resumed.world_model.tasks == TASKS


def test_names_without_a_file_are_refused():
    with pytest.raises(LitPWMError, match=r"file of model\.initial_checkpoint, which is not set"):
        WorldModelPretraining(checkpoint_tasks=["a"])
    with pytest.raises(LitPWMError, match=r"model\.world_model_checkpoint or model\.initial_policy_checkpoint"):
        PolicyLearning(checkpoint_tasks=["a"])


def test_on_the_command_line_a_run_starts_from_a_file_writes_another_and_goes_on(
    three_task_store, saved, tmp_path, capsys
):
    path, root = saved(original_file(world_model_weights(rows=3))), tmp_path / "run"
    argv = ["fit", "--config", "configs/pretrain.yaml", "--model.initial_checkpoint", str(path), "--data.batch_size=8"]
    argv += [
        f"--model.checkpoint_tasks=[{', '.join(TASKS)}]",
        "--data.store",
        str(three_task_store),
        "--data.horizon=4",
    ]
    argv += ["--trainer.callbacks+=callbacks.CheckpointAdapter", "--trainer.callbacks.format=tdmpc2-original"]
    argv += ["--trainer.callbacks.partial=true", "--trainer.limit_val_batches=0", "--trainer.accelerator=cpu"]
    argv += ["--ckpt_path=auto", "--trainer.default_root_dir", str(root)]
    for updates in (1, 3):
        assert run([*argv, f"--trainer.max_steps={updates}"]) == 0
        (found,) = root.rglob("last.tdmpc2-original.pt")
        native = load_world_model(found.with_name("last.ckpt"))
        foreign = load_world_model(found, tasks=list(TASKS))
        assert all(torch.equal(value, foreign.state_dict()[key]) for key, value in native.state_dict().items())
    assert "at update 1" in capsys.readouterr().err
    assert not torch.equal(
        native.encoder.net[0].weight, load_world_model(path, tasks=list(TASKS)).encoder.net[0].weight
    )
    assert run([*argv[:-3], "--ckpt_path", str(path), "--trainer.default_root_dir", str(root)]) == 2
    assert "A file of another project can be started from" in " ".join(capsys.readouterr().err.split())
