"""`grid_sample` against PyTorch."""

import jax
import numpy as np
import pytest

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
    x = np.array([1.0, 3.0, np.nan], np.float32).reshape(1, 3, 1)
    layer, center = jaxcnn.grid_sample(align_corners=True), np.zeros((1, 1, 1), np.float32)  # exactly the second pixel
    np.testing.assert_array_equal(run(layer, x, center).ravel(), [3.0])
    clean = np.nan_to_num(x, nan=5.0)
    slope = jax.jit(jax.grad(lambda grid: layer.apply({}, {}, (clean, grid), train=False)[0].sum()))(center)
    np.testing.assert_allclose(slope.ravel(), [2.0])


def test_far_and_nonfinite_positions():
    x = draw(1, 5, 1)
    grid = np.array([1e30, -1e30, np.inf, np.nan], np.float32).reshape(1, 4, 1)
    y = run(jaxcnn.grid_sample(), x, grid).ravel()
    np.testing.assert_array_equal(y, [0, 0, 0, np.nan])
    border = run(jaxcnn.grid_sample(padding_mode="border"), x, grid).ravel()
    np.testing.assert_array_equal(border, [*x.ravel()[[-1, 0, -1]], np.nan])


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("method", ["linear", "nearest", "cubic"])
def test_nan_positions_give_nan(method, padding_mode, align):
    layer = jaxcnn.grid_sample(method, padding_mode=padding_mode, align_corners=align)
    grid = np.array([[0, 0], [np.nan, 0], [0, np.nan], [np.nan, 3]], np.float32).reshape(1, 1, 4, 2)
    for size in (1, 3):
        y = run(layer, draw(1, size, size, 2), grid)[0, 0]
        assert np.isfinite(y[0]).all()
        assert np.isnan(y[1:]).all()


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_reflection_of_far_positions_is_a_pixel(method, align):
    """As in PyTorch, where an infinite position has the value of the first pixel."""
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 5, 1)
    grid = np.array([1e9, -1e20, 3e38, -3e38, np.inf, -np.inf], np.float32).reshape(1, 6, 1)
    layer = jaxcnn.grid_sample(method, padding_mode="reflection", align_corners=align)
    y = np.asarray(run(layer, x, grid)).ravel()
    assert set(y) <= {1, 2, 3, 4, 5}
    np.testing.assert_array_equal(y[-2:], [1, 1])


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
    (
        lambda: run(jaxcnn.grid_sample(), IMAGE, IMAGE[..., :2].astype(int)),
        TypeError,
        r"grid must be floating-point, got int\d+ of shape \(2, 4, 5, 2\): use grid.astype\(jnp.float32\)",
    ),
    (lambda: jaxcnn.grid_sample().apply({}, {}, (IMAGE, None), train=False), TypeError, r"needs an array.*got None"),
    (lambda: run(jaxcnn.grid_sample(), IMAGE[:, :0], IMAGE), ValueError, r"each spatial dimension, got .*\(2, 0, 5"),
    (lambda: jaxcnn.grid_sample("bilinear"), ValueError, r"unknown method 'bilinear'.*did you mean 'linear'"),
    (
        lambda: jaxcnn.grid_sample(padding_mode="reflect"),
        ValueError,
        r"unknown padding_mode .*mean 'reflection'",
    ),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
