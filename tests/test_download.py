"""Data sets from the network and from archives: the file that is meant, or a DataError and nothing left behind."""

import contextlib
import gzip
import hashlib
import io
import os
import pathlib
import random
import socket
import stat
import sys
import tarfile
import threading
import time
import tracemalloc

import numpy as np
import pytest

from jaxcnn.data import DataError, _cifar, _download, _load, load
from jaxcnn.data._cifar import read_cifar, unpack
from jaxcnn.data._download import Remote
from jaxcnn.data._sources import SOURCES

CONTENT = np.random.default_rng(0).bytes(3_000_000)
FILE = Remote("https://example.org/data/file.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Answer:
    """What a server sends, as requests gives it."""

    def __init__(self, content=CONTENT, url=FILE.url, history=(), error=None):
        self.content, self.url, self.history, self.error, self.sent = content, url, history, error, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def raise_for_status(self):
        if self.error == 404:
            raise OSError("404 Client Error")

    def iter_content(self, size):
        for at in range(0, len(self.content), size):
            self.sent += size
            yield self.content[at : at + size]
        if self.error == "hang up":
            raise ConnectionError("hung up")


@pytest.fixture
def server(monkeypatch):
    """Set what the network answers; without it, there is none."""
    requests = pytest.importorskip("requests")
    pytest.importorskip("pooch")

    def answer(answer):
        def get(url, *, stream, timeout):
            assert stream
            assert 0 < timeout <= 60
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(requests, "get", get)
        return answer

    answer(requests.exceptions.ConnectionError("no network"))
    return answer


def test_download(server, tmp_path, capsys):
    server(Answer())
    path = _download.fetch(FILE, tmp_path / "cache")
    assert path == tmp_path / "cache" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert "downloading https://example.org/data/file.bin (3.0 MB)" in capsys.readouterr().err
    server(OSError("it must not be asked again"))
    assert _download.fetch(FILE, tmp_path / "cache") == path
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(CONTENT[:-1] + b"!"), "hash|SHA256"),
        (Answer(CONTENT[:-1]), "expected 3000000 bytes, found 2999999"),
        (Answer(CONTENT * 20), "expected 3000000 bytes, found more"),
        (Answer(error="hang up"), "hung up"),
        (Answer(error=404), "404"),
        (Answer(url="http://example.org/file"), "is not https"),
        (Answer(history=(Answer(url="http://example.org/"),)), "is not https"),
        (Answer(url="file:///etc/passwd"), "is not https"),
        (OSError("no network"), "no network"),
    ],
)
def test_anything_else_leaves_nothing_behind(server, tmp_path, answer, message):
    server(answer)
    with pytest.raises(DataError, match=rf"https://example.org/data/file.bin: cannot be downloaded: .*({message})"):
        _download.fetch(FILE, tmp_path)
    assert list(tmp_path.iterdir()) == []
    if isinstance(answer, Answer):
        assert answer.sent <= len(CONTENT) + (2 << 20)


def test_modes_of_what_is_written(server, tmp_path):
    """Those that the umask leaves, so that a folder can be shared."""
    server(Answer())
    old = os.umask(0o022)
    try:
        _download.fetch(FILE, tmp_path)
        archive(tmp_path / "x.tar.gz", ("cifar/a.bin", b"good"))
        unpack(tmp_path / "x.tar.gz", ("cifar/a.bin",), 100)
    finally:
        os.umask(old)
    for name in ("file.bin", "cifar/a.bin"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644


HEADER = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"


@pytest.fixture
def trickle(monkeypatch):
    """Starts a server that sends bytes one by one; its answers count as if they came by https."""
    requests = pytest.importorskip("requests")
    pytest.importorskip("pooch")
    done = threading.Event()
    listeners = []

    def start(at_once, slowly, pause):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(10_000)
                connection.sendall(at_once)
                for i in range(len(slowly)):
                    if done.wait(pause):
                        return
                    connection.sendall(slowly[i : i + 1])
                done.wait()

        threading.Thread(target=serve, daemon=True).start()

        def to_it(url, **options):
            session = requests.Session()
            session.trust_env = False
            answer = session.get(f"http://127.0.0.1:{listener.getsockname()[1]}/", **options)
            answer.url = url
            return answer

        monkeypatch.setattr(requests, "get", to_it)

    yield start
    done.set()
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("at_once", "slowly", "received"),
    [
        (HEADER, CONTENT, 0),
        (b"", HEADER + CONTENT, 0),
        (HEADER + CONTENT[: 1 << 16], CONTENT, 1 << 16),
        (HEADER, b"", 0),
        (b"", b"", 0),
    ],
    ids=["body", "header", "rest", "nothing of the body", "nothing"],
)
def test_a_server_that_sends_byte_by_byte_is_given_up(trickle, tmp_path, monkeypatch, at_once, slowly, received):
    monkeypatch.setattr(_download, "_WINDOW", 0.3)
    trickle(at_once, slowly, 0.02)
    with pytest.raises(DataError, match=rf"{FILE.url}: .*(too slow: {received} bytes in \d+ s|timed out)"):
        _download.fetch(FILE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_fast_enough_is_waited_for(server, tmp_path, monkeypatch):
    """Longer than a window, in which it keeps up the lowest speed."""
    monkeypatch.setattr(_download, "_WINDOW", 0.2)

    class Steady(Answer):
        def iter_content(self, size):
            for chunk in super().iter_content(1 << 16):
                time.sleep(0.01)
                yield chunk

    server(Steady())
    assert _download.fetch(FILE, tmp_path).read_bytes() == CONTENT


def test_a_file_that_is_not_the_one_is_replaced(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"half")
    server(Answer())
    assert _download.fetch(FILE, tmp_path).read_bytes() == CONTENT


def test_two_at_once(server, tmp_path):
    server(Answer())
    found = []
    threads = [threading.Thread(target=lambda: found.append(_download.fetch(FILE, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in found] == [True] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_without_pooch(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r"not installed \(pip install 'jaxcnn\[download\]'\)"):
        _download.fetch(FILE, tmp_path)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """No data anywhere, and downloads by the real function."""
    monkeypatch.delenv("JAXCNN_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(_load, "fetch", _download.fetch)
    return tmp_path


@pytest.mark.parametrize("name", SOURCES)
def test_offline_says_which_file_to_put_where(server, home, name):
    with pytest.raises(DataError) as caught:
        load(name, "train")
    message = str(caught.value)
    wanted = (
        "data_batch_1.bin" if name == "cifar10" else "train.bin" if name == "cifar100" else "train-images-idx3-ubyte"
    )
    assert message.startswith(wanted)
    assert str(home / ".cache" / "jaxcnn" / name) in message
    assert "https://" in message
    assert message.endswith("copy it there, or set JAXCNN_DATA to its folder")


def test_sources():
    for source in SOURCES.values():
        remotes = (
            [source.archive] if hasattr(source, "archive") else [r for pair in source.files.values() for r in pair]
        )
        for remote in remotes:
            assert remote.url.startswith("https://")
            assert len(bytes.fromhex(remote.sha256)) == 32
        assert len(set(source.classes)) == len(source.classes) == (100 if "100" in str(remotes) else 10)


def test_sets_with_files_of_the_same_names_do_not_mix(home, monkeypatch):
    monkeypatch.setenv("JAXCNN_DATA", str(home / "data"))
    for folder, label in (("mnist", 1), ("fashion_mnist", 2)):
        target = home / "data" / folder
        target.mkdir(parents=True)
        (target / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, *[0, 0, 0, 1] * 3, 9]))
        (target / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, label])))
    assert load("mnist", "train").labels == [1]
    fashion = load("fashion_mnist", "train")
    assert fashion.classes[fashion.labels[0]] == "Pullover"
    monkeypatch.setenv("JAXCNN_DATA", str(home / "data" / "mnist"))
    assert load("mnist", "train").labels == [1]
    with pytest.raises(DataError, match="not found"):
        load("kmnist", "train", root=home / "elsewhere")
    assert load("kmnist", "train", root=home / "data" / "mnist").labels == [1]


# CIFAR


def records(labels, label_bytes=1, seed=0):
    """A file of records, and the images in it."""
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(len(labels), -1)
    coarse = np.full((len(labels), label_bytes - 1), 7, np.uint8)
    return np.hstack([coarse, np.array(labels, np.uint8)[:, None], planes]).tobytes(), images


def test_cifar10(home):
    folder = home / ".cache" / "jaxcnn" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    parts = [records([i, 9 - i], seed=i) for i in range(1, 6)]
    for i, (content, _) in enumerate(parts, 1):
        (folder / f"data_batch_{i}.bin").write_bytes(content)
    dataset = load("cifar10", "train")
    np.testing.assert_array_equal(dataset.images, np.concatenate([images for _, images in parts]))
    np.testing.assert_array_equal(dataset.labels, [1, 8, 2, 7, 3, 6, 4, 5, 5, 4])
    assert dataset.labels.dtype == np.int32
    assert dataset.classes[:2] == ("airplane", "automobile")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: cannot be read"):
        load("cifar10", "train")


def test_cifar100_has_two_labels_of_which_the_second_counts(home):
    (home / "data").mkdir()
    content, images = records([99, 3], label_bytes=2)
    (home / "data" / "test.bin").write_bytes(content)
    dataset = load("cifar100", "test", root=home / "data")
    np.testing.assert_array_equal(dataset.labels, [99, 3])
    np.testing.assert_array_equal(dataset.images, images)
    assert dataset.classes[99] == "worm"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a multiple of the record size, 3073 bytes, found 0 bytes"),
        (records([1, 2])[0][:-1], "found 6145 bytes"),
        (records([1, 2])[0] + b"!", "found 6147 bytes"),
        (records([1, 10])[0], "expected labels from 0 to 9, found 10"),
        (records([255])[0], "expected labels from 0 to 9, found 255"),
    ],
)
def test_damaged_cifar(tmp_path, content, message):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_cifar(tmp_path / "x.bin", 1, 10)


def test_a_file_that_is_too_long_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(_cifar, "_MAX_RECORDS", 100)
    with (tmp_path / "x.bin").open("wb") as file:
        file.truncate(3073 << 20)  # 3 GB of nothing
    tracemalloc.start()
    with pytest.raises(DataError, match="expected at most 100 records"):
        read_cifar(tmp_path / "x.bin", 1, 10)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_cifar_mutations(tmp_path):
    """2,000 files: images exactly where the file is a whole number of records of known labels."""
    whole, _ = records([3, 1, 4, 1, 5])
    rng = random.Random(0)
    good = 0
    for _ in range(2000):
        content = bytearray(whole)
        match rng.randrange(4):
            case 0:
                for _ in range(rng.randint(1, 400)):
                    content[rng.randrange(len(content))] = rng.randrange(256)
            case 1:
                del content[rng.randrange(len(content)) :]
            case 2:
                content[:0] = rng.randbytes(rng.choice([1, 100, 3073]))
            case 3:
                content[rng.randrange(5) * 3073] = rng.randrange(256)
        (tmp_path / "x.bin").write_bytes(content)
        labels = content[::3073]
        fits = len(content) > 0 and len(content) % 3073 == 0 and max(labels) < 10
        good += fits
        if fits:
            images, found = read_cifar(tmp_path / "x.bin", 1, 10)
            assert found.tolist() == list(labels)
            assert images[-1, 0, 1, 2] == content[-3072 + 2048 + 1]
        else:
            with pytest.raises(DataError, match=r"x\.bin"):
                read_cifar(tmp_path / "x.bin", 1, 10)
    assert 100 < good < 1900


def archive(path, *members):
    """A .tar.gz of (name, content) or of TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_download_of_an_archive(server, home, monkeypatch):
    files = {"train": ("a.bin",), "test": ("b.bin",)}
    contents = {name: records([i])[0] for i, name in enumerate("ab")}
    path = home / "made.tar.gz"
    archive(path, ("other/evil", b""), *((f"cifar/{name}.bin", content) for name, content in contents.items()))
    content = path.read_bytes()
    remote = Remote("https://example.org/made.tar.gz", len(content), hashlib.sha256(content).hexdigest())
    source = SOURCES["cifar10"]._replace(archive=remote, folder="cifar", files=files)
    monkeypatch.setitem(SOURCES, "cifar10", source)
    server(Answer(content, url=remote.url))
    assert load("cifar10", "test").labels == [1]
    cache = home / ".cache" / "jaxcnn" / "cifar10"
    assert tree(cache) == ["cifar/a.bin", "cifar/b.bin", "made.tar.gz"]
    server(OSError("it must not be asked again"))
    assert load("cifar10", "train").labels == [0]


def test_hostile_archives(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    inner = tmp_path / "inner"
    inner.mkdir()
    path = inner / "x.tar.gz"
    wanted = ("cifar/a.bin",)
    good = ("cifar/a.bin", b"good")

    archive(path, ("../outside/evil", b"!"), (f"{outside}/evil", b"!"), link("cifar", str(outside)), good)
    unpack(path, wanted, 100)
    assert tree(inner) == ["cifar/a.bin", "x.tar.gz"]
    assert tree(outside) == []
    assert not (inner / "cifar").is_symlink()

    for bad in (
        link("cifar/a.bin", "/etc/passwd"),
        link("cifar/a.bin", "/etc/passwd", tarfile.LNKTYPE),
        link("cifar/a.bin", "", tarfile.CHRTYPE),
        link("cifar/a.bin", "", tarfile.DIRTYPE),
        ("cifar/a.bin", bytes(101)),
    ):
        archive(path, bad)
        with pytest.raises(DataError, match=r"expected cifar/a\.bin to be a file of at most 100 bytes"):
            unpack(path, wanted, 100)
    archive(path, ("cifar/b.bin", b""))
    with pytest.raises(DataError, match=r"expected the archive to contain cifar/a\.bin"):
        unpack(path, wanted, 100)


def test_archive_bombs_and_mutations(tmp_path):
    path = tmp_path / "x.tar.gz"
    info = tarfile.TarInfo("other")
    info.size = 200 << 20
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    tracemalloc.start()
    with pytest.raises(DataError, match="expected the archive to contain"):
        unpack(path, ("cifar/a.bin",), 100)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()

    archive(path, ("cifar/a.bin", b"good" * 20), ("cifar/b.bin", b"more"))
    whole = path.read_bytes()
    rng = random.Random(0)
    outcomes = {True: 0, False: 0}
    for _ in range(2000):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.3:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            unpack(path, ("cifar/a.bin",), 100)
            outcomes[True] += 1
        except DataError:
            outcomes[False] += 1
        assert {p.name for p in tmp_path.iterdir()} <= {"x.tar.gz", "cifar"}
    assert outcomes[False] > 1000


def test_nothing_is_unpickled_or_extracted():
    """Not in any file of the package."""
    import jaxcnn

    for path in pathlib.Path(jaxcnn.__file__).parent.rglob("*.py"):
        code = path.read_text()
        for word in ("import pickle", "extractall", "allow_pickle=True", "eval(", "exec(", "shell=True"):
            assert word not in code.replace("_eval(", ""), f"{path}: {word}"


def test_a_pickle_is_never_run(tmp_path):
    """A file of CIFAR's other layout, made to run code, in the place of the one that is read."""
    marker = tmp_path / "run"
    evil = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    (tmp_path / "data_batch_1.bin").write_bytes(evil)
    with pytest.raises(DataError):
        load("cifar10", "train", root=tmp_path)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(evil)
    with pytest.raises(DataError):
        load("mnist", "train", root=tmp_path)
    assert not marker.exists()
