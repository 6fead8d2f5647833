"""A store that is written into its final layout from the first episode on, and continued where a kill has left it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from datamodules.check import check
from datamodules.episode_block import EpisodeBlock
from datamodules.layout import EPISODE_COLUMNS, column_checksum
from datamodules.skeleton import PlainFile
from datamodules.store_plan import SUMS, StorePlan, written_statistics
from datamodules.working_folder import SETTINGS, WorkingFolder, remove
from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.atomic import replacing

_PARTIAL, _PROGRESS = "partial.h5", "progress.json"
_BLOCK_EPISODES = 65_536


class ImportFolder(WorkingFolder):
    """The folder beside a store's final name in which an import writes it: one file of the store's own size."""

    suffix = ".importing"
    own = (".progress.*.json", _PROGRESS, _PARTIAL)
    content = "unfinished file"

    def _has_episodes(self) -> bool:
        """Whether any was begun."""
        return (self.path / _PARTIAL).is_file() and (self.path / _PROGRESS).is_file()

    @classmethod
    def finish_publishing(cls, final: Path, settings: Mapping[str, object]) -> bool:
        """Remove what is left where a kill came after the finished file had got its name; whether that was so.

        Args:
            final: the store's final name.
            settings: what it depends on; a store of others is not the one that is wanted.
        """
        folder = final.with_name(final.name + cls.suffix)
        try:
            held = json.loads((folder / SETTINGS).read_bytes())
            if not (folder / _PARTIAL).samefile(final) or held != json.loads(json.dumps(settings)):
                return False
        except (OSError, ValueError, RecursionError):
            return False
        remove(folder, cls.own)
        return True


class PartialStore:
    """Writes a store of known layout, episode after episode; to be closed.

    Blocks of rows are on the disk before it is noted how many episodes they hold, so that a kill at any moment, and a
    crash of the machine, loses at most the episodes after the last note. What is written again is what was written
    before, so that the finished file does not depend on kills.

    Args:
        folder: where it is written.
        plan: what it will hold.

    Attributes:
        done: episodes that are written for good; the next one to be appended.
        rows_done: rows of these.
        name: the file's final name.
        clipped: actions moved into [-1, 1] so far.
        clamped: rewards moved into the range of a model's bins so far.

    Raises:
        LitPWMError: the file cannot be written; raised by all methods.
    """

    def __init__(self, folder: ImportFolder, plan: StorePlan) -> None:
        self._folder, self._plan = folder, plan
        self._path, self._progress = folder.path / _PARTIAL, folder.path / _PROGRESS
        self.name = folder.final.name
        self._table = plan.table()
        self.done = self.clipped = self.clamped = 0
        self._read_progress()
        self._opening = contextlib.ExitStack()
        with self._explained():
            if not self.done:
                self._path.unlink(missing_ok=True)
            datasets, promised = plan.datasets(self._table), plan.promised_attributes()
            self._file = self._opening.enter_context(
                PlainFile(self._path, datasets, promised, continued=bool(self.done))
            )
            if not self.done:
                self._file.allocate()
        self.rows_done = int(plan.rows[: self.done].sum())

    def _read_progress(self) -> None:
        """What an interrupted run has noted, if its file is there."""
        try:
            noted = json.loads(self._progress.read_bytes())
            done, clipped, clamped = (int(noted[name]) for name in ("episodes", "clipped", "clamped"))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return
        if self._path.is_file() and 0 <= done <= len(self._plan.rows):
            self.done, self.clipped, self.clamped = done, clipped, clamped

    def append(self, block: EpisodeBlock) -> None:
        """Write the next episodes, and keep them from the disk's point of view only when `note` is called."""
        first, last = self.done, self.done + len(block.checksums)
        with self._explained():
            for name, rows in block.rows.items():
                self._file.put(name, self.rows_done, rows)
            self._file.put("episode/checksum", first, block.checksums)
            self._file.put("episode/obs_count", first, block.counts)
            if "last_obs_known" in self._table:
                self._file.put("episode/last_obs_known", first, block.last_obs_known)
            for name, values in zip(SUMS, block.sums, strict=True):
                self._file.put(f"episode/{name}", first, values)
        self.rows_done += len(block.rows["reward"])
        self.done, self.clipped, self.clamped = last, self.clipped + block.clipped, self.clamped + block.clamped

    def note(self) -> None:
        """Note that the episodes so far are written for good, after they are on the disk."""
        with self._explained():
            self._file.to_disk()
        noted = {"episodes": self.done, "clipped": self.clipped, "clamped": self.clamped}
        with replacing(self._progress, "How far the import is") as beside:
            beside.write_text(json.dumps(noted))

    def complete(self, advance: Callable[[int], None] = lambda rows: None) -> None:
        """Complete the file, and check it.

        Args:
            advance: takes the number of rows of each block that has been checked.

        Raises:
            LitPWMError: it has faults.
        """
        checksums = self._plan.no_checksums()
        with self._explained():
            for name in ("offset", "length", "task", "source"):
                self._file.put(f"episode/{name}", 0, self._table[name])
            for name in EPISODE_COLUMNS[self._plan.version]:
                checksums[name] = self._checksum(name)
            statistics = written_statistics(self._file, self._plan).arrays()
            self._file.put_attributes(self._plan.attributes(checksums, self.clipped, self.clamped, statistics))
            self._file.to_disk()
        self.close()
        if faults := check(self._path, advance):
            self._progress.unlink(missing_ok=True)  # the next run starts anew
            raise LitPWMError(
                f"The store written for {str(self._folder.final)!r} has faults: {'; '.join(faults)}. Run the command "
                f"again, which starts anew."
            )

    def publish(self) -> None:
        """Give the completed file its final name.

        Raises:
            LitPWMError: a file of that name has appeared meanwhile.
        """
        self._folder.publish(self._path)

    def _checksum(self, name: str) -> int:
        """The checksum of a column of the table of episodes, read from the file a block at a time."""
        if name == "source":
            return column_checksum(self._plan.sources)
        checksum = 0
        for first in range(0, self.done, _BLOCK_EPISODES):
            values = self._file.get(f"episode/{name}", first, min(first + _BLOCK_EPISODES, self.done))
            checksum = column_checksum(values, checksum)
        return checksum

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            size = getattr(getattr(self, "_file", None), "size", None)
            room = f" (the store takes {size / 1e6:,.1f} MB)" if size else ""
            raise LitPWMError(
                f"The unfinished store {str(self._path)!r} could not be written: {error.strerror or error}{room}. Make "
                f"room there and run the command again, which goes on where it was."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._opening.close()
