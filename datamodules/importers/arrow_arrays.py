"""Tables of Arrow and Parquet files as numpy arrays; pyarrow is loaded when one is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_pwm.errors import LitPWMError

if TYPE_CHECKING:
    import pyarrow


def pyarrow_or_error() -> Any:
    """The package.

    Raises:
        LitPWMError: it is not installed.
    """
    try:
        import pyarrow.dataset
    except ImportError as error:
        raise LitPWMError(
            "Arrow and Parquet files are read with pyarrow, which is not installed: pip install 'lit-pwm[data]'."
        ) from error
    return pyarrow


def own_table(files: Sequence[Path], kind: str, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """The rows of files one after another.

    Args:
        files: in order.
        kind: `arrow` or `parquet`.
        columns: those that are read; all if not given.

    Raises:
        LitPWMError: a file cannot be read, or a column is not there.
    """
    arrow = pyarrow_or_error()
    try:
        found = arrow.dataset.dataset([str(file) for file in files], format=kind)
        for name in columns or ():
            if name not in found.schema.names:
                raise LitPWMError(
                    f"{str(files[0])!r} has no column {name!r}; it has {', '.join(found.schema.names)}. The data set "
                    f"is incomplete, or of another format."
                )
        return found.to_table(columns=list(columns) if columns is not None else None, use_threads=False)
    except (arrow.ArrowException, OSError, ValueError) as error:
        what = (str(error).splitlines() or [""])[0][:200]
        raise LitPWMError(f"{str(files[0])!r} cannot be read as {kind} ({what}). It is damaged.") from error


def values_of(table: pyarrow.Table, keys: Sequence[str], path: Path) -> np.ndarray:
    """A column of numbers, or a field within it: [T], or [T, W] where each row is a list of W numbers.

    Args:
        table: the rows.
        keys: the column's name, then those of fields within it.
        path: the file, for errors.

    Raises:
        LitPWMError: there is no such field, a value is missing, lists differ in length, or it holds no numbers.
    """
    arrow, name = pyarrow_or_error(), "/".join(keys)
    if keys[0] not in table.column_names:
        raise LitPWMError(
            f"{str(path)!r} has no column {keys[0]!r}; it has {', '.join(table.column_names)}. The data set is "
            f"incomplete, or of another format."
        )
    array = table.column(keys[0]).combine_chunks()
    if isinstance(array, arrow.ChunkedArray):
        array = arrow.concat_arrays(array.chunks) if array.num_chunks else arrow.array([], array.type)
    for key in keys[1:]:
        if not arrow.types.is_struct(array.type) or array.type.get_field_index(key) < 0:
            raise LitPWMError(f"{keys[0]!r} of {str(path)!r} has no field {name!r}; it is {str(array.type)[:200]}.")
        array = array.field(key)
    rows, width = len(array), None
    while arrow.types.is_list(array.type) or arrow.types.is_large_list(array.type) or _is_fixed(arrow, array.type):
        _require_whole(array, name, path)
        if not _is_fixed(arrow, array.type) and len(set(array.value_lengths().to_pylist())) > 1:
            raise LitPWMError(f"{name!r} of {str(path)!r} holds lists of different lengths, and rows are of one width.")
        array = array.flatten()
        width = len(array) // max(rows, 1)
    _require_whole(array, name, path)
    kind = array.type
    if not (arrow.types.is_integer(kind) or arrow.types.is_floating(kind) or arrow.types.is_boolean(kind)):
        raise LitPWMError(f"{name!r} of {str(path)!r} holds {kind}, where numbers are expected.")
    values = array.to_numpy(zero_copy_only=False)
    return values if width is None else values.reshape(rows, width)


def _is_fixed(arrow: Any, kind: Any) -> bool:
    return arrow.types.is_fixed_size_list(kind)


def _require_whole(array: Any, name: str, path: Path) -> None:
    if array.null_count:
        raise LitPWMError(
            f"{name!r} of {str(path)!r} has {array.null_count} missing values; what is missing is no data."
        )
