"""The tables and the figure of the study on stochastic dynamics, made from its records."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from pages import DOCS, markdown, put
from stochastic_contrasts import FLOW, contrasts

from lit_pwm.errors import LitPWMError

matplotlib.use("Agg")
from matplotlib import pyplot

RESULTS = Path(__file__).parent / "results" / "stochastic"
PAGE = DOCS / "stochastic_dynamics.md"
_HEADINGS = (
    "arm", "seeds", "parameters", "energy score 1", "4", "16", "spread / truth 1", "4", "16", "least, greatest",
    "spread / error 16", "probe error",
)  # fmt: skip


def write_table(results: Path) -> None:
    """Print the table of the records; it and the figure go to their page, or beside records that are not committed."""
    _place(results, "stochastic", "table.md", table(results / "records"))
    figure(results / "records", (DOCS if _are_committed(results) else results) / "stochastic.png")
    write_contrasts(results)


def write_policy_table(results: Path) -> None:
    """As `write_table`, of the policies, without a figure."""
    _place(results, "stochastic policies", "policies.md", policy_table(results / "policies"))
    write_contrasts(results)


def write_contrasts(results: Path) -> None:
    """As `write_table`, of the sampled flow's differences from its controls; nothing where it has no record."""
    tasks = _read(results / "records", "arm") if any((results / "records").glob("*.json")) else {}
    parts = [f"### {task}\n\n{contrasts(results, task)}\n" for task, arms in tasks.items() if FLOW in arms]
    if parts:
        _place(results, "stochastic contrasts", "contrasts.md", "\n".join(parts))


def _are_committed(results: Path) -> bool:
    return results.resolve() == RESULTS.resolve()


def _place(results: Path, name: str, file: str, text: str) -> None:
    """Print a table; it goes between the page's markers of that name, or to a file beside records of one's own."""
    print(text)
    if _are_committed(results):
        put(PAGE, name, text.strip())
    else:
        (results / file).write_text(text)


def figure(records: Path, path: Path) -> None:
    """A row for each task: energy scores at 1, 4 and 16 steps, one dot a seed, and the spread over the simulator's."""
    tasks = _read(records, "arm")
    height = sum(0.33 * len(arms) + 1.6 for arms in tasks.values())
    drawn, rows = pyplot.subplots(
        len(tasks), 4, figsize=(13, height), width_ratios=[1, 1, 1, 1.5], squeeze=False, layout="constrained"
    )
    for (task, arms), axes in zip(tasks.items(), rows, strict=True):
        order = sorted((arm for arm in arms if arm != "climatology"), key=lambda arm: -_energy(arms[arm], "16").mean())
        for axis, k in zip(axes[:3], ("1", "4", "16"), strict=True):
            for row, arm in enumerate(order):
                values, colour = _energy(arms[arm], k), _colour(arm)
                axis.plot(values, [row] * len(values), "o", color=colour, alpha=0.5)
                axis.plot(values.mean(), row, "|", color=colour, markersize=14, markeredgewidth=3)
            axis.set(title=f"{k} step{'s' * (k != '1')}", xlabel="energy score", yticks=range(len(order)))
            axis.set_yticklabels(order if k == "1" else [])
        axes[3].set_prop_cycle(color=matplotlib.color_sequences["tab20"])
        for arm in (arm for arm in reversed(order) if arm != "oracle" and np.any(arms[arm][0]["spread_ratio"])):
            spread = np.mean([record["spread_ratio"] for record in arms[arm]], axis=0)
            axes[3].plot(range(1, len(spread) + 1), spread, _STYLES[_colour(arm)], label=arm)
        axes[3].axhline(1, color="black", lw=0.8, label="calibrated")
        ticks = (0.25, 0.5, 1, 2, 4)
        axes[3].set(title="spread of samples ÷ the simulator's", xlabel="open-loop steps", yscale="log", yticks=ticks)
        axes[3].set(xticks=(1, 4, 8, 12, 16), yticklabels=ticks)
        axes[3].minorticks_off()
        axes[3].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
        axes[0].set_ylabel(task)
    drawn.savefig(path, dpi=110)
    pyplot.close(drawn)


def _colour(arm: str) -> str:
    """Flows are blue, samplers trained as they are without an ODE orange, what else there is grey."""
    return "tab:blue" if arm.startswith("flow") else "tab:orange" if arm.endswith("-energy") else "grey"


_STYLES = {"tab:blue": "-", "tab:orange": "--", "grey": ":"}


def _energy(runs: list[dict[str, Any]], k: str) -> np.ndarray:
    return np.array([record["energy_score"][k] for record in runs])


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
        parts.append(f"### {task}\n\n{markdown(_HEADINGS, rows, left=range(len(_HEADINGS)))}\n")
    return "\n".join(parts)


def policy_table(records: Path) -> str:
    """A Markdown table for each task: mean return ± standard deviation over seeds, each the mean of its episodes.

    The best come first.

    Raises:
        LitPWMError: the folder holds no record.
    """
    parts = []
    for task, models in _read(records, "model").items():
        head, rows = ["world model", "seeds", "return, best", "return, last"], []
        for model in sorted(models, key=lambda model: -np.mean([np.mean(run["best"]) for run in models[model]])):
            runs = models[model]
            means = {name: [float(np.mean(run[name])) for run in runs] for name in ("best", "last")}
            rows.append([model, str(len(runs)), *(_over_seeds(values, 0) for values in means.values())])
        parts.append(f"### {task}\n\n{markdown(head, rows, left=range(len(head)))}\n")
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
