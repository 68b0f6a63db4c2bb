"""The filters and the feature maps of a network."""

import jax
import jax.numpy as jnp

from jaxcnn._combine import AnyLayer
from jaxcnn._layer import Params, State, as_layer
from jaxcnn._path import expected_one_of, leaves_by_path
from jaxcnn._stack import marked_depths
from jaxcnn._transform import capture


def filters(params: Params, path: str | None = None) -> jax.Array:
    """Return the filters (features, *window, C) of a convolution, or (n, features, *window, C) for n stacked ones.

    Args:
        params: parameters of a model.
        path: path of the convolution, for example "conv1". The default is the convolution with the fewest input
            channels per group, which usually receives the image. (JAX sorts parameters by name, not by order of
            execution.)

    Raises:
        ValueError: if no convolution has this path, or if the default is ambiguous.

    Example:
        >>> params, _ = jaxcnn.models.lenet5().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> jaxcnn.explain.filters(params).shape
        (6, 5, 5, 1)
        >>> jaxcnn.explain.filters(params, "conv2").shape
        (16, 5, 5, 6)
    """
    kernels, depths = {}, leaves_by_path(marked_depths(params))
    for name, leaf in leaves_by_path(params).items():
        layer, _, kind = name.rpartition("/")
        if kind == "kernel" and leaf.ndim - depths[name] > 2:
            kernels[layer] = leaf
    if path is None:
        fewest = min((kernel.shape[-2] for kernel in kernels.values()), default=0)
        candidates = [layer for layer, kernel in kernels.items() if kernel.shape[-2] == fewest]
        if len(candidates) != 1:
            raise ValueError(f"filters needs the path of a convolution; {expected_one_of('', candidates)}")
        path = candidates[0]
    if path not in kernels:
        raise ValueError(f"filters: no convolution {path!r}; {expected_one_of(path, kernels)}")
    return jnp.moveaxis(kernels[path], -1, depths[f"{path}/kernel" if path else "kernel"])


def feature_maps(
    model: AnyLayer, params: Params, state: State, x: jax.Array, pattern: str = ".*"
) -> dict[str, jax.Array]:
    """Return the outputs of the layers inside a model by path, in the order in which they run.

    Args:
        model: a model built from combinators; it runs in evaluation mode.
        params, state: parameters and state of the model.
        x: input (N, *spatial, C).
        pattern: regular expression for the paths of the layers. The default matches all.

    Raises:
        ValueError: if the pattern matches no layer.

    Example:
        >>> net = jaxcnn.serial(square=jnp.square, double=lambda h: 2 * h)
        >>> maps = jaxcnn.explain.feature_maps(net, {}, {}, jnp.array([3.0]))
        >>> {path: float(activation[0]) for path, activation in maps.items()}
        {'square': 9.0, 'double': 18.0}

    Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014.
    """
    maps = capture(as_layer(model), pattern).apply(params, state, x, train=False)[0][1]
    return {path: y for path, y in maps.items() if y is not None}  # an auxiliary head has no output in evaluation
