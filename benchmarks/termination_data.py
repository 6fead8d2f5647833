"""Collects the stores that the study of terminations trains on: noise, and policies of an earlier round.

    python benchmarks/termination_data.py --out runs/terminations/stores

For each task: episodes of noise; a world model and two policies on them, one by each of the study's arms, with a seed
that the study does not use; episodes of each policy with noise; all merged into OUT/TASK.h5. Same version, same bytes;
the commands that do the same by hand are in docs/terminations.md. What exists is not collected again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from termination_arms import ARMS, MODEL_OPTIONS, MODELS, TASKS

from datamodules import collect
from datamodules.reworking import merge
from lit_pwm.experiments.calls import Work, run_study
from lit_pwm.experiments.training import PolicyPlan, WorldModelPlan, train_policy, train_world_model
from lit_pwm.runtime.pool import Call

SEED = 1000
"""Of noise, world model and policies; those of the study are below it."""
NOISE_EPISODES, POLICY_EPISODES = 1200, 400
MODEL_UPDATES, UPDATES = 1500, 200


def collected(task: str, out: Path) -> str:
    """Collect one task's store; returns what to tell of it."""
    cpu, parts = time.process_time(), out / task
    noise = str(parts / "noise.h5")
    parts.mkdir(parents=True, exist_ok=True)
    collect((task,), NOISE_EPISODES, noise, workers=1, seed=SEED, progress=False)
    plan = WorldModelPlan(MODEL_UPDATES, configs=MODELS["model"], options=MODEL_OPTIONS)
    model = train_world_model([noise], str(parts / "world_model"), plan, SEED, progress=False)
    stores = [noise]
    for number, (name, arm) in enumerate(ARMS.items(), start=1):
        options = PolicyPlan(UPDATES, UPDATES, episodes=1, configs=arm.configs, options=arm.options)
        policy = train_policy(task, model.last, [noise], str(parts / name), options, SEED)
        stores.append(str(parts / f"{name}.h5"))
        collect((task,), POLICY_EPISODES, stores[-1], policy.last, workers=1, seed=SEED + number, progress=False)
    store = merge(stores, out / f"{task}.h5", progress=False)
    return f"{len(store)} episodes, {(time.process_time() - cpu) / 60:.1f} CPU minutes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), metavar="TASK")
    given = parser.parse_args()
    work = {
        task: Work(Call(f"the store of {task}", collected, (task, given.out)), leaves=given.out / f"{task}.h5")
        for task in given.tasks
    }
    if run_study(work, workers=2).failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
