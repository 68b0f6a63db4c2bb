"""The outputs of a model for a whole data set."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn._combine import AnyLayer
from jaxcnn._jit import jit
from jaxcnn._layer import Params, State, as_layer
from jaxcnn._loss import Batch
from jaxcnn.data import Dataset, Stream, source
from jaxcnn.data._source import check_not_source
from jaxcnn.train._batch import scale_bytes


def predict(
    model: AnyLayer,
    params: Params,
    state: State,
    data: Dataset | Batch | tuple[Any, Any] | Stream | Any,
    *,
    batch_size: int = 256,
) -> Any:
    """(N, *spatial, C) -> (N, ..): the outputs of the model for all images, in order.

    y = model.apply(params, state, x, train=False)[0]

    All batches have the same size, so the model is compiled once. As in `fit`, uint8 images are divided by 255.

    Args:
        model: a layer.
        params, state: of the model.
        data: images (N, *spatial, C), or data as for `evaluate`; labels and weights are ignored. One epoch of a stream
            is read, without the examples of weight 0 that fill its last batch.
        batch_size: images per batch; ignored for a stream.

    Returns:
        a NumPy array, or a tree of arrays if the model has several outputs.

    Raises:
        TypeError, ValueError: for data without images, no images, or a batch_size below 1.

    Example:
        >>> digits = jaxcnn.data.load("mnist_small", "test")
        >>> model = jaxcnn.models.lenet5()
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> logits = jaxcnn.train.predict(model, params, state, digits)
        >>> logits.shape, logits.argmax(-1).shape
        ((2000, 10), (2000,))
    """
    check_not_source("predict", data)
    if isinstance(data, dict) and "image" not in data:
        raise ValueError(f'predict(model, params, state, data): data must have an entry "image", got {[*data]}')
    if not isinstance(data, Dataset | Stream | tuple | dict):
        data = {"image": data}
    batches = source(data, batch_size, shuffle=False, name="predict")
    apply, outputs = _compiled(model), []
    for batch in itertools.islice(batches.batches(), batches.steps):
        output = jax.tree.map(np.asarray, apply(params, state, batch["image"]))
        if batches.arrays is None:
            rows = np.asarray(batch["weight"]) != 0
            output = jax.tree.map(lambda y, rows=rows: y[rows], output)
        outputs.append(output)
    count = None if batches.arrays is None else len(batches.arrays["image"])
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *outputs)


@functools.lru_cache(maxsize=16)
def _compiled(model: AnyLayer) -> Callable[[Params, State, Any], Any]:
    """The compiled model, cached: repeated calls do not compile again."""
    layer = as_layer(model)

    @jit
    def apply(params, state, image):
        return layer.apply(params, state, scale_bytes({"image": image})["image"], train=False)[0]

    return apply
