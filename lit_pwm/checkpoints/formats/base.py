"""What a format of checkpoints is: recognised by its keys, read into our own mapping, written from it."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lit_pwm.checkpoints.migration import DESCRIPTION_KEY, FORMAT_VERSION
from lit_pwm.checkpoints.reading import Stubs

FOREIGN_KEY = "foreign"
"""Where a native checkpoint keeps what a file of another format holds and lit_pwm has no use for."""
NO_POLICY = "no_policy"
"""In `foreign`: why a file that may hold a policy holds none that lit_pwm has."""
WORLD_MODEL = "world_model."
"""What keys of a world model's weights begin with in a native checkpoint."""
TaskNames = str | Sequence[str]
"""Names of tasks in the order of their rows, as a list or a text with commas; or the name of a task set."""


class Format(ABC):
    """A layout of checkpoints. The registry asks its formats in order which one recognises a file.

    Attributes:
        name: as commands and files call it.
        title: what it is, for errors.
        suffix: what names of its files end with.
        takes_over: names of formats of whose files it can hold all that these are read for by their own loader.
        stubs: inert classes that may take the place of classes which its files hold, by those classes' full names.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffix: ClassVar[str] = ".pt"
    takes_over: ClassVar[Sequence[str]] = ()
    stubs: ClassVar[Stubs] = ()

    @abstractmethod
    def recognises(self, raw: Mapping[Any, Any]) -> bool:
        """Whether a file's content is of this format, by its keys alone."""

    @abstractmethod
    def read(self, raw: Mapping[Any, Any], path: str | Path, tasks: TaskNames | None) -> dict[str, Any]:
        """The content of a native checkpoint: state_dict, description, and under `foreign` what else was there.

        Args:
            raw: a file's content.
            path: where from, for errors.
            tasks: names of its tasks, where it does not say them.

        Raises:
            LitPWMError: it is not as its format says, or its tasks need names.
        """

    @abstractmethod
    def write(self, native: Mapping[str, Any], path: str | Path, partial: bool = False) -> dict[str, Any]:
        """The content of a file of this format, of a native checkpoint's of the present version.

        Args:
            native: as `read` gives it.
            path: where from, for errors.
            partial: leave out optional parts of the format that the checkpoint does not hold.

        Raises:
            LitPWMError: the format cannot hold these networks, or optional parts are missing.
        """


def native_checkpoint(
    description: Mapping[str, Any], state: Mapping[str, Any], foreign: Mapping[str, Any]
) -> dict[str, Any]:
    """A native checkpoint as formats read it.

    Args:
        description: of the networks: kind, world_model and what else the kind has.
        state: weights by native keys.
        foreign: what else the file holds: `format`, and what that format needs to write the same file again.
    """
    return {
        "state_dict": dict(state),
        DESCRIPTION_KEY: {"format": FORMAT_VERSION, **description},
        FOREIGN_KEY: dict(foreign),
    }


def part_of(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose keys begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def file_beside(checkpoint: Path, kind: Format) -> Path:
    """Where the file of a format lies that was written along with one of our checkpoints."""
    return checkpoint.with_suffix(f".{kind.name}{kind.suffix}")


_told: set[str] = set()


def notice(text: str, once: bool = False) -> None:
    """Say something on stderr, on one rank; `once` not again in this process."""
    if os.environ.get("LOCAL_RANK", "0") == "0" and not (once and text in _told):
        _told.add(text)
        print(text, file=sys.stderr)
