"""Atomic writes of files."""

import contextlib
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replace(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` at the end of the block. On an error, `path` does not change.

    Raises OSError if `path` is not a regular file, such as a device, which a file would replace too.

    As with `open`, a new file has the default mode, an existing file keeps its mode, and a symbolic link stays a link.
    """
    path = pathlib.Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file")
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            partial.chmod(stat.S_IMODE(path.stat().st_mode))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
