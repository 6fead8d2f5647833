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
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import torch
from formulation_arms import ARMS, SIZES, Arm, Size
from formulation_table import write_tables
from lightning.pytorch import Trainer, seed_everything
from torch.utils.flop_counter import FlopCounterMode

import callbacks
import datamodules
from lit_pwm import WorldModelPretraining
from lit_pwm.experiments.training import be_quiet
from lit_pwm.losses import world_model_loss
from lit_pwm.measures.compute import device_name
from lit_pwm.models import MLPDynamics, WorldModel
from lit_pwm.models.noise import seed_noise
from lit_pwm.models.parity import count_parameters, match_parameters
from lit_pwm.runtime.atomic import replacing

TASKS = ("cartpole-swingup", "cup-catch", "cartpole-balance", "reacher-easy")
RESULTS = Path(__file__).parent / "results" / "formulation"
HORIZON = 4


def model_of(arm: Arm, hidden: int, size: Size, tasks: dict[str, tuple[int, int]]) -> WorldModel:
    return WorldModel(tasks, partial(arm.dynamics, hidden_dim=hidden), **size.widths)


def flops_of(arm: Arm, hidden: int, size: Size, tasks: dict[str, tuple[int, int]]) -> int:
    """FLOPs of one update's loss and gradients."""
    generator = torch.Generator().manual_seed(0)
    obs_dim, action_dim = (max(dims[i] for dims in tasks.values()) for i in (0, 1))
    batch = {
        "obs": torch.randn(HORIZON + 1, size.batch_size, obs_dim, generator=generator),
        "action": torch.rand(HORIZON, size.batch_size, action_dim, generator=generator),
        "reward": torch.rand(HORIZON, size.batch_size, generator=generator),
        "task": torch.arange(size.batch_size) % len(tasks),
    }
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter:
        world_model_loss(model_of(arm, hidden, size, tasks), batch).total.backward()
    return counter.get_total_flops()


def solve_width(arm: Arm, size: Size, tasks: dict[str, tuple[int, int]]) -> int:
    """The width at which the arm has as many parameters as the MLP, or as many FLOPs as the default flow."""
    dims = size.widths["latent_dim"], max(dims[1] for dims in tasks.values()), size.widths["task_dim"]
    matched = match_parameters(arm.dynamics, partial(MLPDynamics, hidden_dim=size.mlp_hidden), dims)(*dims)
    if arm.match == "parameters":
        return matched.init_args["hidden_dim"]
    flow = ARMS["flow"]
    target = flops_of(flow, solve_width(flow, size, tasks), size, tasks)
    widths = range(size.mlp_hidden, 2 * size.mlp_hidden, 8)
    above = bisect.bisect_left(widths, target, key=lambda hidden: flops_of(arm, hidden, size, tasks))
    return min(widths[above - 1 : above + 1], key=lambda hidden: abs(flops_of(arm, hidden, size, tasks) - target))


def train(
    name: str, seed: int, updates: int, store: str, folder: str, size_name: str = "tiny", accelerator: str = "cpu"
) -> dict[str, Any]:
    """Train and score one arm; returns its record."""
    be_quiet()
    arm, size, started = ARMS[name], SIZES[size_name], time.perf_counter()
    data = datamodules.MultitaskDataModule(
        store=store, horizon=HORIZON, val_horizon=16, batch_size=size.batch_size, val_fraction=0.2, seed=seed,
        val_batches=40,
    )  # fmt: skip
    data.setup("fit")
    tasks = data.tasks
    hidden = solve_width(arm, size, tasks)
    flops, flow = flops_of(arm, hidden, size, tasks), ARMS["flow"]
    if not arm.updates:  # as many FLOPs in all as the default flow
        updates = round(updates * flops_of(flow, solve_width(flow, size, tasks), size, tasks) / flops)
    seed_everything(seed, verbose=False)
    module = WorldModelPretraining(
        dynamics=partial(arm.dynamics, hidden_dim=hidden),
        **size.widths,
        lr=1e-3,
        encoder_lr_scale=1.0,
        betas=(0.9, 0.99),
        rho=0.9,
        warmup_steps=200,
        final_lr_fraction=0.05,
        **arm.options,
    )
    data = datamodules.MultitaskDataModule(
        store=store, horizon=HORIZON, val_horizon=16, batch_size=size.batch_size, batches_per_epoch=updates,
        val_fraction=0.2, seed=seed, val_batches=40,
    )  # fmt: skip
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=updates,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callbacks.NonFiniteGuard()],
    )
    trainer.fit(module, datamodule=data)
    trained = time.perf_counter() - started
    Path(folder).mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(Path(folder) / f"{name}_{seed}.ckpt")
    scorer = Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callbacks.DecodedErrors(samples=arm.samples)],
    )
    seed_noise(module, seed)
    scores = scorer.validate(module, datamodule=data, verbose=False)[0]
    return {
        "arm": name,
        "what": arm.what,
        "control": arm.control,
        "seed": seed,
        "updates": updates,
        "hidden_dim": hidden,
        "parameters": count_parameters(module.world_model.dynamics),
        "flops_per_update": flops,
        "seconds": round(trained, 1),
        "scores": {key.removeprefix("val/"): value for key, value in scores.items()},
        "size": size_name,
        "device": device_name(module.device),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", default="tiny", choices=list(SIZES))
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--results", type=Path, help="records, one JSON for each arm and seed")
    parser.add_argument("--runs", type=Path, default=Path("runs/formulation"), help="data and checkpoints")
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    options.results = options.results or (RESULTS if options.size == "tiny" else Path(f"{RESULTS}_{options.size}"))
    options.results.mkdir(parents=True, exist_ok=True)
    if not options.only_table:
        run_missing(options)
    write_tables(options.results)


def collect_data(runs: Path, workers: int) -> Path:
    """100 episodes of noise for each task; the store's path."""
    store = runs / "data.h5"
    if not store.exists():
        datamodules.collect(TASKS, 100, store, behaviour="noise", workers=workers, seed=0)
    return store


def run_missing(options: argparse.Namespace) -> None:
    store = collect_data(options.runs, options.workers)
    wanted = [(arm, seed) for seed in range(options.seeds) for arm in options.arms]
    missing = [(arm, seed) for arm, seed in wanted if not (options.results / f"{arm}_{seed}.json").exists()]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} are there; training {len(missing)}", flush=True)
    context, started = multiprocessing.get_context("spawn"), time.time()
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        futures = {
            pool.submit(
                train, arm, seed, options.updates, str(store), str(options.runs), options.size, options.accelerator
            ): (arm, seed)
            for arm, seed in missing
        }
        for done, future in enumerate(as_completed(futures), start=1):
            arm, seed = futures[future]
            try:
                record = future.result()
            except Exception as error:  # one that fails does not stop the rest
                print(f"{arm} seed {seed} failed: {type(error).__name__}: {error}", flush=True)
                continue
            with replacing(options.results / f"{arm}_{seed}.json", "The record") as path:
                path.write_text(json.dumps(record, indent=1) + "\n")
            rest = (time.time() - started) / done * (len(missing) - done) / 60
            error = record["scores"]["decoded_error_16"]
            print(f"{arm} seed {seed}: decoded error at 16 steps {error:.3f}; {rest:.0f} minutes remain", flush=True)


if __name__ == "__main__":
    main()
