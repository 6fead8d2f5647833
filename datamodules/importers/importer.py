"""What an importer is: it says whether files are of its format, plans what they hold, and reads their episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class ImportOption:
    """An option of the command line that some formats take; formats that share one share the object.

    Attributes:
        flag: as it is written, such as `--task-set`.
        help: what it says.
        metavar: its value in the help.
        parse: text → value; raises argparse.ArgumentTypeError where it is none.
        default: where it is not given.
        choices: values that are accepted, where these are few.
    """

    flag: str
    help: str
    metavar: str
    parse: Callable[[str], Any] = str
    default: Any = None
    choices: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """Its name among values, such as `task_set`."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, eq=False)
class ImportedTask:
    """A task of the data.

    Attributes:
        obs_dim: width of observations.
        action_dim: width of actions.
        low: lower bounds of its actions as they are in the files [A]; None where they lie in [-1, 1] already.
        high: upper bounds [A].
        spec: what is known of its environment, plain JSON (`make`, `kwargs`, `action_repeat`, `episode_length`,
            `score_range`, `obs_order`, …); bounds are added to it.
        whole_episodes: whether its episodes are whole rather than pieces of episodes.
    """

    obs_dim: int
    action_dim: int
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    whole_episodes: bool = True


@dataclass(frozen=True, eq=False)
class ImportedEpisode:
    """An episode of T actions as the files have it, its rows shifted to our convention.

    Attributes:
        obs: observations [T+1, O], in the true width of its task.
        action: actions [T, A], within the task's bounds; action t was taken at observation t.
        reward: rewards [T]; reward t was earned by action t.
        terminated: whether it ended by termination.
        last_obs_known: False where obs[T] was not recorded and repeats obs[T-1].
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool = False
    last_obs_known: bool = True


@dataclass(frozen=True, eq=False)
class Plan:
    """What files hold, known before their rows are read: a store's file is laid out from it.

    Attributes:
        tasks: name → task, in the store's order.
        length: actions T of each episode [E].
        task: index of each episode's task [E].
        source: what acted in each episode, E texts.
        episodes: reads the episodes of some numbers, which rise, in that order; each is read from the files when it is
            asked for, and the first may be any.
        action_repeat: control steps for each action.
        files: what is read. An import that is continued makes sure that they are the same.
        notices: sentences that the user is told, such as how many episodes had nothing left.
        last_obs_known: whether each episode's last observation was recorded, bool [E]; None where that is only known
            when it is read. With it, a store that says no more than one of version 2 can hold is of that version.
        moved: actions that were clipped, and rewards clamped, before.
        episode_name: number → what an episode is called in errors, such as its file and place in it.
    """

    tasks: Mapping[str, ImportedTask]
    length: np.ndarray
    task: np.ndarray
    source: Sequence[str]
    episodes: Callable[[np.ndarray], Iterator[ImportedEpisode]]
    action_repeat: int
    files: Sequence[Path]
    notices: Sequence[str] = ()
    episode_name: Callable[[int], str] = "episode {}".format
    last_obs_known: np.ndarray | None = None
    moved: tuple[int, int] = (0, 0)


class Importer(Protocol):
    """A format of other projects' data."""

    @property
    def name(self) -> str:
        """As `--format` takes it."""
        ...

    @property
    def title(self) -> str:
        """What it is, for help and errors."""
        ...

    @property
    def options(self) -> tuple[ImportOption, ...]:
        """What it takes beside the frame's own options."""
        ...

    def recognises(self, path: Path) -> bool:
        """Whether a file or folder is of this format, by its content alone; False where it cannot be read."""
        ...

    def plan(self, sources: Sequence[Path], options: Mapping[str, Any]) -> Plan:
        """What the sources hold.

        Args:
            sources: files and folders that exist, at least one.
            options: value of each of `options`, by key.

        Raises:
            LitPWMError: they cannot be imported, or an option does not fit them.
        """
        ...
