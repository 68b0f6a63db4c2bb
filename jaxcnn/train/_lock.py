"""One writer at a time for a folder, by a lock that ends with its owner, even if the owner is killed."""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from jaxcnn.train import _flock
from jaxcnn.train.checkpoint import CheckpointError

_NAME = "lock"
_held: set[pathlib.Path] = set()  # by threads of this process
_guard = threading.Lock()


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """In its block, no other process and no other thread gets past this for the same folder.

    Raises:
        CheckpointError: if another one is in such a block, or the folder cannot be written.
    """
    path = folder.resolve() / _NAME
    with _guard:
        if path in _held:
            raise _in_use(folder, path)
        handle = _open(folder, path)
        _held.add(path)

    def release():
        with _guard:
            _held.remove(path)
            with contextlib.suppress(OSError):
                path.unlink()  # while it is still locked, so that it is not the file of the next owner

    with _flock.held(handle, release):
        yield


def _open(folder: pathlib.Path, path: pathlib.Path) -> int:
    """A handle of the lock's file, which says who has locked it."""
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be written: {error}") from error
        try:
            if not _flock.take(handle, wait=False):
                raise _in_use(folder, path)
            if _same_file(handle, path):
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps(owner).encode())
                return handle
        except OSError as error:
            os.close(handle)
            raise CheckpointError(f"{folder}: cannot be written: {error}") from error
        except CheckpointError:
            os.close(handle)
            raise
        os.close(handle)  # of a file that its owner has removed meanwhile


def _same_file(handle: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _in_use(folder: pathlib.Path, path: pathlib.Path) -> CheckpointError:
    try:
        owner: Any = json.loads(path.read_text())
        who = f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        who = "another process"
    return CheckpointError(f"{folder}: in use by {who}; wait for it, or give another folder")
