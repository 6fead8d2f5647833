"""Returns of policies trained on the world models of `stochastic_study.py`, through their reparameterised samples.

    python benchmarks/stochastic_policies.py --out runs/stochastic

One policy for each seed and world model of --models, by default POLICY_MODELS; models are those of the study, trained
if they are not there. Each leaves a record under RESULTS/policies; what exists is not done again. Returns are those of
episodes whose seeds chose nothing, for the checkpoint that validation chose and for the last.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stochastic_study import Study
from stochastic_table import RESULTS, write_policy_table
from study_records import refuse_another, write_record

from lit_pwm.checkpoints import load_policy
from lit_pwm.evaluation.evaluator import evaluate_task
from lit_pwm.experiments.calls import Work, run_study
from lit_pwm.experiments.training import PolicyPlan, be_quiet, train_policy
from lit_pwm.runtime.pool import Call

POLICY_MODELS = (
    "flow-energy-sharp", "one-step-energy", "refinement-energy", "mlp-energy", "refinement", "gaussian", "mlp",
)  # fmt: skip
"""The sampled flow, samplers without an ODE, and models that were trained by other losses."""

_REPORT_SEED = 20_000


def record_of(study: Study, model: str, seed: int) -> Path:
    """Where a policy's record is."""
    return study.results / "policies" / f"{study.task}_{model}_{seed}.json"


def run_policy(study: Study, model: str, seed: int, plan: PolicyPlan, episodes: int = 10) -> str:
    """Train and evaluate one policy and write its record, unless there is one; returns what to tell of it.

    Args:
        study: holds data and world models.
        model: a world model of `MODELS`.
        seed: of the world model and of the policy.
        plan: how the policy is trained.
        episodes: episodes behind each reported return.

    Raises:
        LitPWMError: there is a record, of a policy or a model of other numbers of updates.
    """
    path = record_of(study, model, seed)
    wanted = {"updates": plan.updates, "model_updates": study.updates}
    if path.exists():
        refuse_another(path, "a policy", wanted)
        return "finished before"
    folder = study.out / "policies" / study.task / model / f"seed_{seed}"
    stores = [str(study.store_path)]
    trained = train_policy(study.task, study.checkpoint(model, seed), stores, str(folder), plan, seed)
    record: dict[str, Any] = {"task": study.task, "model": model, "seed": seed, **wanted, "seconds": trained.seconds}
    for name, checkpoint in (("best", trained.best), ("last", trained.last)):
        result = evaluate_task(load_policy(checkpoint), study.task, episodes, _REPORT_SEED)
        record[name] = list(result.returns)
    write_record(path, record | {"curve": trained.curves["eval/return"]})
    return f"best {_mean(record['best'])}, last {_mean(record['last'])}"


def _mean(returns: list[float]) -> str:
    return f"{sum(returns) / len(returns):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="cartpole-swingup-kicked")
    parser.add_argument("--out", type=Path, default=Path("runs/stochastic"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--model-updates", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", help="names with commas between", default=",".join(POLICY_MODELS))
    parser.add_argument("--workers", type=int, default=2, help="policies trained side by side")
    args = parser.parse_args()
    be_quiet()
    study = Study(args.task, args.out, args.model_updates, results=args.results)
    plan = PolicyPlan(args.updates, evaluate_every=max(1, args.updates // 6), episodes=6)
    models = args.models.split(",")
    work: dict[str, Work] = {}
    for seed in range(args.seeds):
        work |= {f"model {model} seed {seed}": study.model_work(model, seed) for model in models}
        for model in models:
            path = record_of(study, model, seed)
            if path.exists():
                run_policy(study, model, seed, plan)  # refuses one of other numbers
            call = Call(f"the policy on {model!r}, seed {seed}", run_policy, (study, model, seed, plan))
            work[f"policy on {model} seed {seed}"] = Work(call, (f"model {model} seed {seed}",), leaves=path)
    outcome = run_study(work, args.workers)
    write_policy_table(args.results)
    if outcome.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
