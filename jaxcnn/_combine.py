"""Combinators: build a layer from layers.

Each child has a name. It is the key of the child's parameters and state, it determines the child's random key, and
errors include it. Input shapes come from abstract evaluation of the preceding children, so no layer has to compute its
output shape.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_integer, check_train, has_spec, is_function, short_repr
from jaxcnn._array import as_array, check_array, readable, spec_of
from jaxcnn._dense import identity
from jaxcnn._initial import shapes_only
from jaxcnn._key import check_key, child_key
from jaxcnn._layer import (
    Layer,
    Params,
    State,
    as_layer,
    check_returned,
    checked_init,
    checked_result,
    constructor,
    in_layer,
)
from jaxcnn._lowering import stored, stored_gradient
from jaxcnn._path import expected_one_of
from jaxcnn._probe import SLOT
from jaxcnn._sampling import SAMPLING, requested
from jaxcnn._stack import check_stacked, stacked_init

AnyLayer = Layer | Callable[[Any], Any]


@constructor
def serial(*layers: AnyLayer, **named: AnyLayer) -> Layer:
    """x -> y: applies the layers in sequence.

    y = f_n(.. f_2(f_1(x)))

    Args:
        layers: layers or plain functions, named "0", "1", ... in parameter paths.
        named: further layers with their names.

    Params, State:
        {name: those of the layer}; layers without any are omitted.

    Raises:
        TypeError: for an argument that is neither a layer nor a function.
        ValueError: for a name that is empty, contains a slash or is that of an unnamed layer, or parameters of another
            network.

    Example:
        >>> net = jaxcnn.serial(conv=jaxcnn.conv(8), act=jax.nn.relu, flat=jaxcnn.flatten, head=jaxcnn.dense(10))
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
        >>> jaxcnn.paths(params)
        ['conv/bias', 'conv/kernel', 'head/bias', 'head/kernel']
    """
    return compose(_named(layers, named), None, chained=True)


@constructor
def parallel(combine: Callable[..., Any], *layers: AnyLayer, **named: AnyLayer) -> Layer:
    """x -> y: applies all layers to the same input and combines their outputs.

    y = combine(f_1(x), .., f_n(x))

    Args:
        combine: a function that takes one output per layer, such as `operator.add`.
        layers, named: as in `serial`.

    Params, State:
        {name: those of the layer}; layers without any are omitted.

    Raises:
        TypeError, ValueError: as in `serial`.

    Example:
        >>> import operator
        >>> both = jaxcnn.parallel(operator.mul, jnp.sin, jnp.cos)
        >>> both.apply({}, {}, jnp.array([0.0]), train=False)[0]
        Array([0.], dtype=float32)
    """
    if not is_function(combine):
        raise TypeError(
            f"parallel: the first argument must be a function that combines the outputs, got {short_repr(combine)}"
        )
    return compose(_named(layers, named), combine)


@constructor
def concatenate(*layers: AnyLayer, **named: AnyLayer) -> Layer:
    """x -> y: applies all layers to the same input and concatenates the channels of their outputs.

    y = [f_1(x), .., f_n(x)] along the last dimension

    Args:
        layers, named: as in `serial`.

    Params, State:
        {name: those of the layer}; layers without any are omitted.

    Raises:
        TypeError: as in `serial`.
        ValueError: as in `serial`, or if the shapes of the outputs differ in another dimension than the last.

    Example:
        >>> jaxcnn.concatenate(jnp.negative, jnp.abs).apply({}, {}, jnp.array([[3.0]]), train=False)[0]
        Array([[-3.,  3.]], dtype=float32)

    Source: Szegedy et al., "Going deeper with convolutions", 2015.
    """

    def concatenate_channels(*ys):
        for y in ys:
            check_returned(y, "concatenate")
        if len({y.shape[:-1] for y in ys}) > 1:
            raise ValueError(
                f"concatenate: the outputs may differ only in the last dimension, got shapes {[y.shape for y in ys]}"
            )
        return jnp.concatenate(ys, axis=-1)

    return parallel(concatenate_channels, *layers, **named)


@constructor
def residual(layer: AnyLayer, shortcut: AnyLayer = identity) -> Layer:
    """x -> y: adds the layer's output to its input (skip connection).

    y = layer(x) + shortcut(x)

    Args:
        layer: the residual branch.
        shortcut: the skip connection; a 1x1 convolution where the layer changes the shape.

    Params, State:
        {"layer": .., "shortcut": ..}; the one without any is omitted.

    Raises:
        TypeError: as in `serial`.
        ValueError: if the two shapes differ.

    Example:
        >>> jaxcnn.residual(jnp.sin).apply({}, {}, jnp.zeros((1, 2)), train=False)[0]
        Array([[0., 0.]], dtype=float32)

    Source: He et al., "Deep residual learning for image recognition", 2016.
    """

    def add(y, x):
        check_returned(y, "residual")
        check_returned(x, "residual")
        if y.shape != x.shape:
            raise ValueError(
                f"residual: the layer's output {y.shape} and the shortcut's {x.shape} differ in shape; pass a shortcut "
                f"whose output has the layer's shape, such as conv({y.shape[-1]}, 1, stride=..)"
            )
        return y + x

    return parallel(add, layer=layer, shortcut=shortcut)


@constructor
def repeat(layer: AnyLayer, n: int) -> Layer:
    """x -> y of the same shape: applies the layer n times, with separate parameters.

    y = f_n(.. f_1(x))

    This is one `lax.scan`, so the layer is compiled once for any n.

    Args:
        layer: a layer that keeps shape and dtype.
        n: number of repetitions.

    Params, State:
        those of the layer, each leaf with a leading dimension n. Kernel transforms and penalties treat the n kernels
        separately.

    Raises:
        TypeError: if `layer` is neither a layer nor a function, or n is not an int.
        ValueError: if the layer changes the shape or dtype, or n is below 1.

    Example:
        >>> params, state = jaxcnn.repeat(jaxcnn.dense(4), 3).init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> params["kernel"].shape
        (3, 4, 4)
    """
    layer = as_layer(layer)
    n = check_integer("repeat", "n", n)

    def apply(params, state, x, *, train, key=None):
        check_array(x, "repeat")
        check_stacked("repeat", params, n)

        def step(x, inputs):
            i, params, state = inputs
            key_i = None if key is None else jax.random.fold_in(key, i)
            y, state = checked_result(layer.apply(params, state, x, train=train, key=key_i))
            check_returned(y, "repeat")
            if (y.shape, y.dtype) != (x.shape, x.dtype):
                raise ValueError(
                    f"repeat: the layer must keep shape and dtype, but maps {x.dtype} {x.shape} to {y.dtype} {y.shape}"
                )
            return y, state

        y, state = lax.scan(step, as_array(x), (jnp.arange(n), params, state))
        if SLOT in state:
            state = state | {SLOT: state[SLOT].times(n)}
        return y, state

    return Layer(stacked_init(layer, n), apply)


def _named(layers: tuple, named: dict[str, Any]) -> dict[str, Layer]:
    children = {str(i): layer for i, layer in enumerate(layers)}
    for name in named:
        if name in children:
            raise ValueError(f"invalid layer name {name!r}: it is already used by a layer without a name")
        if not name or "/" in name:
            raise ValueError(f"invalid layer name {name!r}: it must not be empty or contain a slash")
    result = {}
    for name, layer in (children | named).items():
        with in_layer(name):
            result[name] = as_layer(layer)
    return result


class Composition(NamedTuple):
    """The arguments of `compose`."""

    layers: dict[str, Layer]
    combine: Callable[..., Any] | None
    chained: bool


def compose(layers: dict[str, Layer], combine: Callable | None, *, chained: bool = False) -> Layer:
    """x -> combine(*outputs): applies the layers to the same input, or if `chained`, each to the previous output.

    Without `combine`, the output is that of the last layer.
    """
    composition = Composition(layers, combine, chained)

    def init(key, x):
        _check_arrays(x)
        with _found_inputs() as found:
            return _init_layers(composition, key, _inputs(composition, check_key(key), spec_of(x), found))

    def apply(params, state, x, *, train, key=None):
        check_train(train)
        _expect(params, layers, "params")
        _expect(state, layers, "state")
        probe = state.get(SLOT)
        x = jax.tree.map(readable, x)
        if not chained and len(layers) > 1:
            # XLA would compute the input, or the sum of its gradients, again for each layer. In training, only the
            # gradient is stored: storing the input, too, costs memory and saves little time.
            x = jax.tree.map(stored_gradient if train else stored, x)
        outputs, new_state, y = [], {}, x
        for name, layer in layers.items():
            child_params, child_state = params.get(name, {}), state.get(name, {}) | requested(state)
            if probe is not None:
                child_state = child_state | {SLOT: probe.enter(name)}
            with in_layer(name):
                subkey = None if key is None else child_key(key, name)
                result = layer.apply(child_params, child_state, x, train=train, key=subkey)
                y, new_state[name] = checked_result(result)
            if probe is not None:
                y, new_state[name], probe = probe.leave(name, child_params, new_state[name], x, y)
            if chained:
                x = y
            if combine is not None:
                outputs.append(y)
        y = y if combine is None else combine(*outputs)
        return y, _prune(new_state) | ({} if probe is None else {SLOT: probe})

    composed = Layer(init, apply)
    composed._composition = composition
    return composed


def _check_arrays(x: Any) -> None:
    if not all(map(has_spec, jax.tree.leaves(x))):
        is_shape = isinstance(x, tuple) and all(isinstance(size, int) for size in x)
        hint = f"; for this shape, pass jax.ShapeDtypeStruct({x}, jnp.float32)" if is_shape else ""
        raise TypeError(f"init needs an array or a jax.ShapeDtypeStruct, got {short_repr(x)}{hint}")


# During the outermost `init`: the inputs of the layers of compositions, by the id of the composition and its own input.
# A transform calls the `init` of its layer to trace shapes, and again for values. The composition is kept with its id.
_Found = dict[Any, tuple[Composition, dict[str, Any]]]
_FOUND: contextvars.ContextVar[_Found | None] = contextvars.ContextVar("found", default=None)


@contextlib.contextmanager
def _found_inputs() -> Iterator[_Found]:
    found = _FOUND.get()
    if found is not None:
        yield found
        return
    token = _FOUND.set(found := {})
    try:
        yield found
    finally:
        _FOUND.reset(token)


def _inputs(composition: Composition, key: jax.Array, spec: Any, found: _Found) -> dict[str, Any]:
    """The shape of the input of each layer; for a layer that is a composition, those of its layers.

    A single trace of the whole network takes less time than one for each layer.
    """
    leaves, structure = jax.tree.flatten(spec)
    at = (id(composition), structure, *leaves)
    if at not in found:
        with shapes_only(key):
            trace = lambda traced_key, x: _output_and_inputs(composition, traced_key, key, x)[1]
            found[at] = composition, jax.eval_shape(trace, key, spec)
    return found[at][1]


def _output_and_inputs(
    composition: Composition, traced_key: jax.Array, key: jax.Array, x: Any
) -> tuple[Any, dict[str, Any]]:
    """The output, and the inputs as in `_inputs`. Neither depends on the value of the keys."""
    inputs, outputs, y = {}, [], x
    for name, layer in composition.layers.items():
        with in_layer(name):
            if layer._composition:
                y, inputs[name] = _output_and_inputs(layer._composition, traced_key, key, x)
            else:
                params, state = _any_values(layer, traced_key, key, x)
                y, inputs[name] = checked_result(layer.apply(params, state, x, train=False))[0], x
        outputs.append(y)
        if composition.chained:
            x = y
    return y if composition.combine is None else composition.combine(*outputs), inputs


def _any_values(layer: Layer, traced_key: jax.Array, key: jax.Array, x: Any) -> tuple[Params, State]:
    """Params and state for their shapes: traced, or concrete if `init` uses random numbers in NumPy or conditions."""
    try:
        return checked_init(layer.init(traced_key, spec_of(x)))
    except jax.errors.JAXTypeError:
        with jax.ensure_compile_time_eval():
            return checked_init(layer.init(key, spec_of(x)))


def _init_layers(composition: Composition, key: jax.Array, inputs: dict[str, Any]) -> tuple[Params, State]:
    params, state = {}, {}
    for name, layer in composition.layers.items():
        with in_layer(name):
            init = functools.partial(_init_layers, layer._composition) if layer._composition else layer.init
            params[name], state[name] = init(child_key(key, name), inputs[name])
    return _prune(params), _prune(state)


def _prune(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: child for name, child in tree.items() if not (isinstance(child, dict) and not child)}


def _expect(tree: Any, layers: dict[str, Layer], kind: str) -> None:
    """Raise an error for parameters or state of another network."""
    if not isinstance(tree, dict):
        raise TypeError(f"{kind} must be the dict that init returned, got {short_repr(tree)}")
    for name in tree:
        if name not in layers and name not in (SLOT, SAMPLING):
            raise ValueError(
                f"{kind} has an entry {name!r}, but the model has no such layer; {expected_one_of(name, layers)}"
            )
