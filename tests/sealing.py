"""Making a changed store's checksums right again, as a program would write them that computes its content wrongly."""

from __future__ import annotations

import h5py
import numpy as np

from datamodules.layout import (
    EPISODE_COLUMNS,
    ROW_COLUMNS,
    STATISTICS,
    attribute_checksum,
    column_checksum,
    content_hash,
    rows_checksum,
    statistics_checksum,
)
from datamodules.structure import read_column, read_structure


def seal(file: h5py.File, rows: bool = False) -> None:
    """Write all checksums and the hash anew; those of rows too if wished."""
    version = int(file.attrs["format_version"])
    if rows:
        ends = zip(file["episode/offset"][:].tolist(), file["episode/length"][:].tolist(), strict=True)
        for number, (start, count) in enumerate(ends):
            file["episode/checksum"][number] = rows_checksum({n: file[n][start : start + count] for n in ROW_COLUMNS})
    columns = {name: read_column(file, name) for name in EPISODE_COLUMNS[version]}
    file.attrs["column_checksums"] = [column_checksum(values) for values in columns.values()]
    attributes = read_structure(file, version).attributes
    file.attrs["attribute_checksum"] = attribute_checksum(attributes)
    file.attrs["content_hash"] = np.bytes_(content_hash(attributes))
    file.attrs["statistics_checksum"] = statistics_checksum({name: file.attrs[name] for name in STATISTICS})
