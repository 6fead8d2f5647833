"""One policy for the demo's three tasks: returns divided by one deviation of all tasks, or by that of each task.

    lit-pwm demo --out demo                                               # three times, or its seeds
    python benchmarks/multitask_returns.py demo/runs/demo-seed0 demo/runs/demo-seed1 demo/runs/demo-seed2

Each folder's last world model is kept frozen, and both kinds are trained on it and on its stores with the same seed, as
often and on batches as large as the demo's own policies of a single task: the comparison is paired by world model. What
is reported is the return of the averaged actor after the last update. About five minutes on an idle core. The committed
numbers were made by e233b80.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from lit_pwm import load_policy
from lit_pwm.evaluation.evaluator import evaluate_policy
from lit_pwm.experiments.demo.demo_plan import DemoPlan
from lit_pwm.experiments.training import PolicyPlan, train_policy
from lit_pwm.measures.statistics import t_interval

RESULT = Path(__file__).parent / "results" / "multitask_returns.json"
KINDS = ("shared", "task")
EPISODES, EVALUATION_SEED = 10, 0


def train(demo: Path, kind: str, seed: int, updates: int, folder: str) -> dict[str, object]:
    """Train one policy for all tasks; what it earns, by task, and how far apart the tasks' returns are."""
    tasks = DemoPlan().tasks
    part = {"class_path": "lit_pwm.models.MLPActor", "init_args": {"hidden_dims": [128, 128], "task_dim": 16}}
    critic = {"class_path": "lit_pwm.models.CriticEnsemble", "init_args": part["init_args"]}
    options = {"data.tasks": list(tasks), "model.returns.scale": kind, "model.actor": part, "model.critic": critic}
    world_model = max(demo.glob("round_*/world_model/checkpoints/last.ckpt"))
    started, stores = time.perf_counter(), sorted(map(str, demo.glob("*.h5")))
    plan = PolicyPlan(updates, updates, episodes=1, options=options)
    trained = train_policy(tasks[0], str(world_model), stores, folder, plan, seed)
    policy = load_policy(trained.last)
    result = evaluate_policy(policy, list(tasks), episodes=EPISODES, seed=EVALUATION_SEED)
    return {
        "demo": demo.name,
        "return_scale": kind,
        "seed": seed,
        "returns": {task: result.tasks[task].mean for task in tasks},
        "seconds": time.perf_counter() - started,
    }


def contrast(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean difference task − shared over demos with its 95 % t interval, of each task and of their mean."""
    tasks, demos = list(rows[0]["returns"]), sorted({row["demo"] for row in rows})
    by_place = {(row["demo"], row["return_scale"]): row["returns"] for row in rows}
    result = {}
    for name in (*tasks, "mean"):
        chosen = tasks if name == "mean" else [name]
        means = {kind: [statistics.mean(by_place[demo, kind][t] for t in chosen) for demo in demos] for kind in KINDS}
        gaps = [a - b for a, b in zip(means["task"], means["shared"], strict=True)]
        interval = t_interval(gaps)
        result[name] = {kind: statistics.mean(values) for kind, values in means.items()} | {
            "difference": statistics.mean(gaps),
            "half_width": None if interval is None else (interval.high - interval.low) / 2,
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", nargs="+", type=Path, help="folders of finished demo runs")
    parser.add_argument("--updates", type=int, default=DemoPlan().rounds[-1].policy_updates)
    arguments = parser.parse_args()
    rows = []
    for seed, demo in enumerate(arguments.demos):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(train(demo, kind, seed, arguments.updates, folder))
            print(json.dumps(rows[-1]), flush=True)
    found = {"updates": arguments.updates, "episodes": EPISODES, "runs": rows, "contrast": contrast(rows)}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["contrast"], indent=1))


if __name__ == "__main__":
    main()
