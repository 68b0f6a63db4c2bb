"""The exported program of a run: images in, probabilities of named classes out."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import Layer, data, export, jit
from jaxcnn.train import ConfigError

FILE = "model.stablehlo"


class Program(NamedTuple):
    """An image classifier.

    predict: uint8 images (N, height, width, channels) -> probabilities (N, classes). Compiles once per N.
    classes: the class names.
    size: (height, width) of the images.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    classes: list[str]
    size: tuple[int, int]
    channels: int

    def read(self, file: Any) -> np.ndarray:
        """The image in a file, resized and cropped as in training. Raises DataError if it is not readable."""
        return data.read_image(file, self.size, channels=self.channels)

    def top(self, probabilities: np.ndarray, count: int) -> list[dict[str, Any]]:
        """The most likely classes: [{"name": .., "probability": ..}, ..]."""
        order = np.argsort(-probabilities)[:count]
        return [{"name": self.classes[i], "probability": float(probabilities[i])} for i in order]


def save_program(
    folder: pathlib.Path, model: Layer, params: Any, state: Any, images: data.Dataset, *, onnx: bool = False
) -> None:
    """Write a classifier of uint8 images as `model.stablehlo`, for all platforms, and on request as `model.onnx`."""
    spec = jax.ShapeDtypeStruct((1, *images.images.shape[1:]), np.uint8)
    height, width = images.images.shape[1:3]
    options = {
        "classes": images.classes,
        "preprocessing": {"resize": "cover", "crop": "center", "size": [height, width]},
    }
    (folder / FILE).write_bytes(export(model, params, state, spec, **options).serialize())
    if onnx:
        program = export(model, params, state, spec, format="onnx", **options)
        (folder / "model.onnx").write_bytes(program.SerializeToString())


def load_program(run: str) -> Program:
    """Read the program of a run folder.

    Raises:
        ConfigError: if the folder has none, or the file is damaged.
    """
    file = pathlib.Path(run, FILE)
    if not run or not file.is_file():
        raise ConfigError(f"run={run} contains no {FILE}; give the folder of a run of experiments.image_folder")
    try:
        exported = jax.export.deserialize(bytearray(file.read_bytes()))
        classes = json.loads(exported.fun_name)["classes"]
        _, height, width, channels = exported.in_avals[0].shape
    except Exception as error:  # a damaged file raises many types of errors
        raise ConfigError(f"{file}: cannot be read as an exported classifier: {error}") from error
    probabilities = jit(lambda images: jax.nn.softmax(exported.call(images).astype(jnp.float32)))
    return Program(lambda images: np.asarray(probabilities(images)), classes, (height, width), channels)
