"""The formulation study: which flow, if any, predicts better than its controls, and why.

    python benchmarks/formulation_study.py                     # all arms, 3 seeds: about 90 CPU-minutes
    python benchmarks/formulation_study.py --arms mlp flow     # some of them
    python benchmarks/formulation_study.py --only-table        # the table and figure again, from the committed records
    python benchmarks/formulation_study.py --size 5m --accelerator gpu  # at TD-MPC2's 5 M size, into records of its own

Every arm trains one world model of all tasks with the demo's recipe, on the same data and batches, with the swapped
component's parameters within 2 % of the MLP's. A record that exists is not trained again, so the study can be stopped
and continued. What is scored, on held-out episodes: latent error and reward error after 1, 4 and 16 open-loop steps,
and the error of observations that a linear probe decodes, which is the figure that is fair between encoders.
"""

from __future__ import annotations

import argparse
import bisect
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from formulation_arms import ARMS, Arm
from formulation_table import write_tables
from lightning.pytorch import Trainer, seed_everything
from study_records import write_record
from torch.utils.flop_counter import FlopCounterMode

import callbacks
import datamodules
from lit_pwm import WorldModelPretraining
from lit_pwm.batch import Batch
from lit_pwm.experiments import recipes
from lit_pwm.experiments.calls import Work, run_study
from lit_pwm.experiments.recipes import Recipe
from lit_pwm.experiments.training import be_quiet
from lit_pwm.losses import WorldModelObjective
from lit_pwm.measures.compute import device_name
from lit_pwm.models import MLPDynamics, WorldModel
from lit_pwm.models.noise import seed_noise
from lit_pwm.models.parity import count_parameters, match_parameters
from lit_pwm.models.world_model_options import WorldModelOptions
from lit_pwm.options.objects import group_of
from lit_pwm.runtime.pool import Call
from lit_pwm.updates.checkpoint_io import write_whole_checkpoints

TASKS = ("cartpole-swingup", "cup-catch", "cartpole-balance", "reacher-easy")
RESULTS = Path(__file__).parent / "results" / "formulation"
SIZES = {
    "tiny": (recipes.WORLD_MODEL, {}),
    "5m": ((*recipes.WORLD_MODEL[:2], "configs/world_model/mlp_5m.yaml"), {"data.batch_size": 256}),
}
"""The demo's recipe for each size, and options over it."""
QUIET: dict[str, Any] = {
    "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip
HELD_OUT = {"data.val_fraction": 0.2, "data.val_batches": 40}


@dataclass(frozen=True)
class Size:
    """The parts of everything but the swapped component, the MLP's width that it is matched to, and the batch's."""

    mlp_hidden: int
    batch_size: int
    horizon: int
    world_model: Mapping[str, Any]


def size_of(recipe: Recipe) -> Size:
    """The size of a recipe's world model and batch."""
    parts = recipe.options_of("model")["world_model"]
    hidden = recipe["model.world_model.dynamics.hidden_dim"]
    return Size(hidden, recipe["data.batch_size"], recipe["data.horizon"], parts)


def recipe_of(size: str, options: Mapping[str, Any]) -> Recipe:
    """The recipe of a size with options over it."""
    configs, own = SIZES[size]
    return Recipe(configs, {**own, **HELD_OUT, **options})


def model_of(arm: Arm, hidden: int, size: Size, tasks: dict[str, tuple[int, int]]) -> WorldModel:
    dynamics = partial(arm.dynamics, hidden_dim=hidden)
    return group_of(WorldModelOptions, {**size.world_model, "dynamics": dynamics}, "world_model").build(tasks)


def flops_of(arm: Arm, hidden: int, size: Size, tasks: dict[str, tuple[int, int]]) -> int:
    """FLOPs of one update's loss and gradients."""
    generator = torch.Generator().manual_seed(0)
    obs_dim, action_dim = (max(dims[i] for dims in tasks.values()) for i in (0, 1))
    batch: Batch = {
        "obs": torch.randn(size.horizon + 1, size.batch_size, obs_dim, generator=generator),
        "action": torch.rand(size.horizon, size.batch_size, action_dim, generator=generator),
        "reward": torch.rand(size.horizon, size.batch_size, generator=generator),
        "task": torch.arange(size.batch_size) % len(tasks),
    }
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        WorldModelObjective()(model_of(arm, hidden, size, tasks), batch)["total"].backward()
    return counter.get_total_flops()


def solve_width(arm: Arm, size: Size, tasks: dict[str, tuple[int, int]]) -> int:
    """The width at which the arm has as many parameters as the MLP, or as many FLOPs as the default flow."""
    dims = size.world_model["latent_dim"], max(dims[1] for dims in tasks.values()), size.world_model["task_dim"]
    matched = match_parameters(arm.dynamics, partial(MLPDynamics, hidden_dim=size.mlp_hidden), dims)(*dims)
    if arm.match == "parameters":
        return matched.init_args["hidden_dim"]
    flow = ARMS["flow"]
    target = flops_of(flow, solve_width(flow, size, tasks), size, tasks)
    widths = range(size.mlp_hidden, 2 * size.mlp_hidden, 8)
    above = bisect.bisect_left(widths, target, key=lambda hidden: flops_of(arm, hidden, size, tasks))
    return min(widths[above - 1 : above + 1], key=lambda hidden: abs(flops_of(arm, hidden, size, tasks) - target))


def train(
    name: str, seed: int, updates: int, store: str, folder: str, size_name: str, accelerator: str, result: Path | None
) -> str:
    """Train one arm, score it and write its record if there is a place for it; returns what to tell of it."""
    be_quiet()
    arm, started = ARMS[name], time.perf_counter()
    options = {"data.store": store, "data.seed": seed, "trainer.accelerator": accelerator}
    recipe = recipe_of(size_name, options | {f"model.{option}": value for option, value in arm.options.items()})
    size = size_of(recipe)
    data = datamodules.MultitaskDataModule(**recipe.options_of("data"))
    data.setup("fit")
    tasks = data.tasks
    hidden = solve_width(arm, size, tasks)
    flops, flow = flops_of(arm, hidden, size, tasks), ARMS["flow"]
    if not arm.updates:  # as many FLOPs in all as the default flow
        updates = round(updates * flops_of(flow, solve_width(flow, size, tasks), size, tasks) / flops)
    recipe["data.batches_per_epoch"], recipe["trainer.max_steps"] = updates, updates
    recipe["model.world_model.dynamics"] = partial(arm.dynamics, hidden_dim=hidden)
    recipe["trainer.callbacks"] = None
    seed_everything(seed, verbose=False)
    module, data, trainer = recipe.made([callbacks.NonFiniteGuard()], limit_val_batches=0, **QUIET)
    trainer.fit(module, datamodule=data)
    trained = time.perf_counter() - started
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_whole_checkpoints(trainer)
    trainer.save_checkpoint(checkpoint_of(Path(folder), name, seed))
    if result is None:
        return "trained"
    scorer = Trainer(
        accelerator=accelerator, devices=1, callbacks=[callbacks.DecodedErrors(samples=arm.samples)], **QUIET
    )
    seed_noise(module, seed)
    scores = scorer.validate(module, datamodule=data, verbose=False)[0]
    record = {
        "arm": name,
        "what": arm.what,
        "control": arm.control,
        "seed": seed,
        "updates": updates,
        "hidden_dim": hidden,
        "parameters": count_parameters(cast("WorldModelPretraining", module).world_model.dynamics),
        "flops_per_update": flops,
        "seconds": round(trained, 1),
        "scores": {key.removeprefix("val/"): value for key, value in scores.items()},
        "size": size_name,
        "device": device_name(module.device),
        "torch": torch.__version__,
    }
    write_record(result, record)
    return f"decoded error at 16 steps {record['scores']['decoded_error_16']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", dest="model_updates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", default="tiny", choices=list(SIZES))
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--results", type=Path, help="records, one JSON for each arm and seed")
    parser.add_argument("--runs", type=Path, default=Path("runs/formulation"), help="data and checkpoints")
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    options.results = options.results or (RESULTS if options.size == "tiny" else Path(f"{RESULTS}_{options.size}"))
    options.results.mkdir(parents=True, exist_ok=True)
    failed = False
    if not options.only_table:
        store = collect_data(options.runs, options.workers)
        wanted = [(arm, seed) for seed in range(options.seeds) for arm in options.arms]
        work = {f"{arm} seed {seed}": model_work(arm, seed, store, options) for arm, seed in wanted}
        failed = bool(run_study(work, options.workers).failed)
    write_tables(options.results)
    if failed:
        raise SystemExit(1)


def collect_data(runs: Path, workers: int) -> Path:
    """100 episodes of noise for each task; the store's path."""
    store = runs / "data.h5"
    if not store.exists():
        datamodules.collect(TASKS, 100, store, behaviour="noise", workers=workers, seed=0)
    return store


def model_work(arm: str, seed: int, store: Path, options: argparse.Namespace, record: bool = True) -> Work:
    """An arm's world model as work: with its record, or only for what needs its checkpoint."""
    result = options.results / f"{arm}_{seed}.json" if record else None
    settings = (options.model_updates, str(store), str(options.runs), options.size, options.accelerator, result)
    call = Call(f"the world model of {arm!r}, seed {seed}", train, (arm, seed, *settings))
    return Work(call, leaves=result or checkpoint_of(options.runs, arm, seed), for_others=not record)


def checkpoint_of(runs: Path, arm: str, seed: int) -> Path:
    return runs / f"{arm}_{seed}.ckpt"


if __name__ == "__main__":
    main()
