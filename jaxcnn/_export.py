"""Exports a trained model, including its weights, as a program that runs without this library."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_choice, has_spec, short_repr
from jaxcnn._array import spec_of
from jaxcnn._layer import Layer, Params, State, as_layer

PLATFORMS = ("cpu", "cuda", "tpu")
_KNOWN_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@overload
def export(
    model: Layer,
    params: Params,
    state: State,
    input_spec: Any,
    *,
    format: Literal["stablehlo"] = ...,
    classes: Iterable[str] = ...,
    preprocessing: Mapping[str, Any] | None = ...,
    platforms: Sequence[str] = ...,
) -> jax.export.Exported: ...


@overload
def export(
    model: Layer,
    params: Params,
    state: State,
    input_spec: Any,
    *,
    format: Literal["onnx"],
    classes: Iterable[str] = ...,
    preprocessing: Mapping[str, Any] | None = ...,
    platforms: Sequence[str] = ...,
) -> Any: ...  # onnx.ModelProto


def export(
    model: Layer,
    params: Params,
    state: State,
    input_spec: Any,
    *,
    format: Literal["stablehlo", "onnx"] = "stablehlo",
    classes: Iterable[str] = (),
    preprocessing: Mapping[str, Any] | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> Any:
    """Export a model in evaluation mode as a StableHLO program or an ONNX model x -> y for any batch size.

    y = model.apply(params, state, x, train=False)[0],  with params and state as constants

    A program for uint8 images divides them by 255 first, as `train.fit` does. Both formats read channels-last arrays,
    as the model does.

    "stablehlo": a `jax.export.Exported`. Its `serialize()` returns bytes, and `jax.export.deserialize` reads them on a
    machine that has jax. Both need the package flatbuffers (the extra `export`). See jax.export for compatibility
    guarantees.

    "onnx": an `onnx.ModelProto` of opset 18 with input "x" and output "y" ("y0", "y1", .. for several outputs), checked
    by `onnx.checker`. It needs the package onnx (the extra `onnx`). `onnx.save(model, path)` writes it;
    `model.SerializeToString()` returns its bytes. The weights of a convolution or dense layer include a batch norm that
    follows it. Results equal those of the model up to rounding. A model of 2 GB or more does not fit in one file: write
    it with `onnx.save(model, path, save_as_external_data=True)`.

    Args:
        model: a layer.
        params, state: the trained parameters and state.
        input_spec: an array or `jax.ShapeDtypeStruct` of the input. The size of its first dimension is ignored.
        format: "stablehlo" or "onnx".
        classes: class names, one per output: a list, an array or another iterable in the order of the outputs.
        preprocessing: how images become inputs, such as {"size": 224}: values that JSON can store. Classes and
            preprocessing are stored as a JSON object in the `fun_name` of StableHLO, and as JSON under their names in
            the `metadata_props` of ONNX.
        platforms: target platforms of StableHLO: "cpu", "cuda", "rocm", "tpu".

    Raises:
        TypeError: if `input_spec` has no shape and dtype, `classes` are not ordered names, `preprocessing` is not a
            dict that JSON can store, or `platforms` is not a list of names.
        ValueError: if the input has no batch dimension, the number of class names differs from that of outputs, or a
            platform is unknown or none is given; for ONNX if the model has an operation without a translation, such as
            a scatter.
        ImportError: for ONNX, without the package onnx.

    Example:
        >>> net = jaxcnn.serial(jaxcnn.conv(4), jax.nn.relu, jaxcnn.global_avg_pool, jaxcnn.dense(2))
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        >>> images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.uint8)
        >>> program = jaxcnn.export(net, params, state, images, classes=("cat", "dog"))
        >>> loaded = jax.export.deserialize(program.serialize())
        >>> loaded.call(jnp.full((5, 8, 8, 3), 255, jnp.uint8)).shape
        (5, 2)
        >>> import json
        >>> json.loads(loaded.fun_name)["classes"]
        ['cat', 'dog']
        >>> onnx_model = jaxcnn.export(net, params, state, images, format="onnx")
        >>> [node.op_type for node in onnx_model.graph.node]
        ['Cast', 'Mul', 'Transpose', 'Conv', 'Relu', 'GlobalAveragePool', 'Squeeze', 'Gemm']
    """
    model = as_layer(model)
    check_choice("export", "format", format, ("stablehlo", "onnx"))
    if not has_spec(input_spec):
        raise TypeError(f"export needs an input array or a jax.ShapeDtypeStruct, got {short_repr(input_spec)}")
    if not input_spec.shape:
        raise ValueError("export needs an input_spec with a batch dimension, got a scalar")
    (batch,) = jax.export.symbolic_shape("batch")
    x = spec_of(input_spec, batch)

    def evaluate(x):
        x = x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x
        return model.apply(params, state, x, train=False)[0]

    names = _class_names(classes)
    described = _json_preprocessing(preprocessing)
    targets = _platforms(platforms)
    if names:
        shapes = [output.shape for output in jax.tree.leaves(jax.eval_shape(evaluate, x))]
        if len(shapes) != 1 or shapes[0][-1:] != (len(names),):
            raise ValueError(f"export: {len(names)} class names for outputs of shapes {shapes}; give one per output")
    metadata = ({"classes": names} if names else {}) | described
    if format == "onnx":
        from jaxcnn._onnx import onnx_model  # here, because it takes a fifth of the time of `import jaxcnn`

        return onnx_model(evaluate, x, {name: json.dumps(value) for name, value in metadata.items()})
    program = jax.export.export(jax.jit(evaluate), platforms=targets)(x)
    return dataclasses.replace(program, fun_name=json.dumps(metadata)) if metadata else program


def _class_names(classes: Any) -> list[str]:
    """The class names as strings. A set is refused because its order changes from process to process."""
    if classes is None:
        return []
    if isinstance(classes, str | bytes | set | frozenset | Mapping) or not isinstance(classes, Iterable):
        raise TypeError(f"export: classes must be a list of names, one per output, got {short_repr(classes)}")
    return [str(name) for name in classes]


def _json_preprocessing(preprocessing: Any) -> dict[str, Any]:
    """The entry of the metadata, empty for None."""
    if preprocessing is None:
        return {}
    if not isinstance(preprocessing, Mapping):
        raise TypeError(f"export: preprocessing must be a dict or None, got {short_repr(preprocessing)}")
    values = dict(preprocessing)
    try:
        json.dumps(values)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"export: preprocessing must have values that JSON can store, got {short_repr(values)}: {error}; convert "
            "NumPy values by .item() or .tolist()"
        ) from error
    return {"preprocessing": values}


def _platforms(platforms: Any) -> tuple[str, ...]:
    known = ", ".join(map(repr, _KNOWN_PLATFORMS))
    if isinstance(platforms, str) or not isinstance(platforms, Iterable):
        raise TypeError(f"export: platforms must be a list of names ({known}), got {short_repr(platforms)}")
    platforms = tuple(platforms)
    if not platforms:
        raise ValueError(f"export: platforms must have at least one name ({known}), got none")
    for platform in platforms:
        if platform not in _KNOWN_PLATFORMS:
            raise ValueError(
                f"export: unknown platform {short_repr(platform)} in platforms; expected names among {known}; GPUs are "
                "'cuda' (NVIDIA) or 'rocm' (AMD)"
            )
    return platforms
