"""What a finished demo leaves: reported returns, a record in plain JSON, and the report made from records."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lit_pwm.atomic import replacing
from lit_pwm.consoles import ResultConsole
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.record_fields import (
    alike_long,
    anything,
    check_record,
    each,
    fields,
    finite,
    list_of,
    maybe,
    number,
    pair,
    read_json,
    text,
)
from lit_pwm.experiments.report import (
    OpenLoopPanel,
    OpenLoopSection,
    PolicyCurvesSection,
    ResultsRow,
    ResultsSection,
    RunRecordSection,
    StagesSection,
    VideosSection,
    WorldModelCurvesSection,
    build_report,
    describe_machine,
    results_markdown,
    results_table,
)
from lit_pwm.experiments.report.videos import own_video
from lit_pwm.experiments.run_identity import distinct_demos
from lit_pwm.processes import release_freed_memory
from lit_pwm.results import versions
from lit_pwm.statistics import detectable_difference
from lit_pwm.video import Recording

RECORD = "record.json"
FORMAT_VERSION = 1
REPORT_SEED = 0
"""First environment seed of reported returns; checkpoints are chosen on other seeds (`PolicyPlan.evaluation_seed`)."""


_REMEDY = "Name the folder of a run that `lit-pwm demo` finished, or run it again."
_POINTS = list_of(pair(number, maybe(number)))
_DRAWN = ("truth", "prediction", "copy_last")
_SERIES = alike_long(fields({"name": text, **dict.fromkeys(_DRAWN, list_of(number))}), _DRAWN)
_GAP = fields({"imagined_return": number, "real_return": number, "steps": number})
_TASK = fields(
    {
        "task": text,
        "returns": fields(dict.fromkeys(("random", "data", "best", "last"), list_of(number, least=1))),
        "video": maybe(text),
        "video_return": number,
        "notice": maybe(text),
        "open_loop": fields({"series": list_of(_SERIES)}),
    },
    {"model_gap": maybe(_GAP)},
)
_DEMO = fields(
    {
        "seed": number,
        "command": text,
        "plan": each(anything),
        "seconds": each(number),
        "versions": each(anything),
        "machine": each(anything),
        "tasks": list_of(_TASK, least=1),
        "world_model_curves": each(_POINTS),
        "policy_curves": each(each(_POINTS)),
    }
)


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
        model_gap: what the world model promised the best policy, and what it earned (`lit_pwm.model_gap`).
    """

    task: str
    returns: Mapping[str, Sequence[float]]
    open_loop: Mapping[str, Any]
    video: str | None
    video_return: float
    notice: str | None
    model_gap: Mapping[str, Any] | None = None


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
    from lit_pwm.checkpoints import load_policy
    from lit_pwm.evaluation import Evaluator, RandomPolicy, record_video
    from lit_pwm.experiments.open_loop_curves import open_loop_curves
    from lit_pwm.experiments.stages import be_quiet

    be_quiet()
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
    video = record_video(policy, task, REPORT_SEED, Path(folder) / f"{task}.mp4")
    return TaskSummary(
        task,
        returns,
        open_loop_curves(world_model, stores, task),
        None if video.path is None else video.path.name,
        video.episode_return,
        video.notice,
        None if evaluated.model_gap is None else evaluated.model_gap.to_json(),
    )


def write_record(
    folder: Path,
    seed: int,
    started: str,
    plan: Mapping[str, Any],
    seconds: Mapping[str, float],
    summaries: Sequence[TaskSummary],
    world_model_curves: Mapping[str, Any],
    policy_curves: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Write a run's record; it appears when it is complete."""
    record = {
        "kind": "demo",
        "format": FORMAT_VERSION,
        "seed": seed,
        "started": started,
        "command": " ".join(["lit-pwm", *sys.argv[1:]]),
        "plan": plan,
        "seconds": seconds,
        "versions": versions(),
        "machine": describe_machine(),
        "tasks": [asdict(summary) for summary in summaries],
        "world_model_curves": world_model_curves,
        "policy_curves": policy_curves,
    }
    path = folder / RECORD
    with replacing(path, "The run's record") as beside:
        beside.write_text(json.dumps(finite(record), indent=1, allow_nan=False), encoding="utf-8")
    return path


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        LitPWMError: it is not there, is damaged, or of another format.
    """
    path = folder / RECORD
    record = read_json(path, "the record of a finished run", _REMEDY)
    kind, version = record.get("kind"), record.get("format")
    if (kind, version) != ("demo", FORMAT_VERSION):
        raise LitPWMError(
            f"{str(path)!r} is the record of a {kind!r} in format {version!r}, and this version of lit_pwm reports "
            f"'demo' in format {FORMAT_VERSION}. Make the report with the version that wrote it."
        )
    check_record(path, record, _DEMO, _REMEDY)
    for curves in (record["world_model_curves"], *record["policy_curves"].values()):
        for name, points in curves.items():
            curves[name] = [point for point in points if point[1] is not None]
    return record


def report_runs(folders: Sequence[Path], out: Path, console: Console | None = None) -> Path:
    """Make the report of one or several runs and print its table.

    Each run counts with its mean over episodes, so that intervals are those of the seeds; a single run has none.

    Args:
        folders: each holds a run's record.
        out: the report's folder.
        console: where the table goes.

    Returns:
        The path of the page.
    """
    named = distinct_demos([(folder, read_record(folder)) for folder in folders])
    records = [record for _, record in named]
    rows, first = results_rows(records), records[0]
    several = len(records) > 1
    seeds = ", ".join(str(record["seed"]) for record in records)
    note = note_of(records)
    curves = {
        task["task"]: {
            (f"seed {record['seed']}, {name}" if several else name): [tuple(point) for point in points]
            for record in records
            for name, points in record["policy_curves"].get(task["task"], {}).items()
        }
        for task in first["tasks"]
    }
    references = {
        row.task: {"data, mean": float(np.mean(row.returns["data"])), "random": float(np.mean(row.returns["random"]))}
        for row in rows
    }
    sections = [
        ResultsSection(rows, note=note),
        VideosSection(_recordings(named[0][0], first)),
        PolicyCurvesSection(curves, references),
        WorldModelCurvesSection(first["world_model_curves"]),
        OpenLoopSection(_panels(first)),
        StagesSection(first["seconds"]),
        RunRecordSection(
            {
                "Run": {"seeds": seeds, "command": first["command"]},
                "Imagined against real": {task["task"]: _gap(task.get("model_gap")) for task in first["tasks"]},
                "Plan": {key: json.dumps(value) for key, value in first["plan"].items()},
                "Versions": first["versions"],
                "Machine": first["machine"],
            }
        ),
    ]
    total = sum(first["seconds"].values())
    page = build_report(
        sections,
        out,
        title="lit_pwm: demo",
        lead="A world model trained on episodes that noise collected, and policies trained inside it.",
        facts={"tasks": str(len(rows)), "runs": str(len(records)), "minutes": f"{total / 60:.1f}"},
    )
    with replacing(out / "results.md", "The report's tables") as beside:
        beside.write_text(results_markdown(rows), encoding="utf-8")
    console = console or ResultConsole()
    console.print(results_table(rows))
    console.print(note, highlight=False, markup=False)
    console.print(f"Stages took {total / 60:.1f} minutes. Report: {page}", highlight=False, markup=False)
    return page


def results_rows(records: Sequence[Mapping[str, Any]]) -> list[ResultsRow]:
    """A row for each task: the mean returns of the runs, in their order, and the best episode of all.

    Raises:
        LitPWMError: the runs are of different tasks.
    """
    by_name = [{task["task"]: task["returns"] for task in record["tasks"]} for record in records]
    for record, found in zip(records, by_name, strict=True):
        if set(found) != set(by_name[0]):
            raise LitPWMError(
                f"The runs to report are of different tasks: seed {records[0]['seed']} of {sorted(by_name[0])}, seed "
                f"{record['seed']} of {sorted(found)}. Report runs of the same tasks together."
            )
    rows = []
    for task in by_name[0]:
        per_run = [found[task] for found in by_name]
        means = {name: [float(np.mean(run[name])) for run in per_run] for name in per_run[0]}
        highest = {name: float(max(max(run[name]) for run in per_run)) for name in per_run[0]}
        rows.append(ResultsRow(task, means, highest))
    return rows


def note_of(records: Sequence[Mapping[str, Any]]) -> str:
    """How returns were measured, and what so few runs cannot tell."""
    episodes = len(records[0]["tasks"][0]["returns"]["best"])
    how = f"on environment seeds that chose nothing; {episodes} episodes of each policy, best and last, in each task."
    if len(records) == 1:
        return (
            f"Mean returns of one run {how} The best checkpoint was chosen on other seeds. One run tells nothing of "
            "what another seed would give: there is no interval."
        )
    seeds = ", ".join(str(record["seed"]) for record in records)
    best, last = (np.mean([row.returns[name] for row in results_rows(records)], axis=0) for name in ("best", "last"))
    return (
        f"Means over {len(records)} runs (seeds {seeds}) {how} Intervals are Student's t over runs, 95 %. With as "
        f"many runs and tasks, a difference of {detectable_difference(best, independent=True):.0f} between the mean "
        "over tasks of these best checkpoints and that of another method's is shown with 80 % probability (two-sided "
        f"5 %), and one of {detectable_difference(best - last):.0f} between best and last checkpoints of the same "
        "runs."
    )


def _gap(gap: Mapping[str, Any] | None) -> str:
    """The best policy's imagined and real return over a few steps, from states it visited."""
    if gap is None:
        return "not measured"
    return f"{gap['imagined_return']:.2f} imagined, {gap['real_return']:.2f} earned in {gap['steps']} steps"


def _recordings(folder: Path, record: Mapping[str, Any]) -> list[Recording]:
    found = []
    for task in record["tasks"]:
        video = None if task["video"] is None else own_video(folder, task["video"])
        notice = task["notice"]
        if task["video"] is not None and video is None:
            notice = f"The video of {task['task']} that the run's record names is no video in the run's folder."
        found.append(Recording(task["task"], REPORT_SEED, task["video_return"], video, notice))
    return found


def _panels(record: Mapping[str, Any]) -> list[OpenLoopPanel]:
    return [
        OpenLoopPanel(
            task["task"],
            series["name"],
            series["truth"],
            series["prediction"],
            series["copy_last"],
            first_step=int(series["name"] == "reward"),
        )
        for task in record["tasks"]
        for series in task["open_loop"]["series"]
    ]
