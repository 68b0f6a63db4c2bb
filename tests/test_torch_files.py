"""PyTorch files: exact tensors, and no file runs code, hangs or needs much memory."""

import datetime
import io
import itertools
import os
import pathlib
import pickle
import random
import struct
import time
import tracemalloc
import warnings
import zipfile

import jax
import numpy as np
import pytest

from jaxcnn import weights
from jaxcnn.weights import WeightsError
from jaxcnn.weights._convert import _shapes
from jaxcnn.weights._torch_file import read_torch

FOLDER = pathlib.Path(__file__).parent / "goldens" / "torch_files"
FILES = sorted(file.name for file in FOLDER.glob("*.pth"))
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.pth"


def as_zip(pickled, data=(), compression=zipfile.ZIP_STORED, byteorder=b"little"):
    """A zip file of torch.save with this pickle and these storages by key."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", byteorder)
        for key, content in dict(data).items():
            archive.writestr(f"archive/data/{key}", content)
    return file.getvalue()


def as_legacy(pickled, data=(), itemsize=4):
    """A legacy file of torch.save with this pickle and these storages by key."""
    keys = list(dict(data))
    head = MAGIC + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + pickled + pickle.dumps(keys, 2)
    return head + b"".join(struct.pack("<q", len(x) // itemsize) + x for x in dict(data).values())


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    return pickle.dumps(value, 2)[2:-1]


def tuple_(*items):
    return b"(" + b"".join(items) + b"t"


def storage(count=4, key="0", kind="torch\nFloatStorage"):
    return tuple_(text("storage"), f"c{kind}\n".encode(), text(key), text("cpu"), integer(count)) + b"Q"


def tensor(shape, stride, offset=0, where=None):
    dims = [tuple_(*map(integer, numbers)) for numbers in (shape, stride)]
    arguments = tuple_(where or storage(), integer(offset), *dims, b"\x89", b"}")
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def state_dict(entries):
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u."


def _without_frame(pickled):
    """The opcodes of a pickle inside another one, without PROTO, FRAME and STOP."""
    return pickled[11 if pickled[2:3] == b"\x95" else 2 : -1]


GOOD = state_dict({"x": tensor((4,), (1,))})[2:-1]
DATA = {"0": np.arange(4, dtype=np.float32).tobytes()}


# values


@pytest.mark.parametrize("file", FILES)
def test_tensors_are_those_of_torch(file):
    name = file.split(".")[0].replace("protocol4", "plain")
    found = read_torch(FOLDER / file)
    with np.load(FOLDER / "golden.npz", allow_pickle=False) as golden:
        names = {key.split("/")[1] for key in golden.files if key.startswith(f"{name}/")}
        assert found.keys() == names
        for key, array in found.items():
            assert str(array.dtype) == str(golden[f"{name}/{key}/dtype"])
            wanted = golden[f"{name}/{key}"]
            assert array.shape == wanted.shape
            assert (array.astype(wanted.dtype) == wanted).all()


@pytest.mark.parametrize("write", [as_zip, as_legacy])
def test_a_model_is_loaded_without_torch(path, write):
    params, state = jax.tree.map(
        lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape).astype(np.float32),
        _shapes("lenet5", {}),
    )
    arrays = weights.to_torch("lenet5", params, state)
    entries, data = {}, {}
    for i, (name, array) in enumerate(arrays.items()):
        stride = [step // 4 for step in np.ascontiguousarray(array).strides]
        entries[f"net.module.{name}"] = tensor(array.shape, stride, where=storage(array.size, str(i)))
        data[str(i)] = array.tobytes()
    path.write_bytes(write(state_dict({"epoch": b"K\x03", "state_dict": state_dict(entries)[2:-1]}), data))
    for given in (path, str(path)):
        found, _ = weights.load(given, "lenet5")
        jax.tree.map(np.testing.assert_array_equal, found, params)
    with pytest.raises(WeightsError, match=r"w\.pth: these weights do not fit resnet18"):
        weights.load(path, "resnet18")
    with pytest.raises(WeightsError, match=r"pass their model, load\(path, model\)"):
        weights.load(path)


@pytest.mark.parametrize("write", [as_zip, as_legacy])
def test_a_damaged_file_is_not_called_unsupported(path, write):
    content = write(state_dict({"x": tensor((4,), (1,))}), {"0": b"0123456789abcdef"})
    at = content.index(b"0123456789abcdef")
    path.write_bytes(content[:at] + b"z" + content[at + 1 :] if write is as_zip else content[:-1])
    with pytest.raises(WeightsError, match=r"w\.pth: the .*(damaged: Bad CRC-32|ends inside).*download it again$"):
        weights.load(path, "lenet5")


def test_a_legacy_file_that_is_cut_anywhere_is_damaged(path):
    content = as_legacy(state_dict({"x": tensor((4,), (1,)), "epoch": b"F1.5\n"}), DATA)
    for size in range(len(MAGIC), len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(WeightsError, match=r"the file ends inside a .*; copy or download it again$"):
            weights.load(path, "lenet5")


@pytest.mark.slow
def test_torchvision_resnet18(path):
    """All names of a network with batch norm, from one storage."""
    params, state = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), _shapes("resnet18", {"classes": 3}))
    arrays = weights.to_torch("resnet18", params, state)
    data, entries = b"", {}
    total = sum(array.size for array in arrays.values() if array.dtype == np.float32)
    for name, array in arrays.items():
        if array.dtype == np.float32:
            stride = [step // 4 for step in array.strides]
            entries[name] = tensor(array.shape, stride, len(data) // 4, storage(total))
            data += array.tobytes()
        else:
            entries[name] = tensor((), (), 0, storage(1, "n", "torch\nLongStorage"))
    path.write_bytes(as_zip(state_dict(entries), {"0": data, "n": bytes(8)}))
    found = weights.load(path, "resnet18", classes=3)
    jax.tree.map(np.testing.assert_array_equal, found, (params, state))


def test_big_endian(path):
    path.write_bytes(as_zip(state_dict({"x": tensor((4,), (1,))}), {"0": np.arange(4, dtype=">f4")}, byteorder=b"big"))
    assert read_torch(path)["x"].tolist() == [0, 1, 2, 3]


def test_view_of_a_storage(path):
    """Old files have storages that are parts of others."""
    view = tuple_(text("1"), integer(1), integer(2))
    part = tuple_(text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), integer(4), view) + b"Q"
    path.write_bytes(as_legacy(state_dict({"x": tensor((2,), (1,), where=part)}), DATA))
    assert read_torch(path)["x"].tolist() == [1, 2]
    path.write_bytes(as_legacy(state_dict({"x": tensor((3,), (1,), where=part)}), DATA))
    with pytest.raises(WeightsError, match=r"'x' has shape \(3,\), which its storage does not contain"):
        read_torch(path)


@pytest.mark.parametrize("write", [as_zip, as_legacy])
def test_a_memo_bomb_is_never_expanded(path, write):
    good = state_dict({"x": tensor((4,), (1,))})[2:-1]
    path.write_bytes(write(BOMB + text("model") + good + b"u.", DATA))
    assert read_torch(path)["x"].tolist() == [0, 1, 2, 3]


def test_tensors_that_are_not_plain_views(path):
    view = tuple_(text("1"), integer(2), integer(9))
    part = tuple_(text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), integer(4), view) + b"Q"
    negative = tensor((4,), (1,))[:-2] + b"}(" + text("neg") + b"\x88utR"
    for code, message in (
        (tensor((2,), (1,), where=part), "a view of a storage is outside the storage"),
        (negative, "a conjugate or negative bit"),
    ):
        path.write_bytes(as_legacy(state_dict({"x": code}), DATA))
        with pytest.raises(WeightsError, match=message):
            read_torch(path)


@pytest.mark.parametrize("keys", [("model",), ("state_dict",), ("a", "model_state_dict"), ("ema",), ("other",)])
def test_nesting(path, keys):
    entry = state_dict({"x": tensor((4,), (1,))})
    for key in reversed(keys):
        entry = state_dict({"epoch": b"K\x01", "optimizer": b"]", key: entry[2:-1]})
    path.write_bytes(as_zip(entry, DATA))
    assert read_torch(path)["x"].tolist() == [0, 1, 2, 3]


def test_tensors_beside_the_state_dict_are_records(path):
    """PyTorch's ImageNet example saves the best accuracy as a tensor."""
    record = tensor((2,), (1,))
    path.write_bytes(as_zip(state_dict({"best": record, "state_dict": state_dict({"x": record})[2:-1]}), DATA))
    assert list(read_torch(path)) == ["x"]
    path.write_bytes(as_zip(state_dict({"x": record, "params": b"}"}), DATA))  # an empty dict is no state dict
    assert list(read_torch(path)) == ["x"]


def test_the_weights_come_before_their_ema(path):
    both = {"ema": state_dict({"y": tensor((4,), (1,))})[2:-1], "model": state_dict({"x": tensor((4,), (1,))})[2:-1]}
    path.write_bytes(as_zip(state_dict(both), DATA))
    assert list(read_torch(path)) == ["x"]


def test_tensors_are_not_ignored_silently(path):
    """Except those of optimizers and other entries of training, which are no weights."""
    one, other = (state_dict({name: tensor((4,), (1,))})[2:-1] for name in "xy")
    lone = tensor((4,), (1,))
    for entries, message in (
        ({"backbone": one, "head": lone}, "it has tensors under 'head', and others under 'backbone', which"),
        ({"w": lone, "sub": one, "lst": b"](" + lone + b"e"}, "under 'w', and others under 'sub', 'lst', which would"),
        ({"backbone": one, "lst": b"](" + lone + b"e"}, "under 'backbone', and others under 'lst', which"),
        ({"backbone": one, "head": other}, "no state dict; the names are 'backbone', 'head'"),
        ({"epoch": b"K\x01", "optimizer": one}, "no state dict; the names are 'epoch', 'optimizer'"),
        ({"state": b"}K\x00" + one + b"s", "param_groups": b"]"}, "no state dict; the names are 0"),
    ):
        path.write_bytes(as_zip(state_dict(entries), DATA))
        with pytest.raises(WeightsError, match=message):
            weights.read_state_dict(path)
    others = {"optim_g": other, "lr_schedulers": b"](" + other + b"e", "scaler": other, "optimizer": other}
    for name in ("model", "state_dict", "backbone"):
        path.write_bytes(as_zip(state_dict(others | {"epoch": b"K\x01", name: one}), DATA))
        assert list(weights.read_state_dict(path)) == ["x"]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        datetime.date(2026, 1, 2),
        datetime.timedelta(1),
        1j,
        range(3),
        frozenset({1}),
        {1},
        bytearray(b"a"),
        slice(1, 2),
        pathlib.PurePosixPath("a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_records_of_training_are_ignored(path, value, protocol):
    record = pickle.dumps(value, protocol)
    path.write_bytes(as_zip(state_dict({"r": _without_frame(record), "model": GOOD}), DATA))
    assert list(read_torch(path)) == ["x"]


def test_paths_of_python_3_13_are_ignored(path):
    for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        record = f"cpathlib._local\n{kind}\n".encode() + tuple_(text("a")) + b"R"
        path.write_bytes(as_zip(state_dict({"r": record, "model": GOOD}), DATA))
        assert list(read_torch(path)) == ["x"]


# attacks


class Trap:
    """What pickle would call."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def attacks(folder):
    name = text(folder)
    good = tensor((4,), (1,))
    return {
        "REDUCE": (b"cposix\nmkdir\n" + tuple_(name) + b"R", r"posix\.mkdir"),
        "STACK_GLOBAL": (text("os") + text("system") + b"\x93" + tuple_(text(f"mkdir {folder}")) + b"R", r"os\.system"),
        "nested name": (text("torch") + text("os.system") + b"\x93" + tuple_(name) + b"R", r"torch\.os\.system"),
        "eval": (b"c__builtin__\neval\n" + tuple_(text(f"__import__('os').mkdir({folder!r})")) + b"R", "eval"),
        "getattr": (b"cbuiltins\ngetattr\n" + tuple_(text("x"), text("y")) + b"R", r"builtins\.getattr"),
        "INST": (b"(" + name + b"iposix\nmkdir\n", "opcode INST"),
        "OBJ": (b"(cposix\nmkdir\n" + name + b"o", "opcode OBJ"),
        "NEWOBJ": (b"cposix\nmkdir\n" + tuple_(name) + b"\x81", r"posix\.mkdir.*NEWOBJ"),
        "NEWOBJ_EX": (b"cposix\nmkdir\n" + tuple_(name) + b"}\x92", "opcode NEWOBJ_EX"),
        "EXT": (b"\x82\x01", "opcode EXT1"),
        "BUILD": (b"cposix\nmkdir\n}(" + text("__setstate__") + name + b"ub", r"BUILD of the global 'posix\.mkdir'"),
        "BUILD of a tensor": (good + b"}(" + text("__class__") + name + b"ub", "BUILD of Tensor"),
        "PERSID": (b"Pposix.mkdir\n", "opcode PERSID"),
        "BINPERSID": (name + b"Q", "BINPERSID does not refer to a storage"),
        "module": (tuple_(text("module"), b"cposix\nmkdir\n", name, name, b"N") + b"Q", "BINPERSID"),
        "storage class": (tensor((4,), (1,), where=storage(kind="posix\nmkdir")), r"class the global 'posix\.mkdir'"),
        "call of a call": (b"ccollections\nOrderedDict\n)R" + tuple_(name) + b"R", "opcode REDUCE of dict"),
        "rebuild by type": (
            b"ctorch._tensor\n_rebuild_from_type_v2\n" + tuple_(b"cposix\nmkdir\n", name, b")", b"N") + b"R",
            r"_rebuild_from_type_v2",
        ),
        "global as tensor": (
            b"ctorch._utils\n_rebuild_parameter\n" + tuple_(b"cos\nsystem\n", b"\x89", b"}") + b"R",
            "",
        ),
        "buffers": (b"\x97", "opcode NEXT_BUFFER"),
        "large key": (b"}" + integer(2**64) + b"Ns", "key of a dict is int"),
        "key": (b"}" + b"(K\x01tK\x02s", "key of a dict is tuple"),
        "set of the memo": (b"]q\x00h\x00h\x01", "damaged at the opcode BINGET"),
    }


@pytest.mark.parametrize("write", [as_zip, as_legacy])
@pytest.mark.parametrize("attack", attacks(""))
def test_attacks_run_nothing(path, write, attack):
    """As the only entry, as another entry of a checkpoint, and as the whole file."""
    trap = path.parent / "sprung"
    code, message = attacks(str(trap))[attack]
    files = [state_dict({"x": code, "y": tensor((4,), (1,))}), state_dict({"x": code}), b"\x80\x02" + code + b"."]
    if message:
        files.append(state_dict({"a": code, "state_dict": state_dict({"x": tensor((4,), (1,))})[2:-1]}))
    for content in files[not message :]:
        path.write_bytes(write(content, DATA))
        with pytest.raises(WeightsError, match=rf"w\.pth: .*{message}.*\nThe file is a PyTorch pickle"):
            weights.load(path, "lenet5")
    assert not trap.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_trap(path, protocol):
    path.write_bytes(as_zip(pickle.dumps({"state_dict": Trap(str(path.parent / "sprung"))}, protocol)))
    with pytest.raises(WeightsError, match=r"posix\.mkdir|nt\.mkdir|opcode"):
        read_torch(path)
    assert [file.name for file in path.parent.iterdir()] == ["w.pth"]


def test_an_ignored_object_is_no_weight(path):
    """A namespace among other entries is skipped; in the state dict, it is an error."""
    namespace = b"cargparse\nNamespace\n)R}(" + text("lr") + b"K\x01ub"
    good = state_dict({"x": tensor((4,), (1,))})[2:-1]
    path.write_bytes(as_zip(state_dict({"args": namespace, "model": good}), DATA))
    assert list(read_torch(path)) == ["x"]
    path.write_bytes(as_zip(state_dict({"args": namespace, "x": tensor((4,), (1,))}), DATA))
    with pytest.raises(WeightsError, match=r"the entry 'args' of the state dict is the object argparse\.Namespace"):
        read_torch(path)


# bounds


LISTS = b"".join(text(f"k{i}") + b"]q" + bytes([i + 1]) + b"(" + (b"h" + bytes([i])) * 10 + b"e" for i in range(100))
BOMB = b"\x80\x02}(" + text("k") + b"]q\x00" + LISTS  # 10^100 elements, if the lists were copied
PAIRS = b"\x80\x02](" + tuple_(text("k"), b"N") + b"q\x00" + b"h\x00" * 20_000 + b"eq\x01"
REPEATED = PAIRS + b"(" + b"ccollections\nOrderedDict\n(h\x01tR" * 3_000 + b"t."
SHARED = b"".join(
    b"}(" + b"".join(b"K" + bytes([i]) + b"h" + bytes([level]) for i in range(64)) + b"uq" + bytes([level + 1]) + b"0"
    for level in range(5)
)
BOUNDS = {
    "shared dicts": b"\x80\x02}q\x000" + SHARED + b"}" + text("state_dict") + b"h\x05s.",
    "deep tuple": b"\x80\x02)" + b"\x85" * 30_000 + b".",
    "deep dict": b"\x80\x02" + b"}" + (text("a") + b"}") * 10_000 + b"s" * 10_000 + b".",
    "cycle": b"\x80\x02}q\x00" + text("model") + b"h\x00s.",
    "memo bomb": BOMB + b"u.",
    "long names": b"\x80\x04" + text("a" * 200_000) + b"q\x00(" + b"h\x00h\x00\x93" * 2_000 + b"t\x86.",
    "pairs": REPEATED,
    "a mark": b"\x80\x02(" + state_dict({"x": tensor((4,), (1,))})[2:],
    "a tensor larger than the file": state_dict({"x": tensor((64,) * 6, (0,) * 6)}),
    "open marks": b"\x80\x02" + b"(" * 30_000 + b".",
    "long string": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "long integer": b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"1.",
    "long decimal": b"I" + b"9" * 100_000 + b"\n.",
    "memo index": b"\x80\x02Nr\xff\xff\xff\xff.",
    "expanded": state_dict({"x": tensor((2**40,), (0,))}),
    "expanded twice": state_dict({"x": tensor((2**33, 2**33), (0, 0))}),
    "empty but large": state_dict({"x": tensor((0, 2**62, 2**62), (1, 1, 1))}),
    "many axes": state_dict({"x": tensor((1,) * 65, (1,) * 65)}),
    "long stride": state_dict({"x": tensor((2,), (2**62,))}),
    "offset": state_dict({"x": tensor((4,), (1,), 1)}),
    "negative": state_dict({"x": tensor((4,), (-1,), 3)}),
    "boolean": state_dict({"x": tensor((True,), (1,))}),
    "storage": state_dict({"x": tensor((4,), (1,), where=storage(2**50))}),
}


@pytest.mark.parametrize("write", [as_zip, as_legacy])
@pytest.mark.parametrize("name", BOUNDS)
def test_time_and_memory_are_bounded(path, write, name):
    path.write_bytes(write(BOUNDS[name], DATA))
    size = path.stat().st_size
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(WeightsError):
            read_torch(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 20
    assert peak < 400 * size + 1e6


@pytest.mark.slow
def test_deep_nesting_does_not_overflow_the_stack(path):
    path.write_bytes(as_zip(b"\x80\x02)" + b"\x85" * 1_000_000 + b"."))
    with pytest.raises(WeightsError, match="it contains a tuple"):
        read_torch(path)


def test_zip_bombs(path):
    good = state_dict({"x": tensor((4,), (1,))})
    path.write_bytes(as_zip(good, DATA, zipfile.ZIP_DEFLATED))
    with pytest.raises(WeightsError, match="an entry is compressed"):
        read_torch(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate
        file = io.BytesIO(as_zip(good, DATA))
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("archive/data/0", bytes(16))
    path.write_bytes(file.getvalue())
    with pytest.raises(WeightsError, match="two entries have the same name"):
        read_torch(path)
    content = bytearray(as_zip(good, {"0": bytes(4096), **{str(i): bytes(4096) for i in range(1, 4)}}))
    at = content.rindex(b"PK\x01\x02")
    for field in (20, 24):  # the sizes of the last entry
        content[at + field : at + field + 4] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="the entries are larger than the file"):
        read_torch(path)


def test_storages_have_their_size(path):
    good = state_dict({"x": tensor((4,), (1,))})
    for data in ({}, {"0": bytes(12)}, {"0": bytes(20)}):
        path.write_bytes(as_zip(good, data))
        with pytest.raises(WeightsError, match="the storage '0' is missing or has another size"):
            read_torch(path)
        path.write_bytes(as_legacy(good, data))
        with pytest.raises(WeightsError, match="the storage '0' is missing or has another dtype or size"):
            read_torch(path)
    path.write_bytes(as_legacy(good, DATA)[:-1])
    with pytest.raises(WeightsError, match="the file ends inside a storage"):
        read_torch(path)


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_mutations(path, count):
    """Tensors of bounded size, or a WeightsError; nothing else, and no warning."""
    contents = [(FOLDER / file).read_bytes() for file in FILES]
    draw = random.Random(count)
    good = 0
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for whole in itertools.islice(itertools.cycle(contents), count):
            content = bytearray(whole)
            for _ in range(draw.randint(1, 3)):
                at = draw.randrange(len(content))
                match draw.randrange(4):
                    case 0 | 1:
                        content[at] = draw.randrange(256)
                    case 2:
                        content[at:at] = content[at : at + draw.randint(1, 30)]
                    case 3:
                        del content[at : at + draw.randint(1, 30)]
            if draw.random() < 0.5 and content.startswith(b"PK"):
                content = bytearray(repaired(whole, draw))
            path.write_bytes(content)
            try:
                found = read_torch(path)
                assert all(isinstance(array, np.ndarray) and array.size <= len(content) for array in found.values())
                good += 1
            except WeightsError:
                pass
    assert 0 < good < count
    assert time.process_time() - start < 0.1 * count


def repaired(whole, draw):
    """A zip file with changes in the pickle alone, and the right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            data = bytearray(old.read(info))
            if info.filename.endswith("data.pkl"):
                for _ in range(draw.randint(1, 3)):
                    data[draw.randrange(len(data))] = draw.randrange(256)
            new.writestr(info.filename, data)
    return file.getvalue()
