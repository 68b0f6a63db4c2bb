"""Exported programs, and what runs them."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import batch_norm, conv, data, dense, dropout, flatten, global_avg_pool, serial, train

RUN = """
import pathlib, sys
import jax, numpy as np
program = jax.export.deserialize(pathlib.Path("model.bin").read_bytes())
x = np.load("x.npy")
np.save("y.npy", np.concatenate([program.call(x[:1]), program.call(x[1:])]))
assert not any(name.startswith("jaxcnn") for name in sys.modules)
"""


def test_program_runs_without_the_library(tmp_path):
    model = serial(conv(8, stride=2, padding=1), batch_norm(), jax.nn.relu, global_avg_pool, dropout(0.5), dense(3))
    x = np.random.default_rng(0).standard_normal((4, 9, 9, 3), np.float32)
    params, state = model.init(jax.random.key(0), x)
    program = jaxcnn.export(model, params, state, x)
    assert program.platforms == ("cpu", "cuda", "tpu")
    (tmp_path / "model.bin").write_bytes(program.serialize())
    np.save(tmp_path / "x.npy", x)
    subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, check=True, timeout=120)
    y, _ = model.apply(params, state, x, train=False)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("examples", [1, 3])
def test_many_channels(examples):
    """Winograd's algorithm compares sums over all examples, whose number is a symbol in the exported program."""
    model = conv(256, bias=False)
    x = np.random.default_rng(0).standard_normal((examples, 4, 6, 256), np.float32)
    params, state = model.init(jax.random.key(0), x)
    program = jaxcnn.export(model, params, state, x, platforms=["cpu"])
    for batch in (x, np.where(np.arange(256) == 7, 1e20, x).astype(np.float32)):  # and with outliers
        y, _ = model.apply(params, state, batch, train=False)
        np.testing.assert_allclose(program.call(batch), y, rtol=1e-4, atol=1e-4 * np.abs(y).max())


def test_platforms():
    spec = jax.ShapeDtypeStruct((1, 4), jnp.float32)
    assert jaxcnn.export(serial(jnp.sin), {}, {}, spec, platforms=["cpu"]).platforms == ("cpu",)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"platforms": "cpu"}, TypeError, "platforms must be a list of names .*'rocm'.*, got 'cpu'"),
        ({"platforms": None}, TypeError, "platforms must be a list of names .*, got None"),
        ({"platforms": []}, ValueError, r"platforms must have at least one name \('cpu', 'cuda', 'rocm', 'tpu'\)"),
        ({"platforms": ["cpu", "gpu"]}, ValueError, "unknown platform 'gpu' in platforms; .*'cuda' .NVIDIA. or 'rocm'"),
        ({"preprocessing": [1]}, TypeError, r"preprocessing must be a dict or None, got \[1\]"),
        ({"preprocessing": {"a": np.float32(2)}}, TypeError, "preprocessing must have values that JSON .*float32"),
    ],
)
@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_options_are_checked(options, error, message, format):
    with pytest.raises(error, match=f"^export: {message}"):
        jaxcnn.export(serial(jnp.sin), {}, {}, jax.ShapeDtypeStruct((1, 4), jnp.float32), format=format, **options)


@pytest.mark.parametrize(("spec", "error", "message"), [((1, 4), TypeError, "an input"), (1.0, TypeError, "an input")])
def test_what_is_no_input(spec, error, message):
    with pytest.raises(error, match=message):
        jaxcnn.export(serial(jnp.sin), {}, {}, spec)


def test_input_without_batch():
    with pytest.raises(ValueError, match="batch dimension"):
        jaxcnn.export(serial(jnp.sin), {}, {}, jnp.float32(1))


def test_program_for_bytes_divides_them_as_training_does(tmp_path):
    digits = data.load("mnist_small", "test")
    few = data.Dataset(digits.images[:200], digits.labels[:200], digits.classes)
    model = serial(data.normalize(few), flatten, dense(10))
    settings = {"epochs": 2, "batch_size": 50, "checkpoint": {"keep": 0}}
    fitted = train.fit(model, few, config=settings, run=train.Run("bytes", {}, folder=tmp_path))
    program = jaxcnn.export(model, fitted.params, fitted.state, few.images[:1], classes=few.classes)
    loaded = jax.export.deserialize(program.serialize())
    expected, _ = model.apply(fitted.params, fitted.state, few.images / np.float32(255), train=False)
    np.testing.assert_allclose(loaded.call(few.images), expected, rtol=1e-5, atol=1e-5)
    assert tuple(json.loads(loaded.fun_name)["classes"]) == few.classes
    with pytest.raises(ValueError, match="uint8"):
        loaded.call(few.images / np.float32(255))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint16, jnp.bool_, np.int64, np.float64])
def test_only_bytes_are_divided(dtype):
    program = jaxcnn.export(serial(lambda x: x), {}, {}, jax.ShapeDtypeStruct((1, 4), dtype), platforms=["cpu"])
    np.testing.assert_array_equal(program.call(np.ones((2, 4), dtype)), np.ones((2, 4)))


@pytest.mark.parametrize(
    "classes", [np.array(["a", "b"]), (name for name in "ab"), ["a", "b"], {"a": 1, "b": 2}.keys()]
)
def test_class_names_may_be_of_any_ordered_kind(classes):
    spec = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    program = jaxcnn.export(serial(jnp.sin), {}, {}, spec, classes=classes, platforms=["cpu"])
    assert json.loads(program.fun_name) == {"classes": ["a", "b"]}


@pytest.mark.parametrize("name", ["caf\u00e9", "b\udce9", '"{}', ""])
def test_class_names_of_all_kinds_come_back(name):
    spec = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    program = jaxcnn.export(serial(jnp.sin), {}, {}, spec, classes=[name, "b"], platforms=["cpu"])
    loaded = jax.export.deserialize(program.serialize())
    assert json.loads(loaded.fun_name) == {"classes": [name, "b"]}
    np.testing.assert_allclose(loaded.call(jnp.ones((3, 2), jnp.float32)), np.sin(np.ones((3, 2))), rtol=1e-6)


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (("a",), ValueError, r"class names for outputs of shapes \[\(batch, 2\)\]"),
        ("ab", TypeError, "classes must be a list of names, one per output, got 'ab'"),
        ({"a", "b"}, TypeError, "classes must be a list of names, one per output, got {'"),
        (2, TypeError, "classes must be a list of names, one per output, got 2"),
    ],
)
def test_as_many_class_names_as_outputs(classes, error, message):
    with pytest.raises(error, match=message):
        jaxcnn.export(serial(jnp.sin), {}, {}, jax.ShapeDtypeStruct((1, 2), jnp.float32), classes=classes)


def test_class_names_in_a_dict_are_refused():
    spec = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    with pytest.raises(TypeError, match="classes must be a list of names"):
        jaxcnn.export(serial(jnp.sin), {}, {}, spec, classes={0: "cat", 1: "dog"})


def test_bytes_with_strict_promotion():
    spec = jax.ShapeDtypeStruct((1, 2), jnp.uint8)
    with jax.numpy_dtype_promotion("strict"):
        program = jaxcnn.export(serial(jnp.sin), {}, {}, spec, platforms=["cpu"])
    np.testing.assert_allclose(program.call(np.full((3, 2), 255, np.uint8)), np.sin(np.ones((3, 2))), 1e-6)
