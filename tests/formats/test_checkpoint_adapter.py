"""Beside each of a run's checkpoints lies a file of another format, and no run is resumed from that."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from foreign_files import THREE_TASKS, tiny_policy, world_model_weights
from lightning.pytorch.callbacks import ModelCheckpoint
from support import fit

from callbacks import CheckpointAdapter, LastCheckpoint
from lit_pwm import WorldModelPretraining
from lit_pwm.checkpoints import DESCRIPTION_KEY, load_policy, load_world_model
from lit_pwm.cli.resuming import resolve
from lit_pwm.errors import LitPWMError
from lit_pwm.models import FlowDynamics, MLPDynamics, MLPEncoder, TwoHotReward
from lit_pwm.models.world_model_options import WorldModelOptions

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def module(dynamics=MLPDynamics, **options):
    parts = {
        "dynamics": partial(dynamics, hidden_dim=12),
        "encoder": partial(MLPEncoder, hidden_dim=12),
        "reward": partial(TwoHotReward, hidden_dim=12),
    }
    sizes = WorldModelOptions(latent_dim=16, task_dim=4, **parts)
    return WorldModelPretraining(sizes, standardise_observations=False, **options)


def run(trained, data, folder, updates, adapters, **options):
    every = ModelCheckpoint(folder, "{step}", monitor="step", mode="max", every_n_train_steps=1, save_top_k=1)
    last = LastCheckpoint(every_n_updates=2)
    last.dirpath = str(folder)
    settings = {"callbacks": [*adapters, every, last], "enable_checkpointing": True, "limit_val_batches": 0}
    return fit(trained, data(), updates, default_root_dir=folder, **settings, **options)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir() if path.is_file())


def same(first, second, tolerance):
    obs, task = torch.randn(9, 24), torch.arange(9) % 3
    actions = torch.rand(3, 9, 6)
    with torch.no_grad():
        for a, b in zip(*(m.rollout(m.encode(obs, task), actions, task) for m in (first, second)), strict=True):
            torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def test_each_checkpoint_has_its_files_beside_it_and_they_go_with_it(data, tmp_path):
    adapters = [CheckpointAdapter("tdmpc2", partial=True), CheckpointAdapter("state-dict")]
    trained = module()
    trainer = run(trained, data, tmp_path, 3, adapters)
    kinds = [".ckpt", ".state-dict.pt", ".tdmpc2.pt"]
    assert names(tmp_path) == sorted(stem + kind for stem in ("last", "step=3") for kind in kinds)
    tasks = list(trained.world_model.tasks)
    model = trained.world_model.eval()
    same(model, load_world_model(tmp_path / "last.tdmpc2.pt", tasks=tasks), 1e-5)
    same(model, load_world_model(tmp_path / "last.state-dict.pt"), 0)
    same(model, load_world_model(tmp_path / "last.ckpt"), 0)
    assert torch.load(tmp_path / "last.tdmpc2.pt", weights_only=True)["model"]["_task_emb.weight"].shape == (3, 4)
    trainer.fit(trained, data())  # the same Trainer once more does not wrap twice
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    assert [name for name in names(tmp_path) if name.startswith("mine")] == [f"mine{kind}" for kind in kinds]


def test_a_resumed_run_writes_them_again_and_auto_never_takes_them(data, tmp_path):
    run(module(), data, tmp_path, 2, [CheckpointAdapter("pwm-model")])
    newest = tmp_path / "last.pwm-model.pt"
    first = newest.read_bytes()
    os.utime(newest, (4e9, 4e9))
    for suffix in (".pt", ".ckpt"):  # the second as if someone had renamed it
        found = newest.rename(newest.with_suffix(suffix)) if suffix == ".ckpt" else newest
        resumed = resolve("auto", "fit", tmp_path, "world model", {})
        assert resumed is not None
        assert resumed.path.name in ("last.ckpt", "step=2.ckpt")
    found.rename(newest)
    run(module(), data, tmp_path, 4, [CheckpointAdapter("pwm-model")], ckpt_path=tmp_path / "last.ckpt")
    assert newest.read_bytes() != first


def test_a_policys_world_model_is_written_also_where_its_checkpoints_are_without(data, tmp_path):
    run(module(), data, tmp_path / "model", 1, [])
    checkpoint = tmp_path / "model" / "last.ckpt"
    for how in ("full", "reference"):
        policy = tiny_policy(checkpoint, save_world_model=how)
        run(policy, data, tmp_path / how, 1, [CheckpointAdapter("pwm-model")])
        found = load_world_model(tmp_path / how / "last.pwm-model.pt", tasks=list(policy.world_model.tasks))
        same(load_world_model(checkpoint), found, 1e-5)
        assert torch.load(tmp_path / how / "last.ckpt", weights_only=True)[DESCRIPTION_KEY]["kind"] == "policy"


@pytest.mark.parametrize("format", ["pwm", "flow-mbpo"])
def test_a_policy_is_written_with_its_actor_where_the_format_has_one(format, data, saved, tmp_path):
    source = saved({"model": world_model_weights(rows=3)})
    run(tiny_policy(source, checkpoint_tasks=list(THREE_TASKS)), data, tmp_path / "run", 1, [CheckpointAdapter(format)])
    ours = load_policy(tmp_path / "run" / "last.ckpt")
    theirs = load_policy(tmp_path / "run" / f"last.{format}.pt", tasks=list(THREE_TASKS))
    obs = torch.randn(5, 8).numpy()
    assert (ours.act(obs, "cup-catch") == theirs.act(obs, "cup-catch")).all()


def test_what_cannot_be_written_is_refused_before_training(data, tmp_path):
    for trained, options, said in (
        (module(FlowDynamics), {"partial": True}, r"FlowDynamics.*--to native"),
        (module(), {}, r"'of this run' holds no policy prior and no Q functions.*partial=True"),
    ):
        with pytest.raises(LitPWMError, match=said):
            run(trained, data, tmp_path, 1, [CheckpointAdapter("tdmpc2", **options)])
        assert names(tmp_path) == []
    with pytest.raises(LitPWMError, match=r"has format 'native'.*Accepted: .*tdmpc2, tdmpc2-original"):
        CheckpointAdapter("native")
    with pytest.raises(LitPWMError, match="Did you mean 'tdmpc2'"):
        CheckpointAdapter("tdmpc")


def test_training_is_the_same_with_and_without(data, tmp_path):
    with_it, without = module(), module()
    run(with_it, data, tmp_path / "with", 3, [CheckpointAdapter("tdmpc2", partial=True)])
    run(without, data, tmp_path / "without", 3, [])
    for key, value in with_it.state_dict().items():
        assert torch.equal(value, without.state_dict()[key]), key
