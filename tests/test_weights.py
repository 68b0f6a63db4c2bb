"""Weights in and out: layouts, names, files, and what is refused."""

import os
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import weights
from jaxcnn.models import MODELS
from jaxcnn.weights._convert import _targets
from jaxcnn.weights._tables import PLAIN, tables
from jaxcnn.weights._uses import leaf_uses
from tests import zoo_weights

safetensors = pytest.importorskip("safetensors.numpy")


@pytest.fixture(scope="module")
def resnet():
    """(params, state) of a ResNet-18 with four classes, of random numbers, all different."""
    spec = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    trees = jax.eval_shape(MODELS["resnet18"](4).init, jax.eval_shape(lambda: jax.random.key(0)), spec)
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape, np.float32), trees)


def same(trees, others):
    assert jax.tree.structure(trees) == jax.tree.structure(others)
    return all((a == b).all() for a, b in zip(jax.tree.leaves(trees), jax.tree.leaves(others), strict=True))


def test_layout_of_kernels(resnet):
    params, state = resnet
    there = weights.to_torch("resnet18", params, state)
    kernel = params["stage2"]["0"]["sum"]["layer"]["conv1"]["kernel"]  # (height, width, in, out)
    assert there["layer2.0.conv1.weight"][7, 5, 2, 1] == kernel[2, 1, 5, 7]
    assert there["fc.weight"][3, 100] == params["head"]["kernel"][100, 3]
    assert (there["bn1.running_var"] == state["stem"]["norm"]["var"]).all()
    assert there["bn1.num_batches_tracked"] == 0
    assert there["bn1.num_batches_tracked"].dtype == np.int64


def test_dense_layer_after_flattening():
    """A feature map is flattened channels last here, channels first there."""
    params, state = MODELS["lenet5"]().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    there = weights.to_torch("lenet5", params, state)["dense1.weight"]
    maps = np.random.default_rng(0).standard_normal((5, 5, 16)).astype(np.float32)
    ours = maps.reshape(-1) @ np.asarray(params["dense1"]["kernel"])
    np.testing.assert_allclose(there @ maps.transpose(2, 0, 1).reshape(-1), ours, rtol=1e-4, atol=1e-5)


def test_there_and_back(resnet):
    assert same(weights.from_torch("resnet18", weights.to_torch("resnet18", *resnet), classes=4), resnet)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_prefixes_are_removed(resnet, prefix):
    there = {prefix + name: value for name, value in weights.to_torch("resnet18", *resnet).items()}
    assert same(weights.from_torch("resnet18", there, classes=4), resnet)


def test_counters_may_be_missing_and_halves_are_widened(resnet):
    there = weights.to_torch("resnet18", *resnet)
    there = {name: value.astype(np.float16) for name, value in there.items() if "num_batches" not in name}
    params, _ = weights.from_torch("resnet18", there, classes=4)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    np.testing.assert_allclose(params["head"]["bias"], resnet[0]["head"]["bias"], rtol=1e-3)


def test_all_that_does_not_fit_is_listed(resnet):
    there = weights.to_torch("resnet18", *resnet)
    del there["conv1.weight"], there["layer4.1.bn2.running_mean"]
    there["extra.weight"] = np.zeros((2, 3))
    there["extra.num_batches_tracked"] = np.zeros(())
    there["layer1.0.conv1.weight"] = np.zeros((64, 64, 1, 1))
    with pytest.raises(weights.WeightsError) as error:
        weights.from_torch("resnet18", there)
    message = str(error.value)
    assert "missing (2)" in message
    assert "conv1.weight (64, 3, 7, 7)" in message
    assert "layer4.1.bn2.running_mean (512,)" in message
    assert "unused (2)" in message
    assert "extra.weight (2, 3)" in message
    assert "extra.num_batches_tracked" in message
    assert "wrong shape (3)" in message  # the two of the head, for other classes
    assert "layer1.0.conv1.weight (64, 64, 1, 1), expected (64, 64, 3, 3)" in message
    assert "fc.weight (4, 512), expected (1000, 512)" in message


def test_features_without_the_head(resnet):
    params, state = weights.from_torch("resnet18", weights.to_torch("resnet18", *resnet), classes=None)
    assert same((params, state), ({name: tree for name, tree in resnet[0].items() if name != "head"}, resnet[1]))
    with pytest.raises(weights.WeightsError, match="unused"):
        weights.from_torch("resnet18", weights.to_torch("resnet18", *resnet) | {"more": np.zeros(1)}, classes=None)


def test_unknown_model():
    with pytest.raises(ValueError, match=r"'resnet19' is not in MODELS; .*did you mean 'resnet1"):
        weights.from_torch("resnet19", {})
    with pytest.raises(ValueError, match="is not in MODELS"):
        weights.to_torch("resnet19", {}, {})


def test_parameters_of_another_model(resnet, tmp_path):
    message = r"do not fit lenet5: none of conv1, conv2, .* in params, which has head, "
    with pytest.raises(weights.WeightsError, match=message):
        weights.save(tmp_path / "w.safetensors", *resnet, model="lenet5")
    assert not list(tmp_path.iterdir())
    with pytest.raises(weights.WeightsError, match="which has no layers") as caught:
        weights.to_torch("resnet18", {}, {})
    assert set(caught.value.missing) == {"stem", "stage1", "stage2", "stage3", "stage4"}


@pytest.mark.parametrize("model", [None, "resnet18"])
def test_files(resnet, model, tmp_path):
    path = tmp_path / "w.safetensors"
    weights.save(path, *resnet, model=model)
    assert same(weights.load(path, model, **({"classes": 4} if model else {})), resnet)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    assert ("fc.weight" in safetensors.load_file(path)) == (model is not None)


def test_file_of_torch_needs_a_model(resnet, tmp_path):
    weights.save(tmp_path / "w.safetensors", *resnet, model="resnet18")
    with pytest.raises(
        weights.WeightsError, match=r"names such as '.*, not jaxcnn's: pass their model, load\(path, model\)"
    ):
        weights.load(tmp_path / "w.safetensors")


def test_bfloat16_file(tmp_path):
    weights.save(tmp_path / "w.safetensors", {"kernel": jnp.full((2, 2), 1.5, jnp.bfloat16)}, {})
    params, _ = weights.load(tmp_path / "w.safetensors")
    assert params["kernel"].dtype == jnp.bfloat16
    assert (params["kernel"] == 1.5).all()


class Trap:
    """What a malicious pickle does when it is read."""

    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors"])
def test_pickles_are_not_opened(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(weights.WeightsError, match="not supported") as error:
        weights.load(tmp_path / name, "resnet18")
    assert "weights_only=True" in str(error.value)
    assert "w.safetensors" in str(error.value)
    assert not (tmp_path / "sprung").exists()


def test_damaged_files(tmp_path):
    """Each byte of the header changed, and the file cut at each place: an error or other numbers, never more."""
    path = tmp_path / "w.safetensors"
    weights.save(
        path, {"conv": {"kernel": np.ones((1, 1, 2, 2), np.float32)}}, {"norm": {"mean": np.ones(2, np.float32)}}
    )
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    cases = [whole[:at] for at in range(len(whole))] + [
        whole[:at] + bytes([draw.integers(256)]) + whole[at + 1 :] for at in range(len(whole)) for _ in range(12)
    ]
    refused = 0
    for case in cases:
        path.write_bytes(case)
        try:
            weights.load(path)
        except weights.WeightsError:
            refused += 1
    assert len(cases) > 2000
    assert refused >= len(whole)


def test_no_half_file_is_left(resnet, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    weights.save(path, {"kernel": np.ones(2, np.float32)}, {})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        weights.save(path, *resnet)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    assert weights.load(path)[0]["kernel"].shape == (2,)


def test_missing_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxcnn\[weights\]'"):
        weights.save(tmp_path / "w.safetensors", {"kernel": np.ones(2, np.float32)}, {})


def test_weights_that_only_have_names():
    """Of what makes both sides of a comparison: different for each name, the same each time."""
    one, two, again = (zoo_weights.weight(name, (8, 8, 3, 3)) for name in ("a.weight", "b.weight", "a.weight"))
    assert (one == again).all()
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.2
    assert jaxcnn.weights.from_torch is weights.from_torch


def test_the_counter_of_a_bare_batch_norm():
    ones = np.ones(8, np.float32)
    given = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), ones)
    given["num_batches_tracked"] = np.array(7)
    x = jnp.zeros((1, 4, 4, 8))
    params, state = weights.from_torch(jaxcnn.batch_norm(), given, x=x)
    assert weights.to_torch(jaxcnn.batch_norm(), params, state, x=x).keys() == given.keys()


def test_what_has_no_pytorch_layout_is_refused():
    x = jnp.zeros((1, 8, 8, 3))
    net = jaxcnn.serial(body=jaxcnn.repeat(jaxcnn.conv(3), 2))
    with pytest.raises(weights.WeightsError, match="body/kernel holds several kernels"):
        weights.to_torch(net, *net.init(jax.random.key(0), x), x=x)
    params, state = MODELS["lenet5"]().init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(weights.WeightsError, match=r"dense1/kernel has shape .* but 400 inputs"):
        weights.to_torch("lenet5", params, state)
    params, state = MODELS["resnet18"](10).init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    with pytest.raises(weights.WeightsError, match=r"pass the layer, such as models\.resnet18"):
        weights.to_torch("resnet18", params, state, names=[("^stem", "s")])


def test_the_order_of_flattened_features_of_a_head_that_only_training_uses():
    def head_in_training():
        head = jaxcnn.serial(flatten=jaxcnn.flatten, dense=jaxcnn.dense(2, bias=False))

        def apply(params, state, x, *, train, key=None):
            y = head.apply(params, {}, x, train=train)[0] if train else None
            return (x.mean((1, 2)), y) if train else x.mean((1, 2)), state

        return jaxcnn.Layer(head.init, apply)

    x = jnp.zeros((1, 2, 3, 4))
    net = head_in_training()
    kernel = np.arange(48, dtype=np.float32).reshape(24, 2)
    found = weights.to_torch(net, {"dense": {"kernel": kernel}}, {}, x=x)["dense.weight"]
    np.testing.assert_array_equal(found, kernel.reshape(2, 3, 4, 2).transpose(3, 2, 0, 1).reshape(2, 24))


@pytest.mark.parametrize("name", ["alexnet_2012", "zfnet", "unet", "lenet5"])
def test_layouts_of_models_that_no_library_has_are_those_of_their_layers(name):
    build = MODELS[name]
    x = jax.ShapeDtypeStruct((1, *build.input_shape), jnp.float32)
    trees = jax.eval_shape(build().init, jax.random.key(0), x)
    by_name, by_layer = (
        {target.leaf: target.layout for target in _targets(trees, table, uses).values()}
        for table, uses in ((tables(name)[0], None), (PLAIN, leaf_uses(build().apply, trees, x)))
    )
    assert by_name == by_layer
    assert any(layout.axes != tuple(range(len(layout.axes))) for layout in by_name.values())


def test_weights_without_auxiliary_heads_name_the_option():
    model = MODELS["googlenet"](classes=4)
    params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (params, state))
    there = weights.to_torch("googlenet", *zeros)
    with pytest.raises(
        weights.WeightsError, match=r"missing \(\d+\): aux(.|\n)*pass auxiliary=False, also to the model"
    ):
        weights.from_torch("googlenet", there, classes=4, auxiliary=True)
