"""The formulation study's tables and figure, from its records alone."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import scipy.stats
from formulation_arms import ARMS
from pages import DOCS, FLOW_PAGE, markdown, put

from lit_pwm.experiments.report.grid import geometric_estimate, mean_estimate
from lit_pwm.measures.statistics import holm, t_probability

mpl.use("Agg")
import matplotlib.pyplot as plt

STEPS = (1, 4, 16)
Records = dict[str, dict[int, dict[str, Any]]]


def read(results: Path) -> Records:
    """arm → seed → record."""
    records: Records = defaultdict(dict)
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text())
        records[record["arm"]][record["seed"]] = record
    return {name: records[name] for name in ARMS if name in records}


def tasks_of(records: Records) -> list[str]:
    scores = next(iter(next(iter(records.values())).values()))["scores"]
    return [key.split("/")[1] for key in scores if key.startswith("decoded_error_16/")]


def log_ratios(records: Records, arm: str, other: str, metric: str) -> list[float]:
    """Logarithm of an arm's score over another's of the same seed, mean over tasks where it has them; one a seed."""
    found = []
    for seed, record in records[arm].items():
        if seed in records[other]:
            scores, others = record["scores"], records[other][seed]["scores"]
            names = [f"{metric}/{task}" for task in tasks_of(records) if f"{metric}/{task}" in scores] or [metric]
            found.append(float(np.mean([np.log(scores[name] / others[name]) for name in names])))
    return found


def ratios(records: Records, arm: str, step: int) -> np.ndarray:
    """Decoded error over the MLP's of the same seed: geometric mean over tasks, one for each seed."""
    return np.exp(log_ratios(records, arm, "mlp", f"decoded_error_{step}"))


def spread(values: object, digits: int = 2) -> str:
    values = np.asarray(values)
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def table(records: Records) -> str:
    mlp = next(iter(records["mlp"].values()))
    head = [
        "arm", "width", "parameters", "FLOPs", "total FLOPs", "decoded error ÷ MLP's at 1 / 4 / 16 steps",
        "latent error 1 / 4 / 16", "reward error 1 / 4 / 16", "latent variance",
    ]  # fmt: skip
    rows = []
    for name, by_seed in records.items():
        some = next(iter(by_seed.values()))

        def mean(key: str, by_seed: dict[int, dict[str, Any]] = by_seed) -> float:
            return float(np.mean([r["scores"][key] for r in by_seed.values()]))

        flops = some["flops_per_update"] / mlp["flops_per_update"]
        total = flops * some["updates"] / mlp["updates"]
        bold = "**" if some["control"] else ""
        rows.append([
            f"{bold}{name}{bold}: {ARMS[name].what}",
            str(some["hidden_dim"]), f"{some['parameters'] / mlp['parameters'] - 1:+.1%}",
            f"{flops:.2f}", f"{total:.2f}",
            " / ".join(spread(ratios(records, name, k)) for k in STEPS),
            " / ".join(f"{mean(f'latent_error_{k}'):.3f}" for k in STEPS),
            " / ".join(f"{mean(f'reward_error_{k}'):.2f}" for k in STEPS),
            f"{mean('latent_variance_1'):.4f}",
        ])  # fmt: skip
    seeds = " to ".join(map(str, sorted({len(by_seed) for by_seed in records.values()})))
    below = f"Seeds: {seeds}; tasks: {', '.join(tasks_of(records))}. Controls in bold."
    return f"{markdown(head, rows, left=(0, 5, 6, 7))}\n\n{below}"


def text(records: Records) -> str:
    """All tables of the world models."""
    return "\n\n".join((
        table(records),
        "Decoded error at 16 steps (1: the mean observation's) by task:",
        table_by_task(records),
        "Ratios at the same seeds: geometric mean over tasks and seeds, with the 95 % t interval over seeds of "
        "its logarithm, each row for itself; p values are corrected for the number of rows:",
        table_of_pairs(records),
    ))  # fmt: skip


_FLOWS = ("flow-end", "flow-k4", "flow-velocity", "flow-residual", "flow-matching", "flow-noise-end")
PAIRS = (
    *((arm, "mlp") for arm in ("mlp-wide", "mlp-long", "flow-k1", "refinement", "flow")),
    *(("flow", other) for other in ("mlp-wide", "mlp-long", "flow-k1", "refinement")),
    ("refinement-end", "refinement"),
    *((arm, "flow") for arm in _FLOWS),
)
"""What the page compares: arm, and the arm that it is divided by."""


def table_of_pairs(records: Records) -> str:
    """Ratios of two arms' errors at the same seeds, with intervals over seeds, and Holm's p values at 16 steps."""
    metrics = [*(f"decoded_error_{k}" for k in STEPS), "reward_error_16"]
    pairs = [pair for pair in PAIRS if all(arm in records for arm in pair)]
    tests = [t_probability(log_ratios(records, *pair, "decoded_error_16")) for pair in pairs]
    corrected = holm([1.0 if p is None else p for p in tests])
    rows = []
    for (arm, other), p in zip(pairs, corrected, strict=True):
        shown = [geometric_estimate(log_ratios(records, arm, other, metric)).shown(2) for metric in metrics]
        rows.append([f"{arm} ÷ {other}", *(f"{value} ({small})" for value, small in shown), f"{p:.2g}"])
    head = ["ratio", *(f"decoded error, {k}" for k in STEPS), "reward error, 16", "p, decoded, 16 (Holm)"]
    return markdown(head, rows)


def table_by_task(records: Records) -> str:
    tasks = tasks_of(records)
    rows = [
        [name, *(spread([r["scores"][f"decoded_error_16/{task}"] for r in by_seed.values()]) for task in tasks)]
        for name, by_seed in records.items()
    ]
    return markdown(["arm", *tasks], rows)


def figure(records: Records, path: Path) -> None:
    names = list(records)[::-1]
    fig, axis = plt.subplots(figsize=(7.5, 0.34 * len(names) + 1.2), layout="constrained")
    for y, name in enumerate(names):
        control = next(iter(records[name].values()))["control"]
        values = ratios(records, name, 16)
        colour = "tab:grey" if control else "tab:blue"
        axis.plot(values, [y] * len(values), "o", color=colour, alpha=0.5)
        axis.plot(values.mean(), y, "|", color=colour, markersize=16, markeredgewidth=3)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log")
    ticks = [t for t in (0.5, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 3, 5, 10) if axis.get_xlim()[0] <= t <= axis.get_xlim()[1]]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("error of decoded observations after 16 open-loop steps ÷ the MLP's (same seed)")
    axis.set_title("World models at equal parameters; controls grey, one dot a seed", fontsize=10)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def finalists(records: Records, count: int = 4) -> list[str]:
    """The flows with the least decoded error at 16 steps, of those with as many seeds as the MLP."""
    flows = [
        name
        for name, by_seed in records.items()
        if len(by_seed) == len(records["mlp"]) and not next(iter(by_seed.values()))["control"]
    ]
    return sorted(flows, key=lambda name: float(ratios(records, name, 16).mean()))[:count]


def policy_table(folder: Path) -> str:
    """Mean return over seeds of the best and the last checkpoint, for each arm and task."""
    returns: dict[str, dict[str, dict[int, tuple[float, float]]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        returns[record["arm"]][record["task"]][record["seed"]] = (np.mean(record["best"]), np.mean(record["last"]))
    names = [name for name in ARMS if name in returns]
    tasks = sorted({task for name in names for task in returns[name]})
    rows, means = [], {}
    for name in names:
        seeds = [seed for seed in returns[name][tasks[0]] if all(seed in returns[name][task] for task in tasks)]
        means[name] = [float(np.mean([returns[name][task][seed][0] for task in tasks])) for seed in seeds]
        cells = []
        for task in tasks:
            values = np.array(list(returns[name][task].values()))
            cells.append(f"{spread(values[:, 0], 0)} / {spread(values[:, 1], 0)}" if len(values) else "–")
        estimate = mean_estimate(means[name])
        cells.append("–" if estimate is None else "{} ({})".format(*estimate.shown()))
        rows.append([name, *cells])
    shown = markdown(["world model", *tasks, "mean, best (95 %)"], rows) + (
        "\n\nReturn of the best checkpoint / of the last, mean and standard deviation over seeds; mean over tasks with "
        "its t interval over seeds."
    )
    several = [values for values in means.values() if len(values) > 1]
    if len(several) < 2:
        return shown
    test = scipy.stats.f_oneway(*several)
    return (
        f"{shown}\nThat all {len(means)} world models have one mean: F = {test.statistic:.2f}, p = {test.pvalue:.2f} "
        "(one-way analysis of variance of the seeds' means over tasks, best checkpoints)."
    )


def section_of(results: Path) -> str | None:
    """The section of the page that shows these records: that of the folder's name, if they are the committed ones."""
    name = results.name.replace("_", " ")
    committed = results.resolve().parent == Path(__file__).resolve().parent / "results"
    return name if committed and FLOW_PAGE.exists() and f"<!-- {name} -->" in FLOW_PAGE.read_text() else None


def write_policy_table(results: Path) -> None:
    shown = policy_table(results / "policies")
    print(shown)
    if section := section_of(results):
        put(FLOW_PAGE, f"{section} policies", shown)


def write_tables(results: Path) -> None:
    records = read(results)
    if "mlp" not in records:
        print("No record of the MLP, to which the others are compared: no table.")
        return
    print(text(records))
    if section := section_of(results):
        put(FLOW_PAGE, section, text(records))
        figure(records, DOCS / f"{results.name}.png")
    else:
        (results / "table.md").write_text(text(records) + "\n")
        figure(records, results / "formulation.png")
