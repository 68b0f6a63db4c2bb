"""Checkpoints: bit-exact restoring, detection of damage, and error messages."""

import functools
import json
import os
import random
import resource
import shutil
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import train
from jaxcnn.train import CheckpointError, ConfigError, _checkpoint_folder, checkpoint

pytest.importorskip("orbax.checkpoint")


def tree(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "float": jnp.asarray(rng.normal(size=(7, 5)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=33), jnp.bfloat16),
        "deep": [{"int": jnp.asarray(rng.integers(0, 99, (3, 2)), jnp.int32)}, (jnp.float32(rng.normal()),)],
        "bool": jnp.asarray(rng.integers(0, 2, 9), bool),
        "special": jnp.array([jnp.nan, -jnp.inf, -0.0, 1e-45], jnp.float32),
        "empty": jnp.zeros((0, 4)),
        "key": jax.random.key(seed),
        "../../evil": jnp.float32(1),
    }


def bits(leaf):
    leaf = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return (leaf.shape, leaf.dtype.name, np.asarray(leaf).tobytes())


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and [*map(bits, jax.tree.leaves(a))] == [
        *map(bits, jax.tree.leaves(b))
    ]


def test_restores_every_bit(tmp_path):
    checkpoint.save(tmp_path, 12, tree(), config={"a": [1, 2]}, metric=0.5, note={"epoch": 3})
    for like in (tree(1), jax.eval_shape(lambda: tree(1))):
        step, restored, about = checkpoint.restore(tmp_path, like, config={"a": (1, 2)})
        assert step == 12
        assert same(restored, tree())
        assert about["metric"] == 0.5
        assert about["note"] == {"epoch": 3}
    assert {path.name for path in tmp_path.iterdir()} == {"12"}


def test_the_latest_and_the_best_are_kept(tmp_path):
    for step, metric in ((1, 0.2), (2, 0.9), (3, 0.1), (4, 0.9), (5, None), (6, 0.3), (7, 0.2)):
        checkpoint.save(tmp_path, step, {"w": jnp.float32(step)}, metric=metric, keep=2)
    assert checkpoint.steps(tmp_path) == [4, 6, 7]
    assert checkpoint.best(tmp_path) == 4
    like = {"w": jnp.float32(0)}
    assert checkpoint.restore(tmp_path, like).tree["w"] == 7
    assert checkpoint.restore(tmp_path, like, step=4).tree["w"] == 4
    checkpoint.save(tmp_path, 7, {"w": jnp.float32(70)}, keep=2)
    assert checkpoint.restore(tmp_path, like).tree["w"] == 70


def test_no_checkpoint(tmp_path):
    assert checkpoint.steps(tmp_path / "nowhere") == []
    assert checkpoint.best(tmp_path) is None
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        checkpoint.restore(tmp_path, tree())
    checkpoint.save(tmp_path, 1, tree())
    with pytest.raises(CheckpointError, match=r"no valid checkpoint; .*5"):
        checkpoint.restore(tmp_path, tree(), step=5)


def test_another_config(tmp_path):
    config = {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "epochs": 3}
    checkpoint.save(tmp_path, 1, tree(), config=config)
    other = {"optimizer": {"name": "sgd", "learning_rate": 0.2}, "epochs": 3, "new": True}
    with pytest.raises(ConfigError) as caught:
        checkpoint.restore(tmp_path, tree(), config=other)
    assert str(caught.value).splitlines()[1:] == [
        "  new: was (none), now True",
        "  optimizer.learning_rate: was 0.1, now 0.2",
    ]
    assert same(checkpoint.restore(tmp_path, tree(), config=None).tree, tree())


def test_another_tree(tmp_path):
    checkpoint.save(tmp_path, 1, {"a": jnp.zeros((2, 3)), "b": jnp.zeros(1)})
    like = {"a": jnp.zeros((3, 2)), "c": jnp.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.restore(tmp_path, like)
    assert str(caught.value).splitlines()[1:] == [
        "  a: expected [[3, 2], 'float32'], found [[2, 3], 'float32']",
        "  b: expected None, found [[1], 'float32']",
        "  c: expected [[1], 'float32'], found None",
    ]
    with pytest.raises(CheckpointError, match="bfloat16"):
        checkpoint.restore(tmp_path, {"a": jnp.zeros((2, 3), jnp.bfloat16), "b": jnp.zeros(1)})


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_steps")
    checkpoint.save(folder, 1, tree(1))
    checkpoint.save(folder, 2, tree(2))
    return folder


@pytest.fixture
def damaged(two_steps, tmp_path):
    """A copy of two steps, to be damaged."""
    folder = tmp_path / "damaged"
    shutil.copytree(two_steps, folder)
    return folder


@pytest.mark.parametrize("trials", [50, pytest.param(300, marks=pytest.mark.full)])
def test_a_flipped_bit_is_always_detected(two_steps, tmp_path, trials):
    rng = random.Random(0)
    seen = harmless = 0
    for trial in range(trials):
        folder = tmp_path / str(trial)
        shutil.copytree(two_steps, folder)
        file = rng.choice(files(folder / "2"))
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step, restored, _ = checkpoint.restore(folder, tree())
        if step == 2:
            assert same(restored, tree(2)), f"{file} is silently wrong"
            harmless += 1
        else:
            assert same(restored, tree(1))
            assert any("using step 1 instead" in str(warning.message) for warning in caught)
            seen += 1
        shutil.rmtree(folder)
    print(f"{seen} of {trials} flipped bits seen, {harmless} harmless, 0 silently wrong")
    assert seen >= 0.97 * trials


@pytest.mark.parametrize("change", ["delete", "truncate", "empty", "longer"])
def test_every_file_counts(damaged, change):
    for file in files(damaged / "2"):
        content = file.read_bytes()
        match change:
            case "delete":
                file.unlink()
            case "truncate":
                file.write_bytes(content[:-1])
            case "empty":
                file.write_bytes(b"")
            case "longer":
                file.write_bytes(content + b"!")
        with pytest.warns(UserWarning, match="using step 1 instead"):
            assert checkpoint.restore(damaged, tree()).step == 1
        file.write_bytes(content)
    assert checkpoint.restore(damaged, tree()).step == 2


def test_unexpected_files_are_damage(damaged, tmp_path):
    (damaged / "2" / "more").write_bytes(b"")
    with pytest.warns(UserWarning, match="more: is not in the manifest"):
        assert checkpoint.restore(damaged, tree()).step == 1
    (damaged / "2" / "more").unlink()
    file = files(damaged / "2" / "arrays")[0]
    shutil.move(file, tmp_path / "moved")
    os.symlink(tmp_path / "moved", file)
    with pytest.warns(UserWarning, match="is a symbolic link"):
        assert checkpoint.restore(damaged, tree()).step == 1
    for name in ("3.partial", "4.removed", "-5", "6x", "\u0667"):
        (damaged / name).mkdir()
    (damaged / "8").write_text("a file")
    assert checkpoint.steps(damaged) == [1, 2]


def test_manifest_of_another_step_or_format(damaged):
    shutil.copy(damaged / "1" / "manifest.json", damaged / "2" / "manifest.json")
    with pytest.warns(UserWarning, match="using step 1 instead"):
        assert checkpoint.restore(damaged, tree()).step == 1
    about = json.loads((damaged / "1" / "about.json").read_text())
    (damaged / "1" / "about.json").write_text(json.dumps(about | {"format": 99}))
    manifest = json.loads((damaged / "1" / "manifest.json").read_text())
    manifest["about.json"] = _checkpoint_folder.sha256(damaged / "1" / "about.json")
    (damaged / "1" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="unknown format"):
        checkpoint.restore(damaged, tree())


def test_disk_full(two_steps, tmp_path, caplog):
    """One error, without the tracebacks that Orbax logs."""
    folder = tmp_path / "full"
    shutil.copytree(two_steps, folder)
    large = {"w": jax.random.normal(jax.random.key(0), (300_000,))}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"full/3: cannot write 1,200,000 bytes of arrays"):
            checkpoint.save(folder, 3, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caplog.records == []
    assert {path.name for path in folder.iterdir()} == {"1", "2"}
    assert same(checkpoint.restore(folder, tree()).tree, tree(2))
    checkpoint.save(folder, 3, large)
    np.testing.assert_array_equal(checkpoint.restore(folder, large).tree["w"], large["w"])


def test_a_failure_anywhere_leaves_the_steps_before(two_steps, tmp_path, monkeypatch):
    """`save` fails before each of its system calls in turn."""
    real = {name: getattr(os, name) for name in ("fsync", "replace", "rename")}
    calls = 0

    def failing(name, at):
        def call(*args, **options):
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError("pulled the plug")
            return real[name](*args, **options)

        return call

    for at in range(1, 40):
        folder = tmp_path / str(at)
        shutil.copytree(two_steps, folder)
        calls = 0
        for name in real:
            monkeypatch.setattr(os, name, failing(name, at))
        try:
            checkpoint.save(folder, 3, tree(3), keep=1)
            failed = False
        except CheckpointError:
            failed = True
        for name in real:
            monkeypatch.setattr(os, name, real[name])
        step, restored, _ = checkpoint.restore(folder, tree())
        assert same(restored, tree(step))
        assert step == 3 or failed
        if calls < at:
            assert at > 3
            return
    pytest.fail("there were more calls than expected")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"n": np.array([0, 2**40])}, r"checkpoint.save: n\[1\] is 1099511627776, which does not fit into int32"),
        ({"n": np.zeros((0, 3))}, "no array with values"),
        ({}, "no array with values"),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.save(tmp_path, 1, arrays)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": "x"}, "a must be an array of a dtype of JAX, a random key or a number, got 'x'"),
        ({"a": {"b": object()}}, "a/b must be an array .*, got <object object"),
        ({"a": np.array(["x"])}, r"a must be an array .*, got <U1 of shape \(1,\)"),
        ("x", "the tree must be an array .*, got 'x'"),
    ],
)
def test_leaves_that_are_no_arrays(tmp_path, arrays, message):
    with pytest.raises(TypeError, match=f"^checkpoint.save: {message}"):
        checkpoint.save(tmp_path, 1, arrays)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"step": True}, {"step": 1, "keep": True}, {"step": 1.0}])
def test_refuses_what_is_no_integer(tmp_path, options):
    with pytest.raises(TypeError, match=r"must be an integer, got (True|1\.0)"):
        checkpoint.save(tmp_path, tree=tree(), **options)


def test_refuses_to_restore(tmp_path):
    checkpoint.save(tmp_path, 1, tree())
    for step, message in (("1", "an integer, got '1'"), (True, "an integer, got True"), (-1, "at least 0, got -1")):
        with pytest.raises((TypeError, ValueError), match=rf"checkpoint\.restore: step must be {message}"):
            checkpoint.restore(tmp_path, tree(), step=step)
    with pytest.raises(TypeError, match=r"checkpoint\.restore: like must hold arrays or their shapes, got 'a'"):
        checkpoint.restore(tmp_path, {"w": "a"})


@pytest.mark.parametrize(("step", "keep"), [(-1, 3), (0, 0)])
def test_refuses(tmp_path, step, keep):
    with pytest.raises(ValueError, match=r"(step must be at least 0|keep must be at least 1)"):
        checkpoint.save(tmp_path, step, tree(), keep=keep)


def test_without_orbax(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"written by Orbax: pip install 'jaxcnn\[train\]'"):
        checkpoint.save(tmp_path, 1, tree())


@pytest.mark.parametrize("start", [train.fit, functools.partial(train.sweep, over={"seed": [0, 1]})])
def test_training_without_orbax_ends_before_the_first_epoch(tmp_path, monkeypatch, capsys, start):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    model, data = cnn.serial(cnn.flatten, cnn.dense(2)), (np.ones((4, 3), np.float32), np.zeros(4, int))
    run = train.Run("test", {}, folder=tmp_path / "run")
    with pytest.raises(ImportError, match=r"written by Orbax: pip install 'jaxcnn\[train\]'"):
        start(model, data, config={"epochs": 1, "batch_size": 2}, run=run)
    assert "epoch 1" not in capsys.readouterr().out
    start(model, data, config={"epochs": 1, "batch_size": 2, "checkpoint": {"keep": 0}}, run=run)


@pytest.mark.parametrize(
    ("start", "name"), [(train.fit, "checkpoints"), (functools.partial(train.sweep, over={"seed": [0]}), "sweep")]
)
def test_a_link_to_a_missing_folder_is_an_error_before_the_first_epoch(tmp_path, capsys, start, name):
    model, data = cnn.serial(cnn.flatten, cnn.dense(2)), (np.ones((4, 3), np.float32), np.zeros(4, int))
    run = train.Run("test", {}, folder=tmp_path)
    (tmp_path / name).symlink_to(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=f"{name} is a link to a missing folder; remove or rename it"):
        start(model, data, config={"epochs": 1, "batch_size": 2}, run=run)
    assert capsys.readouterr().out == ""
