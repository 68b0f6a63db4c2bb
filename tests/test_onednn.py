"""Calls of oneDNN: same values and derivatives as `lax`, same NaN, deterministic, and only where XLA supports them.

The other tests have a compilation cache and therefore run without oneDNN.
"""

import functools
import os
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import jaxcnn as cnn
from jaxcnn import explain
from jaxcnn._lowering import _lax, _onednn, _problem, _rules, convolve
from jaxcnn._lowering._dense import matrix_product
from jaxcnn._window import Window
from tests.test_locality import CONVOLUTIONS, IM2COL, Conv, check_locality
from tests.test_lowering import close, convolutions, everything, same_derivatives_as_lax, small
from tests.test_rules import problem

CONVOLUTION, MATMUL = "__onednn$convolution", "__onednn$matmul"
IS_X86 = platform.machine() in ("x86_64", "AMD64")


pytestmark = pytest.mark.usefixtures("no_compilation_cache")
needs_onednn = pytest.mark.skipif(not IS_X86, reason="not an x86 processor")


def lowered(f, *args):
    return jax.jit(f).lower(*args).as_text()


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def window(size, stride=1, dilation=1, padding=(1, 1)):
    each = lambda value: value if isinstance(value, tuple) else (value,) * len(size)
    padding = padding if isinstance(padding[0], tuple) else (padding,) * len(size)
    return Window(size, each(stride), each(dilation), padding, (1,) * len(size))


def test_available_on_x86():
    assert _onednn._works() == IS_X86


@needs_onednn
@small
@given(convolutions())
@pytest.mark.usefixtures("quick_compilation")
def test_random_convolutions(case):
    same_derivatives_as_lax(case)


@needs_onednn
@pytest.mark.parametrize(
    ("shape", "window", "features", "groups"),
    [
        ((2, 9, 8, 24), window((3, 3)), 32, 1),
        ((2, 9, 8, 24), window((2, 3), (2, 1), (1, 2), ((0, 2), (3, 0))), 32, 1),
        ((2, 9, 8, 24), window((3, 3)), 24, 24),
        ((2, 9, 8, 24), window((3, 3), 2), 48, 24),
        ((2, 9, 8, 24), window((3, 3), 2), 16, 4),
        ((2, 9, 8, 1), window((1, 1), padding=(0, 0)), 4, 1),
        ((2, 70, 8), window((5,), padding=(7, 9)), 9, 1),
        ((2, 70, 8), window((5,), 3), 8, 8),
        ((2, 5, 9, 8, 8), window((3, 2, 3), 2), 9, 1),
        ((2, 5, 9, 8, 8), window((3, 3, 3)), 8, 8),
    ],
)
def test_convolutions(shape, window, features, groups):
    x, w = normal(*shape), normal(*window.size, shape[-1] // groups, features, seed=1)
    problem = _problem.forward(x, w, window, groups)
    assert _onednn.fits(problem)
    call = jax.jit(functools.partial(_onednn.forward, problem=problem))
    assert CONVOLUTION in call.lower(x, w).as_text()
    np.testing.assert_allclose(call(x, w), _lax.forward(x, w, problem), atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(call(x, w), call(x, w))


@needs_onednn
@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize(
    ("channels", "groups", "size", "stride", "pad"),
    [(16, 1, 3, 1, 1), (8, 8, 3, 1, 1), (16, 1, 4, 2, 1), (64, 1, 1, 1, 0), (64, 1, 1, 2, 0), (64, 1, 2, 2, 0)],
)
def test_several_models(models, channels, groups, size, stride, pad):
    x, w = normal(models, 2, 6, 5, channels), normal(models, size, size, channels // groups, channels, seed=1)
    convolution = lambda x, w: convolve(x, w, window((size, size), stride, padding=(pad, pad)), groups)
    value_and_gradient = lambda x, w: jax.value_and_grad(lambda *a: jnp.sin(convolution(*a)).sum(), (0, 1))(x, w)
    several = jax.jit(jax.vmap(value_and_gradient))(x, w)
    one_by_one = [value_and_gradient(*each) for each in zip(x, w, strict=True)]
    close(several, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one))


@needs_onednn
@pytest.mark.sample(3)
@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=lambda conv: conv.name)
def test_locality(conv, monkeypatch):
    check_locality(conv, monkeypatch)


@needs_onednn
@pytest.mark.parametrize("pad", [0, 1])
def test_locality_of_few_outputs(pad, monkeypatch):
    conv = Conv("few outputs", (1, 4, 4, 16), (3, 3, 16, 48), pad=(pad, pad))
    assert IM2COL in check_locality(conv, monkeypatch)


@needs_onednn
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("poisoned", [0, 1])
def test_activations_do_not_hide_values_that_are_not_finite(poisoned, bad):
    """XLA would merge an activation into its own calls of oneDNN, whose ReLU turns NaN into 0."""
    args = normal(4, 8, 8, 16), normal(3, 3, 16, 16, seed=1)
    args[poisoned][1, 1, 0, 0] = bad  # of the kernel, a tap that reads no padding
    plain = functools.partial(_lax.forward, problem=_problem.forward(*args, window((3, 3)), 1))
    assert CONVOLUTION in lowered(lambda x, w: convolve(x, w, window((3, 3)), 1), *args)
    for activation in (jax.nn.relu, jax.nn.relu6, jax.nn.gelu, jax.nn.softmax):
        f = lambda x, w, activation=activation: activation(convolve(x, w, window((3, 3)), 1) + 1)
        expected = np.isnan(activation(plain(*args) + 1))
        assert expected.any() or np.isinf(bad)
        np.testing.assert_array_equal(np.isnan(cnn.jit(f)(*args)), expected)
        np.testing.assert_array_equal(np.isnan(jax.jit(f)(*args)), expected)


@needs_onednn
@pytest.mark.parametrize("rows", [(2048,), (4, 512), (16, 8, 16)])
def test_dense_products(rows):
    x, w = normal(*rows, 48), normal(48, 40, seed=1)
    assert lowered(matrix_product, x, w).count(MATMUL) == 1
    gradient = jax.grad(lambda x, w: jnp.sin(matrix_product(x, w)).sum(), (0, 1))
    assert lowered(gradient, x, w).count(MATMUL) == 3
    close(everything(matrix_product, x, w), everything(lambda x, w: x @ w, x, w))


@needs_onednn
def test_dense_gradients_of_several_models():
    x, w = normal(3, 256, 48), normal(3, 48, 40, seed=1)
    gradient = lambda f: jax.vmap(jax.grad(lambda x, w: jnp.sin(f(x, w)).sum(), (0, 1)))
    close(gradient(matrix_product)(x, w), gradient(lambda x, w: x @ w)(x, w))


@needs_onednn
def test_dense_products_keep_nan():
    x, w = normal(2048, 48), normal(48, 40, seed=1)
    x[3, 5] = np.nan
    y = jax.jit(lambda x, w: jax.nn.relu(matrix_product(x, w)))(x, w)
    np.testing.assert_array_equal(np.isnan(y).all(1), np.arange(2048) == 3)
    assert np.isnan(y).any(1).sum() == 1


CHOICES = [
    (problem(128, (32, 32), 16, 16, 3, pad=1), "onednn", "rotated"),
    (problem(128, (14, 14), 6, 16, 5), "onednn", "rotated"),
    (problem(128, (32, 32), 16, 64, 3, pad=1), "onednn", "rotated"),
    (problem(64, (32, 32), 7, 28, 3, pad=1), "onednn", "col2im"),
    (problem(64, (32, 32), 7, 27, 3, pad=1), "onednn", "rotated"),
    (problem(64, (32, 32), 8, 32, 3, pad=1), "onednn", "rotated"),
    (problem(128, (28, 28), 1, 6, 5, pad=2), "direct", "col2im"),
    (problem(64, (16, 16), 128, 128, 1), "pointwise", "rotated"),
    (problem(64, (16, 16), 128, 256, 1, 2), "pointwise", "rotated"),
    (problem(16, (2, 2), 512, 512, 3, pad=1), "im2col", "rotated"),
    (problem(16, (4, 4), 256, 512, 3, 2, pad=1), "im2col", "col2im"),
    (problem(17, (4, 4), 256, 256, 3, pad=1)._replace(features=543), "onednn", "rotated"),
    (problem(17, (4, 4), 256, 544, 3, pad=1), "im2col", "rotated"),
    (problem(1, (5, 5), 8, 32, 3), "onednn", "rotated"),
    (problem(32, (14, 14), 256, 256, 3, pad=1), "onednn", "rotated"),
    (problem(8, (8, 8), 16, 16, 4, 1, pad=2, input_dilation=2), "lax", "rotated"),
    (problem(16, (28, 28), 128, 128, 3, pad=1, groups=128), "onednn", "rotated"),
    (problem(16, (28, 28), 128, 128, 3, 2, pad=1, groups=128), "onednn", "phases"),
    (problem(16, (28, 28), 32, 64, 4, 2, pad=1), "onednn", "convolutions of phases"),
    (problem(16, (28, 28), 32, 64, 3, 2, pad=1), "onednn", "col2im"),
    (problem(16, (28, 28), 6, 64, 4, 2, pad=1), "onednn", "col2im"),
    (problem(16, (28, 28), 32, 64, 3, pad=1, groups=32), "direct", "rotated"),
    (problem(16, (28, 28), 128, 128, 3, pad=1, groups=4), "onednn", "rotated"),
    (problem(16, (28, 28), 128, 128, 3, 2, pad=1, groups=16), "onednn", "grouped"),
    (problem(32, (512,), 64, 64, 9, pad=4, groups=64), "direct", "rotated"),
    (problem(4, (16, 16, 16), 16, 16, 3, pad=1), "onednn", "rotated"),
    (problem(128, (32, 32), 16, 16, 3, pad=1)._replace(dtype="bfloat16"), "lax", "rotated"),
    (problem(128, (14, 14), 6, 16, 5)._replace(models=4), "direct", "rotated"),
    (problem(128, (32, 32), 16, 16, 3, pad=-1), "lax", "rotated"),
]


@needs_onednn
@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: str(choice[0][1:6]))
def test_choices(choice):
    convolution, *names = choice
    for operation, name in zip(("forward", "input gradient"), names, strict=True):
        assert _rules.choose(convolution._replace(operation=operation)).name == name
        assert _rules.choose(convolution._replace(operation=operation), backend="gpu").name == "lax"


def layer_program():
    layer = cnn.serial(conv=cnn.conv(16, 3), flatten=cnn.flatten, dense=cnn.dense(32))
    x = normal(8, 16, 16, 8)
    params, _ = layer.init(jax.random.key(0), x)
    return lambda params, x: layer.apply(params, {}, x, train=False)[0], params, x


@needs_onednn
def test_exported_programs_do_not_call_onednn():
    f, *args = layer_program()
    text = lowered(f, *args)
    assert CONVOLUTION in text
    assert MATMUL in text
    exported = jax.export.export(jax.jit(f))(*args)
    assert "__onednn" not in exported.mlir_module()
    loaded = jax.export.deserialize(exported.serialize())
    close(loaded.call(*args), jax.jit(f)(*args))


@needs_onednn
def test_programs_for_a_compilation_cache_do_not_call_onednn(monkeypatch):
    f, *args = layer_program()
    monkeypatch.setattr(_onednn, "has_compilation_cache", lambda: True)
    assert "__onednn" not in lowered(f, *args)


@needs_onednn
@pytest.mark.parametrize("attribute", ["_RELEASES", "_MACHINES"])
def test_other_releases_and_machines(monkeypatch, attribute):
    monkeypatch.setattr(_onednn, attribute, ())
    monkeypatch.setattr(_onednn, "_works", functools.cache(_onednn._works.__wrapped__))
    f, *args = layer_program()
    assert "__onednn" not in lowered(f, *args)


@needs_onednn
def test_jaxlib_without_onednn(monkeypatch):
    call = lambda name, operands, shape, config: jax.ffi.ffi_call(
        "missing", jax.ShapeDtypeStruct(shape, np.float32), custom_call_api_version=2, legacy_backend_config=""
    )(*operands)
    monkeypatch.setattr(_onednn, "_call", call)
    assert not _onednn._works.__wrapped__()


@needs_onednn
def test_plan_names_onednn():
    assert "onednn" in str(explain.plan(cnn.conv(16, 3), jax.ShapeDtypeStruct((8, 16, 16, 8), jnp.float32)))


@needs_onednn
@pytest.mark.slow
def test_with_several_devices_in_a_fresh_process():
    program = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import jaxcnn as cnn
layer = cnn.conv(16, 3)
x = jax.random.normal(jax.random.key(1), (8, 16, 16, 8))
params, _ = layer.init(jax.random.key(0), x)
f = jax.jit(lambda params, x: layer.apply(params, {}, x, train=False)[0])
expected = f(params, x)
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
y = f(params, jax.device_put(x, sharding))
np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
assert y.sharding.is_equivalent_to(sharding, 4)
print("__onednn" in f.lower(params, x).as_text())
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", program]
    for environment, used in ((flags, "False"), ({}, "True")):
        result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == used


def test_float32_with_64_bits_enabled():
    """In a process of its own: oneDNN ends it if a matrix is float64."""
    program = """
import jax, jax.numpy as jnp, jaxcnn as cnn
net = cnn.serial(cnn.conv(8), cnn.batch_norm(), cnn.layer_norm(), jax.nn.relu, cnn.flatten, cnn.dense(3))
x = jnp.ones((4, 8, 8, 3), jnp.float32)
params, state = net.init(jax.random.key(0), x)
for train in (True, False):
    f = lambda params: net.apply(params, state, x, train=train)[0].sum()
    assert {leaf.dtype for leaf in jax.tree.leaves(cnn.jit(jax.grad(f))(params))} == {jnp.dtype("float32")}
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"JAX_ENABLE_X64": "1"})
