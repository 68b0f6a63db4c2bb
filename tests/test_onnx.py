"""Exported ONNX models in onnxruntime.

All models, which takes half an hour: python -m pytest tests/test_onnx.py -m "full or not full"
"""

import collections
import functools
import itertools
import json
import sys
import tempfile
import types

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

import jaxcnn
from jaxcnn import batch_norm, conv, data, dense, flatten, global_avg_pool, global_max_pool, serial, weights
from jaxcnn._extra import MissingExtraError
from jaxcnn._onnx import _window
from jaxcnn.models import MODELS
from tests import zoo_weights
from tests.layers import CASES, example
from tests.test_zoo import compared, state_dict

SAMPLE = {
    "alexnet_2012",
    "convnext_tiny",
    "efficientnet_b0",
    "googlenet",
    "inception_time",
    "lraspp_mobilenet_v3_large",
    "mobilenet_v3_small",
    "r3d_18",
    "resnet18",
    "shufflenet_v2_x0_5",
    "unet",
}
# Nodes of torch.onnx.export(torchvision's model, opset_version=18, dynamo=False) of PyTorch 2.13 without Constant and
# Identity, which hold weights.
NODES_OF_TORCH = {"resnet50": 122, "mobilenet_v3_large": 140, "convnext_tiny": 292}
PROVIDERS = ["CPUExecutionProvider"]
# These layers write to positions that depend on the input, compute in bfloat16, or draw random numbers.
WITHOUT = {"cast", "max_unpool", "max_unpool1d", "monte_carlo"}


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if sum(len(weight.raw_data) for weight in model.graph.initializer) < 2**31:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=PROVIDERS)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        onnx.save(model, path, save_as_external_data=True)  # moves the weights out of the model
        return onnxruntime.InferenceSession(path, options, providers=PROVIDERS)


def run(model, x):
    return session(model).run(None, {"x": np.asarray(x)})


def differences(model, layer, params, state, x):
    """The largest difference of each output divided by its largest value, for all examples and for one."""
    apply = jaxcnn.jit(functools.partial(layer.apply, train=False))
    expected = jax.tree.leaves(apply(params, state, x)[0])
    runtime = session(model)
    for batch in (x, x[:1]):
        for y, whole in zip(runtime.run(None, {"x": np.asarray(batch)}), expected, strict=True):
            part = np.asarray(whole)[: len(batch)]
            assert (y.shape, y.dtype) == (part.shape, part.dtype)
            y, part = y.astype(np.float64), part.astype(np.float64)
            same = (y == part) | (np.isnan(y) & np.isnan(part))
            difference = np.abs(np.where(same, 0, y - part)).max()
            yield 0.0 if difference == 0 else difference / np.nanmax(np.abs(part))


def assert_equal(*args):
    assert max(differences(*args)) <= 1e-5


def exported(name):
    """An ONNX model, the layer, its parameters, state and inputs."""
    options = compared(name)
    layer = MODELS[name](**options)
    params, state = weights.from_torch(name, state_dict(name, **options), **options)
    shape = MODELS[name].input_shape
    x = zoo_weights.images((2, *map(min, shape, zoo_weights.shape_of(name, shape))))
    return jaxcnn.export(layer, params, state, x, format="onnx"), layer, params, state, x


def operators(model):
    return [node.op_type for node in model.graph.node]


def marked(name):
    marks = {"lenet5": ()}.get(name, pytest.mark.slow if name in SAMPLE else pytest.mark.full)
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [*map(marked, MODELS)])
def test_model(name):
    assert_equal(*exported(name))


@pytest.mark.sample(30, 6)
@pytest.mark.parametrize("case", [case for case in CASES if case.name not in WITHOUT], ids=lambda case: case.name)
def test_layer(case):
    params, state, x = example(case)
    assert_equal(jaxcnn.export(case.layer, params, state, x, format="onnx"), case.layer, params, state, x)


def test_ensemble():
    """vmap of a convolution with separate inputs is a grouped convolution, and a reshape that transposes."""
    model = jaxcnn.ensemble(serial(conv(4), jax.nn.relu, conv(2), flatten, dense(3)), 3)
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
    params, state = model.init(jax.random.key(0), x)
    assert_equal(jaxcnn.export(model, params, state, x, format="onnx"), model, params, state, x)


def test_random_numbers_have_no_translation():
    model = jaxcnn.monte_carlo(serial(dense(3), jaxcnn.dropout(0.5)), 2)
    x = np.ones((2, 4), np.float32)
    message = "no translation of the operation 'random_seed'.*: random numbers; .*format='stablehlo'"
    with pytest.raises(ValueError, match=message):
        jaxcnn.export(model, *model.init(jax.random.key(0), x), x, format="onnx")


def test_scales_of_a_resize_give_the_size_in_any_precision():
    for spatial, size in itertools.product(range(1, 40), range(1, 120)):
        scale = _window._scale(types.SimpleNamespace(spatial=spatial, size=size))
        assert np.floor(scale * np.float32(spatial)) == int(float(scale) * spatial) == size


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("sizes", [((9,), (4,)), ((9,), (8,)), ((7, 9), (5, 5)), ((5, 6), (8, 3))])
def test_resize(antialias, method, sizes):
    spatial, size = sizes
    layer, x = jaxcnn.resize(size, method, antialias=antialias), np.random.default_rng(0).normal(size=(2, *spatial, 3))
    model = jaxcnn.export(layer, {}, {}, x.astype(np.float32), format="onnx")
    assert_equal(model, layer, {}, {}, x.astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("name", NODES_OF_TORCH)
def test_number_of_nodes(name):
    x = jax.ShapeDtypeStruct((1, *MODELS[name].input_shape), jnp.float32)
    layer = MODELS[name]()
    params, state = weights.from_torch(name, state_dict(name))
    nodes = operators(jaxcnn.export(layer, params, state, x, format="onnx"))
    assert len(nodes) <= 1.3 * NODES_OF_TORCH[name]


@pytest.mark.slow
def test_resnet_has_one_operator_per_layer():
    """Of PyTorch's export, and one transposition of the input."""
    layer = MODELS["resnet20"](classes=10)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params, state = weights.from_torch("resnet20", state_dict("resnet20", classes=10), classes=10)
    counts = collections.Counter(operators(jaxcnn.export(layer, params, state, x, format="onnx")))
    assert counts["Conv"] == 19
    assert counts["Relu"] == 19
    assert counts["Add"] == 9
    assert counts["Gemm"] == counts["GlobalAveragePool"] == counts["Transpose"] == 1


def test_bytes_class_names_and_preprocessing():
    digits = data.load("mnist_small", "test")
    layer = serial(data.normalize(digits), conv(4), batch_norm(), jax.nn.relu, flatten, dense(10))
    x = digits.images[:3]
    params, state = layer.init(jax.random.key(0), x / np.float32(255))
    state = jax.tree.map(lambda leaf: leaf + 0.3, state)
    preprocessing = {"size": [28, 28], "interpolation": "bicubic"}
    model = jaxcnn.export(layer, params, state, x, format="onnx", classes=digits.classes, preprocessing=preprocessing)
    assert operators(model) == ["Cast", "Mul", "Add", "Transpose", "Conv", "Relu", "Reshape", "Gemm"]
    expected, _ = layer.apply(params, state, x / np.float32(255), train=False)
    np.testing.assert_allclose(run(model, x)[0], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    stored = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert stored == {"classes": [*digits.classes], "preprocessing": preprocessing}
    program = jaxcnn.export(layer, params, state, x, preprocessing=preprocessing)
    assert json.loads(program.fun_name) == {"preprocessing": preprocessing}


def test_names_and_opset():
    model = jaxcnn.export(
        serial(block=conv(2)),
        *serial(block=conv(2)).init(jax.random.key(0), jnp.ones((1, 4, 4, 1))),
        jnp.ones((1, 4, 4, 1)),
        format="onnx",
    )
    onnx.checker.check_model(model, full_check=True)
    (opset,) = model.opset_import
    assert (opset.domain, opset.version) == ("", 18)
    (x,), (y,) = model.graph.input, model.graph.output
    assert (x.name, y.name) == ("x", "y")
    assert [size.dim_param or size.dim_value for size in x.type.tensor_type.shape.dim] == ["batch", 4, 4, 1]
    assert [size.dim_param or size.dim_value for size in y.type.tensor_type.shape.dim] == ["batch", 4, 4, 2]
    assert any(node.name.startswith("block/") for node in model.graph.node)


@pytest.mark.parametrize("fn", [lambda x: (2 * x,) * 3, lambda x: (x, x), lambda x: (2 * x, x, 2 * x, x)])
def test_one_value_as_several_outputs(fn):
    assert_same_function(fn)


def test_several_outputs():
    spec = jax.ShapeDtypeStruct((1, 3), jnp.float32)
    model = jaxcnn.export(serial(lambda x: {"a": x, "b": (2 * x, jnp.ones(2))}), {}, {}, spec, format="onnx")
    assert [value.name for value in model.graph.output] == ["y0", "y1", "y2"]
    x = np.ones((4, 3), np.float32)
    for y, expected in zip(run(model, x), (x, 2 * x, np.ones(2)), strict=True):
        np.testing.assert_array_equal(y, expected)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.flip(x[:, ::2, 1:], 2),
        lambda x: x[:, 1, 2:] + x[:, -1, :2],
        lambda x: jnp.concatenate([x, 2 * x], 1),
        lambda x: x.reshape(x.shape[0], 8, 12),
        lambda x: x.reshape(-1, 4, 2, 2, 3, 2).transpose(0, 4, 2, 1, 3, 5).reshape(x.shape[0], 12, 4, 2),
        lambda x: x.reshape(-1, 6).reshape(-1, 4, 24),
        lambda x: jnp.where(x > 0, x, jnp.arange(6.0)),
        lambda x: (x + 1) * jnp.arange(6.0) - 3,
        lambda x: jnp.clip(x, -0.5, 0.5) + x,
        lambda x: jax.nn.softmax(x).mean((1, 2)),
        lambda x: jnp.einsum("nhwc,nhvc->nhwv", x, x),
        lambda x: x.mean((1, 2), keepdims=True) * x,
        lambda x: x.max(3) - x.min((0 + 1, 2, 3))[:, None, None],
        lambda x: x.astype(jnp.int32) // 2 + x.argmax(-1, keepdims=True),
        lambda x: x[:, [3, 0, 0]],
        lambda x: x[:, [1, 1, 3], [0, 2, 2]] + jnp.take_along_axis(x, jnp.ones((1, 3, 1, 1), int), 1)[:, :, 0],
        lambda x: x[:, [[1, 1], [1, 1]], [0, 2]] * x[:, :1, :1, :1][:, [0, 0]],
        lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=2),
        lambda x: jnp.pad(x[:, 0, :, 0, None], ((0, 0), (0, 0), (0, 2))),
        lambda x: jax.lax.scan(lambda c, w: (c * w + x, c.sum()), x, jnp.arange(3.0))[0],
        lambda x: jax.lax.conv_transpose(x, jnp.arange(108.0).reshape(3, 3, 6, 2), (2, 2), "SAME"),
        lambda x: jax.nn.hard_swish(x) + jax.nn.hard_sigmoid(x) + jax.nn.relu6(3 * x),
        lambda x: jax.nn.gelu(x, approximate=False) + jax.nn.silu(x) * jax.nn.elu(x),
        lambda x: jnp.abs(x) ** 0.5 + x**3 + 1 / (1 + x * x),
        lambda x: jnp.broadcast_to(x[:, :1], x.shape) + jnp.stack([x[:, 0]] * 4, 1),
        lambda x: jnp.round(2 * x) + jnp.exp2(x) + jnp.where(jnp.isfinite(1 / jnp.round(x)), x, 7),
        lambda x: jnp.any(x > 1, 2) * 1 + jnp.all(x < 1, (1, 2))[:, None],
        lambda x: jnp.tile(x, (1, 2, 1, 3)) + jnp.tile(x.mean((1, 3), keepdims=True), (1, 8, 1, 18)),
        lambda x: x[:, 0] * jnp.tile(jnp.arange(6.0), (x.shape[0], 4, 1)),
        lambda x: jnp.cumsum(x, 1) + jax.lax.cumsum(x, 3, reverse=True) + jnp.cumsum(x > 0, 0),
        lambda x: jnp.cumsum((40 * x).astype(jnp.int8), 2) + jnp.cumsum(x[:, :1], 1),
    ],
)
def test_functions(fn):
    assert_same_function(fn)


def gated_by_a_broadcast_view(x):
    means = x.mean((1, 2))
    return means[:, :, None] * jax.nn.hard_sigmoid(means)[:, None, :]


def largest_channel(x):
    """Of an array (N, C, positions), so that no position is in dimension 1."""
    y = jnp.swapaxes(x.reshape(-1, 16, 6), 1, 2)
    return jnp.take_along_axis(y, jnp.argmax(y, 1, keepdims=True), 1)


def layer_norm_of(x, axes=(3, 3, 3), scale=1 + jnp.arange(6.0), eps=1e-5):
    """The program that becomes LayerNormalization, if all axes and the dimension of the scale are the same."""
    mean = lambda values, axis: values.mean(axis, keepdims=True)
    centered = x - mean(x, axes[0])
    shift = mean(centered, axes[1])
    var = jax.nn.relu(mean(centered * centered, axes[2]) - shift * shift)
    return (centered - shift) * (jax.lax.rsqrt(var + eps) * scale)


def response_norm_of(x, view):
    """The program that becomes LRN, with another view of the denominator."""
    squares = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, (1, 1, 1, 3), (1, 1, 1, 1), "SAME")
    return x / view((1 + 0.1 * squares) ** 0.75)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x * jax.nn.hard_sigmoid(jnp.swapaxes(x, 1, 2)),
        gated_by_a_broadcast_view,
        largest_channel,
    ],
)
def test_other_views_of_a_value_are_not_fused(fn):
    """Views that transpose or repeat a value have its name."""
    assert_same_function(fn)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: layer_norm_of(x, axes=(3, 2, 3)),
        lambda x: layer_norm_of(x, axes=(3, 3, 2)),
        lambda x: layer_norm_of(x, scale=1 + jnp.arange(4.0)[:, None]),
        lambda x: layer_norm_of(x, eps=1e-5 * (1 + jnp.arange(4.0)[:, None])),
        lambda x: response_norm_of(x, lambda y: jnp.swapaxes(y, 1, 2)),
    ],
)
def test_other_programs_are_not_norms(fn):
    nodes = operators(assert_same_layer(conv(6), fn))
    assert not {"LayerNormalization", "LRN"} & {*nodes}


def test_fusions():
    assert operators(assert_same_function(lambda x: x * jax.nn.hard_sigmoid(x))) == ["HardSwish"]
    swapped = lambda x: jnp.swapaxes(x, 1, 2) * jax.nn.hard_sigmoid(jnp.swapaxes(x, 1, 2))
    assert operators(assert_same_function(swapped)) == ["HardSwish", "Transpose"]
    assert "LayerNormalization" in operators(assert_same_layer(conv(6), layer_norm_of))
    assert "LRN" in operators(assert_same_layer(conv(6), lambda x: response_norm_of(x, lambda y: y)))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.maximum(x.sum(), jnp.zeros(5)),
        lambda x: AT(x.sum()) + jnp.zeros(5, int),
        lambda x: AT(x.sum()) * jnp.ones(5, int),
        lambda x: x[0].sum() * jnp.full(5, 1 / 6),
        lambda x: x.sum(0) * 0.5,
    ],
)
def test_sums_over_the_batch_and_repeated_numbers(fn):
    x = np.random.default_rng(0).random((3, 6), np.float32)
    (y,) = run(jaxcnn.export(serial(fn), {}, {}, x, format="onnx"), x)
    np.testing.assert_allclose(y, fn(x), rtol=1e-5)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_two_resizes_of_a_dimension_are_two_operators(method):
    assert_same_layer(jaxcnn.resize((8, 4), method=method), jaxcnn.resize((16, 12), method=method))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.where(x > 0, 1.0, 0.0),
        lambda x: x + jnp.where(x > 0, 1.0, 0.0),
        lambda x: jnp.where(x > 0, 1, 0),
    ],
)
def test_literals_have_the_dtype_of_the_program(fn):
    assert_same_function(fn)


def test_a_literal_as_output_has_the_dtype_of_the_program():
    x = np.ones((2, 3), np.float32)
    model = jaxcnn.export(serial(lambda x: (x, jax.jit(lambda y: 1.0)(x))), {}, {}, x, format="onnx")
    assert run(model, x)[1].dtype == np.float32


def test_sums_times_zero():
    assert_same_function(lambda x: x.sum((1, 2)) * 0.0)
    assert_same_function(lambda x: x.astype(jnp.int32).sum((1, 2)) * 0)


@pytest.mark.parametrize(
    "layers",
    [
        (conv(1), lambda x: x * jnp.arange(4.0)),
        (conv(1), lambda x: x + jnp.arange(4.0)),
        (flatten, dense(1), lambda x: x * jnp.arange(4.0) + jnp.arange(4.0)),
        (jaxcnn.conv_transpose(1, 3), lambda x: x * jnp.arange(4.0)),
    ],
)
def test_vectors_that_repeat_a_single_feature(layers):
    assert_same_layer(*layers)


def test_dense_layer_on_rows_that_are_no_examples():
    assert_same_layer(lambda x: x.reshape(-1, 24), dense(3), lambda x: x.reshape(-1, 12))


@pytest.mark.parametrize("first", [lambda x: x[:, :, None], lambda x: x[..., None]])
def test_dense_layer_on_a_flattened_array_with_a_new_dimension(first):
    assert_same_layer(first, flatten, dense(3))


INTEGERS = lambda x: (9 * x).astype(jnp.int32)
WINDOW = (1, 2, 2, 1), (1, 1, 1, 1), "VALID"
PADDED = ((0, 0), (3, 2), (0, 4), (0, 0))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: (INTEGERS(x) & 3, INTEGERS(x) | 3, INTEGERS(x) ^ 3, ~INTEGERS(x)),
        lambda x: (x > 0) & (x < 1) | ~(x > -1) ^ (x > 0.5),
        lambda x: ((x > 0).max(1), (x > 0).min((1, 2))),
        lambda x: INTEGERS(x).astype(jnp.int8).sum(1, dtype=jnp.int8),
        lambda x: INTEGERS(x).astype(jnp.int16).max(1),
        lambda x: jax.lax.reduce_window(INTEGERS(x) + 2**28, -(2**31), jax.lax.max, *WINDOW),
        lambda x: jax.lax.reduce_window(INTEGERS(x) + 2**28, 2**31 - 1, jax.lax.min, *WINDOW),
        lambda x: jax.lax.reduce_window(jnp.abs(INTEGERS(x)).astype(jnp.uint8), np.uint8(0), jax.lax.max, *WINDOW),
        lambda x: INTEGERS(x) @ jnp.ones((6, 2), jnp.int32),
    ],
)
def test_integers_and_booleans(fn):
    assert_same_function(fn)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int16, np.uint8, np.uint16, np.uint32, np.int64, np.float16])
def test_selection_by_dtype(dtype):
    with jax.enable_x64(dtype == np.int64):
        assert_same_function(lambda x: jnp.where(x > 0, jnp.abs(4 * x).astype(dtype), jnp.asarray(1, dtype)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["log1p", "expm1", "softplus", "elu"])
def test_functions_of_small_numbers(name, dtype):
    """The relative error to NumPy in float64, where 1 + x and exp(x) round to 1, and the limits."""
    powers = np.logspace(-30, 1.5, 400)
    lowest = [-1] if name == "log1p" else [-20, -np.inf]
    x = np.concatenate([powers, -np.minimum(powers, 0.99), [0, np.inf, np.nan], lowest])
    x = x.astype(dtype)[None]
    fn = {"log1p": jnp.log1p, "expm1": jnp.expm1, "softplus": lambda x: jnp.log1p(jnp.exp(x)), "elu": jax.nn.elu}[name]
    with jax.enable_x64(dtype == np.float64):
        (found,) = run(jaxcnn.export(serial(fn), {}, {}, x, format="onnx"), x)
    assert found.dtype == dtype
    x = x.astype(np.float64)
    with np.errstate(all="ignore"):
        expected = {
            "log1p": np.log1p(x),
            "expm1": np.expm1(x),
            "softplus": np.logaddexp(x, 0),
            "elu": np.where(x > 0, x, np.expm1(x)),
        }[name]
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize(
    "layer",
    [
        jaxcnn.max_pool(3, stride=1, padding="SAME", dilation=3),
        jaxcnn.min_pool(3, stride=1, padding="SAME", dilation=3),
        serial(lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, *WINDOW[:2], PADDED)),
        serial(lambda x: jnp.maximum(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *WINDOW[:2], PADDED), -9)),
        serial(lambda x: jax.lax.reduce_window(INTEGERS(x), -(2**31), jax.lax.max, *WINDOW[:2], PADDED)),
        serial(lambda x: jax.lax.reduce_window(INTEGERS(x) > 3, False, jax.lax.max, *WINDOW[:2], PADDED)),
    ],
)
def test_pools_padded_by_more_than_their_size(layer):
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 4)).astype(np.float32)
    assert_equal(jaxcnn.export(layer, {}, {}, x, format="onnx"), layer, {}, {}, x)


def test_max_pool_of_integers():
    assert_same_layer(INTEGERS, jaxcnn.max_pool(2))


@pytest.mark.parametrize("fn", [lambda x: x[-1], lambda x: x[1:], lambda x: x[:-1], lambda x: x[-2] + x[0]])
def test_slices_of_the_batch(fn):
    session_of = session(jaxcnn.export(serial(fn), {}, {}, jax.ShapeDtypeStruct((1, 4), jnp.float32), format="onnx"))
    for size in (2, 5):
        x = np.random.default_rng(0).standard_normal((size, 4), np.float32)
        np.testing.assert_array_equal(session_of.run(None, {"x": x})[0], fn(x))


LARGE = np.float32(1.5 * 2**23)  # x + LARGE is rounded to an integer


@pytest.mark.parametrize(
    ("fn", "values"),
    [
        (lambda x: (x + LARGE) - LARGE, [0.3, 1.7]),
        (lambda x: (x + np.float32(0.4)) + LARGE - LARGE, [0.3, 1.7]),
        (lambda x: (x * np.float32(1e30)) * np.float32(1e30), [1e-35, 2e-35]),
        (lambda x: (x * np.float32(1e-30)) * np.float32(1e30), [1e-15, 1e30]),
        (lambda x: (x * np.array([1e30, 2e30], np.float32)) * np.array([1e30, 1], np.float32), [1e-35, 2e-35]),
        (lambda x: (2 * x + np.float32(1e30)) * np.float32(1e20), [-5e29, -6e29]),
        (lambda x: (x - np.float32(1e6)) * np.float32(1e3), [1000001, 1000003]),
        (lambda x: x / np.float32(1e-39), [1e-20, 2e-20]),
    ],
)
def test_numbers_are_merged_only_up_to_rounding(fn, values):
    """Compared with NumPy, because XLA merges them."""
    x = np.array(values, np.float32)[:, None]
    with np.errstate(over="ignore", under="ignore"):
        expected = fn(x)
    np.testing.assert_allclose(run(jaxcnn.export(serial(fn), {}, {}, x, format="onnx"), x)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("layers", "fn", "scale"),
    [
        ((conv(4), lambda x: x), lambda x: (x + LARGE) - LARGE, 1),
        ((flatten, dense(4)), lambda x: (x + LARGE) - LARGE, 1),
        ((flatten, dense(4)), lambda x: x * np.float32(1e-43) * np.float32(1e30), 1e10),
    ],
)
def test_numbers_are_merged_into_a_layer_only_up_to_rounding(layers, fn, scale):
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 3), np.float32) * np.float32(scale)
    params, state = serial(*layers).init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf + np.float32(0.3), params)
    (y,) = run(jaxcnn.export(serial(*layers), params, state, x, format="onnx"), x)
    (z,) = run(jaxcnn.export(serial(*layers, fn), params, state, x, format="onnx"), x)
    np.testing.assert_allclose(z, fn(y), rtol=1e-6)


def test_scales_and_offsets_of_several_layers_are_merged():
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 6), np.float32)
    layer = serial(batch_norm(), batch_norm())
    params, state = layer.init(jax.random.key(0), x)
    params, state = (jax.tree.map(lambda leaf: leaf + 0.1 * jnp.arange(6.0), tree) for tree in (params, state))
    model = jaxcnn.export(layer, params, state, x, format="onnx")
    assert operators(model) == ["Mul", "Add"]
    assert_equal(model, layer, params, state, x)
    assert operators(assert_same_function(lambda x: (3 * x * 0.5 + 1) + 2)) == ["Mul", "Add"]


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: jnp.sort(x, 1), ["Transpose", "TopK", "Transpose"]),
        (lambda x: jnp.argsort(jnp.round(x), -1), ["Round", "Transpose", "TopK", "Cast", "Transpose"]),
        (lambda x: jax.lax.top_k(jnp.abs(jnp.round(x)), 3), None),
        (lambda x: jax.lax.top_k(x, 3)[1], ["Transpose", "TopK", "Cast", "Transpose"]),
        (lambda x: jnp.median(x, 2), None),
        (lambda x: jax.lax.sort((jnp.round(x), 2 * x, jnp.arange(6.0) ** 2 + 0 * x), num_keys=1), None),
        (lambda x: jax.lax.sort((jnp.round(x), jnp.broadcast_to(jnp.arange(6.0) ** 2, x.shape)), num_keys=1), None),
        (lambda x: jnp.sort(x.astype(jnp.int32), 2, descending=True), None),
    ],
)
def test_sorts_and_largest_elements(fn, expected):
    nodes = operators(assert_same_function(fn))
    assert nodes == expected if expected else "TopK" in nodes


AT = functools.partial(jnp.asarray, dtype=jnp.int32)


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x[jnp.arange(x.shape[0]), :, jnp.argmax(x[:, 0, :, 1], 1)],
        lambda x: jnp.take(x, AT(9 * x[0, 0, 0]), 2),  # NaN out of bounds
        lambda x: jnp.take(AT(x), AT(9 * x[0, :2, :2, 0]), 1),  # the smallest integer out of bounds
        lambda x: jnp.take(x, AT(9 * x[0, 0, 0]), 3, mode="clip"),
        lambda x: x.at[:, AT(9 * x[0, 0, 0]), 1].get(mode="fill", fill_value=5),
        lambda x: x[:, AT(x[0, 0, 0]) % 4, AT(3 * x[0, 0, 0]) % 4],
        lambda x: jax.vmap(lambda x, at: x[at, 1])(x, AT(2 * x[:, 0, 0]) % 4),
        lambda x: jax.lax.dynamic_slice_in_dim(x, AT(3 * x[0, 0, 0, 0]), 2, 2),
        lambda x: jnp.take_along_axis(x, jnp.argmin(x, 1, keepdims=True), 1),
        lambda x: x[jnp.arange(x.shape[0]), 1] + jnp.arange(4.0)[AT(x[:, 0]) % 4],
    ],
)
def test_positions_that_depend_on_the_input(fn):
    for seed in range(3):
        assert_same_function(fn, seed)


@pytest.mark.sample(9)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("boundary", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_grid_sample_is_a_single_operator(method, boundary, align):
    sample = jaxcnn.grid_sample(method, padding_mode=boundary, align_corners=align)
    layer = serial(lambda x: (x, 2 * x[:, :3, ..., 4:]), sample)
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 6), np.float32)
    model = jaxcnn.export(layer, {}, {}, x, format="onnx")
    counts = collections.Counter(operators(model))
    assert counts == {"Slice": 2, "Mul": 1, "Transpose": 2, "GridSample": 1}
    assert_equal(model, layer, {}, {}, x)


def assert_same_function(fn, seed=0):
    return assert_same_layer(fn, seed=seed)


def assert_same_layer(*layers, seed=0):
    layer = serial(*layers)
    x = np.random.default_rng(seed).standard_normal((3, 4, 4, 6), np.float32)
    params, state = layer.init(jax.random.key(0), x)
    model = jaxcnn.export(layer, params, state, x, format="onnx")
    assert_equal(model, layer, params, state, x)
    return model


def test_scales_are_folded_only_if_nothing_else_reads_the_convolution():
    both = lambda x: x * 2 + jnp.sin(x)
    layer = serial(conv(4), both)
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 3), np.float32)
    params, state = layer.init(jax.random.key(0), x)
    model = jaxcnn.export(layer, params, state, x, format="onnx")
    assert operators(model).count("Conv") == 1
    assert_equal(model, layer, params, state, x)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("fn", "match"),
    [
        (lambda x: jnp.linalg.qr(x)[0], r"no translation of the operation 'qr' in layer 'body/part'; apply it outside"),
        (
            lambda x: jnp.lexsort((x, x)),
            r"operation 'sort' in layer 'body/part': a sort by several arrays; .*stablehlo",
        ),
        (lambda x: jnp.sort(x, 0), r"'sort' in layer 'body/part': a sort along the batch"),
        (lambda x: jnp.sort(x.astype(jnp.int8), 1), r"'sort' .* a sort of int8; convert it to .*float32"),
        (lambda x: jnp.take(x, AT(x[0, 0]), 0), r"'gather' .* positions in the batch that may be out of bounds"),
        (
            lambda x: jax.vmap(lambda x, at: jax.lax.dynamic_slice_in_dim(x, at, 2))(x, AT(x[:, 0, 0])),
            r"'gather' .* several slices at positions that depend on the input",
        ),
        (lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), r"'cond' .* a branch that depends on the input"),
        (lambda x: jax.lax.round(x, jax.lax.RoundingMethod.AWAY_FROM_ZERO), r"'round' .*; jnp.round has a translation"),
        (
            lambda x: jax.lax.reduce_window(AT(x)[..., None], 0, jax.lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"),
            r"'reduce_window_sum' .* a sum of int32 over windows; convert it to float32",
        ),
        (lambda x: -x.astype(jnp.uint8), r"'neg' in layer 'body/part': the negative of uint8; convert it to int32"),
        (lambda x: x[1:-1], r"'gather' in layer 'body/part': the position .* depends on the batch size"),
        (
            lambda x: jax.lax.dynamic_slice_in_dim(x, 1, 1, 0),
            r"'dynamic_slice' in layer 'body/part': Symbolic dimension .* inconclusive",
        ),
        (
            lambda x: jax.lax.conv(AT(x), jnp.ones((2, 4, 2), int)[..., :2], (1,), "VALID"),
            r"no ONNX operator for its dtype: .*Conv.*int32.*; convert its operands to float32, .*stablehlo",
        ),
    ],
)
def test_operation_without_translation(fn, match):
    layer = serial(body=serial(part=fn))
    with pytest.raises(ValueError, match=match):
        jaxcnn.export(layer, {}, {}, jax.ShapeDtypeStruct((1, 4, 4), jnp.float32), format="onnx")


def test_operations_without_effect_need_no_translation():
    spec = jax.ShapeDtypeStruct((1, 4, 4), jnp.float32)
    model = jaxcnn.export(serial(lambda x: (jnp.linalg.qr(x), 2 * x)[1]), {}, {}, spec, format="onnx")
    assert operators(model) == ["Mul"]


def test_bfloat16():
    layer = jaxcnn.cast(dense(2), jnp.bfloat16)
    x = jnp.ones((1, 4))
    with pytest.raises(ValueError, match="bfloat16"):
        jaxcnn.export(layer, *layer.init(jax.random.key(0), x), x, format="onnx")


def test_wrong_format():
    with pytest.raises(ValueError, match=r"unknown format 'onx'; .*onnx"):
        jaxcnn.export(serial(jnp.sin), {}, {}, jnp.ones((1, 4)), format="onx")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"jaxcnn\[onnx\]"):
        jaxcnn.export(serial(jnp.sin), {}, {}, jnp.ones((1, 4)), format="onnx")


@pytest.mark.parametrize(
    ("pool", "expected"),
    [(global_avg_pool, "GlobalAveragePool"), (global_max_pool, "GlobalMaxPool")],
)
def test_global_pool_and_head_are_single_operators(pool, expected):
    layer = serial(conv(4, stride=2), batch_norm(), jax.nn.relu6, pool, dense(3))
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32)
    params, state = layer.init(jax.random.key(0), x)
    model = jaxcnn.export(layer, params, state, x, format="onnx")
    assert operators(model) == ["Transpose", "Conv", "Clip", expected, "Squeeze", "Gemm"]
    assert_equal(model, layer, params, state, x)


@pytest.mark.sample(3)
@pytest.mark.parametrize("shape", [(2, 9, 3), (2, 4, 5, 3), (2, 4, 5, 1), (2, 1, 1, 3), (2, 2, 3, 4, 3)])
def test_global_max_pool_of_an_input(shape):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    model = jaxcnn.export(serial(global_max_pool), {}, {}, x, format="onnx")
    assert "ArgMax" not in operators(model) or shape[-1] == 1
    assert_equal(model, serial(global_max_pool), {}, {}, x)


def test_maximum_by_other_positions_is_not_a_global_max_pool():
    assert_same_function(lambda x: jnp.take_along_axis(x, jnp.argmax(-x, 1, keepdims=True), 1))
    assert_same_function(lambda x: jnp.take_along_axis(x, jnp.argmax(x, 2, keepdims=True), 1))


def test_two_layers_that_read_the_same_transposed_map():
    """A dense layer after a flatten needs no transposition, but a layer norm of the same map does."""
    flat = serial(flatten, dense(3))
    normed = serial(jaxcnn.layer_norm(), global_avg_pool, dense(3))
    net = serial(conv(6), jaxcnn.parallel(lambda a, b: a + b, flat, normed))
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 5), np.float32)
    params, state = net.init(jax.random.key(0), x)
    exported = jaxcnn.export(net, params, state, x, format="onnx")
    session = onnxruntime.InferenceSession(exported.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(y, net.apply(params, state, x, train=False)[0], 1e-4, 1e-4)


@pytest.mark.parametrize("mode", ["clip", "fill"])
def test_take_along_axis_out_of_bounds(mode):
    f = lambda x: jnp.take_along_axis(x, jnp.argmax(x, 1, keepdims=True) + 1, 1, mode=mode)
    x = np.array([[[1.0, 5.0], [2.0, 4.0], [3.0, 6.0]]], np.float32)
    exported = jaxcnn.export(serial(f), {}, {}, x, format="onnx")
    session = onnxruntime.InferenceSession(exported.SerializeToString())
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_array_equal(y, f(x))
