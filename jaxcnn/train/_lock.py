"""An exclusive lock on a run folder. The operating system releases it when the process ends, even if killed."""

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
_held: set[pathlib.Path] = set()  # lock files held by threads of this process
_guard = threading.Lock()


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """A context that holds the exclusive lock on a folder.

    Raises:
        CheckpointError: if another process or thread holds the lock, or the folder cannot be written.
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
                path.unlink()  # before the lock is released, so it is not the next owner's file

    with _flock.held(handle, release):
        yield


def _open(folder: pathlib.Path, path: pathlib.Path) -> int:
    """A locked handle of the lock file. The file names its owner."""
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot write the lock file: {error}") from error
        try:
            if not _flock.acquire(handle, wait=False):
                raise _in_use(folder, path)
            if _same_file(handle, path):
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps(owner).encode())
                return handle
        except OSError as error:
            os.close(handle)
            raise CheckpointError(f"{folder}: cannot write the lock file: {error}") from error
        except CheckpointError:
            os.close(handle)
            raise
        os.close(handle)  # its owner removed the file in the meantime: try again


def _same_file(handle: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _in_use(folder: pathlib.Path, path: pathlib.Path) -> CheckpointError:
    try:
        owner: Any = json.loads(path.read_text())
        process = f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        process = "another process"
    return CheckpointError(f"{folder}: in use by {process}; wait until it ends, or use another folder")
