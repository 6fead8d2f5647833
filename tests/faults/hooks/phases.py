"""A callback that says when training has come to a phase, and lingers there so that a signal arrives in it."""

import time
from pathlib import Path

from lightning.pytorch import Callback


class Linger(Callback):
    """Writes the number of finished updates to a file when a phase begins, and waits there once.

    Args:
        phase: a hook's name without `on_`, for example `before_backward` (in an update) or `save_checkpoint`.
        updates: the first time after so many updates.
        file: what is written. Where it is there when the run begins, as it is when one goes on, nothing lingers.
        seconds: how long it lingers.
    """

    def __init__(self, phase: str, updates: int, file: str, seconds: float = 1.5) -> None:
        self.updates, self.file, self.seconds = updates, Path(file), seconds
        self.done = self.file.exists()
        setattr(self, f"on_{phase}", self._linger)

    def _linger(self, trainer, *arguments):
        if not self.done and trainer.global_step >= self.updates:
            self.done = True
            beside = self.file.with_suffix(f".{trainer.global_rank}.part")  # ranks come to it together
            beside.write_text(str(trainer.global_step))
            beside.replace(self.file)
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:  # a signal's handler runs between two naps
                time.sleep(0.05)
