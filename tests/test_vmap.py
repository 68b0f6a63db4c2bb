"""`vmap` over parameters, inputs or both equals a Python loop over models, for all primitives and derivatives."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jaxcnn as cnn
from jaxcnn._lowering import convolve, convolve_transposed, matrix_product, window_max, window_sum
from jaxcnn._lowering._channels import affine, broadcast, channel_moments, channel_sum, first_row_sum
from jaxcnn._lowering._materialize import stored_gradient
from jaxcnn._lowering._rules import TABLES, forced
from jaxcnn._window import Window
from tests.test_lowering import close, convolutions, pools
from tests.test_rules import NEED_ONEDNN

MODELS = 3
small = settings(max_examples=4, deadline=None, derandomize=True)


def derivatives(f, *args):
    """Value, vjp, jvp and a second derivative, each with the models' dimension in front."""
    bend = lambda *args: jnp.sin(f(*args)).sum()
    gradient = jax.grad(bend, range(len(args)))
    return {
        "value": f(*args),
        "vjp": gradient(*args),
        "jvp": jax.jvp(f, args, args)[1],
        "second": jax.jvp(gradient, args, args)[1],
    }


def penalty_gradient(f, *args):
    """The gradient of the squared norm of a gradient: transposes of all transposes."""
    gradient = jax.grad(lambda *args: jnp.sin(f(*args)).sum(), range(len(args)))
    return jax.grad(lambda *args: sum(jnp.square(g).sum() for g in gradient(*args)), range(len(args)))(*args)


def mapped_and_looped(f, args, mapped):
    """`derivatives` under vmap, and for each model in turn. `mapped` tells which arguments differ between models."""
    args = [jnp.asarray(arg) for arg in args]
    scales = jnp.arange(1, MODELS + 1) / 2
    stacked = [
        jnp.stack([s * arg for s in scales]).astype(arg.dtype) if m else arg
        for arg, m in zip(args, mapped, strict=True)
    ]
    axes = [0 if m else None for m in mapped]
    of_model = lambda i: [arg[i] if m else arg for arg, m in zip(stacked, mapped, strict=True)]
    found = jax.jit(jax.vmap(lambda *args: derivatives(f, *args), axes))(*stacked)
    one = jax.jit(lambda *args: derivatives(f, *args))
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one(*of_model(i)) for i in range(MODELS)))
    return found, expected


def gradients_of_vmap(f, args, mapped):
    """The gradient of a sum over models, outside of vmap, and the sum of the models' gradients."""
    axes = [0 if m else None for m in mapped]
    scales = jnp.arange(1, MODELS + 1) / 2
    stacked = [jnp.stack([s * arg for s in scales]) if m else arg for arg, m in zip(args, mapped, strict=True)]
    positions = tuple(range(len(args)))
    found = jax.jit(jax.grad(lambda *args: jnp.sin(jax.vmap(f, axes)(*args)).sum(), positions))(*stacked)

    def loop(*args):
        of_model = lambda i: [arg[i] if m else arg for arg, m in zip(args, mapped, strict=True)]
        return sum(jnp.sin(f(*of_model(i))).sum() for i in range(MODELS))

    return found, jax.jit(jax.grad(loop, positions))(*stacked)


which = st.sampled_from([(True, True), (True, False), (False, True)])


@pytest.mark.slow
@small
@given(convolutions(), which)
@pytest.mark.usefixtures("quick_compilation")
def test_convolution(case, mapped):
    x, w, problem = case
    f = lambda x, w: convolve(x, w, problem.window, problem.groups)
    close(*mapped_and_looped(f, (x, w), mapped))
    close(*gradients_of_vmap(f, (x, w), mapped))


@pytest.mark.slow
@small
@given(convolutions(), which)
@pytest.mark.usefixtures("quick_compilation")
def test_transposed_convolution(case, mapped):
    x, w, problem = case
    dy = np.random.default_rng(0).normal(size=(len(x), *problem.output, w.shape[-1])).astype(np.float32)
    w = (
        np.random.default_rng(0)
        .normal(size=(*problem.window.size, w.shape[-1] // problem.groups, x.shape[-1]))
        .astype(np.float32)
    )
    f = lambda dy, w: convolve_transposed(dy, w, problem.window, problem.groups, x.shape[1:-1])
    close(*mapped_and_looped(f, (dy, w), mapped))


@pytest.mark.sample(2)
@pytest.mark.parametrize("mapped", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("name", ["moments", "broadcast"])
@pytest.mark.usefixtures("quick_compilation")
def test_channels(name, mapped):
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, 5, 3, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    f, args = {"moments": (channel_moments, (x, v)), "broadcast": (broadcast, (v, x))}[name]
    close(*mapped_and_looped(f, args, mapped))
    close(*gradients_of_vmap(f, args, mapped))


@pytest.mark.sample(2)
@pytest.mark.parametrize("mapped", [(True, True, True), (True, False, False), (False, False, True)], ids=str)
@pytest.mark.usefixtures("quick_compilation")
def test_affine(mapped):
    rng = np.random.default_rng(0)
    args = tuple(rng.normal(size=shape).astype(np.float32) for shape in ((2, 5, 3, 4), (4,), (2, 4)))
    close(*mapped_and_looped(affine, args, mapped))
    close(*gradients_of_vmap(affine, args, mapped))


@pytest.mark.usefixtures("quick_compilation")
def test_channel_sum():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    close(*mapped_and_looped(channel_sum, (x,), (True,)))
    close(*gradients_of_vmap(channel_sum, (x,), (True,)))
    close(*mapped_and_looped(first_row_sum, (x,), (True,)))
    close(*mapped_and_looped(stored_gradient, (x,), (True,)))


@pytest.mark.slow
@small
@given(pools())
@pytest.mark.usefixtures("quick_compilation")
def test_pools(case):
    x, window, pool = case
    x = x + np.random.default_rng(0).normal(size=x.shape).astype(np.float32) / 100  # no ties
    close(*mapped_and_looped(lambda x: pool(x, window), (x,), (True,)))
    close(*mapped_and_looped(lambda x: window_sum(x, window), (x,), (True,)))


@pytest.mark.usefixtures("quick_compilation")
def test_jacobians_of_a_pool():
    """The input is the same for all rows of a Jacobian, and the tangents and cotangents differ."""
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype(np.float32)
    window = Window((2, 2), (2, 2), (1, 1), ((0, 0),) * 2, (1, 1))
    f = lambda x: window_max(x, window)
    close(jax.jit(jax.jacfwd(f))(x), jax.jit(jax.jacrev(f))(x))
    assert float(jax.jacfwd(f)(x).sum()) == f(x).size


@pytest.mark.parametrize("mapped", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.usefixtures("quick_compilation")
def test_gradient_outside_of_vmap(mapped):
    """Gradients with respect to all models of a sum over them, as in the training of an ensemble."""
    close(*gradients_of_vmap(lambda x, w: convolve(x, w, WINDOW, 1), (IMAGE, KERNEL), mapped))


IMAGE = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 4, 4)).astype(np.float32)
WINDOW = Window((3, 3), (1, 1), (1, 1), ((1, 1),) * 2, (1, 1))


def loss(x, w):
    y = jnp.tanh(convolve(x, w, WINDOW, 1))
    return jnp.sin(window_max(y, WINDOW) + channel_sum(y)).sum()


@pytest.mark.sample(4, 1)
@pytest.mark.parametrize(
    "axes", [((0, 0), (0, 0)), ((0, None), (None, 0)), ((None, 0), (0, None)), ((0, 0), (None, 0))]
)
@pytest.mark.usefixtures("quick_compilation")
def test_nested_vmap(axes):
    """Each pair tells which of (x, w) the outer and the inner vmap map."""
    outer, inner = axes
    x, w = jnp.asarray(IMAGE), jnp.asarray(KERNEL)
    scale = lambda a, n: jnp.stack([a * (i + 1) / n for i in range(n)])
    args = [scale(a, 3) if i is not None else a for a, i in zip((x, w), inner, strict=True)]
    args = [scale(a, 2) if o is not None else a for a, o in zip(args, outer, strict=True)]
    gradient = jax.grad(loss, (0, 1))
    found = jax.jit(jax.vmap(jax.vmap(gradient, inner), outer))(*args)

    def of_model(i, j):
        args_i = [a if o is None else a[i] for a, o in zip(args, outer, strict=True)]
        return [a if n is None else a[j] for a, n in zip(args_i, inner, strict=True)]

    one = jax.jit(gradient)
    expected = [one(*of_model(i, j)) for i, j in itertools.product(range(2), range(3))]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves).reshape(2, 3, *leaves[0].shape), *expected)
    close(found, expected)


@pytest.mark.usefixtures("quick_compilation")
def test_other_axes_and_spmd_axis_name():
    w = jnp.stack([KERNEL, 2 * KERNEL], -1)
    gradient = jax.grad(lambda w: loss(IMAGE, w))
    found = jax.jit(jax.vmap(gradient, -1, 1, spmd_axis_name=None))(w)
    close(found[:, 1], gradient(2 * KERNEL))
    mesh = jax.make_mesh((1,), ("models",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        close(jax.jit(jax.vmap(gradient, -1, 1, spmd_axis_name="models"))(w), found)


@pytest.mark.usefixtures("quick_compilation")
def test_training_steps_in_a_scan():
    """Gradient descent of three networks on their own data in one program."""
    x, w = (jnp.stack([a, a / 2, -a]) for a in (jnp.asarray(IMAGE), jnp.asarray(KERNEL)))

    def descend(x, w):
        return lax.scan(lambda w, _: (w - 0.01 * jax.grad(loss, 1)(x, w), None), w, length=3)[0]

    close(jax.jit(jax.vmap(descend))(x, w), jnp.stack([jax.jit(descend)(*pair) for pair in zip(x, w, strict=True)]))


@pytest.mark.usefixtures("quick_compilation")
def test_per_example_gradients_in_bfloat16():
    gradient = jax.grad(lambda w, x: loss(x[None], w))
    x, w = jnp.asarray(IMAGE, jnp.bfloat16), jnp.asarray(KERNEL, jnp.bfloat16)
    found = jax.jit(jax.vmap(gradient, (None, 0)))(w, x)
    assert found.dtype == jnp.bfloat16
    exact = jax.vmap(gradient, (None, 0))(w.astype(jnp.float32), x.astype(jnp.float32))
    np.testing.assert_allclose(np.asarray(found, np.float32), exact, atol=0.03 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize("mapped", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 5, 4)], ids=str)
@pytest.mark.usefixtures("quick_compilation")
def test_matrix_product(shape, mapped):
    rng = np.random.default_rng(0)
    args = (rng.normal(size=shape).astype(np.float32), rng.normal(size=(4, 6)).astype(np.float32))
    close(derivatives(matrix_product, *args), derivatives(jnp.matmul, *args))
    close(penalty_gradient(matrix_product, *args), penalty_gradient(jnp.matmul, *args))
    close(*mapped_and_looped(matrix_product, args, mapped))
    close(*gradients_of_vmap(matrix_product, args, mapped))


def test_gradients_of_a_matrix_product_keep_its_precision():
    with jax.default_matmul_precision("highest"):
        product = jax.vjp(matrix_product, jnp.ones((3, 4)), jnp.ones((4, 6)))[1]
    program = str(jax.make_jaxpr(jax.vmap(cnn.plain(product)))(jnp.ones((2, 3, 6))))
    assert program.count("dot_general") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 2


def test_per_example_gradients_of_a_matrix_product_are_not_copied():
    gradient = jax.vmap(jax.grad(lambda w, x: jnp.square(matrix_product(x, w)).sum()), (None, 0))
    compiled = cnn.jit(gradient).lower(jnp.ones((40, 12)), jnp.ones((32, 1, 40))).compile()
    assert not {" copy(", " transpose("} & {*re.findall(r" \w+\(", compiled.as_text())}


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_export(platform):
    """A program of several models for each backend; on a CPU it gives the same values."""
    f = jax.jit(jax.vmap(jax.grad(loss, 1)))
    args = jnp.stack([IMAGE, IMAGE]), jnp.stack([KERNEL, 2 * KERNEL])
    exported = jax.export.export(f, platforms=[platform])(*args)
    if platform == "cpu":
        close(exported.call(*args), f(*args))
    assert f"{platform}" in exported.platforms


def test_export_with_a_symbolic_number_of_models():
    scope = jax.export.SymbolicScope()
    specs = [
        jax.ShapeDtypeStruct(jax.export.symbolic_shape(f"k, {shape}", scope=scope), jnp.float32)
        for shape in ("2, 6, 6, 4", "3, 3, 4, 4")
    ]
    f = jax.vmap(jax.grad(loss, 1))
    args = jnp.stack([IMAGE, IMAGE]), jnp.stack([KERNEL, 2 * KERNEL])
    close(jax.export.export(jax.jit(f))(*specs).call(*args), jax.jit(f)(*args))


CASES = {  # a rule -> examples, spatial, channels, features, size, stride, groups
    "direct": (2, (6, 6), 4, 8, 3, 1, 1),
    "grouped": (2, (6, 6), 8, 8, 3, 1, 2),
    "pointwise": (2, (4, 4), 5, 6, 1, 1, 1),
    "im2col": (2, (2, 2), 5, 6, 3, 1, 1),
    "winograd": (2, (4, 4), 5, 6, 3, 1, 1),
    "depth slices": (2, (3, 4, 4), 5, 6, 3, 1, 1),
    "lax": (2, (6, 6), 17, 18, 3, 1, 1),
    "col2im": (2, (6, 6), 5, 6, 3, 2, 1),
    "phases": (2, (6, 6), 4, 4, 3, 2, 4),
    "rotated": (2, (6, 6), 17, 18, 3, 1, 1),
    "by position": (2, (6, 6), 5, 6, 3, 1, 1),
    "over examples": (2, (6, 6), 5, 6, 3, 1, 1),
    "by row": (2, (6, 6), 4, 4, 3, 1, 4),
    "patches": (2, (7, 6), 5, 6, 3, 3, 1),
}


@pytest.mark.sample(3, 1)
@pytest.mark.parametrize("rule", CASES)
@pytest.mark.usefixtures("quick_compilation")
def test_every_rule_of_several_models(rule):
    examples, spatial, channels, features, size, stride, groups = CASES[rule]
    rank, pad = len(spatial), 0 if stride == size else size // 2
    window = Window((size,) * rank, (stride,) * rank, (1,) * rank, ((pad, pad),) * rank, (1,) * rank)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, examples, *spatial, channels)).astype(np.float32)
    w = rng.normal(size=(3, *(size,) * rank, channels // groups, features)).astype(np.float32)
    f = lambda x, w: jnp.sin(convolve(x, w, window, groups)).sum()
    gradient = jax.value_and_grad(f, (0, 1))
    one = jax.jit(gradient)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one(*pair) for pair in zip(x, w, strict=True)))
    several = jax.jit(jax.vmap(gradient))
    with forced(rule):
        close(several(x, w), expected)


def test_cases_cover_all_rules():
    convolutions = ("forward", "input gradient", "kernel gradient")
    names = {rule.name for operation in convolutions for rule in TABLES[operation]}
    assert {*CASES} == names - NEED_ONEDNN  # not available with a compilation cache


@pytest.mark.usefixtures("quick_compilation")
def test_a_network_of_several_models():
    """The gradients of networks with all kinds of layers equal those of a loop over models."""
    model = cnn.serial(
        cnn.conv(4, bias=False),
        cnn.batch_norm(),
        jax.nn.relu,
        cnn.max_pool(2),
        cnn.depthwise_conv(),
        cnn.group_norm(2),
        cnn.avg_pool(2, padding="same"),
        cnn.global_avg_pool,
        cnn.dense(3),
    )
    keys = jax.random.split(jax.random.key(0), 3)
    params, state = jax.vmap(model.init, (0, None))(keys, jnp.asarray(IMAGE))
    batch = {"image": jnp.asarray(IMAGE), "label": jnp.array([0, 2])}
    gradient = jax.grad(cnn.cross_entropy(model), has_aux=True)
    step = lambda params, state: gradient(params, state, batch, train=True)
    found = jax.jit(jax.vmap(step))(params, state)
    one = jax.jit(step)
    of_model = lambda i: jax.tree.map(lambda leaf: leaf[i], (params, state))
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(one(*of_model(i)) for i in range(3)))
    close(found, expected)


@pytest.mark.parametrize("layer", [cnn.dense(3), cnn.prelu()])
def test_vmap_over_vectors(layer):
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    params, state = layer.init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf + 0.5, params)  # biases are not 0
    apply = lambda params, x: layer.apply(params, state, x, train=False)[0]
    np.testing.assert_allclose(jax.vmap(apply, (None, 0))(params, x), apply(params, x), 1e-6)
    gradient = jax.grad(lambda params, x: jnp.sin(apply(params, x)).sum())
    summed = jax.tree.map(lambda leaf: leaf.sum(0), jax.vmap(gradient, (None, 0))(params, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), summed, gradient(params, x))


@pytest.mark.parametrize("train", [True, False])
def test_vmap_over_scalars_of_several_layers(train):
    layer = cnn.parallel(lambda a, b: a + b, jnp.sin, jnp.cos)
    times = jnp.arange(3.0)
    f = lambda t: layer.apply({}, {}, t, train=train)[0]
    np.testing.assert_allclose(jax.vmap(f)(times), jnp.sin(times) + jnp.cos(times), 1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(times), jnp.cos(times) - jnp.sin(times), 1e-6)
