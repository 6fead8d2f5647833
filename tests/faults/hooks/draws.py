"""A callback that uses the global generators, as a component or a callback of a user may."""

import random

import numpy as np
import torch
from lightning.pytorch import Callback


class Draws(Callback):
    """Logs a number of each generator after each update, of all ranks, and draws in validations too."""

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        numpys = np.random.rand()  # noqa: NPY002
        drawn = {"python": random.random(), "numpy": numpys, "torch": float(torch.rand(()))}
        for name, number in drawn.items():
            pl_module.log(f"draw/{name}", torch.tensor(number), batch_size=1, sync_dist=True)

    def on_validation_batch_end(self, trainer, pl_module, *arguments):
        pl_module.log("val/draw", torch.rand(()), batch_size=1, sync_dist=True)
