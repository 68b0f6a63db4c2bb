"""Layer transforms: each takes a layer and returns a layer. All but `capture` keep the shapes of input and output.

Parameters keep their paths, so a checkpoint saved without the transform loads with it, and vice versa. The inner
transform applies first: `freeze(with_dropout(layer, 0.5))` freezes the layer and disables its dropout.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_choice, short_repr
from jaxcnn._array import as_array, readable
from jaxcnn._combine import AnyLayer
from jaxcnn._dropout import check_rate, drop, drop_channels, drop_examples
from jaxcnn._key import require_key, transform_keys
from jaxcnn._layer import Layer, as_layer, check_returned, constructor
from jaxcnn._number import is_zero
from jaxcnn._path import compile_pattern, expected_one_of, matching
from jaxcnn._probe import SLOT, Probe
from jaxcnn._sampling import is_random, without_sampling


@constructor
def with_dropout(layer: AnyLayer, rate: float) -> Layer:
    """Apply `dropout` to the output of a layer.

    y = layer(x) * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each value

    Args:
        layer: a layer or a plain function.
        rate: dropout probability, in [0, 1); 0 returns the layer unchanged.

    Raises:
        TypeError: in training, for a layer whose output is not one floating-point array.
        ValueError: if `rate` is outside [0, 1), or in training without a key.

    Example:
        >>> layer = jaxcnn.with_dropout(jnp.exp, 0.5)
        >>> layer.apply({}, {}, jnp.zeros(4), train=False)[0]
        Array([1., 1., 1., 1.], dtype=float32)

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """
    return _drop_output("with_dropout", layer, rate, drop)


@constructor
def with_spatial_dropout(layer: AnyLayer, rate: float) -> Layer:
    """Apply `spatial_dropout` to the output of a layer: it zeroes whole channels of an example.

    y[n, :, c] = layer(x)[n, :, c] * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each n, c

    Args:
        layer: a layer or a plain function.
        rate: dropout probability, in [0, 1); 0 returns the layer unchanged.

    Raises:
        TypeError: in training, for a layer whose output is not one floating-point array.
        ValueError: if `rate` is outside [0, 1), or in training without a key.

    Example:
        >>> layer = jaxcnn.with_spatial_dropout(jnp.exp, 0.5)
        >>> layer.apply({}, {}, jnp.zeros((1, 1, 1, 2)), train=False)[0].ravel()
        Array([1., 1.], dtype=float32)

    Source: Tompson et al., "Efficient object localization using convolutional networks", 2015.
    """
    return _drop_output("with_spatial_dropout", layer, rate, drop_channels)


@constructor
def drop_path(layer: AnyLayer, rate: float) -> Layer:
    """Zero the whole output of a layer for random examples (stochastic depth). Use it on a residual branch.

    y[n] = layer(x)[n] * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each n

    Args:
        layer: a layer or a plain function.
        rate: dropout probability, in [0, 1); 0 returns the layer unchanged.

    Raises:
        TypeError: in training, for a layer whose output is not one floating-point array.
        ValueError: if `rate` is outside [0, 1), or in training without a key.

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
    """Run a layer in evaluation mode, with constant parameters.

    The parameters receive no gradient, running statistics do not change, and dropout is off. Gradients still flow
    to the input. `train.fit` and `train.sweep` exclude the parameters from weight decay and penalties. In your own
    loop, mask them there, because weight decay shrinks parameters without a gradient, too.

    Args:
        layer: a layer, such as a pretrained backbone.

    Raises:
        TypeError: if `layer` is neither a layer nor a function.

    Example:
        >>> layer = jaxcnn.freeze(jaxcnn.prelu())
        >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 1)))
        >>> loss = lambda params: layer.apply(params, state, -jnp.ones((1, 1)), train=True)[0].sum()
        >>> jax.grad(loss)(params)
        {'scale': Array([0.], dtype=float32)}
    """
    layer = as_layer(layer)

    def apply(params, state, x, *, train, key=None):
        return layer.apply(lax.stop_gradient(params), without_sampling(state), x, train=False)

    return Layer(layer.init, apply)


@constructor
def cast(layer: AnyLayer, dtype: Any) -> Layer:
    """Compute a layer in another dtype, and cast the output back to the input's dtype (mixed precision).

    Parameters stay float32 and are rounded where they are used. Statistics are computed in float32. Inputs that are
    positions, such as the boxes of `roi_align`, would be rounded by up to several pixels: cast the other layers only.

    Args:
        layer: a layer.
        dtype: a floating-point dtype, such as `jnp.bfloat16`.

    Raises:
        TypeError: if `dtype` is not floating-point.

    Example:
        >>> layer = jaxcnn.cast(lambda x: x.dtype.itemsize * x, jnp.bfloat16)
        >>> layer.apply({}, {}, jnp.ones(1), train=False)[0]
        Array([2.], dtype=float32)

    Source: Micikevicius et al., "Mixed precision training", 2018.
    """
    layer = as_layer(layer)
    try:
        dtype = jnp.dtype("None" if dtype is None else dtype)  # NumPy would read None as float64
    except TypeError as error:
        raise TypeError(f"cast: {dtype!r} is not a dtype; use one such as jnp.bfloat16") from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"cast: dtype must be floating-point, such as jnp.bfloat16, got {dtype!r}")

    def convert(tree, dtype):
        def convert_leaf(leaf):
            return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

        return jax.tree.map(convert_leaf, tree)

    def init(key, x):
        return layer.init(key, jax.eval_shape(lambda x: convert(x, dtype), jax.tree.map(readable, x)))

    def apply(params, state, x, *, train, key=None):
        x = jax.tree.map(as_array, x)
        input_dtypes = [leaf.dtype for leaf in jax.tree.leaves(x) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        y, state = layer.apply(params, state, convert(x, dtype), train=train, key=key)
        return convert(y, jnp.result_type(*input_dtypes) if input_dtypes else jnp.float32), state

    return Layer(init, apply)


@constructor
def with_precision(layer: AnyLayer, precision: str) -> Layer:
    """Compute the matrix products and convolutions of a layer, and their gradients, with this precision.

    A GPU or TPU rounds the float32 operands of products to fewer digits unless told otherwise. A CPU does not.

    Args:
        layer: a layer.
        precision: "default", "high" or "highest", as in `jax.lax.Precision`. "highest" is full float32.

    Raises:
        ValueError: for an unknown precision.

    Example:
        >>> net = jaxcnn.serial(jaxcnn.conv(8), jaxcnn.flatten, head=jaxcnn.with_precision(jaxcnn.dense(1), "highest"))
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
        >>> net.apply(params, state, jnp.zeros((1, 4, 4, 3)), train=False)[0].shape
        (1, 1)
    """
    check_choice("with_precision", "precision", precision, ("default", "high", "highest"))
    layer = as_layer(layer)

    def apply(params, state, x, *, train, key=None):
        with jax.default_matmul_precision(precision):
            return layer.apply(params, state, x, train=train, key=key)

    return Layer(layer.init, apply)


@constructor
def remat(layer: AnyLayer) -> Layer:
    """Recompute the activations inside a layer in the backward pass: less memory, more time.

    Args:
        layer: a layer, such as one block of a deep network.

    Raises:
        TypeError: if `layer` is neither a layer nor a function.

    Example:
        >>> layer = jaxcnn.remat(jnp.sin)
        >>> jax.grad(lambda x: layer.apply({}, {}, x, train=True)[0])(0.0)
        Array(1., dtype=float32, weak_type=True)

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016.
    """
    layer = as_layer(layer)

    def apply(params, state, x, *, train, key=None):
        x = jax.tree.map(readable, x)
        return jax.checkpoint(functools.partial(layer.apply, train=train))(params, state, x, key=key)

    return Layer(layer.init, apply)


@constructor
def capture(model: Layer, pattern: str) -> Layer:
    """x -> (y, activations): also returns the outputs of inner layers whose path matches a pattern.

    `activations` maps each path to an output. Inside a `repeat`, outputs are stacked along a new first dimension.
    `apply` accepts an extra keyword `offsets`, a dict from path to a value that is added to that output. The gradient
    with respect to an offset of zeros is the gradient with respect to the activation.

    Args:
        model: a layer built with combinators.
        pattern: regular expression on layer paths, such as "block1/conv" or ".*".

    Raises:
        ValueError: if the pattern matches no layer, or an offset's path is not among the activations.

    Example: the gradient of the output with respect to a hidden activation.
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
        result = state.get(SLOT, request)
        paths = [record.path for record in result.records]
        captured = matching(paths, pattern, "layer of the model")
        for path in request.offsets:
            if path not in captured:
                raise ValueError(f"capture: no activation for offset {path!r}; {expected_one_of(path, captured)}")
        return (y, result.activations), {name: child for name, child in state.items() if name != SLOT}

    return Layer(model.init, apply)


def _drop_output(
    name: str, layer: AnyLayer, rate: float, dropout: Callable[[jax.Array, float, jax.Array], jax.Array]
) -> Layer:
    layer = as_layer(layer)
    if is_zero(check_rate(name, rate)):
        return layer

    def apply(params, state, x, *, train, key=None):
        if not is_random(state, train):
            return layer.apply(params, state, x, train=False)
        drop_key, key = transform_keys(require_key(key, name), name)
        y, state = layer.apply(params, state, x, train=train, key=key)
        check_returned(y, name)
        if not jnp.issubdtype(y.dtype, jnp.floating):
            raise TypeError(f"{name} needs a layer with floating-point output, got {short_repr(y)}")
        return dropout(drop_key, rate, y), state

    return Layer(layer.init, apply)
