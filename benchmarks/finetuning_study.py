"""Policies on a world model that is frozen, fine-tuned, fine-tuned by a broken reward loss, or trained from scratch.

    lit-pwm demo --out demo
    python benchmarks/finetuning_study.py --stores demo/runs/demo-seed0/*.h5
    python benchmarks/finetuning_table.py

For each seed one world model is pre-trained on the stores, and for each task one policy is trained by each arm:

- frozen: on the pre-trained model as it is;
- longer: on one that was pre-trained for as many more updates as a policy takes, and then frozen: what a tuned one has
  seen, without the policy beside it;
- tuned: the model is trained further in each update, by the objective that it was pre-trained by;
- broken: by the same with only the reward's term replaced (`benchmarks.broken_reward`);
- scratch: the model starts from fresh weights and is trained with the policy, for --scratch-updates.

Each leaves a record under RESULTS with returns on seeds that chose nothing, and with the model's errors on held-out
slices before and after; what exists is not done again. Its CPU seconds are in the record.
"""

from __future__ import annotations

from pathlib import Path

from policy_study import Arm, parser_of, seeds_of, study_of, work_of

from lit_pwm.experiments.calls import run_study
from lit_pwm.experiments.recipes import DEMO_POLICY, WORLD_MODEL

RESULTS = Path(__file__).parent / "results" / "finetuning"
TASKS = ("cartpole-swingup", "cup-catch", "cartpole-balance")
MODELS = {"model": WORLD_MODEL, "longer-model": WORLD_MODEL}
_ACTOR, _DEMO = "configs/policy/mlp_tiny.yaml", "configs/demo/policy.yaml"
_TUNED = ("configs/finetune.yaml", _ACTOR, "configs/finetune_tiny.yaml", _DEMO)
_BROKEN = {"class_path": "benchmarks.broken_reward.BroadcastRewardObjective", "init_args": {"rho": 0.9}}
_JOINT = ("configs/joint.yaml", "configs/world_model/mlp_tiny.yaml", _ACTOR, "configs/joint_tiny.yaml", _DEMO)
_LEDGER = {"class_path": "callbacks.ComputeLedger"}
_CALLBACKS = {"trainer.callbacks+": [{"class_path": "callbacks.FinetuneSchedule"}, _LEDGER]}
_TUNING = _CALLBACKS | {"data.second.batch_size": 256}
ARMS = {
    "frozen": Arm(DEMO_POLICY, {"trainer.callbacks+": [_LEDGER]}),
    "longer": Arm(DEMO_POLICY, {"trainer.callbacks+": [_LEDGER]}, "longer-model"),
    "tuned": Arm(_TUNED, _TUNING),
    "broken": Arm(_TUNED, _TUNING | {"model.objective": _BROKEN}),
    "scratch": Arm(_JOINT, _CALLBACKS, model=None),
}


def main() -> None:
    given = parser_of(__doc__, "runs/finetuning", RESULTS, TASKS, ARMS).parse_args()
    study = study_of(given, ARMS, MODELS, longer=("longer-model",))
    if run_study(work_of(study, given.tasks, given.arms, seeds_of(given)), given.workers).failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
