"""`crop_and_resize` and `roi_align` against the formulas of TensorFlow and torchvision, one value at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxcnn
from tests import oracle


def run(layer, *inputs):
    return jax.jit(lambda inputs: layer.apply({}, {}, inputs, train=False)[0])(inputs)


def draw(*shape):
    return np.random.default_rng([*shape]).normal(size=shape).astype(np.float32)


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


def aligned_mean(x, box, place, size, spatial_scale, ratio, aligned):
    """(H, W, C): the mean of one bin of a box (x1, y1, x2, y2)."""
    total = np.zeros(x.shape[-1])
    for k in np.ndindex(ratio, ratio):
        at = []
        for low, high, i, sub, m in zip((box[1], box[0]), (box[3], box[2]), place, k, size, strict=True):
            low, high = low * spatial_scale, high * spatial_scale
            extent = high - low if aligned else max(high - low, 1.0)
            at.append(low - 0.5 * aligned + (i + (sub + 0.5) / ratio) * extent / m)
        if all(-1 <= p <= n for p, n in zip(at, x.shape, strict=False)):
            at = [min(max(p, 0), n - 1) for p, n in zip(at, x.shape, strict=False)]
            for c in range(x.shape[-1]):
                rows = np.array([interpolated(row[:, c], at[1], "linear") for row in x])
                total[c] += interpolated(rows, at[0], "linear")
    return total / ratio**2


@pytest.mark.parametrize(("aligned", "ratio"), [(True, 2), (False, 2), (True, 1), (False, 3)])
def test_roi_align(aligned, ratio):
    x, size = draw(2, 5, 6, 2), (2, 3)
    low = np.random.default_rng(1).uniform(-4, 8, (2, 5, 2))
    boxes = np.concatenate([low, low + np.random.default_rng(2).uniform(0, 12, (2, 5, 2))], -1).astype(np.float32)
    boxes[0, 0], boxes[0, 1] = (3, 3, 3.5, 3.25), (0, 0, 12, 10)
    layer = jaxcnn.roi_align(size, spatial_scale=0.5, sampling_ratio=ratio, aligned=aligned)
    y = run(layer, x, boxes)
    assert y.shape == (2, 5, 2, 3, 2)
    for n, b, *place in np.ndindex(2, 5, *size):
        want = aligned_mean(x[n].astype(np.float64), boxes[n, b].astype(np.float64), place, size, 0.5, ratio, aligned)
        np.testing.assert_allclose(y[n, b, *place], want, atol=1e-5)


def test_roi_align_in_other_dimensions():
    """The mean of a linear function over a bin is its value at the center."""
    signal = 3 * np.arange(8.0, dtype=np.float32).reshape(1, 8, 1)
    y = run(jaxcnn.roi_align(2), signal, np.array([[[1.0, 7.0]]], np.float32))
    np.testing.assert_allclose(y.ravel(), [3 * (2.5 - 0.5), 3 * (5.5 - 0.5)], 1e-6)
    volume = (np.arange(4)[:, None, None] + 10 * np.arange(5)[:, None] + 100.0 * np.arange(6)).astype(np.float32)
    box = np.array([[[1, 1, 1, 5, 4, 3]]], np.float32)  # (x, y, z) of the low and the high corner
    y = run(jaxcnn.roi_align(1), volume.reshape(1, 4, 5, 6, 1), box)
    np.testing.assert_allclose(y.ravel(), [(2 - 0.5) + 10 * (2.5 - 0.5) + 100 * (3 - 0.5)], 1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        *(jaxcnn.crop_and_resize(2, method, extrapolation_value=7.0) for method in ("linear", "nearest", "cubic")),
        *(jaxcnn.roi_align(2, aligned=aligned) for aligned in (True, False)),
    ],
    ids=str,
)
def test_nan_boxes_give_nan(layer):
    x, boxes = draw(1, 4, 4, 1), np.array([[[0, 0, 1, 1], [0, 0, 1, 1]]], np.float32)
    boxes[0, 1] = np.nan
    y = run(layer, x, boxes)[0]
    assert np.isfinite(y[0]).all()
    assert np.isnan(y[1]).all()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_gradients_of_roi_align():
    with jax.enable_x64(True):
        x, boxes = jnp.asarray(draw(1, 5, 4, 2), float), jnp.array([[[0.61, 1.13, 3.83, 3.71]]])
        crop = lambda *inputs: jaxcnn.roi_align((3, 2)).apply({}, {}, inputs, train=False)[0]
        check_grads(crop, (x, boxes), 2, atol=1e-5, rtol=1e-5)


IMAGE = np.zeros((2, 4, 5, 3), np.float32)
MISTAKES = [
    (lambda: jaxcnn.crop_and_resize(0), ValueError, r"crop_and_resize: size must be at least 1, got 0"),
    (lambda: jaxcnn.crop_and_resize(2, "area"), ValueError, r"crop_and_resize: unknown method 'area'"),
    (lambda: run(jaxcnn.crop_and_resize(2), IMAGE, IMAGE[:, 0]), ValueError, r"needs boxes \(N, boxes, 4\), got"),
    (lambda: run(jaxcnn.crop_and_resize(2), IMAGE), TypeError, r"crop_and_resize needs the inputs \(x, boxes\)"),
    (
        lambda: run(jaxcnn.roi_align(2), IMAGE, np.zeros((2, 1, 4), int)),
        TypeError,
        r"roi_align: boxes must be floating-point, got int\d+ of shape \(2, 1, 4\): use boxes.astype\(jnp.float32\)",
    ),
    (
        lambda: run(jaxcnn.roi_align(2), IMAGE, IMAGE[:1, 0]),
        ValueError,
        r"roi_align: .* boxes \(N, boxes, 4",
    ),
    (
        lambda: jaxcnn.roi_align(2, sampling_ratio=-1),
        ValueError,
        r"sampling_ratio must be at least 1, got -1",
    ),
    (lambda: jaxcnn.roi_align(2, spatial_scale=0), ValueError, r"roi_align: spatial_scale must be above 0, got 0"),
    (
        lambda: run(jaxcnn.roi_align((2, 2, 2)), IMAGE, IMAGE[:, 0, :, [0, 1, 2, 0]].transpose(1, 2, 0)),
        ValueError,
        "size=",
    ),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
