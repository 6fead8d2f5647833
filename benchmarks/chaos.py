"""Kills runs at random moments, lets them go on, and compares what they end with: it must be the undisturbed run's.

    python benchmarks/chaos.py                    # less than an hour on two cores
    python benchmarks/chaos.py --kills 4 --extra 2 --series policy

Each series is one run of the command line, `lit-pwm fit … --ckpt_path auto`, killed again and again: at least a quarter
of the kills inside a save, a quarter inside a validation (with an evaluation in the environment for a policy), the rest
by SIGKILL between two checkpoints, each of which loses an update or more and goes on from one that was saved. A kill
that was late, so that its phase had ended, is not counted, and tried again. At the end weights, moments, random states,
counters and logged rows are held against those of the same command left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos_moments import PLAN
from checkpoint_states import differences, last_checkpoint

BENCHMARKS = Path(__file__).resolve().parent
UPDATES, EVALUATE = 240, 8
OPENS = 3 * EVALUATE  # where the series with an opening inside opens another part: among its kills
TASK = "cartpole-swingup"
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 180.0


@dataclass(frozen=True)
class Kill:
    """One that counts.

    Attributes:
        phase: `save`, `validation` or `between`.
        signal: its name.
        reached: updates made when it came.
        resumed: updates of the checkpoint that was there then, from which the run goes on.
    """

    phase: str
    signal: str
    reached: int
    resumed: int


@dataclass
class Series:
    """What came of one run.

    Attributes:
        name: of the series.
        kills: those that count.
        late: kills that came when their phase had ended.
        differs: in what the run ended otherwise than the undisturbed one.
        seconds: it took, with the undisturbed run.
    """

    name: str
    kills: list[Kill] = field(default_factory=list)
    late: int = 0
    differs: list[str] = field(default_factory=list)
    seconds: float = 0.0


def command(name: str, root: Path, store: Path, model: Path) -> list[str]:
    """The command line of a series."""
    kind, _, variant = name.partition(" ")
    short = {"episodes": 1, "before_training": False}
    evaluation = {"class_path": "callbacks.EnvironmentEvaluation", "init_args": short}
    metric = {"monitor": "val/loss"} if kind == "pretraining" else {"monitor": "eval/return", "mode": "max"}
    best = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": metric | {"filename": "best"}}
    opens = {"encoder": {"update": 0, "warmup_steps": 20}, "reward": {"update": OPENS, "warmup_steps": 20}}
    parts = {"parts": opens} if variant == "opening" else {}
    schedule = {"class_path": "callbacks.FinetuneSchedule", "init_args": parts}
    # The one that kills comes first, so that a validation has begun for it before others do anything in it.
    used: list[dict[str, Any]] = [
        {"class_path": "chaos_moments.Moments"},
        *([] if kind == "pretraining" else [evaluation]),
        best,
    ]
    used += [schedule] if kind == "finetuning" else []
    configs = {
        "pretraining": ["pretrain", "pretrain_tiny", "world_model/mlp_tiny"],
        "policy": ["policy_learning", "policy_learning_tiny", "policy/mlp_tiny"],
        "finetuning": ["finetune", "finetune_tiny", "policy/mlp_tiny"],
    }[kind]
    argv: list[object] = [word for config in configs for word in ("--config", f"configs/{config}.yaml")]
    argv += [] if kind == "pretraining" else ["--model.world_model_checkpoint", model, "--model.horizon", 8]
    argv += ["--data.second.batch_size", 32] if kind == "finetuning" else []
    argv += ["--data.store", store, "--data.tasks", f"[{TASK}]", "--data.batch_size", 32]
    argv += ["--trainer.max_steps", UPDATES, "--trainer.val_check_interval", EVALUATE]
    argv += ["--trainer.log_every_n_steps", 1, "--trainer.limit_val_batches", 1]
    argv += ["--trainer.callbacks", json.dumps(used), "--trainer.default_root_dir", root, "--ckpt_path", "auto"]
    argv += ["--data.num_workers", 2] if variant == "2 workers" else []
    argv += ["--trainer.devices", 2, "--trainer.strategy", "ddp"] if variant == "2 ranks" else []
    return ["fit", *map(str, argv)]


def run(argv: Sequence[str], log: Path, plan: dict[str, Any]) -> int:
    """Run a command to its end, with a plan for `chaos_moments`; nothing of it is left. Its exit code."""
    path = os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")]))
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", PLAN: json.dumps(plan)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_pwm", *argv], env=os.environ | own, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        return process.wait(PATIENCE * 5)
    finally:  # other ranks and workers see that rank zero is gone; what does not is ended here
        time.sleep(0.5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def notes(file: Path) -> list[dict[str, Any]]:
    """What a run noted; a line that its end has cut short is left out."""
    lines = file.read_text().splitlines() if file.exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def lengths(noted: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Median seconds that each phase took."""
    begun: dict[str, float] = {}
    took: dict[str, list[float]] = {"update": [], "save": [], "validation": []}
    for note in noted:
        if note["what"] == "begins":
            begun[note["phase"]] = note["time"]
        elif note["what"] == "ends" and note["phase"] in begun:
            took[note["phase"]].append(note["time"] - begun.pop(note["phase"]))
    return {phase: statistics.median(seconds) for phase, seconds in took.items()}


def phases_of(kills: int, rng: random.Random) -> list[str]:
    """The phase of each kill, in a random order that begins between checkpoints."""
    quarter = max(1, -(-kills // 4))
    found = ["save"] * quarter + ["validation"] * quarter + ["between"] * (kills - 2 * quarter)
    rng.shuffle(found)
    first = found.index("between") if "between" in found else 0
    return [found.pop(first), *found]


def saved_step(root: Path) -> int:
    """Updates of the run's last checkpoint; 0 if there is none."""
    try:
        return int(last_checkpoint(root)["global_step"])
    except ValueError:
        return 0


def disturbed(
    series: Series, root: Path, argv: Sequence[str], took: dict[str, float], kills: int, rng: random.Random
) -> None:
    """Kill a run so many times, and let it end."""
    log, wanted = root.with_suffix(".log"), phases_of(kills, rng)
    while wanted:
        phase, before = wanted[0], saved_step(root)
        first = (before // EVALUATE + 1) * EVALUATE
        at = first + rng.randrange(1, EVALUATE - 1) if phase == "between" else first  # beyond one, so that it gets on
        hit = "update" if phase == "between" else phase
        number = signal.SIGKILL if phase == "between" else rng.choice(SIGNALS)
        noted = root.with_suffix(f".{len(series.kills)}.{series.late}.jsonl")
        plan = {"phase": hit, "at": at, "signal": int(number), "seconds": rng.random() * took[hit] * 0.8}
        code = run(argv, log, plan | {"log": str(noted)})
        last = next((note for note in reversed(notes(noted)) if note["what"] == "killed"), None)
        if code == 0 or last is None:
            raise SystemExit(f"{series.name}: the run was not killed (exit code {code}); see {log}")
        reached, resumed = int(last["step"]), saved_step(root)
        counts = 0 < resumed < reached if phase == "between" else last["phase"] == phase
        if not counts:
            series.late += 1
            if series.late > 5 * kills:
                raise SystemExit(f"{series.name}: kills come too late, again and again")
            continue
        wanted.pop(0)
        series.kills.append(Kill(phase, signal.Signals(number).name, reached, resumed))
    if (code := run(argv, log, {})) != 0:
        raise SystemExit(f"{series.name}: the run did not go on to its end (exit code {code}); see {log}")


def conduct(name: str, kills: int, folder: Path, store: Path, model: Path, rng: random.Random) -> Series:
    """One series: the run undisturbed, the same one killed, and what they differ in."""
    began, series = time.monotonic(), Series(name)
    whole, root = folder / f"{name} whole", folder / f"{name} killed"
    noted = folder / f"{name}.jsonl"
    code = run(command(name, whole, store, model), folder / f"{name} whole.log", {"log": str(noted)})
    if code != 0:
        raise SystemExit(f"{name}: the undisturbed run ended with {code}; see {folder / f'{name} whole.log'}")
    disturbed(series, root, command(name, root, store, model), lengths(notes(noted)), kills, rng)
    series.differs = differences(root, whole)
    series.seconds = time.monotonic() - began
    return series


def table(found: Sequence[Series]) -> str:
    """What came of all series, as text."""
    lines = [f"{'series':24} {'phase':11} {'kills':>5} {'SIGKILL':>7}  {'updates lost':>14}  {'resumed from':>12}"]
    for series in found:
        for phase in ("save", "validation", "between"):
            kills = [kill for kill in series.kills if kill.phase == phase]
            if not kills:
                continue
            lost, steps = [max(0, kill.reached - kill.resumed) for kill in kills], [kill.resumed for kill in kills]
            by_kill = sum(kill.signal == "SIGKILL" for kill in kills)
            lines.append(
                f"{series.name:24} {phase:11} {len(kills):5} {by_kill:7}  {f'{min(lost)} to {max(lost)}':>14}  "
                f"{f'{min(steps)} to {max(steps)}':>12}"
            )
        same = "identical" if not series.differs else f"DIFFERENT in {', '.join(series.differs[:3])}"
        lines.append(f"{series.name:24} {same}; {series.late} came late; {series.seconds / 60:.1f} minutes")
    return "\n".join(lines)


KINDS = ("pretraining", "policy", "finetuning")
EXTRAS = ("policy 2 ranks", "pretraining 2 workers", "finetuning opening")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each kind of run (20)")
    parser.add_argument("--extra", type=int, default=5, help="of each extra series (5)")
    parser.add_argument("--series", default=",".join((*KINDS, *EXTRAS)), help="names, separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--folder", type=Path, help="where the runs are kept (a temporary folder)")
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "results" / "chaos.json", help="the record")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        store, found = folder / "store.h5", []
        if not store.exists():
            run(["collect", "--tasks", TASK, "--episodes", "4", "--out", str(store)], folder / "collect.log", {})
        start = folder / "model"
        if not list(start.rglob("last.ckpt")):
            argv = command("pretraining", start, store, start)
            run(argv, folder / "model.log", {})
        model = next(start.rglob("last.ckpt"))
        for name in options.series.split(","):
            kills = options.kills if name in KINDS else options.extra
            rng = random.Random(f"{options.seed} {name}")
            found.append(conduct(name, kills, folder, store, model, rng))
            print(table(found[-1:]), flush=True)
    print("\n" + table(found))
    minutes = sum(series.seconds for series in found) / 60
    print(f"{sum(len(series.kills) for series in found)} kills in {minutes:.0f} minutes")
    if options.out.parent.is_dir():
        options.out.write_text(json.dumps([asdict(series) for series in found], indent=1) + "\n")
    if any(series.differs for series in found):
        raise SystemExit("a run that was killed ended otherwise than the undisturbed one")


if __name__ == "__main__":
    main()
