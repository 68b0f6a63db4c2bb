"""Properties that every layer and transform must have, tested on all cases of `tests.layers`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.test_util import check_grads

import jaxcnn as cnn
from tests.layers import BY_NAME, CASES, Case, example

pytestmark = pytest.mark.sample(8)

KEY = jax.random.key(7)

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def assert_close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x, np.float32), np.asarray(y, np.float32), tolerance, tolerance)


def types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.aval.weak_type), tree)


def test_table_is_complete():
    called = {case.name.split("_counting")[0] for case in CASES}
    losses = {"cross_entropy", "mean_squared_error", "mixup", "cutmix", "regularized", "l1", "l2", "elastic_net"}
    losses |= {"focal", "binary_cross_entropy", "dice", "mean_absolute_error", "huber", "weighted_sum", "distillation"}
    losses |= {"per_member", "adversarial", "pgd", "sharpness_aware", "clip_per_example"}
    others = {
        "Layer",
        "LossFn",
        "stateless",
        "as_layer",
        "export",
        "jit",
        "mask",
        "paths",
        "count_params",
        "orthogonal",
        "capture",
        "plain",
        "split_members",
        "stack_members",
    }
    packages = {"curvature", "data", "explain", "metrics", "models", "report", "train", "uncertainty", "weights"}
    assert set(cnn.__all__) - called == losses | others | packages


@every
def test_init(case: Case):
    *_, x = example(case)
    init = jax.jit(case.layer.init)
    params, state = init(KEY, x)
    assert_close(
        (params, state), jax.jit(lambda key: case.layer.init(key, jax.ShapeDtypeStruct(x.shape, x.dtype)))(KEY)
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path((params, state)):
        assert leaf.dtype == jnp.float32
        assert not leaf.aval.weak_type
        assert path[-1].key in ("kernel", "bias", "scale", "mean", "var")
    assert all(children for children in _dicts((params, state)))


def _dicts(tree):
    for child in tree if isinstance(tree, tuple) else tree.values():
        if isinstance(child, dict):
            yield from () if isinstance(tree, tuple) else [child]
            yield from _dicts(child)


@every
@pytest.mark.parametrize("train", [False, True])
def test_jit_equals_eager_and_state_is_closed(case: Case, train: bool):
    params, state, x = jax.tree.map(jnp.asarray, example(case))
    apply = functools.partial(case.layer.apply, train=train)
    y, new = apply(params, state, x, key=KEY)
    assert_close((y, new), jax.jit(apply)(params, state, x, key=KEY), case.tolerance)
    assert types(new) == types(state)
    assert y.dtype == x.dtype


@every
def test_arrays_that_jax_does_not_read(case: Case):
    """NumPy arrays in the other byte order, as from FITS and IDX files, and of long doubles."""
    params, state, x = example(case)
    native = case.layer.apply(params, state, x, train=True, key=KEY)
    for dtype in (x.dtype.newbyteorder(), np.longdouble):
        other = x.astype(dtype)
        shapes = lambda x: jax.tree.map(jnp.shape, case.layer.init(KEY, x))
        assert shapes(other) == shapes(x)
        assert_close(case.layer.apply(params, state, other, train=True, key=KEY), native, 0)


@every
def test_evaluation(case: Case):
    params, state, x = jax.tree.map(jnp.asarray, example(case))
    apply = jax.jit(functools.partial(case.layer.apply, train=False))
    with jax.numpy_dtype_promotion("strict"):
        y, new = apply(params, state, x)
    assert_close(new, state, 0)
    one_by_one = jnp.concatenate([apply(params, state, x[n : n + 1])[0] for n in range(len(x))])
    assert_close(y, one_by_one, case.tolerance)
    assert apply(params, state, x[:0])[0].shape == (0, *y.shape[1:])
    mapped = jax.vmap(lambda x: case.layer.apply(params, state, x, train=False)[0])(x[:, None])
    assert_close(y, mapped[:, 0], case.tolerance)


@every
def test_bfloat16(case: Case):
    params, state, x = example(case)
    apply = jax.jit(functools.partial(case.layer.apply, train=not case.random))
    low = jnp.asarray(x, jnp.bfloat16)
    with jax.numpy_dtype_promotion("strict"):
        y, new = apply(params, state, low, key=KEY)
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(new))
    exact, _ = apply(params, state, low.astype(jnp.float32), key=KEY)
    assert_close(y, exact, 0.1)


@every
def test_every_parameter_has_a_gradient(case: Case):
    params, state, x = example(case)

    def loss(params):
        y, _ = case.layer.apply(params, state, x, train=True, key=KEY)
        return jnp.sum(jnp.sin(3 * y + 1))

    gradients = jax.jit(jax.grad(loss))(params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(gradient).all(), path
        frozen = case.name == "freeze" and path[0].key == "body"
        before_norm = case.across and path[-1].key == "bias" and path[-2:-1] and path[-2].key == "conv"
        if not before_norm:  # batch norm cancels this bias
            assert bool((gradient != 0).any()) != frozen, path


@every
def test_compiles_once(case: Case):
    params, state, x = jax.tree.map(jnp.asarray, example(case))
    traces = []

    @jax.jit
    def step(params, state, x, key):
        traces.append(1)
        return case.layer.apply(params, state, x, train=True, key=key)[1]

    for seed in range(3):
        state = step(params, state, x, jax.random.key(seed))
    assert len(traces) == 1


@every
@pytest.mark.parametrize("train", [False, True])
def test_exports_for_cpu_cuda_and_tpu(case: Case, train: bool):
    params, state, x = example(case)
    apply = jax.jit(functools.partial(case.layer.apply, train=train))
    exported = export.export(apply, platforms=("cpu", "cuda", "tpu"))(params, state, x, key=KEY)
    y, _ = exported.call(params, state, x, key=KEY)
    assert_close(y, apply(params, state, x, key=KEY)[0])


@every
def test_exports_with_any_batch_size(case: Case):
    params, state, x = example(case)
    (batch,) = export.symbolic_shape("batch")
    spec = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    apply = jax.jit(functools.partial(case.layer.apply, train=False))
    exported = export.export(apply)(params, state, spec)
    assert_close(exported.call(params, state, x)[0], apply(params, state, x)[0])


@pytest.mark.sample(24, 8)
@pytest.mark.parametrize("case", [case for case in CASES if case.name != "cast"], ids=lambda case: case.name)
@pytest.mark.usefixtures("quick_compilation")
def test_derivatives(case: Case):
    train = case.name != "spectral_norm"  # its power iteration in training is not differentiated
    with jax.enable_x64(True):
        params, state, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), example(case))
        fixed = {"body": params.pop("body")} if case.name == "freeze" else {}

        @jax.jit
        def y(params, x):
            return case.layer.apply(params | fixed, state, x, train=train, key=KEY)[0]

        check_grads(y, (params, x), order=2, modes=["fwd", "rev"], atol=1e-4, rtol=1e-4, eps=1e-5)


@pytest.mark.sample(1)
@every
def test_training_requires_key_only_if_random(case: Case):
    params, state, x = example(case)
    train = functools.partial(jax.eval_shape, functools.partial(case.layer.apply, train=True))
    if case.random:
        with pytest.raises(ValueError, match=r"random in training: call apply\(\.\.\., train=True, key="):
            train(params, state, x)
    else:
        train(params, state, x)
    with pytest.raises(TypeError, match="train"):
        case.layer.apply(params, state, x)
    with pytest.raises(TypeError, match="trian"):
        case.layer.apply(params, state, x, trian=True)


@pytest.mark.sample(3)
@pytest.mark.parametrize("case", [case for case in CASES if case.random], ids=lambda case: case.name)
def test_randomness_depends_only_on_key(case: Case):
    params, state, x = example(case)
    apply = jax.jit(functools.partial(case.layer.apply, train=True))
    first, again, other = (apply(params, state, x, key=jax.random.key(seed))[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    legacy = apply(params, state, x, key=jax.random.PRNGKey(0))[0]
    assert (first == legacy).all()


def test_state_stays_float32_under_x64():
    case = BY_NAME["batch_norm"]
    with jax.enable_x64(True):
        params, state, x = example(case, np.float64)
        y, new = case.layer.apply(params, state, jnp.asarray(x), train=True)
        assert y.dtype == jnp.float64
        assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {np.dtype("float32")}
