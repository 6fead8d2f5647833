"""A progress bar for a whole run: updates, throughput, measured remaining time."""

from __future__ import annotations

import math
import time

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lit_pwm.batch import Batch
from lit_pwm.options import NonNegative, checked
from lit_pwm.runtime.consoles import ProgressConsole


class RunProgress(ProgressBar):
    """Shows updates done of all updates, updates and samples per second, elapsed and remaining time, and metrics.

    Lightning's own bars count an epoch, which is an arbitrary stretch when slices are drawn with replacement. Where the
    output is no terminal, one line is printed now and then instead. Metrics shown are those logged with
    `prog_bar=True`, and the latest validation's.

    Args:
        refresh_seconds: time between refreshes of the bar.
        line_seconds: time between lines where the output is no terminal.
    """

    @checked
    def __init__(self, refresh_seconds: NonNegative = 0.5, line_seconds: NonNegative = 20.0) -> None:
        super().__init__()
        self.refresh_seconds, self.line_seconds = refresh_seconds, line_seconds
        self._enabled = True
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._console = ProgressConsole(stderr=True)

    def disable(self) -> None:
        """Show nothing; Lightning calls this on ranks other than zero."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the update the run starts from."""
        if not self._enabled or not trainer.is_global_zero:
            return
        planned = trainer.estimated_stepping_batches
        self._total = int(planned) if math.isfinite(planned) else None
        self._first, self._samples = trainer.global_step, 0
        self._started = self._shown = time.monotonic()
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} updates"),
                TextColumn("{task.fields[speed]}"),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
                console=self._console,
            )
            self._task = self._progress.add_task(
                type(pl_module).__name__, total=self._total, completed=self._first, speed="", metrics=""
            )
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch, and refresh when it is time."""
        if not self._enabled or not trainer.is_global_zero:
            return
        self._samples += batch["task"].numel() * trainer.world_size
        now, interactive = time.monotonic(), self._progress is not None
        if now - self._shown < (self.refresh_seconds if interactive else self.line_seconds):
            return
        self._shown = now
        self._show(trainer, pl_module, now)

    def _show(self, trainer: Trainer, pl_module: LightningModule, now: float) -> None:
        seconds = max(now - self._started, 1e-9)
        rate = (trainer.global_step - self._first) / seconds
        speed = f"{rate:.1f} updates/s, {self._samples / seconds:,.0f} slices/s"
        shown = {k: v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
        metrics = " ".join(
            f"{k}={v:.4g}" for k, v in shown.items() if isinstance(v, (int, float)) or torch.is_tensor(v)
        )
        if self._progress is not None:
            self._progress.update(self._task, completed=trainer.global_step, speed=speed, metrics=metrics)
            return
        remaining = ""
        if self._total is not None and rate > 0:
            remaining = f", {(self._total - trainer.global_step) / rate:.0f} s remaining"
        self._console.print(
            f"{type(pl_module).__name__}: {trainer.global_step}/{self._total or '?'} updates, {speed}, "
            f"{seconds:.0f} s elapsed{remaining} {metrics}",
            highlight=False,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last state and close the bar."""
        if self._enabled and trainer.is_global_zero:
            self._show(trainer, pl_module, time.monotonic())
            self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error starts on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_progress", "_console")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ |= {**state, "_progress": None, "_console": ProgressConsole(stderr=True)}
