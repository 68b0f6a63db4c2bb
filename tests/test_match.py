"""Weights of networks without a table of names: layouts found by tracing, names proposed from order and shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import weights
from jaxcnn.weights._convert import _shapes, _targets
from jaxcnn.weights._tables import tables


def draw(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def run(model, params, state, x):
    return np.asarray(model.apply(params, state, x, train=False)[0])


SMALL = cnn.serial(conv=cnn.conv(4, bias=False), norm=cnn.batch_norm(), head=cnn.dense(2))
SMALL_X = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)


def small():
    """A state dict for SMALL, with its paths as names."""
    norm = {f"norm.{name}": draw(4) for name in ("weight", "bias", "running_mean", "running_var")}
    return {"conv.weight": draw(4, 3, 3, 3)} | norm | {"head.weight": draw(2, 4), "head.bias": draw(2)}


def test_names_are_renamed_paths():
    trained = small()
    other = {"features.0.weight": trained.pop("conv.weight")}
    other |= {name.replace("norm", "features.1").replace("head", "fc"): value for name, value in trained.items()}
    names = [("^conv", "features/0"), ("^norm", "features/1"), ("^head", "fc")]
    params, state = weights.from_torch(SMALL, other, x=SMALL_X, names=names)
    assert (state["norm"]["var"] == trained["norm.running_var"]).all()
    assert params["conv"]["kernel"][1, 2, 0, 3] == other["features.0.weight"][3, 0, 1, 2]
    back = weights.to_torch(SMALL, params, state, x=SMALL_X, names=names)
    assert back.keys() - other.keys() == {"features.1.num_batches_tracked"}
    assert all((back[name] == value).all() for name, value in other.items())


def test_a_pair_of_functions_and_a_named_model_have_names_too():
    trained = small()
    params, _ = weights.from_torch((SMALL.init, SMALL.apply), trained, x=SMALL_X)
    assert (params["head"]["bias"] == trained["head.bias"]).all()
    shapes = weights.to_torch("lenet5", *cnn.models.lenet5().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))))
    given = {f"net/{name}": value for name, value in shapes.items()}
    own = weights.from_torch("lenet5", given, names=weights.match("lenet5", given))
    expected = weights.from_torch("lenet5", shapes)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), own, expected))


@pytest.mark.parametrize("prefix", ["backbone.", "encoder.", "model.backbone."])
def test_prefixes_of_wrappers(prefix):
    trained = {prefix + name: value for name, value in small().items()}
    params, _ = weights.from_torch(SMALL, trained, x=SMALL_X)
    assert (params["head"]["kernel"] == trained[f"{prefix}head.weight"].T).all()
    inside = cnn.serial(encoder=SMALL)  # here, the prefix is part of the path
    params, _ = weights.from_torch(inside, {f"encoder.{k}": v for k, v in small().items()}, x=SMALL_X)
    assert params["encoder"]["head"]["bias"].shape == (2,)


@pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 3, 4)])
def test_flattened_feature_maps(spatial):
    """PyTorch flattens (C, *spatial). The order also applies to a layer per feature between flatten and dense."""
    x = draw(2, *spatial, 3)
    size = 3 * int(np.prod(spatial))
    model = cnn.serial(flat=cnn.flatten, act=cnn.prelu(), tanh=jnp.tanh, fc=cnn.dense(size), head=cnn.dense(2))
    trained = {"act.weight": draw(size) ** 2, "fc.weight": draw(size, size), "fc.bias": draw(size)}
    trained |= {"head.weight": draw(2, size), "head.bias": draw(2)}

    def expected(flat):
        y = np.tanh(np.where(flat > 0, flat, trained["act.weight"] * flat))
        y = y @ trained["fc.weight"].T + trained["fc.bias"]
        return y @ trained["head.weight"].T + trained["head.bias"]

    convolution = trained["fc.weight"].reshape(size, 3, *spatial)  # over the whole feature map, as in timm's VGG
    for kernel in (trained["fc.weight"], convolution):
        params, state = weights.from_torch(model, trained | {"fc.weight": kernel}, x=x)
        np.testing.assert_allclose(
            run(model, params, state, x), expected(np.moveaxis(x, -1, 1).reshape(2, -1)), rtol=1e-3
        )
    back = weights.to_torch(model, params, state, x=x)
    assert all((back[name] == trained[name]).all() for name in trained)
    params, state = weights.from_torch(model, trained, x=x, flatten="HWC")
    np.testing.assert_allclose(run(model, params, state, x), expected(x.reshape(2, -1)), rtol=1e-3)


UNCLEAR = {
    "dense to map": cnn.serial(a=cnn.dense(12), map=lambda x: x.reshape(-1, 2, 2, 3), b=cnn.conv(2)),
    "dense to output": cnn.serial(b=cnn.dense(12), act=jax.nn.relu, map=lambda x: x.reshape(-1, 2, 2, 3)),
    "dense to signal": cnn.serial(a=cnn.dense(12), map=lambda x: x.reshape(-1, 4, 3), b=cnn.conv(2, 3)),
    "joined": cnn.serial(a=cnn.concatenate(cnn.flatten, cnn.global_avg_pool), b=cnn.dense(2)),
    "sliced": cnn.serial(flat=cnn.flatten, cut=lambda x: x[:, :20], b=cnn.dense(2)),
    "all flat": cnn.serial(flat=jnp.ravel, rows=lambda x: x.reshape(2, -1), b=cnn.dense(2)),
    "gated": cnn.serial(flat=cnn.flatten, glu=jax.nn.glu, b=cnn.dense(2)),
    "reversed": cnn.serial(flat=cnn.flatten, back=lambda x: x[:, ::-1], b=cnn.dense(2)),
    "added": cnn.serial(flat=cnn.flatten, a=cnn.residual(cnn.dense(24)), b=cnn.dense(2)),
    "scaled later": cnn.serial(flat=cnn.flatten, cut=lambda x: x[:, :20], b=cnn.batch_norm()),
    "signal": cnn.serial(flat=cnn.flatten, add=lambda x: x[:, :, None], b=cnn.conv(2, 3)),
    "other map": cnn.serial(flat=cnn.flatten, map=lambda x: x.reshape(-1, 2, 3, 4), b=cnn.conv(2)),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_an_order_that_cannot_be_converted_is_an_error(name):
    model = UNCLEAR[name]
    x = draw(2, 2, 4, 3)
    x = x.reshape(2, -1) if name.startswith("dense") else x
    params, state = model.init(jax.random.key(0), x)
    given = weights.to_torch(model, params, state, x=x, flatten="HWC")
    for call in (
        lambda: weights.from_torch(model, given, x=x),
        lambda: weights.to_torch(model, params, state, x=x),
    ):
        with pytest.raises(weights.WeightsError, match=r"the layer of 'b/\w+': .* Pass flatten='HWC' if"):
            call()
    found = weights.from_torch(model, given, x=x, flatten="HWC")
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, (params, state)))
    assert weights.match(model, given, x)


CLEAR = {
    "norms": (cnn.serial(cnn.flatten, cnn.layer_norm(), cnn.group_norm(1), jax.nn.softmax, cnn.dense(2)), True),
    "pooled": (cnn.serial(cnn.concatenate(cnn.global_avg_pool, cnn.global_max_pool), cnn.dense(2)), False),
    "scaled": (cnn.serial(cnn.flatten, lambda x: x * x.mean(1, keepdims=True), cnn.dense(2)), True),
    "back": (cnn.serial(cnn.flatten, lambda x: x.reshape(-1, 2, 4, 3), cnn.conv(2), cnn.flatten, cnn.dense(2)), True),
    "PyTorch's own": (cnn.serial(lambda x: jnp.moveaxis(x, -1, 1), cnn.flatten, cnn.dense(2)), False),
    "dense to PyTorch's map": (
        cnn.serial(
            cnn.global_avg_pool,
            cnn.dense(12),
            lambda x: jnp.moveaxis(x.reshape(-1, 3, 2, 2), 1, -1),
            cnn.conv(2),
            cnn.global_avg_pool,
            cnn.dense(2),
        ),
        False,
    ),
    "squeeze and excite": (cnn.serial(cnn.squeeze_excite(2), cnn.flatten, cnn.dense(2)), True),
    "one pixel": (
        cnn.serial(lambda x: x[:, :1, :1], cnn.concatenate(cnn.flatten, cnn.flatten), cnn.dense(2)),
        False,
    ),
    "rows": (cnn.serial(cnn.flatten, lambda x: jnp.concatenate([x, x])[:2], cnn.dense(2)), True),
}


@pytest.mark.parametrize("name", CLEAR)
def test_orders_that_are_followed(name):
    """The kernel of the last layer, whose rows are permuted if its features are those of a flattened map."""
    model, is_flattened = CLEAR[name]
    x = draw(2, 2, 4, 3)
    params, state = model.init(jax.random.key(0), x)
    given = weights.to_torch(model, params, state, x=x)
    last = max(params, key=int)
    kernel = np.asarray(params[last]["kernel"])
    rows = kernel.reshape(2, 4, -1, 2).transpose(3, 2, 0, 1).reshape(2, -1) if is_flattened else kernel.T
    np.testing.assert_array_equal(given[f"{last}.weight"], rows)
    found = weights.from_torch(model, given, x=x)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, (params, state)))


@pytest.mark.parametrize("spatial", [(4,), (4, 4), (3, 2)])
@pytest.mark.parametrize("norm", [cnn.layer_norm(axis=1), cnn.rms_norm(axis=1)])
def test_norms_of_maps(norm, spatial):
    """Their scale and bias are (C, *spatial) in PyTorch, also where all sizes are equal."""
    model = cnn.serial(conv=cnn.conv(4, 1), norm=norm, head=cnn.conv(2, 1))
    x = draw(2, *spatial, 3)
    params, state = model.init(jax.random.key(0), x)
    params["norm"] = {name: draw(*spatial, 4) for name in params["norm"]}
    trained = weights.to_torch(model, params, state, x=x)
    for name, leaf in params["norm"].items():
        torch_name = "weight" if name == "scale" else name
        np.testing.assert_array_equal(trained[f"norm.{torch_name}"], np.moveaxis(leaf, -1, 0))
    names = weights.match(model, trained, x)
    assert (len(names), names.missing, names.unused) == (len(trained), [], [])
    found, _ = weights.from_torch(model, trained, x=x, names=names)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, params))


def positions():
    """Adds a learned array (L, C) to a list of vectors."""
    init = lambda key, x: ({"position": draw(*x.shape[1:])}, {})
    return cnn.Layer(init, lambda params, state, x, *, train, key=None: (x + params["position"], state))


@pytest.mark.parametrize(
    "model",
    [
        cnn.serial(lambda x: jnp.moveaxis(x, -1, 1), cnn.layer_norm(axis=1), cnn.flatten, cnn.dense(2)),
        cnn.serial(cnn.layer_norm(axis=(1, 2)), cnn.dense(2)),
        cnn.serial(lambda x: x.reshape(-1, 12, 3), positions(), cnn.dense(2)),
    ],
    ids=["PyTorch's own order", "each channel", "positions"],
)
def test_arrays_of_maps_in_the_same_order(model):
    x = draw(2, 3, 4, 3)
    params, state = model.init(jax.random.key(0), x)
    maps = max(params.values(), key=lambda layer: "scale" in layer or "position" in layer)
    trained = weights.to_torch(model, params, state, x=x)
    assert {array.shape for array in trained.values()} >= {leaf.shape for leaf in maps.values()}


def test_a_map_whose_order_is_unknown_is_an_error():
    model = cnn.serial(cnn.flatten, lambda x: x.reshape(-1, 2, 3, 4), b=cnn.layer_norm(axis=1), c=cnn.global_avg_pool)
    x = draw(2, 2, 4, 3)
    with pytest.raises(weights.WeightsError, match="the layer of 'b/"):
        weights.to_torch(model, *model.init(jax.random.key(0), x), x=x)


def test_kernels_of_another_direction_do_not_fit():
    """A 3x1 kernel is none of 1x3, in from_torch and in the order that match proposes."""
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    wide = cnn.conv(3, (1, 3), bias=False)
    with pytest.raises(weights.WeightsError, match=r"weight \(3, 3, 3, 1\), expected \(3, 3, 1, 3\)"):
        weights.from_torch(wide, {"weight": draw(3, 3, 3, 1)}, x=x)
    model = cnn.serial(wide=wide, tall=cnn.conv(3, (3, 1), bias=False))
    given = {"a.weight": draw(3, 3, 3, 1), "b.weight": draw(3, 3, 1, 3)}
    assert weights.match(model, given, x) == {"wide/kernel": "b.weight", "tall/kernel": "a.weight"}
    mixed = cnn.serial(a=cnn.conv(3, 1, bias=False), pool=cnn.global_avg_pool, b=cnn.dense(3, bias=False))
    same = {"first.weight": draw(3, 3), "second.weight": draw(3, 3)}
    assert weights.match(mixed, same, x) == {"a/kernel": "first.weight", "b/kernel": "second.weight"}


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(groups):
    """y[n, stride * i + k, g, f] += x[n, i, g, c] * weight[g, c, f, k], for all i, k, c, with PyTorch's weight."""
    model = cnn.conv_transpose(6, 3, stride=2, padding="VALID", groups=groups, bias=False)
    x, weight = draw(1, 4, 6), draw(6, 6 // groups, 3)
    params, state = weights.from_torch(model, {"weight": weight}, x=x)
    expected = np.zeros((1, 9, groups, 6 // groups), np.float32)
    for i in range(4):
        for k in range(3):
            products = np.einsum(
                "gc,gcf->gf", x[0, i].reshape(groups, -1), weight[..., k].reshape(groups, -1, 6 // groups)
            )
            expected[0, 2 * i + k] += products
    np.testing.assert_allclose(run(model, params, state, x), expected.reshape(1, 9, 6), rtol=1e-4, atol=1e-5)
    assert (weights.to_torch(model, params, state, x=x)["weight"] == weight).all()


def test_dimensions_of_size_1_and_kernels_of_onnx():
    trained = small()
    expected = weights.from_torch(SMALL, trained, x=SMALL_X)[0]["head"]["kernel"]
    for kernel in (trained["head.weight"][:, :, None, None], trained["head.weight"].T):
        params, _ = weights.from_torch(SMALL, trained | {"head.weight": kernel}, x=SMALL_X)
        assert (params["head"]["kernel"] == expected).all()
    both = cnn.serial(SMALL, square=cnn.dense(2, bias=False))
    trained = {f"0.{name}": value for name, value in trained.items()} | {"square.weight": draw(2, 2)}
    weights.from_torch(both, trained, x=SMALL_X)
    trained["0.head.weight"] = trained["0.head.weight"].T
    with pytest.raises(weights.WeightsError, match=r"0.head.weight \(4, 2\) is \(in, out\), so square.weight \(2, 2\)"):
        weights.from_torch(both, trained, x=SMALL_X)


def test_a_mismatch_shows_the_nearest_names_and_lists_all():
    trained = small()
    trained |= {"heads.weight": trained.pop("head.weight"), "conv.weight": draw(4, 3, 5, 5), "more": draw(1)}
    with pytest.raises(weights.WeightsError) as caught:
        weights.from_torch(SMALL, trained, x=SMALL_X)
    assert "missing (1): head.weight (2, 4) (nearest: heads.weight)" in str(caught.value)
    assert caught.value.missing == ["head.weight (2, 4)"]
    assert caught.value.unused == ["heads.weight (2, 4)", "more (1,)"]
    assert caught.value.wrong_shape == ["conv.weight (4, 3, 5, 5), expected (4, 3, 3, 3)"]
    with pytest.raises(weights.WeightsError, match=r"unused \(9\).*; .. \(9 in total\)") as caught:
        weights.from_torch(SMALL, small() | {f"more{i}": draw(1) for i in range(9)}, x=SMALL_X)
    assert "(all names: error.missing, .unused, .wrong_shape)" in str(caught.value)
    assert len(caught.value.unused) == 9
    with pytest.raises(weights.WeightsError, match=r"pass names=weights.match\(model, state_dict, x\)") as caught:
        weights.from_torch(SMALL, {"a": draw(1)}, x=SMALL_X)
    assert len(caught.value.missing) == 7


def test_wrong_arguments():
    for options, error, message in (
        ({}, TypeError, "a layer needs x"),
        ({"x": SMALL_X, "classes": 10}, TypeError, "options such as classes"),
        ({"x": SMALL_X, "names": ["conv"]}, TypeError, r"names must hold \(regular expression, replacement\) pairs"),
        ({"x": SMALL_X, "names": [("(", "")]}, ValueError, "is not a regular expression"),
        (
            {"x": SMALL_X, "names": [("bias|kernel", "w")]},
            weights.WeightsError,
            "'head/kernel' the same name, 'head.w'",
        ),
        ({"x": SMALL_X, "flatten": "WHC"}, ValueError, "unknown flatten 'WHC'; expected one of: CHW, HWC"),
    ):
        with pytest.raises(error, match=message):
            weights.from_torch(SMALL, small(), **options)
    with pytest.raises(TypeError, match="model must be a name in MODELS or a layer, got 3"):
        weights.from_torch(3, small())


def test_names_of_other_libraries():
    """Arrays of one module under the names of Paddle, in any order within it, and counters that are ignored."""
    a = small()
    trained = {
        "c1_weights": a["conv.weight"],
        "c1_bn_mean": a["norm.running_mean"],
        "c1_bn_variance": a["norm.running_var"],
    }
    trained |= {"c1_bn_scale": a["norm.weight"], "c1_bn_offset": a["norm.bias"], "steps": np.zeros((), np.int64)}
    trained |= {"fc_0.w_0": a["head.weight"].T, "fc_0.b_0": a["head.bias"]}
    names = weights.match(SMALL, trained, SMALL_X)
    assert (names.ambiguous, names.missing, names.unused) == ({}, [], [])
    assert list(names) == [
        "conv/kernel",
        *(f"norm/{leaf}" for leaf in ("scale", "bias", "mean", "var")),
        "head/kernel",
        "head/bias",
    ]
    del trained["steps"]
    own, expected = (
        weights.from_torch(SMALL, *args, x=SMALL_X, **names)
        for args, names in (((trained,), {"names": names}), ((a,), {}))
    )
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), own, expected))


def test_ambiguities():
    two = cnn.concatenate(a=cnn.dense(2), b=cnn.dense(2))
    trained = {f"{name}.{leaf}": value for name in "qk" for leaf, value in (("weight", draw(2, 3)), ("bias", draw(2)))}
    x = jnp.zeros((1, 3))
    names = weights.match(two, trained, x)
    assert names["b/kernel"] == "k.weight"
    assert names.ambiguous == dict.fromkeys(names, "parallel to a layer of the same shapes")
    assert "a/kernel -> q.weight  (ambiguous: parallel to" in repr(names)

    chain = cnn.serial(a=cnn.dense(3, bias=False), b=cnn.dense(3, bias=False))
    assert not weights.match(chain, {"z.weight": draw(3, 3), "y.weight": draw(3, 3)}, x).ambiguous
    blocks = cnn.serial(*2 * [cnn.residual(cnn.dense(3, bias=False))])  # the second depends on the first
    assert not weights.match(blocks, {"z.weight": draw(3, 3), "y.weight": draw(3, 3)}, x).ambiguous
    names = weights.match(chain, {"layer2.weight": draw(3, 3), "layer10.weight": draw(3, 3)}, x)
    assert list(names.values()) == ["layer2.weight", "layer10.weight"]
    alphabetical = {"layer10.weight": draw(3, 3), "layer2.weight": draw(3, 3)}
    assert list(weights.match(chain, alphabetical, x).values()) == ["layer2.weight", "layer10.weight"]
    names = weights.match(chain, {"y.weight": draw(3, 3), "z.weight": draw(3, 3)}, x)
    assert set(names.ambiguous.values()) == {"in alphabetical order among layers of the same shapes"}

    names = weights.match(chain, {"z.weight": draw(3, 3), "y.weight": draw(4, 3)}, x)
    assert names.ambiguous == {"a/kernel": "2 of these shapes in the model, 1 in the file"}
    assert (names.missing, names.unused) == (["b/kernel"], ["y.weight"])
    names = weights.match(chain, {f"{name}.weight": draw(3, 3) for name in "cba"}, x)
    assert names.unused == ["a.weight"]


@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("convnext_tiny", marks=pytest.mark.slow)])
def test_match_agrees_with_the_tables(name):
    """In the alphabetical order of a safetensors file: correct or ambiguous."""
    targets = _targets(_shapes(name, {}), tables(name)[0])
    zeros = {name: np.broadcast_to(np.float32(0), targets[name].layout.torch_shape) for name in sorted(targets)}
    names = weights.match(name, zeros)
    assert {names[target.leaf[1]] for target in targets.values()} == targets.keys()
    wrong = {target.leaf[1] for key, target in targets.items() if names[target.leaf[1]] != key}
    assert len(wrong) <= 8
    assert wrong <= names.ambiguous.keys()
