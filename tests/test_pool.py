"""Pools against the loops of `oracle`: values, and where the gradient of a maximum goes."""

import functools
import itertools
import random

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxcnn
from tests import oracle

SPATIAL = {1: (9,), 2: (6, 7), 3: (4, 5, 3)}
SIZE = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}
PADDINGS = {
    1: ("VALID", "SAME", "SAME_LOWER", "CAUSAL", 1, ((2, 0),)),
    2: ("VALID", "SAME", "SAME_LOWER", 1, (1, 0), ((0, 1), (1, 0))),
    3: ("VALID", "SAME", "SAME_LOWER", 1, ((0, 1), (2, 1), (1, 0))),
}


def run(layer, x):
    return jax.jit(functools.partial(layer.apply, train=False))({}, {}, x)[0]


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def draw_ties(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).integers(0, 3, shape).astype(np.float32)


def placed(x, size, *, stride=None, padding="VALID", dilation=1, ceil_mode=False):
    """The windows of these options by the oracle."""
    spatial, rank = x.shape[1:-1], x.ndim - 2
    size, dilation = oracle.each(size, rank), oracle.each(dilation, rank)
    stride = size if stride is None else oracle.each(stride, rank)
    pads = oracle.padding_pairs(padding, spatial, size, stride, dilation)
    return oracle.windows(spatial, size, stride, pads, dilation, ceil_mode)


POOLS = {
    "max": (jaxcnn.max_pool, oracle.largest),
    "min": (jaxcnn.min_pool, oracle.smallest),
    "avg": (jaxcnn.avg_pool, oracle.mean_without_padding),
    "avg-with-padding": (functools.partial(jaxcnn.avg_pool, count_include_pad=True), oracle.mean_with_padding),
    "lp": (functools.partial(jaxcnn.lp_pool, 3), oracle.norm(3)),
}


def grid():
    names, draw_name = list(POOLS), random.Random(0)  # a cycle could meet each pool with the same options only
    for rank in SPATIAL:
        dilations = (1, 2) if rank < 3 else (1, (1, 2, 1))
        for stride, padding, dilation, ceil in itertools.product(
            (None, 1, 2), PADDINGS[rank], dilations, (False, True)
        ):
            if stride != 1 or (rank < 3 and not ceil):
                options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil}
                yield rank, draw_name.choice(names), options


@pytest.mark.sample(6)
@pytest.mark.parametrize(("rank", "name", "options"), list(grid()))
def test_pools_are_the_loops(rank, name, options):
    make, reduce = POOLS[name]
    x = draw(2, *SPATIAL[rank], 3)
    want = oracle.pool(x.astype(np.float64), placed(x, SIZE[rank], **options), reduce)
    oracle.assert_close(run(make(SIZE[rank], **options), x), want)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize(
    ("spatial", "size", "options"),
    [
        ((5,), 5, {}),
        ((5,), 1, {"stride": 2}),
        ((7,), 2, {"stride": 3}),
        ((4, 6), (4, 6), {}),
        ((5, 8), (2, 4), {"stride": (3, 1)}),
        ((7, 5), 2, {"ceil_mode": True}),
        ((6, 6), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
        ((4, 4), 1, {"stride": 3, "ceil_mode": True}),
        ((2, 3), 3, {"stride": 2, "ceil_mode": True}),
        ((5, 4), 2, {"stride": 1, "dilation": (3, 2)}),
        ((5, 3, 4), (1, 3, 2), {"stride": (2, 1, 3), "padding": ((0, 0), (1, 0), (0, 1))}),
    ],
)
def test_sizes_at_the_edge(name, spatial, size, options):
    make, reduce = POOLS[name]
    x = draw(1, *spatial, 2)
    want = oracle.pool(x.astype(np.float64), placed(x, size, **options), reduce)
    oracle.assert_close(run(make(size, **options), x), want)


@pytest.mark.parametrize(("n", "size", "stride", "padding", "out"), [(5, 2, 2, 0, 3), (4, 1, 3, 0, 2), (5, 2, 3, 1, 2)])
def test_ceil_mode_size(n, size, stride, padding, out):
    """Sizes that PyTorch prints; in the last case a third window would start in the trailing padding."""
    x = draw(1, n, 1)
    assert run(jaxcnn.max_pool(size, stride=stride, padding=padding, ceil_mode=True), x).shape == (1, out, 1)


@pytest.mark.parametrize("p", [1, 1.5, 2, 6])
def test_lp_pool(p):
    x = draw(2, 6, 5, 2)
    want = oracle.pool(x.astype(np.float64), placed(x, 3, stride=2, padding=1), oracle.norm(p))
    oracle.assert_close(run(jaxcnn.lp_pool(p, 3, stride=2, padding=1), x), want)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("options", [{}, {"stride": 1, "padding": 1}])
def test_lp_pool_gradient_is_finite_where_all_is_zero(p, options):
    x = draw(1, 6, 6, 1)
    x[:, :4, :4] = 0
    gradient = jax.grad(lambda x: run(jaxcnn.lp_pool(p, 2, **options), x).sum())(x)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, :3, :3], 0)
    assert (gradient[:, 4:, 4:] != 0).all()


@pytest.mark.parametrize("make", [jaxcnn.adaptive_avg_pool, jaxcnn.adaptive_max_pool])
@pytest.mark.parametrize(
    ("spatial", "out"),
    [
        ((7,), 3),
        ((3,), 7),
        ((8,), 4),
        ((6, 7), 1),
        ((6, 7), (4, 3)),
        ((6, 7), (2, None)),
        ((6, 4), (3, 2)),
        ((4, 5, 3), 2),
        ((4, 5, 3), (None, 2, 4)),
    ],
)
def test_adaptive_pools(make, spatial, out):
    x = draw(2, *spatial, 2)
    shape = [n if o is None else o for n, o in zip(spatial, oracle.each(out, len(spatial)), strict=True)]
    reduce = oracle.largest if make is jaxcnn.adaptive_max_pool else oracle.mean_without_padding
    oracle.assert_close(run(make(out), x), oracle.pool(x.astype(np.float64), oracle.bins(spatial, shape), reduce))


def test_adaptive_bins():
    """PyTorch's bins of 10 positions in 4: 0..3, 2..5, 5..8, 7..10, seen through one position at a time."""
    y = run(jaxcnn.adaptive_avg_pool(4), np.eye(10, dtype=np.float32)[..., None])[..., 0] > 0
    bins = [np.flatnonzero(column).tolist() for column in np.asarray(y).T]
    assert bins == [[0, 1, 2], [2, 3, 4], [5, 6, 7], [7, 8, 9]]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pools(rank):
    x = draw(2, *SPATIAL[rank], 3)
    axes = tuple(range(1, rank + 1))
    oracle.assert_close(jax.jit(jaxcnn.global_avg_pool)(x), x.astype(np.float64).mean(axes))
    np.testing.assert_array_equal(jax.jit(jaxcnn.global_max_pool)(x), x.max(axes))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("spatial", "size"),
    [((7,), 3), ((6,), 4), ((1,), 3), ((5,), 1), ((6, 5), 3), ((5, 4), (2, 5)), ((3, 1), 5), ((3, 4, 2), 3)],
)
def test_blur_pool(spatial, size, stride):
    x, rank = draw(2, *spatial, 2), len(spatial)
    y = run(jaxcnn.blur_pool(size, stride=stride), x)
    oracle.assert_close(y, oracle.blur(x, oracle.each(size, rank), (stride,) * rank))
    assert y.shape[1:-1] == tuple(-(-n // stride) for n in spatial)


def test_blur_pool_stride_for_each_dimension():
    x = draw(1, 6, 5, 2)
    oracle.assert_close(run(jaxcnn.blur_pool((3, 2), stride=(1, 2)), x), oracle.blur(x, (3, 2), (1, 2)))
    oracle.assert_close(run(jaxcnn.blur_pool(), np.ones((1, 5, 6, 1))), np.ones((1, 3, 3, 1)))


OVERLAPPING = {
    "side-by-side": {},
    "overlapping": {"stride": 1},
    "same": {"stride": 2, "padding": "SAME"},
    "padded": {"stride": 2, "padding": 1},
    "gaps": {"stride": 4},
    "ceil": {"stride": 2, "ceil_mode": True},
    "dilated": {"stride": 1, "dilation": 2},
    "dilated-padded": {"stride": 2, "dilation": 2, "padding": 1, "ceil_mode": True},
}


def check_first_wins(layer, x, windows, best=np.argmax):
    y, pull = jax.vjp(lambda x: run(layer, x), x)
    dy = draw(*y.shape, seed=1)
    want = oracle.pool_gradient(x, dy, windows, best)
    oracle.assert_close(pull(dy)[0], want)


@pytest.mark.parametrize("options", OVERLAPPING)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_first_maximum_takes_the_whole_gradient(rank, options):
    x, options = draw_ties(2, *SPATIAL[rank], 2), OVERLAPPING[options]
    if rank == 3 and options.get("dilation"):
        options = options | {"dilation": (1, 2, 1)}
    size = (3,) * (rank - 1) + (2,)
    check_first_wins(jaxcnn.max_pool(size, **options), x, placed(x, size, **options))


@pytest.mark.parametrize("options", ["overlapping", "same", "dilated"])
def test_derivative_is_that_of_one_maximum(options):
    """Forward mode, too, follows one of equal values, not a mixture of them."""
    x, tangent, options = draw_ties(1, 6, 7, 1), draw(1, 6, 7, 1, seed=2), OVERLAPPING[options]
    layer = jaxcnn.max_pool(3, **options)
    y, dy = jax.jvp(lambda x: run(layer, x), (x,), (tangent,))
    for place, (positions, _) in placed(x, 3, **options)[1].items():
        allowed = [tangent[0, *at, 0] for at in positions if x[0, *at, 0] == y[0, *place, 0]]
        assert dy[0, *place, 0] in allowed


@pytest.mark.parametrize("options", ["overlapping", "same", "dilated"])
def test_first_minimum_takes_the_whole_gradient(options):
    x, options = draw_ties(2, 6, 7, 2), OVERLAPPING[options]
    check_first_wins(jaxcnn.min_pool(3, **options), x, placed(x, 3, **options), np.argmin)


@pytest.mark.parametrize(("spatial", "out"), [((7,), 3), ((6, 7), (4, 3)), ((6, 4), (3, 2)), ((4, 5, 3), 2)])
def test_first_maximum_of_each_bin_takes_the_whole_gradient(spatial, out):
    x = draw_ties(2, *spatial, 2)
    windows = oracle.bins(spatial, oracle.each(out, len(spatial)))
    check_first_wins(jaxcnn.adaptive_max_pool(out), x, windows)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_first_maximum_of_all_takes_the_whole_gradient(rank):
    x = draw_ties(2, *SPATIAL[rank], 2)
    place = (0,) * rank
    shape, table = oracle.bins(SPATIAL[rank], (1,) * rank)
    y, pull = jax.vjp(jax.jit(jaxcnn.global_max_pool), x)
    dy = draw(*y.shape)
    assert list(table) == [place]
    oracle.assert_close(pull(dy)[0], oracle.pool_gradient(x, dy.reshape(2, *shape, 2), (shape, table)))


UNUSUAL = [
    {},
    {"stride": 1, "padding": "SAME"},
    {"stride": 1, "dilation": 2},
    {"stride": 2, "dilation": 2, "padding": 1},
]


@pytest.mark.parametrize("options", UNUSUAL)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_nan_and_infinity_propagate(rank, options):
    x = draw(2, *SPATIAL[rank], 2)
    flat = x.reshape(2, -1, 2)
    flat[0, 3], flat[0, -1, 0], flat[1, :, 1], flat[1, 4, 0] = np.nan, np.nan, -np.inf, np.inf
    if rank == 3 and options.get("dilation"):
        options = options | {"dilation": (1, 2, 1)}
    windows = placed(x, 2, **options)
    np.testing.assert_array_equal(run(jaxcnn.max_pool(2, **options), x), oracle.pool(x, windows, oracle.largest))
    np.testing.assert_array_equal(run(jaxcnn.min_pool(2, **options), -x), oracle.pool(-x, windows, oracle.smallest))


@pytest.mark.parametrize("out", [(3, 1), (4, 3)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_unusual_values_stay_in_their_bins(bad, out):
    x = draw(1, 6, 7, 1)
    x[0, 0, 0] = bad
    windows = oracle.bins((6, 7), out)
    np.testing.assert_array_equal(run(jaxcnn.adaptive_max_pool(out), x), oracle.pool(x, windows, oracle.largest))
    mean = run(jaxcnn.adaptive_avg_pool(out), x)
    np.testing.assert_allclose(mean, oracle.pool(x, windows, oracle.mean_without_padding), rtol=1e-5, atol=1e-6)


def test_global_max_of_nan():
    x = draw(2, 3, 3, 2)
    x[0, 1, 2, 0] = np.nan
    np.testing.assert_array_equal(jaxcnn.global_max_pool(x), x.max((1, 2)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("options", UNUSUAL)
def test_integers(options, dtype):
    limits = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(limits.min, limits.max, (2, 5, 6, 2), dtype, endpoint=True)
    x[0, :, :, 0], x[0, :, :, 1] = limits.min, limits.max
    windows = placed(x, 2, **options)
    for name in ("max", "min"):
        make, reduce = POOLS[name]
        y = run(make(2, **options), x)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, oracle.pool(x, windows, reduce))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_integers_in_bins(dtype):
    x = np.random.default_rng(0).integers(0, 200, (2, 5, 6, 2)).astype(dtype)
    for out in ((5, 3), (3, 4)):
        y = run(jaxcnn.adaptive_max_pool(out), x)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, oracle.pool(x, oracle.bins((5, 6), out), oracle.largest))
    np.testing.assert_array_equal(jaxcnn.global_max_pool(x), x.max((1, 2)))


@pytest.mark.parametrize("padding", [2, ((0, 2), (0, 0))])
@pytest.mark.parametrize("name", POOLS)
def test_window_of_nothing_but_padding_is_refused(name, padding):
    with pytest.raises(ValueError, match="covers only padding"):
        POOLS[name][0](2, stride=1, padding=padding).apply({}, {}, draw(1, 4, 4, 1), train=False)


LAYERS = {
    "max": (jaxcnn.max_pool(3, stride=2, padding=1), (6, 5)),
    "max-dilated": (jaxcnn.max_pool(2, stride=2, dilation=2, padding=((1, 0), (0, 1))), (6, 5)),
    "max-3d": (jaxcnn.max_pool(2, ceil_mode=True), (2, 3, 3)),
    "min": (jaxcnn.min_pool(2, stride=1), (6, 5)),
    "avg": (jaxcnn.avg_pool(2, dilation=2, padding="SAME", ceil_mode=True), (6, 5)),
    "lp": (jaxcnn.lp_pool(3, 3, stride=2, padding=1), (6, 5)),
    "adaptive-avg": (jaxcnn.adaptive_avg_pool((2, 3)), (6, 5)),
    "adaptive-max": (jaxcnn.adaptive_max_pool(3), (7,)),
    "global-max": (jaxcnn.as_layer(jaxcnn.global_max_pool), (6, 5)),
    "blur": (jaxcnn.blur_pool(3), (7,)),
}


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", ["max", "max-dilated", "avg", "lp", "adaptive-avg", "adaptive-max", "blur"])
@pytest.mark.usefixtures("quick_compilation")
def test_gradients(name):
    layer, spatial = LAYERS[name]
    shape = (2, *spatial, 2)
    x = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape) / 16 - 0.8  # no two values are close
    with jax.enable_x64(True):
        f = lambda x: jnp.square(layer.apply({}, {}, x, train=False)[0])
        check_grads(f, (x,), order=2, modes=("fwd", "rev"), eps=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_batch_of_any_size(name):
    layer, spatial = LAYERS[name]
    x = draw(5, *spatial, 2)
    y = run(layer, x)
    oracle.assert_close(run(layer, x[3:4]), y[3:4], 1e-6)
    assert run(layer, x[:0]).shape == (0, *y.shape[1:])


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_is_close_to_float32(name):
    layer, spatial = LAYERS[name]
    x = jnp.asarray(draw(2, *spatial, 2), jnp.bfloat16)
    y = run(layer, x)
    assert y.dtype == jnp.bfloat16
    oracle.assert_close(y, run(layer, x.astype(jnp.float32)), 1e-2)


@pytest.mark.parametrize(
    "layer", [jaxcnn.avg_pool(32), jaxcnn.adaptive_avg_pool(1), jaxcnn.as_layer(jaxcnn.global_avg_pool)]
)
def test_mean_of_many_float16_does_not_overflow(layer):
    y = run(layer, np.full((1, 32, 32, 1), 100, np.float16))
    np.testing.assert_array_equal(np.asarray(y).ravel(), np.float16([100]))


@pytest.mark.parametrize("options", [{}, {"dilation": 2}])
def test_translation_tolerance(options):
    """A pattern that moves within its window changes nothing; one that leaves it moves the output by one."""
    layer, windows = jaxcnn.max_pool(2, **options), placed(np.zeros((1, 8, 8, 1)), 2, **options)[1]
    images = np.eye(64, dtype=np.float32).reshape(64, 8, 8, 1)  # one bright pixel at each position
    y = np.asarray(run(layer, images))[..., 0]
    for place, (positions, _) in windows.items():
        seen_at = {(i // 8, i % 8) for i in np.flatnonzero(y[:, *place])}
        assert seen_at == set(positions)


@pytest.mark.parametrize("pool", [jaxcnn.global_avg_pool, jaxcnn.global_max_pool])
def test_translation_invariance(pool):
    x = draw(2, 5, 6, 3)
    oracle.assert_close(pool(np.roll(x, (2, -1), (1, 2))), pool(x), 1e-6)


def test_blur_pool_is_steadier_than_plain_subsampling():
    """The finest pattern there is vanishes, wherever it starts; subsampling sees all of it or nothing."""
    stripes = np.float32([1, -1] * 8).reshape(1, 16, 1)
    for start in (0, 1):
        y = run(jaxcnn.blur_pool(3), np.roll(stripes, start, 1))
        np.testing.assert_array_equal(y, np.zeros((1, 8, 1)))
    assert (run(jaxcnn.max_pool(1, stride=2), stripes) == 1).all()


@st.composite
def pools(draw):
    rank = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))
    size = each(1, 3)
    names = ("SAME", "SAME_LOWER", "VALID", *(("CAUSAL",) if rank == 1 else ()))
    pairs = st.tuples(*(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)) for k in size))
    return (
        draw(st.sampled_from(tuple(POOLS))),
        each(1, 8 - 2 * rank + 2),
        {
            "size": size,
            "stride": draw(st.none() | st.tuples(*[st.integers(1, 4)] * rank)),
            "padding": draw(st.sampled_from(names) | pairs),
            "dilation": each(1, 2),
            "ceil_mode": draw(st.booleans()),
        },
    )


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)
@hypothesis.given(pools())
def test_any_pool(case):
    name, spatial, options = case
    make, reduce = POOLS[name]
    x = draw(2, *spatial, 2)
    shape, table = placed(x, **options)
    if 0 in shape or not all(positions for positions, _ in table.values()):
        with pytest.raises(ValueError, match=r"larger than the input|covers only padding"):
            run(make(**options), x)
    else:
        oracle.assert_close(run(make(**options), x), oracle.pool(x.astype(np.float64), (shape, table), reduce))


def test_blur_pool_of_bfloat16_rounds_once():
    x = draw(2, 9, 9, 3).astype(jnp.bfloat16)
    layer = jaxcnn.blur_pool(7, stride=2)
    y, wide = (layer.apply({}, {}, v, train=False)[0] for v in (x, x.astype(jnp.float32)))
    np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))


def test_adaptive_avg_pool_of_bfloat16_rounds_once():
    x = draw(2, 9, 9, 3).astype(jnp.bfloat16)
    wide = run(jaxcnn.adaptive_avg_pool(4), x.astype(jnp.float32))
    np.testing.assert_array_equal(run(jaxcnn.adaptive_avg_pool(4), x), wide.astype(jnp.bfloat16))


def test_lp_pool_with_p_1_has_no_gradient_at_zero():
    """As in PyTorch: the sign of x, which is 0 at 0."""
    x = jnp.array([0.0, 3.0, -2.0, 0.0]).reshape(1, 4, 1)
    gradient = jax.grad(lambda x: run(jaxcnn.lp_pool(1, 2), x).sum())(x)
    np.testing.assert_array_equal(gradient.ravel(), [0, 1, -1, 0])
