"""Writing a checkpoint's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import torch


class _Remembering:
    """A file to write to that keeps the system's error: torch reports it as one of its own, without the reason."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.error = file, None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error: OSError | None = error
            raise

    def flush(self) -> None:
        self.file.flush()


def write_tensors(content: object, path: str | Path) -> None:
    """`torch.save`, with the system's own error where the file cannot be written.

    Raises:
        OSError: it cannot.
    """
    with open(path, "wb") as file:
        remembering = _Remembering(file)
        try:
            torch.save(content, remembering)  # ty: ignore[invalid-argument-type]
        except Exception:
            if remembering.error is not None:
                raise remembering.error from None
            raise
