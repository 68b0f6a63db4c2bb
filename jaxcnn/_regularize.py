"""Penalties on parameters, added to a loss: `regularized(loss_fn, l2(1e-4), l1(1e-5))`.

A penalty is a function `params -> scalar` over all leaves whose full path matches `where`. The default is all kernels:
biases and scales are usually not regularized.
"""

import functools
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_number, has_spec, is_function, short_repr
from jaxcnn._array import at_least_float32
from jaxcnn._loss import LossFn, check_loss
from jaxcnn._numeric import absolute
from jaxcnn._path import KERNELS, mask
from jaxcnn._stack import stack_depth, vmap_stacked

Penalty = Callable[[Any], jax.Array]


def regularized(loss_fn: LossFn, *penalties: Penalty) -> LossFn:
    """loss_fn -> LossFn: adds penalties on the parameters.

    loss = loss_fn(params, ..) + sum_j penalty_j(params)

    It adds the metric "penalty", the sum of all penalties. The metric "loss" remains the loss on the data.

    Args:
        loss_fn: a LossFn, such as the result of `cross_entropy`.
        penalties: functions `params -> scalar`, such as `l2(1e-4)`.

    Raises:
        TypeError: if a penalty is not a function, for example a number, or does not give a scalar.

    Example:
        >>> def loss_fn(params, state, batch, *, train, key=None):
        ...     return 1.0, (state, {"loss": 1.0})
        >>> loss, _ = jaxcnn.regularized(loss_fn, jaxcnn.l2(0.5))({"kernel": jnp.array([2.0])}, {}, None, train=True)
        >>> float(loss)
        3.0
    """
    check_loss("regularized", loss_fn)
    for penalty in penalties:
        if not is_function(penalty):
            raise TypeError(
                f"regularized needs functions params -> scalar, such as l2(1e-4), got {short_repr(penalty)}"
            )

    @functools.wraps(loss_fn)
    def penalized(params, state, batch, *, train, key=None):
        loss, (state, metrics) = loss_fn(params, state, batch, train=train, key=key)
        penalty = sum(_scalar(penalty, params) for penalty in penalties)
        total = loss + jnp.asarray(penalty, getattr(loss, "dtype", jnp.float32))
        # The sum of all penalties, if the loss has some of its own.
        return total, (state, metrics | {"penalty": metrics.get("penalty", 0) + jnp.asarray(penalty, jnp.float32)})

    return penalized


def _scalar(penalty: Penalty, params: Any) -> Any:
    value = penalty(params)
    if not (has_spec(value) or isinstance(value, numbers.Real)) or np.ndim(value):
        raise TypeError(
            f"regularized: the penalty {short_repr(penalty)} must give a scalar, got {short_repr(value)}; "
            "sum over its values"
        )
    return value


def l1(strength: float, where: str = KERNELS) -> Penalty:
    """params -> strength * sum |w|. Its gradient has constant magnitude, which drives small weights to zero.

    Args:
        strength: factor of the penalty, at least 0.
        where: regular expression on the full path of a parameter.

    Raises:
        ValueError: if `strength` is negative, or if `where` matches nothing.

    Example:
        >>> float(jaxcnn.l1(0.5)({"conv": {"kernel": jnp.array([-1.0, 3.0]), "bias": jnp.array([9.0])}}))
        2.0

    Source: Tibshirani, "Regression shrinkage and selection via the lasso", 1996.
    """
    return _penalty("l1", strength, where, _abs_sum)


def l2(strength: float, where: str = KERNELS) -> Penalty:
    """params -> strength * sum w^2 (without a factor 1/2). Its gradient is 2 * strength * w.

    With plain SGD it equals `optax.add_decayed_weights(2 * strength)` before the learning rate, and PyTorch's
    weight_decay = 2 * strength. With Adam it differs from the decoupled weight decay of `optax.adamw`.

    Args:
        strength: factor of the penalty, at least 0.
        where: regular expression on the full path of a parameter.

    Raises:
        ValueError: if `strength` is negative, or if `where` matches nothing.

    Example:
        >>> float(jaxcnn.l2(0.5)({"conv": {"kernel": jnp.array([-1.0, 3.0]), "bias": jnp.array([9.0])}}))
        5.0

    Source: Hoerl and Kennard, "Ridge regression", 1970; Krogh and Hertz, "A simple weight decay can improve
    generalization", 1992.
    """
    return _penalty("l2", strength, where, lambda w: jnp.square(w).sum())


def elastic_net(l1: float, l2: float, where: str = KERNELS) -> Penalty:
    """params -> l1 * sum |w| + l2 * sum w^2.

    Args:
        l1, l2: the two strengths, at least 0.
        where: regular expression on the full path of a parameter.

    Raises:
        ValueError: if a strength is negative, or if `where` matches nothing.

    Example:
        >>> float(jaxcnn.elastic_net(1.0, 0.5)({"kernel": jnp.array([-1.0, 3.0])}))
        9.0

    Source: Zou and Hastie, "Regularization and variable selection via the elastic net", 2005.
    """
    l1, l2 = check_number("elastic_net", "l1", l1), check_number("elastic_net", "l2", l2)
    return _penalty("elastic_net", 1.0, where, lambda w: l1 * _abs_sum(w) + l2 * jnp.square(w).sum())


def orthogonal(strength: float, where: str = KERNELS) -> Penalty:
    """params -> strength * sum |W^T W - I|^2: favors orthonormal filters.

    W is the kernel as a matrix (.., features). With more features than inputs, the penalty uses W W^T.

    Each of the n kernels of a `repeat` is a separate W. The keys of the tree returned by `init` mark stacked kernels;
    gradients and updates preserve the marks. A tree with plain string keys has lost them, and its stacked kernels
    (n, in, out) are treated as kernels of 1-D convolutions. Restore the marks with
    `jax.tree.map(lambda _, w: w, init_params, plain_params)`.

    Args:
        strength: factor of the penalty, at least 0.
        where: regular expression on the full path of a parameter.

    Raises:
        ValueError: if `strength` is negative, if `where` matches nothing, or if it matches a scalar.

    Example:
        >>> float(jaxcnn.orthogonal(1.0)({"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]])}))
        9.0

    Source: Bansal, Chen and Wang, "Can we gain more from orthogonality regularizations in training deep CNNs?", 2018.
    """

    def squared_distance(w):
        if not w.ndim:
            raise ValueError("orthogonal needs kernels (.., features), got one of shape (); choose others by `where`")
        w = w.reshape(-1, w.shape[-1])
        gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        return jnp.square(gram - jnp.eye(len(gram), dtype=gram.dtype)).sum()

    return _penalty("orthogonal", strength, where, squared_distance)


def _penalty(name: str, strength: float, where: str, measure: Callable[[jax.Array], jax.Array]) -> Penalty:
    strength = check_number(name, "the strength", strength)

    def penalty(params):
        chosen = jax.tree.leaves(mask(params, where))
        leaves = zip(jax.tree_util.tree_leaves_with_path(params), chosen, strict=True)
        # measure(w) of each chosen parameter, or of each kernel where `repeat` and `ensemble` stack several in one.
        sums = [
            vmap_stacked(measure, stack_depth(path))(at_least_float32(jnp.asarray(w))).sum()
            for (path, w), hit in leaves
            if hit
        ]
        return strength * functools.reduce(jnp.add, sums)

    return penalty


def _abs_sum(w: jax.Array) -> jax.Array:
    return absolute(w).sum()
