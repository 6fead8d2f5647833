"""From a store to its card: a folder with a page, the same as Markdown, and their figures."""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

from datamodules.import_progress import progress_bar
from datamodules.origin import read_origin
from datamodules.store import EpisodeStore
from lit_pwm.errors import LitPWMError
from lit_pwm.experiments.card.card_content import CardSection
from lit_pwm.experiments.card.examples import TASKS, examples_section
from lit_pwm.experiments.card.store_parts import (
    actions_section,
    lengths_section,
    observations_section,
    origin_section,
    returns_section,
    tasks_section,
)
from lit_pwm.experiments.card.store_sample import sample_store
from lit_pwm.experiments.card.wording import printable
from lit_pwm.experiments.report.page import build_report
from lit_pwm.experiments.report.tables import markdown_text
from lit_pwm.paths import absolute
from lit_pwm.runtime.atomic import replacing_folder


def make_card(
    store: str | os.PathLike[str], out: str | os.PathLike[str], videos: int = 6, progress: bool = True
) -> Path:
    """Make the data card of a store: `index.html`, which needs nothing from elsewhere, and `README.md`.

    It reads the rewards once and a sample of the rows, so that the store may be larger than memory. The folder appears
    when it is complete.

    Args:
        store: the store's file.
        out: the card's folder, which must not exist or be empty.
        videos: the most episodes that are shown as videos.
        progress: show progress bars on stderr.

    Returns:
        The path of `index.html`.

    Raises:
        LitPWMError: there is no such store, the folder is there already, or it cannot be written.
    """
    source, folder = EpisodeStore(store), absolute(out)
    _require_new(folder)
    with (
        replacing_folder(folder, "The data card") as beside,
        tempfile.TemporaryDirectory(dir=beside) as films,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph")  # a name in letters that matplotlib's font lacks
        _build(source, beside, Path(films), videos, progress)
    return folder / "index.html"


def _require_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LitPWMError(
            f"The folder of the card, --out {str(folder)!r}, exists already and is not empty. Name another one, or "
            f"remove it."
        )


def _build(store: EpisodeStore, folder: Path, films: Path, videos: int, progress: bool) -> None:
    origin = read_origin(store.path)
    with progress_bar(f"Reading {store.path.name}", store.num_rows, 0, progress) as advance:
        sample = sample_store(store, advance)
    shown = sample.tasks[:TASKS]
    with progress_bar("Taking actions again", len(shown), 0, progress and videos > 0, "tasks") as advance:
        examples = examples_section(sample, origin, videos, films, advance)
    sections: list[CardSection | None] = [
        tasks_section(sample),
        returns_section(sample),
        examples,
        observations_section(sample),
        actions_section(sample),
        lengths_section(sample),
        origin_section(sample, origin),
    ]
    parts = [section for section in sections if section is not None]
    title = f"Data card: {printable(store.path.name)}"
    tasks = f"{len(sample.tasks)} task{'s' if len(sample.tasks) > 1 else ''}"
    lead = f"{len(store):,} episodes of {tasks}, {store.num_transitions:,} transitions."
    terminated = sum(int(task.terminated.sum()) for task in sample.tasks)
    facts = {
        "episodes": f"{len(store):,}",
        "transitions": f"{store.num_transitions:,}",
        "tasks": f"{len(sample.tasks)}",
        "terminated": f"{terminated / len(store):.0%}",
        "size": f"{store.path.stat().st_size / 1e6:,.1f} MB",
        "content": (store.hash or "no hash")[:8],
    }
    drawings = sum(part.drawings for part in parts)
    with progress_bar("Drawing", drawings, 0, progress, "figures") as advance:
        told = [replace(part, rendered=partial(advance, part.drawings)) for part in parts]
        build_report(told, folder, title=title, lead=lead, facts=facts)
    text = f"# {markdown_text(title)}\n\n{lead}\n\n" + "".join(section.markdown() for section in parts)
    (folder / "README.md").write_text(text, encoding="utf-8")
