"""What a checkpoint costs: seconds and bytes, of world models and of policies with and without their frozen model.

    python benchmarks/checkpoint_cost.py          # about three minutes on two cores, and 2 GB of disk

Each is a run of one update with the shipped configs, whose checkpoint is then written five times, as a run writes it:
checked, beside its place, brought to the disk and renamed. The median counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_pwm.cli import trainer as command

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "checkpoint_cost.json"
SIZES = ("5m", "19m", "48m")
TIMES = 5


class Measure(Callback):
    """Writes checkpoints at the end of a run, and times them."""

    def __init__(self) -> None:
        self.seconds, self.bytes = [], 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        file = Path(trainer.default_root_dir) / "measured.ckpt"
        for _ in range(TIMES):
            began = time.perf_counter()
            trainer.save_checkpoint(file, weights_only=False)
            self.seconds.append(time.perf_counter() - began)
        self.bytes = file.stat().st_size


def measured(root: Path, *argv: object) -> dict[str, Any]:
    """Seconds and bytes of a run's checkpoint."""
    common = ["--data.store", ROOT / "tests" / "fixtures_v1" / "collected.h5", "--data.batch_size", 4]
    common += ["--data.horizon", 2, "--trainer.max_steps", 1, "--trainer.limit_val_batches", 0]
    common += ["--trainer.logger", "false"]
    common += ["--trainer.accelerator", "cpu", "--trainer.devices", 1, "--trainer.callbacks", "null"]
    common += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    measure = Measure()
    default = command.default_callbacks
    try:
        cast("Any", command).default_callbacks = lambda given=(): [*default(given), measure]
        command.build(["fit", *map(str, [*argv, *common, "--trainer.default_root_dir", root])])
    finally:
        command.default_callbacks = default
    return {"seconds": statistics.median(measure.seconds), "bytes": measure.bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=SIZES, choices=SIZES)
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.sizes:
            folder = Path(temporary) / size
            configs = ["--config", "configs/pretrain.yaml", "--config", f"configs/world_model/mlp_{size}.yaml"]
            found[f"world model {size}"] = measured(folder / "model", *configs)
            configs = ["--config", "configs/policy_learning_offline.yaml"]
            configs += ["--config", "configs/policy/mlp_multitask.yaml", "--model.horizon", "4"]
            configs += ["--model.world_model_checkpoint", str(folder / "model" / "measured.ckpt")]
            for kind in ("full", "reference"):
                name = f"policy on {size}, {kind}"
                found[name] = measured(folder / kind, *configs, "--model.save_world_model", kind)
            for name in [name for name in found if size in name]:
                print(f"{name:28} {found[name]['bytes'] / 1e6:8.1f} MB  {found[name]['seconds']:6.2f} s", flush=True)
    if RESULT.parent.is_dir():
        RESULT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
