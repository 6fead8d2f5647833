"""What commit 5ffa8ba wrote: its stores, checkpoints, one run folder, and what its code computed with them.

Run once, with the code of that commit and in a folder outside the checkout, and not again: later code cannot write what
earlier code wrote. It stays here to say what each file holds.

    PYTHONPATH=CHECKOUT_OF_5ffa8ba python write.py FOLDER

- `collected.h5`: two tasks of different widths, collected by `lit-pwm collect`; `made.h5`: written by `EpisodeWriter`.
- `NAME.ckpt`: a network after 5 of 8 updates of `lit-pwm fit`, for each NAME of `WORLD_MODELS` and `POLICIES`;
  `NAME.yaml`: the config that the run left.
- `NAME.pt`: a dictionary of
  - `outputs`: function → its inputs by name (`inputs`), its result or results in order (`results`), and what it drew
    from the global generator, in order (`draws`);
  - `updates`: one for each of the updates 6 to 8: its `batch`, and everything random about it in order (`draws`), each
    by what it was for (`purpose`), the function of torch that drew it (`function`) and the values (`value`);
  - `after`: the module's `state_dict` after update 8;
  - `returns` (policies): task → the returns of `evaluate_policy` on the environment seeds 0 and 1.
- `run/`: the folder that the run of `flow_policy` left, without its checkpoints.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from datamodules import EpisodeWriter
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.cli.main import run
from lit_pwm.evaluation import evaluate_policy

TASKS = ("cartpole-swingup", "reacher-easy")
SAVED, LAST = 5, 8
SIZES = ["--model.latent_dim", "16", "--model.encoder_dim", "8", "--model.reward_dim", "8", "--model.task_dim", "4"]
HIDDEN = ["--model.dynamics.init_args.hidden_dim", "8", "--model.parameter_reference", "null"]
SHORT = ["--data.batch_size", "8", "--data.horizon", "4", "--trainer.limit_val_batches", "1"]
SHORT += ["--trainer.max_steps", str(LAST), "--trainer.val_check_interval", str(SAVED), "--trainer.accelerator", "cpu"]
WORLD_MODELS = {
    "mlp": ["--config", "configs/world_model/mlp_tiny.yaml"],
    "refinement": ["--config", "configs/world_model/refinement_tiny.yaml"],
    "flow": ["--config", "configs/world_model/flow_tiny.yaml"],
    "sampled_flow": [
        "--config", "configs/world_model/flow_sampled_tiny.yaml", "--model.dynamics.init_args.flow_weight", "0.1",
    ],
    "steadied": [
        "--config", "configs/world_model/mlp_tiny.yaml", "--model.target_encoder_rate", "0.05", "--model.sigreg_coef",
        "0.1", "--data.tasks", "[reacher-easy]",
    ],
}  # fmt: skip
ACTOR = ["--model.actor.init_args.hidden_dims", "[12, 8]", "--model.critic.init_args.hidden_dims", "[12]"]
ACTOR += ["--model.actor.init_args.task_dim", "4", "--model.critic.init_args.task_dim", "4"]
POLICIES = {
    "mlp_policy": ("mlp", ["--config", "configs/policy/mlp_tiny.yaml"]),
    "flow_policy": ("flow", ["--config", "configs/policy/flow_tiny.yaml", "--model.actor_reference", "null"]),
}
PURPOSES = {
    "NoiseSource.noise": "source noise",
    "sample_tau": "flow matching's times",
    "WorldModelPretraining._regularisation": "SIGReg's directions before they are normalised",
    "PolicyLearning._draw_noise": "actor noise",
    "PolicyLearning._fit_critics": "order of the critics' minibatches",
}


class Recorder(TorchFunctionMode):
    """Keeps what is drawn while it is entered, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[dict[str, object]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.randn, torch.rand, torch.randperm, torch.randn_like, torch.randint, torch.normal):
            purpose = PURPOSES[sys._getframe(1).f_code.co_qualname]
            self.draws.append({"purpose": purpose, "function": func.__name__, "value": result.clone()})
        return result


@contextlib.contextmanager
def recorded_updates(module: type) -> Iterator[dict[str, object]]:
    """Keeps batches, draws and final weights of the updates after the checkpoint."""
    found: dict[str, object] = {"updates": []}
    step, end = module.training_step, module.on_train_end

    def training_step(self, batch, batch_idx):
        update, copy = self.global_step, {key: value.clone() for key, value in batch.items()}
        with Recorder() as recorder:
            step(self, batch, batch_idx)
        if update >= SAVED:
            found["updates"].append({"batch": copy, "draws": recorder.draws})

    def on_train_end(self):
        found["after"] = {key: value.detach().clone() for key, value in self.state_dict().items()}
        end(self)

    module.training_step, module.on_train_end = training_step, on_train_end
    try:
        yield found
    finally:
        module.training_step, module.on_train_end = step, end


def train(name: str, module: type, argv: list[str]) -> dict[str, object]:
    root = Path("runs") / name
    with recorded_updates(module) as found:
        argv = [*argv, *SHORT, "--data.store", "collected.h5", "--trainer.default_root_dir", str(root)]
        assert run(["fit", *argv, "--seed_everything", "3"]) == 0
    (checkpoint,) = root.rglob(f"best-{SAVED}.ckpt")
    shutil.copy(checkpoint, f"{name}.ckpt")
    shutil.copy(checkpoint.parent.parent / "config.yaml", f"{name}.yaml")
    assert len(found["updates"]) == LAST - SAVED
    return found


def computed(function, **inputs: object) -> dict[str, object]:
    with Recorder() as recorder, torch.no_grad():
        results = function(**inputs)
    return {"inputs": inputs, "results": results, "draws": [draw["value"] for draw in recorder.draws]}


def world_model_outputs(world_model) -> dict[str, object]:
    torch.manual_seed(11)
    task = torch.arange(6) % len(world_model.task_names)
    obs = torch.randn(6, world_model.obs_dim)
    actions = torch.rand(4, 6, world_model.action_dim).mul(2).sub(1) * world_model.action_mask()[task]
    z = world_model.encode(obs, task).detach()
    return {
        "encode_logits": computed(world_model.encode_logits, obs=obs, task=task),
        "encode": computed(world_model.encode, obs=obs, task=task),
        "next": computed(world_model.next, z=z, action=actions[0], task=task),
        "reward_logits": computed(world_model.reward_logits, z=z, action=actions[0], task=task),
        "reward": computed(world_model.reward, z=z, action=actions[0], task=task),
        "rollout": computed(world_model.rollout, z=z, actions=actions, task=task),
    }


def actor_outputs(policy) -> dict[str, object]:
    torch.manual_seed(12)
    task = torch.arange(6) % len(policy.task_names)
    z = policy.world_model.encode(torch.randn(6, policy.world_model.obs_dim), task).detach()
    noise = torch.randn(6, policy.world_model.action_dim)
    return {
        "deterministic": computed(policy.actor, z=z, task=task, deterministic=True),
        "sampled": computed(policy.actor, z=z, task=task, noise=noise),
    }


def write_stores() -> None:
    argv = ["collect", "--tasks", ",".join(TASKS), "--episodes", "2", "--workers", "1", "--out", "collected.h5"]
    assert run([*argv, "--seed", "5"]) == 0
    rng = np.random.default_rng(7)
    with EpisodeWriter("made.h5", tasks={"walk": (3, 1), "turn": (5, 2)}) as writer:
        for number, (task, obs_dim, action_dim) in enumerate([("walk", 3, 1), ("turn", 5, 2), ("walk", 3, 1)]):
            length = 20 + number
            writer.append(
                task=task,
                obs=rng.normal(size=(length + 1, obs_dim)),
                action=rng.uniform(-1, 1, (length, action_dim)),
                reward=rng.uniform(0, 1, length),
                terminated=number == 2,
                source=f"source {number}",
            )


def main() -> None:
    torch.set_num_threads(1)
    write_stores()
    for name, argv in WORLD_MODELS.items():
        configs = ["--config", "configs/pretrain.yaml", *argv, *SIZES, *HIDDEN, "--model.lr", "0.01"]
        found = train(name, WorldModelPretraining, configs)
        world_model = load_world_model(f"{name}.ckpt").eval()
        torch.save(found | {"outputs": world_model_outputs(world_model)}, f"{name}.pt")
    for name, (world_model, argv) in POLICIES.items():
        configs = ["--config", "configs/policy_learning.yaml", *argv, *ACTOR, "--model.horizon", "4"]
        configs += ["--model.actor_average_rate", "0.1", "--model.target_rate", "0.5", "--model.critic_passes", "2"]
        configs += ["--model.actor_lr", "0.01", "--model.critic_lr", "0.01"]  # one wrong draw shows in the weights
        found = train(name, PolicyLearning, [*configs, "--model.world_model_checkpoint", f"{world_model}.ckpt"])
        policy = load_policy(f"{name}.ckpt").eval()
        result = evaluate_policy(policy, list(TASKS), episodes=2, seed=0)
        returns = {task: list(result.tasks[task].returns) for task in TASKS}
        outputs = world_model_outputs(policy.world_model) | actor_outputs(policy)
        torch.save(found | {"outputs": outputs, "returns": returns}, f"{name}.pt")
    shutil.copytree("runs/flow_policy", "run", ignore=shutil.ignore_patterns("checkpoints"))
    shutil.rmtree("runs")


if __name__ == "__main__":
    with contextlib.chdir(sys.argv[1]):
        main()
