"""Adversarial examples: small changes of the images that increase the loss, to attack a network and to train it."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._arguments import check_bounds, check_integer, check_positive, short_repr
from jaxcnn._array import as_floating, at_least_float32
from jaxcnn._key import check_key, child_key, require_key, transform_keys
from jaxcnn._layer import Params, State
from jaxcnn._loss import Batch, LossFn, batch_entry, check_loss
from jaxcnn._numeric import norm as l2_norm
from jaxcnn._numeric import scale_to_unit_norm
from jaxcnn._validate import check_for_loss, is_concrete, values_between, with_check

Bounds = Sequence[float] | None


def pgd(
    loss_fn: LossFn,
    params: Params,
    state: State,
    batch: Batch,
    *,
    eps: float,
    steps: int = 1,
    step_size: float | None = None,
    norm: float = math.inf,
    bounds: Bounds = (0.0, 1.0),
    key: jax.Array | None = None,
) -> jax.Array:
    """images (N, *spatial, C) -> the same: projected gradient ascent on the loss, within a distance of the images.

    x_0 = x, or uniform in the ball if a key is given
    x_{t+1} = clip(project(x_t + step_size * direction(d loss / d x_t))),  t = 0, .., steps - 1

    norm=inf: direction = sign, and project limits |x_t - x| to eps for each value. norm=2: direction divides by the L2
    norm of an example's gradient, and project limits the L2 norm of x_t - x to eps for each example.

    One step without a key is the fast gradient sign method (FGSM), x + eps * sign(gradient). The loss is computed in
    evaluation mode, so the attack changes no state and dropout is off.

    Args:
        loss_fn: a LossFn, such as the result of `cross_entropy`.
        params, state: of the model.
        batch: a dict with "image" and the entries that the loss needs. Examples with weight 0 get no gradient.
        eps: largest distance, in units of the images; 8/255 is common for CIFAR-10.
        steps: number of gradient steps.
        step_size: in units of the images. Default: eps for one step, otherwise 2.5 * eps / steps.
        norm: `jnp.inf` or 2.
        bounds: smallest and largest value of an image, or None. Make `data.normalize` a layer of the model, so that
            images have values in [0, 1].
        key: random key of the start.

    Raises:
        TypeError: if the key is not a random key.
        ValueError: if an argument is out of range, or an image outside of the bounds.

    Example:
        >>> loss_fn = jaxcnn.mean_squared_error(jaxcnn.as_layer(jaxcnn.identity))
        >>> batch = {"image": jnp.array([[0.5, 0.5, 0.5]]), "label": jnp.array([[1.0, 0.0, 0.5]])}
        >>> jaxcnn.pgd(loss_fn, {}, {}, batch, eps=0.25)
        Array([[0.25, 0.75, 0.5 ]], dtype=float32)

    Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", 2015 (FGSM); Madry et
    al., "Towards deep learning models resistant to adversarial attacks", 2018 (PGD).
    """
    check_loss("pgd", loss_fn)
    eps, steps, step_size, bounds = _check_attack("pgd", eps, steps, step_size, norm, bounds)
    clean = jnp.asarray(as_floating(batch_entry(batch, "image"), "pgd"))
    _check_inside("pgd", clean, bounds)
    dtype, clean = clean.dtype, at_least_float32(clean)  # the projection must not be rounded to fewer digits
    # Traced numbers may have another dtype than the image.
    radius, step = (jnp.asarray(value, clean.dtype) for value in (eps, step_size))

    def loss_of_image(image):
        return loss_fn(params, state, batch | {"image": image.astype(dtype)}, train=False)[0]

    def ascend(_, image):
        image = image + step * _direction(jax.grad(loss_of_image)(image), norm)
        return _clip(clean + _project(image - clean, radius, norm), bounds)

    start = clean if key is None else _clip(clean + _uniform_in_ball(check_key(key), clean, radius, norm), bounds)
    image = lax.fori_loop(0, steps, ascend, start)
    rounded = image.astype(dtype)
    too_far = jnp.abs(rounded.astype(clean.dtype) - clean) > jnp.abs(image - clean)
    return jnp.where(too_far, jnp.nextafter(rounded, clean.astype(dtype)), rounded)


def adversarial(
    loss_fn: LossFn,
    eps: float,
    steps: int = 1,
    *,
    step_size: float | None = None,
    norm: float = math.inf,
    bounds: Bounds = (0.0, 1.0),
) -> LossFn:
    """loss_fn -> LossFn: the loss of the adversarial examples that `pgd` finds for the current parameters.

    loss(params, pgd(images)),  without a gradient through `pgd`

    One step is FGSM, several steps are PGD with a random start. In evaluation, it is the loss of the unchanged images.

    Args:
        loss_fn: a LossFn, such as the result of `cross_entropy`.
        eps, steps, step_size, norm, bounds: as in `pgd`.

    Returns:
        a LossFn. In training, its metrics are those of the adversarial examples.

    Raises:
        ValueError: if an argument is out of range, for images outside of the bounds, or in training without a key if
            steps > 1.

    Example:
        >>> loss = lambda model: jaxcnn.adversarial(jaxcnn.cross_entropy(model), eps=0.1)  # for fit(loss=)
        >>> loss_fn = loss(jaxcnn.as_layer(jaxcnn.identity))
        >>> batch = {"image": jnp.array([[0.5, 0.5]]), "label": jnp.array([0])}
        >>> round(float(loss_fn({}, {}, batch, train=True)[0]), 4)  # log(1 + exp(0.6 - 0.4))
        0.7981

    Source: Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples", 2015; Madry et al.,
    "Towards deep learning models resistant to adversarial attacks", 2018.
    """
    check_loss("adversarial", loss_fn)
    eps, steps, step_size, bounds = _check_attack("adversarial", eps, steps, step_size, norm, bounds)
    attack = functools.partial(pgd, loss_fn, eps=eps, steps=steps, step_size=step_size, norm=norm, bounds=bounds)

    @functools.wraps(loss_fn)
    def attacked(params, state, batch, *, train, key=None):
        if train:
            attack_key = None
            if steps > 1:
                attack_key, key = transform_keys(require_key(key, "adversarial"), "adversarial")
            fixed = lax.stop_gradient((params, state))
            batch = batch | {"image": lax.stop_gradient(attack(*fixed, batch, key=attack_key))}
        return loss_fn(params, state, batch, train=train, key=key)

    def check(name, params, state, data):
        check_for_loss(name, loss_fn, params, state, data)
        _check_inside(name, data["image"], bounds)

    return with_check(attacked, check)


def _check_attack(
    name: str, eps: Any, steps: Any, step_size: Any, norm: Any, bounds: Any
) -> tuple[float, int, float, Bounds]:
    """eps, steps, step_size and bounds as Python numbers, after checking all arguments."""
    eps = check_positive(name, "eps", eps)
    steps = check_integer(name, "steps", steps)
    if norm not in (2, math.inf):
        raise ValueError(f"{name}: norm must be jnp.inf or 2, got {short_repr(norm)}")
    bounds = check_bounds(name, bounds)
    if step_size is None:
        step_size = eps if steps == 1 else 2.5 * eps / steps
    return eps, steps, check_positive(name, "step_size", step_size), bounds


def _check_inside(name: str, images: Any, bounds: Bounds) -> None:
    if bounds is not None and is_concrete(images) and np.size(images) and not values_between(images, *bounds):
        raise ValueError(
            f"{name}: images have values from {np.min(images):.4g} to {np.max(images):.4g}, outside of "
            f"bounds={tuple(bounds)}; pass the bounds of your images, or make data.normalize a layer of the model"
        )


def _direction(gradient: jax.Array, norm: float) -> jax.Array:
    """The step of length 1 that increases the loss most."""
    if norm == 2:
        return scale_to_unit_norm(at_least_float32(gradient), _example_axes(gradient)).astype(gradient.dtype)
    return jnp.sign(gradient)


def _project(change: jax.Array, eps: jax.Array, norm: float) -> jax.Array:
    """The change of length at most eps that is closest to `change`."""
    if norm == 2:
        wide = at_least_float32(change)
        length = l2_norm(wide, _example_axes(change))
        return (wide * (eps / jnp.maximum(length, eps))).astype(change.dtype)
    return jnp.clip(change, -eps, eps)


def _uniform_in_ball(key: jax.Array, images: jax.Array, eps: jax.Array, norm: float) -> jax.Array:
    """Changes (N, *spatial, C), uniformly distributed in the ball of radius eps."""
    if norm == 2:
        axes, count = _example_axes(images), math.prod(images.shape[1:])
        direction = jax.random.normal(child_key(key, "direction"), images.shape, jnp.float32)
        uniform = jax.random.uniform(child_key(key, "radius"), (len(images), *(1,) * len(axes)), jnp.float32)
        return (eps * uniform ** (1 / count) * scale_to_unit_norm(direction, axes)).astype(images.dtype)
    return jax.random.uniform(key, images.shape, jnp.float32, -eps, eps).astype(images.dtype)


def _example_axes(images: jax.Array) -> tuple[int, ...]:
    return tuple(range(1, images.ndim))


def _clip(images: jax.Array, bounds: Bounds) -> jax.Array:
    return images if bounds is None else jnp.clip(images, *bounds)
