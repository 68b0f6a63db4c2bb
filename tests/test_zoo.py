"""Every model: its published figures, and the numbers of PyTorch for the same weights.

All of them, which takes an hour or so: python -m pytest tests/test_zoo.py -m "full or not full"
Last run, in parts, on 2026-11-25 with jax 0.10.2: all 541 passed.
"""

import functools
import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import explain, weights
from jaxcnn._path import paths
from jaxcnn.models import MODELS
from jaxcnn.weights._convert import _counters, _targets
from jaxcnn.weights._tables import tables
from tests import zoo_weights
from tests.published import SEGMENTATION, TORCHVISION

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

GOLDENS = {file.stem: file for file in sorted((pathlib.Path(__file__).parent / "goldens" / "zoo").glob("*.npz"))}
# The smallest of each family; CI compares half of these, full runs compare all models.
SMALL = {
    "alexnet",
    "vgg11",
    "googlenet",
    "resnet18",
    "resnetrs50",
    "res2net50_26w_4s",
    "se_resnet18",
    "preact_resnet18",
    "dla34",
    "xception",
    "densenet121",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenetv4_conv_small",
    "mnasnet0_5",
    "efficientnet_b0",
    "ghostnet_100",
    "repvgg_a0",
    "regnet_x_400mf",
    "regnet_x_4gf",
    "regnet_y_400mf",
    "convnext_tiny",
    "convnextv2_atto",
    "lraspp_mobilenet_v3_large",
    "deeplabv3_mobilenet_v3_large",
    "r3d_18",
    "fcn1d",
    "inception_time",
}
# In training: one for each kind of state, auxiliary head and shuffle.
SMALL_IN_TRAINING = {"googlenet", "resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v2", "convnext_tiny"}
SMALL_IN_TRAINING |= {"deeplabv3_mobilenet_v3_large"}
SMALL_IN_TRAINING |= {"fcn1d", "inception_time", "resnet26d", "res2net50_26w_4s"}
# So deep that rounding grows on the way: in training, PyTorch's own float32 is off by 2e-3 of the largest logit.
DEEP = {
    "resnet101",
    "resnet152",
    "wide_resnet101_2",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "se_resnet101",
    "se_resnet152",
    "preact_resnet101",
    "preact_resnet152",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
}
ROW = re.compile(r"^ +(\w+) +([\d,]+) +([\d,.]+)(?: ([GM]))?(?: |$)", re.MULTILINE)


def spec(name):
    return jax.ShapeDtypeStruct((1, *MODELS[name].input_shape), jnp.float32)


def shapes(name, **options):
    x = spec(name)
    return jax.eval_shape(MODELS[name](**options).init, jax.eval_shape(lambda: jax.random.key(0)), x)


def compared(name):
    """Options of the model that is compared: ten classes, and whatever heads it may have."""
    parameters = inspect.signature(MODELS[name]).parameters
    return {"classes": 10} | ({"auxiliary": True} if "auxiliary" in parameters else {})


def without_chance(name, **options):
    """The model with no dropout."""
    parameters = inspect.signature(MODELS[name]).parameters
    return options | {rate: 0.0 for rate in ("dropout", "drop_path") if rate in parameters}


@functools.cache
def shapes_there(name, **options):
    """The shapes of all names that the model has in PyTorch."""
    targets = _targets(shapes(name, **options), tables(name)[0])
    return {key: target.layout.torch_shape for key, target in targets.items()} | dict.fromkeys(_counters(targets), ())


def state_dict(name, **options):
    return {key: zoo_weights.weight(key, shape) for key, shape in shapes_there(name, **options).items()}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", zoo_weights.full_but(SMALL | {"unet", "hrnet_w18", "inception_v3"}, MODELS))
def test_figures(name):
    """Parameters and multiply-adds, to the digits given, of the model's documentation and of torchvision."""
    rows = {row[1]: row.groups()[1:] for row in ROW.finditer(MODELS[name].__doc__)}
    stated, multiply_adds, unit = rows[name]
    found = explain.summary(MODELS[name](), spec(name))
    assert found.params == int(stated.replace(",", ""))
    digits = len(multiply_adds.partition(".")[2])
    counted = found.multiply_adds / {"G": 1e9, "M": 1e6, None: 1}[unit]
    assert f"{counted:,.{digits}f}" == multiply_adds
    if name in SEGMENTATION:
        parameters, multiply_adds, auxiliary = SEGMENTATION[name]
        assert found.params == parameters
        assert found.multiply_adds / 1e9 == pytest.approx(multiply_adds - auxiliary, abs=1.1e-3)
    if name in TORCHVISION:
        parameters, multiply_adds, *size = TORCHVISION[name]
        assert MODELS[name].input_shape == (*(size * 2 if len(size) == 1 else size), 3)
        assert found.params == parameters
        assert f"{found.multiply_adds / 1e9:.3f}" == f"{multiply_adds:.3f}"


def test_all_of_torchvision_is_here():
    assert len(TORCHVISION) == 72
    assert set(TORCHVISION) <= set(MODELS)
    assert set(SEGMENTATION) <= set(MODELS)
    assert set(TORCHVISION) | set(SEGMENTATION) <= set(GOLDENS)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("mode", "name"),
    [
        pytest.param(mode, name, marks=() if name in small else pytest.mark.full)
        for mode, small in (("eval", SMALL), ("train", SMALL_IN_TRAINING))
        for name in GOLDENS
    ],
)
def test_logits_of_torch(mode, name):
    """In training with the statistics of the batch and without dropout; the deep ones then in float64."""
    options = compared(name)
    model = MODELS[name](**without_chance(name, **options))
    x = zoo_weights.images((zoo_weights.BATCH, *zoo_weights.shape_of(name, MODELS[name].input_shape)))
    arrays = *weights.from_torch(name, state_dict(name, **options), **options), x
    wide = mode == "train" and name in DEEP
    with jax.enable_x64(wide):
        if wide:
            arrays = jax.tree.map(np.float64, arrays)
        apply = jaxcnn.jit(model.apply, static_argnames="train")
        y = zoo_weights.sampled(np.stack(apply(*arrays, train=mode == "train", key=jax.random.key(0))[0]))
    with np.load(GOLDENS[name], allow_pickle=False) as golden:
        expected = golden[mode]
    assert np.abs(y - expected).max() <= (1e-6 if wide else 1e-4) * np.abs(expected).max()


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", zoo_weights.full_but(SMALL, GOLDENS))
def test_names_of_torch(name):
    with np.load(GOLDENS[name], allow_pickle=False) as golden:
        expected = str(golden["names"])
    assert zoo_weights.names_hash(shapes_there(name, **compared(name))) == expected


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", zoo_weights.full_but(SMALL_IN_TRAINING, GOLDENS))
def test_weights_there_and_back(name):
    """To the bit."""
    options = compared(name)
    there = state_dict(name, **options)
    back = weights.to_torch(name, *weights.from_torch(name, there, **options))
    assert back.keys() == there.keys()
    for key, weight in there.items():
        assert (back[key].dtype, back[key].shape) == (weight.dtype, weight.shape)
        assert back[key].tobytes() == weight.tobytes()


@pytest.mark.parametrize("name", zoo_weights.full_but({"lenet5", "resnet20"}, MODELS))
def test_gradients_are_finite(name):
    """All of them, in bfloat16, and none of a kernel is nothing but zeros."""
    options = compared(name)
    params, state = weights.from_torch(name, state_dict(name, **options), **options)
    shape = MODELS[name].input_shape
    x = zoo_weights.images((2, *map(min, shape, zoo_weights.shape_of(name, shape))))
    # Without chance: a block that is left out for both images has a gradient of zeros.
    model = jaxcnn.cast(MODELS[name](**without_chance(name, **options)), jnp.bfloat16)

    @jaxcnn.jit
    def gradient(params):
        def loss(params):
            y, _ = model.apply(params, state, x, train=True)
            return sum(jnp.square(part).mean() for part in jax.tree.leaves(y))

        return jax.grad(loss)(params)

    for path, leaf in zip(paths(params), jax.tree.leaves(gradient(params)), strict=True):
        assert jnp.isfinite(leaf).all(), path
        assert not path.endswith("kernel") or leaf.any(), path
