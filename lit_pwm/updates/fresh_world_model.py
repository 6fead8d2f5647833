"""World models that start from fresh weights."""

from __future__ import annotations

import torch

from lit_pwm.batch import DataSource
from lit_pwm.models.world_model import WorldModel
from lit_pwm.models.world_model_options import WorldModelOptions
from lit_pwm.updates.binding import standardise


def fresh_world_model(options: WorldModelOptions, source: DataSource) -> WorldModel:
    """A world model of all tasks of the data, whose observations it standardises; on the CPU.

    Where the data has a second stream, on which the model is trained, its tasks are among them. Where it holds
    terminations, the model has a continuation head.
    """
    with torch.device("cpu"):  # a seed gives the same weights wherever they are trained
        tasks = getattr(source, "all_tasks", source.tasks)
        world_model = options.build(tasks, continuation=source.has_terminations)
    standardise(source, world_model, tasks)
    return world_model
