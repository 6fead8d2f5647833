"""What is reported of a task at the end of a demo: returns on seeds that chose nothing, a video, a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lit_pwm.experiments.record_types import OpenLoopRecord
from lit_pwm.paths import file_name
from lit_pwm.runtime.processes import release_freed_memory

if TYPE_CHECKING:
    from lit_pwm.evaluation.model_gap import GapRecord
    from lit_pwm.measures.continuation_score import ContinuationRecord

REPORT_SEED = 0
"""First environment seed of reported returns; checkpoints are chosen on other seeds (`configs/demo/policy.yaml`)."""


@dataclass(frozen=True)
class TaskSummary:
    """Everything that is reported of one task; plain values.

    Attributes:
        task: its name.
        returns: `random`, `data`, `best` and `last` → returns of episodes.
        open_loop: of `open_loop_curves`.
        video: path of the best policy's video, None where nothing can render.
        video_return: the return of the episode in it.
        notice: why there is no video.
        model_gap: what the world model promised the best policy, and what it earned (`lit_pwm.evaluation.model_gap`).
        continuation: how well the world model foresees ends; None for a task without.
    """

    task: str
    returns: Mapping[str, Sequence[float]]
    open_loop: OpenLoopRecord
    video: str | None
    video_return: float
    notice: str | None
    model_gap: GapRecord | None = None
    continuation: ContinuationRecord | None = None


def summarise_task(
    task: str,
    noise_store: str,
    stores: Sequence[str],
    world_model: str,
    best: str,
    last: str,
    episodes: int,
    folder: str,
) -> TaskSummary:
    """Evaluate a task's policies on seeds that chose nothing, and record a video and an open-loop prediction.

    Args:
        task: the task.
        noise_store: the store of noise episodes, the behaviour data that the policies are compared with.
        stores: all stores, for the open-loop prediction.
        world_model: checkpoint of the world model.
        best: checkpoint of the best policy.
        last: checkpoint of the last policy.
        episodes: episodes of each evaluation.
        folder: where the video goes.
    """
    from datamodules import EpisodeStore
    from lit_pwm.checkpoints import load_policy, load_world_model
    from lit_pwm.evaluation.evaluator import Evaluator, RandomPolicy, record_video
    from lit_pwm.experiments.demo.open_loop_curves import open_loop_curves
    from lit_pwm.experiments.held_out_continuation import held_out_continuation
    from lit_pwm.experiments.training import quiet

    with quiet():
        release_freed_memory()  # rendering takes memory of its own
        policy = load_policy(best)
        with Evaluator([task], episodes, REPORT_SEED) as evaluator:
            evaluated = evaluator.run(policy).tasks[task]
            returns = {
                "random": list(evaluator.run(RandomPolicy(REPORT_SEED)).tasks[task].returns),
                "data": [float(episode.reward.sum()) for episode in EpisodeStore(noise_store) if episode.task == task],
                "best": list(evaluated.returns),
                "last": list(evaluator.run(load_policy(last)).tasks[task].returns),
            }
        video = record_video(policy, task, REPORT_SEED, Path(folder) / f"{file_name(task)}.mp4")
        loops = open_loop_curves(world_model, stores, task)
        ends = held_out_continuation(load_world_model(world_model), stores, REPORT_SEED)
    return TaskSummary(
        task,
        returns,
        loops,
        None if video.path is None else video.path.name,
        video.episode_return,
        video.notice,
        None if evaluated.model_gap is None else evaluated.model_gap.to_json(),
        ends.get(task),
    )
