"""Transforms of layers: a layer in, a layer with the same input and output out.

The parameters keep their paths, so a checkpoint loads with or without them. Transforms compose from
the inside out: `freeze(with_dropout(layer, 0.5))` drops first and is frozen, dropout included.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._combine import AnyLayer
from jaxcnn._dropout import drop, drop_channels, drop_examples
from jaxcnn._layer import Layer, as_layer, check_rate, constructor, require_key, transform_keys
from jaxcnn._path import compile_pattern, expected_one_of, matching
from jaxcnn._probe import SLOT, Probe


@constructor
def with_dropout(layer: AnyLayer, rate: float) -> Layer:
    """The layer with `dropout` on its output.

    y = layer(x) * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each value

    Args:
        layer: a layer or a plain function.
        rate: probability of dropping, in [0, 1); 0 gives the layer itself.

    Raises:
        ValueError: for another rate, or in training without a key.

    Example:
        >>> layer = jaxcnn.with_dropout(jnp.exp, 0.5)
        >>> layer.apply({}, {}, jnp.zeros(4), train=False)[0]
        Array([1., 1., 1., 1.], dtype=float32)

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """
    return _drop_output("with_dropout", layer, rate, drop)


@constructor
def with_spatial_dropout(layer: AnyLayer, rate: float) -> Layer:
    """The layer with `spatial_dropout` on its output: whole channels of an example become zero.

    y[n, :, c] = layer(x)[n, :, c] * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each n, c

    Args:
        layer: a layer or a plain function.
        rate: probability of dropping, in [0, 1); 0 gives the layer itself.

    Raises:
        ValueError: for another rate, or in training without a key.

    Example:
        >>> layer = jaxcnn.with_spatial_dropout(jnp.exp, 0.5)
        >>> layer.apply({}, {}, jnp.zeros((1, 1, 1, 2)), train=False)[0].ravel()
        Array([1., 1.], dtype=float32)

    Source: Tompson et al., "Efficient object localization using convolutional networks", 2015.
    """
    return _drop_output("with_spatial_dropout", layer, rate, drop_channels)


@constructor
def drop_path(layer: AnyLayer, rate: float) -> Layer:
    """The layer with its whole output zero for some examples (stochastic depth), for the branch of a residual.

    y[n] = layer(x)[n] * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each n

    Args:
        layer: a layer or a plain function.
        rate: probability of dropping, in [0, 1); 0 gives the layer itself.

    Raises:
        ValueError: for another rate, or in training without a key.

    Example:
        >>> block = jaxcnn.residual(jaxcnn.drop_path(jnp.exp, 0.5))
        >>> y, _ = block.apply({}, {}, jnp.zeros((100, 1)), train=True, key=jax.random.key(0))
        >>> sorted(set(y.ravel().tolist()))
        [0.0, 2.0]

    Source: Huang et al., "Deep networks with stochastic depth", 2016.
    """
    return _drop_output("drop_path", layer, rate, drop_examples)


@constructor
def freeze(layer: AnyLayer) -> Layer:
    """The layer as it is in evaluation, a constant for the gradient.

    No gradient reaches its parameters, running statistics stand still, dropout is off; gradients pass
    through to what comes before. An optimizer with weight decay still shrinks the parameters: mask them
    there too.

    Args:
        layer: a layer, perhaps a whole pretrained backbone.

    Example:
        >>> layer = jaxcnn.freeze(jaxcnn.prelu())
        >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 1)))
        >>> loss = lambda params: layer.apply(params, state, -jnp.ones((1, 1)), train=True)[0].sum()
        >>> jax.grad(loss)(params)
        {'scale': Array([0.], dtype=float32)}
    """
    layer = as_layer(layer)

    def apply(params, state, x, *, train, key=None):
        return layer.apply(lax.stop_gradient(params), state, x, train=False)

    return Layer(layer.init, apply)


@constructor
def cast(layer: AnyLayer, dtype: Any) -> Layer:
    """The layer computed in another precision, with its output back in that of the input.

    Parameters stay float32 and are rounded where they are used; statistics are float32 all the way.

    Args:
        layer: a layer.
        dtype: a floating-point dtype, such as `jnp.bfloat16`.

    Raises:
        TypeError: for a dtype that is not floating-point.

    Example:
        >>> layer = jaxcnn.cast(lambda x: x.dtype.itemsize * x, jnp.bfloat16)
        >>> layer.apply({}, {}, jnp.ones(1), train=False)[0]
        Array([2.], dtype=float32)

    Source: Micikevicius et al., "Mixed precision training", 2018.
    """
    layer = as_layer(layer)
    try:
        dtype = jnp.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"cast: {dtype!r} is no dtype; give one such as jnp.bfloat16") from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"cast: dtype must be floating-point, such as jnp.bfloat16, got {dtype!r}")

    def convert(tree, dtype):
        def one(leaf):
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return jax.tree.map(one, tree)

    def init(key, x):
        return layer.init(key, jax.eval_shape(lambda x: convert(x, dtype), x))

    def apply(params, state, x, *, train, key=None):
        x = jax.tree.map(jnp.asarray, x)
        before = [leaf.dtype for leaf in jax.tree.leaves(x) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        y, state = layer.apply(params, state, convert(x, dtype), train=train, key=key)
        return convert(y, jnp.result_type(*before) if before else jnp.float32), state

    return Layer(init, apply)


@constructor
def remat(layer: AnyLayer) -> Layer:
    """The layer with its inner activations computed again for the gradient, not kept: less memory, more time.

    Args:
        layer: a layer, such as one block of a deep network.

    Example:
        >>> layer = jaxcnn.remat(jnp.sin)
        >>> jax.grad(lambda x: layer.apply({}, {}, x, train=True)[0])(0.0)
        Array(1., dtype=float32, weak_type=True)

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016.
    """
    layer = as_layer(layer)

    def apply(params, state, x, *, train, key=None):
        return jax.checkpoint(functools.partial(layer.apply, train=train))(params, state, x, key=key)

    return Layer(layer.init, apply)


@constructor
def capture(model: Layer, pattern: str) -> Layer:
    """x -> (y, activations): the model with the outputs of the layers inside it whose path matches.

    `activations` is a dict from path to output; inside a `repeat`, with a leading dimension for the
    repetitions. `apply` takes one more keyword: `offsets`, a dict from path to what is added to that
    output before the model goes on. The gradient for an offset of zeros is the gradient for the activation.

    Args:
        model: a layer made by combinators.
        pattern: regular expression on the path of a layer, such as "block1/conv" or ".*".

    Raises:
        ValueError: if the pattern matches no layer, or an offset has no activation.

    Example: how much the output depends on a hidden activation.
        >>> net = jaxcnn.serial(square=jnp.square, double=lambda h: 2 * h)
        >>> probe = jaxcnn.capture(net, "square")
        >>> (y, activations), _ = probe.apply({}, {}, jnp.array(3.0), train=False)
        >>> activations
        {'square': Array(9., dtype=float32, weak_type=True)}
        >>> run = lambda offsets: probe.apply({}, {}, jnp.array(3.0), train=False, offsets=offsets)[0][0]
        >>> jax.grad(run)({"square": 0.0})
        {'square': Array(2., dtype=float32, weak_type=True)}
    """

    model = as_layer(model)
    compile_pattern(pattern)

    def apply(params, state, x, *, train, key=None, offsets=None):
        request = Probe(pattern, offsets=offsets or {})
        y, state = model.apply(params, state | {SLOT: request}, x, train=train, key=key)
        found = state.get(SLOT, request)
        layers = [record.path for record in found.records]
        kept = matching(layers, pattern, "layer of the model")
        for path in request.offsets:
            if path not in kept:
                raise ValueError(f"capture: no activation for offset {path!r}; {expected_one_of(path, kept)}")
        return (y, found.activations), {name: child for name, child in state.items() if name != SLOT}

    return Layer(model.init, apply)


def _drop_output(
    name: str, layer: AnyLayer, rate: float, noise: Callable[[jax.Array, float, jax.Array], jax.Array]
) -> Layer:
    layer = as_layer(layer)
    if check_rate(rate) == 0:
        return layer

    def apply(params, state, x, *, train, key=None):
        if not train:
            return layer.apply(params, state, x, train=False)
        ours, key = transform_keys(require_key(key, name), name)
        y, state = layer.apply(params, state, x, train=True, key=key)
        return noise(ours, rate, y), state

    return Layer(layer.init, apply)
