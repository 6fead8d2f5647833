"""The card's parts that tell of a store by tables and distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lit_pwm.experiments.card.card_content import CardSection, Content, Drawing, Entries, Folded, Numbers, Panels, Words
from lit_pwm.experiments.card.card_figures import (
    DIMENSIONS,
    SATURATED,
    draw_actions,
    draw_lengths,
    draw_observations,
    draw_plane,
    draw_returns,
)
from lit_pwm.experiments.card.store_sample import StoreSample, TaskSample
from lit_pwm.experiments.card.wording import label, printable
from lit_pwm.experiments.report.curves import slug
from lit_pwm.experiments.report.tables import Table

_WIDEST_PLANE = 512
_DEEPEST = 5
_QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


def tasks_section(sample: StoreSample) -> CardSection:
    """All tasks in a table."""
    rows = []
    for task in sample.tasks:
        shortest, longest = int(task.lengths.min()), int(task.lengths.max())
        rows.append(
            [
                printable(task.name),
                f"{len(task.episodes):,}",
                f"{task.transitions:,}",
                f"{shortest:,}" if shortest == longest else f"{shortest:,} to {longest:,}",
                f"{task.terminated.mean():.0%}",
                *_described(task.returns),
                f"{task.obs.shape[1]}",
                f"{task.action.shape[1]}",
            ]
        )
    head = ["task", "episodes", "transitions", "length", "terminated", "return", "least", "greatest", "obs", "action"]
    caption = "Return: mean ± standard deviation of the sums of rewards of episodes."
    if any(not task.whole for task in sample.tasks):
        caption += " Episodes of some tasks are pieces of episodes, whose sums of rewards are no returns: " + ", ".join(
            printable(task.name) for task in sample.tasks if not task.whole
        )
    parts: list[Content] = [Numbers(Table.of(head, rows), caption)]
    if empty := [name for name in sample.store.tasks if name not in {task.name for task in sample.tasks}]:
        parts.append(Words(f"Without episodes: {', '.join(map(printable, empty))}.", is_notice=True))
    return CardSection("Tasks", "tasks", parts)


def returns_section(sample: StoreSample) -> CardSection:
    """Histograms of returns by source, and a table of both."""
    drawn, rows = [], []
    for task in sample.tasks:
        sources = task.by_source()
        what = "return" if task.whole else "sum of rewards of a piece"
        figure = draw_returns(label(task.name), list(map(label, sources)), list(sources.values()), what)
        alt = f"{printable(task.name)}: histogram of {len(task.returns):,} returns, mean {task.returns.mean():,.1f}."
        drawn.append(Drawing(_name("returns", task), figure, alt))
        rows += [
            [printable(task.name), printable(source), f"{len(own):,}", *_described(own)]
            for source, own in list(sources.items())[:20]
        ]
    head = ["task", "source", "episodes", "return", "least", "greatest"]
    table = Numbers(Table.of(head, rows, left=(0, 1)), "Of a task with many sources those with the most episodes.")
    return CardSection("Returns", "returns", [Panels(drawn), Folded("Returns by task and source, in numbers", [table])])


def lengths_section(sample: StoreSample) -> CardSection | None:
    """Lengths and ends of episodes, for tasks in which they differ; None where they do not."""
    drawn = [
        Drawing(
            _name("lengths", task),
            draw_lengths(label(task.name), task.lengths, task.terminated),
            f"{printable(task.name)}: lengths of episodes, {task.terminated.mean():.0%} of which terminated.",
        )
        for task in sample.tasks
        if task.terminated.any() or task.lengths.min() < task.lengths.max()
    ]
    if not drawn:
        return None
    said = Words(
        "Tasks whose episodes end by termination, or differ in length. An episode that did not terminate was cut off "
        "by a time limit, or where its data ends."
    )
    return CardSection("Lengths and ends", "lengths", [said, Panels(drawn)])


def observations_section(sample: StoreSample) -> CardSection:
    """Where observations lie, entry by entry and in the plane of two principal components."""
    kept = sample.statistics
    entries: list[Content] = []
    planes: list[Content] = []
    folded: list[Content] = []
    wide = False
    for task in sample.tasks:
        name, dims = printable(task.name), task.obs.shape[1]
        wide |= dims > DIMENSIONS
        mean, std = kept.obs_mean[task.number, :dims], kept.obs_std[task.number, :dims]
        alt = f"{name}: histograms of {min(dims, DIMENSIONS)} entries of observations."
        entries.append(
            Drawing(_name("observations", task), draw_observations(label(task.name), task.obs, mean, std), alt)
        )
        if (plane := _plane(sample, task, mean, std)) is not None:
            planes.append(plane)
        quantiles = np.quantile(task.obs, _QUANTILES, axis=0)
        rows = [
            [f"{entry}", *(f"{value:.4g}" for value in (mean[entry], std[entry], *quantiles[:, entry]))]
            for entry in range(min(dims, DIMENSIONS))
        ]
        table = Table.of(["entry", "mean", "std", *(f"{q:.0%}" for q in _QUANTILES)], rows)
        folded.append(Folded(f"{name}: entries of observations in numbers", [Numbers(table)]))
    text = (
        "A row for each entry, from four standard deviations below its mean to four above, with what lies beyond at "
        "the ends. Darker is where more observations are."
    )
    of_planes = (
        "The plane of the two directions in which the standardised observations vary most, with the paths of the "
        "example episodes from their start, a dot."
    )
    parts: list[Content] = [Words(text), Words(_drawn(sample))]
    if wide:
        parts.append(Words(f"Of observations with more entries the first {DIMENSIONS} are shown.", is_notice=True))
    parts.append(Panels(entries))
    parts += [Words(of_planes), Panels(planes)] if planes else []
    return CardSection("Coverage of observations", "observations", [*parts, *folded])


def actions_section(sample: StoreSample) -> CardSection:
    """Where actions lie, and how many are at the bounds."""
    drawn, rows = [], []
    for task in sample.tasks:
        name, saturated = printable(task.name), (np.abs(task.action) >= SATURATED).mean()
        alt = f"{name}: histograms of the entries of actions, {saturated:.0%} of which are at their bounds."
        drawn.append(Drawing(_name("actions", task), draw_actions(label(task.name), task.action), alt))
        bounds = sample.store.task_specs.get(task.name, {})
        low, high = (_shown_bounds(bounds.get(key)) for key in ("low", "high"))
        spread = np.quantile(task.action, (0.01, 0.5, 0.99))
        rows.append([name, f"{saturated:.1%}", *(f"{value:.3g}" for value in spread), low or "−1", high or "1"])
    head = ["task", "saturated", "1 %", "median", "99 %", "low", "high"]
    caption = "Low and high: the environment's own bounds, which −1 and 1 stand for."
    text = (
        "A row for each entry, from −1 to 1; at its right the share of values that are saturated (magnitude of at "
        f"least {SATURATED})."
    )
    parts: list[Content] = [Words(text), Panels(drawn), Numbers(Table.of(head, rows, left=(0, 5, 6)), caption)]
    return CardSection("Coverage of actions", "actions", parts)


def origin_section(sample: StoreSample, origin: Mapping[str, Any] | None) -> CardSection:
    """How the store was made, what its tasks are, and what names its content."""
    store = sample.store
    content = {
        "SHA-256 of the content": store.hash or "none: format version 1 has no checksums",
        "format version": store.version,
        "action repeat": " and ".join(map(str, sorted({*map(store.action_repeat_of, store.tasks)}))),
        "actions clipped to ±1": store.clipped_actions,
        "rewards clamped": store.clamped_rewards,
        "last observations not recorded": int((~store.last_obs_known).sum()),
    }
    parts: list[Content] = [Entries(content)]
    if origin is None:
        parts.append(Words("There is no file beside the store that says how it was made.", is_notice=True))
    else:
        parts.append(Entries({key: _plain(value) for key, value in origin.items() if key not in ("kind", "specs")}))
    specs = {printable(name, 10**6): _plain(spec) for name, spec in store.task_specs.items() if spec}
    if specs:
        parts.append(Folded("What the store says of its tasks' environments", [Entries(specs)]))
    return CardSection("How it was made", "origin", parts)


def _plane(sample: StoreSample, task: TaskSample, mean: np.ndarray, std: np.ndarray) -> Drawing | None:
    """The drawing of principal components; None where there are no two, or too many entries."""
    moving = np.flatnonzero(std > 1e-9 * np.maximum(np.abs(mean), 1))
    if not 2 <= len(moving) <= _WIDEST_PLANE or len(task.obs) < 3:
        return None
    scaled = ((task.obs - mean) / np.where(std > 0, std, 1))[:, moving]
    values, vectors = np.linalg.eigh(np.cov(scaled, rowvar=False))
    directions = vectors[:, [-1, -2]]
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), [0, 1]])  # the same sign every time
    paths = {}
    for place in task.examples():
        obs = sample.store[int(task.episodes[place])].obs
        which = f"episode {task.episodes[place]} (return {task.returns[place]:,.1f})"
        paths[which] = ((obs - mean) / np.where(std > 0, std, 1))[:, moving] @ directions
    explained = (values[[-1, -2]] / values.sum()).tolist()
    name = printable(task.name)
    figure = draw_plane(label(task.name), scaled @ directions, explained, paths)
    return Drawing(_name("plane", task), figure, f"{name}: observations in the plane of two principal components.")


def _drawn(sample: StoreSample) -> str:
    drawn, there = sum(len(task.obs) for task in sample.tasks), sum(task.transitions for task in sample.tasks)
    if drawn == there:
        return f"All {there:,} transitions are counted."
    most = max(len(task.obs) for task in sample.tasks)
    return (
        f"{drawn:,} of {there:,} transitions are counted here and for actions, at most {most:,} of a task, drawn "
        f"evenly over its episodes and always the same."
    )


def _name(kind: str, task: TaskSample) -> str:
    return f"{kind}-{task.number}-{slug(task.name)}"


def _described(returns: np.ndarray) -> Sequence[str]:
    return f"{returns.mean():,.1f} ± {returns.std():,.1f}", f"{returns.min():,.1f}", f"{returns.max():,.1f}"


def _shown_bounds(values: object) -> str:
    """Bounds of actions as a file says them, which may be anything."""
    if not isinstance(values, list) or not all(isinstance(value, (int, float)) for value in values):
        return ""
    return ", ".join(f"{value:g}" for value in values[:8]) + (", …" if len(values) > 8 else "")


def _plain(value: object, depth: int = 0) -> object:
    """JSON of a file as a page shows it: short enough, not too deep, and without what it cannot show."""
    if isinstance(value, (dict, list)) and depth > _DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {printable(str(key)): _plain(inner, depth + 1) for key, inner in list(value.items())[:50]}
    if isinstance(value, list):
        return [_plain(inner, depth + 1) for inner in value[:50]]
    return printable(value, 1000) if isinstance(value, str) else value
