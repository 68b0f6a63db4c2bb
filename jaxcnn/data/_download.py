"""Downloads over https. The size and the SHA-256 hash of every file are known and verified."""

import contextlib
import os
import pathlib
import queue
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxcnn.data._error import DataError

_WINDOW = 30  # seconds over which the speed is measured
_MIN_SPEED = 10_000  # bytes per second; a slower download fails
_CHUNK = 1 << 14  # bytes


class Remote(NamedTuple):
    """A file to download, with its exact size and hash."""

    url: str
    size: int  # bytes
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def fetch(remote: Remote, folder: pathlib.Path) -> pathlib.Path:
    """Download the file into the folder, unless it is there, and return its path.

    The file is renamed to its final name only after its hash has been verified.

    Raises:
        DataError: if the download fails.
    """
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            f"downloading {remote.url} needs pooch, which is not installed (pip install 'jaxcnn[download]')"
        ) from error
    pooch.get_logger().setLevel("WARNING")  # replaces pooch's message by the one below, which includes the size
    if not (folder / remote.name).exists():
        print(f"downloading {remote.url} ({remote.size / 1e6:.1f} MB) to {folder} ...", file=sys.stderr, flush=True)
    try:
        path = pooch.retrieve(
            remote.url, f"sha256:{remote.sha256}", remote.name, folder, downloader=_capped(remote.size)
        )
    except (OSError, ValueError) as error:  # pooch raises ValueError for a wrong hash
        raise DataError(f"{remote.url}: cannot be downloaded: {error}") from error
    return pathlib.Path(path)


def _capped(size: int) -> Any:
    """A downloader for pooch that stops as soon as the file exceeds the expected size."""

    def download(url: str, output: str, _: Any) -> None:
        os.unlink(output)  # pooch's file is readable by its owner only; a new file follows the umask
        got = 0
        with open(output, "xb") as file:
            for chunk in fast_enough_chunks(url):
                got += len(chunk)
                if got > size:
                    raise OSError(f"expected {size} bytes, found more")
                file.write(chunk)
        if got < size:
            raise OSError(f"expected {size} bytes, found {got}")

    return download


def fast_enough_chunks(url: str) -> Iterator[bytes]:
    """Yield the chunks of a download. Raises OSError if the speed falls below `_MIN_SPEED`.

    A thread reads them, because DNS look-ups, headers and reads that receive single bytes have no total time-out.
    """
    chunks: queue.Queue[bytes | Exception | None] = queue.Queue(64)
    abandoned = threading.Event()

    def put(chunk: bytes | Exception | None) -> None:
        while not abandoned.is_set():
            try:
                return chunks.put(chunk, timeout=1)
            except queue.Full:
                continue
        raise OSError("download abandoned")

    def read() -> None:
        with contextlib.suppress(OSError):
            try:
                for chunk in _chunks(url):
                    put(chunk)
                put(None)
            except Exception as error:
                put(error)

    threading.Thread(target=read, daemon=True).start()
    total, began = 0, time.monotonic()
    try:
        while True:
            start, got = time.monotonic(), 0
            while (left := start + _WINDOW - time.monotonic()) > 0:
                try:
                    chunk = chunks.get(timeout=left)
                except queue.Empty:
                    break
                if chunk is None:
                    return
                if isinstance(chunk, Exception):
                    raise chunk
                got += len(chunk)
                total += len(chunk)
                yield chunk
            if got < _MIN_SPEED * _WINDOW:
                seconds = time.monotonic() - began
                raise OSError(f"too slow: {total} bytes in {seconds:.0f} s, less than {_MIN_SPEED} bytes per second")
    finally:
        abandoned.set()


def _chunks(url: str) -> Iterator[bytes]:
    import requests

    with requests.get(url, stream=True, timeout=_WINDOW) as response:
        response.raise_for_status()
        for step in (*response.history, response):
            if urllib.parse.urlsplit(step.url).scheme != "https":
                raise OSError(f"{step.url} is not https")
        yield from response.iter_content(_CHUNK)
