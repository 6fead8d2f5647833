"""Studies of policies that differ in how their world models are come by: what `finetuning_study` and `joint_study` run.

For each seed each pre-trained model that an arm names is trained once on the stores, and for each task one policy is
trained by each arm. Each policy leaves a record; what exists is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # the broken objective is named as one of `benchmarks`

import numpy as np
from finetuning_measures import measures_of
from study_records import refuse_another, write_record

from lit_pwm.checkpoints import load_policy, load_world_model
from lit_pwm.evaluation.evaluator import evaluate_task
from lit_pwm.experiments.calls import Work
from lit_pwm.experiments.training import PolicyPlan, Trained, WorldModelPlan, train_policy, train_world_model
from lit_pwm.runtime.pool import Call

REPORT_SEED = 20_000
"""The first environment seed of reported returns, far from those that choose the best checkpoint."""


@dataclass(frozen=True)
class Arm:
    """How the world model of a policy is come by.

    Attributes:
        configs: of the policy's run.
        options: over them.
        model: the pre-trained model's name in the study; None if the model starts from fresh weights.
    """

    configs: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    model: str | None = "model"


@dataclass(frozen=True)
class Study:
    """What a study compares, where it lies, and its numbers.

    Attributes:
        arms: name → how the policy is trained.
        models: name → configs of a pre-training.
        stores: paths of the stores.
        runs: where runs go.
        results: where records go.
        model_updates: of pre-training.
        updates: of a policy.
        scratch_updates: of a policy whose model is trained from scratch.
        episodes: behind each reported return.
        evaluations: of a policy while it trains: points of its learning curve, of which the best is chosen.
        model_options: of the command line, over the models' configs.
        longer: names of `models` that are pre-trained for `updates` more, so many as a fine-tuned model has in all.
    """

    arms: Mapping[str, Arm]
    models: Mapping[str, tuple[str, ...]]
    stores: tuple[str, ...]
    runs: Path
    results: Path
    model_updates: int = 2000
    updates: int = 400
    scratch_updates: int = 2000
    episodes: int = 20
    evaluations: int = 8
    model_options: Mapping[str, Any] = field(default_factory=dict)
    longer: tuple[str, ...] = ()

    def model(self, name: str, seed: int) -> Path:
        """Where the run of a pre-trained model of a seed is."""
        return self.runs / f"{name}_{seed}"

    def pretrained(self, name: str, seed: int) -> Path:
        """What a pre-training leaves once it is finished."""
        return self.model(name, seed) / "pretrained.json"

    def record(self, arm: str, task: str, seed: int) -> Path:
        """Where the record of a policy is."""
        return self.results / f"{task}_{arm}_{seed}.json"

    def numbers(self, arm: str) -> dict[str, int]:
        """What records of this study's numbers say."""
        name = self.arms[arm].model
        updates = self.scratch_updates if name is None else self.updates
        return {"updates": updates, "model_updates": 0 if name is None else self.updates_of(name)}

    def updates_of(self, model: str) -> int:
        """Of a pre-training."""
        return self.model_updates + (self.updates if model in self.longer else 0)


def pretrain(study: Study, name: str, seed: int) -> str:
    """Train a seed's world model; returns what to tell of it."""
    cpu, folder = time.process_time(), study.model(name, seed)
    updates = study.updates_of(name)
    plan = WorldModelPlan(updates, configs=study.models[name], options=study.model_options)
    trained = train_world_model(study.stores, str(folder), plan, seed, progress=False)
    cost = {"flops": flops_in(folder), "cpu_seconds": time.process_time() - cpu}
    write_record(study.pretrained(name, seed), {"updates": updates, "checkpoint": trained.last} | cost)
    return f"validation loss {trained.score:.3f}"


def run_arm(study: Study, arm: str, task: str, seed: int) -> str:
    """Train and evaluate one policy and write its record, unless there is one; returns what to tell of it.

    The record's `flops` and `cpu_seconds` are the policy's run with all that is trained in it, and its evaluations;
    FLOPs include the pre-training, which `pretraining` has by itself.

    Raises:
        LitPWMError: there is a record, of other numbers of updates, or the pre-trained model is of another number.
    """
    path, kind, wanted = study.record(arm, task, seed), study.arms[arm], study.numbers(arm)
    if path.exists():
        refuse_another(path, "a policy", wanted)
        return "finished before"
    started, cpu = time.perf_counter(), time.process_time()
    pretraining, model = None, None
    if kind.model is not None:
        left = study.pretrained(kind.model, seed)
        refuse_another(left, "a pre-training", {"updates": study.updates_of(kind.model)})
        pretraining = json.loads(left.read_text())
        model = pretraining.pop("checkpoint")
    folder = study.runs / f"{task}_{arm}_{seed}"
    every = max(1, wanted["updates"] // study.evaluations)
    plan = PolicyPlan(wanted["updates"], every, episodes=6, configs=kind.configs, options=kind.options)
    trained = train_policy(task, model, study.stores, str(folder), plan, seed)
    record: dict[str, Any] = {"task": task, "arm": arm, "seed": seed, **wanted}
    for name, checkpoint in (("best", trained.best), ("last", trained.last)):
        record[name] = list(evaluate_task(load_policy(checkpoint), task, study.episodes, REPORT_SEED).returns)
    record["after"] = measures_of(load_world_model(trained.last), study.stores, task, seed)
    record["before"] = None if model is None else measures_of(load_world_model(model), study.stores, task, seed)
    own = flops_in(folder)
    record["learning"] = learning_curve(trained, wanted["updates"], own)
    record["pretraining"] = pretraining
    record["flops"] = own + (0.0 if pretraining is None else pretraining["flops"])
    record |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    write_record(path, record)
    return f"last {sum(record['last']) / len(record['last']):.0f}"


def learning_curve(trained: Trained, updates: int, flops: float) -> dict[str, list[float]]:
    """Mean returns of the evaluations while a policy trained, with the updates and the FLOPs that they had cost.

    Args:
        trained: the run.
        updates: of the run.
        flops: of the run; those of an evaluation between two logged rows are interpolated, as all updates cost the same
            but for the first.
    """
    steps, returns = zip(*trained.curves["eval/return"], strict=True)
    logged = np.array([(-1, 0.0), *trained.curves["compute/flops"], (updates - 1, flops)])
    spent = np.interp(steps, logged[:, 0], logged[:, 1])
    done = [float(step + 1) for step in steps]  # rows count the updates before theirs
    return {"updates": done, "flops": spent.tolist(), "returns": list(returns)}


def flops_in(folder: Path) -> float:
    """What a run has cost, by its record."""
    return float(json.loads((folder / "compute.json").read_text())["flops"])


def work_of(study: Study, tasks: Sequence[str], arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Work]:
    """All that is to be done."""
    work: dict[str, Work] = {}
    for seed in seeds:
        for name in {study.arms[arm].model: None for arm in arms}:
            if name is not None:
                call = Call(f"the {name} of seed {seed}", pretrain, (study, name, seed))
                work[f"{name} {seed}"] = Work(call, leaves=study.pretrained(name, seed), for_others=True)
        for task in tasks:
            for arm in arms:
                name = study.arms[arm].model
                call = Call(f"the {arm} policy in {task}, seed {seed}", run_arm, (study, arm, task, seed))
                needs = () if name is None else (f"{name} {seed}",)
                work[f"{task} {arm} {seed}"] = Work(call, needs, leaves=study.record(arm, task, seed))
    return work


def parser_of(
    description: str | None, runs: str, results: Path, tasks: Sequence[str], arms: Mapping[str, Arm]
) -> argparse.ArgumentParser:
    """The options that studies share, with a study's defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", nargs="+", required=True, help="episode stores of the tasks")
    parser.add_argument("--runs", type=Path, default=Path(runs))
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--tasks", nargs="*", default=list(tasks), metavar="TASK")
    parser.add_argument("--arms", nargs="*", default=list(arms), choices=list(arms), metavar="ARM")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="another than 0, and other --results, for trials")
    parser.add_argument("--model-updates", type=int, default=2000)
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--scratch-updates", type=int, default=2000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    return parser


def study_of(
    given: argparse.Namespace, arms: Mapping[str, Arm], models: Mapping[str, tuple[str, ...]], **others: Any
) -> Study:
    """The study that the options of `parser_of` ask for; what these leave out is in `others`."""
    return Study(
        arms, models, tuple(given.stores), given.runs, given.results, given.model_updates, given.updates,
        given.scratch_updates, given.episodes, **others,
    )  # fmt: skip


def seeds_of(given: argparse.Namespace) -> range:
    """The seeds that the options of `parser_of` ask for."""
    return range(given.first_seed, given.first_seed + given.seeds)
