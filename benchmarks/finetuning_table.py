"""The tables and the figure of the fine-tuning study, and whether its criteria hold, from the records alone.

    python benchmarks/finetuning_table.py [--results DIR]

Of the committed records they go to docs/finetuning_study.md; of others they are printed. No number on the page between
its markers is typed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from finetuning_figure import figure
from finetuning_study import ARMS, RESULTS
from pages import DOCS, markdown, publish
from policy_records import NONE, Arms, Record, Records, costs, difference, minutes, over_seeds, ratio, read, returns

from lit_pwm.experiments.report.figures import as_svg

PAGE, FIGURE = DOCS / "finetuning_study.md", DOCS / "finetuning_study.svg"
MEASURES = {
    "decoded_error": "decoded error at 16 steps",
    "reward_cross_entropy": "reward cross-entropy",
    "reward_correlation": "reward correlation",
}
PAIRS = (*((arm, "frozen") for arm in ARMS if arm != "frozen"), ("tuned", "longer"))
"""What is compared with what; a tuned model has made as many updates as the longer one."""
_ALLOWED, _KEPT = 1.05, 0.9


class Criterion(NamedTuple):
    """One line of what the study has to show in a task.

    Attributes:
        name: what is asked.
        value: an arm's mean over seeds, over the frozen model's.
        bound: of the value.
        holds: whether it is on the right side.
    """

    name: str
    value: float
    bound: str
    holds: bool


def of_model(measure: str, when: str = "after") -> Callable[[Record], Any]:
    """What takes a measure of the world model that a policy ended or began with; None of one that began with none."""
    return lambda record: None if record[when] is None else record[when][measure]


def criteria(arms: Arms) -> list[Criterion]:
    """Whether the right loss keeps the frozen model's quality and the broken one loses it, by means over seeds."""

    def over_frozen(arm: str, measure: str) -> float:
        ours, frozen = (
            statistics.mean(of_model(measure)(record) for record in arms[name].values()) for name in (arm, "frozen")
        )
        return ours / frozen

    found = []
    for arm, says, kept in (("tuned", "keeps", True), ("broken", "loses", False)):
        for measure, name in MEASURES.items():
            if not kept and measure == "decoded_error":
                continue  # a broken reward need not harm the dynamics
            value = over_frozen(arm, measure)
            is_error = measure != "reward_correlation"
            is_kept = value <= _ALLOWED if is_error else value > _KEPT
            signs = ("≤" if kept else ">", _ALLOWED) if is_error else (">" if kept else "≤", _KEPT)
            found.append(Criterion(f"{arm} {says} the {name}", value, f"{signs[0]} {signs[1]}", is_kept == kept))
    return found


def _rows(records: Records) -> Iterator[tuple[str, str, Arms]]:
    return ((task, arm, arms) for task, arms in records.items() for arm in ARMS if arm in arms)


def returns_table(records: Records) -> str:
    """A row for each task and arm."""
    head = ["task", "arm", "seeds", "pre-training + updates", "return, last", "return, best", "FLOPs", "CPU minutes"]
    rows = []
    for task, arm, arms in _rows(records):
        own = arms[arm]
        first = next(iter(own.values()))
        both = [over_seeds(own, returns(kind)) for kind in ("last", "best")]
        updates = f"{first['model_updates']} + {first['updates']}"
        rows.append([task, arm, str(len(own)), updates, *both, *costs(list(own.values()))])
    return markdown(head, rows, left=(0, 1))


def differences_table(records: Records) -> str:
    """A row for each task and pair: differences of returns at equal seeds, and what could have been seen."""
    rows = [
        [task, f"{arm} − {other}"]
        + [cell for kind in ("last", "best") for cell in difference(arms, arm, other, returns(kind))]
        for task, arm, other, arms in _pairs(records)
    ]
    return markdown(["task", "difference", "last", "detectable", "best", "detectable"], rows, left=(0, 1))


def _pairs(records: Records) -> Iterator[tuple[str, str, str, Arms]]:
    return (
        (task, arm, other, arms)
        for task, arms in records.items()
        for arm, other in PAIRS
        if arm in arms and other in arms
    )


def models_table(records: Records) -> str:
    """A row for each task and arm: the world model's errors on held-out slices before and after."""
    head = ["task", "arm", *(f"{name}, {when}" for name in MEASURES.values() for when in ("before", "after"))]
    rows = [
        [task, arm]
        + [over_seeds(arms[arm], of_model(measure, when), 3) for measure in MEASURES for when in ("before", "after")]
        for task, arm, arms in _rows(records)
    ]
    return markdown(head, rows, left=(0, 1))


def ratios_table(records: Records) -> str:
    """A row for each task and pair: the model that an arm ended with over the other's of the same seed."""
    rows = [
        [task, f"{arm} ÷ {other}", *(ratio(arms, arm, other, of_model(measure)) for measure in MEASURES)]
        for task, arm, other, arms in _pairs(records)
    ]
    return markdown(["task", "models", *MEASURES.values()], rows, left=(0, 1))


def criteria_table(records: Records) -> str:
    """A row for each task and criterion, of the tasks that have the arms that it takes."""
    rows = [
        [task, one.name, f"{one.value:.3f}", one.bound, "yes" if one.holds else "NO"]
        for task, arms in records.items()
        if {"frozen", "tuned", "broken"} <= set(arms)
        for one in criteria(arms)
    ]
    return markdown(["task", "criterion", "mean ÷ frozen's", "bound", "holds"], rows, left=(0, 1))


def sections(records: Records) -> dict[str, str]:
    """Name of a page's markers → what stands between them."""
    if not records:
        return dict.fromkeys(("criteria", "returns", "models", "ratios"), NONE)
    return {
        "criteria": criteria_table(records),
        "returns": f"{returns_table(records)}\n\n{differences_table(records)}\n\n{minutes(records)}",
        "models": f"{models_table(records)}\n\n![Each seed's return and its model's errors, by arm]({FIGURE.name})",
        "ratios": ratios_table(records),
    }


def drawn(folder: Path) -> str | None:
    """The figure of a folder of records, if it has any."""
    records = read(folder)
    return as_svg(figure(records)) if records else None


def main() -> None:
    publish(__doc__, RESULTS, PAGE, lambda folder: sections(read(folder)), FIGURE, drawn)


if __name__ == "__main__":
    main()
