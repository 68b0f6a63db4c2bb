"""Files that are whole or not there at all."""

import contextlib
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def replace(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` at the end of the block, or leaves it as it was on an error.

    As with `open`, a new file gets the mode that the umask leaves, an old one keeps its mode, and a symbolic link stays
    a link.
    """
    path = pathlib.Path(os.path.realpath(path))
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
