"""The IDX format of MNIST: a header of 4 + 4 * rank bytes, then the values.

Header: bytes 0-1 zero, byte 2 the type (8: uint8), byte 3 the rank, then each dimension as big-endian uint32.
"""

import gzip
import io
import math
import pathlib
import zlib
from collections.abc import Iterator

import numpy as np

from jaxcnn.data._error import DataError

_MAX_BYTES = 1 << 31  # more than any MNIST-like file has, and small enough for memory


def read_idx(path: pathlib.Path, rank: int) -> np.ndarray:
    """Read an IDX file of uint8 values as an array of the given rank. A name that ends in .gz means gzip.

    Raises:
        DataError: if the file is not an IDX file of this rank, or its size does not match its header.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4)
            if header != bytes([0, 0, 8, rank]):
                raise DataError(
                    f"{path}: expected an IDX header for unsigned bytes of rank {rank}, {bytes([0, 0, 8, rank])!r}, "
                    f"found {header!r}"
                )
            sizes = file.read(4 * rank)
            if len(sizes) < 4 * rank:
                raise DataError(
                    f"{path}: expected {rank} dimensions in the header, found only {len(sizes)} of {4 * rank} bytes"
                )
            shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
            expected = math.prod(shape)
            if math.prod(max(size, 1) for size in shape) > _MAX_BYTES:
                raise DataError(f"{path}: expected at most {_MAX_BYTES} bytes, found a header for {shape}")
            # A bytearray, so that the array is writable. One byte more stops a gzip file that decompresses to more.
            body = bytearray().join(_chunks(file, expected + 1))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(body) != expected:
        found = f"only {len(body)}" if len(body) < expected else "more"
        raise DataError(f"{path}: expected {expected} bytes after the header for {shape}, found {found}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _chunks(file: gzip.GzipFile | io.BufferedReader, max_bytes: int) -> Iterator[bytes]:
    """Yield up to `max_bytes` bytes in chunks, so that memory grows only with the actual size."""
    while max_bytes and (chunk := file.read(min(max_bytes, 1 << 20))):
        max_bytes -= len(chunk)
        yield chunk
