"""Files from the network: over https, no larger than known, with the known SHA-256, or not at all."""

import pathlib
import sys
import urllib.parse
from typing import Any, NamedTuple

from jaxcnn.data._error import DataError

_SILENCE = 30  # seconds without a byte after which a server counts as gone


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
        import requests

        with requests.get(url, stream=True, timeout=_SILENCE) as response:
            response.raise_for_status()
            for step in (*response.history, response):
                if urllib.parse.urlsplit(step.url).scheme != "https":
                    raise OSError(f"it is at {step.url}, which is not https")
            got = 0
            with open(output, "wb") as file:
                for chunk in response.iter_content(1 << 20):
                    got += len(chunk)
                    if got > size:
                        raise OSError(f"expected {size} bytes, found more")
                    file.write(chunk)
            if got < size:
                raise OSError(f"expected {size} bytes, found {got}")

    return download
