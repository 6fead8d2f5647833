"""Returns of policies trained in the formulation study's world models.

    python benchmarks/formulation_policies.py                      # controls and finalists, 3 seeds

The finalists are the four flows with the least decoded error at 16 steps among those that were trained with all seeds.
World models are those that `formulation_study.py` left under --runs, trained again where they are gone. A record that
exists is not made again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from formulation_arms import ARMS
from formulation_study import RESULTS, TASKS, collect_data, train
from formulation_table import finalists, read, write_policy_table

from lit_pwm.checkpoints import load_policy
from lit_pwm.evaluation.evaluator import evaluate_task
from lit_pwm.experiments.training import PolicyPlan, train_policy
from lit_pwm.runtime.atomic import replacing

_REPORT_SEED = 20_000


def run_policy(arm: str, task: str, seed: int, updates: int, runs: str, path: Path) -> str:
    """Train a policy, evaluate its best and last checkpoint on seeds that chose nothing, write the record.

    Returns:
        What to tell of it.
    """
    plan = PolicyPlan(updates, evaluate_every=max(1, updates // 6))
    folder = f"{runs}/policies/{arm}_{task}_{seed}"
    trained = train_policy(task, f"{runs}/{arm}_{seed}.ckpt", [f"{runs}/data.h5"], folder, plan, seed)
    record: dict[str, Any] = {"arm": arm, "task": task, "seed": seed, "updates": updates}
    for name, checkpoint in (("best", trained.best), ("last", trained.last)):
        record[name] = list(evaluate_task(load_policy(checkpoint), task, 10, _REPORT_SEED, mode="sync").returns)
    with replacing(path, "The record") as part:
        part.write_text(json.dumps(record, indent=1) + "\n")
    return f"{path.stem}: best {sum(record['best']) / 10:.0f}, last {sum(record['last']) / 10:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--arms", nargs="*", choices=list(ARMS), metavar="ARM", help="controls and finalists if not given"
    )
    parser.add_argument("--tasks", nargs="*", default=TASKS[:3], choices=TASKS, metavar="TASK")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--model-updates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=Path("runs/formulation"))
    options = parser.parse_args()
    folder = options.results / "policies"
    folder.mkdir(parents=True, exist_ok=True)
    arms = options.arms or [name for name, arm in ARMS.items() if arm.control] + finalists(read(options.results))
    wanted = [(arm, task, seed) for seed in range(options.seeds) for task in options.tasks for arm in arms]
    missing = [w for w in wanted if not (folder / "{}_{}_{}.json".format(*w)).exists()]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} are there; training {len(missing)}", flush=True)
    store = collect_data(options.runs, options.workers)
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        models = dict.fromkeys((arm, seed) for arm, _, seed in missing)
        gone = [m for m in models if not (options.runs / "{}_{}.ckpt".format(*m)).exists()]
        for future in [pool.submit(train, *m, options.model_updates, str(store), str(options.runs)) for m in gone]:
            future.result()
        futures = [
            pool.submit(run_policy, *w, options.updates, str(options.runs), folder / "{}_{}_{}.json".format(*w))
            for w in missing
        ]
        try:
            for future in as_completed(futures):
                print(future.result(), flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # or what fails is told only when all others are done
            raise
    write_policy_table(options.results)


if __name__ == "__main__":
    main()
