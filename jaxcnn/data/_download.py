"""Files from the network: over https, no larger than known, with the known SHA-256, or not at all."""

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

_WINDOW = 30  # seconds, in each of which there must be
_SLOWEST = 10_000  # bytes a second, else a server counts as gone
_CHUNK = 1 << 14  # bytes


class Remote(NamedTuple):
    """A file to download: what it is, to the bit."""

    url: str
    size: int  # bytes
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def fetch(remote: Remote, folder: pathlib.Path) -> pathlib.Path:
    """The file in the folder, downloaded if it is not there.

    It is written under another name, and gets its own only when its bytes are those expected.

    Raises:
        DataError: if that cannot be.
    """
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            f"pooch, which would download {remote.url}, is not installed (pip install 'jaxcnn[download]')"
        ) from error
    pooch.get_logger().setLevel("WARNING")  # the line below says the same, and how large it is
    if not (folder / remote.name).exists():
        print(f"downloading {remote.url} ({remote.size / 1e6:.1f} MB) to {folder} ...", file=sys.stderr, flush=True)
    try:
        path = pooch.retrieve(
            remote.url, f"sha256:{remote.sha256}", remote.name, folder, downloader=_capped(remote.size)
        )
    except (OSError, ValueError) as error:  # pooch tells a wrong hash by ValueError
        raise DataError(f"{remote.url}: cannot be downloaded: {error}") from error
    return pathlib.Path(path)


def _capped(size: int) -> Any:
    """What pooch calls to download: it stops when there is more than there should be."""

    def download(url: str, output: str, _: Any) -> None:
        os.unlink(output)  # pooch has made it for its owner alone; a new one gets the mode that the umask leaves
        got = 0
        with open(output, "xb") as file:
            for chunk in _in_time(url):
                got += len(chunk)
                if got > size:
                    raise OSError(f"expected {size} bytes, found more")
                file.write(chunk)
        if got < size:
            raise OSError(f"expected {size} bytes, found {got}")

    return download


def _in_time(url: str) -> Iterator[bytes]:
    """The chunks that a server sends, while it keeps up the lowest speed.

    They are read by another thread, as a read waits as long as single bytes come, and so do name look-ups and headers.
    """
    chunks: queue.Queue[bytes | Exception | None] = queue.Queue(64)
    given_up = threading.Event()

    def put(chunk: bytes | Exception | None) -> None:
        while not given_up.is_set():
            try:
                return chunks.put(chunk, timeout=1)
            except queue.Full:
                continue
        raise OSError("given up")

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
            if got < _SLOWEST * _WINDOW:
                seconds = time.monotonic() - began
                raise OSError(f"too slow: {total} bytes in {seconds:.0f} s, less than {_SLOWEST} a second")
    finally:
        given_up.set()


def _chunks(url: str) -> Iterator[bytes]:
    import requests

    with requests.get(url, stream=True, timeout=_WINDOW) as response:
        response.raise_for_status()
        for step in (*response.history, response):
            if urllib.parse.urlsplit(step.url).scheme != "https":
                raise OSError(f"it is at {step.url}, which is not https")
        yield from response.iter_content(_CHUNK)
