"""Whether a checkpoint's bytes are those that were written."""

from __future__ import annotations

import zipfile
from pathlib import Path

from lit_pwm.errors import LitPWMError


def require_whole(path: str | Path, called: str | Path | None = None) -> None:
    """See that a checkpoint is as it was written.

    Args:
        path: the file.
        called: as errors name it, where that is not its path.

    Raises:
        LitPWMError: it is not.
    """
    if (part := damaged_part(path)) is not None:
        raise LitPWMError(
            f"The checkpoint {str(called or path)!r} is damaged: the checksum of {part!r} in it is not that of its "
            f"bytes. Use another checkpoint of the run, or copy this one again from where it came."
        )


def damaged_part(path: str | Path) -> str | None:
    """The first part of a file whose bytes are not those that `torch.save` wrote, by its checksum; None if all are.

    torch itself does not look at the checksums when it reads. Files of its older format have none and
    pass, and so do those that were written without (`torch.serialization.set_crc32_options(False)`, all zero).
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as parts:
            has_checksums = any(part.CRC for part in parts.infolist())
            return parts.testzip() if has_checksums else None
    except Exception as error:  # damaged bytes make the reader fail in any way
        return f"its directory ({error})"
