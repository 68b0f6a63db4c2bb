"""`resize` and `upsample` against the formulas of ONNX's operator Resize, one output at a time in NumPy float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxcnn
from jaxcnn.explain import receptive_field
from tests import oracle

COORDINATES = ("half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric", "pytorch_half_pixel")


def position(i, n, size, scale, coordinates):
    """The position in the input of output i."""
    width = scale * n
    if coordinates == "align_corners":
        return 0.0 if size == 1 else i * (n - 1) / (width - 1)
    if coordinates == "asymmetric":
        return i / scale
    if coordinates == "pytorch_half_pixel" and size == 1:
        return 0.0
    center = n / 2 * (1 - size / width) if coordinates == "half_pixel_symmetric" else 0
    return center + (i + 0.5) / scale - 0.5


def weight(x, method, a):
    x = abs(x)
    if method == "linear":
        return max(0.0, 1 - x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resized_row(row, size, scale, method, coordinates, antialias, rounding, a, exclude_outside):
    n, y = len(row), []
    for i in range(size):
        at = position(i, n, size, scale, coordinates)
        if method == "nearest":
            below = int(np.floor(at))
            nearer = below if at - below < 0.5 else below + 1
            tie = at - below == 0.5
            index = {
                "floor": below,
                "ceil": int(np.ceil(at)),
                "round_prefer_floor": below if tie else nearer,
                "round_prefer_ceil": below + 1 if tie else nearer,
            }[rounding]
            y.append(row[min(max(index, 0), n - 1)])
            continue
        shrink = min(scale, 1.0) if antialias else 1.0
        total, norm = 0.0, 0.0
        for j in range(-20, n + 20):
            w = weight((j - at) * shrink, method, a)
            if exclude_outside and not 0 <= j < n:
                continue
            total, norm = total + w * row[min(max(j, 0), n - 1)], norm + w
        y.append(total / norm)
    return np.array(y)


def resized(x, sizes, scales, *options):
    y = np.asarray(x, np.float64)
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), 1):
        y = np.apply_along_axis(lambda row: resized_row(row, size, scale, *options), axis, y)  # noqa: B023
    return y


def run(layer, x):
    return jax.jit(lambda x: layer.apply({}, {}, x, train=False)[0])(x)


def draw(*shape):
    return np.random.default_rng([*shape]).normal(size=shape).astype(np.float32)


CASES = [
    *itertools.product(("linear",), COORDINATES, (True, False), ("floor",), (0.0,), (True, False)),
    *itertools.product(("cubic",), COORDINATES, (True, False), ("floor",), (-0.5, -0.75), (True, False)),
    *itertools.product(
        ("nearest",),
        COORDINATES,
        (True,),
        ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
        (0.0,),
        (True,),
    ),
]


@pytest.mark.sample(10)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_onnx_formulas(case):
    method, coordinates, antialias, rounding, a, exclude_outside = case
    options = {"coordinates": coordinates, "antialias": antialias, "rounding": rounding, "a": a}
    make = functools.partial(jaxcnn.resize, method=method, exclude_outside=exclude_outside, **options)
    sizes = [(size, size / 9) for size in (1, 4, 18)] + [(int(9 * scale), scale) for scale in (0.3, 0.6, 1.7)]
    layers = [make(size) for size, _ in sizes[:3]] + [make(scale=scale) for _, scale in sizes[3:]]
    sizes, layers = [*sizes, (7, 0.75)], [*layers, make(7, scale=0.75)]
    x = draw(1, 9, 2)
    ys = jax.jit(lambda x: [layer.apply({}, {}, x, train=False)[0] for layer in layers])(x)
    for y, (size, scale) in zip(ys, sizes, strict=True):
        oracle.assert_close(y, resized(x, (size,), (scale,), *case))


@pytest.mark.sample(3)
@pytest.mark.parametrize("shape", [(2, 6, 5, 2), (1, 4, 3, 5, 1)])
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_two_and_three_dimensions(method, shape):
    x, sizes = draw(*shape), (3, 7, 6)[: len(shape) - 2]
    scales = [size / n for size, n in zip(sizes, shape[1:-1], strict=True)]
    for coordinates in ("align_corners", "asymmetric"):
        layer = jaxcnn.resize(sizes, method, coordinates=coordinates, rounding="floor", a=-0.75, exclude_outside=False)
        oracle.assert_close(run(layer, x), resized(x, sizes, scales, method, coordinates, True, "floor", -0.75, False))


def test_ties_and_integers_are_exact():
    """Positions are quotients of integers: no rounding error moves them over a pixel's border."""
    n, sizes = 12, (1, 3, 7, 8, 10, 24, 25, 30)
    x = jnp.arange(float(n)).reshape(1, n, 1)
    expected, layers = [], []
    for size in sizes:
        i = np.arange(size)
        indices = {
            ("asymmetric", "floor"): i * n // size,
            ("asymmetric", "ceil"): np.minimum(-(-i * n // size), n - 1),
            ("half_pixel", "round_prefer_ceil"): (2 * i + 1) * n // (2 * size),
            ("half_pixel", "round_prefer_floor"): np.maximum(-(-(2 * i + 1) * n // (2 * size)) - 1, 0),
            ("align_corners", "floor"): i * (n - 1) // max(size - 1, 1),
        }
        expected += indices.values()
        layers += [jaxcnn.resize(size, "nearest", coordinates=c, rounding=r) for c, r in indices]
    ys = jax.jit(lambda x: [layer.apply({}, {}, x, train=False)[0] for layer in layers])(x)
    for y, index in zip(ys, expected, strict=True):
        np.testing.assert_array_equal(y.ravel(), index)


FIGURES = {  # from the examples in ONNX's documentation of Resize
    "linear align_corners": (
        (2, 4),
        {"scale": 0.6, "antialias": False, "coordinates": "align_corners"},
        [[1, 3.142857]],
    ),
    "linear antialias": ((4, 4), {"scale": 0.6, "exclude_outside": False}, [[2.875, 4.5], [9.375, 11]]),
    "cubic antialias": (
        (4, 4),
        {"scale": 0.6, "method": "cubic", "a": -0.75, "exclude_outside": False},
        [[2.5180721, 4.2858863], [9.589329, 11.357142]],
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_published_figures(name):
    shape, options, y = FIGURES[name]
    x = np.arange(1.0, 1 + np.prod(shape), dtype=np.float32).reshape(1, *shape, 1)
    oracle.assert_close(run(jaxcnn.resize(**options), x)[0, ..., 0], y)


@pytest.mark.sample(3)
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "lanczos3", "lanczos5"])
def test_defaults_are_those_of_jax(method):
    x = draw(2, 9, 7, 2)
    oracle.assert_close(run(jaxcnn.resize((4, 11), method), x), jax.image.resize(x, (2, 4, 11, 2), method))


@pytest.mark.sample(4)
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "lanczos3"])
def test_upsample_is_resize_with_an_integer_scale(method):
    x = draw(2, 3, 4, 2)
    for coordinates in COORDINATES:
        y = run(jaxcnn.upsample((3, 2), method, coordinates=coordinates), x)
        oracle.assert_close(y, run(jaxcnn.resize((9, 8), method, coordinates=coordinates), x), 1e-6)


def test_integers_keep_their_type():
    x = jnp.arange(6, dtype=jnp.uint8).reshape(1, 6, 1)
    y, _ = jaxcnn.resize(3, "nearest").apply({}, {}, x, train=False)
    assert y.dtype == jnp.uint8
    np.testing.assert_array_equal(y.ravel(), [1, 3, 5])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
@pytest.mark.usefixtures("quick_compilation")
def test_derivatives(method):
    with jax.enable_x64(True):
        layer = jaxcnn.resize((7, 3), method, coordinates="align_corners", a=-0.75, exclude_outside=False)
        f = lambda x: layer.apply({}, {}, x, train=False)[0]
        x = jnp.asarray(draw(1, 4, 5, 2), jnp.float64)
        check_grads(lambda x: jnp.sin(f(x)), (x,), 2, atol=1e-5, rtol=1e-5)


def test_receptive_field():
    field = lambda layer: receptive_field(layer, jax.ShapeDtypeStruct((1, 8, 1), jnp.float32)).layers[-1].fields
    assert field(jaxcnn.resize(4, antialias=False)) == ((2, 2, 0),)
    assert field(jaxcnn.resize(4, "nearest", coordinates="asymmetric", rounding="floor")) == ((1, 2, 0),)
    assert field(jaxcnn.resize(4, "cubic", antialias=False))[0][:2] == (4, 2)


MISTAKES = [
    (lambda: jaxcnn.resize(), ValueError, "resize needs a size or a scale"),
    (lambda: jaxcnn.resize(4, coordinates="align_corner"), ValueError, r"unknown coordinates .*did you mean 'align_co"),
    (lambda: jaxcnn.resize(4, rounding="round"), ValueError, r"resize: unknown rounding 'round'"),
    (lambda: jaxcnn.resize(scale=0.0), ValueError, r"resize: scale must be above 0, got 0\.0"),
    (lambda: jaxcnn.resize(scale="2"), TypeError, r"resize: scale must be a number, got '2'"),
    (lambda: jaxcnn.resize(4, a="keys"), TypeError, r"resize: a must be a number, got 'keys'"),
    (lambda: run(jaxcnn.resize(scale=(2, 2)), draw(1, 4, 1)), ValueError, r"scale=\(2, 2\) has 2 entries for 1"),
    (lambda: run(jaxcnn.resize(scale=0.1), draw(1, 4, 1)), ValueError, r"empty output of .*\(0,\) for input \(1, 4, 1"),
    (
        lambda: run(jaxcnn.resize(5, scale=100.0), draw(1, 4, 1)),
        ValueError,
        r"size=5 is not that of scale=100.0 for in",
    ),
    (lambda: jaxcnn.upsample(2, coordinates="corners"), ValueError, r"upsample: unknown coordinates 'corners'"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


@pytest.mark.parametrize("scale", [jnp.float32(1.3), np.float32(1.3), (np.float64(1.3),)])
def test_scalars_of_arrays_are_numbers(scale):
    x = draw(1, 5, 1)
    expected = run(jaxcnn.resize(scale=float(np.ravel(scale)[0])), x)
    np.testing.assert_array_equal(jax.jit(lambda x: run(jaxcnn.resize(scale=scale), x))(x), expected)


def test_bfloat16_is_rounded_once():
    x = draw(2, 9, 9, 3).astype(jnp.bfloat16)
    wide = run(jaxcnn.resize((7, 13)), x.astype(jnp.float32))
    np.testing.assert_array_equal(run(jaxcnn.resize((7, 13)), x), wide.astype(jnp.bfloat16))
