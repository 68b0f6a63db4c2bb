"""The training step, evaluation, jit and the summary."""

import ctypes
import functools
import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn import data, train
from tests.layers import block

KEY = jax.random.key(1)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6, 6, 2)).astype(np.float32)
DATA = {"image": X, "label": (X[:, 2, 2, 0] > 0).astype(np.int32)}
MODEL = cnn.serial(body=block(4), drop=cnn.dropout(0.2), flat=cnn.flatten, head=cnn.dense(2))


def counted(loss_fn):
    traces = []

    @functools.wraps(loss_fn)
    def wrapped(*args, **kwargs):
        traces.append(1)
        return loss_fn(*args, **kwargs)

    return wrapped, traces


def test_a_train_state_that_a_step_has_used():
    optimizer = optax.sgd(0.1)
    train_state = train.TrainState.create(MODEL, optimizer, jax.random.key(0), DATA["image"])
    step = train.make_step(cnn.cross_entropy(MODEL), optimizer)
    step(train_state, DATA)
    with pytest.raises(ValueError, match="deleted") as error:
        step(train_state, DATA)
    assert any("pass its result" in note for note in error.value.__notes__)


def test_step_equals_the_optax_update_and_compiles_once():
    loss_fn, traces = counted(cnn.cross_entropy(MODEL))
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = train.TrainState.create(MODEL, optimizer, KEY, X)
    params, net_state, opt_state, key = jax.tree.map(jnp.copy, tuple(state[1:]))
    step = train.make_step(loss_fn, optimizer)
    gradient_of_loss = jax.jit(jax.grad(functools.partial(cnn.cross_entropy(MODEL), train=True), has_aux=True))
    for i in range(3):
        state, metrics = step(state, DATA)
        gradient, (net_state, expected) = gradient_of_loss(params, net_state, DATA, key=jax.random.fold_in(key, i))
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(metrics["loss"], expected["loss"], 1e-4)
    assert len(traces) == 1
    assert int(state.step) == 3
    for a, b in zip(jax.tree.leaves((state.params, state.state)), jax.tree.leaves((params, net_state)), strict=True):
        np.testing.assert_allclose(a, b, 1e-3, 1e-5)


def test_training_learns():
    state = train.TrainState.create(MODEL, optax.adam(1e-2), KEY, X)
    step = train.make_step(cnn.cross_entropy(MODEL), optax.adam(1e-2))
    for _ in range(60):
        state, metrics = step(state, DATA)
    assert metrics["loss"] < 0.2
    result = train.evaluate(cnn.cross_entropy(MODEL), state.params, state.state, DATA)
    assert result["accuracy"] == 1


def test_a_step_frees_its_memory():
    key = jax.random.key(0)
    state = train.TrainState.create(MODEL, optax.sgd(0.1), key, X)
    old = jax.tree.leaves(state.params)[0]
    train.make_step(cnn.cross_entropy(MODEL), optax.sgd(0.1))(state, DATA)
    assert old.is_deleted()
    jax.random.normal(key)  # the caller's key is still there


def test_an_optimizer_may_keep_the_parameters():
    keep_first = optax.GradientTransformation(lambda params: params, lambda updates, first, params: (updates, first))
    state = train.TrainState.create(MODEL, keep_first, KEY, X)
    first = jax.tree.map(np.asarray, state.params)
    state, _ = train.make_step(cnn.cross_entropy(MODEL), keep_first)(state, DATA)
    for a, b in zip(jax.tree.leaves(state.opt_state), jax.tree.leaves(first), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("batch_size", [1, 7, 20, 100])
def test_evaluate_is_the_mean_over_all_examples(batch_size):
    params, state = jax.jit(MODEL.init)(KEY, X)
    loss_fn, traces = counted(cnn.cross_entropy(MODEL))
    result = train.evaluate(loss_fn, params, state, DATA, batch_size=batch_size)
    _, (_, whole) = cnn.cross_entropy(MODEL)(params, state, DATA, train=False)
    assert len(traces) == 1
    assert result == {name: pytest.approx(float(value), rel=1e-4) for name, value in whole.items()}
    train.evaluate(loss_fn, params, state, DATA, batch_size=batch_size)
    assert len(traces) == 1


def test_evaluate_data_of_any_names():
    def loss_fn(params, state, batch, *, train, key=None):
        error = (jnp.square(batch["x"] - batch["y"]) * batch["weight"]).sum() / batch["weight"].sum()
        return error, (state, {"error": error})

    data = {"x": np.arange(5.0), "y": np.zeros(5)}
    assert train.evaluate(loss_fn, {}, {}, data, batch_size=2)["error"] == pytest.approx(6)


def test_evaluate_a_loss_without_weights_in_full_batches():
    loss_fn = lambda params, state, batch, *, train, key=None: (batch["x"].mean(), (state, {}))
    data = {"x": np.arange(6.0)}
    assert train.evaluate(loss_fn, {}, {}, data, batch_size=3) == {"loss": 2.5}
    with pytest.raises(ValueError, match=r'evaluate: the loss ignores batch\["weight"\], .* last batch of 6 examples'):
        train.evaluate(loss_fn, {}, {}, data, batch_size=4)


def test_evaluate_with_weights():
    params, state = jax.jit(MODEL.init)(KEY, X)
    weight = (np.arange(20) < 13).astype(np.float32)
    result = train.evaluate(cnn.cross_entropy(MODEL), params, state, DATA | {"weight": weight}, batch_size=6)
    part = {name: value[:13] for name, value in DATA.items()}
    expected = train.evaluate(cnn.cross_entropy(MODEL), params, state, part)
    assert result == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "entries of the same length, at least 1"),
        ({"image": X[:0], "label": np.zeros(0, int)}, "at least 1, got lengths {'image': 0, 'label': 0}"),
        ({"image": X, "label": np.zeros(3, int)}, "got lengths {'image': 20, 'label': 3}"),
    ],
)
def test_evaluate_refuses(data, message):
    with pytest.raises(ValueError, match=message):
        train.evaluate(cnn.cross_entropy(MODEL), {}, {}, data)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 100])
def test_predict_is_the_output_for_each_image_in_order(batch_size):
    params, state = jax.jit(MODEL.init)(KEY, X)
    expected = MODEL.apply(params, state, X, train=False)[0]
    weight = np.zeros(20, np.float32)  # of the loss
    for given in (X, DATA, DATA | {"weight": weight}, (X, DATA["label"])):
        outputs = train.predict(MODEL, params, state, given, batch_size=batch_size)
        assert isinstance(outputs, np.ndarray)
        np.testing.assert_allclose(outputs, expected, 1e-4, 1e-5)


def test_predict_of_bytes_streams_and_several_outputs():
    both = cnn.parallel(lambda a, b: {"a": a, "b": b}, cnn.global_avg_pool, cnn.flatten)
    images = RNG.integers(0, 256, (5, 2, 2, 1)).astype(np.uint8)
    expected, _ = both.apply({}, {}, images / np.float32(255), train=False)
    spec = jax.ShapeDtypeStruct((3, 2, 2, 1), np.uint8)
    padded = np.concatenate([images, images[:1]])

    def batches(step):
        for i in itertools.count(step):
            part = slice(i % 2 * 3, i % 2 * 3 + 3)
            yield {"image": padded[part], "label": np.zeros(3, int), "weight": np.float32([1, 1, i % 2 == 0])}

    stream = data.Stream(batches, 2, spec, (), "five")
    for given in (images, data.Dataset(images, np.zeros(5, int), ()), stream):
        outputs = train.predict(both, {}, {}, given, batch_size=2)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), outputs, expected)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (X[:0], ValueError, "at least 1"),
        ({"label": np.zeros(3)}, ValueError, "image"),
        ("digits", TypeError, "predict"),
        (data.source((X, DATA["label"])), TypeError, "pass the arrays or the stream itself"),
    ],
)
def test_predict_refuses(given, error, message):
    with pytest.raises(error, match=message):
        train.predict(cnn.flatten, {}, {}, given)


def test_jit_works_wherever_jax_jit_does():
    f = cnn.jit(lambda x, n: jnp.sin(x) * n, static_argnames="n")
    x = jnp.arange(3.0)
    expected = np.sin(np.arange(3.0)) * 2
    np.testing.assert_allclose(f(x, n=2), expected, 1e-6)
    np.testing.assert_allclose(jax.jit(lambda x: f(x, n=2))(x), expected, 1e-6)
    np.testing.assert_allclose(jax.jit(lambda: f(np.arange(3.0, dtype=np.float32), n=2))(), expected, 1e-6)
    np.testing.assert_allclose(jax.vmap(lambda x: f(x, n=2))(x), expected, 1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: f(x, n=2).sum())(x), 2 * np.cos(np.arange(3.0)), 1e-6)
    np.testing.assert_allclose(f.lower(x, n=2).compile()(x), expected, 1e-6)
    assert f.eval_shape(x, n=2).shape == (3,)
    assert "sin" in str(f.trace(x, n=2).jaxpr)
    assert jax.export.export(f, platforms=["cpu", "cuda", "tpu"])(x, n=2).platforms == ("cpu", "cuda", "tpu")


def test_compiler_options_apply_to_the_outermost_jit_only():
    f = cnn.jit(lambda x: x + 1, compiler_options={"xla_backend_optimization_level": 1})
    assert float(f(1.0)) == float(jax.jit(f)(1.0)) == float(jax.jit(lambda: f(1.0))()) == 2
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        cnn.jit(lambda x: x, compiler_options={"no_such_option": 1})(1.0)


@pytest.mark.parametrize("cached", [False, True])
def test_jit_can_be_disabled(monkeypatch, cached):
    """Then values are concrete, so Python can branch on them."""
    monkeypatch.setattr(sys.modules["jaxcnn._jit"], "has_compilation_cache", lambda: cached)
    f = cnn.jit(lambda x: x + 1 if x > 0 else x)
    with jax.disable_jit():
        assert (float(f(jnp.ones(()))), float(f(-jnp.ones(())))) == (2, -1)


def test_memory_is_split_by_the_shapes_of_the_arguments(monkeypatch):
    module = sys.modules["jaxcnn._jit"]
    monkeypatch.setattr(module, "has_compilation_cache", lambda: False)
    monkeypatch.setattr(module, "BLOCK", 1000)
    f = cnn.jit(lambda x: (x @ x.T).sum())
    monkeypatch.setattr(f, "_with_options", lambda *, split: f"split: {split}")
    compiled = lambda shape: f._compiled([x := jnp.ones(shape)], (x,), {})
    assert [compiled((1, 100)), compiled((100, 1))] == ["split: True", "split: False"]


def test_jit_compiles_once_and_keeps_the_name():
    traces = []

    @cnn.jit
    def double(x):
        traces.append(1)
        return 2 * x

    for _ in range(3):
        double(jnp.ones(2))
    assert len(traces) == 1
    assert double.__name__ == "double"


def test_jit_errors_pass_through():
    @cnn.jit
    def bad(x):
        raise ValueError("from inside")

    with pytest.raises(ValueError, match="from inside"):
        bad(1.0)


def test_jit_leaves_out_options_that_the_compiler_does_not_know(monkeypatch):
    module = sys.modules["jaxcnn._jit"]
    known = {"xla_cpu_prefer_vector_width": "512"}
    monkeypatch.setattr(module, "_OPTIONS", {"cpu": {"xla_no_such_option": "1"} | known})
    monkeypatch.setattr(module, "backend_options", functools.cache(module.backend_options.__wrapped__))
    assert module.backend_options("cpu") == known
    assert float(cnn.jit(lambda x: x + 1)(1.0)) == 2


def test_jit_changes_nothing_global():
    program = (
        "import jax, os; a = dict(jax.config.values), dict(os.environ); import jaxcnn; jaxcnn.jit(lambda x: x)(1.0)"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program + "; assert (dict(jax.config.values), dict(os.environ)) == a"],
        check=True,
    )


def test_import_is_light():
    program = "import optax, sys, time; a = time.process_time(); import jaxcnn; print(time.process_time() - a)"
    program += "\nfor heavy in ('matplotlib', 'orbax', 'PIL', 'tqdm', 'safetensors', 'flax', 'torch', 'grain'):"
    program += "\n    assert heavy not in sys.modules, heavy"
    done = [
        float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    assert min(done) < 0.5  # CPU seconds, about 0.2 where nothing else runs


def test_summary_counts():
    net = cnn.serial(
        stem=cnn.conv(8, 3, stride=2, groups=2),
        stage=cnn.repeat(cnn.serial(conv=cnn.conv(8), norm=cnn.batch_norm()), 3),
        plain=cnn.repeat(cnn.conv(8, bias=False), 2),
        up=cnn.conv_transpose(4, 2, stride=2, padding="VALID"),
        pool=cnn.global_avg_pool,
        head=cnn.with_dropout(cnn.dense(10), 0.5),
    )
    table = cnn.explain.summary(net, jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32))
    rows = {row.path: (row.output.shape, row.params, row.multiply_adds) for row in table.layers}
    assert rows == {
        "stem": ((2, 4, 4, 8), 3 * 3 * 2 * 8 + 8, 16 * 3 * 3 * 2 * 8),
        "stage/conv": ((2, 4, 4, 8), 3 * (3 * 3 * 8 * 8 + 8), 3 * 16 * 3 * 3 * 8 * 8),
        "stage/norm": ((2, 4, 4, 8), 3 * 16, 0),
        "plain": ((2, 4, 4, 8), 2 * 3 * 3 * 8 * 8, 2 * 16 * 3 * 3 * 8 * 8),
        "up": ((2, 8, 8, 4), 2 * 2 * 8 * 4 + 4, 16 * 2 * 2 * 8 * 4),
        "pool": ((2, 4), 0, 0),
        "head": ((2, 10), 4 * 10 + 10, 40),
    }
    assert table.params == sum(row.params for row in table.layers)
    assert table.multiply_adds == sum(row.multiply_adds for row in table.layers)


def test_summary_of_one_layer_and_of_lenet():
    assert cnn.explain.summary(cnn.dense(3), np.zeros((1, 5), np.float32)).multiply_adds == 15
    table = cnn.explain.summary(cnn.models.lenet5(), jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32))
    assert (table.params, table.multiply_adds) == (61_706, 416_520)


def test_summary_makes_no_arrays():
    vast = jax.ShapeDtypeStruct((1, 1 << 20, 1 << 20, 64), jnp.float32)
    assert cnn.explain.summary(cnn.conv(64), vast).multiply_adds == (1 << 40) * 9 * 64 * 64


# A program that prints the new pages of a call of f(x), as a fraction of `size`. XLA's threads take turns, and each of
# them needs new memory once: up to 13 of the first 60 calls did.
NEW_PAGES = """
import resource
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(60):
    f(x).block_until_ready()
before = faults()
for _ in range(30):
    f(x).block_until_ready()
print((faults() - before) / 30 * resource.getpagesize() / size)
"""


@pytest.mark.slow
def test_memory_is_reused():
    """With `reuse_memory`, a large result uses few new pages after some calls; without it, all pages are new."""
    program = """
import sys, jax, jax.numpy as jnp
from jaxcnn import jit, train
how = sys.argv[1]
if how == "reuse" and not train.reuse_memory():
    print("unknown")
    sys.exit()
x = jnp.ones(12 * 2**20)  # 48 MB
f = (jax.jit if how == "plain" else jit)(lambda x: x + 1)
size = x.nbytes
"""

    def new_pages(how, **env):
        arguments, env = [sys.executable, "-c", program + NEW_PAGES, how], os.environ | env
        return subprocess.run(arguments, capture_output=True, text=True, check=True, env=env).stdout.split()[-1]

    reused = new_pages("reuse")
    if reused == "unknown":
        assert not sys.platform.startswith("linux")
        return
    fresh = float(new_pages("plain"))
    assert fresh > 0.9
    assert float(reused) < 0.5 * fresh
    assert float(new_pages("jit", JAXCNN_REUSE_MEMORY="1")) < 0.5 * fresh
    assert float(new_pages("jit", JAXCNN_REUSE_MEMORY="0")) > 0.9 * fresh


@pytest.mark.slow
def test_temporary_memory_is_reused():
    """Of a program with 192 MB of temporary arrays, although JAX was used before: they are split into small blocks."""
    program = """
import sys, jax
from jaxcnn import jit
options = {"xla_multiheap_size_constraint_per_heap": -1} if sys.argv[1] == "whole" else {}
x = jax.random.normal(jax.random.key(0), (6 * 2**20,))
f = lambda x: sum(jax.lax.optimization_barrier(tuple(x * i for i in range(8)))).sum()
f = jit(f, compiler_options=options)
size = 8 * x.nbytes
"""

    def new_pages(blocks):
        arguments = [sys.executable, "-c", program + NEW_PAGES, blocks]
        env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        return float(subprocess.run(arguments, capture_output=True, text=True, check=True, env=env).stdout)

    if hasattr(ctypes.CDLL(None), "mallopt"):
        assert new_pages("whole") > 0.9
        assert new_pages("small") < 0.6


def test_large_arrays_cause_no_warnings():
    """XLA would warn about arrays that are larger than the blocks of temporary memory, also after a smaller call."""
    program = """
import jax.numpy as jnp
from jaxcnn import jit
f = jit(lambda x: (jnp.roll(x, 1) @ jnp.roll(x, 2)).sum())
f(jnp.ones((4, 4)))
f(jnp.ones((3000, 3000)))
"""
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert "heap" not in done.stderr


@pytest.mark.slow
def test_programs_with_much_temporary_memory_are_saved_in_a_compilation_cache(tmp_path):
    program = """
import jax
from jaxcnn import jit
f = jit(lambda x: sum(jax.lax.optimization_barrier(tuple(x * i for i in range(8)))).sum())
f(jax.random.normal(jax.random.key(0), (6 * 2**20,))).block_until_ready()
"""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    arguments = [sys.executable, "-W", "error", "-c", program]
    subprocess.run(arguments, capture_output=True, text=True, check=True, env=os.environ | cache)
    assert [path for path in tmp_path.iterdir() if "lambda" in path.name]
