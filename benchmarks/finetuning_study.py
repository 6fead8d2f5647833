"""Policies on a world model that is frozen, fine-tuned, fine-tuned by a broken reward loss, or trained from scratch.

    lit-pwm demo --out demo
    python benchmarks/finetuning_study.py --stores demo/runs/demo-seed0/*.h5
    python benchmarks/finetuning_table.py

For each seed one world model is pre-trained on the stores, and for each task one policy is trained by each arm:

- frozen: on the pre-trained model as it is;
- tuned: the model is trained further in each update, by the objective that it was pre-trained by;
- broken: by the same with only the reward's term replaced (`benchmarks.broken_reward`);
- scratch: the model starts from fresh weights and is trained with the policy, for --scratch-updates.

Each leaves a record under RESULTS with returns on seeds that chose nothing, and with the model's errors on held-out
slices before and after; what exists is not done again. Its CPU seconds are in the record.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # the broken objective is named as one of `benchmarks`

from finetuning_measures import measures_of
from study_records import refuse_another, write_record

from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.evaluation.evaluator import evaluate_task
from lit_pwm.experiments.calls import Work, run_study
from lit_pwm.experiments.recipes import DEMO_POLICY, WORLD_MODEL
from lit_pwm.experiments.training import PolicyPlan, WorldModelPlan, train_policy, train_world_model
from lit_pwm.runtime.pool import Call

RESULTS = Path(__file__).parent / "results" / "finetuning"
TASKS = ("cartpole-swingup", "cup-catch", "cartpole-balance")
_ACTOR, _DEMO = "configs/policy/mlp_tiny.yaml", "configs/demo/policy.yaml"
_SCHEDULE = {"class_path": "callbacks.FinetuneSchedule"}
_TUNED = ("configs/finetune.yaml", _ACTOR, "configs/finetune_tiny.yaml", _DEMO)
_BROKEN = {"class_path": "benchmarks.broken_reward.BroadcastRewardObjective", "init_args": {"rho": 0.9}}
_JOINT = ("configs/joint.yaml", "configs/world_model/mlp_tiny.yaml", _ACTOR, "configs/joint_tiny.yaml", _DEMO)
_REPORT_SEED = 20_000


@dataclass(frozen=True)
class Arm:
    """How the world model of a policy is come by.

    Attributes:
        configs: of the policy's run.
        options: over them.
        starts_fresh: whether there is no pre-trained model.
    """

    configs: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    starts_fresh: bool = False


_LEDGER = {"class_path": "callbacks.ComputeLedger"}
_CALLBACKS = {"trainer.callbacks+": [_SCHEDULE, _LEDGER]}
_TUNING = _CALLBACKS | {"data.second.batch_size": 256}
ARMS = {
    "frozen": Arm(DEMO_POLICY, {"trainer.callbacks+": [_LEDGER]}),
    "tuned": Arm(_TUNED, _TUNING),
    "broken": Arm(_TUNED, _TUNING | {"model.objective": _BROKEN}),
    "scratch": Arm(_JOINT, _CALLBACKS, starts_fresh=True),
}


@dataclass(frozen=True)
class Study:
    """Where the study lies, and its numbers.

    Attributes:
        stores: paths of the stores.
        runs: where runs go.
        results: where records go.
        model_updates: of pre-training.
        updates: of a policy.
        scratch_updates: of a policy whose model is trained from scratch.
        episodes: behind each reported return.
    """

    stores: tuple[str, ...]
    runs: Path
    results: Path = RESULTS
    model_updates: int = 2000
    updates: int = 400
    scratch_updates: int = 2400
    episodes: int = 20

    def model(self, seed: int) -> Path:
        """The pre-trained model of a seed."""
        return self.runs / f"model_{seed}" / "checkpoints" / "last.ckpt"

    def record(self, arm: str, task: str, seed: int) -> Path:
        """Where the record of a policy is."""
        return self.results / f"{task}_{arm}_{seed}.json"

    def numbers(self, arm: str) -> dict[str, int]:
        """What records of this study's numbers say."""
        updates = self.scratch_updates if ARMS[arm].starts_fresh else self.updates
        return {"updates": updates, "model_updates": 0 if ARMS[arm].starts_fresh else self.model_updates}


def pretrain(study: Study, seed: int) -> str:
    """Train a seed's world model; returns what to tell of it."""
    plan = WorldModelPlan(study.model_updates, configs=WORLD_MODEL)
    trained = train_world_model(study.stores, str(study.runs / f"model_{seed}"), plan, seed, progress=False)
    return f"validation loss {trained.score:.3f}"


def run_arm(study: Study, arm: str, task: str, seed: int) -> str:
    """Train and evaluate one policy and write its record, unless there is one; returns what to tell of it.

    Raises:
        LitPWMError: there is a record, of other numbers of updates.
    """
    path, kind, wanted = study.record(arm, task, seed), ARMS[arm], study.numbers(arm)
    if path.exists():
        refuse_another(path, "a policy", wanted)
        return "finished before"
    started, cpu = time.perf_counter(), time.process_time()
    model = None if kind.starts_fresh else str(study.model(seed))
    folder = study.runs / f"{task}_{arm}_{seed}"
    plan = PolicyPlan(
        wanted["updates"], max(1, wanted["updates"] // 8), episodes=6, configs=kind.configs, options=kind.options
    )
    trained = train_policy(task, model, study.stores, str(folder), plan, seed)
    record: dict[str, Any] = {"task": task, "arm": arm, "seed": seed, **wanted}
    for name, checkpoint in (("best", trained.best), ("last", trained.last)):
        record[name] = list(evaluate_task(load_policy(checkpoint), task, study.episodes, _REPORT_SEED).returns)
    record["after"] = measures_of(load_world_model(trained.last), study.stores, task, seed)
    record["before"] = None if model is None else measures_of(load_world_model(model), study.stores, task, seed)
    record["curves"] = {key: trained.curves.get(key, []) for key in ("eval/return", "compute/flops")}
    record["flops"] = flops_in(folder) + (0.0 if model is None else flops_in(study.model(seed).parents[1]))
    record |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    write_record(path, record)
    return f"last {sum(record['last']) / len(record['last']):.0f}"


def flops_in(folder: Path) -> float:
    """What a run has cost, by its record."""
    return float(json.loads((folder / "compute.json").read_text())["flops"])


def work_of(study: Study, tasks: list[str], arms: list[str], seeds: int) -> dict[str, Work]:
    """All that is to be done."""
    work: dict[str, Work] = {}
    for seed in range(seeds):
        model = f"model of seed {seed}"
        call = Call(f"the {model}", pretrain, (study, seed))
        work[model] = Work(call, leaves=study.model(seed), for_others=True)
        for task in tasks:
            for arm in arms:
                call = Call(f"the {arm} policy in {task}, seed {seed}", run_arm, (study, arm, task, seed))
                needs = () if ARMS[arm].starts_fresh else (model,)
                work[f"{task} {arm} {seed}"] = Work(call, needs, leaves=study.record(arm, task, seed))
    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", required=True, help="episode stores of the tasks")
    parser.add_argument("--runs", type=Path, default=Path("runs/finetuning"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), metavar="TASK")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--model-updates", type=int, default=2000)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--scratch-updates", type=int, default=2400)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    study = Study(
        tuple(given.stores), given.runs, given.results, given.model_updates, given.updates, given.scratch_updates,
        given.episodes,
    )  # fmt: skip
    if run_study(work_of(study, given.tasks, given.arms, given.seeds), given.workers).failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
