"""Files named by a URL of any file system that fsspec knows, read as local ones."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator
from pathlib import Path

from lit_pwm.errors import LitPWMError
from lit_pwm.paths import absolute, is_url

_EXTRA = {"hf": "huggingface_hub", "s3": "s3fs", "s3a": "s3fs"}
"""Protocols whose packages the extra `hub` installs."""


@contextlib.contextmanager
def local_file(path: str | Path) -> Generator[Path, None, None]:
    """Within the block, the file at a path or URL as a local one; of a remote file a copy, which is removed at the end.

    Raises:
        LitPWMError: the URL's protocol is not known or not installed, or the file cannot be had.
    """
    if not (isinstance(path, str) and is_url(path)):
        yield absolute(path)
        return
    with tempfile.TemporaryDirectory(prefix="lit_pwm_remote_") as folder:
        yield _fetched(path, Path(folder))


def size_of(path: str | Path) -> int:
    """Bytes of the file at a path or URL.

    Raises:
        LitPWMError: as `local_file`.
    """
    with local_file(path) as place:
        return place.stat().st_size


def _fetched(url: str, folder: Path) -> Path:
    import fsspec

    try:
        system, place = fsspec.core.url_to_fs(url)
        if isinstance(system, fsspec.get_filesystem_class("file")):
            return Path(place)
        if system.isdir(place):
            raise LitPWMError(f"The file {url!r} is a folder. Name a file in it.")
        copy = folder / (Path(place).name or "file")
        system.get_file(place, str(copy))
    except LitPWMError:
        raise
    except FileNotFoundError as error:
        raise LitPWMError(f"The file {url!r} does not exist. Name one that does, with its whole path.") from error
    except ImportError as error:
        protocol = url.rpartition("://")[0].rpartition("::")[2]
        package = _EXTRA.get(protocol)
        how = f"`pip install 'lit-pwm[hub]'` installs {package}" if package else "install the package that it names"
        raise LitPWMError(
            f"The file {url!r} cannot be read, because its protocol {protocol!r} needs a package that is not installed "
            f"({_one_line(error)}): {how}."
        ) from error
    except ValueError as error:
        if "not known" not in str(error):
            raise _unreadable(url, error) from error
        raise LitPWMError(
            f"The file {url!r} has a protocol that is not known ({_one_line(error)}). Accepted: paths, and URLs of "
            f"fsspec's file systems, such as hf://, s3://, gs://, https:// and file://."
        ) from error
    except Exception as error:  # networks, servers and permissions fail in any way
        raise _unreadable(url, error) from error
    return copy


def _unreadable(url: str, error: Exception) -> LitPWMError:
    return LitPWMError(
        f"The file {url!r} could not be read ({type(error).__name__}: {_one_line(error)}). See that it exists and that "
        f"you may read it, or copy it here first."
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
