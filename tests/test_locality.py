"""No output depends on values outside its window: a NaN, infinity or outlier only affects windows that contain it.

The oracle is a float64 sum over taps that skips the padding. For some shapes, plain `lax` multiplies the zeros of the
padding by the kernel. Where this gives an additional NaN, the tests allow one, too.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn._lowering import _conv, _lax, _problem, _rules, _winograd, window_max, window_min
from jaxcnn._lowering._channels import channel_moments, channel_sum
from jaxcnn._window import Window

pytestmark = pytest.mark.slow

BAD = [np.nan, np.inf, -np.inf, 1e8, 1e30]


@pytest.fixture(autouse=True)
def use_winograd_from_128_channels(monkeypatch):
    """Lower the limit, so that the oracle computes fewer channels."""
    monkeypatch.setattr(_winograd, "_MIN_CHANNELS", 128)


class Conv(NamedTuple):
    """A convolution and the rules that it must use, as (operation, name)."""

    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    uses: tuple = ()
    stride: int = 1
    pad: tuple = (1, 1)  # of each dimension, or one pair per dimension
    lhs_dilation: int = 1
    dilation: int = 1
    groups: int = 1
    dtype: str = "float32"

    @property
    def window(self) -> Window:
        each = lambda value: (value,) * (len(self.x) - 2)
        pad = self.pad if isinstance(self.pad[0], tuple) else each(self.pad)
        return Window(self.w[:-2], each(self.stride), each(self.dilation), pad, each(self.lhs_dilation))

    @property
    def problem(self) -> _problem.Problem:
        x, w = jax.ShapeDtypeStruct(self.x, self.dtype), jax.ShapeDtypeStruct(self.w, self.dtype)
        return _problem.forward(x, w, self.window, self.groups)


WINOGRAD, GROUPED, GROUPED_KERNEL = ("forward", "winograd"), ("forward", "grouped"), ("kernel gradient", "grouped")
DIRECT, BY_POSITION, PHASES = ("forward", "direct"), ("kernel gradient", "by position"), ("input gradient", "phases")
BY_ROW, COL2IM, IM2COL = ("kernel gradient", "by row"), ("input gradient", "col2im"), ("forward", "im2col")
SLICES, POINTWISE = ("forward", "depth slices"), ("forward", "pointwise")

CONVOLUTIONS = [
    Conv("winograd", (4, 12, 11, 128), (3, 3, 128, 128), (WINOGRAD,)),
    Conv("winograd dilated", (4, 12, 12, 128), (3, 3, 128, 128), (WINOGRAD,), pad=(2, 2), dilation=2),
    Conv("winograd 1-D", (8, 70, 128), (3, 128, 128), (WINOGRAD,)),
    Conv("winograd bfloat16", (4, 12, 12, 128), (3, 3, 128, 128), (WINOGRAD,), dtype="bfloat16"),
    Conv("winograd 3-D", (1, 4, 12, 12, 128), (2, 3, 3, 128, 128), (WINOGRAD, SLICES), pad=(1, 0)),
    Conv("winograd along depth", (1, 4, 6, 5, 32), (3, 3, 3, 32, 32), (WINOGRAD, SLICES)),
    Conv("depth slices of few channels", (1, 3, 6, 5, 3), (3, 7, 7, 3, 16), (SLICES,), pad=(3, 3)),
    Conv("winograd in groups", (8, 65, 256), (3, 128, 256), (WINOGRAD, GROUPED), groups=2),
    Conv("plain", (2, 9, 8, 32), (3, 3, 32, 32), ()),
    Conv("strided", (2, 9, 8, 24), (3, 3, 24, 32), (COL2IM,), stride=2),
    Conv("strided 5x5", (2, 9, 8, 16), (5, 5, 16, 24), (), stride=2, pad=(2, 1)),
    Conv("transposed", (2, 5, 6, 20), (4, 4, 20, 24), (), lhs_dilation=2, pad=(2, 2)),
    Conv("few channels", (16, 12, 14, 8), (3, 3, 8, 32), (DIRECT, BY_POSITION, COL2IM), pad=(0, 0)),
    Conv("few channels bfloat16", (16, 12, 14, 8), (3, 3, 8, 32), (DIRECT, BY_POSITION), dtype="bfloat16"),
    Conv("signals", (40, 210, 5), (9, 5, 20), (DIRECT, BY_POSITION, COL2IM), pad=(0, 3), stride=2),
    Conv("small", (2, 2, 2, 32), (3, 3, 32, 32), (IM2COL,)),
    Conv("pointwise", (2, 5, 5, 32), (1, 1, 32, 24), (POINTWISE,), pad=(0, 0), stride=2),
    Conv("volumes", (1, 5, 6, 6, 20), (3, 3, 3, 20, 24), (SLICES,)),
    Conv("groups", (2, 9, 9, 32), (3, 3, 8, 32), (GROUPED, GROUPED_KERNEL), groups=4),
    Conv("groups strided", (2, 9, 9, 32), (3, 3, 8, 64), (GROUPED,), stride=2, groups=4),
    Conv("groups bfloat16", (2, 9, 9, 32), (3, 3, 8, 32), (GROUPED,), groups=4, dtype="bfloat16"),
    Conv("groups in a loop", (1, 5, 5, 320), (1, 3, 16, 320), (GROUPED,), groups=20),
    Conv("depthwise", (2, 8, 9, 16), (3, 3, 1, 16), (DIRECT, BY_ROW), groups=16),
    Conv("depthwise wide", (1, 3, 67, 8), (1, 3, 1, 8), (DIRECT, BY_ROW), groups=8, pad=(0, 0)),
    Conv("depthwise strided", (2, 8, 9, 16), (3, 3, 1, 16), (DIRECT, BY_ROW, PHASES), stride=2, groups=16),
    Conv("depthwise 5x5 strided", (2, 8, 9, 16), (5, 5, 1, 16), (PHASES,), stride=2, pad=(2, 2), groups=16),
    Conv("depthwise 9x9", (2, 9, 9, 8), (9, 9, 1, 8), (), pad=(4, 4), groups=8),
    Conv("few channels in groups", (2, 8, 9, 24), (3, 3, 3, 16), (DIRECT, BY_ROW), groups=8),
]


def algorithms(conv, plain):
    """(x, w, dy) -> {"y", "dx", "dw"}, in one program."""
    window, groups, spatial, problem = conv.window, conv.groups, conv.x[1:-1], conv.problem
    if plain:
        return jax.jit(
            lambda x, w, dy: {
                "y": _lax.forward(x, w, problem),
                "dx": _lax.input_gradient(dy, w, problem),
                "dw": gradient_by_group(x, dy, problem),
            }
        )
    return jax.jit(
        lambda x, w, dy: {
            "y": _conv._forward.bind(x, w, window=window, groups=groups),
            "dx": _conv._input_gradient.bind(dy, w, window=window, groups=groups, spatial=spatial),
            "dw": _conv._kernel_gradient.bind(x, dy, window=window, groups=groups),
        }
    )


def gradient_by_group(x, dy, problem):
    """The kernel gradient in plain `lax`, one group at a time. A NaN would spread across groups otherwise."""
    if problem.groups == x.shape[-1]:
        return _lax.kernel_gradient(x, dy, problem)
    groups = zip(jnp.split(x, problem.groups, -1), jnp.split(dy, problem.groups, -1), strict=True)
    gradient = lambda x, dy: _lax.kernel_gradient(x, dy, _problem.kernel_gradient(x, dy, problem.window, 1))
    return jnp.concatenate([gradient(*group) for group in groups], -1)


def output(conv):
    return (conv.x[0], *conv.problem.output, conv.w[-1])


def tap_indices(conv, tap):
    """Indices of the outputs and inputs that a tap of the kernel connects, without padding."""
    outs, ins = [], []
    for n, o, k, s, d, (low, _), b in zip(conv.x[1:-1], output(conv)[1:-1], tap, *conv.window[1:], strict=True):
        at = [(i, s * i + d * k - low) for i in range(o)]
        pairs = [(i, a // b) for i, a in at if a % b == 0 and 0 <= a // b < n]
        outs.append([i for i, _ in pairs])
        ins.append([a for _, a in pairs])
    return (slice(None), *np.ix_(*outs)), (slice(None), *np.ix_(*ins))


def oracle(conv, name, x, w, dy):
    """y, dx or dw as sums of products in float64, tap by tap and group by group."""
    split = lambda a: a.reshape(*a.shape[:-1], conv.groups, -1)
    x, dy, w = split(x), split(dy), split(w)  # (.., groups, channels of a group)
    result = np.zeros_like({"y": dy, "dx": x, "dw": w}[name])
    with np.errstate(invalid="ignore"):
        for tap in np.ndindex(conv.w[:-2]):
            outs, ins = tap_indices(conv, tap)
            for group in range(conv.groups):
                kernel = w[(*tap, slice(None), group)]
                if name == "y":
                    result[..., group, :][outs] += x[..., group, :][ins] @ kernel
                elif name == "dx":
                    result[..., group, :][ins] += dy[..., group, :][outs] @ kernel.T
                else:
                    inputs, cotangents = x[..., group, :][ins], dy[..., group, :][outs]
                    inputs, cotangents = (a.reshape(-1, a.shape[-1]) for a in (inputs, cotangents))
                    result[(*tap, slice(None), group)] = inputs.T @ cotangents
    return result.reshape(*result.shape[:-2], -1)


def select_features(conv, name, a):
    """Select a few features of a wide result, to reduce the work of the oracle."""
    if conv.groups > 1 or min(conv.w[-2:]) <= 64:
        return a
    few = [0, 1, -1]
    return {"y": lambda: a[..., few], "dx": lambda: a[..., few], "dw": lambda: a[..., few, :][..., few]}[name]()


def select_arguments(conv, name, x, w, dy):
    """The arguments of the oracle for the result of `select_features`."""
    if conv.groups > 1 or min(conv.w[-2:]) <= 64:
        return x, w, dy
    few = [0, 1, -1]
    if name == "y":
        return x, w[..., few], dy[..., few]
    if name == "dx":
        return x[..., few], w[..., few, :], dy
    return x[..., few], w[..., few, :][..., few], dy[..., few]


@pytest.mark.sample(2)
@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=lambda conv: conv.name)
def test_convolution(conv, monkeypatch):
    assert check_locality(conv, monkeypatch) >= set(conv.uses)


def check_locality(conv, monkeypatch):
    """Compare y, dx and dw with the oracle, with one value that is not finite. Returns the rules that were used."""
    used = record_rules(monkeypatch)
    rng = np.random.default_rng(0)
    sizes = {"x": conv.x, "w": conv.w, "dy": output(conv)}
    clean = {name: rng.normal(size=size).astype(conv.dtype) for name, size in sizes.items()}
    fast, plain = algorithms(conv, False), algorithms(conv, True)
    fast.lower(**clean)
    for poisoned, size in sizes.items():
        first, last = (-1, *(0 for _ in size[1:-1]), -1), (-1,) * len(size)
        middle = (0, *(n // 2 for n in size[1:-1]), 0)
        places = (middle, first, last, middle, first, last, middle)
        for bad, place in zip([*BAD, np.nan, np.inf], places, strict=True):
            args = {name: a.copy() for name, a in clean.items()}
            args[poisoned][place] = bad
            ours, lax = fast(**args), plain(**args)
            for name in {"x": ("y", "dw"), "w": ("y", "dx"), "dy": ("dx", "dw")}[poisoned]:
                compare(conv, name, poisoned, args, ours[name], lax[name])
    return used


def test_padding_longer_than_the_window():
    """The gradient crops dy at the start and pads it at the end. XLA's own gradient reads out of bounds here."""
    window = Window((2,), (1,), (1,), ((2, 0),), (2,))
    rng = np.random.default_rng(0)
    w, dy = rng.normal(size=(2, 32, 16)).astype(np.float32), rng.normal(size=(5, 18, 16)).astype(np.float32)
    dx = jax.jit(lambda dy, w: _conv._input_gradient.bind(dy, w, window=window, groups=1, spatial=(9,)))(dy, w)
    exact = oracle(Conv("", (5, 9, 32), w.shape, pad=(2, 0), lhs_dilation=2), "dx", np.zeros((5, 9, 32)), w, dy)
    np.testing.assert_allclose(dx, exact, atol=1e-4)


def record_rules(monkeypatch):
    """A set that collects the rules chosen after this call, as (operation, name)."""
    used, choose = set(), _rules.choose

    def choose_and_record(problem, exclude=(), backend="cpu"):
        rule = choose(problem, exclude, backend)
        used.add((problem.operation, rule.name))
        return rule

    monkeypatch.setattr(_rules, "choose", choose_and_record)
    return used


def compare(conv, name, poisoned, args, ours, lax):
    """Check NaN and infinite outputs against the oracle, and errors relative to the sum of magnitudes of an output."""
    wide = {key: np.asarray(a, np.float64) for key, a in args.items()}
    wide = dict(zip(wide, select_arguments(conv, name, **wide), strict=True))
    exact = oracle(conv, name, **wide)
    ours, lax = (select_features(conv, name, np.asarray(a, np.float64)) for a in (ours, lax))
    nan = np.isnan(ours)
    assert (nan >= np.isnan(exact)).all()
    allowed = np.isnan(exact) | np.isnan(lax)
    if name == "dw":  # for some shapes, an infinite dy at the padding gives NaN, but only in its own feature
        allowed |= ~np.isfinite(wide["dy"]).all(tuple(range(wide["dy"].ndim - 1)))
    assert (nan <= allowed).all()
    infinite = np.isinf(exact) & ~nan
    np.testing.assert_array_equal(ours[infinite], exact[infinite])
    finite = np.isfinite(exact) & ~nan
    sizes = {key: np.abs(a) for key, a in wide.items()}
    if WINOGRAD in conv.uses and poisoned != "w":  # its sums contain all taps along a dimension
        sizes["w"] = np.broadcast_to(sizes["w"].max(tuple(range(len(conv.w) - 2))), sizes["w"].shape)
    scale = oracle(conv, name, **sizes)
    tolerance = 2e-2 if conv.dtype == "bfloat16" else 5e-6
    excess = np.abs(ours[finite] - exact[finite]) / scale[finite].clip(1e-30)
    assert excess.max(initial=0) <= tolerance, (name, poisoned, excess.max())


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100))
def test_random_convolutions(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    rank, groups = rng.integers(1, 4), rng.choice([1, 1, 2, 4, 9])
    draw = lambda low, high: tuple(int(n) for n in rng.integers(low, high, rank))
    channels, features = (int(rng.choice([1, 3, 16, 32] if groups > 1 else [1, 3, 16, 32, 128])) for _ in range(2))
    size, dilation = draw(1, 5), int(rng.integers(1, 3))
    spatial = (max(n, dilation * (k - 1) + 1) for n, k in zip(draw(2, 14), size, strict=True))
    conv = Conv(
        "random",
        (int(rng.integers(1, 9)), *spatial, int(channels * groups)),
        (*size, channels, int(features * groups)),
        stride=int(rng.integers(1, 4)),
        pad=tuple(min(int(n), dilation * (min(size) - 1)) for n in rng.integers(0, 3, 2)),
        lhs_dilation=int(rng.integers(1, 3)),
        dilation=dilation,
        groups=int(groups),
        dtype=str(rng.choice(["float32", "bfloat16"])),
    )
    test_convolution(conv, monkeypatch)


PADDED_3X3 = Window((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (1, 1))


@pytest.mark.parametrize("features", [64, 128, 256])
def test_outlier_of_a_trained_network(features):
    """A 3x3 kernel on 16 x 16: an outlier affects nine outputs of each feature and no others."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 3, features, features)).astype(np.float32) / np.float32(3 * features**0.5)
    clean = rng.normal(size=(4, 16, 16, features)).astype(np.float32)
    problem = _problem.forward(clean, w, PADDED_3X3, 1)
    assert (_rules.choose(problem).name == "winograd") == (features >= 128)
    model = cnn.conv(features, 3, bias=False)
    apply = jax.jit(lambda x: model.apply({"kernel": w}, {}, x, train=False)[0])
    exact = np.asarray(jax.jit(functools.partial(_lax.forward, problem=problem))(clean, w))
    near = np.zeros(exact.shape, bool)
    near[0, 7:10, 7:10] = True
    for bad in (np.nan, np.inf, -np.inf, 1e2, 1e4, 1e6, 1e8, 1e30):
        x = clean.copy()
        x[0, 8, 8, 0] = bad
        y = np.asarray(apply(x))
        np.testing.assert_array_equal(np.isnan(y), near & np.isnan(bad))
        np.testing.assert_array_equal(np.isinf(y), near & np.isinf(bad))
        assert np.abs(y - exact)[~near].max() <= 2e-6 * np.abs(exact).max()
    huge = clean * np.float32(2e37)
    assert np.isfinite(apply(huge)).all()


def test_groups_are_independent():
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(3, 3, 8, 32)).astype(np.float32), rng.normal(size=(1, 9, 9, 32)).astype(np.float32)
    x[0, 4, 4, 0] = np.nan
    y, _ = cnn.conv(32, 3, groups=4, bias=False).apply({"kernel": w}, {}, x, train=False)
    np.testing.assert_array_equal(np.isnan(y).any((0, 1, 2)), np.arange(32) < 8)
    np.testing.assert_array_equal(np.isnan(y).any((0, 3))[3:6, 3:6], True)
    assert np.isnan(y).sum() == 9 * 8


def test_large_weight_only_affects_its_tap():
    """Outputs at the edge, where the tap of the large weight covers only padding, are free of its rounding errors."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 12, 12, 128)).astype(np.float32), rng.normal(size=(3, 3, 128, 128)).astype(np.float32)
    w[0, 0, 0, 0] = 1e8
    problem = _problem.forward(x, w, PADDED_3X3, 1)
    assert _rules.choose(problem).name == "winograd"
    y = jax.jit(lambda x, w: _conv.convolve(x, w, PADDED_3X3, 1))(x, w)
    exact = _lax.forward(x, w, problem)
    np.testing.assert_allclose(y[:, 0], exact[:, 0], atol=1e-3)
    np.testing.assert_allclose(y[:, :, 0], exact[:, :, 0], atol=1e-3)


def test_masked_kernels_hide_outliers():
    """An outlier under a tap with weight 0 does not change the output."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 12, 12, 128)).astype(np.float32), rng.normal(size=(3, 3, 128, 128)).astype(np.float32)
    problem = _problem.forward(x, w, PADDED_3X3, 1)
    assert _rules.choose(problem).name == "winograd"
    assert _winograd.is_accurate(x, w)
    w[1, 1] = 0
    forward = jax.jit(lambda x, w: _conv.convolve(x, w, PADDED_3X3, 1))
    backward = jax.jit(lambda x, w: _conv._input_gradient.bind(x, w, window=PADDED_3X3, groups=1, spatial=(12, 12)))
    exact = [np.asarray(f(x, w))[0, 6, 6] for f in (forward, backward)]
    for outlier in (1e4, 1e6, 1e8, 1e15, 1e30):
        x[0, 6, 6, 0] = outlier
        for f, y in zip((forward, backward), exact, strict=True):
            np.testing.assert_allclose(f(x, w)[0, 6, 6], y, atol=1e-2 if outlier == 1e4 else 1e-4)


# (pool, input shape, a pool with the same windows whose gradient reaches all their positions)
POOLS = {
    "max": (cnn.max_pool(2), (2, 7, 8, 16), cnn.avg_pool(2)),
    "max overlapping": (
        cnn.max_pool(3, stride=2, padding=1),
        (2, 9, 8, 16),
        cnn.avg_pool(3, stride=2, padding=1),
    ),
    "max dilated": (
        cnn.max_pool(2, stride=1, dilation=2, padding=1),
        (2, 9, 8, 3),
        cnn.avg_pool(2, stride=1, dilation=2, padding=1),
    ),
    "max 1-D": (cnn.max_pool(3, ceil_mode=True), (2, 11, 16), cnn.avg_pool(3, ceil_mode=True)),
    "max 3-D": (cnn.max_pool(2, stride=1), (1, 5, 4, 6, 16), cnn.avg_pool(2, stride=1)),
    "max large": (cnn.max_pool(9, stride=3), (1, 22, 21, 3), cnn.avg_pool(9, stride=3)),
    "min": (cnn.min_pool(3, stride=2, padding=1), (2, 9, 8, 16), cnn.avg_pool(3, stride=2, padding=1)),
    "avg": (cnn.avg_pool(3, stride=2, padding=1), (2, 9, 8, 16), None),
    "avg few channels": (cnn.avg_pool(3, stride=2, padding=1), (2, 9, 8, 3), None),
    "avg 3-D": (cnn.avg_pool(2, dilation=2, stride=1), (1, 5, 4, 6, 16), None),
    "avg large": (cnn.avg_pool(9, stride=3), (1, 22, 21, 16), None),
    "lp": (cnn.lp_pool(2, 3, stride=2), (2, 9, 8, 16), cnn.avg_pool(3, stride=2)),
    "blur": (cnn.blur_pool(3), (2, 9, 8, 16), None),
    "adaptive avg": (cnn.adaptive_avg_pool((4, 3)), (2, 9, 8, 16), None),
    "adaptive max": (cnn.adaptive_max_pool((4, 3)), (2, 9, 8, 16), cnn.adaptive_avg_pool((4, 3))),
    "global avg": (cnn.as_layer(cnn.global_avg_pool), (2, 5, 4, 16), None),
    "global max": (cnn.as_layer(cnn.global_max_pool), (2, 5, 4, 16), cnn.as_layer(cnn.global_avg_pool)),
    "resize linear": (cnn.resize((14, 3)), (2, 9, 8, 3), None),
    "resize without antialias": (cnn.resize(5, antialias=False), (2, 9, 7, 3), None),
    "resize cubic": (cnn.resize((5, 9, 3), "cubic"), (1, 15, 4, 9, 2), None),
    "resize by many taps": (cnn.resize(3), (2, 60, 3), None),
    "resize with a tap at the end of the filter": (cnn.resize(5), (2, 9, 9, 3), None),
    "resize aligned corners": (cnn.resize((13, 4), coordinates="align_corners"), (2, 9, 8, 3), None),
    "resize replicated": (cnn.resize((13, 4), "cubic", a=-0.75, exclude_outside=False), (2, 9, 8, 3), None),
    "resize nearest": (cnn.resize((5, 11), "nearest"), (2, 9, 8, 3), None),
    "upsample linear": (cnn.upsample((2, 3), "linear"), (2, 5, 4, 3), None),
    "upsample lanczos": (cnn.upsample(2, "lanczos3"), (2, 16, 3), None),
}


@pytest.mark.sample(5, 3)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", POOLS)
def test_pool(name, dtype):
    pool, shape, mean = POOLS[name]
    rng = np.random.default_rng(0)
    value = jax.jit(lambda x: pool.apply({}, {}, x, train=False)[0])
    gradient = jax.jit(lambda x, dy: jax.vjp(value, x)[1](dy)[0])
    reach = jax.jit(lambda x, dy: jax.vjp(lambda x: (mean or pool).apply({}, {}, x, train=False)[0], x)[1](dy)[0])
    clean = {"x": rng.uniform(1, 2, shape).astype(dtype)}
    y = np.asarray(value(clean["x"]))
    clean["dy"] = rng.uniform(1, 2, y.shape).astype(dtype)
    dx = np.asarray(gradient(**clean))
    for place in ((0, *(n // 2 for n in shape[1:-1]), 0), (-1,) * len(shape)):
        affected = np.asarray(value(with_value(clean["x"], place, -1e3 if name == "min" else 1e3))) != y
        touched = np.asarray(reach(clean["x"], affected.astype(dtype))) != 0
        assert affected.any() or place[-1] == -1  # the last position may be outside all windows
        assert not affected.all()
        for bad in BAD:
            x = with_value(clean["x"], place, bad)
            ours = np.asarray(value(x))
            np.testing.assert_array_equal(ours[~affected], y[~affected])
            ignored = np.isinf(bad) and name.startswith(("max", "adaptive max", "global max")) and bad < 0
            ignored |= name == "min" and bad > 0
            np.testing.assert_array_equal(np.isnan(ours), affected & np.isnan(bad))
            np.testing.assert_array_equal(np.isinf(ours), affected & (np.isinf(bad) and not ignored))
            np.testing.assert_array_equal(np.asarray(gradient(x, clean["dy"]))[~touched], dx[~touched])
    for place in ((0, *(n // 2 for n in y.shape[1:-1]), 0), (-1,) * y.ndim):
        reached = np.asarray(gradient(clean["x"], with_value(np.zeros_like(clean["dy"]), place, 1))) != 0
        assert 0 < reached.sum() < reached.size
        for bad in BAD:
            ours = np.asarray(gradient(clean["x"], with_value(clean["dy"], place, bad)))
            np.testing.assert_array_equal(np.isnan(ours), reached & np.isnan(bad))
            np.testing.assert_array_equal(np.isinf(ours), reached & np.isinf(bad))
            np.testing.assert_array_equal(ours[~reached], dx[~reached])


def with_value(a, place, bad):
    """A copy of an array with one value replaced."""
    a = a.copy()
    a[place] = bad
    return a


@pytest.mark.parametrize("make", [cnn.dropout, cnn.spatial_dropout, functools.partial(cnn.drop_block, block_size=3)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_dropped_values_have_no_effect(make, bad):
    layer, key = make(0.5), jax.random.key(0)
    y, _ = layer.apply({}, {}, jnp.ones((2, 8, 8, 4)), train=True, key=key)
    dropped = np.asarray(y == 0)
    assert 0.2 < dropped.mean() < 0.8
    x = np.where(dropped, np.float32(bad), np.float32(1))
    np.testing.assert_array_equal(layer.apply({}, {}, x, train=True, key=key)[0], y)
    gradient = jax.grad(lambda x: layer.apply({}, {}, x, train=True, key=key)[0].sum())(x)
    np.testing.assert_array_equal(gradient, y)


@pytest.mark.parametrize("pool", [window_max, window_min])
@pytest.mark.parametrize("channels", [3, 16])
def test_max_pool_equals_lax(channels, pool):
    """Infinite and equal values are selected as in plain `lax`."""
    rng = np.random.default_rng(0)
    window = Window((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), (1, 1))
    x = rng.integers(-2, 3, (2, 9, 8, channels)).astype(np.float32)
    problem = _problem.pool("max pool" if pool is window_max else "min pool", x, window)
    plain = jax.jit(functools.partial(_lax.window_extreme, problem=problem))
    plain_back = jax.jit(functools.partial(_lax.window_extreme_gradient, problem=problem))
    dy = rng.normal(size=plain(x).shape).astype(np.float32)
    for bad in BAD:
        bad_x = with_value(x, (0, 4, 4, 0), bad)
        y, back = jax.vjp(lambda x: pool(x, window), bad_x)
        np.testing.assert_array_equal(y, plain(bad_x))
        if not np.isnan(bad):
            np.testing.assert_allclose(back(dy)[0], plain_back(bad_x, dy), atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 6, 16), (5, 3, 7, 3), (2, 4, 4, 4, 20)])
def test_channels_are_independent(shape):
    rng = np.random.default_rng(0)
    x, near = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[-1:]).astype(np.float32)
    sums = jax.jit(lambda x: jnp.stack([channel_sum(x), *channel_moments(x, near)]))
    clean = np.asarray(sums(x))
    for bad in BAD:
        ours = np.asarray(sums(with_value(x, (0,) * x.ndim, bad)))
        np.testing.assert_array_equal(ours[:, 1:], clean[:, 1:])
        np.testing.assert_array_equal(np.isnan(ours[:, 0]), np.isnan(bad))
