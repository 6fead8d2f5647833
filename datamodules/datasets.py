"""The datasets of a store's file, before anything is read of them: whether they are its own, and how they lie in it."""

from __future__ import annotations

import math

import h5py
import numpy as np

from datamodules.layout import TEXT, WIDE_COLUMNS
from datamodules.probing import Fault

_LARGEST_CHUNK = 2**30
_H5_TYPES = {
    "<f4": h5py.h5t.IEEE_F32LE,
    "<f8": h5py.h5t.IEEE_F64LE,
    "<i4": h5py.h5t.STD_I32LE,
    "<i8": h5py.h5t.STD_I64LE,
    "<u4": h5py.h5t.STD_U32LE,
    "|u1": h5py.h5t.STD_U8LE,
}


def own_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that lies in this very file, followed through no link but the file's own tree.

    Raises:
        Fault: there is none.
    """
    where: object = file
    for part in name.split("/"):
        link = where.get(part, getlink=True) if isinstance(where, h5py.Group) else None
        if link is None:
            raise Fault("is missing")
        if not isinstance(link, h5py.HardLink):
            kind = "an external link to another file" if isinstance(link, h5py.ExternalLink) else "a soft link"
            raise Fault(f"is {kind}; a store holds its data itself")
        where = where[part]
    if not isinstance(where, h5py.Dataset):
        raise Fault(f"is a {type(where).__name__.lower()}, and should be a dataset")
    return where


def look_at_shape(dataset: h5py.Dataset, name: str, dtype: str) -> None:
    """Make sure that a dataset has as many dimensions as the layout says.

    Raises:
        Fault: it has not.
    """
    wanted, shape = 2 if name in WIDE_COLUMNS else 1, dataset.shape
    if shape is None or len(shape) != wanted:
        raise Fault(f"has {'no' if shape is None else len(shape)} dimensions, and should have {wanted}")


def look_at_type(dataset: h5py.Dataset, name: str, dtype: str) -> None:
    """Make sure that a dataset has the layout's type.

    Raises:
        Fault: it has not.
    """
    if dtype == TEXT:
        if h5py.check_string_dtype(dataset.dtype) is None:
            raise Fault(f"has type {dataset.dtype}, and should be text")
    # HDF5's own types are compared: it has more than numpy can tell apart, and mapped columns are read by numpy's.
    elif dataset.id.get_type() != _H5_TYPES[dtype]:
        raise Fault(f"has type {dataset.dtype}, and should have {np.dtype(dtype)}")


def look_at_data(dataset: h5py.Dataset, name: str, dtype: str) -> None:
    """Make sure that all data is in the file itself, so that reading allocates no more than there is.

    Raises:
        Fault: it is not, or is compressed by what is not installed, or in too large or too many chunks.
    """
    plan, shape, whole = dataset.id.get_create_plist(), dataset.shape or (), dataset.file.id.get_filesize()
    layout, size = plan.get_layout(), math.prod(shape) * dataset.dtype.itemsize
    if plan.get_external_count() or layout == h5py.h5d.VIRTUAL:
        raise Fault("takes its data from other files; a store holds its data itself")
    if layout != h5py.h5d.CHUNKED:
        place = dataset.id.get_offset()
        if size > whole or (place is not None and place + size > whole):
            raise Fault(f"claims {size:,} bytes of a file of {whole:,}")
        if place is None and size and layout == h5py.h5d.CONTIGUOUS:
            raise Fault("was never written")
        return
    for number in range(plan.get_nfilters()):
        code, _, _, label = plan.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise Fault(f"is compressed by the filter {code} ({label.decode(errors='replace')}), which is not there")
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
    wanted = math.prod(-(-length // step) for length, step in zip(shape, dataset.chunks, strict=True))
    if chunk > _LARGEST_CHUNK:
        raise Fault(f"has chunks of {chunk:,} bytes, more than {_LARGEST_CHUNK:,}")
    if dataset.id.get_num_chunks() != wanted:
        raise Fault(f"has {dataset.id.get_num_chunks():,} chunks, and should have {wanted:,}")
