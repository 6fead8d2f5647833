"""What commit c5482d9 wrote: a policy's checkpoint of format 2, and where its code arrived from it.

Run once, with the code of that commit and in a folder outside the checkout, and not again: later code cannot write what
earlier code wrote. It stays here to say what each file holds.

    PYTHONPATH=CHECKOUT_OF_c5482d9 python write_format_2.py FOLDER

- `policy.ckpt`: after 2 of 4 updates of `lit-pwm fit` on the store and the world model of `tests/fixtures_v1`;
  `policy.yaml`: the config that the run left, in the spellings of then, on paths that are given anew.
- `after.pt`: the module's `state_dict` after update 4.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
import yaml

from lit_pwm.cli.main import run

OLD = Path(__file__).resolve().parent.parent / "fixtures_v1"


def main(folder: Path) -> None:
    argv = ["fit", "--config", "configs/policy_learning.yaml", "--config", "configs/policy/flow_tiny.yaml"]
    argv += ["--data.store", str(OLD / "collected.h5"), "--model.world_model_checkpoint", str(OLD / "mlp.ckpt")]
    argv += ["--model.reward_space", "raw", "--model.reward_scale", "0.1", "--model.return_scale", "task"]
    argv += ["--model.parameter_tolerance", "0.2", "--model.actor_reference.init_args.hidden_dims", "[12, 8]"]
    argv += ["--model.actor.init_args.hidden_dims", "[12, 8]", "--model.critic.init_args.hidden_dims", "[12]"]
    argv += ["--model.horizon", "4", "--data.horizon", "4", "--data.batch_size", "8", "--trainer.accelerator", "cpu"]
    argv += ["--trainer.max_steps", "4", "--trainer.val_check_interval", "2", "--trainer.limit_val_batches", "1"]
    argv += ["--trainer.callbacks", "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
             "init_args: {every_n_train_steps: 2, save_top_k: -1, filename: 'at-{step}'}}]"]  # fmt: skip
    assert run([*argv, "--trainer.default_root_dir", str(folder / "runs"), "--seed_everything", "3"]) == 0
    (saved,) = (folder / "runs").rglob("at-step=2.ckpt")
    (last,) = (folder / "runs").rglob("last.ckpt")
    shutil.copy(saved, folder / "policy.ckpt")
    config = yaml.safe_load((last.parent.parent / "config.yaml").read_text())
    config["data"]["init_args"]["store"], config["model"]["init_args"]["world_model_checkpoint"] = "STORE", None
    config["trainer"]["default_root_dir"] = None
    (folder / "policy.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    torch.save(torch.load(last, weights_only=True)["state_dict"], folder / "after.pt")
    shutil.rmtree(folder / "runs")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
