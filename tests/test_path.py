"""Paths name leaves, patterns choose them, and counts add up."""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn import count_params, dense, mask, models, paths

SIZES = {
    "conv1/bias": 6,
    "conv1/kernel": 5 * 5 * 1 * 6,
    "conv2/bias": 16,
    "conv2/kernel": 5 * 5 * 6 * 16,
    "dense1/bias": 120,
    "dense1/kernel": 400 * 120,
    "dense2/bias": 84,
    "dense2/kernel": 120 * 84,
    "head/bias": 10,
    "head/kernel": 84 * 10,
}
TREES = st.recursive(
    st.integers(0, 9),
    lambda trees: st.dictionaries(
        st.sampled_from(["conv", "conv1", "block", "kernel", "bias", "0"]), trees, max_size=4
    ),
    max_leaves=12,
)


class Pair(NamedTuple):
    params: Any
    state: Any


@pytest.fixture(scope="module")
def lenet():
    image = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    return jax.eval_shape(models.lenet5().init, jax.random.key(0), image)[0]


def by_hand(tree, prefix=""):
    """The paths and leaves of nested dicts, in the order of sorted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    found = {}
    for name in sorted(tree):
        found |= by_hand(tree[name], f"{prefix}/{name}" if prefix else name)
    return found


def test_paths_of_a_network(lenet):
    assert paths(lenet) == list(SIZES)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, []),
        (None, []),
        (7, [""]),
        ({"b": 1, "a": {"c": 2}}, ["a/c", "b"]),
        ([3, {"x": 4}], ["0", "1/x"]),
        (Pair({"kernel": 1}, {"mean": 2}), ["params/kernel", "state/mean"]),
        ({"a": {}, "b": 1}, ["b"]),
    ],
)
def test_paths(tree, expected):
    assert paths(tree) == expected


@settings(deadline=None)
@given(TREES)
def test_paths_are_in_the_order_of_the_leaves(tree):
    assert dict(zip(paths(tree), jax.tree.leaves(tree), strict=True)) == by_hand(tree)


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        (".*/kernel", [name for name in SIZES if name.endswith("kernel")]),
        ("(.*/)?kernel", [name for name in SIZES if name.endswith("kernel")]),
        ("conv1/.*", ["conv1/bias", "conv1/kernel"]),
        ("conv./bias", ["conv1/bias", "conv2/bias"]),
        ("head/bias|conv1/kernel", ["conv1/kernel", "head/bias"]),
        ("(?!head/).*bias", ["conv1/bias", "conv2/bias", "dense1/bias", "dense2/bias"]),
        (".*", list(SIZES)),
    ],
)
def test_pattern(lenet, pattern, chosen):
    tree = mask(lenet, pattern)
    assert jax.tree.structure(tree) == jax.tree.structure(lenet)
    assert dict(zip(paths(tree), jax.tree.leaves(tree), strict=True)) == {name: name in chosen for name in SIZES}
    assert count_params(lenet, pattern) == sum(SIZES[name] for name in chosen)


@pytest.mark.parametrize("pattern", ["kernel", "conv1", "head/kerne", "onv1/kernel", "HEAD/kernel", ""])
@pytest.mark.parametrize("function", [mask, count_params])
def test_pattern_must_match_the_whole_path(lenet, function, pattern):
    with pytest.raises(ValueError, match=re.escape(repr(pattern))):
        function(lenet, pattern)


@settings(deadline=None)
@given(TREES, st.sampled_from([".*", "conv/.*", ".*kernel", "block/conv1?/.*", "bias|0"]))
def test_mask_is_fullmatch(tree, pattern):
    expected = {name: re.fullmatch(pattern, name) is not None for name in by_hand(tree)}
    if any(expected.values()):
        assert by_hand(mask(tree, pattern)) == expected
    else:
        with pytest.raises(ValueError, match="any parameter"):
            mask(tree, pattern)


def test_mask_leaves_are_bools_that_optax_takes():
    params = {"conv": {"kernel": jnp.full(2, 3.0), "bias": jnp.full(2, 3.0)}}
    chosen = mask(params, ".*/kernel")
    assert {type(leaf) for leaf in jax.tree.leaves(chosen)} == {bool}
    decay = optax.add_decayed_weights(0.5, mask=chosen)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = decay.update(zero, decay.init(params), params)
    np.testing.assert_array_equal(updates["conv"]["kernel"], [1.5, 1.5])
    np.testing.assert_array_equal(updates["conv"]["bias"], [0.0, 0.0])


def test_count_of_a_network(lenet):
    assert count_params(lenet) == sum(SIZES.values()) == 61_706


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.integers(0, 4), max_size=4), min_size=1))
def test_count(shapes):
    params = {name: np.zeros(shape) for name, shape in shapes.items()}
    assert count_params(params) == sum(math.prod(shape) for shape in shapes.values())
    assert [count_params(params, name) for name in shapes] == [params[name].size for name in shapes]


@pytest.mark.parametrize(("tree", "count"), [({}, 0), ({"scale": np.float32(1)}, 1), ({"kernel": np.zeros((0, 3))}, 0)])
def test_count_of_little(tree, count):
    assert count_params(tree) == count


def test_count_needs_arrays():
    with pytest.raises(TypeError, match="count_params needs a tree of arrays, such as the params that init returns"):
        count_params(dense(2))


def test_count_is_exact_beyond_int32():
    assert count_params({"kernel": jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.float32)}) == 1 << 40
