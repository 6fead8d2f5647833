"""Videos of the policies."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from lit_pwm.evaluation.video import Recording
from lit_pwm.experiments.report.curves import slug
from lit_pwm.experiments.report.markup import notice, panels, paragraph
from lit_pwm.experiments.report.page import VIDEO_ENDINGS, Page


def own_video(folder: Path, name: str) -> Path | None:
    """The video of a run that its record names; None if that is no regular file with a known ending in its folder."""
    path = folder / name
    try:
        own = path.resolve().is_relative_to(folder.resolve()) and stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return None
    return path if own and path.suffix in VIDEO_ENDINGS else None


class VideosSection:
    """A video of each recorded episode.

    Args:
        recordings: from `lit_pwm.evaluation.evaluator.record_video`; those without a file show their notice.
        note: plain text above them.
    """

    title = "The policies at work"
    anchor = "videos"

    def __init__(self, recordings: Sequence[Recording], note: str = "") -> None:
        self.recordings, self.note = tuple(recordings), note

    def render(self, page: Page) -> Markup:
        """The videos side by side."""
        if not self.recordings:
            return notice("No episode was recorded.")
        shown = []
        for number, recording in enumerate(self.recordings, start=1):
            text = f"return {recording.episode_return:.0f}, environment seed {recording.seed}"
            if recording.path is None:
                why = recording.notice or f"No video of {recording.task}."
                shown.append(notice(f"{why} Its episode: {text}."))
                continue
            label = f"Video of the policy in {recording.task}: {text}"
            name = f"{self.anchor}-{number}-{slug(recording.task)}"
            shown.append(page.video(name, recording.path, label, text, recording.task))
        text = self.note or "One deterministic episode each, at the speed of simulated time."
        return paragraph(text) + panels(shown)
