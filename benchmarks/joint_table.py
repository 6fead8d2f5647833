"""The tables and the figure of the study of joint training, and whether its criteria hold, from the records alone.

    python benchmarks/joint_table.py [--results DIR]

Of the committed records they go to docs/joint_training.md; of others they are printed. No number on the page between
its markers is typed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from joint_figure import figure
from joint_study import ARMS, RESULTS, TASKS
from pages import DOCS, markdown, publish
from policy_records import NONE, Arms, Record, costs, difference, minutes, over_seeds, read, returns

from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.report.figures import as_svg
from lit_pwm.measures.statistics import t_interval

PAGE, FIGURE = DOCS / "joint_training.md", DOCS / "joint_training.svg"
TASK = TASKS[0]
KINDS = ("last", "best")
Controls = dict[str, Any]


def read_controls(folder: Path) -> Controls:
    """The record of what knows no model.

    Raises:
        LitPWMError: there is none.
    """
    path = folder / "controls" / f"{TASK}.json"
    if not path.is_file():
        raise LitPWMError(
            f"The table needs the controls of {TASK} beside the policies' records, and {str(path)!r} is no file. Run "
            f"benchmarks/joint_study.py with the same --results: it skips what there is and measures them."
        )
    return json.loads(path.read_text())


def frozen_of(arm: str) -> str:
    """The arm that a joint one is compared with: of the same dynamics, on a frozen model."""
    return arm.replace("joint-", "frozen-")


def returns_table(arms: Arms) -> str:
    """A row for each arm; joint ones with the difference of last returns from their frozen one's at equal seeds."""
    head = ["arm", "seeds", "pre-training + updates", "return, last", "return, best", "last − frozen", "detectable"]
    head += ["FLOPs", "of which pre-training", "CPU minutes", "pre-training's"]
    rows = []
    for arm in (name for name in ARMS if name in arms):
        own = arms[arm]
        first = next(iter(own.values()))
        other = frozen_of(arm)
        compared = ("", "") if other == arm else difference(arms, arm, other, returns("last"))
        flops, seconds = (_of_pretraining(own, key) for key in ("flops", "cpu_seconds"))
        flops_in_all, own_minutes = costs(list(own.values()))
        rows.append([
            arm, str(len(own)), f"{first['model_updates']} + {first['updates']}",
            *(over_seeds(own, returns(kind)) for kind in KINDS), *compared,
            flops_in_all, f"{flops:.2e}" if flops else "–", own_minutes, f"{seconds / 60:.1f}" if seconds else "–",
        ])  # fmt: skip
    return markdown(head, rows)


def _of_pretraining(arm: dict[int, Record], key: str) -> float:
    return statistics.mean((record["pretraining"] or {key: 0.0})[key] for record in arm.values())


def controls_table(controls: Controls) -> str:
    """A row for each control."""
    data, best = controls["data"], controls["best_constant"]
    action = ", ".join(f"{value:g}" for value in best["action"])
    rows = [
        [f"the data: mean of {data['episodes']} episodes", f"{data['mean']:.0f}"],
        ["the data: best episode", f"{data['best']:.0f}"],
        [f"best of {len(controls['constants'])} constant actions: {action}", f"{best['return']:.0f}"],
    ]
    return markdown(["control", "return"], rows)


def criteria_table(arms: Arms, controls: Controls) -> str:
    """A row for each joint arm and criterion; for the last and for the best checkpoint."""
    rows = []
    for arm in (name for name in ARMS if name.startswith("joint") and name in arms):
        bounds = {"the data's mean": controls["data"]["mean"], "the best constant action": _constant(controls)}
        for name, bound in bounds.items():
            cells = [_is_above(_low(arms[arm], kind), bound, "NO") for kind in KINDS]
            rows.append([arm, f"the interval's lower end is above {name}, {bound:.0f}", *cells])
        if frozen_of(arm) in arms:
            cells = [_is_above(_mean(arms[arm], kind), _mean(arms[frozen_of(arm)], kind) / 2) for kind in KINDS]
            halves = " and ".join(f"{_mean(arms[frozen_of(arm)], kind) / 2:.0f}" for kind in KINDS)
            rows.append([arm, f"the mean is above half of the frozen one's, {halves}", *cells])
    return markdown(["arm", "criterion", *(f"{kind} checkpoint" for kind in KINDS)], rows, left=(0, 1))


def _constant(controls: Controls) -> float:
    return controls["best_constant"]["return"]


def _values(arm: dict[int, Record], kind: str) -> list[float]:
    value: Callable[[Record], float] = returns(kind)
    return [value(record) for record in arm.values()]


def _mean(arm: dict[int, Record], kind: str) -> float:
    return statistics.mean(_values(arm, kind))


def _low(arm: dict[int, Record], kind: str) -> float | None:
    """The lower end of the interval; a single seed has none."""
    interval = t_interval(_values(arm, kind))
    return None if interval is None else interval.low


def _is_above(value: float | None, bound: float, otherwise: str = "not reached") -> str:
    return f"{otherwise} (1 seed)" if value is None else f"{'yes' if value > bound else otherwise} ({value:.0f})"


def sections(folder: Path) -> dict[str, str]:
    """Name of a page's markers → what stands between them.

    Raises:
        LitPWMError: as `read_controls`.
    """
    records = read(folder)
    if TASK not in records:
        return dict.fromkeys(("criteria", "returns", "curves"), NONE)
    arms, controls = records[TASK], read_controls(folder)
    return {
        "criteria": criteria_table(arms, controls),
        "returns": f"{returns_table(arms)}\n\n{controls_table(controls)}\n\n{minutes({TASK: arms})}",
        "curves": f"![Mean return and interval over seeds, against updates and against FLOPs]({FIGURE.name})",
    }


def drawn(folder: Path) -> str | None:
    """The figure of a folder of records, if it has those of the task."""
    records = read(folder)
    return as_svg(figure(records[TASK], read_controls(folder))) if TASK in records else None


def main() -> None:
    publish(__doc__, RESULTS, PAGE, sections, FIGURE, drawn)


if __name__ == "__main__":
    main()
