"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from lit_pwm.errors import LitPWMError


@contextlib.contextmanager
def replacing(path: str | Path, what: str) -> Generator[Path, None, None]:
    """A path to write to, which takes the place of `path` if the block ends well and is removed if it does not.

    Args:
        path: where the file is to be; its folder is made if need be.
        what: what the file is, for errors, such as `"The evaluation's result"`.

    Yields:
        A path beside `path`, with the same ending.

    Raises:
        LitPWMError: the file cannot be written; raised for any OSError within the block.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
        raise LitPWMError(
            f"{what} could not be written to {str(path)!r}: {reason}. Name a file in a folder that can be written to."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
