"""The tables of the study on stochastic dynamics, made from its records."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from lit_pwm.errors import LitPWMError

_HEADINGS = (
    "arm", "seeds", "parameters", "energy score 1", "4", "16", "spread / truth 1", "4", "16", "least, greatest",
    "spread / error 16", "probe error",
)  # fmt: skip


def table(records: Path) -> str:
    """A Markdown table for each task: mean ± standard deviation over seeds, best energy score at 16 steps first.

    Raises:
        LitPWMError: the folder holds no record.
    """
    tasks = _read(records, "arm")
    parts = []
    for task, arms in tasks.items():
        ordered = sorted(arms, key=lambda arm: np.mean([record["energy_score"]["16"] for record in arms[arm]]))
        rows = [_row(arm, arms[arm]) for arm in ordered]
        lines = [f"| {' | '.join(cells)} |" for cells in (_HEADINGS, ["---"] * len(_HEADINGS), *rows)]
        parts.append(f"## {task}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def policy_table(records: Path) -> str:
    """A Markdown table for each task: mean return ± standard deviation over seeds, each the mean of its episodes.

    Raises:
        LitPWMError: the folder holds no record.
    """
    parts = []
    for task, models in _read(records, "model").items():
        lines = ["| world model | seeds | return, best | return, last |", "| --- | --- | --- | --- |"]
        for model, runs in models.items():
            means = {name: [float(np.mean(run[name])) for run in runs] for name in ("best", "last")}
            lines.append(f"| {model} | {len(runs)} | {' | '.join(_over_seeds(v, 0) for v in means.values())} |")
        parts.append(f"## {task}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _read(records: Path, kind: str) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Records by task and by what they are of, in the order of their names."""
    tasks: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(records.glob("*.json")):
        record = json.loads(path.read_text())
        tasks[record["task"]][record[kind]].append(record)
    if not tasks:
        raise LitPWMError(f"The study's table was asked for of {str(records)!r}, which holds no record. Run the study.")
    return tasks


def _row(arm: str, records: list[dict[str, Any]]) -> list[str]:
    energy = [_over_seeds([record["energy_score"][k] for record in records]) for k in ("1", "4", "16")]
    spread = np.array([record["spread_ratio"] for record in records])
    mean = spread.mean(0)
    of_model = [record for record in records if "parameters" in record]
    return [
        arm,
        str(len(records)),
        str(of_model[0]["parameters"]) if of_model else "–",
        *energy,
        *(_over_seeds(spread[:, k - 1]) for k in (1, 4, 16)),
        f"{mean.min():.3f} to {mean.max():.3f}",
        _over_seeds([record["spread_error_ratio"][-1] for record in records]),
        _over_seeds([record["probe_error"] for record in of_model]) if of_model else "–",
    ]


def _over_seeds(values: Any, digits: int = 3) -> str:
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"
