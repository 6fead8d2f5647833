"""A lock in the folder of a run that is in progress."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import Any, BinaryIO, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_pwm.runtime.atomic import open_lock

LOCK = ".run.lock"


class RunLock(Callback):
    """Holds a lock file in the run's folder while it trains, so that `lit-pwm runs prune` leaves the run alone.

    It names the machine and the process, and is removed at the end; what a kill has left is held by nobody. Where a
    file cannot be made or locked, training goes on without. Hooks: `on_train_start`, `on_exception`, `teardown`.
    """

    def __init__(self) -> None:
        self._held: tuple[Path, BinaryIO] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it, on rank zero."""
        folder = trainer.log_dir  # a broadcast: of all ranks
        if folder is None or not trainer.is_global_zero or self._held or cast("Any", trainer).fast_dev_run:
            return
        with contextlib.suppress(OSError):
            Path(folder).mkdir(parents=True, exist_ok=True)
            path = Path(folder) / LOCK
            file = open_lock(path)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.truncate()
                file.write(f"{socket.gethostname()} {os.getpid()}\n".encode())
            except OSError:
                file.close()
                raise
            self._held = path, file

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give it back."""
        self.release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give it back."""
        self.release()

    def release(self) -> None:
        """Remove it, if it is held."""
        if self._held is not None:
            path, file = self._held
            self._held = None
            with contextlib.suppress(OSError):
                path.unlink()
            file.close()
