"""Batches as the model gets them: images scaled, rows split over the devices."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._loss import Batch
from jaxcnn.train._devices import batch_sharding


def evaluation_batch(batch: Batch) -> Batch:
    """The batch with scaled images, split over the devices if its size is a multiple of their number."""
    if len(batch["image"]) % jax.device_count() == 0:
        batch = lax.with_sharding_constraint(batch, batch_sharding())
    return scale_bytes(batch)


def scale_bytes(batch: Batch) -> Batch:
    """The batch with uint8 images divided by 255; other images are unchanged."""
    image = batch.get("image")
    if image is None or image.dtype != jnp.uint8:
        return batch
    return batch | {"image": image.astype(jnp.float32) / 255}
