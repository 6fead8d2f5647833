"""Joint training from scratch beside policies on frozen, pre-trained world models, with MLP and with flow dynamics.

    lit-pwm demo --out demo
    python benchmarks/joint_study.py --stores demo/runs/demo-seed0/*.h5
    python benchmarks/joint_table.py

For each seed:

- frozen-mlp, frozen-flow: a world model is pre-trained for --model-updates, and a policy on it for --updates;
- joint-mlp, joint-flow: model and policy start from fresh weights and are trained together for --scratch-updates.

Each policy leaves a record under RESULTS with its learning curve against updates and FLOPs, returns on seeds that chose
nothing, FLOPs and CPU seconds; the pre-training's are in it by themselves. What knows no model is recorded once under
RESULTS/controls (`constant_actions`). What exists is not done again.
"""

from __future__ import annotations

from pathlib import Path

from constant_actions import record_controls
from policy_study import Arm, Study, parser_of, seeds_of, study_of, work_of

from lit_pwm.experiments.calls import Work, run_study
from lit_pwm.experiments.recipes import DEMO_POLICY, WORLD_MODEL
from lit_pwm.runtime.pool import Call

RESULTS = Path(__file__).parent / "results" / "joint"
TASKS = ("cartpole-swingup",)
_LEDGER = {"class_path": "callbacks.ComputeLedger"}
_FROZEN = {"trainer.callbacks+": [_LEDGER]}
_OPEN = {"trainer.callbacks+": [{"class_path": "callbacks.FinetuneSchedule"}, _LEDGER]}
_SIZES = {kind: f"configs/world_model/{kind}_tiny.yaml" for kind in ("mlp", "flow")}
MODELS = {f"{kind}-model": (*WORLD_MODEL[:2], size) for kind, size in _SIZES.items()}


def _joint(kind: str) -> tuple[str, ...]:
    policy = ("configs/policy/mlp_tiny.yaml", "configs/joint_tiny.yaml", "configs/demo/policy.yaml")
    return ("configs/joint.yaml", _SIZES[kind], *policy)


ARMS = {f"frozen-{kind}": Arm(DEMO_POLICY, _FROZEN, f"{kind}-model") for kind in _SIZES}
ARMS |= {f"joint-{kind}": Arm(_joint(kind), _OPEN, model=None) for kind in _SIZES}


def controls(study: Study, task: str) -> Path:
    """Where the record of a task's controls is."""
    return study.results / "controls" / f"{task}.json"


def all_work(study: Study, tasks: list[str], arms: list[str], seeds: range) -> dict[str, Work]:
    """All that is to be done."""
    work = work_of(study, tasks, arms, seeds)
    for task in tasks:
        path = controls(study, task)
        call = Call(f"the controls in {task}", record_controls, (path, study.stores, task, study.episodes))
        work[f"{task} controls"] = Work(call, leaves=path)
    return work


def main() -> None:
    given = parser_of(__doc__, "runs/joint", RESULTS, TASKS, ARMS).parse_args()
    study = study_of(given, ARMS, MODELS, evaluations=10)
    if run_study(all_work(study, given.tasks, given.arms, seeds_of(given)), given.workers).failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
