"""The factorial's tables and figures in README.md and docs/factorial.md, from the committed records alone.

    python benchmarks/factorial_table.py

The records are those of `lit-pwm sweep configs/sweeps/factorial.yaml --records benchmarks/results/factorial`, and of
the same with `--set rollouts=64 --records benchmarks/results/factorial_64`; tables are those of `lit-pwm report`, and
more of its differences. No number in them is typed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.stats
from pages import markdown, put

from lit_pwm.cli.main import run
from lit_pwm.experiments.report.contrasts import Contrast, between_kinds, between_labels, contrast_table
from lit_pwm.experiments.report.discovery import discovery_contrasts, discovery_table
from lit_pwm.experiments.report.grid import Grid, RunResult
from lit_pwm.experiments.sweep.record_grid import grid_of
from lit_pwm.experiments.sweep.records import read_records

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "factorial.md"
IN_README = (
    "Mean return over tasks",
    "World models, decoded error, 16 steps, ",
    "World models, reward error, 16 steps, ",
)
ON_PAGE = ("Mean return over tasks", "Over all tasks", "By task", "Compute", "World models")
AT_64 = ("Mean return over tasks", "By task, best checkpoint")
PAIRS = (
    ("world_model", "flow", "mlp"),
    ("world_model", "refinement", "mlp"),
    ("world_model", "flow", "refinement"),
    ("policy", "flow", "mlp"),
)


def report(records: str) -> tuple[str, str]:
    """What `lit-pwm report` makes of a folder of records: its tables, and its drawing of the means."""
    with tempfile.TemporaryDirectory() as folder:
        if code := run(["report", str(RESULTS / records), "--out", folder]):
            raise SystemExit(code)
        drawing = (Path(folder) / "assets" / "comparison-means.svg").read_text(encoding="utf-8")
        return (Path(folder) / "results.md").read_text(encoding="utf-8").split("\n", 2)[2].strip(), drawing


def some(text: str, heads: tuple[str, ...]) -> str:
    """The tables that have these headings."""
    blocks = text.split("\n\n")
    found = [i for i, block in enumerate(blocks) if block.startswith(heads)]
    return "\n\n".join(part for i in found for part in blocks[i : i + 2])  # each with the table after it


def grids() -> dict[int, Grid]:
    """Rollouts → the grid of the records."""
    folders = {256: "factorial", 64: "factorial_64"}
    return {n: grid_of(read_records(sorted((RESULTS / name).glob("*.json")))) for n, name in folders.items()}


def rows_of(contrasts: Iterable[Contrast | None]) -> str:
    """The product's table of these contrasts, corrected over them all."""
    return contrast_table([contrast for contrast in contrasts if contrast is not None]).markdown().strip()


def components(found: dict[int, Grid]) -> str:
    """Differences between cells that differ in one component."""
    return rows_of(
        between_labels(grid, *pair, kind, f"{kind}, {rollouts} rollouts")
        for kind in ("best", "last")
        for rollouts, grid in found.items()
        for pair in PAIRS
    )


def sampled(found: dict[int, Grid]) -> str:
    """What acting with noise changes, of the best checkpoints: in cup-catch, and over all tasks."""
    return rows_of(
        between_kinds(grid, "sampled", "best", "policy", policy, f"{place}, {rollouts} rollouts", tasks)
        for place, tasks in (("cup-catch", ("cup-catch",)), ("all tasks", ()))
        for rollouts, grid in found.items()
        for policy in ("mlp", "flow")
    )


def catches(found: dict[int, Grid]) -> str:
    """How often cup-catch is found, and the differences of it; and how many policies end with a catch imagined."""
    parts = []
    for rollouts, grid in found.items():
        parts.append(f"Best checkpoints, {rollouts} rollouts, an episode from {grid.thresholds['cup-catch']:.0f} on:")
        parts.append(discovery_table(grid, "cup-catch", "best").markdown().strip())
    parts.append("Differences of the share of episodes that find it:")
    parts.append(
        rows_of(
            Contrast(f"{contrast.name}, {rollouts} rollouts", contrast.differences, contrast.pairs, contrast.digits)
            for rollouts, grid in found.items()
            for contrast in discovery_contrasts(grid, "cup-catch", "best")
        )
    )
    parts.append(
        "Policies that end with an imagined return (`train/imagined_return`) above 7; most others stay below 3.5:"
    )
    return "\n\n".join([*parts, imagined()])


def imagined() -> str:
    """How many policies of cup-catch end with an imagined return that only a catch brings."""
    rows = []
    for records, rollouts in (("factorial", 256), ("factorial_64", 64)):
        found: dict[str, list[bool]] = {"mlp": [], "flow": []}
        for path in (RESULTS / records).glob("*task=cup-catch*.json"):
            record = json.loads(path.read_text())
            found[record["labels"]["policy"]].append(record["policy"]["final"]["train/imagined_return"] > 7)
        rows.append([f"{rollouts} rollouts", *(f"{sum(values)} of {len(values)}" for values in found.values())])
    return markdown(["policies of cup-catch with a catch in imagination", "mlp", "flow"], rows)


def other_data(at_64: Grid) -> str:
    """The cells with MLP policies beside the same on another collection of data."""
    earlier = json.loads((RESULTS / "factorial_64_other_data.json").read_text())["returns"]["best"]
    runs = [
        RunResult((model, "mlp"), task, seed, {"best": returns})
        for model, tasks in earlier.items()
        for task, seeds in tasks.items()
        for seed, returns in seeds.items()
    ]
    other = Grid(at_64.axes, runs)
    rows = []
    for cell in other.cells:
        means = [grid.estimate(cell, "best") for grid in (other, at_64)]
        pooled = [
            scipy.stats.trim_mean([x for task in grid.scores(cell, "best").values() for x in task.values()], 0.25)
            for grid in (other, at_64)
        ]
        shown = [f"{m.value:.0f} ({m.interval.low:.0f} to {m.interval.high:.0f})" for m in means if m and m.interval]
        per_seed = [[np.mean([t[s] for t in g.scores(cell, "best").values()]) for s in "01234"] for g in (other, at_64)]
        welch = scipy.stats.ttest_ind(per_seed[1], per_seed[0], equal_var=False)
        low, high = welch.confidence_interval(0.95)
        moved = np.mean(per_seed[1]) - np.mean(per_seed[0])
        rows.append(
            [" / ".join(cell), *shown, f"{moved:+.0f} ({low:+.0f} to {high:+.0f})", f"{pooled[1] - pooled[0]:+.0f}"]
        )
    head = ["cell", "one collection", "another", "moved by (Welch's 95 %)", "IQM pooled over tasks moved by"]
    return markdown(head, rows)


def main() -> None:
    found = grids()
    (text, drawing), (at_64, drawing_64) = (report(records) for records in ("factorial", "factorial_64"))
    for figure, content in (("factorial.svg", drawing), ("factorial_64.svg", drawing_64)):
        (ROOT / "docs" / figure).write_text(content, encoding="utf-8")
    put(PAGE, "factorial", some(text, ON_PAGE))
    put(PAGE, "64 rollouts", some(at_64, AT_64))
    put(PAGE, "paired", components(found))
    put(PAGE, "sampled", sampled(found))
    put(PAGE, "catches", catches(found))
    put(PAGE, "other data", other_data(found[64]))
    put(ROOT / "README.md", "factorial", some(text, IN_README))


if __name__ == "__main__":
    main()
