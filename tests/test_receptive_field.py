"""Receptive fields: those that the gradient has, those that are published, and those that are unknown."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnn as cnn
from jaxcnn._path import paths
from jaxcnn.explain import receptive_field
from jaxcnn.models import MODELS
from jaxcnn.models._unit import with_auxiliary
from tests import zoo_weights


def spec(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def last(layer, shape):
    """The fields of the last layer."""
    return receptive_field(cnn.serial(layer), spec(*shape)).layers[0].fields


def support(layer, shape, draws=1):
    """(spatial dimension, unit's index in it, position of the input) -> whether some unit there depends on it.

    Weights and input are positive and all maps increase, so that no two ways cancel. A maximum depends on the largest
    alone, so that it takes several draws to see all.
    """
    params, state = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.1, layer.init(jax.random.key(0), jnp.ones(shape)))
    jacobian = jax.jit(jax.jacrev(lambda x: layer.apply(params, state, x, train=False)[0].sum((0, -1))))
    rank = len(shape) - 2
    hit = sum(
        np.abs(jacobian(jax.random.uniform(jax.random.key(i), shape, minval=0.5))).sum((rank, -1)) for i in range(draws)
    )
    assert np.isfinite(hit).all()
    return [
        (hit > 0).any(tuple(axis for axis in range(2 * rank) if axis % rank != dimension)) for dimension in range(rank)
    ]


def check(layer, shape, draws=1):
    """No unit sees more than the field, and those in the middle see no less."""
    for field, seen, n in zip(last(layer, shape), support(layer, shape, draws), shape[1:-1], strict=True):
        units = np.flatnonzero(seen.any(1))  # the others see nothing but padding
        seen = seen[units]
        first, end = seen.argmax(1), n - seen[:, ::-1].argmax(1)
        low = field.start + field.stride * units
        # Where the last stride left positions over, a window that hangs over the end sees padding instead.
        middle = (low >= 0) & (low + field.size + max(field.stride - 1, 0) <= n)
        assert middle.any(), "the input is too small for a unit that sees no padding"
        if float(field.stride).is_integer():
            assert (low <= first).all()
            assert (end <= low + field.size).all()
            assert (first - low)[middle].min() == 0
            assert (end - low)[middle].max() == field.size
        else:
            assert (end - first)[middle].max() == field.size


def operation(rng, rank):
    """A random layer that keeps positive images positive."""
    each = lambda *choices: tuple(int(rng.choice(choices)) for _ in range(rank))
    pairs = tuple((int(rng.integers(3)), int(rng.integers(3))) for _ in range(rank))
    padding = ("SAME", "SAME_LOWER", "VALID", pairs)[rng.integers(4)]
    window = {"stride": each(1, 1, 2), "dilation": each(1, 1, 2)}
    makers = (
        lambda: cnn.conv(2, each(1, 2, 3), padding=padding, **window),
        lambda: cnn.avg_pool(each(2, 3), padding="SAME", **window),
        lambda: cnn.residual(cnn.depthwise_conv(each(3, 4), dilation=each(1, 2))),
        lambda: cnn.concatenate(cnn.conv(1, each(1, 3), padding="SAME_LOWER"), cnn.conv(1, each(2, 5)), cnn.identity),
    )
    return makers[rng.integers(len(makers))]()


@pytest.mark.sample(4)
@pytest.mark.parametrize("seed", range(8))
def test_random_networks(seed):
    rng = np.random.default_rng(seed)
    rank = 1 + seed % 2
    net = cnn.serial(*(operation(rng, rank) for _ in range(4)))
    check(net, (1, *(60, 52)[:rank], 1))


AROUND = cnn.conv(1, 3)

LAYERS = {
    "conv3d": (cnn.conv(2, (3, 2, 1), stride=(2, 1, 1), padding="SAME_LOWER"), (1, 7, 5, 4, 1)),
    "causal": (cnn.conv(2, 3, dilation=4, padding="CAUSAL"), (1, 20, 1)),
    "grouped": (cnn.conv(4, (5, 3), groups=2), (1, 9, 9, 2)),
    "max_pool": (cnn.serial(AROUND, cnn.max_pool(3, stride=2, padding="SAME")), (1, 20, 1), 30),
    "min_pool_ceil": (cnn.min_pool(3, ceil_mode=True), (1, 10, 1), 20),
    "lp_pool": (cnn.lp_pool(2, 2), (1, 9, 8, 1)),
    "lp_pool_positions_left": (cnn.lp_pool(2, 2), (1, 5, 9, 1)),
    "lp_pool_overlapping": (cnn.lp_pool(2, 3, stride=2, dilation=2), (1, 17, 1)),
    "lp_pool_after_pools": (
        cnn.serial(cnn.avg_pool(2), cnn.avg_pool(3, stride=2, padding="SAME"), cnn.lp_pool(2, 2), AROUND),
        (1, 90, 1),
    ),
    "backwards": (lambda x: x[:, np.arange(8, 1, -2)], (1, 10, 1)),
    "blur_pool": (cnn.serial(AROUND, cnn.blur_pool(4)), (1, 20, 1)),
    "adaptive_even": (cnn.adaptive_avg_pool(3), (1, 9, 6, 1)),
    "conv_transpose": (cnn.serial(AROUND, cnn.conv_transpose(2, 4, stride=2)), (1, 14, 1)),
    "conv_transpose_gaps": (cnn.serial(cnn.conv_transpose(2, 2, stride=3, padding="VALID"), AROUND), (1, 14, 1)),
    "conv_transpose_2d": (cnn.conv_transpose(2, (3, 4), stride=(2, 3), padding=1, output_padding=1), (1, 6, 5, 1)),
    "down_up_down": (
        cnn.serial(cnn.conv(2, 3, stride=4), cnn.conv_transpose(2, 3, stride=2), AROUND, cnn.avg_pool(2)),
        (1, 60, 1),
    ),
    "u_net": (
        cnn.residual(cnn.serial(AROUND, cnn.avg_pool(2), AROUND, cnn.upsample(2), cnn.conv(1, 3))),
        (1, 40, 1),
    ),
    "nearest": (cnn.serial(cnn.upsample(3), AROUND), (1, 10, 8, 1)),
    "linear": (cnn.serial(AROUND, cnn.upsample(2, "linear")), (1, 12, 8, 1)),
    "resize_nearest": (cnn.serial(AROUND, cnn.resize(30, "nearest")), (1, 20, 1)),
    "pixel_shuffle": (cnn.serial(cnn.conv(8, 3), cnn.pixel_shuffle(2), AROUND), (1, 8, 7, 1)),
    "pixel_unshuffle": (cnn.serial(AROUND, cnn.pixel_unshuffle(2)), (1, 8, 6, 1)),
    "pad": (cnn.serial(cnn.pad(2), cnn.conv(1, 5, padding="VALID")), (1, 9, 9, 1)),
    "local_response_norm": (cnn.serial(AROUND, cnn.local_response_norm()), (1, 9, 9, 1)),
    "layer_norm": (cnn.serial(cnn.conv(3), cnn.layer_norm()), (1, 9, 9, 1)),
    "batch_norm": (cnn.serial(AROUND, cnn.batch_norm()), (1, 9, 9, 1)),
    "activations": (cnn.serial(AROUND, jax.nn.gelu, jax.nn.softplus, cnn.prelu()), (1, 9, 9, 1)),
    "remat": (cnn.remat(cnn.serial(AROUND, cnn.cast(AROUND, jnp.bfloat16))), (1, 9, 9, 1)),
    "repeat": (cnn.repeat(cnn.residual(AROUND), 3), (1, 12, 1)),
    "weight_norm": (cnn.weight_norm(AROUND), (1, 9, 9, 1)),
    "shift": (lambda x: jnp.pad(x, ((0, 0), (2, 0), (0, 0)))[:, :-2], (1, 9, 1)),
    "loop": (
        lambda x: lax.fori_loop(0, 2, lambda i, y: y + lax.pad(y, 0.0, ((0, 0, 0), (1, -1, 0), (0, 0, 0))), x),
        (1, 9, 1),
    ),
    "difference": (lambda x: 3 * x[:, 1:] - x[:, :-1], (1, 9, 1)),
    "flipped": (lambda x: x[:, ::-1][:, 2:][:, ::-1], (1, 9, 1)),
    "gaps": (cnn.serial(lambda x: lax.pad(x, 0.0, ((0, 0, 0), (1, 0, 2), (0, 0, 0))), AROUND), (1, 9, 1)),
    "two_periods": (
        cnn.parallel(
            jnp.add, cnn.serial(cnn.avg_pool(2), cnn.upsample(2)), cnn.serial(cnn.avg_pool(3), cnn.upsample(3))
        ),
        (1, 24, 1),
    ),
    "every_third": (lambda x: x[:, 1::3, ::2], (1, 12, 9, 1)),
    "selection": (lambda x: x[:, np.array([2, 3, 6, 7, 10, 11])], (1, 12, 1)),
    "einsum": (lambda x: jnp.einsum("nhwc,cd->nhwd", x, jnp.ones((1, 2))), (1, 4, 5, 1)),
    "channel_shuffle": (
        lambda x: x.reshape(1, 5, 6, 2, 2).swapaxes(3, 4).reshape(x.shape) * lax.stop_gradient(x),
        (1, 5, 6, 4),
    ),
}


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    layer, shape, *draws = LAYERS[name]
    check(cnn.as_layer(layer), shape, *draws)


@pytest.mark.parametrize(
    "layer",
    [
        cnn.global_avg_pool,
        cnn.global_max_pool,
        cnn.flatten,
        cnn.serial(cnn.flatten, cnn.dense(3), jax.nn.relu),
        cnn.squeeze_excite(1),
        cnn.group_norm(1),
        cnn.instance_norm(),
        cnn.layer_norm(axis=1),
        cnn.global_response_norm(),
        lambda x: x + x[:, ::-1, ::-1],
        lambda x: x + x.swapaxes(1, 2),
        lambda x: jnp.sort(jnp.cumsum(x, 1), 2),
        lambda x: lax.while_loop(lambda y: y[0, 0, 0, 0] < 9, lambda y: y + 1, x),
        lambda x: jnp.fft.fft2(x, axes=(1, 2)).real,
        lambda x: jnp.einsum("nhwc,nijc->nhwijc", x, x),
        lambda x: lax.conv(x.transpose(0, 3, 1, 2), x.transpose(0, 3, 1, 2), (1, 1), "SAME").transpose(0, 2, 3, 1),
    ],
)
def test_everything_is_seen(layer):
    assert last(layer, (1, 6, 6, 2)) == ((6, 0, 0), (6, 0, 0))


def test_nothing_is_seen():
    assert last(lambda x: jnp.ones_like(x), (1, 6, 2)) == ((0, 0, 0),)
    assert last(lambda x: jnp.zeros_like(x).at[:, :1].set(x[:, 3:4]), (1, 6, 2)) == ((1, 0, 3),)
    gap = lambda x: jnp.concatenate([x[:, :1], jnp.zeros((1, 6, 2)), x[:, 3:4]], 1)
    assert last(gap, (1, 6, 2)) == ((4, 0, 0),)


def test_reduced_along_one_dimension():
    layer = cnn.serial(cnn.conv(1, 3, padding="VALID"), lambda x: x.mean(1, keepdims=True))
    assert last(layer, (1, 8, 9, 1)) == ((8, 0, 0), (3, 1, 0))
    assert last(cnn.serial(cnn.conv(1, 3, stride=3, padding="VALID"), cnn.global_avg_pool), (1, 11, 1)) == ((9, 0, 0),)


POOLS = {
    "max_pool": cnn.max_pool,
    "min_pool": cnn.min_pool,
    "avg_pool": cnn.avg_pool,
    "lp_pool": functools.partial(cnn.lp_pool, 2),
    "max_pool_with_indices": cnn.max_pool_with_indices,
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("n", [14, 15])
@pytest.mark.parametrize("options", [{}, {"stride": 3}, {"padding": 1}, {"padding": "SAME", "stride": 1}])
def test_pools_of_even_and_odd_lengths(name, n, options):
    layer = POOLS[name](2, **options)
    (field,) = last(layer, (1, n, 1))
    x = np.random.default_rng(0).uniform(0.5, 1.5, (1, n, 1))
    values = lambda x: np.asarray(jax.tree.leaves(layer.apply({}, {}, jnp.asarray(x, jnp.float32), train=False)[0])[0])
    # A large or a small value is seen in each window, whatever the pool.
    seen = np.array(
        [
            [(values(np.where(np.arange(n)[:, None] == i, at, x)) != values(x))[0, :, 0] for at in (0, 9)]
            for i in range(n)
        ]
    ).any(1)
    expected = [
        range(field.start + field.stride * k, field.start + field.stride * k + field.size) for k in range(seen.shape[1])
    ]
    assert [[i for i in window if 0 <= i < n] for window in expected] == [np.flatnonzero(of).tolist() for of in seen.T]


def test_a_pool_with_indices_has_the_field_of_its_values():
    pool = cnn.max_pool_with_indices((2, 3), stride=2, padding="SAME")
    assert last(pool, (1, 15, 14, 2)) == last(cnn.max_pool((2, 3), stride=2, padding="SAME"), (1, 15, 14, 2))
    assert last(lambda x: x.argmax(1), (1, 6, 2)) == ((6, 0, 0),)  # integers alone


def test_a_flip_goes_backwards():
    assert last(lambda x: x[:, ::-1], (1, 9, 1)) == ((1, -1, 8),)


def test_positions_as_channels():
    assert last(lambda x: lax.conv(x, jnp.ones((2, 6, 1, 1)), (1, 1), "SAME"), (1, 6, 7, 1)) == ((6, 0, 0), (1, 1, 0))


def test_a_slice_that_a_parameter_chooses():
    cut = jax.vmap(lambda start, row: lax.dynamic_slice_in_dim(row, start, 3))
    layer = cnn.stateless(lambda key, x: {"bias": jnp.ones(1)}, lambda params, x: cut(params["bias"].astype(int), x))
    assert last(layer, (1, 9, 1)) == ((9, 0, 0),)


def test_fractions_of_fractions():
    net = cnn.serial(cnn.upsample(2), lambda x: x[:, :19], cnn.resize(38))
    assert last(net, (1, 10, 1)) == ((2, 1 / 4, 0),)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_is_not_zeros(mode):
    net = cnn.serial(cnn.conv(1, 3, padding_mode=mode), cnn.conv(1, 5, stride=2, padding_mode=mode))
    assert last(net, (1, 31, 1)) == ((7, 2, -3),)


def test_bins_of_different_size():
    for pool in (cnn.adaptive_avg_pool(3), cnn.adaptive_max_pool(3)):
        assert last(pool, (1, 8, 1)) == ((4, 8 / 3, 0),)
        assert last(pool, (1, 7, 1)) == ((3, 2, 0),)  # bins of equal size overlap


def until(model, path):
    """The model up to the layer there."""
    probe = cnn.capture(model, path)

    def apply(params, state, x, *, train, key=None):
        (_, seen), state = probe.apply(params, state, x, train=train, key=key)
        return seen[path], state

    return cnn.Layer(model.init, apply)


def test_lenet5():
    net = MODELS["lenet5"]()
    fields = {layer.path: layer.fields for layer in receptive_field(net, spec(1, 28, 28, 1)).layers}
    assert fields["conv1"] == ((5, 1, -2),) * 2
    assert fields["conv2"] == ((14, 2, -2),) * 2
    assert fields["pool2"] == ((16, 4, -2),) * 2
    assert fields["dense1"] == fields["head"] == ((28, 0, 0),) * 2
    check(until(net, "pool2"), (1, 28, 28, 1), 5)


def test_resnet20():
    """6 convolutions of positions next to each other, one and 5 of every other, one and 5 of every fourth."""
    layers = receptive_field(MODELS["resnet20"](), spec(1, 32, 32, 3)).layers
    fields = {layer.path: layer.fields for layer in layers}
    assert fields["stage1/2"] == ((1 + 7 * 2, 1, -7),) * 2
    assert fields["stage2/2"] == ((15 + 2 + 5 * 4, 2, -18),) * 2
    assert fields["stage3/2"] == ((37 + 4 + 5 * 8, 4, -40),) * 2
    assert fields["stage3/2/sum/shortcut"] == ((65, 4, -32),) * 2


def test_video():
    """The stem spans 3 frames of 7x7 pixels; a 3x3x3 convolution adds 2 frames, and one on frames none."""
    fields = {
        name: {layer.path: layer.fields for layer in receptive_field(MODELS[name](), spec(1, 64, 128, 128, 3)).layers}
        for name in ("r3d_18", "mc3_18", "r2plus1d_18")
    }
    for of in fields.values():
        assert of["stem"] == ((3, 1, -1), (7, 2, -3), (7, 2, -3))
        assert of["stage1/1"] == ((11, 1, -5), (23, 2, -11), (23, 2, -11))
    assert fields["r3d_18"]["stage2/1"][0] == fields["r2plus1d_18"]["stage2/1"][0] == (11 + 2 + 3 * 4, 2, -12)
    assert fields["mc3_18"]["stage2/1"] == ((11, 1, -5), *((23 + 4 + 3 * 8, 4, -25),) * 2)


def test_signal_with_even_kernels():
    fields = {layer.path: layer.fields for layer in receptive_field(MODELS["fcn1d"](), spec(1, 64, 1)).layers}
    assert fields["conv1"] == ((8, 1, -3),)
    assert fields["conv3"] == ((14, 1, -6),)


def positive(path, leaf, draw):
    """Weights of means, so that no two ways cancel and nothing grows, above the 6 where some activations end, say."""
    if path.endswith(("mean", "var")):
        return np.full(leaf.shape, path.endswith("var"), np.float32)
    if path.endswith("kernel"):
        return (draw.uniform(0.5, 1.5, leaf.shape) / np.prod(leaf.shape[:-1])).astype(np.float32)
    return draw.uniform(0, 0.1, leaf.shape).astype(np.float32) + np.float32(0.7 * path.endswith("scale"))


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo_weights.full_but({"lenet5", "squeezenet1_1", "mobilenet_v1", "fcn1d"}, MODELS))
def test_models_by_their_gradients(name):
    """The deepest layer that sees less than half of the input: what its middle unit depends on is just its field.

    A maximum depends on the largest alone, so that it takes more than one input to see all.
    """
    *spatial, channels = MODELS[name].input_shape
    if len(spatial) == 2:
        spatial = [max(224, zoo_weights.size_of(name))] * 2
    model, shape = MODELS[name](), (1, *spatial, channels)
    shapes = jax.eval_shape(model.init, jax.random.key(0), spec(*shape))
    draw = np.random.default_rng(0)
    params, state = (
        jax.tree.unflatten(
            jax.tree.structure(tree),
            [positive(path, leaf, draw) for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)],
        )
        for tree in shapes
    )
    layers = [
        layer
        for layer in receptive_field(model, spec(*shape)).layers
        if getattr(layer.output, "ndim", 0) == len(shape)
        and all(1 < field.size <= min(100, n // 2) for field, n in zip(layer.fields, spatial, strict=True))
    ]
    layer = max(layers, key=lambda layer: layer.fields[-1].size)
    weight = draw.uniform(0.5, 1.5, layer.output.shape[-1])  # the sum of normalized channels never changes
    apply = until(model, layer.path).apply

    @cnn.jit
    def gradient(x, unit):
        return jax.grad(lambda x: (apply(params, state, x, train=False)[0][0, *unit] * weight).sum())(x)

    # In an input that grows along a dimension all maps do, so that each maximum is at the end of its window.
    rank = len(spatial)
    ramps = []
    for dimension, n in enumerate(spatial):
        grows = np.linspace(0.5, 1.5, n, dtype=np.float32).reshape(-1, *(1,) * (rank - dimension))
        ramps += [np.broadcast_to(ramp, shape) for ramp in (grows, grows[::-1])]
    inputs = [*ramps, *(draw.uniform(0.5, 1.5, shape).astype(np.float32) for _ in range(10))]
    reached = np.zeros((rank, 2), bool)
    for aside in (0, 1):  # after an upsampling, neighbors differ
        unit = [
            round((n / 2 - field.center) / field.stride) + aside for field, n in zip(layer.fields, spatial, strict=True)
        ]
        seen = np.zeros(spatial, bool)
        for x in inputs:
            with jax.default_matmul_precision("highest"):  # else Winograd's transforms leave rounding errors around it
                found = gradient(x, unit)
            assert np.isfinite(found).all()
            seen |= np.asarray(found).any((0, -1))
            for dimension, (i, field) in enumerate(zip(unit, layer.fields, strict=True)):
                positions = np.flatnonzero(seen.any(tuple(d for d in range(rank) if d != dimension)))
                start = field.start + field.stride * i
                ends = positions.min() - start, start + field.size - 1 - positions.max()
                assert min(ends) >= 0, layer.path
                reached[dimension] |= np.array(ends) == 0
            if reached.all():
                return
    raise AssertionError(f"{layer.path}: {layer.fields} is more than what is seen")


def unit(features, size, stride=1):
    return cnn.serial(conv=cnn.conv(features, size, stride=stride, padding=size // 2), norm=cnn.batch_norm())


def published(path, net, n=1024):
    """Size, stride and padding, in all, before unit 0."""
    fields = {layer.path: layer.fields for layer in receptive_field(net, spec(1, n, n, 3)).layers}
    (field, other) = fields[path]
    assert field == other
    return field.size, field.stride, -field.start


@pytest.mark.parametrize(("layer", "size", "stride"), [("conv5_3", 196, 16), ("pool5", 212, 32)])
def test_vgg16(layer, size, stride):
    stages = {}
    for stage, convolutions in enumerate((2, 2, 3, 3, 3), 1):
        stages |= {f"conv{stage}_{i}": cnn.conv(2, padding=1) for i in range(1, convolutions + 1)}
        stages[f"pool{stage}"] = cnn.max_pool(2)
    assert published(layer, cnn.serial(**stages))[:2] == (size, stride)


def test_resnet50():
    """The stride is in the first convolution of a bottleneck, as in the paper; in the second one, it is 427."""

    def block(stride):
        branch = cnn.serial(unit(1, 1, stride), jax.nn.relu, unit(1, 3), jax.nn.relu, unit(2, 1))
        return cnn.serial(cnn.residual(branch, unit(2, 1, stride)), jax.nn.relu)

    stages = {
        f"stage{i}": cnn.serial(block(1 if i == 1 else 2), *(block(1) for _ in range(depth - 1)))
        for i, depth in enumerate((3, 4, 6, 3), 1)
    }
    net = cnn.serial(stem=unit(2, 7, 2), pool=cnn.max_pool(3, stride=2, padding=1), **stages)
    assert published("stage4", net) == (483, 32, 241)
    assert published("stage4", MODELS["resnet50"]()) == (427, 32, 213)


def test_text_follows_the_tree():
    net = cnn.serial(stage=cnn.repeat(cnn.serial(conv=cnn.conv(3, (3, 1))), 2), pool=cnn.global_avg_pool)
    fields = receptive_field(net, spec(2, 8, 6, 3))
    assert [layer.path for layer in fields.layers] == ["stage", "stage/conv", "pool"]
    assert [layer.output.shape for layer in fields.layers] == [(2, 8, 6, 3), (2, 8, 6, 3), (2, 3)]
    assert [" ".join(line.split()) for line in str(fields).splitlines()[3:]] == [
        "stage (2, 8, 6, 3) 5 x 1 1 -2 x 0",
        "conv (2, 8, 6, 3) 5 x 1 1 -2 x 0",
        "pool (2, 3) all 0 0",
    ]
    assert "\n  conv " in str(fields)
    assert fields.layers[0].fields[0].center == 0


def test_a_single_layer():
    (layer,) = receptive_field(cnn.conv(2, 3), spec(1, 8, 1)).layers
    assert (layer.path, layer.fields) == ("", ((3, 1, -1),))
    assert "(model)" in str(receptive_field(jnp.sin, spec(1, 8, 1)))


def test_the_model_has_a_row_if_no_layer_returns_its_output():
    rows = receptive_field(cnn.residual(cnn.conv(1, 5, dilation=2)), spec(1, 20, 1)).layers
    assert [(row.path, row.fields) for row in rows] == [
        ("", ((9, 1, -4),)),
        ("layer", ((9, 1, -4),)),
        ("shortcut", ((1, 1, 0),)),
    ]
    assert receptive_field(cnn.serial(a=cnn.residual(AROUND)), spec(1, 20, 1)).layers[0].path == "a"


def test_auxiliary_heads_are_left_out():
    net = with_auxiliary(cnn.serial(conv=cnn.conv(2), pool=cnn.max_pool(2)), aux=cnn.serial(conv=cnn.conv(3)))
    paths = [layer.path for layer in receptive_field(net, spec(1, 8, 8, 1)).layers]
    assert paths == ["main", "main/conv", "main/pool"]


def test_no_arrays_are_made():
    (layer,) = receptive_field(cnn.conv(64), spec(1 << 20, 1 << 14, 1 << 14, 64)).layers
    assert layer.fields == ((3, 1, -1),) * 2


def test_flattening_of_large_maps():
    """Of which each element sees but one position."""
    layers = receptive_field(cnn.serial(AROUND, cnn.flatten, cnn.dense(2)), spec(1, 300, 300, 1)).layers
    assert [layer.fields for layer in layers] == [((3, 1, -1),) * 2, *[((300, 0, 0),) * 2] * 2]


def test_inputs_without_positions_or_shape():
    with pytest.raises(ValueError, match="1 to 3 spatial dimensions"):
        receptive_field(cnn.dense(3), spec(2, 4))
    with pytest.raises(TypeError, match="ShapeDtypeStruct"):
        receptive_field(cnn.conv(3), (1, 8, 8, 3))
    with pytest.raises(TypeError, match="floating-point"):
        receptive_field(cnn.conv(3), jnp.zeros((1, 8, 8, 3), jnp.uint8))
