"""What an augmentation is: its types, and the composition of several for batches of images and label maps."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import is_function, short_repr
from jaxcnn._array import as_floating, at_least_float32
from jaxcnn._loss import is_label_map
from jaxcnn._validate import check_wide_integers


class When(NamedTuple):
    """index: position of the example in its data set; epoch: the number of completed epochs; both scalars."""

    index: jax.Array | int = 0  # type: ignore[assignment]  # tuple.index is not needed here
    epoch: jax.Array | int = 0


Augment = Callable[[jax.Array, jax.Array, When], jax.Array]


@dataclasses.dataclass(frozen=True)
class Geometric:
    """An augmentation that moves pixels, and therefore label maps as well.

    on_image: (key, image (*spatial, C), when) -> image.
    on_label: (key, label (*spatial, K), when, fill (K,) or None) -> label: the same movement by the same random draws,
        to the nearest position, with `fill` outside of the map.

    Example:
        >>> def upside_down(key, x, when, fill=None):
        ...     return x[::-1]
        >>> turn = jaxcnn.data.augment.Geometric(upside_down, upside_down)
        >>> turn(jax.random.key(0), jnp.array([[[1.0]], [[2.0]]]), jaxcnn.data.augment.When()).ravel().tolist()
        [2.0, 1.0]
    """

    on_image: Augment
    on_label: Callable[[jax.Array, jax.Array, When, jax.Array | None], jax.Array]

    def __call__(self, key: jax.Array, image: jax.Array, when: When) -> jax.Array:
        return self.on_image(key, image, when)


def compose(
    *augments: Augment, augment_labels: bool = True, label_fill: float | Sequence[float] | None = None
) -> Callable[..., Any]:
    """(key, images (N, *spatial, C), when=When()) -> images: chain augmentations, with one key per image.

    Instead of images, it also takes a batch, a dict with "image". Augmentations that move pixels then also move a
    "label" that is a map, (N, *spatial) or (N, *spatial, K). All other entries do not change.

    Args:
        augments: augmentations, applied in this order. The fields of `when` are arrays (N,) or scalars.
        augment_labels: False leaves label maps unchanged.
        label_fill: the label of positions outside of the map, such as the `ignore_label` of the loss; or K numbers.

    Raises:
        TypeError: for an augmentation that is not a function.
        ValueError: if a label map must be moved, but its size differs from that of the image, or `label_fill` is
            missing; if the numbers of images and label maps differ.

    Example:
        >>> change = jaxcnn.data.augment.compose(jaxcnn.data.augment.flip(), jaxcnn.data.augment.random_crop(2))
        >>> change(jax.random.key(0), jnp.zeros((4, 8, 8, 3))).shape
        (4, 8, 8, 3)
    """
    for augment in augments:
        if not is_function(augment):
            raise TypeError(
                f"compose needs augmentations, such as flip(), one per argument, got {short_repr(augment)}; "
                "pass a list as *list"
            )

    def augment_example(key, image, label, when):
        for i, augment in enumerate(augments):
            child = jax.random.fold_in(key, i)
            if label is not None and isinstance(augment, Geometric):
                fill = None if label_fill is None else _fill(label_fill, label)
                label = augment.on_label(child, label, when, fill)
            image = augment(child, image, when)
        return image, label

    def augment_batch(key, images, when=When()):
        if not augments:
            return images
        batch = images if isinstance(images, dict) else {"image": images}
        if not hasattr(batch.get("image"), "shape"):
            raise TypeError(f'compose needs images or a batch {{"image": .., "label": ..}}, got {short_repr(images)}')
        image, label = batch["image"], batch.get("label")
        planes = None
        moves = augment_labels and any(isinstance(augment, Geometric) for augment in augments)
        if label is not None and moves and _is_map(label, image):
            planes = label[..., None] if label.ndim < image.ndim else label
            if len(planes) != len(image):
                raise ValueError(f"compose needs one label map per image, got {len(image)} images, {len(planes)} maps")
            check_wide_integers("compose: label", planes)
        when = When(*(jnp.broadcast_to(field, len(image)) for field in when))
        image, planes = jax.vmap(augment_example)(jax.random.split(key, len(image)), image, planes, when)
        if not isinstance(images, dict):
            return image
        return batch | {"image": image} | ({} if planes is None else {"label": planes.reshape(batch["label"].shape)})

    return augment_batch


def _is_map(label: Any, image: jax.Array) -> bool:
    """Whether labels have one entry per position of the images.

    Raises:
        ValueError: for labels that look like maps of another size.
    """
    shape = np.shape(label)
    if image.ndim > 2 and is_label_map(label, image):
        return True
    if len(shape) >= 3:
        raise ValueError(
            f"labels of shape {shape} do not have the size of images {image.shape}, so an augmentation that moves "
            "pixels cannot move them: make the sizes equal, or set augment_labels to False, which leaves them unchanged"
        )
    return False


def _fill(label_fill: float | Sequence[float], label: jax.Array) -> jax.Array:
    """The fill value of each of the K channels of a label map, in its dtype."""
    values = np.asarray(label_fill)
    if values.ndim > 1 or values.size not in (1, label.shape[-1]):
        raise ValueError(
            f"label_fill must be a number, or {label.shape[-1]} numbers, one per channel; got {label_fill}"
        )
    fill = np.broadcast_to(values, label.shape[-1:]).astype(label.dtype)
    if jnp.issubdtype(label.dtype, jnp.floating) or (fill == values).all():
        return jnp.asarray(fill)
    raise ValueError(f"label_fill {label_fill} does not fit labels of dtype {label.dtype}")


def check_spatial(name: str, image: Any, ranks: Sequence[int]) -> tuple[int, ...]:
    """The spatial shape of an image (*spatial, C), after checking the number of spatial dimensions."""
    kinds = {1: "a signal (T, C)", 2: "an image (H, W, C)", 3: "a volume (D, H, W, C)"}
    if image.ndim - 1 not in ranks:
        expected = " or ".join(kinds[rank] for rank in ranks)
        raise ValueError(f"{name} needs {expected}, got {short_repr(image)}; write your own function for other data")
    return image.shape[:-1]


def in_float32(augment: Augment) -> Augment:
    """Wrap an augmentation of float32 images from 0 to 1, so that it accepts uint8 and low-precision images."""

    def converted(key, image, when):
        if image.dtype != jnp.uint8:
            return augment(key, at_least_float32(as_floating(image, "an augmentation")), when).astype(image.dtype)
        y = augment(key, image.astype(jnp.float32) / 255, when)
        return jnp.clip(jnp.round(y * 255), 0, 255).astype(jnp.uint8)

    return converted


def uniform(key: jax.Array, low: float, high: float, shape: tuple[int, ...] = ()) -> jax.Array:
    """Draw float32, so that the values do not depend on jax_enable_x64."""
    return jax.random.uniform(key, shape, jnp.float32, low, high)
