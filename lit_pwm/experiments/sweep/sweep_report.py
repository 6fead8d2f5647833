"""The report of a sweep, made from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lit_pwm.experiments.record_types import SweepRecord
from lit_pwm.experiments.report import RunRecordSection, build_report
from lit_pwm.experiments.report.comparison import (
    ComparisonSection,
    TasksSection,
    comparison_table,
    crossed_table,
    kinds_of,
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
from lit_pwm.experiments.report.discovery import DiscoverySection, discovery_tables
from lit_pwm.experiments.report.grid import Grid
from lit_pwm.experiments.report.run_record import Value
from lit_pwm.experiments.report.tables import Table, markdown_text
from lit_pwm.experiments.sweep.quantities import BY_TASK, COMPUTE_NAMES, WORLD_MODEL_NAMES, is_diagnostic
from lit_pwm.experiments.sweep.record_grid import grid_of, world_models_of
from lit_pwm.experiments.sweep.records import read_records
from lit_pwm.runtime.atomic import replacing
from lit_pwm.runtime.consoles import ResultConsole


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
            "World models", "world-models", world_models_of(grid), WORLD_MODEL_NAMES,
            "Errors after open-loop steps on held-out episodes at the end of pre-training, divided by the variance of "
            "what is predicted; means over seeds. Encoders vary between kinds of models, so that errors of rewards and "
            "of observations decoded by a linear probe are the ones to compare, and those of latents are not. Where "
            "episodes end, the Brier score of the continuation head stands beside that of always saying their rate.",
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
    with replacing(out / "results.md", "The report's tables") as beside:
        beside.write_text(_markdown(grid, name), encoding="utf-8")
    console = console or ResultConsole()
    console.print(replace(comparison_table(grid), title=f"{name}: mean returns, 95 % intervals"))
    for row in contrast_table(component_contrasts(grid)).rows:
        (difference, _), _, (seeds, _), (mean, interval), _, (p, _), (least, _) = row
        tested = "" if seeds == "1" else f", {seeds} seeds, p = {p} (Holm); detectable: {least}"
        console.print(f"{difference}: {mean} ({interval}){tested}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {page}", highlight=False, markup=False)
    return page


def _markdown(grid: Grid, name: str) -> str:
    titled = [(f"{title}:\n\n{table.markdown()}") for title, table in _tables(grid).items()]
    return "\n".join([f"## {markdown_text(name)}\n", *titled])


def _tables(grid: Grid) -> dict[str, Table]:
    """Title, as Markdown → table."""
    tables: dict[str, Table] = {}
    if (crossed := crossed_table(grid)) is not None:
        tables["Mean return over tasks (95 % t interval over seeds)"] = crossed
    tables["Over all tasks"] = comparison_table(grid)
    tables |= {markdown_text(title): table for title, table in contrast_tables(grid).items()}
    tables |= {f"By task, {markdown_text(kind)} checkpoint": task_table(grid, kind) for kind in kinds_of(grid)}
    tables |= {markdown_text(title): table for title, table in discovery_tables(grid).items()}
    names = [name for name in COMPUTE_NAMES if any(name in run.figures for run in grid.runs)]
    if names:
        tables["Compute (ratio to the first cell's)"] = figures_table(grid, names)
    models = world_models_of(grid)
    names = [name for name in WORLD_MODEL_NAMES if any(name in run.figures for run in models.runs)]
    if names:
        tables["World models, open loop (ratio to the first)"] = figures_table(models, names)
    for figure in BY_TASK:
        if figure in names:
            tables[f"World models, {figure}"] = figure_by_task(models, figure)
            if len(models.cells) > 1:
                tables[f"World models, {figure}, {PAIRED_RATIO}"] = ratios_by_task(models, figure)
    return tables


def _run_record(records: Sequence[SweepRecord]) -> Mapping[str, Mapping[str, Value]]:
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
