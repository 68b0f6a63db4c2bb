"""Test-time augmentation (TTA): the mean output over several views of each image."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._arguments import short_repr
from jaxcnn._combine import AnyLayer
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn.train._config import require_known

TTA: dict[str, tuple[tuple[float, int, bool], ...]] = {  # views: (weight, shift in pixels, whether it is flipped)
    "none": ((1, 0, False),),
    "flip": ((1 / 2, 0, False), (1 / 2, 0, True)),
    "flip_and_shift": (
        *((1 / 4, 0, False), (1 / 4, 0, True)),
        *((1 / 8, -1, False), (1 / 8, 1, False), (1 / 8, -1, True), (1 / 8, 1, True)),
    ),
}


@constructor
def with_tta(model: AnyLayer, name: str) -> Layer:
    """The model with test-time augmentation: in evaluation, its output is the weighted mean over views of each image.

    In training, it equals the model. Outputs that are maps, (N, H', W', K) or (N, H, W), are flipped back before the
    mean.

    Args:
        model: a model of images (N, H, W, C).
        name: "none"; "flip", the mean over the image and its horizontal flip; "flip_and_shift", these two with weight
            1/4 each, and both shifted by one pixel along the diagonal in either direction with weight 1/8 each.

    Raises:
        ConfigError: for an unknown name.
        ValueError: for other inputs than images, or "flip_and_shift" of a model whose output is a map.

    Example:
        >>> model = jaxcnn.train.with_tta(jaxcnn.flatten, "flip")
        >>> model.apply({}, {}, jnp.array([1.0, 3.0]).reshape(1, 1, 2, 1), train=False)[0].tolist()
        [[2.0, 2.0]]

    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024.
    """
    require_known("tta", name, TTA)
    model = as_layer(model)

    def apply(params, state, x, *, train, key=None):
        if train:
            return model.apply(params, state, x, train=True, key=key)
        if name != "none" and x.ndim != 4:
            raise ValueError(f'tta {name!r} needs images (N, H, W, C), got {short_repr(x)}; use "none"')
        total: Any = 0
        for weight, shift, flipped in TTA[name]:
            view = _flip(_shift(x, shift)) if flipped else _shift(x, shift)
            y, _ = model.apply(params, state, view, train=False, key=key)
            if jnp.ndim(y) == 4 or jnp.shape(y) == x.shape[:3]:  # a map, in the positions of the view
                if shift:
                    raise ValueError(
                        f'tta {name!r} needs an output per image, but the model gives {short_repr(y)}; use "flip"'
                    )
                y = _flip(y) if flipped else y
            total += weight * y
        return total, state

    return Layer(model.init, apply)


def _flip(x: jax.Array) -> jax.Array:
    return x[:, :, ::-1]


def _shift(x: jax.Array, pixels: int) -> jax.Array:
    """Shift images by -1, 0 or 1 pixels in height and width, with reflect padding."""
    if not pixels:
        return x
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    return padded[:, 1 - pixels :, 1 - pixels :][:, : x.shape[1], : x.shape[2]]
