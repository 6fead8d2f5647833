"""Returns of policies trained in the formulation study's world models.

    python benchmarks/formulation_policies.py                      # controls and finalists, 3 seeds

The finalists are the four flows with the least decoded error at 16 steps among those that were trained with all seeds.
World models are those that `formulation_study.py` left under --runs, trained again where they are gone. A record that
exists is not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from formulation_arms import ARMS
from formulation_study import RESULTS, TASKS, checkpoint_of, collect_data, model_work
from formulation_table import finalists, read, write_policy_table
from study_records import write_record

from lit_pwm.checkpoints import load_policy
from lit_pwm.evaluation.evaluator import evaluate_task
from lit_pwm.experiments.calls import Work, run_study
from lit_pwm.experiments.training import PolicyPlan, train_policy
from lit_pwm.runtime.pool import Call

_REPORT_SEED = 20_000


def run_policy(arm: str, task: str, seed: int, updates: int, runs: str, path: Path) -> str:
    """Train a policy, evaluate its best and last checkpoint on seeds that chose nothing, write the record.

    Returns:
        What to tell of it.
    """
    plan = PolicyPlan(updates, evaluate_every=max(1, updates // 6))
    folder = f"{runs}/policies/{arm}_{task}_{seed}"
    trained = train_policy(task, str(checkpoint_of(Path(runs), arm, seed)), [f"{runs}/data.h5"], folder, plan, seed)
    record: dict[str, Any] = {"arm": arm, "task": task, "seed": seed, "updates": updates}
    for name, checkpoint in (("best", trained.best), ("last", trained.last)):
        record[name] = list(evaluate_task(load_policy(checkpoint), task, 10, _REPORT_SEED, mode="sync").returns)
    write_record(path, record)
    return f"best {sum(record['best']) / 10:.0f}, last {sum(record['last']) / 10:.0f}"


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
    parser.set_defaults(size="tiny", accelerator="cpu")
    options = parser.parse_args()
    folder = options.results / "policies"
    folder.mkdir(parents=True, exist_ok=True)
    arms = options.arms or [name for name, arm in ARMS.items() if arm.control] + finalists(read(options.results))
    store = collect_data(options.runs, options.workers)
    work: dict[str, Work] = {}
    for seed in range(options.seeds):
        for arm in arms:
            work[f"model of {arm} seed {seed}"] = model_work(arm, seed, store, options, record=False)
        for task in options.tasks:
            for arm in arms:
                path = folder / f"{arm}_{task}_{seed}.json"
                given = (arm, task, seed, options.updates, str(options.runs), path)
                call = Call(f"the policy of {arm!r} in {task}, seed {seed}", run_policy, given)
                work[path.stem] = Work(call, needs=(f"model of {arm} seed {seed}",), leaves=path)
    outcome = run_study(work, options.workers)
    write_policy_table(options.results)
    if outcome.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
