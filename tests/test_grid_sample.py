"""`grid_sample` against PyTorch, and `crop_and_resize` against TensorFlow's formulas in loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxcnn
from tests import goldens, oracle

CASES = goldens.operators("grid_sample.npz")


def run(layer, *inputs):
    return jax.jit(lambda inputs: layer.apply({}, {}, inputs, train=False)[0])(inputs)


def draw(*shape):
    return np.random.default_rng([*shape]).normal(size=shape).astype(np.float32)


@pytest.mark.sample(8)
@pytest.mark.parametrize(
    ("options", "case"), CASES, ids=lambda value: "-".join(map(str, value.values())) if "method" in value else "case"
)
def test_pytorch(options, case):
    layer = jaxcnn.grid_sample(**options)

    @jax.jit
    def value_and_gradients(x, grid, dy):
        y, pull = jax.vjp(lambda *inputs: layer.apply({}, {}, inputs, train=False)[0], x, grid)
        return y, *pull(dy)

    y, dx, dgrid = value_and_gradients(case["x"], case["grid"], case["dy"])
    oracle.assert_close(y, case["y"])
    oracle.assert_close(dx, case["dx"])
    oracle.assert_close(dgrid, case["dgrid"])


@pytest.mark.parametrize("align", [True, False])
def test_identity_grid(align):
    x = draw(1, 3, 4, 2)
    ends = [1.0, 1.0] if align else [2 / 3, 3 / 4]
    rows, columns = (np.linspace(-end, end, n) for end, n in zip(ends, (3, 4), strict=True))
    grid = np.stack(np.meshgrid(columns, rows), -1)[None].astype(np.float32)
    for method in ("linear", "nearest", "cubic"):
        oracle.assert_close(run(jaxcnn.grid_sample(method, align_corners=align), x, grid), x)


def test_pixels_with_weight_zero_have_no_effect():
    """At the center of a pixel, a NaN next to it does not matter, but the gradient to the grid does not vanish."""
    x = np.array([1.0, 3.0, np.nan, 7.0], np.float32).reshape(1, 4, 1)
    grid = np.array([-1 / 3], np.float32).reshape(1, 1, 1)
    layer = jaxcnn.grid_sample(align_corners=True)
    np.testing.assert_allclose(run(layer, x, grid).ravel(), [3.0], 1e-6)
    center = np.zeros((1, 1, 1), np.float32)  # of three pixels, the second
    odd = np.array([1.0, 3.0, 5.0], np.float32).reshape(1, 3, 1)
    slope = jax.jit(jax.grad(lambda grid: layer.apply({}, {}, (odd, grid), train=False)[0].sum()))(center)
    np.testing.assert_allclose(slope.ravel(), [2.0])


def test_far_and_nonfinite_positions():
    x = draw(1, 5, 1)
    grid = np.array([1e30, -1e30, np.inf, np.nan], np.float32).reshape(1, 4, 1)
    y = run(jaxcnn.grid_sample(), x, grid).ravel()
    np.testing.assert_array_equal(y, np.zeros(4))
    border = run(jaxcnn.grid_sample(padding_mode="border"), x, grid).ravel()
    np.testing.assert_array_equal(border[:3], x.ravel()[[-1, 0, -1]])


def interpolated(row, at, method):
    if method == "nearest":
        return row[int(np.floor(at + 0.5))]
    low = min(int(np.floor(at)), len(row) - 2) if len(row) > 1 else 0
    return row[0] if len(row) == 1 else row[low] * (1 - at + low) + row[low + 1] * (at - low)


def cropped(x, boxes, size, method, outside):
    """(H, W, C), (boxes, 4) -> (boxes, *size, C), one value at a time."""
    y = np.full((len(boxes), *size, x.shape[-1]), outside, np.float64)
    for b, i, j in np.ndindex(len(boxes), *size):
        at = []
        for low, high, k, m, n in zip(boxes[b][:2], boxes[b][2:], (i, j), size, x.shape, strict=False):
            at.append((low + (high - low) * k / (m - 1)) * (n - 1) if m > 1 else (low + high) / 2 * (n - 1))
        if all(0 <= p <= n - 1 for p, n in zip(at, x.shape, strict=False)):
            for c in range(x.shape[-1]):
                rows = np.array([interpolated(row[:, c], at[1], method) for row in x])
                y[b, i, j, c] = interpolated(rows, at[0], method)
    return y


@pytest.mark.parametrize("method", ["linear", "nearest"])
@pytest.mark.parametrize("size", [(3, 4), (1, 2)])
def test_crop_and_resize(method, size):
    x = draw(2, 5, 6, 3)
    boxes = np.random.default_rng(0).uniform(-0.2, 1.2, (2, 6, 4)).astype(np.float32)
    boxes[0, 0], boxes[0, 1], boxes[1, 0] = (0, 0, 1, 1), (1, 1, 0, 0), (0.125, 0.1, 0.375, 0.3)
    y = run(jaxcnn.crop_and_resize(size, method, extrapolation_value=-7.0), x, boxes)
    for n in range(2):
        oracle.assert_close(y[n], cropped(x[n].astype(np.float64), boxes[n].astype(np.float64), size, method, -7.0))


def test_crop_of_the_whole_image_is_resize_with_aligned_corners():
    for shape, size in (((1, 7, 2), 4), ((1, 4, 5, 2), (6, 3)), ((1, 3, 4, 3, 1), 5)):
        x, rank = draw(*shape), len(shape) - 2
        box = np.array([0.0] * rank + [1.0] * rank, np.float32).reshape(1, 1, 2 * rank)
        y = run(jaxcnn.crop_and_resize(size), x, box)[:, 0]
        layer = jaxcnn.resize(size, coordinates="align_corners", antialias=False)
        oracle.assert_close(y, layer.apply({}, {}, x, train=False)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_gradients_to_boxes():
    with jax.enable_x64(True):
        x, boxes = jnp.asarray(draw(1, 5, 4, 2), float), jnp.array([[[0.11, 0.13, 0.83, 0.71]]])
        crop = lambda *inputs: jaxcnn.crop_and_resize((3, 2)).apply({}, {}, inputs, train=False)[0]
        check_grads(crop, (x, boxes), 2, atol=1e-5, rtol=1e-5)


IMAGE = np.zeros((2, 4, 5, 3), np.float32)
MISTAKES = [
    (lambda: run(jaxcnn.grid_sample(), IMAGE), TypeError, r"grid_sample needs the inputs \(x, grid\)"),
    (
        lambda: run(jaxcnn.grid_sample(), IMAGE, IMAGE),
        ValueError,
        r"\(2, 4, 5, 3\) needs a grid \(N, .*, 2\), got",
    ),
    (lambda: run(jaxcnn.grid_sample(), IMAGE, IMAGE[:1, ..., :2]), ValueError, r"got \(1, 4, 5, 2\)"),
    (lambda: run(jaxcnn.grid_sample(), IMAGE.astype(int), IMAGE), TypeError, r"grid_sample needs floating-point"),
    (lambda: jaxcnn.grid_sample("bilinear"), ValueError, r"unknown method 'bilinear'.*did you mean 'linear'"),
    (
        lambda: jaxcnn.grid_sample(padding_mode="reflect"),
        ValueError,
        r"unknown padding_mode .*mean 'reflection'",
    ),
    (lambda: jaxcnn.crop_and_resize(0), ValueError, r"crop_and_resize: size must be at least 1, got 0"),
    (
        lambda: run(jaxcnn.crop_and_resize(2), IMAGE, IMAGE[:, 0]),
        ValueError,
        r"needs boxes \(N, boxes, 4\), got",
    ),
    (lambda: run(jaxcnn.crop_and_resize(2), IMAGE), TypeError, r"crop_and_resize needs the inputs \(x, boxes\)"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
