"""Learning curves: returns of policies, losses and open-loop errors of world models."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from lit_pwm.experiments.report import figures
from lit_pwm.experiments.report.markup import notice, panels, paragraph
from lit_pwm.experiments.report.page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[int, float]]
"""(update, value) in order."""


def slug(text: str) -> str:
    """A name for files: lower case, hyphens; with a checksum where the text has unusual signs or many."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"
    if re.fullmatch(r"[\w .,:()+-]{1,80}", text, re.ASCII):
        return plain
    return f"{plain[:60]}-{zlib.crc32(text.encode('utf-8', 'replace')):08x}"


class PolicyCurvesSection:
    """The evaluation return of each task against the policy's updates.

    Args:
        curves: task → label of a line (such as a round, or a seed) → its points.
        references: task → label → a return drawn as a level line, such as the data's mean.
        note: how the returns were measured, plain text.
    """

    title = "Policy learning"
    anchor = "policy-learning"

    def __init__(
        self,
        curves: Mapping[str, Mapping[str, Points]],
        references: Mapping[str, Mapping[str, float]] | None = None,
        note: str = "",
    ) -> None:
        self.curves, self.references, self.note = curves, references or {}, note

    def render(self, page: Page) -> Markup:
        """A drawing for each task."""
        drawn = []
        for task, lines in self.curves.items():
            lines = {label: points for label, points in lines.items() if points}
            if not lines:
                drawn.append(notice(f"{task}: the policy was not evaluated during training."))
                continue
            best = max(value for points in lines.values() for _, value in points)
            alt = f"{task}: mean return of the policy against its updates; the highest is {best:.0f}."
            figure = _draw_returns(task, lines, self.references.get(task, {}))
            drawn.append(page.figure(f"{self.anchor}-{slug(task)}", figure, alt))
        if not drawn:
            return notice("No policy was trained.")
        text = self.note or (
            "Mean return of the deterministic policy, on the environment seeds that also chose the best checkpoint and "
            "that are not those of the reported returns."
        )
        return paragraph(text) + panels(drawn)


class WorldModelCurvesSection:
    """The world model's training loss and its open-loop errors on held-out episodes.

    Args:
        curves: metric → points, named as `WorldModelPretraining` logs them: `train/loss`, `val/latent_error_16`,
            `val/latent_error_copy_last_16`, `val/reward_error_16` and so on, for any numbers of steps.
        note: plain text above the drawings.
    """

    title = "World model"
    anchor = "world-model"

    def __init__(self, curves: Mapping[str, Points], note: str = "") -> None:
        self.curves, self.note = curves, note

    def render(self, page: Page) -> Markup:
        """Drawings of the loss, the latent error and the reward error."""
        drawn = []
        losses = {name: self.curves[f"{name}/loss"] for name in ("train", "val") if self.curves.get(f"{name}/loss")}
        if losses:
            alt = f"Loss of the world model against its updates; the last is {next(iter(losses.values()))[-1][1]:.3g}."
            drawn.append(page.figure(f"{self.anchor}-loss", _draw_losses(losses), alt))
        for quantity in ("latent", "reward"):
            errors, copies = self._errors(f"{quantity}_error"), self._errors(f"{quantity}_error_copy_last")
            if errors:
                ends = ", ".join(f"{points[-1][1]:.2g} at {k} steps" for k, points in errors.items())
                alt = f"Open-loop {quantity} error against updates, relative to the variance; at the end {ends}."
                figure = _draw_errors(quantity, errors, copies)
                drawn.append(page.figure(f"{self.anchor}-{quantity}-error", figure, alt))
        if not drawn:
            return notice("No world model was trained.")
        text = self.note or (
            "Open-loop errors are squared errors after 1, 4 and 16 imagined steps on held-out episodes, divided by the "
            "variance of what is predicted: the predictor that always says the mean scores 1. Dashed in the same "
            "colour: the predictor that leaves the latent state where it was."
        )
        return paragraph(text) + panels(drawn)

    def _errors(self, name: str) -> dict[int, Points]:
        pattern = re.compile(rf"val/{name}_(\d+)")
        found = {int(match[1]): points for key, points in self.curves.items() if (match := pattern.fullmatch(key))}
        return {k: found[k] for k in sorted(found) if found[k]}


@figures.drawing
def _draw_returns(task: str, lines: Mapping[str, Points], references: Mapping[str, float]) -> Figure:
    figure, axes = figures.panel()
    single = len(lines) == 1
    for number, (label, points) in enumerate(lines.items()):
        colour = figures.BLUE if single else figures.SERIES[number % len(figures.SERIES)]
        dash = figures.DASHES[number // len(figures.SERIES) % len(figures.DASHES)]
        axes.plot(*zip(*points, strict=True), dash, color=colour, label=label, marker="o", markersize=3)
    for number, (label, value) in enumerate(references.items()):
        axes.axhline(value, linestyle=figures.DASHES[1 + number % 3], color=figures.MUTED, linewidth=1.3, label=label)
    axes.set_title(task)
    axes.set_ylim(-20, max(1020, axes.get_ylim()[1]))
    axes.set_xlabel("updates of the policy")
    axes.set_ylabel("return")
    _key(axes, len(lines) + len(references))
    return figure


@figures.drawing
def _draw_losses(losses: Mapping[str, Points]) -> Figure:
    figure, axes = figures.panel()
    names = {"train": "training", "val": "held out"}
    for name, colour in zip(losses, (figures.BLUE, figures.ORANGE), strict=False):
        axes.plot(*zip(*losses[name], strict=True), color=colour, label=names[name])
    axes.set_title("loss")
    _log_scale(axes)
    axes.set_xlabel("updates of the world model")
    _key(axes, len(losses))
    return figure


@figures.drawing
def _draw_errors(quantity: str, errors: Mapping[int, Points], copies: Mapping[int, Points]) -> Figure:
    figure, axes = figures.panel()
    for colour, (steps, points) in zip(figures.SERIES, errors.items(), strict=False):
        plural = "step" if steps == 1 else "steps"
        axes.plot(*zip(*points, strict=True), color=colour, label=f"{steps} {plural}", marker="o", markersize=2.5)
        if copies.get(steps):
            axes.plot(*zip(*copies[steps], strict=True), "--", color=colour, linewidth=1.1)
    if copies:
        axes.plot([], [], "--", color=figures.MUTED, linewidth=1.1, label="copy last")
    axes.axhline(1.0, color=figures.MUTED, linewidth=1.1, linestyle=":", label="mean predictor")
    axes.set_title(f"open-loop {quantity} error")
    _log_scale(axes)
    axes.set_xlabel("updates of the world model")
    axes.set_ylabel("relative to the variance")
    _key(axes, len(errors) + bool(copies) + 1)
    return figure


def _log_scale(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # a range of less than a decade has labels too
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _key(axes: Axes, entries: int) -> None:
    if entries > 1:
        figures.key(axes, columns=min(entries, 3))
