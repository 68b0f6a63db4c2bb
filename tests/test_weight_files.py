"""Files of weights: what is one by its content, what it must hold, and that nothing else gets in."""

import io
import json
import os
import pickle
import random
import stat
import struct
import sys
import types
import warnings
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import weights
from jaxcnn.models import MODELS
from jaxcnn.weights._convert import _shapes, _targets
from jaxcnn.weights._kind import describe
from jaxcnn.weights._tables import tables
from tests import zoo_weights

safetensors = pytest.importorskip("safetensors.numpy")
FLOAT = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
OURS = {"__metadata__": {"format": "jaxcnn"}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.safetensors"


def write(path, header, body=b""):
    """A file of this header, a dict or its bytes."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)


def zeros(name, **options):
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), _shapes(name, options))


def test_every_length_of_the_header_is_read(path):
    """Also those whose low byte begins a pickle, a zip archive or a gzip file."""
    low = set()
    for n in range(1, 330):
        weights.save(path, {"x" * n: np.ones((2, 3), np.float32)}, {})
        low.add(path.read_bytes()[0])
        ((name, leaf),) = weights.load(path)[0].items()
        assert (name, leaf.shape) == ("x" * n, (2, 3))
    assert 0x80 in low


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".ckpt", ""])
def test_the_content_decides_not_the_name(tmp_path, suffix):
    weights.save(tmp_path / "w.safetensors", {"kernel": np.ones(2, np.float32)}, {})
    (tmp_path / "w.safetensors").rename(tmp_path / f"w{suffix}")
    assert weights.load(tmp_path / f"w{suffix}")[0]["kernel"].tolist() == [1, 1]


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"K\x01.")
    return file.getvalue()


KINDS = {
    "torch": (zipped("archive/data.pkl", "archive/data/0"), "PyTorch pickle.*weights_only=True"),
    "legacy torch": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.K\x01.}.].].", "PyTorch pickle"),
    "pickle": (pickle.dumps({"a": 1}, 5), "pickle"),
    "torchscript": (zipped("net/data.pkl", "net/code/net.py", "net/constants.pkl"), r"TorchScript.*torch\.jit\.load"),
    "cut torch": (zipped("archive/data.pkl", "archive/data/0")[:60], "damaged zip archive of PyTorch"),
    "npz": (zipped("a.npy", "b.npy"), r"NumPy archive.*from_torch\(model, dict\(numpy\.load"),
    "keras": (zipped("metadata.json", "config.json", "model.weights.h5"), r"Keras model.*load_model"),
    "zip": (zipped("readme.txt"), "zip archive. Extract it first"),
    "npy": (b"\x93NUMPY\x01\x00", r"NumPy array.*numpy\.load"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "HDF5 file.*h5py"),
    "msgpack": (b"\x82\xa6params\x81\xa5conv1\xc0", "msgpack file.*msgpack_restore"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x05", "ONNX model.*numpy_helper"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(20), "TensorFlow Lite"),
    "gguf": (b"GGUF\x03\x00\x00\x00", "GGUF"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(20), "gzip archive. Extract it first"),
    "tar": (bytes(257) + b"ustar\x00", "tar archive"),
    "html": (b"<!DOCTYPE html><html>404", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer.*git lfs pull"),
    "index": (b'{"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}', "weights in several files"),
    "empty": (b"", "empty file"),
    "text": (b"hello, here are no weights", "not a safetensors file"),
    "short": (b"\x00", "not a safetensors file"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_named(path, kind):
    """By their content under any name, with what to do."""
    content, message = KINDS[kind]
    path.write_bytes(content)
    for model in (None, "resnet18"):
        with pytest.raises(weights.WeightsError, match=f"(?s)w.safetensors: .*{message}") as caught:
            weights.load(path, model)
        assert ("pickle" in str(caught.value)) == (kind in ("torch", "legacy torch", "pickle"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["saved_model.pb", "variables"], "TensorFlow SavedModel"),
        (["_CHECKPOINT_METADATA", "d"], r"Orbax checkpoint.*restore\('"),
        (["1", "2"], r"folder of checkpoints.*train\.checkpoint\.restore"),
        ([], "folder. Pass a safetensors file in it"),
    ],
)
def test_folders_are_named(tmp_path, names, message):
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(weights.WeightsError, match=message):
        weights.load(tmp_path)


@pytest.mark.parametrize("folder", ["", ".", "/", ".."])
def test_folders_without_a_name(folder):
    with pytest.raises(weights.WeightsError, match="folder"):
        weights.load(folder)


@pytest.mark.parametrize("path", ["a\0b", "~no-such-user/x"])
def test_paths_that_no_file_has(path):
    for call in (weights.load, weights.read_state_dict):
        with pytest.raises(weights.WeightsError, match=r"'a\\x00b' contains a NUL|~no-such-user/x: .*home directory"):
            call(path)
    with pytest.raises(ValueError, match=r"'a\\x00b' contains a NUL|~no-such-user/x: .*home directory"):
        weights.save(path, {"k": np.ones(2)}, {})


def test_missing_or_unreadable(tmp_path):
    with pytest.raises(weights.WeightsError, match=r"none cannot be read: .*No such file"):
        weights.load(tmp_path / "none")
    with pytest.raises(weights.WeightsError, match=r"cannot be read: .*name too long"):
        weights.load(tmp_path / ("n" * 300))
    (tmp_path / "file").touch()
    with pytest.raises(weights.WeightsError, match=r"cannot be read: .*Not a directory"):
        weights.load(tmp_path / "file" / "none")


class Tensor:
    """As much of torch.Tensor as the recipe uses; of whose memory several may be a part."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return Tensor(self.array)

    def clone(self):
        return Tensor(self.array.copy(order="K"))

    def contiguous(self):
        return Tensor(np.ascontiguousarray(self.array))


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"state_dict": d, "epoch": 3, "loops": {"fit": {"a": {}}}}])
@pytest.mark.parametrize("inner", [lambda d: d, lambda d: {"ckpt": {"model": d, "optimizer": {"state": {0: d["a"]}}}}])
def test_recipe_for_pickles(tmp_path, monkeypatch, wrap, inner):
    """Nested dicts, entries that are no tensors, shared memory and other strides, through the printed program."""
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensors = {"a": Tensor(base), "shared": Tensor(base), "turned": Tensor(base.transpose(2, 0, 1)), "n": 5}

    def save_file(arrays, target):
        assert all(tensor.array.flags.c_contiguous for tensor in arrays.values())
        assert len({tensor.array.ctypes.data for tensor in arrays.values()}) == len(arrays)
        safetensors.save_file({name: tensor.array for name, tensor in arrays.items()}, target)

    torch = types.SimpleNamespace(
        load=lambda path, map_location, weights_only: wrap(inner(tensors)), is_tensor=lambda v: isinstance(v, Tensor)
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "safetensors.torch", types.SimpleNamespace(save_file=save_file))
    monkeypatch.setattr(sys.modules["safetensors"], "torch", sys.modules["safetensors.torch"], raising=False)
    path = tmp_path / "it's {a}.pth"
    path.write_bytes(KINDS["torch"][0])
    recipe = [line[2:] for line in describe(path).splitlines() if line.startswith("  ")]
    exec("\n".join(recipe), {})
    found = safetensors.load_file(tmp_path / "it's {a}.safetensors")
    assert found.keys() == {"a", "shared", "turned"}
    np.testing.assert_array_equal(found["turned"], base.transpose(2, 0, 1))


def test_the_recipe_does_not_write_over_what_it_reads(path):
    path.write_bytes(KINDS["torch"][0])
    assert "w-converted.safetensors" in describe(path)


# what a file holds


def test_a_file_must_hold_the_model(path):
    params, state = zeros("resnet18", classes=10)
    for trees, message in (
        (
            ({"conv": {"kernel": np.ones(2, np.float32)}}, {}),
            "do not fit resnet18: got the names 'params/conv",
        ),
        (zeros("lenet5"), r"missing \(\d+\)"),
        ((params | {"more": np.ones(2, np.float32)}, state), r"unused \(1\): params/more \(2,\)"),
        ((params, {}), r"missing \(40\): state/"),
        ((params | {"head": {"kernel": np.ones((3, 10)), "bias": np.ones(10)}}, state), r"shape \(1\): .*\(3, 10\)"),
    ):
        weights.save(path, *trees)
        with pytest.raises(weights.WeightsError, match=rf"w\.safetensors: .*(?s:.*){message}"):
            weights.load(path, "resnet18", classes=10)
    write(path, OURS)
    with pytest.raises(
        weights.WeightsError, match=r"w\.safetensors: these weights do not fit resnet18: got no weights"
    ):
        weights.load(path, "resnet18", classes=10)
    weights.save(path, params, state)
    assert jax.tree.structure(weights.load(path, "resnet18", classes=10)) == jax.tree.structure((params, state))
    features, _ = weights.load(path, "resnet18", classes=None)
    assert "head" not in features


def test_a_mismatch_is_short(path):
    weights.save(path, *zeros("resnet50"), model="resnet50")
    with pytest.raises(weights.WeightsError) as caught:
        weights.load(path, "resnet18")
    with pytest.raises(weights.WeightsError) as other:
        weights.from_torch("resnet18", safetensors.load_file(path))
    for error in (caught, other):
        assert len(str(error.value).splitlines()) <= 4
    assert "contains weights of 'resnet50', expected 'resnet18'" in str(caught.value)
    assert "unused (" in str(other.value)
    assert "in total)" in str(other.value)


@pytest.mark.parametrize("header", [OURS, {}])
def test_a_file_without_arrays_has_no_weights(path, header):
    write(path, header)
    with pytest.raises(weights.WeightsError, match="contains no weights"):
        weights.load(path)


@pytest.mark.parametrize(
    "names",
    [
        ("params/a", "params/a/b"),
        ("params/a/b", "params/a"),
        ("params/a/b/c", "params/a"),
        ("params//a", "params/b"),
        ("params/", "params/a"),
        ("state/a", "state/a/b"),
    ],
)
def test_paths_in_conflict(path, names):
    write(path, {name: FLOAT | {"data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}, bytes(8))
    with pytest.raises(weights.WeightsError, match="conflicts with another path, or has an empty part"):
        weights.load(path)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"params/a": FLOAT, "params/b": FLOAT}, bytes(4)),
        ({"params/a": FLOAT | {"shape": [2]}}, bytes(4)),
        ({"params/a": FLOAT | {"data_offsets": [4, 8]}}, bytes(8)),
        ({"params/a": FLOAT | {"shape": [2**62, 4]}}, bytes(4)),
        ({"params/a": FLOAT | {"shape": [0, 2**62], "data_offsets": [0, 0]}}, b""),
        ({"params/a": FLOAT | {"shape": [1] * 71}}, bytes(4)),
        ({"params/a": FLOAT | {"shape": [-1]}}, bytes(4)),
        ({"params/a": FLOAT | {"shape": [float("nan")]}}, bytes(4)),
        ({"params/a": FLOAT | {"dtype": "F4", "shape": [8]}}, bytes(4)),
        ({"params/a": FLOAT | {"dtype": "F8_E8M0", "shape": [4]}}, bytes(4)),
        ({"params/a": FLOAT | {"dtype": "Q5"}}, bytes(4)),
        ({"params/a": FLOAT}, bytes(3)),
        ({"params/a": FLOAT}, bytes(5)),
        (b'{"params/a":' + json.dumps(FLOAT).encode() + b',"params/a":' + json.dumps(FLOAT).encode() + b"}", bytes(4)),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b""),
        (b'{"params/\xff": 1}', b""),
        ({"__metadata__": {"a": 1}}, b""),
        (b"{", b""),
    ],
)
def test_hostile_headers(path, header, body):
    write(path, header, body)
    with pytest.raises(weights.WeightsError, match=r"w\.safetensors"):
        weights.load(path)


@pytest.mark.parametrize("length", [10**6, 2**31, 2**32 - 1, 2**32, 2**64 - 1])
def test_header_longer_than_the_file(path, length):
    path.write_bytes(struct.pack("<Q", length) + b'{"a":1}')
    with pytest.raises(weights.WeightsError, match=r"w\.safetensors"):
        weights.load(path)


@pytest.mark.parametrize(
    "leaf",
    [
        np.float32(3),
        np.zeros((0, 3), np.float32),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.array([1.5, -2], np.float16),
        jnp.array([1.5, -2], jnp.bfloat16),
        jnp.array([1.5, -2], jnp.float8_e4m3fn),
        np.array([3, 2**63], np.uint64),
        np.array([True, False]),
    ],
    ids=lambda leaf: f"{leaf.dtype}{leaf.shape}",
)
def test_every_kind_of_leaf_comes_back(path, leaf):
    """Its shape, too: a scalar stays one."""
    weights.save(path, {"ß .": {"x": leaf}}, {})
    found = weights.load(path)[0]["ß ."]["x"]
    assert (found.shape, found.dtype) == (leaf.shape, np.asarray(leaf).dtype.newbyteorder("="))
    assert (found == np.asarray(leaf)).all()


def test_each_byte_of_a_bool_but_0_is_true(path):
    write(path, {"params/k": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}, b"\0\1\2")
    found = weights.load(path)[0]["k"]
    assert found.dtype == np.bool_
    assert found.view(np.uint8).tolist() == [0, 1, 1]


def test_counters_of_batches_are_scalars(path):
    weights.save(path, *zeros("resnet18"), model="resnet18")
    assert safetensors.load_file(path)["bn1.num_batches_tracked"].shape == ()


@pytest.mark.parametrize("bits", [jnp.bfloat16, np.float16, np.float64])
def test_a_named_model_gets_float32(path, bits):
    params, state = jax.tree.map(lambda leaf: (leaf + 1.5).astype(bits), zeros("lenet5"))
    weights.save(path, params, state)
    for leaf in jax.tree.leaves(weights.load(path, "lenet5")):
        assert leaf.dtype == np.float32
        assert (leaf == 1.5).all()


@pytest.mark.parametrize("bad", [np.int8, np.bool_, np.complex64])
def test_weights_are_floats(bad):
    given = weights.to_torch("lenet5", *zeros("lenet5"))
    given["conv1.weight"] = given["conv1.weight"].astype(bad)
    with pytest.raises(weights.WeightsError, match=r"conv1\.weight has dtype .*expected floats"):
        weights.from_torch("lenet5", given)


def test_what_is_no_state_dict():
    given = weights.to_torch("lenet5", *zeros("lenet5"))
    with pytest.raises(weights.WeightsError, match=r"state_dict\['state_dict'\] is a dict; pass the inner dict"):
        weights.from_torch("lenet5", {"state_dict": given, "epoch": 1})
    with pytest.raises(TypeError, match="must map names to arrays, got list"):
        weights.from_torch("lenet5", list(given))
    with pytest.raises(TypeError, match="must map names to arrays, got the key 0; make it a str"):
        weights.from_torch("lenet5", given | {0: np.ones(2)})
    for x in ([1], 1.0, [np.ones(2), 1]):
        with pytest.raises(TypeError, match=r"x must be an example input or its jax\.ShapeDtypeStruct, got .*1"):
            weights.from_torch("lenet5", given, x=x)
    with pytest.raises(weights.WeightsError, match="above the largest float32"):
        weights.from_torch("lenet5", given | {"conv1.bias": np.full(6, 1e300)})


@pytest.mark.parametrize(
    "tree",
    [
        {"a/b": 1.0},
        {"": 1.0},
        {"\ud800": 1.0},
        {3: 1.0},
        [1.0],
        (1.0,),
        1.0,
        {"a": {"b": [1.0]}},
        {"k": 1j},
        {"k": "s"},
        {"k": jax.random.key(0)},
        {"k": 1.0, "none": None},
        {"k": 1.0, "empty": {"a": {}}},
    ],
    ids=str,
)
def test_trees_that_would_come_back_otherwise_are_refused(path, tree):
    for trees in ((tree, {}), ({}, tree)):
        with pytest.raises(weights.WeightsError, match=r"nested dicts|has dtype|cannot be read|cannot hold"):
            weights.save(path, *trees)
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "trees", "error", "message"),
    [
        ("w.safetensors", (None, {}), weights.WeightsError, "params is None, so there is nothing to save"),
        ("w.safetensors", ({"k": 1.0}, None), weights.WeightsError, "state is None, so there is nothing to save"),
        ("w.safetensors", ({}, {}), weights.WeightsError, "params and state are both empty"),
        ("w.pth", ({"k": 1.0}, {}), ValueError, r"save: \S*w\.pth has a suffix of PyTorch.*as \S*w\.safetensors$"),
        ("w.PT", ({"k": 1.0}, {}), ValueError, r"save: \S*w\.PT has a suffix of PyTorch"),
        ("", ({"k": 1.0}, {}), IsADirectoryError, r"save: \S* is a folder; pass a file in it"),
        ("a/b/w", ({"k": 1.0}, {}), FileNotFoundError, r"save: \S*/a/b/w is in a folder .*; create \S*/a/b first"),
    ],
)
def test_what_cannot_be_saved(tmp_path, name, trees, error, message):
    with pytest.raises(error, match=message):
        weights.save(tmp_path / name, *trees)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [None, 3, io.BytesIO(b"content")])
def test_paths_are_checked(given):
    for name, call in (
        ("load", weights.load),
        ("read_state_dict", weights.read_state_dict),
        ("save", lambda path: weights.save(path, {"kernel": np.ones(2)}, {})),
    ):
        with pytest.raises(TypeError, match=rf"^{name}: path must be a str or an os\.PathLike, got (None|3|<_io)"):
            call(given)


def test_a_pipe_is_not_replaced(tmp_path):
    """Nor a device, whose replacement needs root."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=r"/pipe is not a regular file$"):
            weights.save(tmp_path / name, {"k": np.ones(2)}, {})
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 2


# as `open` would


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_mode_of_files(path, umask):
    old = os.umask(umask)
    try:
        weights.save(path, {"kernel": np.ones(2)}, {})
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_file_that_is_there_keeps_its_mode_and_links(path, tmp_path):
    weights.save(path, {"kernel": np.ones(3)}, {})
    path.chmod(0o640)
    (tmp_path / "link").symlink_to(path)
    weights.save(tmp_path / "link", {"kernel": np.ones(2)}, {})
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert weights.load(path)[0]["kernel"].shape == (2,)
    assert len(list(tmp_path.iterdir())) == 2


# timm's


def timm(name):
    """Random weights by timm's names."""
    targets = _targets(_shapes(name, {}), tables(name)[1])
    return {key: zoo_weights.weight(key, target.layout.torch_shape) for key, target in targets.items()}


EPS_OF_TIMM = [f"mobilenet_v3_{size}" for size in ("small", "large")] + [f"efficientnet_b{i}" for i in (5, 6, 7)]


@pytest.mark.parametrize("name", zoo_weights.full_but({"mobilenet_v3_small"}, EPS_OF_TIMM))
def test_timm_with_another_eps_is_not_silent(name, path):
    given = timm(name)
    safetensors.save_file(given, path)
    with pytest.raises(weights.WeightsError, match=rf"models\.{name}\(norm=jaxcnn\.batch_norm\)"):
        weights.from_torch(name, given)
    with pytest.raises(weights.WeightsError, match=rf"models\.{name}\(classes=None, norm=jaxcnn\.batch_norm\)"):
        weights.load(path, name, classes=None)
    assert weights.load(path, name, norm=jaxcnn.batch_norm)


def test_timm_with_the_same_eps_loads():
    assert weights.from_torch("mobilenet_v2", timm("mobilenet_v2"))
    assert {name for name in MODELS if any(t.eps for t in tables(name) if t.library == "timm")} == {*EPS_OF_TIMM}


def test_eps_of_timm_gives_its_statistics():
    """A norm of variance 0 divides by the root of its eps: 1e-5, not 1e-3."""
    params, state = weights.from_torch("mobilenet_v3_small", timm("mobilenet_v3_small"), norm=jaxcnn.batch_norm)
    params["stem"]["norm"] |= {"scale": np.ones(16, np.float32), "bias": np.zeros(16, np.float32)}
    params["stem"]["conv"]["kernel"] = np.full((3, 3, 3, 16), 1 / 27, np.float32)
    state["stem"]["norm"] = {"mean": np.zeros(16, np.float32), "var": np.zeros(16, np.float32)}
    model = jaxcnn.capture(MODELS["mobilenet_v3_small"](norm=jaxcnn.batch_norm), "stem/norm")
    x = np.full((1, 32, 32, 3), 0.01, np.float32)
    seen = jax.jit(lambda: model.apply(params, state, x, train=False)[0][1]["stem/norm"])()  # and nothing after it
    np.testing.assert_allclose(seen[0, 5, 5], 0.01 / np.sqrt(1e-5), rtol=1e-5)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tf_efficientnet_b0.safetensors", "efficientnet_b0"),
        ("models--timm--tf_mobilenetv3_large_100.in1k/model.safetensors", "mobilenet_v3_large"),
        ("resnetaa50.a1h_in1k.safetensors", "resnet50"),
    ],
)
def test_lookalikes_of_timm(tmp_path, file, name):
    """Their names and shapes are those of a model here, what they compute is not."""
    with pytest.raises(
        weights.WeightsError, match=r"named like a timm variant that uses (TensorFlow's padding|different pooling)"
    ):
        weights.load(tmp_path / file, name)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tf_efficientnet_runs/lenet5.safetensors", "lenet5"),
        ("tf_efficientnet_b0.safetensors", "lenet5"),
        ("models--timm--tf_mobilenetv3_large_100.in1k/model.safetensors", "lenet5"),
        ("tf_mobilenet/resnetaa50/best.safetensors", "lenet5"),
    ],
)
def test_other_folders_and_models_are_no_lookalikes(tmp_path, file, name):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    weights.save(tmp_path / file, *zeros(name))
    assert weights.load(tmp_path / file, name)


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2"])
def test_a_parent_folder_is_not_the_name_of_the_file(tmp_path, model):
    """The error is that of a missing file, not that of a variant."""
    with pytest.raises(weights.WeightsError, match="cannot be read"):
        weights.load(tmp_path / "tf_mobilenet" / "resnetaa50" / "best.safetensors", model)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.full)])
def test_mutations(path, count):
    """Weights of the right form, or a WeightsError; nothing else, and no warning."""
    weights.save(path, *zeros("lenet5"))
    big = path.read_bytes()
    weights.save(path, {"conv": {"kernel": np.ones((1, 1, 2, 2), np.float32)}}, {"norm": {"mean": np.ones(2)}})
    small = path.read_bytes()
    draw = random.Random(count)
    good = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(count):
            whole, model = draw.choice([(big, "lenet5"), (small, None)])
            content = bytearray(whole)
            header = 8 + int.from_bytes(whole[:8], "little")
            for _ in range(draw.randint(1, 4)):
                at = draw.randrange(min(len(content), header) or 1)
                match draw.randrange(6):
                    case 0:
                        content[at : at + 1] = bytes([draw.randrange(256)])
                    case 1:
                        del content[draw.randrange(len(content) + 1) :]
                    case 2:
                        content[at:at] = content[at : at + draw.randint(1, 60)]
                    case 3:
                        content[at : at + 1] = draw.choice(b'{}[]",:0123456789').to_bytes()
                    case 4:
                        content[:8] = struct.pack("<Q", draw.choice([0, 1, header - 8, header, 2**32, 2**63]))
                    case 5:
                        old, new = draw.choice([(b"F32", b"I32"), (b"params", b"state"), (b"/", b""), (b"F64", b"U64")])
                        content[:] = content.replace(old, new, 1)
            path.write_bytes(content)
            try:
                params, state = weights.load(path, model)
                assert isinstance(params, dict)
                assert isinstance(state, dict)
                good += 1
            except weights.WeightsError:
                pass
    assert 0 < good < count


def test_load_lists_what_does_not_fit(tmp_path):
    params, state = MODELS["lenet5"](classes=3).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    weights.save(tmp_path / "w.safetensors", params, state, model="lenet5")
    with pytest.raises(weights.WeightsError, match=r"w\.safetensors: these weights do not fit lenet5") as caught:
        weights.load(tmp_path / "w.safetensors", "lenet5")
    assert (caught.value.missing, caught.value.unused) == ([], [])
    assert len(caught.value.wrong_shape) == 2
