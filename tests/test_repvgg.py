"""The fused form of RepVGG against its training form, which tests/test_zoo.py compares with timm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn import models, weights

SHAPE = (2, 16, 16, 3)
DRAW = {"scale": (0.5, 1.5), "bias": (-0.5, 0.5), "mean": (-0.5, 0.5), "var": (0.1, 2.0), "kernel": (-0.3, 0.3)}


def network(**options):
    """A small RepVGG, its fused form, and random params and state."""
    build = functools.partial(models.repvgg, 4, depths=(2, 1), widths=(8, 12))
    model = build(**options)
    draw = np.random.default_rng(0)
    key = jax.eval_shape(lambda: jax.random.key(0))
    trees = jax.eval_shape(model.init, key, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    trees = jax.tree_util.tree_map_with_path(
        lambda path, leaf: draw.uniform(*DRAW[path[-1].key], leaf.shape).astype(np.float32), trees
    )
    return model, build(fused=True), *trees


def logits(model, params, state):
    x = np.random.default_rng(1).standard_normal(SHAPE, np.float32)
    return model.apply(params, state, x, train=False)[0]


def assert_equal_logits(found, expected):
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_fused_network_gives_the_same_logits(eps):
    model, plain, params, state = network(norm=functools.partial(jaxcnn.batch_norm, eps=eps))
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        fused = jax.jit(models.fuse_repvgg, static_argnames="eps")(params, state, eps=eps)
    assert_equal_logits(logits(plain, fused, {}), logits(model, params, state))


def test_fused_network_is_a_chain_of_convolutions():
    _, plain, params, state = network()
    fused = models.fuse_repvgg(params, state)
    blocks = [
        f"{block}/conv/{leaf}" for block in ("stage1/0", "stage1/1", "stage2/0", "stem") for leaf in ("bias", "kernel")
    ]
    assert jaxcnn.paths(fused) == ["head/bias", "head/kernel", *blocks]
    assert fused["stage2"]["0"]["conv"]["kernel"].shape == (3, 3, 8, 12)
    assert {leaf.dtype for leaf in jax.tree.leaves(fused)} == {jnp.dtype(jnp.float32)}
    spec, expected = jax.eval_shape(plain.init, jax.random.key(0), jnp.zeros(SHAPE))
    assert (jax.tree.structure(spec), expected) == (jax.tree.structure(fused), {})


def test_fuses_inside_of_another_network():
    """As that of `weights.pretrained`, which normalizes images first."""
    model, plain, params, state = network()
    fused = models.fuse_repvgg({"network": params, "sum": {"conv1": params["head"]}}, {"network": state})
    assert_equal_logits(logits(plain, fused["network"], {}), logits(model, params, state))
    assert fused["sum"] == {"conv1": params["head"]}


def test_names_of_timm_after_fusion():
    """Those that timm's `reparameterize_model` leaves."""
    build = functools.partial(models.repvgg_a0, 4, fused=True)
    spec = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(build().init, jax.eval_shape(lambda: jax.random.key(0)), spec)
    params, state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    found = weights.to_torch("repvgg_a0", params, state)
    modules = ["stem", *(f"stages.{stage}.{i}" for stage, count in enumerate((2, 4, 14, 1)) for i in range(count))]
    expected = {f"{module}.reparam_conv.{leaf}" for module in modules for leaf in ("weight", "bias")}
    assert set(found) == expected | {"head.fc.weight", "head.fc.bias"}
    assert found["stages.1.0.reparam_conv.weight"].shape == (96, 48, 3, 3)
    back = weights.from_torch("repvgg_a0", found, classes=4, fused=True)
    assert jax.tree.map(np.shape, back) == jax.tree.map(np.shape, (params, state))


def test_refuses():
    _, _, params, state = network()
    fused = models.fuse_repvgg(params, state)
    with pytest.raises(ValueError, match=r"fuse_repvgg: no block in params .* has the branches of a RepVGG"):
        models.fuse_repvgg(fused, {})
    with pytest.raises(
        ValueError, match=r"stage1/0/sum/conv1 needs a batch norm .* and \[\] in state; pass the params"
    ):
        models.fuse_repvgg(params, {"stem": state["stem"]})
    with pytest.raises(ValueError, match="fuse_repvgg: eps must be at least 0 and finite, got -1"):
        models.fuse_repvgg(params, state, eps=-1)
    _, _, params, state = network(norm=functools.partial(jaxcnn.batch_norm, center=False))
    with pytest.raises(ValueError, match=r"stage1/0/sum/conv1 needs a batch norm with scale, .* \['scale'\] in params"):
        models.fuse_repvgg(params, state)
