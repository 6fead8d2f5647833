"""How the report's drawings look: one set of colours with fixed meanings, without touching matplotlib's global state.

Series colours are those of Okabe and Ito, which readers with any common colour blindness can tell apart; markers and
dashes repeat what colours say. A drawing is made once, for a light page; its twin for a dark page is the same SVG with
these colours exchanged.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1d232c", "#6b7584", "#e3e6ea"
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
SERIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
"""Colours of series that have no meaning fixed below, in order."""
DASHES = ("-", "--", "-.", ":")

_DARK = {INK: "#e4e8ee", MUTED: "#9aa5b4", GRID: "#2f3640", BLUE: "#4ca9e4", VERMILION: "#f0813a", GREEN: "#2fc79b"}
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a name with dollar signs is no formula
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.8,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "lit_pwm",
}

Arguments = ParamSpec("Arguments")


def drawing(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorate a function that draws: the report's style holds while it runs, and no longer."""

    @wraps(draw)
    def styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def panel(width: float = 3.9, height: float = 2.7) -> tuple[Figure, Axes]:
    """A figure with one set of axes, its size in inches; it belongs to no window and to no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def key(axes: Axes, columns: int, *, above: bool = False) -> None:
    """The legend of a figure's axes, outside of them."""
    handles, labels = axes.get_legend_handles_labels()
    place: object = "outside upper left" if above else "outside lower left"
    axes.figure.legend(handles, labels, loc=place, ncols=columns, labelcolor=INK)


def as_svg(figure: Figure) -> str:
    """The figure as an SVG document; equal figures give equal text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    # Viewers that lack matplotlib's font should take the page's kind, not a serif one.
    return svg.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', sans-serif")


def in_the_dark(svg: str) -> str:
    """A drawing's SVG in the colours for dark pages."""
    pattern = re.compile("|".join(re.escape(colour) for colour in _DARK), re.IGNORECASE)
    return pattern.sub(lambda found: _DARK[found.group().lower()], svg)
