"""The report of one or several demos, made from their records alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.video import Recording
from lit_pwm.experiments.demo.demo_record import read_record
from lit_pwm.experiments.demo.summary import REPORT_SEED
from lit_pwm.experiments.record_types import DemoRecord
from lit_pwm.experiments.report import (
    OpenLoopPanel,
    OpenLoopSection,
    PolicyCurvesSection,
    ReliabilitySection,
    ResultsRow,
    ResultsSection,
    RunRecordSection,
    StagesSection,
    VideosSection,
    WorldModelCurvesSection,
    build_report,
    results_table,
)
from lit_pwm.experiments.report.videos import own_video
from lit_pwm.experiments.run_identity import distinct_demos
from lit_pwm.measures.statistics import detectable_difference
from lit_pwm.runtime.atomic import replacing
from lit_pwm.runtime.consoles import ResultConsole

if TYPE_CHECKING:
    from lit_pwm.evaluation.model_gap import GapRecord
    from lit_pwm.measures.continuation_score import ContinuationRecord


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
    table = results_table(rows)
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
        *([ReliabilitySection(ends)] if (ends := _ends(first)) else []),
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
        beside.write_text(table.markdown(), encoding="utf-8")
    console = console or ResultConsole()
    console.print(table)
    console.print(note, highlight=False, markup=False)
    console.print(f"Stages took {total / 60:.1f} minutes. Report: {page}", highlight=False, markup=False)
    return page


def results_rows(records: Sequence[DemoRecord]) -> list[ResultsRow]:
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


def note_of(records: Sequence[DemoRecord]) -> str:
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


def _gap(gap: GapRecord | None) -> str:
    """The best policy's imagined and real return over a few steps, from states it visited."""
    if gap is None:
        return "not measured"
    return f"{gap['imagined_return']:.2f} imagined, {gap['real_return']:.2f} earned in {gap['steps']} steps"


def _recordings(folder: Path, record: DemoRecord) -> list[Recording]:
    found = []
    for task in record["tasks"]:
        video = None if task["video"] is None else own_video(folder, task["video"])
        notice = task["notice"]
        if task["video"] is not None and video is None:
            notice = f"The video of {task['task']} that the run's record names is no video in the run's folder."
        found.append(Recording(task["task"], REPORT_SEED, task["video_return"], video, notice))
    return found


def _ends(record: DemoRecord) -> dict[str, ContinuationRecord]:
    """What is known of foreseen ends, of the tasks with any."""
    return {task["task"]: found for task in record["tasks"] if (found := task.get("continuation")) is not None}


def _panels(record: DemoRecord) -> list[OpenLoopPanel]:
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
