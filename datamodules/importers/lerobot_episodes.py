"""Which rows of LeRobot's files make which episode, and whether the files' parts agree on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datamodules.importers.row_files import Pieces, marked, without_next
from lit_pwm.errors import LitPWMError


def episode_pieces(
    file: Path,
    episode: np.ndarray,
    frame: np.ndarray | None,
    task: np.ndarray,
    done: np.ndarray | None,
    reward_is_next: bool,
) -> tuple[np.ndarray, Pieces]:
    """Ids of a file's episodes, and where they lie.

    Args:
        file: which.
        episode: id of each row's episode [N].
        frame: each row's place in its episode [N]; None where it is not said.
        task: each row's task [N].
        done: whether the transition of a row terminates [N]; None where no episode terminates.
        reward_is_next: whether the last row has no transition, its reward being that of the row before.

    Raises:
        LitPWMError: an episode is in two places, goes on after it is done, or changes its task.
    """
    if not len(episode):
        raise LitPWMError(f"{str(file)!r} holds no rows.")
    first, rows = marked(np.append(np.diff(episode) != 0, True))
    last, ids = first + rows - 1, episode[first]
    own = np.repeat(np.arange(len(first)), rows)
    within = np.arange(len(episode)) - first[own]
    if frame is not None and (frame != within).any():
        row = int(np.argmax(frame != within))
        raise LitPWMError(
            f"Row {row} of {str(file)!r} is frame {frame[row]} of episode {episode[row]}, and stands where frame "
            f"{within[row]} should: rows are missing or out of order. Download the file anew."
        )
    if (task != task[first][own]).any():
        row = int(np.argmax(task != task[first][own]))
        raise LitPWMError(
            f"Episode {episode[row]} in {str(file)!r} changes its task_index in row {row}. An episode of a store has "
            f"one task; cut it there with lerobot."
        )
    terminated = np.zeros(len(first), bool) if done is None else done[last]
    if done is not None and (early := done & (np.arange(len(done)) != last[own])).any():
        row = int(np.argmax(early))
        raise LitPWMError(
            f"`next.done` is set in row {row} of {str(file)!r}, frame {within[row]} of episode {episode[row]}, which "
            f"goes on to frame {rows[own[row]] - 1}. It does not mean that the episode terminated: leave --done out."
        )
    if reward_is_next:
        pieces = Pieces(first, rows - 1, terminated, np.ones(len(first), bool)).with_something_left()
    else:
        pieces = without_next(first, rows, terminated, has_next=False)
    return ids, pieces


def in_order_of_ids(
    path: Path, files: Sequence[tuple[Path, np.ndarray, Pieces, np.ndarray]]
) -> tuple[dict[Path, np.ndarray], dict[Path, Pieces], dict[Path, np.ndarray]]:
    """Ids, pieces and tasks of rows by file, the files in the order of their episodes' ids.

    Args:
        path: the data set.
        files: each with ids, pieces and tasks.

    Raises:
        LitPWMError: ids do not rise through a file, or an episode is in two places.
    """
    ordered = sorted(files, key=lambda found: int(found[1][0]))
    ids = np.concatenate([found[1] for found in ordered])
    wrong = np.diff(ids) <= 0
    if wrong.any():
        episode = int(ids[int(np.argmax(wrong)) + 1])
        raise LitPWMError(
            f"Episode {episode} in {str(path)!r} stands in two places, or after one with a higher episode_index. The "
            f"rows of an episode should be one after another; write the data set anew with lerobot."
        )
    return (
        {file: ids for file, ids, _, _ in ordered},
        {file: pieces for file, _, pieces, _ in ordered},
        {file: task for file, _, _, task in ordered},
    )
