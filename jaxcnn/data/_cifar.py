"""The binary layout of CIFAR: records of labels and an image, one after the other, without a header.

CIFAR-10: 1 byte label, 3,072 bytes image; CIFAR-100: 1 byte coarse label, 1 byte label, 3,072 bytes image.
An image is 32 rows of 32 red values, then as many green and blue ones.
"""

import pathlib
import tarfile
import zlib

import numpy as np

from jaxcnn._replace import replace
from jaxcnn.data._error import DataError

_IMAGE = 3 * 32 * 32
_MOST = 100_000  # records; more than any such file has, less than would hurt


def read_cifar(path: pathlib.Path, label_bytes: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(images (N, 32, 32, 3), labels (N,)) of a file, of whose labels the last counts.

    Raises:
        DataError: if the file is not a whole number of records, or a label is not one of the classes.
    """
    record = label_bytes + _IMAGE
    try:
        with path.open("rb") as file:
            body = file.read(_MOST * record + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(body) > _MOST * record:
        raise DataError(f"{path}: expected at most {_MOST} records of {record} bytes, found more")
    if not body or len(body) % record:
        raise DataError(f"{path}: expected records of {record} bytes, found {len(body)} bytes in all")
    records = np.frombuffer(body, np.uint8).reshape(-1, record)
    labels = records[:, label_bytes - 1]
    if labels.max() >= classes:
        raise DataError(f"{path}: expected labels from 0 to {classes - 1}, found {labels.max()}")
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int32)


def unpack(archive: pathlib.Path, members: tuple[str, ...], most: int) -> None:
    """Write those files of a .tar.gz beside it, each in a folder as in the archive, and nothing else.

    Only names that are asked for are read, up to `most` bytes of each, and what an archive says of links, owners or
    paths has no effect.

    Raises:
        DataError: if one is missing, is no plain file, or is longer.
    """
    missing = set(members)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name not in missing:
                    continue
                if not member.isreg() or member.size > most:
                    raise DataError(f"{archive}: expected {member.name} to be a file of at most {most} bytes")
                file = tar.extractfile(member)
                content = file.read(most) if file else b""
                path = archive.parent / member.name
                path.parent.mkdir(exist_ok=True)
                with replace(path) as file:
                    file.write(content)
                missing.remove(member.name)
                if not missing:
                    return
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive}: cannot be unpacked: {error}") from error
    raise DataError(f"{archive}: expected to hold {', '.join(sorted(missing))}")
