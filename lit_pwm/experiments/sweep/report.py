"""The report of a sweep, made from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_pwm.experiments.report import RunRecordSection, build_report
from lit_pwm.experiments.report.comparison import (
    ComparisonSection,
    TasksSection,
    comparison_table,
    crossed_table,
    kinds_of,
    markdown,
    task_table,
)
from lit_pwm.experiments.report.contrasts import ContrastsSection, component_contrasts, contrast_table, contrast_tables
from lit_pwm.experiments.report.costs import (
    PAIRED_RATIO,
    CostCurvesSection,
    FiguresSection,
    figure_by_task,
    figures_table,
    ratios_by_task,
)
from lit_pwm.experiments.report.discovery import DiscoverySection, all_or_nothing, discovery_tables
from lit_pwm.experiments.report.grid import Grid, RunResult
from lit_pwm.experiments.report.markup import markdown_text
from lit_pwm.experiments.sweep.quantities import BY_TASK, COMPUTE_NAMES, OPEN_LOOP_NAMES, figures_of, is_diagnostic
from lit_pwm.experiments.sweep.records import read_records
from lit_pwm.runtime.atomic import replacing
from lit_pwm.runtime.consoles import ResultConsole

NOT_COMPARED = ("task", "seed")
"""Axes that are strata and runs; every other axis is compared."""


def grid_of(records: Sequence[Mapping[str, Any]]) -> Grid:
    """The grid of a sweep's records, as `read_records` gives them."""
    first = records[0]
    labels: dict[str, dict[str, None]] = {axis: {} for axis in first["axes"] if axis not in NOT_COMPARED}
    for record in records:
        for axis in labels:
            labels[axis] |= dict.fromkeys(record["axes"][axis])
    runs = []
    for record in records:
        rows = record["policy"]["curve"]["rows"] if "policy" in record else []
        columns = record["policy"]["curve"]["columns"] if "policy" in record else []
        tasks = dict.fromkeys(task for found in record["returns"].values() for task in found["tasks"])
        for task in tasks:
            runs.append(
                RunResult(
                    cell=tuple(record["labels"][axis] for axis in labels),
                    task=task,
                    seed=record["labels"].get("seed", "0"),
                    returns={
                        kind: found["tasks"].get(task, {}).get("returns", ())
                        for kind, found in record["returns"].items()
                    },
                    curve={name: [row[i] for row in rows] for i, name in enumerate(columns)},
                    figures=figures_of(record, task),
                )
            )
    return Grid({axis: list(found) for axis, found in labels.items()}, runs, _thresholds(records, runs))


def _thresholds(records: Sequence[Mapping[str, Any]], runs: Sequence[RunResult]) -> dict[str, float]:
    """Task → the return from which an episode found it: as the sweep file says, else where returns show it."""
    returns: dict[str, list[float]] = {}
    for run in runs:
        returns.setdefault(run.task, []).extend(next(iter(run.returns.values()), ()))
    shown = {task: all_or_nothing(values) for task, values in returns.items()}
    said = {task: value for record in records for task, value in record.get("discovery", {}).items() if task in returns}
    return {task: value for task, value in (shown | said).items() if value is not None}


def world_models_of(grid: Grid) -> Grid:
    """The grid of world models alone, where they are an axis."""
    return grid.along("world_model") if "world_model" in grid.axes else grid


def report_sweep(paths: Sequence[Path], out: Path, console: Console | None = None) -> Path:
    """Make the report of a sweep and print its table.

    Args:
        paths: the sweep's records.
        out: the report's folder: `index.html`, its `assets/`, and the tables as `results.md`.
        console: where the table goes.

    Returns:
        The path of the page.

    Raises:
        LitPWMError: a record cannot be read, or records are of different sweeps.
    """
    records = read_records(sorted(paths))
    grid = grid_of(records)
    name = records[0]["sweep"]
    diagnostics = sorted({key for run in grid.runs for key in run.figures if is_diagnostic(key)})
    sections = [
        ComparisonSection(grid),
        ContrastsSection(grid),
        TasksSection(grid),
        DiscoverySection(grid),
        CostCurvesSection(grid),
        FiguresSection(
            "Compute", "compute", grid, COMPUTE_NAMES,
            "Mean over runs; below it the ratio to the first cell's. FLOPs, network evaluations (NFE) and seconds are "
            "those of one update.",
        ),
        FiguresSection(
            "World models", "world-models", world_models_of(grid), OPEN_LOOP_NAMES,
            "Errors after open-loop steps on held-out episodes at the end of pre-training, divided by the variance of "
            "what is predicted; means over seeds. Encoders vary between kinds of models, so that errors of rewards and "
            "of observations decoded by a linear probe are the ones to compare, and those of latents are not.",
            by_task=BY_TASK,
        ),
        FiguresSection(
            "Diagnostics", "diagnostics", grid, diagnostics,
            "At the end of training, mean over runs and tasks. A policy whose imagined return exceeds the real one "
            "exploits its model.", ratios=False,
        ),
        RunRecordSection(_run_record(records)),
    ]  # fmt: skip
    page = build_report(
        sections,
        out,
        title=f"lit_pwm: {name}",
        lead="Every cell of the sweep beside the others, from its records alone.",
        facts={"cells": str(len(grid.cells)), "tasks": str(len(grid.tasks)), "runs": str(len(records))},
    )
    head, rows = comparison_table(grid)
    with replacing(out / "results.md", "The report's tables") as beside:
        beside.write_text(_markdown(grid, name), encoding="utf-8")
    console = console or ResultConsole()
    shown = Table(title=Text(f"{name}: mean returns, 95 % intervals"), title_justify="left", show_lines=True)
    for number, heading in enumerate(head):
        shown.add_column(Text(heading), justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in rows:
        shown.add_row(*(Text(f"{text}\n{small}" if small else text) for text, small in row))
    console.print(shown)
    for (name, _), _, (seeds, _), (mean, interval), _, (p, _), (least, _) in contrast_table(component_contrasts(grid))[
        1
    ]:
        tested = "" if seeds == "1" else f", {seeds} seeds, p = {p} (Holm); detectable: {least}"
        console.print(f"{name}: {mean} ({interval}){tested}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {page}", highlight=False, markup=False)
    return page


def _markdown(grid: Grid, name: str) -> str:
    parts = [f"## {markdown_text(name)}\n"]
    if (crossed := crossed_table(grid)) is not None:
        parts.append("Mean return over tasks (95 % t interval over seeds):\n\n" + markdown(*crossed))
    parts.append("Over all tasks:\n\n" + markdown(*comparison_table(grid)))
    parts += [f"{markdown_text(title)}:\n\n" + markdown(*table) for title, table in contrast_tables(grid).items()]
    for kind in kinds_of(grid):
        parts.append(f"By task, {markdown_text(kind)} checkpoint:\n\n" + markdown(*task_table(grid, kind)))
    parts += [f"{markdown_text(title)}:\n\n" + markdown(*table) for title, table in discovery_tables(grid).items()]
    names = [name for name in COMPUTE_NAMES if any(name in run.figures for run in grid.runs)]
    if names:
        parts.append("Compute (ratio to the first cell's):\n\n" + markdown(*figures_table(grid, names)))
    models = world_models_of(grid)
    names = [name for name in OPEN_LOOP_NAMES if any(name in run.figures for run in models.runs)]
    if names:
        parts.append("World models, open loop (ratio to the first):\n\n" + markdown(*figures_table(models, names)))
    for figure in BY_TASK:
        if figure in names:
            parts.append(f"World models, {figure}:\n\n" + markdown(*figure_by_task(models, figure)))
            if len(models.cells) > 1:
                parts.append(f"World models, {figure}, {PAIRED_RATIO}:\n\n" + markdown(*ratios_by_task(models, figure)))
    return "\n".join(parts)


def _run_record(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    last = records[-1]
    seconds = {
        (stage, cell["command"]): cell["seconds"] for record in records for stage, cell in record["cells"].items()
    }
    totals: dict[str, float] = {}
    for (stage, _), spent in seconds.items():
        totals[stage] = totals.get(stage, 0.0) + spent
    return {
        "Sweep": {"name": last["sweep"], "axes": last["axes"], "records": len(records)},
        "Commands of one cell": {stage: cell["command"] for stage, cell in last["cells"].items()},
        "Process hours": {stage: f"{spent / 3600:.2f}" for stage, spent in totals.items()},
        "Versions": last["versions"],
    }
