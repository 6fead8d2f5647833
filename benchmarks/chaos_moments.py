"""A callback that ends its own run at a random moment inside a phase that it was told, as a crash would."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

PLAN = "LIT_PWM_CHAOS"
"""Environment variable that holds the plan, as JSON."""


class Moments(Callback):
    """Notes the beginning and the end of each update, save and validation, and kills its process in one of them.

    The plan names a file to note in (`log`), and to kill a `phase` (`update`, `save`, `validation`), the first number
    of updates `at` which, a `signal`, and a delay in seconds after the phase has begun. A save is what lies between the
    opening of an unfinished file and its renaming, by Python's audit events. The last note of a killed process is the
    phase in which the signal was sent.
    """

    def __init__(self) -> None:
        self.plan: Mapping[str, Any] = json.loads(os.environ.get(PLAN, "{}"))
        self.phase, self.step, self._armed = "start", 0, "phase" in self.plan

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch files, on rank zero."""
        if trainer.is_global_zero and self.plan and stage == "fit":
            self._process = os.getpid()
            sys.addaudithook(self._audit)
        else:
            self.plan, self._armed = {}, False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename") or os.getpid() != self._process:
            return
        if event == "open" and str(arguments[0]).endswith(".part") and isinstance(arguments[1], str):
            if "w" in arguments[1]:
                self._begins("save")
        elif event == "os.rename" and str(arguments[0]).endswith(".part"):
            self._ends("save")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """An update begins."""
        self.step = trainer.global_step
        self._begins("update")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """It ends; how many there are is what the notes say from now on."""
        self.step = trainer.global_step
        self._ends("update")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A validation begins."""
        self._begins("validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """It ends, apart from what callbacks after this one do."""
        self._ends("validation")

    def _begins(self, phase: str) -> None:
        self.phase = phase
        self._note("begins", phase)
        if self._armed and phase == self.plan["phase"] and self.step >= self.plan["at"]:
            self._armed = False
            timer = threading.Timer(self.plan["seconds"], self._kill)
            timer.daemon = True
            timer.start()

    def _ends(self, phase: str) -> None:
        self.phase = "between"
        self._note("ends", phase)

    def _kill(self) -> None:
        self._note("killed", self.phase)
        os.kill(os.getpid(), self.plan["signal"])

    def _note(self, what: str, phase: str) -> None:
        if "log" not in self.plan:
            return
        line = json.dumps({"what": what, "phase": phase, "step": self.step, "time": time.monotonic()}) + "\n"
        handle = os.open(self.plan["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.close(handle)
