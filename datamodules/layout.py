"""The layout of an episode store's file, format versions 1 to 3, and what its checksums are made of.

Rows of all episodes one after another: `obs [N, O] f4`, `action [N, A] f4`, `reward [N] f4`, `terminated [N] u1`. An
episode of T actions has T + 1 rows: row t holds the observation o_t, the action a_t taken there and the reward r_t that
it earned; the last row's action and reward are NaN, and `terminated` may be set on it alone.

For each of E episodes, in the group `episode`: `offset` (first row), `length` (rows, T + 1), `task` (index into the
task names), `source` (text: what acted), `checksum` (CRC-32 of its rows: of obs, action, reward, terminated, one after
the other), and for statistics of observations `obs_count` (rows), `obs_sum [E, O]` and `obs_m2 [E, O]` (sum of squared
deviations from the episode's mean), in float64 over the unpadded entries.

Attributes: `format`, `format_version`, `task_names`, `obs_dims` and `action_dims` (true widths of each task; narrower
rows are padded with zeros), `action_repeat` (of tasks whose spec has no other), `clipped_actions` and `clamped_rewards`
(how many numbers the writer moved into range), `column_checksums` (CRC-32 of each column of `episode`, in the order of
`EPISODE_COLUMNS`) and `attribute_checksum` (CRC-32 of all others but those that follow). Checksums are of what is read
and not of the file's bytes, so that a copy in chunks, compressed or with text stored otherwise keeps them; each is
covered by one above it, up to the last.

What can be computed from all that, and is kept so that nobody has to: `content_hash` (SHA-256 of the attributes before,
and so of the columns whose checksums they hold), of each task `task_episodes`, `task_transitions`, `task_terminated`
(counts), `return_statistics` (mean, standard deviation, least, greatest), `return_histogram` (episodes in equal ranges
of return between the last two), `obs_mean` and `obs_std` (of all its observations that were recorded), all zeros for a
task without episodes; and `statistics_checksum` (CRC-32 of these). Stores written before have none of these.

Version 1 had no checksums, sums and counts of moved numbers. Version 3 adds of each episode
`last_obs_known` (0 where its last observation was not recorded, and the one before it stands in its place); of each
task `task_specs` (a JSON object: how its environment is made, bounds of its actions, action repeat, length of episodes,
range of scores, order of its observation's parts, versions of simulators, as far as they are known:
`lit_pwm.tasks.stored_specs`) and `whole_episodes` (0 where its episodes are pieces, whose sums of rewards are no
returns). A last observation that was not recorded is in no statistics. A file has the lowest version that says all
there is to say, for older readers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

FORMAT = "lit_pwm episode store"
FORMAT_VERSION = 2
"""Of stores that say nothing of their tasks' environments."""
SPECS_VERSION = 3
"""Of stores with specs of tasks, pieces, or episodes without a last observation."""
READ_VERSIONS = (1, 2, 3)

ROW_COLUMNS = {"obs": "<f4", "action": "<f4", "reward": "<f4", "terminated": "|u1"}
TEXT = "text"
"""In place of a type: UTF-8 of fixed or variable length."""
_TABLE = {"offset": "<i8", "length": "<i8", "task": "<i4", "source": TEXT}
_OF_VERSION_2 = {"checksum": "<u4", "obs_count": "<i8", "obs_sum": "<f8", "obs_m2": "<f8"}
_OF_VERSION_3 = {"last_obs_known": "|u1"}
EPISODE_COLUMNS = {
    1: _TABLE,
    2: {**_TABLE, **_OF_VERSION_2},
    3: {**_TABLE, **_OF_VERSION_2, **_OF_VERSION_3},
}
"""Columns of the group `episode` by version: name → type."""
WIDE_COLUMNS = ("obs", "action", "episode/obs_sum", "episode/obs_m2")
"""Those of two dimensions."""
MOMENTS = ("obs_count", "obs_sum", "obs_m2")

_TASK_ATTRIBUTES = ("task_names", "obs_dims", "action_dims", "action_repeat")
CHECKSUM_ATTRIBUTES = ("clipped_actions", "clamped_rewards", "column_checksums", "attribute_checksum")
SPEC_ATTRIBUTES = ("task_specs", "whole_episodes")
ATTRIBUTES = {
    1: _TASK_ATTRIBUTES,
    2: (*_TASK_ATTRIBUTES, *CHECKSUM_ATTRIBUTES),
    3: (*_TASK_ATTRIBUTES, *SPEC_ATTRIBUTES, *CHECKSUM_ATTRIBUTES),
}
"""Attributes by version, beside `format` and `format_version`."""
HISTOGRAM_BINS = 10
STATISTICS = {
    "task_episodes": "<i8",
    "task_transitions": "<i8",
    "task_terminated": "<i8",
    "return_statistics": "<f8",
    "return_histogram": "<i8",
    "obs_mean": "<f8",
    "obs_std": "<f8",
}
"""Attributes of each task that are computed from the rest: name → type. All are there or none."""
CONTENT_HASH, STATISTICS_CHECKSUM = "content_hash", "statistics_checksum"
COMPUTED_ATTRIBUTES = (*STATISTICS, CONTENT_HASH, STATISTICS_CHECKSUM)

_BLOCK_NUMBERS = 2**25
LONGEST_NAME = 1024
LONGEST_SOURCE = 255
LONGEST_SPEC = 2**20


def attribute_checksum(attributes: Mapping[str, object]) -> int:
    """CRC-32 of a store's attributes, as plain Python values by name, but for itself."""
    return zlib.crc32(_attribute_text(attributes))


def content_hash(attributes: Mapping[str, object]) -> str:
    """SHA-256 of a store's attributes, which hold the checksums of all of its columns: 64 hexadecimal digits.

    It finds damage and tells stores apart; what it is made of, CRC-32, is no protection from forgery.

    Args:
        attributes: as plain Python values by name, without those that are computed.
    """
    return hashlib.sha256(_attribute_text(attributes)).hexdigest()


def _attribute_text(attributes: Mapping[str, object]) -> bytes:
    kept = {name: value for name, value in attributes.items() if name != "attribute_checksum"}
    return json.dumps({"format": FORMAT, **kept}, sort_keys=True).encode()


def statistics_shapes(tasks: int, obs_dim: int) -> dict[str, tuple[int, ...]]:
    """Shape of each of the computed statistics of a store of so many tasks, whose observations have this width."""
    widths = {"return_statistics": 4, "return_histogram": HISTOGRAM_BINS, "obs_mean": obs_dim, "obs_std": obs_dim}
    return {name: (tasks, widths[name]) if name in widths else (tasks,) for name in STATISTICS}


def statistics_checksum(statistics: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of the computed statistics, one after another."""
    checksum = 0
    for name, dtype in STATISTICS.items():
        checksum = zlib.crc32(np.ascontiguousarray(statistics[name], dtype).data, checksum)
    return checksum


def column_checksum(values: np.ndarray | Sequence[str], before: int = 0) -> int:
    """CRC-32 of a per-episode column: of its numbers in the layout's type, or of its texts, one NUL between two.

    Args:
        values: the column, or numbers of it that follow others.
        before: the checksum of those before.
    """
    if isinstance(values, np.ndarray):
        return zlib.crc32(np.ascontiguousarray(values).data, before)
    return zlib.crc32("\0".join(values).encode(), before)


def rows_checksum(rows: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of an episode's padded rows."""
    checksum = 0
    for name, dtype in ROW_COLUMNS.items():
        checksum = zlib.crc32(np.ascontiguousarray(rows[name], dtype).data, checksum)
    return checksum


def observation_moments(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum, and sum of squared deviations from the mean, of each entry of an episode's observations, float64 [O]."""
    values = obs.astype(np.float64)
    total = values.sum(axis=0)
    values -= total / len(values)
    return total, np.square(values, out=values).sum(axis=0)


def block_rows(width: int, most: int) -> int:
    """Rows of a width that are handled at once: `most`, or fewer so that they take about 100 MB."""
    return max(1, min(most, _BLOCK_NUMBERS // width))


def runs(rows: np.ndarray, most: int = 65_536) -> list[tuple[int, int]]:
    """Runs [first, last) of episodes of so many rows each that hold about `most` rows together."""
    block = (np.cumsum(rows) - 1) // most
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(rows)]
    return [(first, last) for first, last in itertools.pairwise(edges) if last > first]


def text_fault(text: object, longest: int) -> str | None:
    """Why something cannot be a name in a store, or None."""
    if not isinstance(text, str):
        return f"is no text but {type(text).__name__}"
    if not text:
        return "is empty"
    if "\0" in text:
        return "contains a NUL character"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is no valid Unicode (it contains surrogates)"
    return f"is {size:,} bytes long, more than {longest:,}" if size > longest else None


def alike_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are the same, or differ in Unicode normalisation alone and cannot be told apart when read."""
    seen: dict[str, str] = {}
    for name in names:
        normal = unicodedata.normalize("NFC", name)
        if normal in seen:
            return seen[normal], name
        seen[normal] = name
    return None
