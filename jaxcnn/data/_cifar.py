"""The binary format of CIFAR: consecutive records of labels and an image, without a header.

CIFAR-10: 1 byte label, 3,072 bytes image; CIFAR-100: 1 byte coarse label, 1 byte label, 3,072 bytes image.
An image has three planes of 32 x 32 bytes: red, green, blue.
"""

import pathlib
import tarfile
import zlib

import numpy as np

from jaxcnn._replace import replace
from jaxcnn.data._error import DataError

_IMAGE = 3 * 32 * 32
_MAX_RECORDS = 100_000  # more than any CIFAR file has, and small enough for memory


def read_cifar(path: pathlib.Path, label_bytes: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 32, 32, 3) and labels (N,) of a file. The last label byte of each record is the label.

    Raises:
        DataError: if the file size is not a multiple of the record size, or a label is out of range.
    """
    record = label_bytes + _IMAGE
    try:
        with path.open("rb") as file:
            body = file.read(_MAX_RECORDS * record + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(body) > _MAX_RECORDS * record:
        raise DataError(f"{path}: expected at most {_MAX_RECORDS} records of {record} bytes, found more")
    if not body or len(body) % record:
        raise DataError(f"{path}: expected a multiple of the record size, {record} bytes, found {len(body)} bytes")
    records = np.frombuffer(body, np.uint8).reshape(-1, record)
    labels = records[:, label_bytes - 1]
    if labels.max() >= classes:
        raise DataError(f"{path}: expected labels from 0 to {classes - 1}, found {labels.max()}")
    images = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int32)


def unpack(archive: pathlib.Path, members: tuple[str, ...], max_bytes: int) -> None:
    """Extract the listed members of a .tar.gz into the archive's folder, under their paths in the archive.

    Only regular files of at most `max_bytes` are extracted. Links, owners and all other members are ignored.

    Raises:
        DataError: if a member is missing, is not a regular file, or is too large.
    """
    missing = set(members)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name not in missing:
                    continue
                if not member.isreg() or member.size > max_bytes:
                    raise DataError(f"{archive}: expected {member.name} to be a file of at most {max_bytes} bytes")
                file = tar.extractfile(member)
                content = file.read(max_bytes) if file else b""
                path = archive.parent / member.name
                path.parent.mkdir(exist_ok=True)
                with replace(path) as file:
                    file.write(content)
                missing.remove(member.name)
                if not missing:
                    return
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive}: cannot be extracted: {error}") from error
    raise DataError(f"{archive}: expected the archive to contain {', '.join(sorted(missing))}")
