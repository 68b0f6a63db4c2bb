"""Convolutions against the loops of `oracle`, and the properties that define them."""

import functools
import itertools
import math

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
SIZE = {1: (3,), 2: (3, 2), 3: (2, 3, 1)}
STRIDES = {1: (1, 2, 3), 2: (1, 2, (1, 3)), 3: (1, 2, (2, 1, 3))}
PADDINGS = {
    1: ("SAME", "SAME_LOWER", "VALID", "CAUSAL", 2, (1,), ((2, 1),)),
    2: ("SAME", "SAME_LOWER", "VALID", 2, (2, 1), ((2, 1), (0, 3)), (1, (0, 2))),
    3: ("SAME", "SAME_LOWER", "VALID", 1, (2, 1, 0), ((2, 1), (0, 2), (1, 1))),
}


def run(layer, params, x):
    return jax.jit(functools.partial(layer.apply, train=False))(params, {}, x)[0]


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def weights(size, channels, features, groups=1):
    return {"kernel": draw(*size, channels // groups, features), "bias": draw(features)}


def expected(params, x, stride, padding, dilation, groups=1, mode="zeros"):
    rank = x.ndim - 2
    size, stride, dilation = params["kernel"].shape[:rank], oracle.each(stride, rank), oracle.each(dilation, rank)
    pads = oracle.padding_pairs(padding, x.shape[1:-1], size, stride, dilation)
    return oracle.conv(x, params["kernel"], stride, pads, dilation, groups, mode) + params["bias"].astype(np.float64)


def check_conv(x, features, size, *, stride=1, padding="SAME", dilation=1, groups=1, mode="zeros"):
    params = weights(oracle.each(size, x.ndim - 2), x.shape[-1], features, groups)
    layer = jaxcnn.conv(
        features, size, stride=stride, padding=padding, padding_mode=mode, dilation=dilation, groups=groups
    )
    oracle.assert_close(run(layer, params, x), expected(params, x, stride, padding, dilation, groups, mode))


def grid():
    groups = itertools.cycle((1, 2, 4))
    for rank in SPATIAL:
        for stride, padding, dilation in itertools.product(STRIDES[rank], PADDINGS[rank], (1, 2)):
            yield rank, stride, padding, dilation, next(groups)


@pytest.mark.sample(6)
@pytest.mark.parametrize(("rank", "stride", "padding", "dilation", "groups"), list(grid()))
def test_conv_is_the_loops(rank, stride, padding, dilation, groups):
    x = draw(2, *SPATIAL[rank], 4)
    if rank == 3 and dilation == 2:
        dilation = (2, 1, 2)
    check_conv(x, 8, SIZE[rank], stride=stride, padding=padding, dilation=dilation, groups=groups)


def modes():
    options = itertools.cycle(itertools.product((1, 2), (1, 2)))
    for rank in SPATIAL:
        for mode, padding in itertools.product(("reflect", "replicate", "circular"), PADDINGS[rank]):
            yield rank, mode, padding, *next(options)


@pytest.mark.sample(6)
@pytest.mark.parametrize(("rank", "mode", "padding", "stride", "dilation"), list(modes()))
def test_padding_modes(rank, mode, padding, stride, dilation):
    if rank == 3:
        dilation = 1
    check_conv(draw(2, *SPATIAL[rank], 2), 3, SIZE[rank], stride=stride, padding=padding, dilation=dilation, mode=mode)


@pytest.mark.parametrize(
    ("spatial", "size", "options"),
    [
        ((8,), 4, {"stride": 2}),
        ((8,), 4, {"padding": "SAME_LOWER"}),
        ((6,), 6, {"padding": "VALID"}),
        ((5,), 1, {"stride": 3}),
        ((3,), 5, {"dilation": 2}),
        ((4, 8), (2, 4), {"stride": (3, 1)}),
        ((4, 8), (2, 4), {"dilation": (3, 2), "padding": "SAME_LOWER"}),
        ((5, 3), (5, 3), {"padding": "VALID"}),
        ((5, 3), (5, 3), {}),
        ((2, 9), (1, 5), {"dilation": (1, 2), "padding": "VALID"}),
        ((7, 7), 1, {"stride": 2}),
        ((1, 1), 3, {}),
        ((4, 4), 2, {"stride": 4}),
        ((2, 2), 3, {"padding": 3, "mode": "circular"}),
        ((3, 2), 3, {"padding": 4, "mode": "reflect"}),
        ((2, 3, 4), (2, 3, 4), {"padding": "VALID"}),
        ((3, 2, 4), 2, {"stride": 2, "padding": "SAME_LOWER"}),
    ],
)
def test_sizes_at_the_edge(spatial, size, options):
    check_conv(draw(2, *spatial, 2), 3, size, **options)


def test_padding_names_in_any_case():
    x, params = draw(1, 6, 2), weights((3,), 2, 3)
    oracle.assert_close(run(jaxcnn.conv(3, padding="causal"), params, x), expected(params, x, 1, "CAUSAL", 1))


@pytest.mark.parametrize(("features", "groups"), [(4, 1), (6, 2), (12, 4), (4, 4), (8, 4)])
def test_groups_do_not_see_each_other(features, groups):
    x = draw(1, 5, 6, 4)
    check_conv(x, features, 3, groups=groups)
    layer, params = jaxcnn.conv(features, 3, groups=groups), weights((3, 3), 4, features, groups)
    other = x.copy()
    other[..., : 4 // groups] += 1
    changed = (run(layer, params, x) != run(layer, params, other)).any((0, 1, 2))
    np.testing.assert_array_equal(changed, np.arange(features) < features // groups)


@pytest.mark.parametrize("bias", [True, False])
def test_bias(bias):
    x, params = draw(1, 4, 2), weights((3,), 2, 3)
    y = run(jaxcnn.conv(3, bias=bias), params if bias else {"kernel": params["kernel"]}, x)
    oracle.assert_close(y, expected(params if bias else params | {"bias": np.zeros(3)}, x, 1, "SAME", 1))


@pytest.mark.parametrize(
    ("spatial", "multiplier", "options"),
    [
        ((7,), 1, {"padding": "CAUSAL", "dilation": 2}),
        ((7,), 3, {"stride": 2}),
        ((6, 5), 1, {}),
        ((6, 5), 2, {"stride": 2, "padding": "VALID"}),
        ((6, 5), 2, {"padding": ((1, 2), (0, 1)), "padding_mode": "reflect"}),
        ((4, 3, 5), 2, {"dilation": (2, 1, 1), "padding": "SAME_LOWER"}),
    ],
)
def test_depthwise(spatial, multiplier, options):
    x, rank, channels = draw(2, *spatial, 3), len(spatial), 3 * multiplier
    params = {"kernel": draw(*(3,) * rank, 1, channels), "bias": draw(channels)}
    y = run(jaxcnn.depthwise_conv(3, multiplier=multiplier, **options), params, x)
    want = [options.get(name, default) for name, default in (("stride", 1), ("padding", "SAME"), ("dilation", 1))]
    oracle.assert_close(y, expected(params, x, *want, 3, options.get("padding_mode", "zeros")))
    for c in range(3):  # output c * multiplier + m is made of input channel c alone
        own = slice(c * multiplier, (c + 1) * multiplier)
        part = {"kernel": params["kernel"][..., own], "bias": params["bias"][own]}
        oracle.assert_close(
            y[..., own], expected(part, x[..., c : c + 1], *want, 1, options.get("padding_mode", "zeros"))
        )


@pytest.mark.parametrize(
    ("spatial", "options"),
    [
        ((8,), {"multiplier": 2}),
        ((6, 5), {"stride": 2}),
        ((4, 4, 3), {"dilation": 2, "bias": False}),
        ((6, 5), {"padding": ((1, 2), (0, 1)), "padding_mode": "reflect"}),
        ((6, 5), {"padding": "VALID"}),
    ],
)
def test_separable(spatial, options):
    x, rank, inner = draw(2, *spatial, 3), len(spatial), 3 * options.get("multiplier", 1)
    params = {
        "depthwise": {"kernel": draw(*(3,) * rank, 1, inner)},
        "pointwise": {"kernel": draw(*(1,) * rank, inner, 4), "bias": draw(4)},
    }
    bias = params["pointwise"]["bias"]
    if not options.get("bias", True):
        bias = np.zeros(4)
        del params["pointwise"]["bias"]
    depth = params["depthwise"] | {"bias": np.zeros(inner)}
    want = [options.get(name, default) for name, default in (("stride", 1), ("padding", "SAME"), ("dilation", 1))]
    middle = expected(depth, x, *want, 3, options.get("padding_mode", "zeros"))
    point = params["pointwise"]["kernel"].reshape(inner, 4)
    oracle.assert_close(run(jaxcnn.separable_conv(4, **options), params, x), middle @ point.astype(np.float64) + bias)


def crops(padding, spatial, size, stride, dilation):
    """What conv_transpose cuts off: for a name, what `conv` adds to the input of length stride * n, and then all
    that is too long at the end."""
    if not isinstance(padding, str) or padding == "VALID":
        return oracle.padding_pairs(padding, spatial, size, stride, dilation)
    pairs = []
    for n, k, s, d in zip(spatial, size, stride, dilation, strict=True):
        low = 0 if padding == "CAUSAL" else oracle.padding_pairs(padding, (n * s,), (k,), (s,), (d,))[0][0]
        pairs.append((low, (n - 1) * s + d * (k - 1) + 1 - n * s - low))
    return pairs


def transposed_cases():
    groups = itertools.cycle((1, 2))
    for rank, spatial in ((1, (5,)), (2, (4, 3)), (3, (2, 3, 2))):
        asymmetric = tuple((i % 2, (i + 1) % 2) for i in range(rank))
        paddings = ("SAME", "SAME_LOWER", "VALID", 1, (0, 1, 1)[:rank], asymmetric, *(("CAUSAL",) if rank == 1 else ()))
        for stride, padding in itertools.product((1, 2, 3, (2, 1, 3)[:rank]), paddings):
            yield spatial, 3, {"stride": stride, "padding": padding, "groups": next(groups)}
    for spatial, size, options in (
        ((5,), 2, {"stride": 2}),
        ((5,), 4, {"stride": 2, "padding": "SAME_LOWER"}),
        ((5,), 4, {"dilation": 2, "padding": "CAUSAL"}),
        ((5,), 5, {"stride": 2, "padding": "CAUSAL"}),
        ((5,), 2, {"stride": 3}),
        ((5,), 1, {"stride": 3, "padding": "SAME_LOWER"}),
        ((4,), 3, {"stride": 3, "padding": 1, "output_padding": 2}),
        ((4, 3), (2, 4), {"stride": (2, 1), "dilation": (3, 1)}),
        ((4, 3), (3, 2), {"stride": 2, "padding": ((1, 0), (0, 1)), "output_padding": (1, 0), "groups": 2}),
        ((4, 3), 3, {"stride": 2, "padding": 1, "output_padding": 1, "groups": 4, "dilation": 2}),
        ((4, 3), 1, {"stride": 2, "padding": "VALID"}),
        ((2, 3, 2), 2, {"stride": 2, "dilation": 2, "output_padding": (1, 0, 1), "padding": 1}),
    ):
        yield spatial, size, options


@pytest.mark.sample(6)
@pytest.mark.parametrize(("spatial", "size", "options"), list(transposed_cases()))
def test_conv_transpose_is_the_loops(spatial, size, options):
    x, rank, groups = draw(2, *spatial, 4), len(spatial), options.get("groups", 1)
    params = weights(oracle.each(size, rank), 4, 8, groups)
    stride, dilation, more = (
        oracle.each(options.get(name, default), rank)
        for name, default in (("stride", 1), ("dilation", 1), ("output_padding", 0))
    )
    pads = crops(options.get("padding", "SAME"), spatial, oracle.each(size, rank), stride, dilation)
    want = oracle.conv_transpose(x, params["kernel"], stride, pads, dilation, groups, more) + params["bias"]
    if options.get("padding", "SAME") in ("SAME", "SAME_LOWER", "CAUSAL"):
        assert want.shape[1:-1] == tuple(s * n for s, n in zip(stride, spatial, strict=True))
    oracle.assert_close(run(jaxcnn.conv_transpose(8, size, **options), params, x), want)


@pytest.mark.sample(6)
@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID", 1, ((1, 0), (0, 2))])
@pytest.mark.parametrize(
    ("size", "stride", "dilation", "groups"), [(3, 1, 1, 1), (4, 2, 1, 2), (3, 2, 2, 2), (2, 3, 1, 1)]
)
def test_conv_transpose_is_the_transpose_of_conv(padding, size, stride, dilation, groups):
    x, kernel = draw(2, 6, 12, 4), draw(size, size, 4 // groups, 6)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": False}
    y, pull = jax.vjp(lambda x: run(jaxcnn.conv(6, size, **options), {"kernel": kernel}, x), x)
    dy = draw(*y.shape, seed=1)
    backwards = kernel.reshape(size, size, 4 // groups, groups, 6 // groups).transpose(0, 1, 4, 3, 2)
    backwards = backwards.reshape(size, size, 6 // groups, 4)
    missing = (0, 0)  # what a stride left over at the end of x
    if padding not in ("SAME", "SAME_LOWER"):
        shape = jax.eval_shape(
            jaxcnn.conv_transpose(4, size, **options).apply, {"kernel": backwards}, {}, dy, train=False
        )[0].shape
        missing = tuple(n - m for n, m in zip(x.shape[1:-1], shape[1:-1], strict=True))
    layer = jaxcnn.conv_transpose(4, size, **options, output_padding=missing)
    oracle.assert_close(run(layer, {"kernel": backwards}, dy), pull(dy)[0])


def test_edge_detector():
    step = np.tile(np.float32([10, 10, 10, 0, 0, 0]), (6, 1))
    edge = np.float32([[1, 0, -1]] * 3).reshape(3, 3, 1, 1)
    layer = jaxcnn.conv(1, 3, padding="VALID", bias=False)
    y = run(layer, {"kernel": edge}, step.reshape(1, 6, 6, 1))
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 30, 30, 0]] * 4)
    np.testing.assert_array_equal(run(layer, {"kernel": edge}, step.T.reshape(1, 6, 6, 1)), np.zeros((1, 4, 4, 1)))


@pytest.mark.parametrize(
    ("layer", "weights"),
    [
        (jaxcnn.conv(1, 5, bias=False), 75),
        (jaxcnn.conv(10, 5), 10 * 75 + 10),
        (jaxcnn.serial(jaxcnn.flatten, jaxcnn.dense(100, bias=False)), 3_000_000),
        (jaxcnn.depthwise_conv(5, bias=False), 75),
        (jaxcnn.depthwise_conv(5, multiplier=2), 150 + 6),
        (jaxcnn.separable_conv(10, 5), 75 + 30 + 10),
        (jaxcnn.conv(6, 5, groups=3, bias=False), 150),
        (jaxcnn.conv_transpose(6, 5, groups=3, bias=False), 150),
    ],
)
def test_parameter_sharing(layer, weights):
    image = jax.ShapeDtypeStruct((1, 100, 100, 3), jnp.float32)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), image)
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == weights
    assert state == {}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_of_size_1_is_dense_at_every_position(rank):
    x, params = draw(2, *SPATIAL[rank], 3), {"kernel": draw(3, 5), "bias": draw(5)}
    pointwise = params | {"kernel": params["kernel"].reshape(*(1,) * rank, 3, 5)}
    oracle.assert_close(run(jaxcnn.conv(5, 1), pointwise, x), run(jaxcnn.dense(5), params, x))
    oracle.assert_close(run(jaxcnn.dense(5), params, x), x.astype(np.float64) @ params["kernel"] + params["bias"])


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1)])
def test_translation_equivariance(stride, dilation):
    x, params = draw(1, 8, 6, 2), weights((3, 3), 2, 3)
    pads = (dilation, dilation + 1 - stride)
    layer = jaxcnn.conv(3, stride=stride, padding=(pads, pads), padding_mode="circular", dilation=dilation)
    forward = jax.jit(functools.partial(layer.apply, train=False))
    y = forward(params, {}, x)[0]
    for shift in ((1, 0), (0, 1), (3, 2), (-1, 4)):
        moved = forward(params, {}, np.roll(x, [stride * s for s in shift], (1, 2)))[0]
        oracle.assert_close(moved, np.roll(y, shift, (1, 2)), 1e-6)


def test_causal_output_sees_no_later_input():
    x, layer = draw(1, 8, 2), jaxcnn.conv(3, 3, padding="CAUSAL", dilation=2)
    jacobian = jax.jacobian(lambda x: run(layer, weights((3,), 2, 3), x)[0])(x)[:, :, 0]
    sees = np.abs(jacobian).max((1, 3)) > 0  # (output, input)
    after = np.arange(8)[:, None] - np.arange(8)
    np.testing.assert_array_equal(sees, np.isin(after, (0, 2, 4)))


GRADIENTS = {
    "conv": (jaxcnn.conv(2, 3, stride=2, dilation=2, padding=((1, 3), (2, 0))), (5, 4), (3, 3, 2, 2)),
    "conv-groups-reflect": (jaxcnn.conv(4, 2, groups=2, padding_mode="reflect"), (5,), (2, 1, 4)),
    "conv-circular-3d": (jaxcnn.conv(2, 2, padding_mode="circular"), (2, 3, 2), (2, 2, 2, 2, 2)),
    "depthwise-replicate": (jaxcnn.depthwise_conv(3, multiplier=2, padding_mode="replicate"), (4, 3), (3, 3, 1, 4)),
    "transposed": (jaxcnn.conv_transpose(4, 3, stride=2, groups=2, output_padding=1), (3, 2), (3, 3, 1, 4)),
    "transposed-dilated": (jaxcnn.conv_transpose(2, 2, stride=2, dilation=3, padding=1), (4,), (2, 2, 2)),
}


@pytest.mark.sample(6, 2)
@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.usefixtures("quick_compilation")
def test_gradients(name):
    layer, spatial, kernel = GRADIENTS[name]
    with jax.enable_x64(True):
        params = {leaf: draw(*shape).astype(np.float64) for leaf, shape in (("kernel", kernel), ("bias", kernel[-1:]))}
        f = lambda params, x: jnp.square(layer.apply(params, {}, x, train=False)[0])
        check_grads(f, (params, draw(2, *spatial, 2).astype(np.float64)), order=2, modes=("fwd", "rev"))


SMALL = {
    "conv": (jaxcnn.conv(4, stride=2, groups=2), (3, 3, 1, 4)),
    "reflect": (jaxcnn.conv(4, padding_mode="reflect"), (3, 3, 2, 4)),
    "depthwise": (jaxcnn.depthwise_conv(3, multiplier=2), (3, 3, 1, 4)),
    "transposed": (jaxcnn.conv_transpose(4, stride=2), (3, 3, 2, 4)),
}


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_is_close_to_float32(name):
    layer, kernel = SMALL[name]
    x, params = draw(2, 6, 6, 2), {"kernel": draw(*kernel), "bias": draw(kernel[-1])}
    y = run(layer, params, jnp.asarray(x, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    oracle.assert_close(y, run(layer, params, x), 2e-2)


@pytest.mark.parametrize("name", SMALL)
def test_batch_of_any_size(name):
    layer, kernel = SMALL[name]
    x, params = draw(5, 6, 6, 2), {"kernel": draw(*kernel), "bias": draw(kernel[-1])}
    y = run(layer, params, x)
    oracle.assert_close(run(layer, params, x[3:4]), y[3:4], 1e-6)
    assert run(layer, params, x[:0]).shape == (0, *y.shape[1:])


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))
    groups = draw(st.sampled_from((1, 2)))
    names = ("SAME", "SAME_LOWER", "VALID", *(("CAUSAL",) if rank == 1 else ()))
    pairs = st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * rank)
    return {
        "spatial": each(1, 8 - 2 * rank + 2),
        "channels": groups * draw(st.integers(1, 2)),
        "features": groups * draw(st.integers(1, 2)),
        "size": each(1, 3),
        "stride": each(1, 3),
        "dilation": each(1, 2),
        "groups": groups,
        "padding": draw(st.sampled_from(names) | st.integers(0, 2) | pairs),
        "mode": draw(st.sampled_from(("zeros", "reflect", "replicate", "circular"))),
    }


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)
@hypothesis.given(convolutions())
def test_any_convolution(case):
    x = draw(2, *case.pop("spatial"), case.pop("channels"))
    pads = oracle.padding_pairs(case["padding"], x.shape[1:-1], case["size"], case["stride"], case["dilation"])
    options = zip(x.shape[1:-1], case["size"], case["stride"], pads, case["dilation"], strict=True)
    if all(oracle.first_taps(*of_dimension) for of_dimension in options):
        check_conv(x, **case)
    else:
        with pytest.raises(ValueError, match="larger than the input"):
            check_conv(x, **case)


def test_transposed_convolution_whose_output_is_only_output_padding():
    layer = jaxcnn.conv_transpose(1, 2, stride=2, padding=1, output_padding=1)
    x = jnp.ones((1, 1, 1))
    assert layer.apply(*layer.init(jax.random.key(0), x), x, train=False)[0].shape == (1, 1, 1)


@pytest.mark.parametrize(("shape", "features"), [((1, 12, 12, 256), 256), ((1, 6, 6, 6, 64), 64)])
def test_many_channels_in_float64(shape, features):
    """Winograd's algorithm, whose bounds are sums in the dtype of the input."""
    with jax.enable_x64(True):
        x = draw(*shape).astype(np.float64)
        kernel = draw(*(3,) * (len(shape) - 2), shape[-1], features).astype(np.float64)
        y = jax.jit(lambda x: run(jaxcnn.conv(features, 3, bias=False), {"kernel": kernel}, x))(x)
        first = x[(0, *(slice(3),) * (x.ndim - 2))]
        np.testing.assert_allclose(y[(0, *(1,) * (x.ndim - 2))], np.tensordot(first, kernel, x.ndim - 1), 1e-10, 1e-10)


@pytest.mark.parametrize("size", [1, 2])
def test_gradient_of_patches_of_an_empty_batch(size):
    layer = jaxcnn.conv(16, size, stride=size, padding="VALID")
    x = jnp.zeros((0, 8, 8, 3))
    params, _ = layer.init(jax.random.key(0), x)
    gradient = jax.grad(lambda params: run(layer, params, x).sum())(params)
    np.testing.assert_array_equal(gradient["kernel"], np.zeros((size, size, 3, 16)))


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (jaxcnn.conv, 1),
        (jaxcnn.conv_transpose, 1),
        (jaxcnn.dense, 1),
        (jaxcnn.separable_conv, 2),
        (lambda features, **inits: jaxcnn.depthwise_conv(**inits), 1),
    ],
    ids=["conv", "conv_transpose", "dense", "separable_conv", "depthwise_conv"],
)
def test_initializers_of_ones_own(make, count):
    constant = jax.nn.initializers.constant
    layer = make(4, kernel_init=constant(2.0), bias_init=constant(3.0))
    params, _ = layer.init(jax.random.key(0), jnp.zeros((1, 5, 5, 4)))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    assert len(leaves) == count + 1
    for path, leaf in leaves:
        np.testing.assert_array_equal(leaf, 3 if path[-1].key == "bias" else 2)
