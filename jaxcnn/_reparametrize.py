"""Transforms that reparametrize the kernels of a layer: they drop, normalize or standardize weights.

A kernel is a parameter named `kernel` at any depth of the layer's parameters. The n kernels of a `repeat` are
transformed independently.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_integer, check_number, check_train
from jaxcnn._combine import AnyLayer
from jaxcnn._dropout import check_rate, drop
from jaxcnn._key import child_key, require_key, transform_keys
from jaxcnn._layer import Layer, Params, as_layer, constructor, get_param
from jaxcnn._number import is_zero
from jaxcnn._numeric import (
    align_trailing,
    center_and_variance,
    divide_or_keep,
    inverse_std,
    norm,
    scale_to_unit_max,
    scale_to_unit_norm,
)
from jaxcnn._path import KERNELS, mask, merged
from jaxcnn._sampling import is_random
from jaxcnn._stack import key_depth, stack_depth, stack_depths, stacked_name, vmap_stacked


@constructor
def drop_connect(layer: AnyLayer, rate: float, *, where: str = KERNELS) -> Layer:
    """Zero random weights of a layer, different ones at each training step.

    w' = w * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each weight

    Args:
        layer: a layer with parameters.
        rate: dropout probability, in [0, 1); 0 returns the layer unchanged.
        where: regular expression on the paths of the parameters to drop; by default all kernels.

    Raises:
        ValueError: if `rate` is outside [0, 1), in training without a key, or if `where` matches nothing.

    Example:
        >>> layer = jaxcnn.drop_connect(jaxcnn.dense(1, bias=False), 0.5)
        >>> params = {"kernel": jnp.ones((1, 1))}
        >>> float(layer.apply(params, {}, jnp.ones((1, 1)), train=True, key=jax.random.key(0))[0][0, 0]) in (0.0, 2.0)
        True

    Source: Wan et al., "Regularization of neural networks using DropConnect", 2013.
    """
    layer = as_layer(layer)
    if is_zero(check_rate("drop_connect", rate)):
        return layer

    def apply(params, state, x, *, train, key=None):
        if is_random(state, train):
            drop_key, key = transform_keys(require_key(key, "drop_connect"), "drop_connect")
            chosen = mask(params, where)

            def drop_weights(path, w, hit):
                return drop(child_key(drop_key, jax.tree_util.keystr(path)), rate, w) if hit else w

            params = jax.tree_util.tree_map_with_path(drop_weights, params, chosen)
        return layer.apply(params, state, x, train=train, key=key)

    return Layer(layer.init, apply)


@constructor
def weight_norm(layer: AnyLayer) -> Layer:
    """Parametrize each filter of a layer by its norm and its direction.

    w' = scale * w / |w|,  with one norm per feature, over all kernel dimensions but the last

    `scale` is initialized to |w|, so the layer's initial output does not change.

    Args:
        layer: a layer with kernels and no `scale` next to them.

    Params:
        those of the layer, plus a `scale` (features,) next to each kernel (.., features).

    Raises:
        ValueError: if the layer has no kernel, or already has a `scale` next to a kernel.

    Example:
        >>> params, _ = jaxcnn.weight_norm(jaxcnn.dense(3)).init(jax.random.key(0), jnp.zeros((1, 5)))
        >>> jaxcnn.paths(params)
        ['bias', 'kernel', 'scale']

    Source: Salimans and Kingma, "Weight normalization", 2016.
    """
    layer = as_layer(layer)

    def add_scale(leaves, depth):
        if "scale" in leaves:
            raise ValueError("weight_norm: the layer already has a 'scale' next to a kernel")
        name = next(name for name in leaves if name == "kernel")  # the dict's own key has the depth of stacking
        return leaves | {stacked_name("scale", key_depth(name)): vmap_stacked(_filter_norms, depth)(leaves["kernel"])}

    def apply_scale(leaves, depth):
        kernel = leaves["kernel"]
        scale = get_param("weight_norm", leaves, "scale", (*kernel.shape[:depth], kernel.shape[-1]), kernel)
        rest = {name: child for name, child in leaves.items() if name != "scale"}
        return rest | {"kernel": vmap_stacked(rescale, depth)(kernel, scale)}

    def rescale(kernel, scale):
        return align_trailing(scale, kernel) * scale_to_unit_norm(kernel, tuple(range(kernel.ndim - 1)))

    def init(key, x):
        params, state = layer.init(key, x)
        return _map_kernel_dicts("weight_norm", layer, params, x, add_scale), state

    def apply(params, state, x, *, train, key=None):
        return layer.apply(
            _map_kernel_dicts("weight_norm", layer, params, x, apply_scale), state, x, train=train, key=key
        )

    return Layer(init, apply)


@constructor
def weight_standardized(layer: AnyLayer, *, eps: float = 1e-5) -> Layer:
    """Standardize each filter of a layer to mean 0 and variance 1.

    w' = (w - mean) / sqrt(var + eps),  with moments per feature, over all kernel dimensions but the last

    Args:
        layer: a layer with kernels.
        eps: added to the variance. With 0, a filter of equal weights becomes 0.

    Raises:
        ValueError: if the layer has no kernel, or for a negative eps.

    Example:
        >>> layer = jaxcnn.weight_standardized(jaxcnn.dense(1, bias=False), eps=0.0)
        >>> layer.apply({"kernel": jnp.array([[1.0], [3.0]])}, {}, jnp.array([[1.0, 0.0]]), train=False)[0]
        Array([[-1.]], dtype=float32)

    Source: Qiao et al., "Micro-batch training with batch-channel normalization and weight standardization", 2019.
    """
    layer = as_layer(layer)
    eps = check_number("weight_standardized", "eps", eps)

    def standardize(kernel):
        centered, var = center_and_variance(kernel, tuple(range(kernel.ndim - 1)))
        return centered * inverse_std(var, eps)

    def change(leaves, depth):
        return leaves | {"kernel": vmap_stacked(standardize, depth)(leaves["kernel"])}

    def apply(params, state, x, *, train, key=None):
        params = _map_kernel_dicts("weight_standardized", layer, params, x, change)
        return layer.apply(params, state, x, train=train, key=key)

    return Layer(layer.init, apply)


@constructor
def spectral_norm(layer: AnyLayer, *, steps: int = 1) -> Layer:
    """Divide each kernel of a layer by its largest singular value.

    w' = w / sigma,  sigma = |w u|,  with w as a matrix (.., features) and u its first right singular vector

    Power iteration estimates u: u <- w^T w u / |w^T w u|. It continues at each training step.

    Args:
        layer: a layer with kernels.
        steps: power iterations per training step.

    State:
        that of the layer, plus "spectral_norm": {.. kernel: (features,)}, one vector u per kernel path. Inside a
        `repeat`, u is (n, features), and each of the n kernels has its own sigma.

    Raises:
        ValueError: if the layer has no kernel.

    Example:
        >>> layer = jaxcnn.spectral_norm(jaxcnn.dense(2, bias=False))
        >>> params, state = layer.init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> y, _ = layer.apply({"kernel": jnp.diag(jnp.array([8.0, 8.0]))}, state, jnp.ones((1, 2)), train=False)
        >>> [round(float(v), 4) for v in y.ravel()]
        [1.0, 1.0]

    Source: Miyato et al., "Spectral normalization for generative adversarial networks", 2018.
    """
    layer = as_layer(layer)
    steps = check_integer("spectral_norm", "steps", steps)

    def iterate(u, kernel, steps):
        w, dtype = scale_to_unit_max(kernel.reshape(-1, kernel.shape[-1])), u.dtype
        for _ in range(steps):
            new = scale_to_unit_norm(scale_to_unit_norm(w @ u, (0,)) @ w, (0,))
            u = jnp.where(new.any(), new, u)  # a zero kernel must not make u zero forever
        return lax.stop_gradient(u).astype(dtype)

    def divide_by_sigma(u, kernel):
        w = scale_to_unit_max(kernel)
        (sigma,) = norm(w.reshape(-1, w.shape[-1]) @ u, (0,))
        return divide_or_keep(w, sigma)

    def init(key, x):
        params, state = layer.init(key, x)
        if "spectral_norm" in state:
            raise ValueError("spectral_norm: the layer already has spectral_norm; apply it once")
        _require_kernel("spectral_norm", params)

        def start(path, w):
            stack = w.shape[: stack_depth(path)]
            u_key = child_key(key, f"/spectral_norm/{jax.tree_util.keystr(path)}")
            u = jax.random.normal(u_key, (*stack, w.shape[-1]), jnp.float32)
            # 15 iterations come close enough for the first step.
            return vmap_stacked(functools.partial(iterate, steps=15), len(stack))(u, w)

        vectors = jax.tree_util.tree_map_with_path(start, _kernels(params))
        return params, state | {"spectral_norm": vectors}

    def apply(params, state, x, *, train, key=None):
        inner = {name: child for name, child in state.items() if name != "spectral_norm"}
        if "spectral_norm" not in state:
            raise ValueError(
                f"spectral_norm: no 'spectral_norm' in the state {sorted(state)}; pass the state that init returned"
            )
        vectors, stacks = state["spectral_norm"], _kernels(stack_depths(layer, x))
        if check_train(train):
            advance = functools.partial(iterate, steps=steps)
            vectors = jax.tree.map(
                lambda u, w, depth: vmap_stacked(advance, depth)(u, w), vectors, _kernels(params), stacks
            )
        normed = jax.tree.map(
            lambda u, w, depth: vmap_stacked(divide_by_sigma, depth)(u, w), vectors, _kernels(params), stacks
        )
        y, inner = layer.apply(merged(params, normed), inner, x, train=train, key=key)
        return y, inner | {"spectral_norm": vectors}

    return Layer(init, apply)


def _kernels(params: Params) -> Params:
    """`params` without the leaves that are not kernels."""
    kernels = {}
    for part, child in params.items():
        if isinstance(child, dict):
            if nested := _kernels(child):
                kernels[part] = nested
        elif part == "kernel":
            kernels[part] = child
    return kernels


def _require_kernel(name: str, params: Params) -> None:
    if not _kernels(params):
        raise ValueError(f"{name}: the layer has no kernel")


def _map_kernel_dicts(
    name: str, layer: Layer, params: Params, x: Any, change: Callable[[Params, int], Params]
) -> Params:
    """Replace every dict that holds a kernel by `change(dict, stack depth of the kernel)`."""
    _require_kernel(name, params)

    def walk(node, depths):
        node = {
            part: walk(child, depths.get(part, {})) if isinstance(child, dict) else child
            for part, child in node.items()
        }
        has_kernel = not isinstance(node.get("kernel", {}), dict)  # a dict is a layer with this name
        return change(node, depths.get("kernel", 0)) if has_kernel else node

    return walk(params, stack_depths(layer, x))


def _filter_norms(kernel: jax.Array) -> jax.Array:
    return norm(kernel, tuple(range(kernel.ndim - 1))).ravel()
