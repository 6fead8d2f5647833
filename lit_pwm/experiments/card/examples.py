"""The card's part of example episodes: curves of each, and videos where replaying them gives what is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lit_pwm.experiments.card.card_content import CardSection, Content, Drawing, Film, Panels, Words
from lit_pwm.experiments.card.card_figures import draw_episode
from lit_pwm.experiments.card.replay import NoReplayError, collected_seed, film
from lit_pwm.experiments.card.store_sample import StoreSample, TaskSample
from lit_pwm.experiments.card.wording import label, printable
from lit_pwm.experiments.report.curves import slug

TASKS = 24
"""The most tasks of which episodes are shown."""


def examples_section(
    sample: StoreSample, origin: Mapping[str, Any] | None, videos: int, folder: Path, advance: Callable[[int], None]
) -> CardSection:
    """Episodes of the first tasks.

    Args:
        sample: what was read of the store.
        origin: what lies beside the store and says how it was made, if anything.
        videos: the most videos to make.
        folder: where they are made.
        advance: is told of each task that is done.
    """
    parts: list[Content] = []
    shown = sample.tasks[:TASKS]
    if len(shown) < len(sample.tasks):
        parts.append(Words(f"Of the first {TASKS} of {len(sample.tasks)} tasks."))
    curves: list[Content] = []
    films: list[Content] = []
    reasons: dict[str, list[str]] = {}
    for task in shown:
        for place in task.examples():
            curves.append(_curves(sample, task, place))
            if len(films) >= videos:
                continue
            try:
                films.append(_video(sample, task, place, origin, folder))
            except NoReplayError as why:
                reasons.setdefault(str(why), []).append(f"{printable(task.name)} (episode {task.episodes[place]})")
        advance(1)
    parts.append(
        Words(
            "Of each task the episode of the greatest return and the one in the middle of the order of returns. "
            "Observations are in standard deviations from the task's mean. A video is the stored episode itself: its "
            "actions are taken again from its seed, and it is shown only if that gives its observations."
        )
    )
    parts += [Panels(films)] if films else []
    parts.append(Panels(curves))
    for why, whose in reasons.items():
        named = f"{', '.join(whose[:4])}{f' and {len(whose) - 4} more' if len(whose) > 4 else ''}"
        parts.append(Words(f"No video of {named}: {why}.", is_notice=True))
    return CardSection("Example episodes", "examples", parts)


def _told(task: TaskSample, place: int) -> str:
    how = "terminated" if task.terminated[place] else "not terminated"
    source = printable(str(task.sources[place]))
    return f"return {task.returns[place]:,.1f}, {task.lengths[place]:,} steps, {how}, by {source}"


def _curves(sample: StoreSample, task: TaskSample, place: int) -> Drawing:
    number, dims = int(task.episodes[place]), task.obs.shape[1]
    scale = sample.statistics.obs_mean[task.number, :dims], sample.statistics.obs_std[task.number, :dims]
    figure = draw_episode(label(task.name), sample.store[number], *scale)
    told = f"Episode {number}: {_told(task, place)}."
    alt = f"{printable(task.name)}, rewards, actions and observations of episode {number}."
    return Drawing(f"episode-{number}-{slug(task.name)}", figure, alt, told)


def _video(sample: StoreSample, task: TaskSample, place: int, origin: Mapping[str, Any] | None, folder: Path) -> Film:
    number = int(task.episodes[place])
    seed = collected_seed(origin, task.name, place)
    path = folder / f"{number}.mp4"
    film(sample.store[number], seed, path)
    told = f"episode {number}, {_told(task, place)}"
    name = printable(task.name)
    return Film(f"video-{number}-{slug(task.name)}", path, f"Video of {name}: {told}", told, name)
