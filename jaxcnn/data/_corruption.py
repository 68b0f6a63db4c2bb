"""What a corruption is: an augmentation with a table of parameters, which follow from its severity and the image."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_integer
from jaxcnn.data._augmentation import Augment, check_spatial, in_float32

SMALLEST = 8  # pixels of a side
LARGE = 85  # pixels: the shorter side from which on images are large; the geometric mean of 32 and 224
Table = Sequence[float | tuple[float, ...]]


def at_severity(
    severity: int,
    name: str,
    corrupted: Callable[..., jax.Array],
    small: Table,
    large: Table,
    powers: Sequence[int] = (),
) -> Augment:
    """The augmentation `corrupted(key, image, *parameters)`, clipped to [0, 1].

    Args:
        severity: from 1 to 5.
        name: of the corruption, for error messages.
        corrupted: a function of a floating-point image from 0 to 1 and of the parameters of a severity.
        small: the parameters of the severities for small images. Lengths are in pixels.
        large: the same for large images, if their shorter side has 224 pixels.
        powers: for each parameter, the power of the side to which it is proportional in large images; 0 if missing.
    """
    if (level := check_integer(name, "severity", severity)) > 5:
        raise ValueError(f"{name}: severity must be from 1 to 5, got {severity}")

    def augment(key: jax.Array, image: Any, when: Any) -> jax.Array:
        side = min(check_spatial(name, image, (2,)))
        if side < SMALLEST or image.shape[-1] not in (1, 3):
            raise ValueError(
                f"{name} needs images (H, W, C) of at least {SMALLEST} x {SMALLEST} pixels with 1 or 3 channels, "
                f"got {image.shape}"
            )
        row = (small if side < LARGE else large)[level - 1]
        parameters = list(row) if isinstance(row, tuple) else [row]
        if side >= LARGE:
            for i, power in enumerate(powers):
                parameters[i] *= (side / 224) ** power
        return jnp.clip(corrupted(key, image, *parameters), 0, 1)

    return in_float32(augment)
