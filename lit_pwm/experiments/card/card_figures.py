"""The drawings of a data card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from datamodules.episode import Episode
from lit_pwm.experiments.report import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DIMENSIONS = 48
"""The most entries of observations and actions that a drawing shows."""
LINES = 6
"""The most curves in one set of axes, and colours of sources."""
SATURATED = 0.99
"""The magnitude from which an action counts as saturated."""
_BINS = 41
_RANGE = 4.0


@figures.drawing
def draw_returns(title: str, labels: Sequence[str], values: Sequence[np.ndarray], what: str) -> Figure:
    """A histogram of returns, stacked by source: what each source is called, and its returns."""
    figure, axes = figures.panel()
    if len(values) > LINES:
        labels = [*labels[: LINES - 1], f"{len(values) - LINES + 1:,} others"]
        values = [*values[: LINES - 1], np.concatenate(values[LINES - 1 :])]
    edges = _edges(np.concatenate(values))
    colours = figures.SERIES[: len(values)]
    axes.hist(values, edges, stacked=True, color=colours, label=labels)
    mean = float(np.concatenate(values).mean())
    axes.axvline(mean, color=figures.INK, linewidth=1.1, linestyle=":")
    axes.set_title(f"mean {mean:,.1f}", loc="right", fontsize=8, fontweight="normal", color=figures.MUTED)
    axes.set_title(title)
    axes.set_xlabel(what)
    axes.set_ylabel("episodes")
    _whole_numbers(axes.yaxis)
    if len(values) > 1:
        figures.key(axes, columns=2 if max(map(len, labels)) < 18 else 1)
    return figure


@figures.drawing
def draw_lengths(title: str, lengths: np.ndarray, terminated: np.ndarray) -> Figure:
    """A histogram of the lengths of episodes, by how they ended."""
    figure, axes = figures.panel()
    edges = _edges(lengths)
    values, labels = [lengths[terminated], lengths[~terminated]], ["terminated", "not terminated"]
    axes.hist(values, edges, stacked=True, color=(figures.VERMILION, figures.BLUE), label=labels)
    axes.set_title(title)
    axes.set_xlabel("transitions of an episode")
    axes.set_ylabel("episodes")
    _whole_numbers(axes.yaxis)
    figures.key(axes, columns=2)
    return figure


@figures.drawing
def draw_observations(title: str, obs: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Figure:
    """Where the values of each entry lie, in standard deviations from the entry's mean: a row for each entry."""
    shown = min(obs.shape[1], DIMENSIONS)
    scaled = (obs[:, :shown] - mean[:shown]) / np.where(std[:shown] > 0, std[:shown], 1)
    return _shades(title, np.clip(scaled, -_RANGE, _RANGE), _RANGE, "standard deviations from the entry's mean")


@figures.drawing
def draw_actions(title: str, action: np.ndarray) -> Figure:
    """Where the values of each entry of actions lie, and how many of them are at the bounds."""
    saturated = (np.abs(action) >= SATURATED).mean(axis=0)
    return _shades(title, np.clip(action[:, :DIMENSIONS], -1, 1), 1.0, "action", saturated)


def _shades(title: str, values: np.ndarray, limit: float, label: str, shares: np.ndarray | None = None) -> Figure:
    """Histograms of some entries below each other, as shades of one colour."""
    count = values.shape[1]
    figure, axes = figures.panel(height=min(1.0 + max(count, 3) * 0.17, 6.0))
    edges = np.linspace(-limit, limit, _BINS + 1)
    density = np.stack([np.histogram(values[:, entry], edges)[0] for entry in range(count)]).astype(float)
    density /= np.maximum(density.max(axis=1, keepdims=True), 1)
    _shaded(axes, np.sqrt(density), (-limit, limit, count - 0.5, -0.5))
    axes.set_aspect("auto")
    axes.set_title(title)
    axes.set_xlabel(label)
    axes.set_xticks(np.linspace(-limit, limit, 5))
    axes.set_ylabel("entry")
    step = 1 if count <= 12 else 4
    axes.set_yticks(range(0, count, step))
    axes.grid(visible=False, axis="y")
    if shares is not None:
        for entry in range(0, count, 1 if count <= 24 else 4):
            axes.annotate(
                f"{shares[entry]:.0%}", (1, entry), (4, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", va="center", fontsize=7, color=figures.MUTED, annotation_clip=False,
            )  # fmt: skip
    return figure


@figures.drawing
def draw_plane(title: str, points: np.ndarray, explained: Sequence[float], paths: Mapping[str, np.ndarray]) -> Figure:
    """The observations in the plane of their first two principal components, and the paths of some episodes in it."""
    figure, axes = figures.panel(height=3.2)
    bounds = []
    for column, *on_paths in zip(points.T, *(path.T for path in paths.values()), strict=True):
        low, high = np.quantile(column, [0.001, 0.999])
        low, high = min([low, *map(np.min, on_paths)]), max([high, *map(np.max, on_paths)])
        margin = 0.05 * (high - low) or 1.0
        bounds.append((low - margin, high + margin))
    density = np.histogram2d(*np.clip(points, *np.transpose(bounds)).T, bins=50, range=bounds)[0].T
    _shaded(axes, np.log1p(density) / max(np.log1p(density.max()), 1e-9), (*bounds[0], *bounds[1]), origin="lower")
    for colour, (label, path) in zip((figures.VERMILION, figures.GREEN), paths.items(), strict=False):
        axes.plot(*path.T, color=colour, linewidth=0.9, alpha=0.85, label=label)
        axes.plot(*path[0], "o", color=colour, markersize=4)
    axes.set_xlim(bounds[0])
    axes.set_ylim(bounds[1])
    axes.set_aspect("auto")
    axes.set_title(title)
    axes.set_xlabel(f"first principal component ({explained[0]:.0%})")
    axes.set_ylabel(f"second ({explained[1]:.0%})")
    if paths:
        figures.key(axes, columns=1)
    return figure


@figures.drawing
def draw_episode(title: str, episode: Episode, mean: np.ndarray, std: np.ndarray) -> Figure:
    """Rewards, actions and observations of an episode against its steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.9, 4.6), layout="constrained")
    reward, action, obs = figure.subplots(3, sharex=True)
    reward.plot(np.arange(len(episode)), episode.reward, color=figures.BLUE, linewidth=1.2)
    reward.set_ylabel("reward")
    reward.set_title(title)
    scaled = (episode.obs - mean) / np.where(std > 0, std, 1)
    for axes, values, label in ((action, episode.action, "action"), (obs, scaled, "observation")):
        shown = min(values.shape[1], LINES)
        for entry in range(shown):
            axes.plot(np.arange(len(values)), values[:, entry], color=figures.SERIES[entry], linewidth=0.9)
        axes.set_ylabel(label if shown == values.shape[1] else f"{label} (first {shown})")
    action.set_ylim(-1.08, 1.08)
    obs.set_xlabel("step")
    _whole_numbers(obs.xaxis)
    return figure


def _edges(values: np.ndarray) -> list[float]:
    """Of a histogram's bins, fewer where there are few values."""
    return np.histogram_bin_edges(values, bins=int(np.clip(2 * np.sqrt(len(values)), 8, 30))).tolist()


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins="auto", integer=True))


def _shaded(
    axes: Axes,
    density: np.ndarray,
    extent: tuple[float, float, float, float],
    origin: Literal["upper", "lower"] = "upper",
) -> None:
    """Densities in [0, 1] as opacity of one colour, which light and dark pages show alike."""
    from matplotlib.colors import to_rgb

    image = np.empty((*density.shape, 4))
    image[..., :3], image[..., 3] = to_rgb(figures.BLUE), density
    axes.imshow(image, extent=extent, interpolation="nearest", origin=origin, zorder=2)
