"""The folder of shards beside a store's final name, in which episodes wait until their store is complete."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datamodules.shards import MAGIC, Record, Shard, new_shard, scan
from datamodules.working_folder import WorkingFolder


class ShardFolder(WorkingFolder):
    """The folder beside a store's final name that holds its shards, locked for one writing command at a time.

    Args:
        final: the store's final name; the folder's is that with `.shards` appended.
        settings: what the episodes depend on. Shards made with other settings are refused.

    Raises:
        LitPWMError: as `WorkingFolder`.
    """

    suffix = ".shards"
    own = ("*.shard", "assembled.h5", ".assembled.*.h5")
    content = "shards"

    def __init__(self, final: Path, settings: Mapping[str, object]) -> None:
        super().__init__(final, {"shards": MAGIC.decode(), **settings})

    def _shards(self) -> list[Path]:
        """The shards: files, nothing else of such a name."""
        return sorted(path for path in self.path.glob("*.shard") if path.is_file())

    def _has_episodes(self) -> bool:
        """Whether any was begun."""
        return any(shard.stat().st_size for shard in self._shards())

    def records(self) -> dict[int, Record]:
        """The complete records of all shards by key, in the order of the keys."""
        found: dict[int, Record] = {}
        for shard in self._shards():
            for record in scan(shard):
                found.setdefault(record.key, record)
        return dict(sorted(found.items()))

    def new_shard(self) -> Shard:
        """A shard with a name that no other has, also when several processes ask."""
        return new_shard(self.path)
