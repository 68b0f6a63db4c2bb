"""Data sets are what they claim to be, and no file, however damaged, gives anything but images or a DataError."""

import gzip
import hashlib
import math
import pathlib
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

import jaxcnn.data
from jaxcnn.data import DataError, Dataset, load, normalize

PACKAGED = pathlib.Path(jaxcnn.data.__file__).parent / "mnist_small"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
SHA256 = {  # of the bytes of the images, and of the labels as one byte each
    "train": (
        8000,
        "3496ee82b5cfbaf6cc031845bd2fd85bba36ebf0eb988a413ee9b0e311fba5c6",
        "34f13ceee194c7f8e7cd4768b527844972af1ac4b3be2911fc235fb5bcae82c2",
    ),
    "test": (
        2000,
        "7c939f22fc535a55326ce92b1dac84d324d43174d96e4b64df12c224c72a4ee9",
        "5c943ab285ab8071f770dcc9ffb5c3ce926241a43ff2e6bb47eea37e4a30a9d2",
    ),
}


def sha256(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def idx(array):
    """An IDX file of unsigned bytes."""
    array = np.asarray(array, np.uint8)
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def header(*sizes):
    return bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3, 5), np.uint8)
DIGITS = np.array([3, 1, 4, 9], np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a small valid data set; neither home nor the environment has another."""
    monkeypatch.delenv("JAXCNN_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    target = tmp_path / "data"
    fill(target)
    return target


def fill(folder, images=idx(PIXELS), labels=idx(DIGITS)):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / IMAGES).write_bytes(images)
    (folder / LABELS).write_bytes(labels)


def read(folder):
    return load("mnist", "train", root=folder)


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_small(split):
    n, images, labels = SHA256[split]
    digits = load("mnist_small", split)
    assert digits.images.shape == (n, 28, 28, 1)
    assert digits.images.dtype == np.uint8
    assert digits.labels.shape == (n,)
    assert digits.labels.dtype == np.int32
    assert digits.classes == tuple("0123456789")
    assert sha256(digits.images) == images
    assert sha256(digits.labels.astype(np.uint8)) == labels
    assert np.bincount(digits.labels).min() > 0.08 * n


def test_mnist_small_is_the_start_of_mnist():
    try:
        full = load("mnist", "train")
    except DataError as missing:
        pytest.skip(f"needs all of MNIST: put {IMAGES}.gz and {LABELS}.gz in the folder in JAXCNN_DATA ({missing})")
    for split, part in (("train", slice(0, 8000)), ("test", slice(8000, 10_000))):
        digits = load("mnist_small", split)
        np.testing.assert_array_equal(digits.images, full.images[part])
        np.testing.assert_array_equal(digits.labels, full.labels[part])


@pytest.mark.parametrize(("split", "n"), [("train", 60_000), ("test", 10_000)])
def test_mnist(split, n):
    try:
        digits = load("mnist", split)
    except DataError as missing:
        pytest.skip(f"needs all of MNIST: put its four files in the folder in JAXCNN_DATA ({missing})")
    assert digits.images.shape == (n, 28, 28, 1)
    assert np.bincount(digits.labels).size == 10


def test_package_is_small_and_says_what_it_may_be_used_for():
    files = [path for path in PACKAGED.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert sum(path.stat().st_size for path in files) < 2_000_000
    license = (PACKAGED / "README.md").read_text()
    assert "Creative Commons Attribution-ShareAlike 3.0" in license
    assert "https://creativecommons.org/licenses/by-sa/3.0/" in license
    assert "LeCun" in license


@pytest.mark.parametrize("compress", [False, True])
def test_reads_what_was_written(folder, compress):
    if compress:
        for name in (IMAGES, LABELS):
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            (folder / name).unlink()
    digits = read(folder)
    np.testing.assert_array_equal(digits.images, PIXELS[..., None])
    np.testing.assert_array_equal(digits.labels, DIGITS)
    assert digits.images.dtype == np.uint8
    assert digits.labels.dtype == np.int32


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, b"", "expected an IDX header.*found b''"),
        (IMAGES, b"\x00\x00\x09" + idx(PIXELS)[3:], "expected an IDX header.*rank 3.*found"),
        (IMAGES, b"\x1f\x8b" + idx(PIXELS)[2:], "expected an IDX header"),
        (IMAGES, idx(DIGITS), "of rank 3.*found"),
        (LABELS, idx(PIXELS), "of rank 1.*found"),
        (IMAGES, idx(PIXELS)[:-1], r"expected 60 bytes after the header for \(4, 3, 5\), found only 59"),
        (IMAGES, header(4, 3, 5), "expected 60 bytes .* found only 0"),
        (IMAGES, idx(PIXELS) + b"\x00", "expected 60 bytes .* found more"),
        (IMAGES, header(2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(60), "expected at most .* found a header for"),
        (IMAGES, header(2**16, 2**16, 1) + bytes(60), "expected at most .* found a header for"),
        (IMAGES, header(0, 2**32 - 1, 2**32 - 1), "expected"),
        (LABELS, idx(DIGITS[:3]), "expected a label for each of 4 images, found 3"),
        (LABELS, idx([0, 1, 2, 3, 4]), "expected a label for each of 4 images, found 5"),
        (LABELS, idx([0, 1, 10, 3]), "expected labels from 0 to 9, found 10"),
    ],
    ids=[
        "empty",
        "signed bytes",
        "wrong magic",
        "labels for images",
        "images for labels",
        "a byte short",
        "no body",
        "a byte more",
        "huge",
        "4 GiB",
        "none of huge",
        "too few labels",
        "too many labels",
        "label 10",
    ],
)
def test_hostile_file(folder, name, content, message, compress):
    path = folder / name
    if compress:
        path.unlink()
        path, content = folder / f"{name}.gz", gzip.compress(content)
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(folder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("name", "whole"), [(IMAGES, idx(PIXELS)), (LABELS, idx(DIGITS))], ids=["images", "labels"])
def test_truncated_anywhere(folder, name, whole):
    for n in range(len(whole)):
        (folder / name).write_bytes(whole[:n])
        with pytest.raises(DataError, match=name):
            read(folder)


def test_compressed_truncated_anywhere(folder):
    whole = gzip.compress(idx(PIXELS))
    (folder / IMAGES).unlink()
    for n in range(len(whole)):
        (folder / f"{IMAGES}.gz").write_bytes(whole[:n])
        with pytest.raises(DataError, match=IMAGES):
            read(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not compressed at all",
        idx(PIXELS),
        gzip.compress(idx(PIXELS))[:-8] + bytes(8),
        gzip.compress(idx(PIXELS)) + b"more",
        gzip.compress(idx(PIXELS)) * 2,
        b"\x1f\x8b\x07" + gzip.compress(idx(PIXELS))[3:],
        gzip.compress(idx(PIXELS))[:10] + b"\xff" * 40,
    ],
    ids=["empty", "text", "plain", "wrong checksum", "trailing", "twice", "unknown method", "bad deflate"],
)
def test_damaged_gzip(folder, content):
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").write_bytes(content)
    with pytest.raises(DataError, match=IMAGES):
        read(folder)


@pytest.mark.parametrize(
    ("sizes", "mebibytes", "compress"),
    [((4, 3, 5), 64, True), ((2**11, 2**10, 2**10), 64, True), ((2**11, 2**10, 2**10), 0, False)],
    ids=["small header, large body", "larger header", "large header, no body"],
)
def test_bomb_stays_small(folder, sizes, mebibytes, compress):
    """Neither what a header promises nor what a file unpacks to is taken from memory before it is there and wanted."""
    (folder / IMAGES).unlink()
    with gzip.open(folder / f"{IMAGES}.gz", "wb", 1) if compress else (folder / IMAGES).open("wb") as file:
        file.write(header(*sizes))
        for _ in range(mebibytes):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="bytes after the header"):
            read(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 256 << 20


def decode(blob, rank):
    """What an IDX file holds, by another way; None if it is none."""
    if len(blob) < 4 + 4 * rank or blob[:4] != bytes([0, 0, 8, rank]):
        return None
    sizes = struct.unpack_from(f">{rank}I", blob, 4)
    body = blob[4 + 4 * rank :]
    return np.array(list(body), np.uint8).reshape(sizes) if math.prod(sizes) == len(body) > 0 else None


def mutate(blob, rng):
    blob = bytearray(blob)
    for _ in range(rng.randint(1, 3)):
        at, n = rng.randrange(len(blob)), rng.randint(1, 6)
        match rng.randrange(6):
            case 0:
                blob[at] ^= 1 << rng.randrange(8)
            case 1:
                blob[at : at + n] = rng.randbytes(n)
            case 2:
                del blob[at : at + n]
            case 3:
                blob[at:at] = blob[at : at + n]
            case 4:
                blob[rng.randrange(min(16, len(blob)))] = rng.choice([0, 1, 2, 3, 4, 8, 127, 255])
            case 5:
                del blob[at:]
        if not blob:
            break
    return bytes(blob)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "rank"), [(IMAGES, idx(PIXELS), 3), (LABELS, idx(DIGITS), 1)], ids=["images", "labels"]
)
def test_mutations(folder, name, content, rank, compress):
    rng = random.Random(f"{name} {compress}")
    path = folder / (f"{name}.gz" if compress else name)
    if compress:
        (folder / name).unlink()
        content = gzip.compress(content, mtime=0)
    outcomes = set()
    for _ in range(520):  # of each of four kinds
        blob = mutate(content, rng)
        path.write_bytes(blob)
        try:
            expected = decode(gzip.decompress(blob) if compress else blob, rank)
        except (OSError, EOFError, zlib.error):
            expected = None
        fits = expected is not None and len(expected) == 4 and (rank == 3 or expected.max() <= 9)
        outcomes.add(fits)
        if fits:
            digits = read(folder)
            np.testing.assert_array_equal(digits.images[..., 0] if rank == 3 else digits.labels, expected)
        else:
            with pytest.raises(DataError, match=name):
                read(folder)
    assert outcomes == {False, True}, "a test of both needs both"


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_missing_file_says_where_it_looked(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} or {name}.gz: not found in .*JAXCNN_DATA") as caught:
        read(folder)
    assert str(folder / "mnist") in str(caught.value)
    assert str(folder) in str(caught.value)


def test_missing_file_names_every_place(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(DataError, match="not found") as caught:
        load("mnist", "test")
    for place in ("named/mnist", "named", "home/.cache/jaxcnn/mnist", "home/.cache/jaxcnn"):
        assert str(tmp_path / place) in str(caught.value)
    assert "t10k-images-idx3-ubyte.gz" in str(caught.value)


def test_directory_instead_of_a_file(folder):
    (folder / IMAGES).unlink()
    (folder / IMAGES).mkdir()
    with pytest.raises(DataError, match=IMAGES):
        read(folder)


def test_file_instead_of_a_directory(folder):
    with pytest.raises(DataError, match="not found"):
        read(folder / IMAGES)


def places(tmp_path):
    """Every folder that is looked in, in order, each with a data set of its own."""
    return [
        tmp_path / "named" / "mnist",
        tmp_path / "named",
        tmp_path / "home" / ".cache" / "jaxcnn" / "mnist",
        tmp_path / "home" / ".cache" / "jaxcnn",
    ]


@pytest.mark.parametrize("first", range(4))
def test_first_place_wins(tmp_path, monkeypatch, first):
    monkeypatch.setenv("JAXCNN_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for i, place in list(enumerate(places(tmp_path)))[first:]:
        fill(place, labels=idx([i] * 4))
    np.testing.assert_array_equal(load("mnist", "train").labels, [first] * 4)


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_the_cache_is_used(tmp_path, monkeypatch, value):
    monkeypatch.delenv("JAXCNN_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("JAXCNN_DATA", value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, labels=idx([9] * 4))
    fill(places(tmp_path)[3], labels=idx([3] * 4))
    np.testing.assert_array_equal(load("mnist", "train").labels, [3] * 4)


@pytest.mark.parametrize("convert", [str, pathlib.Path])
def test_root_is_the_only_place(folder, tmp_path, monkeypatch, convert):
    fill(tmp_path / "named", labels=idx([7] * 4))
    monkeypatch.setenv("JAXCNN_DATA", str(tmp_path / "named"))
    np.testing.assert_array_equal(load("mnist", "train", root=convert(folder)).labels, DIGITS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty") as caught:
        load("mnist", "train", root=convert(tmp_path / "empty"))
    assert "named" not in str(caught.value)


def test_plain_file_wins_over_a_compressed_one(folder):
    (folder / f"{LABELS}.gz").write_bytes(gzip.compress(idx([5] * 4)))
    np.testing.assert_array_equal(read(folder).labels, DIGITS)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("mnits", "train", "unknown data set 'mnits'; .*did you mean 'mnist'"),
        ("mnist-small", "train", "unknown data set 'mnist-small'; .*did you mean 'mnist_small'"),
        ("../mnist", "train", "unknown data set '../mnist'"),
        (None, "train", "unknown data set None"),
        ("mnist_small", "tset", "unknown split 'tset'; .*did you mean 'test'"),
        ("mnist_small", "validation", "unknown split 'validation'; expected one of: train, test"),
    ],
)
def test_unknown(name, split, message):
    with pytest.raises(DataError, match=message):
        load(name, split)


def of_images(images):
    return Dataset(images, np.zeros(len(images), np.int32))


@pytest.mark.parametrize(
    ("mean", "std", "error", "message"),
    [
        (of_images(np.zeros((0, 8, 8, 1), np.uint8)), None, ValueError, r"needs a data set with images, got uint8 of"),
        (
            of_images(np.full((2, 4, 4, 1), np.nan)),
            None,
            ValueError,
            r"images\[0, 0, 0, 0\] is nan; all values must be",
        ),
        (
            of_images(np.zeros((2, 4, 4, 1), np.int32)),
            None,
            TypeError,
            "needs floating-point input, got int32 of shape",
        ),
        (of_images(np.zeros((2, 4, 4, 1))), [1.0], TypeError, r"computes std from the data set; leave out std=\[1.0\]"),
        ([0.5], [1e-50], ValueError, r"a positive standard deviation for each channel, both in float32, got \[0.5\]"),
        ([0.5], [1e-40], ValueError, "a finite mean and a positive standard deviation"),  # XLA rounds it to 0
        ([1e300], [1.0], ValueError, "a finite mean and a positive standard deviation"),
        ([0.5], [1e300], ValueError, "a finite mean and a positive standard deviation"),
        ("a", "b", TypeError, "mean must be a number for each channel, got 'a'"),
        ([0.5], ["b"], TypeError, r"std must be a number for each channel, got \['b'\]"),
    ],
)
def test_statistics_that_cannot_normalize(mean, std, error, message):
    with pytest.raises(error, match=f"normalize.*{message}"):
        normalize(mean, std)


def test_the_folder_of_the_environment_may_begin_with_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAXCNN_DATA", "~/digits")
    assert jaxcnn.data._load.base_folders(None)[0] == tmp_path / "digits"


def test_images_are_writable():
    digits = load("mnist_small", "test")
    digits.images[0] = 0


def test_split_of_lists():
    dataset = Dataset([np.zeros((8, 8, 1))] * 10, [0, 1] * 5, ("a", "b"))
    parts = jaxcnn.data.train_test_split(dataset, 0.2)
    assert [len(part.images) for part in parts] == [8, 2]
