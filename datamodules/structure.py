"""The structure of a store's file: what is looked at whenever one is opened, by readers and `data check` alike.

A file may come from anywhere, be damaged, or have been made to mislead: its parts must be its own (no links and no data
in other files), of the types and shapes of the layout, and no larger than the file, before anything is read from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import h5py
import numpy as np

from datamodules.attributes import (
    kept_statistics,
    names_attribute,
    require_texts,
    specs_attribute,
    texts,
    whole_number,
    whole_numbers,
)
from datamodules.datasets import look_at_data, look_at_shape, look_at_type, own_dataset
from datamodules.layout import (
    ATTRIBUTES,
    COMPUTED_ATTRIBUTES,
    EPISODE_COLUMNS,
    LONGEST_SOURCE,
    MOMENTS,
    ROW_COLUMNS,
    SPEC_ATTRIBUTES,
    alike_names,
    attribute_checksum,
    column_checksum,
)
from datamodules.probing import Fault, require_readable
from datamodules.store_statistics import StoreStatistics

R = TypeVar("R")


@dataclass(eq=False)
class Structure:
    """What was read of a store on opening; complete where there are no faults.

    Attributes:
        version: of the format.
        attributes: plain Python values by name.
        shapes: shape of each dataset, by name such as `obs` or `episode/offset`.
        table: the per-episode columns, arrays [E] or lists of text, but for the statistics.
        statistics: what the store keeps of its tasks; None in those that do not.
        faults: what is wrong, a sentence each.
        rows_readable: whether all that is wrong leaves rows and episodes where they are.
    """

    version: int
    attributes: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    table: dict[str, Any] = field(default_factory=dict)
    statistics: StoreStatistics | None = None
    faults: list[str] = field(default_factory=list)
    rows_readable: bool = False

    @property
    def tasks(self) -> dict[str, tuple[int, int]]:
        """Task name → (obs_dim, action_dim), in index order."""
        dims = zip(self.attributes["obs_dims"], self.attributes["action_dims"], strict=True)
        return dict(zip(self.attributes["task_names"], dims, strict=True))


def read_structure(file: h5py.File, version: int) -> Structure:
    """Read the small parts of a store's file and say what is wrong with it.

    Later stages look at what the earlier ones found sound, so that the first faults are those to mend.

    Args:
        file: a store of that version, open for reading.
        version: the format's version that it names.
    """
    found = Structure(version)
    for stage in (_attributes, _datasets, _tasks, _table, _checksums, _statistics):
        stage(file, found)
        if found.faults and stage is not _attributes:  # datasets can be looked at without attributes
            break
    return found


def attempt(faults: list[str], what: str, step: Callable[[], R]) -> R | None:
    """What a step of reading returns, or None and a fault.

    HDF5 meets a damaged file with exceptions of any class.
    """
    try:
        return step()
    except Fault as fault:
        faults.append(f"{what} {fault}")
    except Exception as error:
        faults.append(f"{what} cannot be read ({one_line(error)})")
    return None


def one_line(error: BaseException) -> str:
    """An exception of another library in a line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


# -- attributes -------------------------------------------------------------------------------------------------------
def _attributes(file: h5py.File, found: Structure) -> None:
    """Read the attributes into plain values, of the right types."""
    readers: dict[str, Callable[[h5py.File, str], object]] = {
        "task_names": names_attribute,
        "obs_dims": whole_numbers,
        "action_dims": whole_numbers,
        "column_checksums": whole_numbers,
        "task_specs": specs_attribute,
        "whole_episodes": whole_numbers,
    }
    for name in ATTRIBUTES[found.version]:
        reader = readers.get(name, whole_number)
        found.attributes[name] = attempt(found.faults, f"the attribute {name!r}", lambda r=reader, n=name: r(file, n))
    found.attributes["format_version"] = found.version
    if found.version == 1:
        attempt(found.faults, "format_version is 1, but", lambda: _require_nothing_later(file))


def _require_nothing_later(file: h5py.File) -> None:
    """A version 2 that says it were 1 would be read without its checksums."""
    latest = max(EPISODE_COLUMNS)
    columns = [f"episode/{name}" for name in EPISODE_COLUMNS[latest] if name not in EPISODE_COLUMNS[1]]
    names = [name for name in (*ATTRIBUTES[latest], *COMPUTED_ATTRIBUTES) if name not in ATTRIBUTES[1]]
    later = [name for name in names if name in file.attrs] + [name for name in columns if name in file]
    if later:
        raise Fault(f"there are parts of a later version: {', '.join(later)}")


# -- datasets ---------------------------------------------------------------------------------------------------------
def _datasets(file: h5py.File, found: Structure) -> None:
    """Look at each dataset, and whether those of rows and those of episodes are as long as each other."""
    types = {**ROW_COLUMNS, **{f"episode/{name}": dtype for name, dtype in EPISODE_COLUMNS[found.version].items()}}
    for name, dtype in types.items():
        dataset = attempt(found.faults, f"the dataset {name!r}", lambda n=name: own_dataset(file, n))
        if dataset is None:
            continue
        for look in (look_at_shape, look_at_type, look_at_data):
            attempt(found.faults, name, lambda look=look, d=dataset, n=name, t=dtype: look(d, n, t))
        shape = attempt(found.faults, name, lambda d=dataset: d.shape)
        if shape:
            found.shapes[name] = shape
    for what, named in (("rows", list(ROW_COLUMNS)), ("episodes", [n for n in types if n.startswith("episode/")])):
        lengths = {name: found.shapes[name][0] for name in named if name in found.shapes}
        if len(set(lengths.values())) > 1:
            found.faults.append(f"the datasets of {what} differ in length: {lengths}")


# -- what they say together -------------------------------------------------------------------------------------------
def _tasks(file: h5py.File, found: Structure) -> None:
    """Names, and widths that fit the rows'."""
    names, faults = found.attributes["task_names"], found.faults
    of_tasks = [
        name for name in ("task_names", "obs_dims", "action_dims", *SPEC_ATTRIBUTES) if name in found.attributes
    ]
    counts = {name: len(found.attributes[name]) for name in of_tasks}
    if len(set(counts.values())) > 1:
        faults.append(f"the attributes of the tasks differ in length: {counts}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        faults.append(f"task names occur twice: {', '.join(n if n.isprintable() else repr(n) for n in twice)}")
    elif alike := alike_names(names):
        faults.append(f"task names differ in Unicode normalisation alone: {alike[0]!r} and {alike[1]!r}")
    if set(found.attributes.get("whole_episodes", ())) - {0, 1}:
        faults.append("the attribute 'whole_episodes' holds other numbers than 0 and 1")
    if faults:
        return
    for name, attribute in (("obs", "obs_dims"), ("action", "action_dims")):
        dims, width = found.attributes[attribute], found.shapes[name][1]
        if max(dims) > width or min(dims) < 1:
            faults.append(f"{attribute} {dims} do not fit the width {width} of {name}")
    for name in ("episode/obs_sum", "episode/obs_m2") if found.version > 1 else ():
        if found.shapes[name][1] != found.shapes["obs"][1]:
            faults.append(f"{name} has width {found.shapes[name][1]}, and obs has {found.shapes['obs'][1]}")
    count = len(EPISODE_COLUMNS[found.version])
    if found.version > 1 and len(found.attributes["column_checksums"]) != count:
        faults.append(f"the attribute 'column_checksums' holds not {count} numbers")


def read_column(file: h5py.File, name: str, episodes: slice = slice(None)) -> object:
    """A per-episode column, or some episodes' part of it: an array, or a list of text.

    Raises:
        Fault: it is not text in UTF-8 where it should be.
    """
    dataset = file[f"episode/{name}"]
    require_readable(file, dataset.dtype, dataset.name)
    values = dataset[episodes]
    return texts(values.tolist()) if name == "source" else values


def _table(file: h5py.File, found: Structure) -> None:
    """The table of episodes: whether they lie one after another, and whether their tasks exist."""
    faults = found.faults
    for name in EPISODE_COLUMNS[found.version]:
        if name not in MOMENTS:
            found.table[name] = attempt(faults, f"episode/{name}", lambda n=name: read_column(file, n))
    if not faults and found.version > 1:  # of what the writer takes; older ones took more
        attempt(faults, "episode/source", lambda: require_texts(found.table["source"], LONGEST_SOURCE))
    if faults:
        return
    offset, length, task = (found.table[name] for name in ("offset", "length", "task"))
    rows = found.shapes["obs"][0]
    if not len(offset):
        faults.append("there is no episode")
        return
    expected = np.cumsum(length) - length
    for name, wrong in (
        ("episode/length holds episodes of fewer than 2 rows", length < 2),
        ("episode/length holds episodes of more rows than there are", length > rows),
        ("episode/offset is not where the episode before ends", offset != expected),
        ("episode/last_obs_known is neither 0 nor 1", found.table.get("last_obs_known", np.zeros(1)) > 1),
    ):
        _count(faults, name, wrong)
    total = sum(length.tolist())  # of Python's numbers, which do not overflow
    if total != rows:
        faults.append(f"episode/length sums to {total} rows, but there are {rows}")
    found.rows_readable = not faults
    _count(faults, "episode/task points to no task", (task < 0) | (task >= len(found.attributes["task_names"])))


def _count(faults: list[str], what: str, wrong: np.ndarray) -> None:
    if wrong.any():
        faults.append(f"{what}: {int(wrong.sum())} of {len(wrong)} (first: episode {int(np.argmax(wrong))})")


def _checksums(file: h5py.File, found: Structure) -> None:
    """Whether attributes and the table of episodes are what was written; statistics are verified when they are read."""
    if found.version == 1:
        return
    for name, written in zip(EPISODE_COLUMNS[found.version], found.attributes["column_checksums"], strict=True):
        if name not in MOMENTS and column_checksum(found.table[name]) != written:
            found.faults.append(checksum_fault(f"episode/{name}"))
    if attribute_checksum(found.attributes) != found.attributes["attribute_checksum"]:
        found.faults.append(checksum_fault("the attributes"))


def _statistics(file: h5py.File, found: Structure) -> None:
    """What is kept of the tasks, where there is any of it."""
    if found.version == 1 or not any(name in file.attrs for name in COMPUTED_ATTRIBUTES):
        return
    place = file, found.attributes, len(found.tasks), found.shapes["obs"][1]
    found.statistics = attempt(found.faults, "the statistics of the tasks", lambda: kept_statistics(*place))


def checksum_fault(what: str) -> str:
    """What is said of a part that has been changed since it was written."""
    return f"{what}: not the checksum of what was written"
