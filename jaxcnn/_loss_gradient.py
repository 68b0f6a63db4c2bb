"""Transforms of losses that change the gradient: sharpness-aware minimization and per-example clipping.

They return a loss whose value and gradient are those that the optimizer should get, so they work with any optimizer
and with `fit`. In evaluation, they are the loss itself.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_positive
from jaxcnn._array import at_least_float32
from jaxcnn._loss import LossFn, batch_entry, batch_weights, check_loss, convertible_entry, first_label
from jaxcnn._numeric import norm
from jaxcnn._validate import check_for_loss, is_concrete


def sharpness_aware(loss_fn: LossFn, rho: float = 0.05) -> LossFn:
    """loss_fn -> LossFn: minimizes the largest loss near the parameters, to find flat minima (SAM).

    loss(params + e),  e = rho * g / |g|,  g = d loss / d params,  without a gradient through e

    It computes two gradients per step. Both use the same batch and key. Running statistics and metrics are those of
    the unchanged parameters. `optax.contrib.sam` is for loops in which the optimizer computes gradients.

    Args:
        loss_fn: a LossFn, such as the result of `cross_entropy`.
        rho: L2 distance over all parameters, above 0.

    Raises:
        ValueError: if `rho` is not above 0.

    Example:
        >>> def loss_fn(params, state, batch, *, train, key=None):
        ...     return params["w"] ** 2, (state, {})
        >>> loss, _ = jaxcnn.sharpness_aware(loss_fn, 0.5)({"w": jnp.array(1.0)}, {}, {}, train=True)
        >>> float(loss)  # (1 + 0.5)^2
        2.25

    Source: Foret et al., "Sharpness-aware minimization for efficiently improving generalization", 2021.
    """
    check_loss("sharpness_aware", loss_fn)
    rho = check_positive("sharpness_aware", "rho", rho)

    @functools.wraps(loss_fn)
    def sharpness_aware_loss(params, state, batch, *, train, key=None):
        if not train:
            return loss_fn(params, state, batch, train=False, key=key)
        grad_fn = jax.grad(loss_fn, has_aux=True)
        gradient, aux = grad_fn(lax.stop_gradient(params), state, batch, train=True, key=key)
        length = _global_norm(gradient)
        scale = rho / jnp.where(length == 0, 1, length)
        worst = jax.tree.map(lambda w, g: w + (scale * g).astype(w.dtype), params, gradient)
        return loss_fn(worst, state, batch, train=True, key=key)[0], aux

    return sharpness_aware_loss


def clip_per_example(loss_fn: LossFn, max_norm: float) -> LossFn:
    """loss_fn -> LossFn: limits the influence of each example, by the mean of clipped gradients per example.

    gradient = sum_n weight[n] g_n * min(1, max_norm / |g_n|) / sum_n weight[n],  g_n = d loss(example n) / d params

    This is the clipping of DP-SGD. Its noise, with standard deviation s = noise_multiplier * max_norm / batch size, is
    `optax.chain(optax.add_noise(s**2, 0, key), optimizer)`; account for the privacy budget separately.

    Memory: one gradient per example.

    Args:
        loss_fn: a LossFn, such as the result of `cross_entropy`. It is applied to batches of one example, each with its
            own key. Weights that it divides by their sum over the batch, such as `class_weight`, therefore cancel: use
            the entry "weight" of the batch instead.
        max_norm: largest L2 norm over all parameters of the gradient of an example.

    Returns:
        a LossFn with the (weighted) means over the examples of the loss and the metrics. It has no second derivative.

    Raises:
        ValueError: if `max_norm` is not above 0, or in training if the state depends on the examples, as with batch
            norm: use `group_norm`, or `freeze` the network that contains it.

    Example:
        >>> def loss_fn(params, state, batch, *, train, key=None):
        ...     return (params["w"] * batch["image"]).mean(), (state, {})
        >>> clipped = jaxcnn.clip_per_example(loss_fn, 1.0)
        >>> loss = lambda params: clipped(params, {}, {"image": jnp.array([0.5, 9.0])}, train=True)[0]
        >>> float(jax.grad(loss)({"w": jnp.array(1.0)})["w"])  # (0.5 + 1) / 2
        0.75

    Source: Abadi et al., "Deep learning with differential privacy", 2016.
    """
    check_loss("clip_per_example", loss_fn)
    max_norm = check_positive("clip_per_example", "max_norm", max_norm)

    @functools.wraps(loss_fn)
    def clipped_loss(params, state, batch, *, train, key=None):
        if not train:
            return loss_fn(params, state, batch, train=False, key=key)
        weight = batch_weights(batch, "weight") if "weight" in batch else None
        batch = {name: weight if name == "weight" else convertible_entry(batch, name) for name in batch}
        count = len(jax.tree.leaves(batch_entry(batch, "image"))[0])
        if is_concrete(batch):  # inside vmap, the loss could not check them
            known = batch | {"label": first_label(batch["label"])} if "label" in batch else batch
            check_for_loss("clip_per_example", loss_fn, params, state, known)
        fixed = lax.stop_gradient(params)

        def of_example(n, example):
            batch_of_one = jax.tree.map(lambda leaf, axis: leaf if axis is None else leaf[None], example, axes)
            key_n = None if key is None else jax.random.fold_in(key, n)
            grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
            (loss, (new_state, metrics)), gradient = grad_fn(fixed, state, batch_of_one, train=True, key=key_n)
            scale = max_norm / jnp.maximum(_global_norm(gradient), max_norm)
            return new_state, (loss, metrics, jax.tree.map(lambda g: (scale * g).astype(g.dtype), gradient))

        axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, batch)  # a mixing weight has no batch dimension
        try:
            each = jax.vmap(of_example, in_axes=(0, axes), out_axes=(None, 0))
            new_state, (losses, metrics, gradients) = each(jnp.arange(count), batch)
        except ValueError as error:
            if "out_axes" not in str(error):  # raised by vmap if the state depends on the example
                raise
            raise ValueError(
                "clip_per_example: the new state depends on the examples, as with batch norm, so an example has no "
                "gradient of its own; use group_norm, or freeze the network that contains batch norm"
            ) from error
        mean = lambda tree: lax.stop_gradient(jax.tree.map(lambda values: _weighted_mean(values, weight), tree))
        # Its value is the loss, and its gradient that of the clipped examples.
        along = lambda w, w0, g: (g * (w - w0)).sum().astype(losses.dtype)
        linear = jax.tree.map(along, params, fixed, mean(gradients))
        return jax.tree.reduce(jnp.add, linear, mean(losses)), (new_state, mean(metrics))

    return clipped_loss


def _global_norm(tree: Any) -> jax.Array:
    """The L2 norm of all values of a tree."""
    leaves = [at_least_float32(leaf).ravel() for leaf in jax.tree.leaves(tree) if leaf.size]
    return norm(jnp.array([0.0, *(norm(leaf, (0,))[0] for leaf in leaves)]), (0,))[0]


def _weighted_mean(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """(N, ..) -> (..): the mean over the examples; 0 if N or all weights are 0."""
    if weight is None:
        return values.mean(0) if len(values) else values.sum(0)
    weight = weight.astype(values.dtype)
    total = weight.sum()
    return jnp.tensordot(weight, values, 1) / jnp.where(total == 0, 1, total)
