"""Deformable convolution against PyTorch's grid_sample, loops, and `conv`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxcnn
from tests import goldens, oracle

CASES = goldens.operators("deform_conv.npz")


def as_tuples(options):
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}


def draw(*shape):
    return np.random.default_rng([*shape]).normal(size=shape).astype(np.float32)


def run(layer, params, *inputs):
    return jax.jit(lambda params, inputs: layer.apply(params, {}, inputs, train=False)[0])(params, inputs)


@pytest.mark.sample(4)
@pytest.mark.parametrize(("options", "case"), CASES, ids=lambda value: str(value) if "size" in value else "case")
def test_pytorch(options, case):
    layer = jaxcnn.deform_conv(8, **as_tuples(options), bias=False)
    names = [name for name in ("x", "offset", "mask", "kernel") if name in case]

    def f(*args):
        return layer.apply({"kernel": args[-1]}, {}, args[:-1], train=False)[0]

    @jax.jit
    def value_and_gradients(args, dy):
        y, pull = jax.vjp(f, *args)
        return y, pull(dy)

    y, gradients = value_and_gradients([case[name] for name in names], case["dy"])
    oracle.assert_close(y, case["y"])
    for name, gradient in zip(names, gradients, strict=True):
        oracle.assert_close(gradient, case[f"d{name}"], 2e-5)


def value_at(x, at):
    """(*spatial, C): x at a position, linearly interpolated between the corners around it; outside, x is 0."""
    y = np.zeros(x.shape[-1])
    low = np.floor(at).astype(int)
    for corner in itertools.product((0, 1), repeat=len(at)):
        place = low + corner
        if all(0 <= p < n for p, n in zip(place, x.shape, strict=False)):
            y = y + np.prod(1 - np.abs(np.asarray(at) - place)) * x[tuple(place)]
    return y


@pytest.mark.sample(2)
@pytest.mark.parametrize(("spatial", "size"), [((6,), (3,)), ((4, 5), (2, 3)), ((3, 3, 2), (2, 1, 2))])
def test_loops(spatial, size):
    """In 1 to 3 dimensions, with two groups of offsets and a mask."""
    rank, count, groups, features = len(spatial), int(np.prod(size)), 2, 3
    layer = jaxcnn.deform_conv(features, size, padding=1)
    params = {"kernel": draw(*size, 4, features), "bias": draw(features)}
    out = tuple(n + 3 - k for n, k in zip(spatial, size, strict=True))
    x, offset = draw(1, *spatial, 4), 1.5 * draw(1, *out, groups * count * rank)
    mask = np.abs(draw(1, *out, groups * count))
    expected = np.zeros((1, *out, features)) + params["bias"]
    for place in np.ndindex(*out):
        for (k, tap), g in itertools.product(enumerate(np.ndindex(*size)), range(groups)):
            moves = offset[0, *place].reshape(groups, count, rank)[g, k]
            at = [i - 1 + t + m for i, t, m in zip(place, tap, moves, strict=True)]
            values = value_at(x[0, ..., 2 * g : 2 * g + 2].astype(np.float64), at)
            values = values * mask[0, *place].reshape(groups, count)[g, k]
            expected[0, *place] += values @ params["kernel"][*tap, 2 * g : 2 * g + 2]
    oracle.assert_close(run(layer, params, x, offset, mask), expected)


@pytest.mark.sample(2)
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": "SAME_LOWER"}, {"dilation": 2, "groups": 2}])
def test_without_offset_it_is_conv(options):
    x, conv = draw(2, 7, 6, 4), jaxcnn.conv(4, 3, **options)
    params, _ = conv.init(jax.random.key(0), x)
    y, _ = conv.apply(params, {}, x, train=False)
    layer = jaxcnn.deform_conv(4, 3, **options)
    offset, mask = np.zeros((*y.shape[:-1], 18), np.float32), np.ones((*y.shape[:-1], 9), np.float32)
    oracle.assert_close(run(layer, params, x, offset), y)
    oracle.assert_close(run(layer, params, x, offset, 0.5 * mask) - params["bias"], 0.5 * (y - params["bias"]))
    initial, _ = layer.init(jax.random.key(0), (x, offset))
    jax.tree.map(np.testing.assert_array_equal, initial, params)


def test_offsets_of_whole_pixels_shift_the_input():
    x, params = draw(1, 8, 8, 2), {"kernel": draw(3, 3, 2, 3)}
    offset = np.tile(np.array([1, -2], np.float32), 9) * np.ones((1, 8, 8, 1), np.float32)
    y = run(jaxcnn.deform_conv(3, bias=False), params, x, offset)
    plain, _ = jaxcnn.conv(3, bias=False).apply(params, {}, x, train=False)
    oracle.assert_close(y[:, 2:5, 4:7], plain[:, 3:6, 2:5])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_derivatives():
    with jax.enable_x64(True):
        layer = jaxcnn.deform_conv(2, 2, padding=0, bias=False)
        args = [jnp.asarray(draw(*shape), float) for shape in ((1, 3, 4, 2), (1, 2, 3, 8), (1, 2, 3, 4), (2, 2, 2, 2))]
        f = lambda *args: layer.apply({"kernel": args[-1]}, {}, args[:-1], train=False)[0]
        check_grads(f, args, 2, atol=1e-5, rtol=1e-5)


def test_nan_offsets_give_nan():
    """Only where the offset is NaN."""
    offset = np.zeros((1, 3, 3, 2), np.float32)
    offset[0, 1, 2, 0] = np.nan
    y = run(jaxcnn.deform_conv(1, 1, bias=False), {"kernel": np.ones((1, 1, 1, 1))}, np.ones((1, 3, 3, 1)), offset)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(offset[..., :1]))


IMAGE, OFFSET = np.zeros((1, 4, 5, 3), np.float32), np.zeros((1, 4, 5, 18), np.float32)
KERNEL = {"kernel": np.zeros((3, 3, 3, 2), np.float32), "bias": np.zeros(2, np.float32)}
use = lambda *inputs: run(jaxcnn.deform_conv(2), KERNEL, *inputs)
MISTAKES = [
    (lambda: use(IMAGE), TypeError, r"deform_conv needs the inputs \(x, offset\)"),
    (lambda: use(IMAGE, OFFSET, OFFSET, OFFSET), TypeError, r"deform_conv needs the inputs \(x, offset\)"),
    (
        lambda: use(IMAGE, OFFSET[..., :17]),
        ValueError,
        r"needs an offset \(1, 4, 5, 18\).*got \(1, 4, 5, 17",
    ),
    (lambda: use(IMAGE, OFFSET[..., :9]), ValueError, r"needs an offset"),
    (lambda: use(IMAGE, np.tile(OFFSET, 2)), ValueError, r"groups that divide 3 channels, got \(1, 4, 5, 36\)"),
    (lambda: use(IMAGE, OFFSET[:, :3]), ValueError, r"needs an offset \(1, 4, 5, 18\)"),
    (
        lambda: use(IMAGE, OFFSET, OFFSET),
        ValueError,
        r"deform_conv: offset .* needs a mask \(1, 4, 5, 9\), got",
    ),
    (lambda: jaxcnn.deform_conv(3, groups=2), ValueError, r"deform_conv: features=3 is not divisible by groups=2"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
