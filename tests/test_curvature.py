"""Curvature: exact against dense Hessians of a small network in float64; influence against leaving examples out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.flatten_util import ravel_pytree

import jaxcnn as cnn
from jaxcnn import curvature
from jaxcnn.curvature import gauss_newton_vector_product, hessian_vector_product, top_eigenvalues

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODEL = cnn.serial(conv=cnn.conv(2, stride=2), tanh=jnp.tanh, flat=cnn.flatten, head=cnn.dense(3))
RANDOM = np.random.default_rng(0)
DATA = {"image": RANDOM.normal(size=(7, 4, 4, 1)), "label": np.arange(7) % 3}
DATA |= {"weight": np.array([1, 2, 1, 0.5, 0, 1, 3])}


def one_batch(data):
    """The parts of the mean loss: params -> logits, and logits -> loss."""
    weight = jnp.asarray(data["weight"])

    def loss_of_logits(logits):
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), data["label"][:, None], 1)[:, 0]
        return -(weight @ log_p) / weight.sum()

    return lambda params: MODEL.apply(params, {}, jnp.asarray(data["image"]), train=False)[0], loss_of_logits


def parameters(dtype):
    params, _ = MODEL.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32))
    return jax.tree.map(lambda p: p.astype(dtype), params)


def columns(product, params):
    """The dense matrix of a product."""
    flat, unravel = ravel_pytree(params)
    return jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])(jnp.eye(flat.size, dtype=flat.dtype))


@functools.cache
def dense():
    """In float64: losses, matrices from products, the same matrices from jax.hessian and jax.jacobian."""

    @jax.jit
    def compute():
        params = parameters(jnp.float64)
        flat, unravel = ravel_pytree(params)
        logits, loss_of_logits = one_batch(DATA)
        of_vector = lambda v: logits(unravel(v)).ravel()
        shaped = lambda z: loss_of_logits(z.reshape(len(DATA["label"]), 3))
        loss = curvature.mean_loss(cnn.cross_entropy(MODEL), {}, DATA, batch_size=3)
        hessian_product = functools.partial(hessian_vector_product, loss, params)
        newton_product = functools.partial(gauss_newton_vector_product, logits, loss_of_logits, params)
        return {
            "losses": (loss(params), shaped(of_vector(flat))),
            "hessian": (columns(hessian_product, params), jax.hessian(lambda v: shaped(of_vector(v)))(flat)),
            "gauss newton": columns(newton_product, params),
            "jacobian": jax.jacobian(of_vector)(flat),
            "hessian of logits": jax.hessian(shaped)(of_vector(flat)),
        }

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, compute())


def test_mean_loss_in_batches_equals_the_weighted_mean():
    np.testing.assert_allclose(*dense()["losses"], rtol=1e-12)


@pytest.mark.parametrize("options", [{"ignore_label": 1}, {"class_weight": [1.0, 2.0, 5.0]}])
def test_mean_loss_in_one_batch_is_exact(options):
    """As documented: in several batches, it is not."""
    loss_fn = cnn.cross_entropy(MODEL, **options)
    params, data = parameters(jnp.float32), jax.tree.map(jnp.asarray, DATA)
    found = curvature.mean_loss(loss_fn, {}, data, batch_size=len(data["label"]))(params)
    np.testing.assert_allclose(found, loss_fn(params, {}, data, train=False)[0], rtol=1e-6)


def test_mean_loss_of_another_byte_order():
    params, swapped = parameters(jnp.float32), {name: x.astype(x.dtype.newbyteorder()) for name, x in DATA.items()}
    found, expected = (curvature.mean_loss(cnn.cross_entropy(MODEL), {}, data)(params) for data in (swapped, DATA))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_hessian_is_dense_hessian():
    found, expected = dense()["hessian"]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gauss_newton_is_dense_and_positive_semidefinite():
    J, H = dense()["jacobian"], dense()["hessian of logits"]
    np.testing.assert_allclose(dense()["gauss newton"], J.T @ H @ J, atol=1e-12)
    assert abs(dense()["gauss newton"] - dense()["hessian"][0]).max() > 0.01
    assert np.linalg.eigvalsh(dense()["gauss newton"]).min() > -1e-12


@functools.cache
def eigenpairs(sign, k, steps):
    """Those of the Hessian or its negative, in float64."""
    matrix = sign * dense()["hessian"][1]
    with jax.enable_x64(True):
        like = {"a": jnp.zeros((5, 4)), "b": jnp.zeros(len(matrix) - 20)}
        product = lambda v: ravel_pytree(like)[1](matrix @ ravel_pytree(v)[0])
        values, vectors = jax.jit(lambda: top_eigenvalues(product, like, k, steps=steps, key=jax.random.key(1)))()
    assert vectors["a"].shape == (k, 5, 4)
    vectors = np.concatenate([vectors["a"].reshape(k, -1), vectors["b"]], 1)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(k), atol=1e-12)
    return matrix, np.asarray(values), vectors


def test_all_eigenvalues_with_as_many_steps_as_parameters():
    """The Hessian is singular, as softmax ignores a constant: Lanczos starts again in the null space."""
    size = len(dense()["hessian"][1])
    matrix, values, vectors = eigenpairs(1, size, 10**6)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1], atol=1e-12)
    np.testing.assert_allclose(vectors.T @ np.diag(values) @ vectors, matrix, atol=1e-12)
    assert (abs(values) < 1e-12).sum() >= 3


@pytest.mark.sample(2)
@pytest.mark.parametrize("sign", [1, -1])
def test_few_steps_give_the_eigenpairs_at_an_end_of_the_spectrum(sign):
    matrix, values, vectors = eigenpairs(sign, 3, 30)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1][:3], rtol=1e-8)
    np.testing.assert_allclose(vectors @ matrix, values[:, None] * vectors, atol=1e-5)


@pytest.mark.slow
def test_eigenvalues_in_float32_do_not_repeat():
    """Without orthogonalization, rounding makes Lanczos find large eigenvalues several times."""
    spectrum = np.concatenate([np.linspace(0, 1, 197), [10, 20, 300]]).astype(np.float32)
    values, _ = top_eigenvalues(lambda v: spectrum * v, spectrum, 5, steps=100)
    np.testing.assert_allclose(values, [300, 20, 10, 1, 1 - 1 / 196], rtol=1e-4)


def test_eigenvalues_of_low_rank_and_of_zero():
    factor = RANDOM.normal(size=(50, 3)).astype(np.float32)
    values, _ = top_eigenvalues(lambda v: factor @ (factor.T @ v), jnp.zeros(50), 5, steps=20)
    expected = np.append(np.linalg.eigvalsh(factor.T @ factor)[::-1], [0, 0])
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-4)
    identical, _ = top_eigenvalues(lambda v: 2 * v, jnp.zeros(50), 5, steps=20)
    np.testing.assert_allclose(identical, [2] * 5, rtol=1e-6)
    nothing, _ = top_eigenvalues(jnp.zeros_like, jnp.zeros(50), 5, steps=20)
    np.testing.assert_array_equal(nothing, 0)


@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1e25, 1e35])
def test_eigenvalues_whose_squares_overflow_or_underflow(scale):
    diagonal = jnp.array([1.0, 2.0, 3.0]) * scale
    values, vectors = top_eigenvalues(lambda v: diagonal * v, jnp.ones(3), 3)
    np.testing.assert_allclose(values, diagonal[::-1], rtol=1e-5)
    np.testing.assert_allclose(abs(vectors), np.eye(3)[::-1], atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_eigenvalues_in_half_precision(dtype):
    """Only the products are in half precision."""
    diagonal = jnp.array([1, 2, 3, 8], dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        values, vectors = top_eigenvalues(lambda v: diagonal * v, diagonal, 4)
    np.testing.assert_allclose(values, [8, 3, 2, 1], rtol=0.02)
    assert (values.dtype, vectors.dtype) == (jnp.float32, dtype)


# ------------------------------------------------------------------------------------------------------------ influence

N = 120
POINTS = {"image": RANDOM.normal(size=(N, 4)), "label": RANDOM.integers(0, 3, N)}
POINTS["image"][np.arange(N), POINTS["label"]] += 1  # classes overlap
TEST = {"image": RANDOM.normal(size=(20, 4)), "label": RANDOM.integers(0, 3, 20)}
HEAD = cnn.cross_entropy(cnn.dense(3))
STRENGTH = 0.02


def head_loss(params, weight):
    """Softmax regression with an L2 penalty, which is strictly convex."""
    penalty = STRENGTH * sum((leaf**2).sum() for leaf in jax.tree.leaves(params))
    return HEAD(params, {}, POINTS | {"weight": weight}, train=False)[0] + penalty


def fit(weight):
    """The minimum of `head_loss`, by Newton's method."""
    flat, unravel = ravel_pytree({"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)})
    loss = lambda v: head_loss(unravel(v), weight)
    newton = lambda v, _: (v - jnp.linalg.solve(jax.hessian(loss)(v), jax.grad(loss)(v)), None)
    return unravel(jax.lax.scan(newton, flat, length=12)[0])


@functools.cache
def leave_one_out():
    """In float64: how losses change without each example, what influence predicts, and the dense matrices."""

    @jax.jit
    def compute():
        params, without = fit(jnp.ones(N)), jax.vmap(fit)(1 - jnp.eye(N))
        one = curvature.example_loss(HEAD, {})
        target = lambda params: HEAD(params, {}, TEST, train=False)[0]
        product = functools.partial(hessian_vector_product, lambda p: head_loss(p, jnp.ones(N)), params)
        own_losses = jax.vmap(one)(without, POINTS), jax.vmap(one, (None, 0))(params, POINTS)
        options = {"tolerance": 1e-12, "batch_size": 50}
        vector = lambda tree: ravel_pytree(tree)[0]
        return {
            "gradient": vector(jax.grad(head_loss)(params, jnp.ones(N))),
            "change of target": jax.vmap(target)(without) - target(params),
            "influence": curvature.influence(product, one, target, params, POINTS, **options),
            "change of own loss": own_losses[0] - own_losses[1],
            "self_influence": curvature.self_influence(product, one, params, POINTS, **options),
            "hessian": columns(product, params),
            "gradients": jax.vmap(lambda x: vector(jax.grad(one)(params, x)))(POINTS),
            "gradient of target": vector(jax.grad(target)(params)),
        }

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, compute())


@pytest.mark.parametrize(
    ("name", "change"), [("influence", "change of target"), ("self_influence", "change of own loss")]
)
def test_influence_predicts_leave_one_out(name, change):
    """The order, and the size up to the change of the Hessian, which the first order leaves out."""
    results = leave_one_out()
    assert abs(results["gradient"]).max() < 1e-12
    predicted, actual = results[name], results[change]
    assert scipy.stats.spearmanr(predicted, actual).statistic > 0.98
    assert 1 < np.polyfit(predicted, actual, 1)[0] < 1.3


def test_influence_is_that_of_a_dense_inverse():
    results = leave_one_out()
    gradients, target = results["gradients"], results["gradient of target"]
    inverse = np.linalg.inv(results["hessian"])
    np.testing.assert_allclose(results["influence"], gradients @ inverse @ target / N, rtol=1e-8, atol=1e-14)
    own = np.einsum("ni,ij,nj->n", gradients, inverse, gradients) / N
    np.testing.assert_allclose(results["self_influence"], own, rtol=1e-8)


def test_damping_is_added_to_the_eigenvalues():
    points, product, loss = jnp.array([1.0, -1.0]), lambda v: 2 * v, lambda p, x: (x * p).sum()
    values = curvature.influence(product, loss, jnp.sum, jnp.ones(3), points, damping=0.5)
    np.testing.assert_allclose(values, [3 / 2.5 / 2, -3 / 2.5 / 2], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1e25, 1e35])
def test_influence_on_a_tiny_or_huge_target(scale):
    points = jnp.array([1.0, 2.0, 6.0])
    values = curvature.influence(
        lambda v: 2 * v, lambda p, x: (p - x) ** 2, lambda p: scale * p, jnp.array(3.0), points
    )
    np.testing.assert_allclose(values, scale * np.array([2 / 3, 1 / 3, -1]), rtol=1e-5)


def test_self_influence_of_tiny_gradients():
    """Squares of 1e-18 times the tolerance are below the range of float32."""
    scale, diagonal = jnp.array([1.0, 2e-18, 0.0]), jnp.linspace(1, 30, 50)
    values = curvature.self_influence(lambda v: diagonal * v, lambda p, s: s * p.sum(), jnp.ones(50), scale)
    expected = (1 / np.asarray(diagonal, float)).sum() / 3
    np.testing.assert_allclose(values[:2], [expected, 4e-36 * expected], rtol=1e-4)
    assert values[2] == 0


@pytest.mark.slow
def test_network_in_float32_and_strict_modes():
    """By Gauss-Newton products, with damping: equal to dense inverses."""
    types = {"image": np.float32, "label": np.int32, "weight": np.float32}
    data = {name: DATA[name].astype(dtype) for name, dtype in types.items()}
    examples = {name: data[name] for name in ("image", "label")}

    def compute(params):
        loss_fn = cnn.cross_entropy(MODEL)
        loss, one = curvature.mean_loss(loss_fn, {}, data, 4), curvature.example_loss(loss_fn, {})
        matvec = functools.partial(gauss_newton_vector_product, *one_batch(data), params)
        options = {"damping": 0.1, "batch_size": 4}
        gradients = jax.vmap(lambda x: ravel_pytree(jax.grad(one)(params, x))[0])(examples)
        return {
            "eigenvalues": top_eigenvalues(matvec, params, 3, steps=30).values,
            "influence": curvature.influence(matvec, one, loss, params, examples, **options),
            "self_influence": curvature.self_influence(matvec, one, params, examples, **options),
            "gradients": gradients,
        }

    params = parameters(jnp.float32)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        found = jax.jit(compute)(params)
    matrix, gradients = dense()["gauss newton"], np.asarray(found["gradients"], float)
    inverse = np.linalg.inv(matrix + 0.1 * np.eye(len(matrix)))
    mean = data["weight"] @ gradients / data["weight"].sum()
    np.testing.assert_allclose(found["eigenvalues"], np.linalg.eigvalsh(matrix)[:-4:-1], rtol=1e-4)
    np.testing.assert_allclose(found["influence"], gradients @ inverse @ mean / 7, rtol=1e-3, atol=1e-5)
    own = np.einsum("ni,ij,nj->n", gradients, inverse, gradients) / 7
    np.testing.assert_allclose(found["self_influence"], own, rtol=1e-3)
    with jax.enable_x64(True):
        assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(compute, params))} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: top_eigenvalues(lambda v: v, jnp.ones(3), 4), ValueError, "k=4 must be at most steps=3, .* 3 para"),
        (lambda: top_eigenvalues(lambda v: v, jnp.ones(3), 0), ValueError, "top_eigenvalues: k must be at least 1"),
        (lambda: top_eigenvalues(lambda v: v, jnp.ones(3), key=0), TypeError, "key must be a random key"),
        (
            lambda: top_eigenvalues(lambda v: v, {"a": jnp.ones(3), "b": jnp.ones(2, int)}),
            TypeError,
            r"top_eigenvalues: params must be floating-point arrays, got int32 of shape \(2,\)",
        ),
        (lambda: curvature.mean_loss(MODEL, {}, DATA), TypeError, "mean_loss needs a loss, such as cross_entropy"),
        (lambda: curvature.mean_loss(HEAD, {}, {"image": np.ones(3), "label": np.ones(2)}), ValueError, "lengths"),
        (
            lambda: top_eigenvalues(lambda v: v[:2], jnp.ones(3)),
            ValueError,
            r"top_eigenvalues: matvec must return .*shapes of params, \[\(3,\)\], but gives \[\(2,\)\]",
        ),
        *(
            (
                lambda examples=examples: curvature.influence(lambda v: v, jnp.vdot, jnp.sum, jnp.ones(3), examples),
                ValueError,
                r"influence: examples must be arrays with the same first dimension N, at least 1, got shapes \[",
            )
            for examples in ((jnp.ones((3, 2)), jnp.ones((2, 2))), jnp.ones(()), jnp.ones((0, 3)), {})
        ),
        (lambda: curvature.example_loss(MODEL, {}), TypeError, "example_loss needs a loss"),
        (
            lambda: curvature.influence(jnp.zeros_like, lambda p, x: (p * x).sum(), jnp.sum, jnp.ones(3), jnp.ones(2)),
            ValueError,
            "influence: conjugate gradients found no solution; .* increase damping",
        ),
        *(
            (
                lambda diagonal=diagonal: curvature.self_influence(
                    lambda v: jnp.array(diagonal) * v, lambda p, x: (p * x).sum(), jnp.ones(3), jnp.eye(3)
                ),
                ValueError,
                "self_influence: conjugate gradients found no solution; .* must be positive definite",
            )
            for diagonal in ([1.0, -2.0, 0.5], [-1.0, -1.0, -1.0])
        ),
        (
            lambda: curvature.self_influence(jnp.zeros_like, lambda p, x: (p * x).sum(), jnp.ones(3), jnp.ones(2)),
            ValueError,
            "self_influence: conjugate gradients found no solution",
        ),
        (
            lambda: curvature.influence(lambda v: v, jnp.vdot, jnp.sum, jnp.ones(3), jnp.ones((2, 3)), damping=-1.0),
            ValueError,
            "influence: damping must be at least 0",
        ),
    ],
)
def test_mistake(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


def test_no_solution_is_nan_inside_a_compiled_function():
    loss = lambda p, x: (p * x).sum()
    compiled = jax.jit(lambda: curvature.influence(jnp.zeros_like, loss, jnp.sum, jnp.ones(3), jnp.ones(2)))
    assert np.isnan(compiled()).all()
