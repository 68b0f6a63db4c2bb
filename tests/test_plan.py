"""`explain.plan`: algorithm, multiply-adds and memory traffic of each layer."""

import jax
import jax.numpy as jnp
import pytest

import jaxcnn as cnn
from jaxcnn._lowering._rules import forced
from jaxcnn.explain import _plan, plan


def test_lenet5_equals_closed_form():
    conv1, pool1, conv2, pool2 = plan(cnn.models.lenet5(), jnp.zeros((2, 28, 28, 1)), backend="cpu").rows
    assert [row.path for row in (conv1, pool1, conv2, pool2)] == ["conv1", "pool1", "conv2", "pool2"]
    assert conv1.multiply_adds == 2 * (28 * 28) * (5 * 5 * 1 * 6)
    assert conv2.multiply_adds == 2 * (10 * 10) * (5 * 5 * 6 * 16)
    assert pool1.multiply_adds == pool2.multiply_adds == 0
    assert conv1.bytes == 4 * (2 * 28 * 28 * 1 + 5 * 5 * 1 * 6 + 2 * 28 * 28 * 6)
    assert pool1.bytes == 4 * (2 * 28 * 28 * 6 + 2 * 14 * 14 * 6)
    assert conv2.bytes == 4 * (2 * 14 * 14 * 6 + 5 * 5 * 6 * 16 + 2 * 10 * 10 * 16)
    assert conv2.intensity == conv2.multiply_adds / conv2.bytes
    assert (conv1.algorithm, *conv1.gradients) == ("direct", "col2im", "by row")
    assert (conv2.algorithm, *conv2.gradients) == ("direct", "col2im", "over examples")
    assert (pool1.algorithm, *pool1.gradients) == ("lax", "tap slices")


def test_multiply_adds_equal_summary():
    model, x = cnn.models.resnet20(), jnp.zeros((3, 32, 32, 3))
    rows = plan(model, x).rows
    kernels = {row.path: row for row in cnn.explain.summary(model, x).layers if row.multiply_adds}
    kernels.pop("head" if "head" in kernels else list(kernels)[-1])  # the dense layer
    assert {row.path: row.multiply_adds for row in rows if row.multiply_adds} == {
        path: 3 * row.multiply_adds for path, row in kernels.items()
    }


def test_other_backends_use_lax():
    net = cnn.serial(cnn.conv(8, groups=1), cnn.conv(8, groups=8), cnn.max_pool(2), cnn.avg_pool(2))
    for backend in ("gpu", "tpu"):
        rows = plan(net, jnp.zeros((1, 8, 8, 3)), backend=backend).rows
        assert {row.algorithm for row in rows} | {name for row in rows for name in row.gradients} == {"lax"}
    assert plan(net, jnp.zeros((1, 8, 8, 3))).backend == jax.default_backend()


def test_nested_programs():
    """Convolutions in a scan, in remat, in a transposed convolution, and as a single layer."""
    x = jax.ShapeDtypeStruct((1, 6, 6, 4), jnp.float32)
    inner = cnn.serial(conv=cnn.conv(4), act=jax.nn.relu)
    net = cnn.serial(blocks=cnn.repeat(inner, 3), again=cnn.remat(inner), up=cnn.conv_transpose(2, 3, stride=2))
    blocks, again, up = plan(net, x, backend="cpu").rows
    assert [blocks.path, again.path, up.path] == ["blocks/conv", "again/conv", "up"]
    assert blocks.multiply_adds == 3 * again.multiply_adds == 3 * 36 * (9 * 4 * 4)
    assert up.multiply_adds == 36 * (9 * 4 * 2)
    assert (up.algorithm, *up.gradients) == ("col2im", "direct", "over examples")
    assert [row.path for row in plan(cnn.conv(4), x).rows] == [""]
    assert plan(cnn.flatten, x).rows == ()


def test_as_text_and_html():
    shown = plan(cnn.conv(4), jnp.zeros((1, 6, 6, 4)), backend="cpu")
    assert str(shown) == repr(shown)
    assert " ".join(str(shown).splitlines()[2].split()) == "(model) direct col2im, over examples 5,184 1.73 kB 3"
    html = shown._repr_html_()
    assert html.startswith("<table>")
    assert ">direct</td>" in html
    assert html.endswith("<p>algorithms for cpu</p>")


def test_measured(monkeypatch):
    monkeypatch.setattr(_plan, "_RUNS", 2)
    monkeypatch.setattr(_plan, "_SECONDS", 1e-4)
    monkeypatch.setattr(_plan, "_PEAK", 64)
    shown = plan(cnn.serial(cnn.conv(4), cnn.max_pool(2)), jnp.zeros((1, 6, 6, 4)), measure=True)
    conv, pool = shown.rows
    assert conv.milliseconds > 0
    assert pool.milliseconds > 0
    assert shown.peak_fraction(conv) == pytest.approx(conv.multiply_adds / conv.milliseconds * 1000 / shown.peak)
    assert shown.peak_fraction(pool) == 0
    head, _, first, second, note = str(shown).splitlines()
    assert head.endswith("milliseconds  of the peak")
    assert first.endswith("%")
    assert not second.endswith("%")
    assert "multiply-adds per second" in note


def test_invalid_arguments():
    x = jnp.zeros((1, 6, 6, 4))
    with pytest.raises(ValueError, match="plan: unknown backend 'cuda'; expected one of: cpu, gpu, tpu"):
        plan(cnn.conv(4), x, backend="cuda")
    with pytest.raises(ValueError, match="measure=True requires the default backend, cpu, got 'tpu'"):
        plan(cnn.conv(4), x, backend="tpu", measure=True)
    with pytest.raises(TypeError, match=r"plan needs an input, or a jax\.ShapeDtypeStruct"):
        plan(cnn.conv(4), 3.0)


def test_plan_shows_a_forced_algorithm():
    model = cnn.conv(32)
    x = jax.ShapeDtypeStruct((1, 8, 8, 32), jnp.float32)
    chosen = cnn.explain.plan(model, x, backend="cpu").rows[0]
    with forced("direct"):
        row = cnn.explain.plan(model, x, backend="cpu").rows[0]
        other = cnn.explain.plan(model, x, backend="gpu").rows[0]
    assert chosen.algorithm != "direct"
    assert (row.algorithm, other.algorithm) == ("direct", "lax")
