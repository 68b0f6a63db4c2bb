"""The IDX format of MNIST: a header of 4 + 4 * rank bytes, then the values.

bytes 0-1 zero, byte 2 the type (8: unsigned bytes), byte 3 the rank, then each dimension as big-endian uint32
"""

import gzip
import io
import math
import pathlib
import zlib
from collections.abc import Iterator

import numpy as np

from jaxcnn.data._error import DataError

_MOST = 1 << 31  # bytes; more than any such file has, less than would hurt


def read_idx(path: pathlib.Path, rank: int) -> np.ndarray:
    """The unsigned bytes of an IDX file, compressed if its name ends in .gz, as an array of this rank.

    Raises:
        DataError: if the file is not exactly what its header says, or is no such file.
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
                raise DataError(f"{path}: expected {rank} dimensions in the header, found {len(sizes)} bytes of them")
            shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
            expected = math.prod(shape)
            if math.prod(max(size, 1) for size in shape) > _MOST:
                raise DataError(f"{path}: expected at most {_MOST} bytes, found a header for {shape}")
            body = b"".join(_chunks(file, expected + 1))  # never more than that, however far the file unpacks
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(body) != expected:
        found = f"only {len(body)}" if len(body) < expected else "more"
        raise DataError(f"{path}: expected {expected} bytes after the header for {shape}, found {found}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _chunks(file: gzip.GzipFile | io.BufferedReader, most: int) -> Iterator[bytes]:
    """Up to `most` bytes, in pieces, so that memory is taken only for what is there."""
    while most and (chunk := file.read(min(most, 1 << 20))):
        most -= len(chunk)
        yield chunk
