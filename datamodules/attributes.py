"""Reading the attributes of a store's file into plain values, trusting nothing of it: its sizes, types and text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from datamodules.layout import (
    COMPUTED_ATTRIBUTES,
    CONTENT_HASH,
    LONGEST_NAME,
    LONGEST_SPEC,
    STATISTICS,
    STATISTICS_CHECKSUM,
    content_hash,
    statistics_checksum,
    statistics_shapes,
    text_fault,
)
from datamodules.probing import Fault, require_readable
from datamodules.store_statistics import StoreStatistics


def raw_attribute(file: h5py.File, name: str) -> tuple[np.ndarray, np.dtype]:
    """An attribute's values in one dimension, and their type.

    Raises:
        Fault: it is missing, empty, claims to be larger than its file, or HDF5 does not come back from reading it.
    """
    if name not in file.attrs:
        raise Fault("is missing")
    identity = file.attrs.get_id(name)
    if not isinstance(identity.shape, tuple) or math.prod(identity.shape) == 0:
        raise Fault("is empty")
    if identity.get_storage_size() > file.id.get_filesize():
        raise Fault(f"claims {identity.get_storage_size():,} bytes, more than the file has")
    require_readable(file, identity.dtype, "attributes")
    return np.atleast_1d(file.attrs[name]), identity.dtype


def texts(values: Sequence[object]) -> list[str]:
    """Text that HDF5 gives as bytes (of fixed length) or as str.

    Raises:
        Fault: it is not UTF-8.
    """
    try:
        decoded = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        "".join(decoded).encode()  # what h5py could not decode it turns into surrogates
    except UnicodeError:
        raise Fault("is not UTF-8") from None
    return decoded


def text_attribute(file: h5py.File, name: str) -> list[str]:
    """An attribute of one or more texts.

    Raises:
        Fault: it is none.
    """
    values, dtype = raw_attribute(file, name)
    if values.ndim != 1 or h5py.check_string_dtype(dtype) is None:
        raise Fault(f"has type {dtype}, and should be text")
    return texts(values.tolist())


def whole_numbers(file: h5py.File, name: str) -> list[int]:
    """An attribute of one or more whole numbers.

    Raises:
        Fault: it is none.
    """
    values, dtype = raw_attribute(file, name)
    if values.ndim != 1 or dtype.kind not in "iu":
        raise Fault(f"has type {dtype} and {values.ndim} dimensions, and should be whole numbers")
    return [int(value) for value in values]


def numbers(file: h5py.File, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """An attribute of finite numbers of a type and shape.

    Raises:
        Fault: it is none.
    """
    values, found = raw_attribute(file, name)
    if found != np.dtype(dtype) or values.shape != shape:
        raise Fault(f"has type {found} and shape {list(values.shape)}, and should have {dtype} and {list(shape)}")
    if not np.isfinite(values).all():
        raise Fault("holds numbers that are not finite")
    return values


def whole_number(file: h5py.File, name: str) -> int:
    """An attribute of one whole number, positive where it is a repeat and otherwise not negative.

    Raises:
        Fault: it is none.
    """
    values = whole_numbers(file, name)
    if len(values) != 1:
        raise Fault(f"holds {len(values)} numbers, and should hold one")
    if values[0] < (name == "action_repeat"):
        raise Fault(f"is {values[0]}, less than {int(name == 'action_repeat')}")
    return values[0]


def names_attribute(file: h5py.File, name: str) -> list[str]:
    """An attribute of one or more names.

    Raises:
        Fault: it is none.
    """
    names = text_attribute(file, name)
    require_texts(names, LONGEST_NAME)
    return names


def specs_attribute(file: h5py.File, name: str) -> list[str]:
    """An attribute of one or more JSON objects, as texts.

    Raises:
        Fault: it is none.
    """
    specs = text_attribute(file, name)
    for text in specs:
        if len(text) > LONGEST_SPEC:
            raise Fault(f"holds a text of {len(text):,} characters, more than {LONGEST_SPEC:,}")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Fault(f"holds {text[:80]!r}, which is no JSON ({error})") from None
        if not isinstance(found, dict):
            raise Fault(f"holds {text[:80]!r}, and each of its texts should be a JSON object")
    return specs


def require_texts(values: Sequence[str], longest: int) -> None:
    """Make sure that texts are such as the writer takes.

    Raises:
        Fault: one is not.
    """
    for text in set(values):
        if fault := text_fault(text, longest):
            raise Fault(f"holds {text[:80]!r}, which {fault}")


def kept_statistics(file: h5py.File, attributes: Mapping[str, object], tasks: int, obs_dim: int) -> StoreStatistics:
    """The statistics that a store keeps, of the right shapes and as they were written.

    Args:
        file: the store.
        attributes: its other attributes, as plain values by name.
        tasks: number of its tasks.
        obs_dim: padded width of observations.

    Raises:
        Fault: one is missing or not what was written, or the hash is another.
    """
    if missing := [name for name in COMPUTED_ATTRIBUTES if name not in file.attrs]:
        raise Fault(f"lack {', '.join(missing)}")
    found, name = {}, ""
    try:
        for name, shape in statistics_shapes(tasks, obs_dim).items():
            found[name] = numbers(file, name, STATISTICS[name], shape)
        name = STATISTICS_CHECKSUM
        if whole_number(file, name) != statistics_checksum(found):
            raise Fault("is not the checksum of what was written")
        name = CONTENT_HASH
        if (held := "".join(text_attribute(file, name))) != (true := content_hash(attributes)):
            raise Fault(f"is {held[:80]!r}, and that of the columns and attributes is {true!r}")
    except Fault as fault:
        raise Fault(f"are not as they were written: {name} {fault}") from None
    return StoreStatistics(**found)
