"""What the models are made of, where no other implementation says it."""

import functools
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import weights
from jaxcnn.models import MODELS
from jaxcnn.models._unit import with_auxiliary
from jaxcnn.weights._convert import _targets
from jaxcnn.weights._tables import tables
from tests import zoo_weights

GOLDENS = pathlib.Path(__file__).parent / "goldens"


def whole(name, **options):
    """The model and shapes of its parameters, its state and its input."""
    model = MODELS[name](**options)
    x = jax.ShapeDtypeStruct((2, *MODELS[name].input_shape), jnp.float32)
    return model, *jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), x), x


def state_dict(name, **options):
    """By the names of PyTorch, each array full of a number of its own."""
    _, params, state, _ = whole(name, **options)
    leaves, structure = jax.tree.flatten((params, state))
    numbered = [np.broadcast_to(np.float32(i), leaf.shape) for i, leaf in enumerate(leaves)]
    return weights.to_torch(name, *jax.tree.unflatten(structure, numbered))


def drawn(shapes):
    """Normal arrays of these shapes, in less time than it takes to compile `init`."""
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape, np.float32), shapes)


def scaled(factor):
    return jaxcnn.stateless(lambda key, x: {"scale": jnp.full(1, factor)}, lambda params, x: params["scale"] * x)


def test_auxiliary_heads():
    upper = with_auxiliary(scaled(5.0), two=scaled(-1.0))
    middle = with_auxiliary(jaxcnn.serial(layer=scaled(3.0), upper=upper), one=scaled(10.0))
    net = jaxcnn.serial(lower=scaled(2.0), middle=middle)
    x = jnp.ones((1, 1))
    params, state = net.init(jax.random.key(0), x)
    assert net.apply(params, state, x, train=False)[0] == 30
    assert net.apply(params, state, x, train=True)[0] == (30, -6, 20)  # the uppermost first

    def gradient(output):
        return jax.grad(lambda params: net.apply(params, state, x, train=True)[0][output].sum())(params)

    assert [gradient(i)["lower"]["scale"].item() for i in range(3)] == [15, -3, 10]
    assert gradient(2)["middle"]["main"]["layer"]["scale"] == 0


@pytest.mark.parametrize(("name", "heads"), [("googlenet", 2), ("inception_v3", 1)])
def test_outputs_of_a_model_with_auxiliary_heads(name, heads):
    """A tuple in training alone; without dropout it needs no key."""
    model, *arguments = whole(name, classes=7, auxiliary=True, dropout=0)
    for train, expected in ((True, ((2, 7),) * (1 + heads)), (False, (2, 7))):
        y, _ = jax.eval_shape(lambda *of, train=train: model.apply(*of, train=train), *arguments)
        assert jax.tree.map(lambda leaf: leaf.shape, y) == expected
    model, *arguments = whole(name, classes=None, auxiliary=True)
    y, _ = jax.eval_shape(lambda *of: model.apply(*of, train=True), *arguments)
    assert y.shape in ((2, 1024), (2, 2048))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_weights_of_auxiliary_heads_need_not_be_used(name):
    """Files have them; a model without the heads passes them over, and nothing else."""
    given = state_dict(name, classes=7, auxiliary=True)
    used = weights.to_torch(name, *weights.from_torch(name, given, classes=7, auxiliary=False))
    assert {key.partition(".")[0].lower().rstrip("12") for key in given.keys() - used.keys()} <= {"aux", "auxlogits"}
    assert all((used[key] == given[key]).all() for key in used)
    with pytest.raises(weights.WeightsError, match=r"unused \(1\)"):
        weights.from_torch(name, given | {"more": np.zeros(1)}, classes=7, auxiliary=False)


def test_file_of_densenet():
    """torchvision's has names of before PyTorch forbade dots in them, such as norm.1."""
    small = {"classes": 7, "depths": (1, 12)}
    given = state_dict("densenet121", **small)
    old = {key: value for key, value in given.items() if "denselayer" not in key}
    for key in given.keys() - old.keys():
        *modules, layer, leaf = key.split(".")
        old[".".join([*modules, layer[:-1], layer[-1], leaf])] = given[key]
    assert "features.denseblock2.denselayer12.norm.2.running_var" in old
    again = weights.to_torch("densenet121", *weights.from_torch("densenet121", old, **small))
    assert again.keys() == given.keys()
    assert all((again[key] == given[key]).all() for key in given)


# The paper's table I: which maps of S2 (rows) each map of C3 (columns) sees.
TABLE_1 = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def test_lenet5_of_1998():
    """Which maps see which, and what its pools and activations compute."""
    _, params, state, _ = whole("lenet5_1998")
    params = drawn(params)
    probe = jaxcnn.capture(MODELS["lenet5_1998"](), "c1|squash1|s2|squash2|c3")
    x = np.tile(np.random.default_rng(1).standard_normal((1, 28, 28, 1), np.float32), (7, 1, 1, 1))
    change = np.tile(np.eye(7, 6, dtype=np.float32)[:, None, None], (14, 14, 1))  # map i of S2 in copy i of x
    run = jax.jit(lambda x, change: probe.apply(params, state, x, train=False, offsets={"squash2": change})[0][1])
    found = run(x, change)

    changed = np.abs(found["c3"][:6] - found["c3"][6]).max((1, 2)) > 1e-3
    np.testing.assert_array_equal(changed, [[mark == "X" for mark in row] for row in TABLE_1.split()])
    squashed = 1.7159 * np.tanh(2 / 3 * found["c1"])
    np.testing.assert_allclose(found["squash1"], squashed, atol=1e-5)
    scale, bias = (params["s2"]["scale"][name].reshape(6) for name in ("kernel", "bias"))
    mean = squashed.reshape(7, 14, 2, 14, 2, 6).mean((2, 4))
    np.testing.assert_allclose(found["s2"], scale * mean + bias, atol=1e-5)


def test_alexnet_damps_by_neighbors():
    """y[c] = x[c] / (2 + 1e-4 sum of x[j]^2 for j from c - 2 to c + 2)^0.75, with no division by the number."""
    model, params, state, x = whole("alexnet_2012", classes=None)
    params = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), params)
    params["conv1"] = drawn(params["conv1"])
    probe = jaxcnn.capture(model, "relu1|norm1")
    run = jax.jit(lambda params, x: probe.apply(params, state, x, train=False)[0][1])
    found = run(params, 10 * np.random.default_rng(1).standard_normal(x.shape, np.float32))
    squares = np.pad(np.square(found["relu1"]), ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(squares[..., i : i + 96] for i in range(5))
    assert total.max() > 1e5  # much beside the 2
    np.testing.assert_allclose(found["norm1"], found["relu1"] / (2 + 1e-4 * total) ** 0.75, rtol=1e-4)


def test_unet_without_padding_is_the_middle_of_unet_with_padding():
    """With two levels, where the pools of both lie on the same pixels; so the middle is cut out of the fine maps."""
    same, valid = (MODELS["unet"](widths=(3, 5), padding=padding) for padding in ("SAME", "VALID"))
    x = np.random.default_rng(1).standard_normal((1, 32, 28, 1), np.float32)
    params = drawn(jax.eval_shape(valid.init, jax.random.key(0), x)[0])
    y, middle = (jax.jit(lambda net=net: net.apply(params, {}, x, train=False)[0])() for net in (same, valid))
    assert y.shape == (1, 32, 28, 2)
    np.testing.assert_allclose(middle, y[:, 8:-8, 8:-8], atol=1e-5 * np.abs(y).max())


def test_unet_of_the_paper():
    model, params, state, x = whole("unet")
    y, _ = jax.eval_shape(lambda *of: model.apply(*of, train=False), params, state, x)
    assert y.shape == (2, 388, 388, 2)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("lenet5", (84,)),
        ("lenet5_1998", (84,)),
        ("tiny", (48,)),
        ("alexnet", (4096,)),
        ("alexnet_2012", (4096,)),
        ("zfnet", (4096,)),
        ("nin", (192,)),
        ("vgg11_bn", (4096,)),
        ("squeezenet1_1", (512,)),
        ("unet", (388, 388, 64)),
        ("resnet20", (64,)),
        ("preact_resnet18", (512,)),
        ("wrn_16_4", (256,)),
        ("regnet_y_400mf", (440,)),
        ("convnext_tiny", (768,)),
        ("mobilenetv4_conv_small", (1280,)),
        ("r3d_18", (512,)),
        ("s3d", (1024,)),
        ("fcn1d", (128,)),
        ("resnet1d", (128,)),
        ("inception_time", (128,)),
    ],
)
def test_features(name, features):
    """Without the last layer, which is where it is with it, a model gives what that layer sees."""
    model, params, state, x = whole(name, classes=None)
    y, _ = jax.eval_shape(lambda *of: model.apply(*of, train=False), params, state, x)
    assert y.shape == (2, *features)
    assert whole(name, classes=7)[1].keys() - params.keys() == {"head"}


@pytest.mark.parametrize(("depth", "parameters"), [(20, 272_474), (32, 466_906), (44, 661_338), (56, 855_770)])
def test_option_b_has_a_convolution_on_the_way_around(depth, parameters):
    _, params, _, _ = whole(f"resnet{depth}", option="B")
    assert jaxcnn.count_params(params) == parameters
    assert jaxcnn.count_params(params, ".*/shortcut/conv/kernel") == 16 * 32 + 32 * 64


def test_option_a_has_zeros_on_the_way_around():
    """With all branches zero, what is left of the stem is every fourth position."""
    model, params, state, x = whole("resnet20", classes=None)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    params["stem"] = drawn(params["stem"])
    state = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), state)
    probe = jaxcnn.capture(model, "stem")
    x = np.random.default_rng(1).standard_normal(x.shape, np.float32)
    # YNNPACK, which jax.jit uses in jaxlib 0.10, compiles one in 30 of these programs to one that returns zeros.
    (y, found), _ = jaxcnn.jit(lambda x: probe.apply(params, state, x, train=False))(x)
    np.testing.assert_allclose(y[:, :16], found["stem"][:, ::4, ::4].mean((1, 2)), atol=1e-5)
    assert (y[:, 16:] == 0).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet20", {"option": "C"}, "option must be 'A' or 'B', got 'C'"),
        ("resnet20", {"depth": 21}, r"depth must be 6 n \+ 2 .*, got 21"),
        ("wrn_16_4", {"depth": 20}, r"depth must be 6 n \+ 4 .*, got 20"),
        (
            "r3d_18",
            {"convolutions": ("3d", "3d", "1d", "3d")},
            "unknown convolution '1d'; expected one of: 2d, ",
        ),
        ("r3d_18", {"depths": (1, 1)}, r"convolutions=\(.*\) must have one entry per stage, got depths=\(1, 1\)"),
        ("fcn1d", {"kernels": (8, 5)}, r"kernels=\(8, 5\) must have one entry per convolution, got widths=\(128, "),
        ("inception_time", {"depth": 4}, "depth must be a multiple of 3, for example 6, got 4"),
    ],
)
def test_depths_and_options_that_are_none(name, options, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name](**options)


@pytest.mark.parametrize("kind", ["2d", "3d", "2+1d"])
def test_factored_convolutions_have_as_many_parameters(kind):
    """3 x 3 x 3 for each pair of channels, up to the rounding of the channels in between; a third of them on frames."""
    model = MODELS["r3d_18"](None, convolutions=(kind,) * 2, depths=(1, 1))
    params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 16, 16, 3)))
    found = jaxcnn.count_params(params["stage2"], "0/sum/layer/conv./(.*/)?kernel")
    expected = (9 if kind == "2d" else 27) * (64 * 128 + 128 * 128)
    if kind == "2+1d":  # both convolutions have the number of the first, 230, where the second could have 288
        expected = 230 * (9 * (64 + 128) + 2 * 3 * 128)
    assert found == expected
    stem = {"2d": {"conv", "norm"}, "3d": {"conv", "norm"}, "2+1d": {"spatial", "temporal"}}
    assert params["stem"].keys() == stem[kind]


@pytest.mark.slow
def test_smallest_clips_of_s3d():
    model, params, state, _ = whole("s3d")
    for clip, fits in (((13, 209, 209), True), ((12, 209, 209), False), ((13, 208, 209), False)):
        x = jax.ShapeDtypeStruct((1, *clip, 3), jnp.float32)
        evaluate = lambda x=x: jax.eval_shape(lambda *of: model.apply(*of, train=False), params, state, x)[0].shape
        if fits:
            assert evaluate() == (1, 400)
        else:
            with pytest.raises(ValueError, match="larger than the input"):
                evaluate()


def test_inception_time_reduces_what_has_more_channels_than_a_branch():
    for channels, reduced in ((32, False), (33, True)):
        params, _ = jax.eval_shape(MODELS["inception_time"]().init, jax.random.key(0), jnp.zeros((1, 50, channels)))
        first = params["group1"]["sum"]["layer"]["0"]["branches"]["convolved"]
        assert ("reduce" in first) == reduced
        assert first["convs"]["conv1"]["kernel"].shape == (40, 32, 32)


@pytest.mark.slow
def test_dropout_of_a_wide_resnet_is_inside_of_the_branch():
    model = MODELS["wrn_16_4"](depth=10, factor=1, dropout=0.5)
    x = np.random.default_rng(1).standard_normal((2, 8, 8, 3), np.float32)
    params, state = drawn(jax.eval_shape(model.init, jax.random.key(0), x))
    probe = jaxcnn.capture(model, "stem|stage1/0|stage1/0/layer/(relu2|drop|conv2)")
    run = jax.jit(lambda x: probe.apply(params, state, x, train=True, key=jax.random.key(0)))
    (_, found), _ = run(x)
    before, after = found["stage1/0/layer/relu2"], found["stage1/0/layer/drop"]
    assert ((after == 0) | (after == 2 * before)).all()
    assert 0.4 < (after[before > 0] == 0).mean() < 0.6
    np.testing.assert_allclose(found["stage1/0"], found["stem"] + found["stage1/0/layer/conv2"], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_deeper_blocks_of_a_convnext_are_left_out_more_often():
    """One block in each of three stages, left out with probabilities of 0, 0.4 and 0.8."""
    model = MODELS["convnext_tiny"](depths=(1, 1, 1), width=4, drop_path=0.8)
    x = np.random.default_rng(1).standard_normal((400, 16, 16, 3), np.float32)
    params, state = drawn(jax.eval_shape(model.init, jax.random.key(0), x))
    inputs = {"stage1": "stem", "stage2": "downsample2", "stage3": "downsample3"}
    probe = jaxcnn.capture(model, "|".join((*inputs, *inputs.values())))
    (_, found), _ = jax.jit(lambda x: probe.apply(params, state, x, train=True, key=jax.random.key(0)))(x)
    left_out = [(found[stage] == found[before]).all((1, 2, 3)).mean() for stage, before in inputs.items()]
    np.testing.assert_allclose(left_out, [0, 0.4, 0.8], atol=0.1)


# Source: the constructors of torchvision 0.28.
DROPOUT = {
    0.0: "resnet18 resnext50_32x4d wide_resnet50_2 densenet121 shufflenet_v2_x1_0 regnet_x_400mf convnext_tiny r3d_18",
    0.1: "fcn_resnet50",
    0.2: "efficientnet_b0 efficientnet_b1 efficientnet_v2_s googlenet mnasnet1_0 mobilenet_v2 mobilenet_v3_small s3d",
    0.3: "efficientnet_b2 efficientnet_b3 efficientnet_v2_m",
    0.4: "efficientnet_b4 efficientnet_b5 efficientnet_v2_l",
    0.5: "alexnet vgg11 vgg16_bn squeezenet1_1 inception_v3 efficientnet_b6 efficientnet_b7 deeplabv3_resnet50",
}
DROP_PATH = {
    0.1: "convnext_tiny",
    0.2: "efficientnet_b0 efficientnet_b7 efficientnet_v2_l",
    0.4: "convnext_small",
    0.5: "convnext_base convnext_large",
}


@pytest.mark.parametrize(
    ("argument", "name", "rate"),
    [
        (argument, name, rate)
        for argument, rates in (("dropout", DROPOUT), ("drop_path", DROP_PATH))
        for rate, names in rates.items()
        for name in names.split()
    ],
)
def test_default_rates_are_those_of_torchvision(argument, name, rate):
    assert inspect.signature(MODELS[name]).parameters[argument].default == rate


def test_scales_of_a_convnext_start_near_zero():
    params, _ = MODELS["convnext_tiny"](depths=(1,), width=4).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    np.testing.assert_array_equal(params["stage1"]["0"]["layer"]["scale"]["scale"], np.full(4, 1e-6, np.float32))


def zeros_of(targets):
    return {key: np.broadcast_to(np.float32(0), target.layout.torch_shape) for key, target in targets.items()}


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("regnet_y_1_6gf", "871a9cb3fc307c8ce19eae4488730e795d0447f94caa899c33714631e2df4447"),  # regnety_016
        ("convnext_tiny", "b07384a3160b01d850e9042eb3442abca07273e806ead68b65b095d2d85b9032"),
        ("mobilenet_v2", "5a95ee06712e31e934b48b8c37dbd8ff35daa7b5ff23f2e93f7e234c15d46ec5"),  # mobilenetv2_100, ..
        ("mobilenet_v3_large", "3dba8ad57b7701f1b04a89641f0a7a7145177d9aaf449f1211ba6dd8935c68b5"),
        ("mobilenet_v3_small", "fefefaa6b0100de1e987199654390559406efaf09e8ea44bccfce0c8da951716"),
        ("mnasnet1_0", "2c1a5b8767360528d91dc7fd9c79dae028f52ea4bfa0821d2f01fabbd2e90520"),
        ("efficientnet_b0", "f62a5c98a74c6670c0b93b6573d4faf0e845eb27ef2778aeb66f85f8e7a827e5"),
        ("efficientnet_b5", "67e9fb5b659f81852dbc085540eafea78d4e2223666f8ee9de8341a9d7246d7a"),
        ("efficientnet_v2_s", "69333b70a7c28d9d2e4f3e5cce3ef457d6e74830a0a69a8e4b4baf9de261cf98"),
    ],
)
def test_names_of_timm(name, expected):
    """Of models that torchvision has too, by the names and shapes of timm 1.0.31 without `num_batches_tracked`."""
    _, params, state, _ = whole(name)
    targets = _targets((params, state), tables(name)[1])
    zeros = zeros_of(targets)
    assert zoo_weights.names_hash({key: value.shape for key, value in zeros.items()}) == expected
    options = {"norm": jaxcnn.batch_norm} if tables(name)[1].eps else {}
    weights.from_torch(name, zeros, **options)


@pytest.mark.parametrize(
    ("name", "library", "expected"),
    [
        ("resnet18", 1, "698c9d245bf952edc1b847bffa6e59e9cfd928b6e2b42953dcac37cd591b2181"),
        pytest.param(
            *("resnet50", 1, "12bbd21e80d77ac4a19c49fc0847f14936a38b9110f299a4bccf761da0c46b26"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("convnext_tiny", 2, "a6c5f9ba77edd6cf2a56727aea65530cdb97d60158cb558224a94162d5a841d6"),
            marks=pytest.mark.slow,
        ),
        ("mobilenet_v1", 1, "b028bd78839352f9f7a3ced913b758e7ee8ddfd7eb945dcb8a20484673e9be7e"),
        pytest.param(
            *("mobilenet_v2", 2, "6bf6a57188972d9c032fa3e478192193c426a24890a7eb7a807a10a1f79999ad"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_names_of_transformers(name, library, expected):
    """ForImageClassification models of transformers 4.57.1 or 5.24, and the same names without the classifier."""
    _, params, state, _ = whole(name)
    table = tables(name)[library]
    zeros = zeros_of(_targets((params, state), table))
    assert zoo_weights.names_hash({key: value.shape for key, value in zeros.items()}) == expected
    options = {"padding": "tensorflow", "norm": jaxcnn.batch_norm} if table.padding else {}
    weights.from_torch(name, zeros, **options)
    base = {key.partition(".")[2]: value for key, value in zeros.items() if not key.startswith("classifier")}
    weights.from_torch(name, base, classes=None, **options)
    with pytest.raises(weights.WeightsError, match="missing"):
        weights.from_torch(name, base, **options)


def test_names_of_transformers_convnext_v2():
    """Its response normalization has (1, 1, 1, C)."""
    _, params, state, _ = whole("convnextv2_atto")
    zeros = zeros_of(_targets((params, state), tables("convnextv2_atto")[1]))
    stage = "convnextv2.encoder.stages.2"
    assert zeros[f"{stage}.layers.5.pwconv1.weight"].shape == (640, 160)
    assert zeros[f"{stage}.downsampling_layer.1.weight"].shape == (160, 80, 2, 2)
    responses = {key: value[None, None, None] for key, value in zeros.items() if ".grn." in key}
    assert len(responses) == 24
    weights.from_torch("convnextv2_atto", zeros | responses)


def test_names_of_timm_vgg():
    """Its first two dense layers are convolutions."""
    _, params, state, _ = whole("vgg11")
    names = {key.rpartition(".")[0] for key in _targets((params, state), tables("vgg11")[1])}
    features = {f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18)}
    assert names == features | {"pre_logits.fc1", "pre_logits.fc2", "head.fc"}


@pytest.mark.parametrize(
    ("name", "library", "needs_norm"),
    [
        ("mobilenet_v1", 1, True),
        pytest.param("mobilenet_v2", 2, True, marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", 1, False, marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_large", 1, False, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", 1, True, marks=pytest.mark.slow),
        pytest.param("efficientnet_lite0", -1, True, marks=pytest.mark.slow),
        pytest.param("efficientnet_v2_s", 1, False, marks=pytest.mark.slow),
    ],
)
def test_padding_of_tensorflow(name, library, needs_norm):
    """Logits of timm's `tf_` variants and transformers' MobileNets, stored by `goldens/make_tensorflow.py`."""
    options = {"classes": 10, "padding": "tensorflow"}
    if needs_norm:
        options["norm"] = functools.partial(jaxcnn.batch_norm, eps=1e-3)
    table = tables(name)[library]
    x = zoo_weights.images((2, 63, 64, 3))
    model = MODELS[name](**options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    given = {key: zoo_weights.weight(key, target.layout.torch_shape) for key, target in _targets(shapes, table).items()}
    params, state = weights.from_torch(name, given, **options)
    y = jaxcnn.jit(model.apply, static_argnames="train")(params, state, x, train=False)[0]
    with np.load(GOLDENS / "trained" / "tensorflow.npz", allow_pickle=False) as golden:
        expected = golden[name]
    assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max()
    # to the bit
    leaves = jax.tree.leaves((params, state))
    back = {key: t.layout.apply(leaf) for (key, t), leaf in zip(_targets(shapes, table).items(), leaves, strict=True)}
    assert all(back[key].tobytes() == given[key].tobytes() for key in given)
    if needs_norm:
        del options["norm"]
        with pytest.raises(weights.WeightsError, match=r"norm=functools.partial\(jaxcnn.batch_norm, eps=0.001\)"):
            weights.from_torch(name, given, **options)


EPS = r"functools\.partial\(jaxcnn\.batch_norm, eps=0\.001\)"


@pytest.mark.parametrize(
    ("name", "library", "options", "message"),
    [
        (
            *("mobilenet_v3_large", 1, {"classes": 10}),
            r"timm's names\. timm's mobilenet_v3_large uses eps=1e-05 in its norms, but .* "
            r"Build models\.mobilenet_v3_large\(classes=10, norm=jaxcnn\.batch_norm\), and .* to "
            r"weights\.from_torch\('mobilenet_v3_large', state_dict, classes=10, norm=jaxcnn\.batch_norm\)",
        ),
        pytest.param(
            *("efficientnet_b0", 1, {"padding": "tensorflow"}),
            rf"timm's efficientnet_b0 uses eps=0\.001 .* models\.efficientnet_b0\(padding='tensorflow', norm={EPS}\)",
            marks=pytest.mark.slow,
        ),
        (
            *("mobilenet_v1", 1, {}),
            r"transformers' names\. transformers' mobilenet_v1 uses eps=0\.001 in its norms and padding='tensorflow' "
            rf"unless .* models\.mobilenet_v1\(norm={EPS}, padding='tensorflow'\)",
        ),
        pytest.param(
            *("mobilenet_v2", 2, {"norm": jaxcnn.batch_norm}),
            r"transformers' mobilenet_v2 uses padding='tensorflow' unless its config has tf_padding=false, but .* "
            r"models\.mobilenet_v2\(norm=batch_norm, padding='tensorflow'\)",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_options_of_other_libraries(name, library, options, message):
    """The names identify the library, and the error gives the call with its options. Both calls then agree."""
    _, params, state, _ = whole(name, **options)
    zeros = zeros_of(_targets((params, state), tables(name)[library]))
    with pytest.raises(weights.WeightsError, match=message):
        weights.from_torch(name, zeros, **options)
    weights.from_torch(name, zeros, **options | {"norm": jaxcnn.batch_norm, "padding": "torch"})


def test_unknown_padding():
    with pytest.raises(ValueError, match="unknown padding 'keras'; expected one of: torch, tensorflow"):
        MODELS["efficientnet_b0"](padding="keras")


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("regnet_x_400mf", 5_157_512), ("regnet_x_800mf", 7_259_656), ("regnet_y_800mf", 6_263_168)],
)
def test_rounding_of_the_authors_of_regnet(name, parameters):
    """The parameters of timm's regnetx_004, regnetx_008 and regnety_008."""
    _, params, _, _ = whole(name, rounding="pycls")
    assert jaxcnn.count_params(params) == parameters


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "regnet_x_400mf",
            {"rounding": "timm"},
            "regnet: unknown rounding 'timm'; expected one of: torchvision, pycls",
        ),
        ("resnet50", {"design": "e"}, "resnet: unknown design 'e'; expected one of: original, d, rs"),
        ("resnetrs50", {"reduction": 0}, "resnet: reduction must be at least 1, got 0"),
        ("res2net50_26w_4s", {"scales": 1}, "res2net: scales must be at least 2, got 1"),
    ],
)
def test_wrong_options_of_residual_networks(name, options, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name](**options)


def test_hierarchy_of_a_res2net():
    """The equation of its documentation, for the two blocks of one stage."""
    model = MODELS["res2net50_26w_4s"](depths=(2,), width=2)
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 3), np.float32)
    params, state = drawn(jax.eval_shape(model.init, jax.random.key(0), x))
    state = jax.tree.map(np.square, state)
    probe = jaxcnn.capture(model, ".*/layer/(unit1|scales)")
    (_, found), _ = jaxcnn.jit(lambda *of: probe.apply(*of, train=False))(params, state, x)
    for block in "01":
        path = f"stage1/{block}/sum/layer"
        of_scales, norms = (tree["stage1"][block]["sum"]["layer"]["scales"] for tree in (params, state))
        groups = np.split(found[f"{path}/unit1"], 4, axis=-1)
        expected, y = [], np.zeros_like(groups[0])
        for i in range(3):
            unit, norm = of_scales[str(i)]["unit"]["1"], norms[str(i)]["unit"]["1"]["norm"]
            padded = np.pad(groups[i] + y * (block == "1"), ((0, 0), (1, 1), (1, 1), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
            z = np.einsum("nhwckl,kldc->nhwd", windows, unit["conv"]["kernel"].swapaxes(2, 3))
            y = (z - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * unit["norm"]["scale"] + unit["norm"]["bias"]
            expected.append(y := np.maximum(y, 0))
        padded = np.pad(groups[3], ((0, 0), (1, 1), (1, 1), (0, 0)))
        means = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).mean((-2, -1))
        expected = np.concatenate([*expected, groups[3] if block == "1" else means], axis=-1)
        np.testing.assert_allclose(found[f"{path}/scales"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
