"""Layers that apply many networks to one input: an ensemble, and the networks that dropout samples."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_integer, is_function, short_repr
from jaxcnn._array import as_floating, at_least_float32, readable
from jaxcnn._combine import AnyLayer
from jaxcnn._layer import Layer, Params, State, as_layer, constructor
from jaxcnn._path import leaves_by_path
from jaxcnn._probe import SLOT, Probe
from jaxcnn._program import inputs_used
from jaxcnn._sampling import with_sampling
from jaxcnn._stack import check_stacked, mark_stacked, stacked_init, unmark_stacked

Combine = Callable[[Any], Any] | None


def log_mean_probabilities(logits: jax.Array) -> jax.Array:
    """(n, .., K) -> (.., K): y = log(1/n sum_i softmax(logits[i])).

    y are logits again: softmax(y) is the mean probability, so cross-entropy and argmax apply to it.
    """
    log_p = jax.nn.log_softmax(at_least_float32(as_floating(logits, "log_mean_probabilities")))
    # Not jax.nn.logsumexp, which uses an operation that ONNX does not have.
    largest = lax.stop_gradient(jnp.maximum(log_p.max(0), jnp.finfo(log_p.dtype).min))
    mean = jnp.exp(log_p - largest[None]).mean(0)
    excluded = mean == 0  # a class with logit -inf in all members; a single where() would give the gradient 0 * inf
    y = jnp.where(excluded, -jnp.inf, largest + jnp.log(jnp.where(excluded, 1, mean)))
    return y.astype(logits.dtype)


@constructor
def ensemble(layer: AnyLayer, n: int, *, combine: Combine = log_mean_probabilities) -> Layer:
    """x -> y in evaluation, (n, *y.shape) in training: n members with separate parameters, all with the input x.

    evaluation: y = combine([f_1(x), .., f_n(x)]),  by default y = log(1/n sum_i softmax(f_i(x)))
    training: [f_1(x), .., f_n(x)], as each member has its own loss: `fit(model, data, loss=per_member(cross_entropy))`

    softmax(y) is the mean probability, so y serves as logits. The members run as one program, by `jax.vmap` over the
    parameters. They differ in their initial parameters and dropout keys; all see the same batches.

    `stack_members` makes the params and state from those of separately trained networks, such as the runs of
    `train.sweep`, which also see the data in different orders. `split_members` is its inverse.

    Args:
        layer: a layer or a whole network.
        n: number of members.
        combine: a function of the stacked outputs (n, *y.shape), such as `lambda ys: ys.mean(0)` for regression, or
            None to return the stacked outputs.

    Params, State:
        those of the layer, each leaf with a leading dimension n. Those of member i are drawn with the key
        `jax.random.fold_in(key, i)`.

    Raises:
        TypeError: if `combine` is not a function.
        ValueError: for params of another number of members.

    Example:
        >>> model = jaxcnn.ensemble(jaxcnn.dense(3), 5)
        >>> x = jnp.ones((2, 4))
        >>> params, state = model.init(jax.random.key(0), x)
        >>> params["kernel"].shape
        (5, 4, 3)
        >>> [model.apply(params, state, x, train=train)[0].shape for train in (False, True)]
        [(2, 3), (5, 2, 3)]

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
    ensembles", 2017.
    """
    layer = as_layer(layer)
    n = check_integer("ensemble", "n", n)
    _check_combine("ensemble", combine)

    def apply(params, state, x, *, train, key=None):
        check_stacked("ensemble", params, n)

        def member(i, params, state):
            key_i = None if key is None else jax.random.fold_in(key, i)
            return layer.apply(params, state, x, train=train, key=key_i)

        ys, state = jax.vmap(member)(jnp.arange(n), params, state)
        if SLOT in state:
            state = state | {SLOT: state[SLOT].times(n)}
        return ys if train or combine is None else combine(ys), state

    return Layer(stacked_init(layer, n), apply)


def stack_members(members: Sequence[tuple[Params, State]]) -> tuple[Params, State]:
    """[(params, state), ..] of n networks -> (params, state) of their `ensemble`, with a leading dimension n.

    Args:
        members: params and state of each network, all of the same architecture.

    Raises:
        TypeError: for members that are not pairs (params, state).
        ValueError: for no network, or networks of different architectures.

    Example:
        >>> net, x = jaxcnn.dense(3), jnp.ones((2, 4))
        >>> params, state = jaxcnn.stack_members([net.init(jax.random.key(seed), x) for seed in range(5)])
        >>> jaxcnn.ensemble(net, 5).apply(params, state, x, train=False)[0].shape
        (2, 3)

    The runs of a sweep over seeds differ in their initial parameters, order of the data, augmentation and dropout:

        >>> import tempfile
        >>> run = jaxcnn.train.Run("members", {}, folder=tempfile.mkdtemp())
        >>> labels, config = jnp.array([0, 1, 2, 0]), {"epochs": 1, "batch_size": 2}
        >>> swept = jaxcnn.train.sweep(net, (jnp.eye(4), labels), over={"seed": range(5)}, config=config, run=run)
        5 runs of 1 epoch, 5 at a time
        ...
        >>> params, state = jaxcnn.stack_members([(member.params, member.state) for member in swept.runs])
        >>> params["kernel"].shape
        (5, 4, 3)
    """
    if not members:
        raise ValueError("stack_members needs the params and state of at least one network, got none")
    for member in members:
        is_pair = isinstance(member, tuple | list) and len(member) == 2
        if not (is_pair and all(isinstance(tree, dict) for tree in member)):
            raise TypeError(f"stack_members needs pairs (params, state), as init returns, got {short_repr(member)}")
    first, *others = (
        {name: jnp.shape(leaf) for tree in member for name, leaf in leaves_by_path(tree).items()} for member in members
    )
    for i, other in enumerate(others, 1):
        for name in first | other:
            shapes = first.get(name, "missing"), other.get(name, "missing")
            if shapes[0] != shapes[1]:
                raise ValueError(f"stack_members: networks 0 and {i} differ: {name} is {shapes[0]} and {shapes[1]}")
    params, state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(tuple, members))
    return mark_stacked(params), state


def split_members(params: Params, state: State) -> list[tuple[Params, State]]:
    """(params, state) of an `ensemble` -> [(params, state), ..] of its n members: the inverse of `stack_members`.

    Raises:
        ValueError: for arrays without a leading dimension n.

    Example:
        >>> params, state = jaxcnn.ensemble(jaxcnn.dense(3), 5).init(jax.random.key(0), jnp.ones((2, 4)))
        >>> members = jaxcnn.split_members(params, state)
        >>> len(members), members[0][0]["kernel"].shape
        (5, (4, 3))
    """
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves((params, state))}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"split_members needs arrays with one leading dimension, the members, got {sorted(lengths)}")
    ((n,),) = lengths
    params = unmark_stacked(params)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], (params, state)) for i in range(n)]


@constructor
def monte_carlo(layer: AnyLayer, n: int, *, combine: Combine = log_mean_probabilities, seed: int = 0) -> Layer:
    """x -> y: in evaluation, combines the outputs of n networks that the random layers sample (Monte Carlo dropout).

    y = combine([f_1(x), .., f_n(x)]),  f_i: the layer with dropout on,  by default y = log(1/n sum_i softmax(f_i(x)))

    softmax(y) is the mean probability, so y serves as logits. Dropout, noise, `drop_path` and `drop_connect` draw their
    values as in training; batch norm and all other layers stay in evaluation mode. Each f_i has one mask for all
    examples. So an output depends only on its own example, and equal inputs have equal outputs.

    In training, it equals the layer.

    Args:
        layer: a layer with dropout, or a whole network. A combinator of your own must pass on the entries of its state
            whose names start with "/"; otherwise dropout inside it stays off. A warning says if no layer is random.
        n: number of networks.
        combine: as in `ensemble`; None returns the stacked outputs (n, *y.shape).
        seed: of the masks. Network i uses the key `jax.random.fold_in(jax.random.key(seed), i)`.

    Raises:
        TypeError: if `combine` is not a function.
        ValueError: in evaluation, if the batch is not the first dimension of the layer's output.

    Example:
        >>> model = jaxcnn.monte_carlo(jaxcnn.dropout(0.5), 1000, combine=lambda ys: (ys.mean(0), ys.std(0)))
        >>> (mean, std), _ = model.apply({}, {}, jnp.ones((1, 1)), train=False)
        >>> bool(abs(mean[0, 0] - 1) < 0.1 and abs(std[0, 0] - 1) < 0.1)
        True

    Source: Gal and Ghahramani, "Dropout as a Bayesian approximation", 2016.
    """
    layer = as_layer(layer)
    n = check_integer("monte_carlo", "n", n)
    seed = check_integer("monte_carlo", "seed", seed, 0, below=2**32)
    _check_combine("monte_carlo", combine)

    def apply(params, state, x, *, train, key=None):
        if train:
            return layer.apply(params, state, x, train=True, key=key)
        x = jax.tree.map(readable, x)
        # Without a probe: the activations of all networks would have other shapes than those of the layer. Only their
        # costs are counted, below.
        inner = with_sampling({name: child for name, child in state.items() if name != SLOT})

        def network(key):
            def of_example(x):
                batch_of_one = jax.tree.map(lambda leaf: leaf[None], x)
                y, _ = layer.apply(params, inner, batch_of_one, train=False, key=key)
                return jax.tree.map(_only_example, y)

            return jax.vmap(of_example)(x)

        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(n))
        if not any(inputs_used(jax.make_jaxpr(network)(jax.random.key(seed)))):
            warnings.warn(
                "monte_carlo: no layer is random, so all networks are equal. A layer of your own around others must "
                'pass on the entries of its state whose names start with "/", or dropout in it stays off',
                stacklevel=2,
            )
        ys = jax.vmap(network)(keys)
        if SLOT in state and state[SLOT].pattern is None:
            counting = state | {SLOT: Probe(path=state[SLOT].path)}
            _, counted = jax.eval_shape(functools.partial(layer.apply, train=False), params, counting, x)
            if SLOT in counted:
                state = state | {SLOT: dataclasses.replace(state[SLOT], records=counted[SLOT].times(n).records)}
        return ys if combine is None else combine(ys), state

    return Layer(layer.init, apply)


def _only_example(y: jax.Array) -> jax.Array:
    if y.shape[:1] != (1,):
        raise ValueError(
            "monte_carlo applies the layer to one example at a time, so its output must have the shape (1, ..), "
            f"got {y.shape}; if the layer is an ensemble, it needs a `combine` function"
        )
    return y[0]


def _check_combine(name: str, combine: Any) -> None:
    if combine is not None and not is_function(combine):
        raise TypeError(
            f"{name}: combine must be a function of the stacked outputs, or None, got {short_repr(combine)}"
        )
