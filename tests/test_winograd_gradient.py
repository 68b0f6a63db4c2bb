"""Kernel gradients by Winograd's F(3, 4), which need oneDNN: values, derivatives, accuracy, outliers and choices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn._lowering import _lax, _onednn, _problem, _rules, _winograd, _winograd_gradient, convolve
from jaxcnn._window import Window
from tests.test_locality import Conv, check_locality, oracle
from tests.test_lowering import same_derivatives_as_lax
from tests.test_onednn import needs_onednn, normal, window
from tests.test_rules import problem

pytestmark = [pytest.mark.usefixtures("no_compilation_cache"), needs_onednn]


def exact_gradient(x, dy, window):
    x, dy = np.asarray(x, np.float64), np.asarray(dy, np.float64)
    w = np.zeros((*window.size, x.shape[-1], dy.shape[-1]))
    return oracle(Conv("", x.shape, w.shape, pad=window.padding), "dw", x, w, dy)


def error(found, exact):
    return np.abs(np.asarray(found, np.float64) - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize("at_once", [300, 10**9], ids=["in parts", "whole"])
@pytest.mark.parametrize(
    ("examples", "spatial", "channels", "features", "padding"),
    [
        (5, (8, 8), 3, 2, ((1, 1), (1, 1))),
        (5, (9, 6), 2, 3, ((1, 1), (1, 1))),
        (3, (5, 7), 4, 4, ((0, 0), (0, 0))),
        (2, (3, 10), 2, 2, ((2, 0), (0, 3))),
        (2, (9, 8), 2, 2, ((-1, 1), (0, -2))),
        (1, (3, 3), 2, 2, ((0, 0), (0, 0))),
        (7, (33,), 3, 2, ((1, 2),)),
    ],
)
def test_values(monkeypatch, examples, spatial, channels, features, padding, at_once):
    monkeypatch.setattr(_winograd_gradient, "_AT_ONCE", at_once)
    monkeypatch.setattr(_winograd_gradient, "_MIN_BLOCKS", 1)
    taps = Window((3,) * len(spatial), *((1,) * len(spatial),) * 2, padding, (1,) * len(spatial))
    x = normal(examples, *spatial, channels)
    dy = normal(examples, *taps.output(spatial), features, seed=1)
    case = _problem.kernel_gradient(x, dy, taps, 1)
    assert _winograd_gradient.fits(case)
    found = jax.jit(lambda x, dy: _winograd_gradient.kernel_gradient(x, dy, case))(x, dy)
    assert error(found, exact_gradient(x, dy, taps)) < 2e-6


@pytest.mark.parametrize("mean", [0, 1])
def test_as_accurate_as_a_sum_of_products(mean):
    x, dy = normal(16, 16, 16, 32) + mean, normal(16, 16, 16, 32, seed=1)
    case = _problem.kernel_gradient(x, dy, window((3, 3)), 1)
    rule = _rules.choose(case)
    assert rule.name == "winograd gradient"
    exact = exact_gradient(x, dy, case.window)
    assert error(jax.jit(lambda x, dy: rule.run(x, dy, case))(x, dy), exact) < 2e-6
    with jax.default_matmul_precision("highest"):
        assert _rules.choose(case).name == "over examples"


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "size"), [((2, 6, 7, 24), (3, 3)), ((3, 12, 64), (3,))])
@pytest.mark.usefixtures("quick_compilation")
def test_derivatives(monkeypatch, shape, size):
    monkeypatch.setattr(_winograd_gradient, "_MIN_MULTIPLY_ADDS", 0)
    monkeypatch.setattr(_winograd_gradient, "_MAX_WASTE", 4)
    x, w = normal(*shape), normal(*size, shape[-1], shape[-1], seed=1) / 9
    case = _problem.forward(x, w, window(size), 1)
    assert _rules.choose(case._replace(operation="kernel gradient")).name == "winograd gradient"
    same_derivatives_as_lax((x, w, case))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    x, dy = (jnp.asarray(normal(8, 16, 16, 32, seed=seed), dtype) for seed in (0, 1))
    case = _problem.kernel_gradient(x, dy, window((3, 3)), 1)
    found = _winograd_gradient.kernel_gradient(x, dy, case)
    assert found.dtype == dtype
    assert error(found, exact_gradient(x, dy, case.window)) < (4e-3 if dtype == "bfloat16" else 5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "conv",
    [
        Conv("images", (8, 16, 16, 24), (3, 3, 24, 40)),
        Conv("uneven", (10, 13, 19, 32), (3, 3, 32, 24), pad=(0, 2)),
        Conv("signals", (24, 70, 64), (3, 64, 64)),
        Conv("bfloat16", (8, 16, 16, 32), (3, 3, 32, 32), dtype="bfloat16"),
    ],
    ids=lambda conv: conv.name,
)
def test_values_that_are_not_finite_or_outliers(conv, monkeypatch):
    assert ("kernel gradient", "winograd gradient") in check_locality(conv, monkeypatch)


@pytest.mark.parametrize("outlier", [1e2, 1e4, 1e6, 1e8, 1e15, 1e30])
@pytest.mark.parametrize("poisoned", [0, 1], ids=["x", "dy"])
def test_outliers_that_no_product_uses(poisoned, outlier):
    """An outlier of x where dy is zero in all windows that contain it, or the reverse, does not change the gradient."""
    args = [normal(8, 16, 16, 32), normal(8, 16, 16, 32, seed=1)]
    args[1 - poisoned][0, 7:10, 7:10] = 0
    args[poisoned][0, 8, 8, 0] = 0
    exact = exact_gradient(*args, window((3, 3)))
    args[poisoned][0, 8, 8, 0] = outlier
    case = _problem.kernel_gradient(*args, window((3, 3)), 1)
    rule = _rules.choose(case)
    assert rule.name == "winograd gradient"
    assert error(jax.jit(lambda x, dy: rule.run(x, dy, case))(*args), exact) < (2e-6 if outlier != 1e2 else 5e-6)


def test_large_values_do_not_overflow():
    x, dy = normal(8, 16, 16, 32) * np.float32(1e36), normal(8, 16, 16, 32, seed=1) * np.float32(1e-3)
    dw = jax.jit(lambda x, dy: jax.vjp(lambda w: convolve(x, w, window((3, 3)), 1), normal(3, 3, 32, 32))[1](dy)[0])(
        x, dy
    )
    assert error(dw, exact_gradient(x, dy, window((3, 3)))) < 2e-6


def test_accurate_finds_outliers():
    x, w = normal(8, 16, 16, 32), normal(3, 3, 32, 32)
    accurate = jax.jit(_winograd.is_accurate)
    assert accurate(x, w)
    assert accurate(np.maximum(x, 0), w)
    sparse = np.where(np.random.default_rng(2).random(x.shape) < 0.02, x, 0)
    assert accurate(sparse, w)
    for bad in (np.nan, np.inf, -np.inf, 1e5, 1e30):
        for poisoned in (0, 1):
            args = [x.copy(), w.copy()]
            args[poisoned][1, 1, 0, 3] = bad
            assert not accurate(*args)
    assert not accurate(x * np.float32(1e33), w)
    assert not accurate(x, w * np.float32(1e37))
    assert accurate(x[:, :, :, :3][:7, :13], w)  # no 16 neighbors
    assert not accurate(np.zeros_like(x) * np.nan, w)


CHOICES = [
    (problem(128, (16, 16), 64, 64, 3, pad=1), True),
    (problem(128, (16, 16), 24, 24, 3, pad=1), True),
    (problem(128, (16, 16), 23, 24, 3, pad=1), False),
    (problem(128, (16, 16), 16, 64, 3, pad=1), False),
    (problem(128, (16, 16), 64, 64, 3, 2, pad=1), False),
    (problem(128, (16, 16), 64, 64, 5, pad=2), False),
    (problem(128, (16, 16), 64, 64, 3, pad=2, dilation=2), False),
    (problem(128, (16, 16), 64, 64, 3, pad=1, input_dilation=2), False),
    (problem(128, (16, 16), 64, 64, 3, pad=1, groups=2), False),
    (problem(1, (8, 8), 64, 64, 3, pad=1), False),
    (problem(8, (8, 8), 64, 64, 3, pad=1), True),
    (problem(8, (7, 7), 256, 256, 3, pad=1), True),
    (problem(8, (6, 6), 256, 256, 3, pad=1), False),
    (problem(8, (28, 28), 512, 512, 3, pad=1), False),
    (problem(1, (300, 300), 64, 64, 3, pad=1), False),
    (problem(16, (512,), 64, 64, 3, pad=1), True),
    (problem(16, (512,), 63, 64, 3, pad=1), False),
    (problem(128, (16, 16), 64, 64, 3, pad=1)._replace(dtype="float64"), False),
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: str(choice[0][1:6]))
def test_choices(choice, monkeypatch):
    case, used = choice
    case = case._replace(operation="kernel gradient")
    assert (_rules.choose(case).name == "winograd gradient") == used
    monkeypatch.setattr(_onednn, "usable", lambda: False)
    assert _rules.choose(case).name != "winograd gradient"
    assert _rules.choose(case, backend="gpu").name == "lax"


def test_same_as_lax_through_the_public_path():
    x, w = normal(8, 16, 16, 32), normal(3, 3, 32, 48, seed=1)
    gradient = lambda f: jax.jit(jax.grad(lambda w: jnp.sin(f(x, w)).sum()))
    case = _problem.forward(x, w, window((3, 3)), 1)
    ours = gradient(lambda x, w: convolve(x, w, window((3, 3)), 1))
    assert "__onednn$matmul" in ours.lower(w).as_text()
    plain = gradient(lambda x, w: _lax.forward(x, w, case))
    np.testing.assert_allclose(ours(w), plain(w), atol=2e-3)
    np.testing.assert_array_equal(ours(w), ours(w))
