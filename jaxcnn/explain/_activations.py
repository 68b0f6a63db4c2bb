"""What a network looks for, and what it finds in an image."""

import jax
import jax.numpy as jnp

from jaxcnn._combine import AnyLayer
from jaxcnn._layer import Params, State, as_layer
from jaxcnn._path import expected_one_of, paths
from jaxcnn._transform import capture


def filters(params: Params, path: str | None = None) -> jax.Array:
    """(features, *window, C): the kernel of a convolution, one filter after the other.

    Args:
        params: of a model.
        path: of the layer, such as "conv1"; by default the convolution with the fewest input channels, as a rule the
            one that sees the image. (Not the first: jax sorts a tree by name.)

    Raises:
        ValueError: if there is no convolution of that path, or by default not one with the fewest channels.

    Example:
        >>> params, _ = jaxcnn.models.lenet5().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> jaxcnn.explain.filters(params).shape
        (6, 5, 5, 1)
        >>> jaxcnn.explain.filters(params, "conv2").shape
        (16, 5, 5, 6)
    """
    kernels = {
        layer: leaf
        for name, leaf in zip(paths(params), jax.tree.leaves(params), strict=True)
        for layer, _, kind in [name.rpartition("/")]
        if kind == "kernel" and leaf.ndim > 2
    }
    if path is None:
        fewest = min((kernel.shape[-2] for kernel in kernels.values()), default=0)
        candidates = [layer for layer, kernel in kernels.items() if kernel.shape[-2] == fewest]
        if len(candidates) != 1:
            raise ValueError(f"filters needs the path of a convolution; {expected_one_of('', candidates)}")
        path = candidates[0]
    if path not in kernels:
        raise ValueError(f"filters: no convolution {path!r}; {expected_one_of(path, kernels)}")
    return jnp.moveaxis(kernels[path], -1, 0)


def feature_maps(
    model: AnyLayer, params: Params, state: State, x: jax.Array, pattern: str = ".*"
) -> dict[str, jax.Array]:
    """The outputs of the layers inside a model, by path, in the order in which they run.

    Args:
        model: a layer made by combinators, in evaluation.
        params, state: of the model.
        x: its input, (N, *spatial, C).
        pattern: regular expression on the path of a layer; the default matches every one.

    Raises:
        ValueError: if the pattern matches no layer.

    Example:
        >>> net = jaxcnn.serial(square=jnp.square, double=lambda h: 2 * h)
        >>> maps = jaxcnn.explain.feature_maps(net, {}, {}, jnp.array([3.0]))
        >>> {path: float(activation[0]) for path, activation in maps.items()}
        {'square': 9.0, 'double': 18.0}

    Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014.
    """
    return capture(as_layer(model), pattern).apply(params, state, x, train=False)[0][1]
