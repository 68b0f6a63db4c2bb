"""File locks of the operating system. They are released when the process that holds them ends."""

import contextlib
import os
from collections.abc import Callable, Iterator

_handles: set[int] = set()  # of files locked by this process


def acquire(handle: int, *, wait: bool) -> bool:
    """Lock an open file. Returns False if another handle holds the lock and `wait` is False.

    Returns True without locking on Windows and on file systems without locks.
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
    """A context that calls `release` and closes the locked file at its end, but not in forked processes."""
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
    """A context that only one process at a time can enter for the same folder; others wait."""
    if os.name != "posix":  # other systems cannot open folders
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    with held(handle):
        acquire(handle, wait=True)
        yield


def _close_in_child() -> None:
    """Close a forked process's copies of the handles; otherwise they would keep the parent's locks alive."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
