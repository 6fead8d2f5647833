"""Policies in tasks that end in failure, with the continuation head and with c = 1, on the same world models.

    python benchmarks/termination_data.py --out runs/terminations/stores
    python benchmarks/termination_study.py --stores runs/terminations/stores/*.h5
    python benchmarks/termination_table.py

For each task and seed one world model is pre-trained on the task's store, with the continuation head that data with
terminations bring, and on it one policy by each arm:

- head: γ c_t at each imagined step;
- ignoring: γ at each, as if no episode ever ended.

Each policy leaves a record under RESULTS, each world model its head's scores on held-out episodes under RESULTS/models,
and what knows no model is recorded once under RESULTS/controls. What exists is not done again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from joint_study import all_work
from policy_study import Study, parser_of, seeds_of, study_of
from study_records import write_record
from termination_arms import ARMS, MODEL_OPTIONS, MODELS, TASKS

from datamodules import EpisodeStore
from lit_pwm.checkpoints import load_world_model
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.calls import Work, run_study
from lit_pwm.experiments.held_out_continuation import held_out_continuation
from lit_pwm.runtime.pool import Call

RESULTS = Path(__file__).parent / "results" / "terminations"


def model_record(study: Study, task: str, seed: int) -> Path:
    """Where the scores of a world model's continuation head are."""
    return study.results / "models" / f"{task}_{seed}.json"


def record_head(study: Study, task: str, seed: int) -> str:
    """Measure a pre-trained model's head on held-out episodes and write it; returns what to tell of it."""
    left = json.loads(study.pretrained("model", seed).read_text())
    model = load_world_model(left["checkpoint"])
    found = held_out_continuation(model, study.stores, seed)[task]
    write_record(model_record(study, task, seed), {"task": task, "seed": seed, "updates": left["updates"], **found})
    return f"Brier score {found['brier']:.4f}, of the base rate {found['brier_base_rate']:.4f}"


def work_in(study: Study, task: str, seeds: range) -> dict[str, Work]:
    """All that is to be done in a task."""
    work = all_work(study, [task], list(study.arms), seeds)
    for seed in seeds:
        call = Call(f"the head's scores in {task}, seed {seed}", record_head, (study, task, seed))
        work[f"{task} scores {seed}"] = Work(call, (f"model {seed}",), leaves=model_record(study, task, seed))
    return work


def studies(given: argparse.Namespace) -> dict[str, Study]:
    """Each task's study, on the stores that hold it and in a folder of its own.

    Raises:
        LitPWMError: no store holds it.
    """
    whole, found = (
        study_of(given, {name: ARMS[name] for name in given.arms}, MODELS, evaluations=8, model_options=MODEL_OPTIONS),
        {},
    )
    for task in given.tasks:
        stores = tuple(path for path in whole.stores if task in EpisodeStore(path).tasks)
        if not stores:
            raise LitPWMError(
                f"None of the stores {', '.join(whole.stores)} holds {task!r}. Collect it by "
                f"benchmarks/termination_data.py, or name other --tasks."
            )
        found[task] = replace(whole, stores=stores, runs=whole.runs / task)
    return found


def main() -> None:
    parser = parser_of(__doc__, "runs/terminations", RESULTS, TASKS, ARMS)
    parser.set_defaults(model_updates=3000, updates=600)
    given = parser.parse_args()
    for task, study in studies(given).items():
        if run_study(work_in(study, task, seeds_of(given)), given.workers).failed:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
