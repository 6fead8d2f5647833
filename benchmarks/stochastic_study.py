"""Which world model predicts stochastic dynamics as a distribution, not only in the mean?

    python benchmarks/stochastic_study.py --out runs/stochastic
    python benchmarks/stochastic_study.py --workers 16                     # as many processes, a model each at a time
    python benchmarks/stochastic_study.py --accelerator gpu --workers 8    # models trained on a GPU, eight at a time

Collects 80 training episodes of noise and rolls 20 held-out ones with futures, trains each world model of
`stochastic_arms.MODELS` for each seed, draws samples of 1 to 16 open-loop steps, and scores them against the simulator.
Observations are read out of latents by a linear probe, because encoders differ, and standardised by the training
episodes. Each arm and seed leaves a small record under RESULTS/records as soon as its model is trained; what exists is
not done again. Ends with a table and a figure of all records, which go to docs/ if RESULTS is the committed folder;
--only-table makes them from the records alone.

The forms of the flow were chosen by futures of --futures-seed 0, so that another seed's are the ones to report.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stochastic_arms import ARMS, MODELS, REFERENCES, Subject, Windows
from stochastic_outcomes import Futures
from stochastic_scores import STEPS, scores
from stochastic_table import RESULTS, write_table
from study_records import refuse_another, write_record

from datamodules import EpisodeStore, collect
from lit_pwm.checkpoints import load_world_model
from lit_pwm.experiments.calls import Work, run_study
from lit_pwm.experiments.engine import Outcome
from lit_pwm.experiments.training import WorldModelPlan, be_quiet, train_world_model
from lit_pwm.measures.linear_probe import best_probe
from lit_pwm.models.noise import seed_noise
from lit_pwm.runtime.pool import Call
from lit_pwm.tasks import make_env

SAMPLES = 16
_TRAINING_WINDOWS = 2000


class Study:
    """The study's data and models under one folder.

    Args:
        task: a task of the set `stochastic`.
        out: the folder.
        updates: updates of each world model.
        training: training episodes.
        held_out: held-out episodes, whose states predictions start from.
        starts: such states of each of them.
        accelerator: where world models are trained.
        results: folder of the records; `out` if not given.
        futures_seed: of the held-out episodes and their futures.
    """

    def __init__(
        self,
        task: str,
        out: Path,
        updates: int,
        training: int = 80,
        held_out: int = 20,
        starts: int = 12,
        accelerator: str = "cpu",
        results: Path | None = None,
        futures_seed: int = 1,
    ) -> None:
        self.task, self.out, self.updates, self.accelerator = task, out, updates, accelerator
        self.results, self.futures_seed = results or out, futures_seed
        self.store_path, futures = out / f"{task}.h5", out / f"{task}_futures_{futures_seed}.npz"
        if not self.store_path.exists():
            collect([task], training, self.store_path, "noise", workers=2 if training > 10 else 1, seed=0)
        if not futures.exists():
            from stochastic_futures import held_out_futures  # the simulator, which nothing else needs

            print(f"rolling the futures of held-out states of {task}")
            held_out_futures(make_env(task), held_out, starts, seed=futures_seed).save(futures)
        self.episodes = list(EpisodeStore(self.store_path))
        rows = np.concatenate([episode.obs for episode in self.episodes])
        self.mean, self.std = rows.mean(0), rows.std(0)
        raw = Futures.load(futures)
        # Predictions start from observations as they are; everything scored is standardised.
        self.futures = replace(
            raw, **{name: self.standardise(getattr(raw, name)) for name in ("outcome", "samples", "climatology")}
        )

    def standardise(self, obs: np.ndarray) -> np.ndarray:
        """Observations [..., O] in units of the training episodes' standard deviation, float32."""
        return ((obs - self.mean) / self.std).astype(np.float32)

    # -- models -----------------------------------------------------------------------------------------------------
    def model_folder(self, model: str, seed: int) -> Path:
        """Where a world model's files go; its last.json is there when it is trained."""
        return self.out / "models" / self.task / model / f"seed_{seed}_{self.updates}_updates"

    def checkpoint(self, model: str, seed: int) -> str:
        """The trained world model's checkpoint; trains it if there is none."""
        folder = self.model_folder(model, seed)
        if not (folder / "last.json").exists():
            train_model(model, seed, str(self.store_path), str(folder), self.updates, self.accelerator)
        return str(folder / json.loads((folder / "last.json").read_text())["checkpoint"])

    def model_work(self, model: str, seed: int) -> Work:
        """A world model as work, which is only done for what needs it."""
        folder = self.model_folder(model, seed)
        given = (model, seed, str(self.store_path), str(folder), self.updates, self.accelerator)
        call = Call(f"the world model {model!r}, seed {seed}", train_model, given)
        return Work(call, leaves=folder / "last.json", for_others=True)

    def run_all(self, arms: Sequence[str], seeds: int, workers: int) -> Outcome:
        """Train the models of the arms and score them, some at a time, each arm as soon as its model is trained.

        All of one seed come first, so that an early stop leaves a whole comparison.

        Raises:
            LitPWMError: there is a record of a model of other numbers of updates, or of other futures.
        """
        work: dict[str, Work] = {}
        for seed in range(seeds):
            models = dict.fromkeys(ARMS[arm].model for arm in arms if arm not in REFERENCES)
            work |= {f"model {model} seed {seed}": self.model_work(model, seed) for model in models}
            for arm in arms:
                if arm in REFERENCES and seed:
                    continue
                path = self.record(arm, seed)
                if path.exists():
                    refuse_another(path, *self._wanted(arm))
                needs = () if arm in REFERENCES else (f"model {ARMS[arm].model} seed {seed}",)
                call = Call(f"the scores of {arm!r}, seed {seed}", self.run, (arm, seed))
                work[f"{arm} seed {seed}"] = Work(call, needs, leaves=path)
        return run_study(work, workers)

    def subject(self, model: str, seed: int) -> Subject:
        """The trained world model with its probe."""
        world_model = load_world_model(self.checkpoint(model, seed)).eval()
        few = max(1, len(self.episodes) // 5)  # choose the probe's penalty
        parts = self.episodes[:-few], self.episodes[-few:]
        fitted, held_out = (self._encoded(world_model, part) for part in parts)
        return Subject(world_model, best_probe(fitted, held_out), self._training_windows())

    @torch.no_grad()
    def _encoded(self, world_model: Any, episodes: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [N, Z] and standardised observations [N, O] of every row of some episodes."""
        obs = np.concatenate([episode.obs for episode in episodes])
        z = world_model.encode(torch.from_numpy(obs), torch.zeros(len(obs), dtype=torch.int64))
        return z, torch.from_numpy(self.standardise(obs))

    def _training_windows(self) -> Windows:
        rng, steps = np.random.default_rng(0), max(STEPS)
        windows = []
        for _ in range(_TRAINING_WINDOWS):
            episode = self.episodes[rng.integers(len(self.episodes))]
            start = int(rng.integers(len(episode) - steps + 1))
            stop = start + steps
            windows.append((episode.obs[start], episode.action[start:stop], episode.obs[start + 1 : stop + 1]))
        obs, action, outcome = zip(*windows, strict=True)
        return Windows(np.stack(obs), np.stack(action, axis=1), self.standardise(np.stack(outcome, axis=1)))

    # -- records ----------------------------------------------------------------------------------------------------
    def record(self, arm: str, seed: int) -> Path:
        """Where an arm's record is."""
        return self.results / "records" / f"{self.task}_{arm}_{seed}.json"

    def _wanted(self, arm: str) -> tuple[str, dict[str, object]]:
        """What a record is of, in words, and the numbers that it must have."""
        if arm in REFERENCES:
            return "a reference", {"futures_seed": self.futures_seed}
        return "a model", {"futures_seed": self.futures_seed, "updates": self.updates}

    def run(self, arm: str, seed: int) -> str:
        """Score an arm and write its record, unless there is one; returns what to tell of it."""
        be_quiet()
        path, (kind, wanted) = self.record(arm, seed), self._wanted(arm)
        if path.exists():
            refuse_another(path, kind, wanted)
            return "finished before"
        record: dict[str, object] = {"task": self.task, "arm": arm, "seed": seed, "samples": SAMPLES, **wanted}
        if arm in REFERENCES:
            samples = REFERENCES[arm](self.futures, SAMPLES)
        else:
            subject = self.subject(ARMS[arm].model, seed)
            seed_noise(subject.model, seed)
            samples = ARMS[arm].predict(subject, self.futures, SAMPLES)
            record |= {
                "parameters": sum(p.numel() for p in subject.model.dynamics.parameters()),
                "probe_error": self._probe_error(subject),
            }
        found = scores(samples, self.futures)
        write_record(path, record | found)
        return f"energy score {found['energy_score']}"

    def _probe_error(self, subject: Subject) -> float:
        """Mean squared error of held-out observations read out of their own latents: the floor of every score."""
        with torch.no_grad():
            obs = torch.from_numpy(self.futures.obs)
            z = subject.model.encode(obs, torch.zeros(len(obs), dtype=torch.int64))
        return subject.probe.error(z, torch.from_numpy(self.standardise(self.futures.obs)))


def train_model(model: str, seed: int, store: str, folder: str, updates: int, accelerator: str) -> str:
    """Train a world model and say where its checkpoint is in last.json; returns what to tell of it."""
    be_quiet()
    arm = MODELS[model]
    options = {"data.batch_size": arm.batch_size, "data.horizon": arm.horizon, "trainer.accelerator": accelerator}
    plan = WorldModelPlan(updates, options=options, dynamics=arm.dynamics)
    trained = train_world_model([store], folder, plan, seed, progress=False)
    variance = trained.curves["train/latent_variance"][-1][1]
    checkpoint = os.path.relpath(trained.last, folder)
    record = {"checkpoint": checkpoint, "seconds": trained.seconds, "latent_variance": variance}
    write_record(Path(folder) / "last.json", record)
    return f"trained in {trained.seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="cartpole-swingup-kicked")
    parser.add_argument("--out", type=Path, default=Path("runs/stochastic"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--workers", type=int, default=2, help="world models trained and scored side by side")
    parser.add_argument("--futures-seed", type=int, default=1, help="of the held-out episodes that are predicted")
    parser.add_argument("--arms", help="names with commas between; all if not given")
    parser.add_argument("--only-table", action="store_true")
    args = parser.parse_args()
    be_quiet()
    failed: list[str] = []
    if not args.only_table:
        arms = args.arms.split(",") if args.arms else [*REFERENCES, *ARMS]
        options = {"accelerator": args.accelerator, "results": args.results, "futures_seed": args.futures_seed}
        study = Study(args.task, args.out, args.updates, **options)
        failed = study.run_all(arms, args.seeds, args.workers).failed
    write_table(args.results)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
