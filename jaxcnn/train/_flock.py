"""Locks of the operating system on open files. They end with the process that holds them, however it ends."""

import contextlib
import os
from collections.abc import Callable, Iterator

_handles: set[int] = set()  # of files that this process has locked


def take(handle: int, *, wait: bool) -> bool:
    """Whether the open file is locked now: False if another handle of it is, unless this waits for that one.

    True, too, where there are no such locks: on Windows and on some file systems.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def held(handle: int, release: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Close a locked file at the end of the block, after `release`. Processes forked in the block do neither."""
    _handles.add(handle)
    try:
        yield
    finally:
        if handle in _handles:
            _handles.remove(handle)
            try:
                release()
            finally:
                os.close(handle)


@contextlib.contextmanager
def one_at_a_time(folder: str | os.PathLike) -> Iterator[None]:
    """In its block, other processes wait before such a block for the same folder."""
    if os.name != "posix":  # elsewhere, folders cannot be opened
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    with held(handle):
        take(handle, wait=True)
        yield


def _forget() -> None:
    """In a forked process: close its copies of the files, with which it would hold the locks of its parent."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
