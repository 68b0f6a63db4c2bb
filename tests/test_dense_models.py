"""Backbones, feature pyramids and U-Nets. tests/test_zoo.py compares the segmentation models of torchvision."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import explain, models
from tests import zoo_weights

# stride -> channels, from the papers' tables
CHANNELS = {
    "resnet18": {2: 64, 4: 64, 8: 128, 16: 256, 32: 512},
    "resnet50": {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048},
    "resnetrs50": {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048},
    "res2net50_26w_4s": {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048},
    "vgg16": {2: 128, 4: 256, 8: 512, 16: 512, 32: 512},
    "convnext_tiny": {4: 96, 8: 192, 16: 384, 32: 768},
    "mobilenet_v2": {2: 16, 4: 24, 8: 32, 16: 96, 32: 1280},
    "mobilenet_v3_large": {2: 16, 4: 24, 8: 40, 16: 112, 32: 960},
    "efficientnet_b0": {2: 16, 4: 24, 8: 40, 16: 112, 32: 1280},
    "repvgg_a0": {2: 48, 4: 48, 8: 96, 16: 192, 32: 1280},
    "ghostnet_100": {2: 16, 4: 24, 8: 40, 16: 112, 32: 960},
    "mobilenetv4_conv_small": {2: 32, 4: 32, 8: 64, 16: 96, 32: 960},
    "regnet_y_400mf": {2: 32, 4: 48, 8: 104, 16: 208, 32: 440},
    "shufflenet_v2_x1_0": {2: 24, 4: 24, 8: 116, 16: 232, 32: 1024},
    "squeezenet1_1": {2: 64, 4: 128, 8: 256, 16: 512},
    "resnet20": {2: 32, 4: 64},
    "lenet5": {2: 16, 4: 16},
    "alexnet": {4: 64, 8: 192, 16: 256, 32: 256},
    "googlenet": {2: 64, 4: 192, 8: 480, 16: 832, 32: 1024},
    "densenet121": {2: 64, 4: 256, 8: 512, 16: 1024, 32: 1024},
    "hrnet_w18": {2: 64, 4: 18, 8: 36, 16: 72, 32: 144},
    "dla34": {2: 32, 4: 64, 8: 128, 16: 256, 32: 512},
}


def shapes(model, x):
    params, state = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), x)
    return params, jax.eval_shape(functools.partial(model.apply, train=False), params, state, x)[0]


def spec(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", CHANNELS)
def test_backbone_maps(name):
    """One map per stride, of 1 / stride of the image's size; parameters with the classifier's paths and shapes."""
    channels = models.MODELS[name].input_shape[-1]
    params, maps = shapes(models.backbone(name), spec(1, 256, 256, channels))
    assert {stride: y.shape[-1] for stride, y in maps.items()} == CHANNELS[name]
    for stride, y in maps.items():
        assert all(abs(n - 256 / stride) <= 4 for n in y.shape[1:3])
    whole, _ = shapes(models.MODELS[name](classes=None), spec(1, *models.MODELS[name].input_shape))
    assert set(jaxcnn.paths(params)) <= set(jaxcnn.paths(whole))
    jax.tree.map(lambda a, b: a.shape == b.shape or pytest.fail(str(a)), params, {k: whole[k] for k in params})


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_backbone_of_every_classifier(name):
    *spatial, channels = models.MODELS[name].input_shape
    if name.startswith(("fcn_", "deeplabv3_", "lraspp_", "unet")):
        with pytest.raises(ValueError, match=f"{name} is not a classifier"):
            models.backbone(name)
        return
    _, maps = shapes(models.backbone(name), spec(1, *(128,) * len(spatial), channels))
    strides = sorted(maps)
    for stride, y in maps.items():
        assert y.ndim == len(spatial) + 2
        assert abs(y.shape[-2] - 128 / stride) <= 6  # lenet5_1998 has convolutions without padding
    assert strides == [strides[0] * 2**i for i in range(len(strides))]


def test_backbone_computes_the_features_of_the_classifier():
    x = zoo_weights.images((2, 64, 64, 3))
    classifier, backbone = models.resnet18(classes=None), models.backbone("resnet18")
    params, state = classifier.init(jax.random.key(0), x)
    maps, _ = jaxcnn.jit(backbone.apply, static_argnames="train")(params, state, x, train=False)
    features, _ = jaxcnn.jit(classifier.apply, static_argnames="train")(params, state, x, train=False)
    np.testing.assert_allclose(maps[32].mean((1, 2)), features, rtol=1e-5, atol=1e-6)


@pytest.mark.sample(6)
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "resnet50"])
def test_dilation_computes_the_values_between(name, output_stride):
    """The dilated network has the values of the strided one at every k-th position."""
    x = zoo_weights.images((1, 96, 64, 3))
    strided, dilated = models.backbone(name), models.backbone(name, output_stride=output_stride)
    params, state = strided.init(jax.random.key(0), x)
    apply = jaxcnn.jit(lambda *args: tuple(net.apply(*args, train=False)[0] for net in (strided, dilated)))
    coarse, fine = apply(params, state, x)
    for stride in coarse:
        k = max(stride // output_stride, 1)
        assert fine[stride].shape[1] == 96 // min(stride, output_stride)
        assert np.abs(fine[stride][:, ::k, ::k] - coarse[stride]).max() <= 1e-5 * np.abs(coarse[stride]).max()


def test_outputs_by_name():
    backbone = models.backbone("resnet18", outputs={"low": "stage1", "high": "stage2"})
    params, maps = shapes(backbone, spec(1, 32, 32, 3))
    assert sorted(params) == ["stage1", "stage2", "stem"]
    assert {key: y.shape for key, y in maps.items()} == {"low": (1, 8, 8, 64), "high": (1, 4, 4, 128)}
    assert "stage2/1/sum/layer/conv2" in {row.path for row in explain.summary(backbone, spec(1, 32, 32, 3)).tree}


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnet19", {}, KeyError, "unknown model 'resnet19'; did you mean"),
        ("resnet18", {"outputs": {"x": "stage5"}}, ValueError, "resnet18 has no layer 'stage5'; .*'stage4'"),
        (
            "vgg16",
            {"output_stride": 8},
            ValueError,
            "vgg16 has no output_stride; .* mobilenet_v2, .*resnet50",
        ),
        ("resnet18", {"output_stride": 4}, ValueError, "output_stride must be 8, 16 or 32, got 4"),
        ("unet", {}, ValueError, "unet is not a classifier"),
        ("fcn_resnet50", {}, ValueError, "fcn_resnet50 is not a classifier"),
        ("lraspp_mobilenet_v3_large", {}, ValueError, "lraspp_mobilenet_v3_large is not a classifier"),
    ],
)
def test_wrong_backbones(name, options, error, message):
    with pytest.raises(error, match=message):
        models.backbone(name, **options)


def test_pyramid_of_torchvision():
    """Odd sizes, with torchvision's weights: nearest interpolation there rounds down."""
    with np.load(pathlib.Path(__file__).parent / "goldens" / "tasks" / "pyramid.npz") as golden:
        golden = dict(golden)
    maps = {key: golden[f"input_{key}"] for key in "abc"}
    model = models.feature_pyramid(jaxcnn.identity, features=golden["a"].shape[-1])
    params, state = model.init(jax.random.key(0), maps)
    for blocks, part in (("inner_blocks", "lateral"), ("layer_blocks", "smooth")):
        for i, key in enumerate(maps):
            layer = params["pyramid"][part][key]["conv"]
            size, _, inputs, outputs = layer["kernel"].shape
            kernel = zoo_weights.weight(f"{blocks}.{i}.0.weight", (outputs, inputs, size, size))
            layer["kernel"] = kernel.transpose(2, 3, 1, 0)
            layer["bias"] = zoo_weights.weight(f"{blocks}.{i}.0.bias", (outputs,))
    y, _ = model.apply(params, state, maps, train=False)
    for key in maps:
        np.testing.assert_allclose(y[key], golden[key], rtol=1e-4, atol=1e-5)


def test_pyramid_on_a_backbone():
    params, maps = shapes(models.feature_pyramid("resnet18", features=32), spec(1, 70, 50, 3))
    assert {key: y.shape for key, y in maps.items()} == {
        2: (1, 35, 25, 32),
        4: (1, 18, 13, 32),
        8: (1, 9, 7, 32),
        16: (1, 5, 4, 32),
        32: (1, 3, 2, 32),
    }
    backbone = jaxcnn.count_params(params["backbone"])
    assert jaxcnn.count_params(params) - backbone == 32 * (64 + 64 + 128 + 256 + 512 + 5) + 5 * (9 * 32 * 32 + 32)
    with pytest.raises(ValueError, match=r"must return a dict of feature maps, got shape \(1, 8, 8, 3\)"):
        shapes(models.feature_pyramid(jaxcnn.conv(3)), spec(1, 8, 8, 3))


@pytest.mark.parametrize("shape", [(1, 32, 2), (1, 16, 24, 3), (1, 16, 8, 8, 1)])
def test_unet_in_all_ranks(shape):
    model = models.unet(4, widths=(4, 8, 12), padding="SAME", norm=jaxcnn.batch_norm)
    _, y = shapes(model, spec(*shape))
    assert y.shape == (*shape[:-1], 4)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet34", (1, 75, 97, 3)),
        ("convnext_tiny", (1, 64, 64, 3)),
        ("resnet20", (1, 33, 30, 3)),
        ("vgg11_bn", (1, 64, 50, 3)),
        ("resnet18", (1, 100, 2)),
        ("resnet18", (1, 32, 40, 48, 1)),
    ],
)
def test_unet_on_a_backbone(name, shape):
    _, y = shapes(models.unet(5, backbone=name), spec(*shape))
    assert y.shape == (*shape[:-1], 5)


def test_unet_on_a_layer():
    maps = models.backbone("resnet18", norm=jaxcnn.instance_norm)
    x = spec(1, 40, 30, 3)
    params, y = shapes(models.unet(5, backbone=maps), x)
    assert y.shape == (1, 40, 30, 5)
    assert jax.tree.structure(params["backbone"]) == jax.tree.structure(shapes(maps, x)[0])
    with pytest.raises(
        ValueError, match=r"unet: the backbone must return a dict of feature maps, got shape \(1, 8, 8, 4\)"
    ):
        shapes(models.unet(5, backbone=jaxcnn.conv(4)), spec(1, 8, 8, 3))
    named = models.backbone("resnet18", outputs={"low": "stage1", "high": "stage2"})
    with pytest.raises(ValueError, match=r"keys of the feature maps must be their strides, got \['high', 'low'\]"):
        shapes(models.unet(5, backbone=named), spec(1, 64, 64, 3))


@pytest.mark.slow
def test_weights_of_a_classifier_load_into_a_backbone(tmp_path):
    """As in the docstring of `backbone`; `fit` starts from them."""
    params, state = models.resnet20(classes=None).init(jax.random.key(5), jnp.zeros((1, 32, 32, 3)))
    state_dict = jaxcnn.weights.to_torch("resnet20", params, state)
    params, state = jaxcnn.weights.from_torch("resnet20", state_dict, classes=None)
    images = zoo_weights.images((4, 8, 8, 3))
    fitted = jaxcnn.train.fit(
        models.unet(2, backbone="resnet20"),
        (images, (images[..., 0] > 0).astype(np.int32)),
        config={"epochs": 1, "batch_size": 4, "optimizer": {"learning_rate": 0.0}},
        run=jaxcnn.train.Run("test", {}, folder=tmp_path),
        start=({"backbone": params}, {"backbone": state}),
    )
    jax.tree.map(np.testing.assert_array_equal, fitted.params["backbone"], params)


def test_parameters_of_unet_on_a_backbone():
    """The published U-Net with a ResNet-34 encoder has 24,436,369 parameters, with a 3x3 head of 145 (one class)."""
    params, _ = shapes(models.unet(1, backbone="resnet34"), spec(1, 64, 64, 3))
    assert jaxcnn.count_params(params) - jaxcnn.count_params(params["head"]) == 24_436_369 - 145


@pytest.mark.slow
def test_unet_on_a_backbone_sees_all_maps():
    """The output depends on every feature map, and each gradient of the network is finite and not zero."""
    model = models.unet(2, backbone="resnet20")
    x = zoo_weights.images((2, 20, 20, 3))
    params, state = model.init(jax.random.key(0), x)

    @jaxcnn.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.square(model.apply(p, state, x, train=True)[0]).mean())(params)

    for path, leaf in zip(jaxcnn.paths(params), jax.tree.leaves(gradient(params)), strict=True):
        assert jnp.isfinite(leaf).all(), path
        assert leaf.any(), path


@pytest.mark.slow
def test_cross_entropy_of_a_segmentation_model():
    """The auxiliary logits count with their weight, and a map of another size is an error."""
    model = models.fcn(3, backbone="resnet18", dropout=0.0)
    x = zoo_weights.images((2, 33, 40, 3))
    params, state = model.init(jax.random.key(0), x)
    batch = {"image": x, "label": np.arange(2 * 33 * 40).reshape(2, 33, 40) % 3}
    (main, aux), _ = model.apply(params, state, x, train=True, key=jax.random.key(1))
    assert main.shape == aux.shape == (2, 33, 40, 3)
    losses = [
        jaxcnn.cross_entropy(jaxcnn.as_layer(lambda _, y=y: y))({}, {}, batch, train=True)[0] for y in (main, aux)
    ]
    loss, _ = jaxcnn.cross_entropy(model, auxiliary=0.5)(params, state, batch, train=True, key=jax.random.key(1))
    np.testing.assert_allclose(loss, losses[0] + 0.5 * losses[1], rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(2, 33, 39\)"):
        jaxcnn.cross_entropy(model)(params, state, batch | {"label": batch["label"][:, :, 1:]}, train=False)
