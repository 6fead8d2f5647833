"""The tables and the figures of the study of terminations, and whether its criteria hold, from the records alone.

    python benchmarks/termination_table.py [--results DIR]

Of the committed records they go to docs/terminations.md; of others they are printed. No number on the page between its
markers is typed.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from joint_table import controls_table
from pages import DOCS, markdown, publish
from policy_records import NONE, Arms, Records, costs, difference, minutes, over_seeds, read, returns
from termination_arms import ARMS, HEAD, IGNORING, TASKS
from termination_figure import figure
from termination_study import RESULTS

from lit_pwm.experiments.report.figures import as_svg
from lit_pwm.experiments.report.grid import mean_estimate
from lit_pwm.measures.statistics import paired_differences, t_interval

PAGE, FIGURE = DOCS / "terminations.md", DOCS / "terminations.svg"
KINDS = ("last", "best")
Heads = dict[str, dict[int, dict[str, Any]]]
"""Task → seed → the scores of its world model's head."""


def read_heads(folder: Path) -> Heads:
    """The scores of all world models' heads."""
    found: Heads = {}
    for path in sorted((folder / "models").glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["task"], {})[record["seed"]] = record
    return found


def in_order(records: Records) -> dict[str, Arms]:
    """The study's tasks with records, in its order."""
    return {task: records[task] for task in TASKS if task in records}


def returns_table(records: Records) -> str:
    """A row for each task and arm; the head's with the difference from the ignoring arm at equal seeds."""
    head = ["task", "arm", "seeds", "return, last", "return, best", "last − ignoring", "detectable"]
    head += ["FLOPs", "CPU minutes"]
    rows = []
    for task, arms in in_order(records).items():
        for arm in (name for name in ARMS if name in arms):
            compared = difference(arms, HEAD, IGNORING, returns("last")) if arm == HEAD else ("", "")
            both = [over_seeds(arms[arm], returns(kind)) for kind in KINDS]
            rows.append([task, arm, str(len(arms[arm])), *both, *compared, *costs(list(arms[arm].values()))])
    return markdown(head, rows, left=(0, 1))


def gaps(arms: Arms, kind: str) -> list[float]:
    """Seed by seed, by how much the head's return exceeds the ignoring arm's."""
    ours, theirs = ({str(seed): returns(kind)(one) for seed, one in arms[name].items()} for name in (HEAD, IGNORING))
    return list(paired_differences({"": ours}, {"": theirs}).values())


def criteria_table(records: Records, heads: Heads) -> str:
    """A row for each task and criterion."""
    rows = []
    for task, arms in in_order(records).items():
        if set(arms) >= {HEAD, IGNORING}:
            for kind in KINDS:
                low = None if (interval := t_interval(gaps(arms, kind))) is None else interval.low
                told = "–" if low is None else f"{low:+.0f}"
                rows.append([task, f"lower end of the paired interval above 0, {kind}", told, _verdict(low, 0)])
        for seed, one in heads.get(task, {}).items():
            told = f"{one['brier']:.4f} of {one['brier_base_rate']:.4f}"
            held = _verdict(-one["brier"], -one["brier_base_rate"])
            rows.append([task, f"Brier score below the base rate's, seed {seed}", told, held])
    return markdown(["task", "criterion", "value", "holds"], rows, left=(0, 1))


def _verdict(value: float | None, bound: float) -> str:
    return "yes" if value is not None and value > bound else "NO"


def heads_table(heads: Heads) -> str:
    """A row for each task: means over seeds, and the ratio of scores."""
    rows = []
    for task in (name for name in TASKS if name in heads):
        own = list(heads[task].values())
        scores = [mean_estimate([one[key] for one in own]) for key in ("brier", "brier_base_rate")]
        ratio = mean_estimate([one["brier"] / one["brier_base_rate"] for one in own])
        cells = ["{} ({})".format(*found.shown(4)) for found in scores if found is not None]
        cells += ["{} ({})".format(*ratio.shown(2))] if ratio is not None else []
        ends, number = (f"{statistics.mean(one[key] for one in own):,.0f}" for key in ("ends", "transitions"))
        rows.append([task, str(len(own)), ends, number, f"{own[0]['base_rate']:.4f}", *cells])
    head = ["task", "world models", "ends", "in transitions", "training rate", "Brier score", "base rate's", "ratio"]
    return markdown(head, rows)


def sections(folder: Path) -> dict[str, str]:
    """Name of a page's markers → what stands between them."""
    records, heads = read(folder), read_heads(folder)
    if not records:
        return dict.fromkeys(("criteria", "returns", "heads"), NONE)
    controls = {task: json.loads((folder / "controls" / f"{task}.json").read_text()) for task in in_order(records)}
    told = [f"{task}:\n\n{controls_table(found)}" for task, found in controls.items()]
    spent = [f"{task}: {minutes({task: arms})}" for task, arms in in_order(records).items()]
    drawn = f"![Learning curves by arm, and how often episodes end that are foreseen to]({FIGURE.name})"
    return {
        "criteria": criteria_table(records, heads),
        "returns": "\n\n".join([returns_table(records), *told, *spent]),
        "heads": f"{heads_table(heads)}\n\n{drawn}",
    }


def drawn(folder: Path) -> str | None:
    """The figure of a folder of records, if it has any."""
    records = read(folder)
    return as_svg(figure(in_order(records), read_heads(folder))) if records else None


def main() -> None:
    publish(__doc__, RESULTS, PAGE, sections, FIGURE, drawn)


if __name__ == "__main__":
    main()
