"""The pair: a layer is two pure functions.

`init` creates the arrays of a layer from a key and an input, or the input's shape. `apply` computes the output.
All arrays are arguments or results, so every JAX transformation works on them.
"""

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar, cast

import jax

from jaxcnn._arguments import accepts, check_bool, has_spec, is_function, short_repr
from jaxcnn._array import check_array, readable
from jaxcnn._recompute import keeping_input
from jaxcnn._repr import Call

Params = dict[str, Any]
State = dict[str, Any]
Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array, as in jax.nn.initializers


class InitFn(Protocol):
    """`(key, x) -> (params, state)`; `x` is an array or a `jax.ShapeDtypeStruct`; only its shape and dtype are used."""

    def __call__(self, key: jax.Array, x: Any, /) -> tuple[Params, State]: ...


class ApplyFn(Protocol):
    """`(params, state, x, *, train, key=None) -> (y, state)`.

    `train` is a Python bool without a default. `train=False` returns `state` unchanged and ignores `key`.
    `train=True` draws all random numbers from `key`.
    """

    def __call__(
        self, params: Params, state: State, x: Any, /, *, train: bool, key: jax.Array | None = None
    ) -> tuple[Any, State]: ...


class _Pair(NamedTuple):
    init: InitFn
    apply: ApplyFn


class Layer(_Pair):
    """A layer, a block or a whole network: a pair of pure functions.

    `params` is a nested dict of float32 arrays, all differentiable, with leaves named `kernel`, `bias` and `scale`.
    `state` is a second nested dict that the optimizer does not update, with leaves such as `mean` and `var`. Both omit
    empty dicts.

    To write a layer, define the two functions:

        >>> def scaled(factor):
        ...     def init(key, x):
        ...         return {"scale": jnp.full(x.shape[-1], factor, jnp.float32)}, {}
        ...     def apply(params, state, x, *, train, key=None):
        ...         return x * params["scale"], state
        ...     return jaxcnn.Layer(init, apply)
        >>> layer = scaled(2.0)
        >>> params, state = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 3), jnp.float32))
        >>> layer.apply(params, state, jnp.ones((1, 3)), train=False)[0]
        Array([[2., 2., 2.]], dtype=float32)

    A layer prints as the call that created it:

        >>> jaxcnn.serial(conv=jaxcnn.conv(8, bias=False), act=jax.nn.relu)
        serial(conv=conv(8, bias=False), act=relu)
    """

    _call: Call | None = None
    _composition: Any = None  # of a layer made of layers, see `_combine.compose`

    def __repr__(self) -> str:
        return _call_of(self).pretty()

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a Layer is not a function: use y, state = layer.apply(params, state, x, train=False)")


Constructor = TypeVar("Constructor", bound=Callable[..., Layer])
_SYNONYMS = {  # arguments in PyTorch, Keras and Flax -> here
    "kernel_size": "size",
    "pool_size": "size",
    "window_shape": "size",
    "out_channels": "features",
    "out_features": "features",
    "filters": "features",
    "units": "features",
    "strides": "stride",
    "dilation_rate": "dilation",
    "kernel_dilation": "dilation",
    "num_groups": "groups",
    "feature_group_count": "groups",
    "use_bias": "bias",
    "kernel_initializer": "kernel_init",
    "bias_initializer": "bias_init",
    "momentum": "decay",
    "epsilon": "eps",
    "p": "rate",
    "num_classes": "classes",
    "norm_layer": "norm",
    "drop_rate": "dropout",
    "drop_path_rate": "drop_path",
    "stochastic_depth_prob": "drop_path",
}


def constructor(fn: Constructor) -> Constructor:
    """Decorator: layers returned by `fn` print as the call that created them, without arguments at their defaults.

    Unknown keyword arguments and too many positional ones raise a TypeError that names the known ones. So do anything
    but a bool for an option whose default is a bool, and anything but a function for the option `norm`, unless its
    default is None and it is None. Python's errors for a wrong call of `apply` begin with the name of the constructor.
    """
    parameters = inspect.signature(fn).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    switches = [name for name, p in parameters.items() if isinstance(p.default, bool) and p.kind is p.KEYWORD_ONLY]

    @functools.wraps(fn)
    def make(*args, **kwargs):
        name = make.__name__
        _check_call(name, parameters, args, kwargs)
        if "norm" in parameters and "norm" in kwargs:
            _check_norm(name, kwargs["norm"], optional=parameters["norm"].default is None)
        kwargs |= {key: check_bool(name, key, kwargs[key]) for key in switches if key in kwargs}
        layer = fn(*args, **kwargs)
        if any(layer is argument for argument in (*args, *kwargs.values())):
            return layer
        for part, function in layer._asdict().items():
            if isinstance(function, types.FunctionType):
                function.__qualname__ = f"{name}.{part}"
        named = Layer(*layer)
        vars(named).update(vars(layer), _call=_call(name, args, kwargs, defaults))
        return named

    return cast(Constructor, make)


def _check_call(name: str, parameters: Mapping[str, inspect.Parameter], args: tuple, kwargs: dict[str, Any]) -> None:
    """Raise TypeError for an unknown keyword argument, or too many positional ones."""
    kinds = {p.kind for p in parameters.values()}
    unknown = next((key for key in kwargs if key not in parameters), None)
    if unknown is not None and inspect.Parameter.VAR_KEYWORD not in kinds:
        known = ", ".join(key for key, p in parameters.items() if p.kind is not p.VAR_POSITIONAL)
        similar = _SYNONYMS.get(unknown)
        hint = f"; did you mean {similar!r}?" if similar in parameters else ""
        if unknown == "momentum" and hint:
            hint += " PyTorch's momentum is 1 - decay"
        raise TypeError(f"{name}() has no argument {unknown!r}; its arguments are: {known}{hint}")
    positional = [key for key, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(args) > len(positional) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        hint = ". The sizes of the input, such as its channels, are not arguments" if "features" in parameters else ""
        raise TypeError(
            f"{name}() takes ({', '.join(positional)}) by position, got {short_repr(args)}; pass options by name{hint}"
        )


def _check_norm(name: str, norm: Any, *, optional: bool) -> None:
    """Raise TypeError unless the argument `norm` is a function, or None if it is optional."""
    if not is_function(norm) and not (norm is None and optional):
        raise TypeError(
            f"{name}: norm must be a function that makes a layer, such as batch_norm or "
            f"functools.partial(batch_norm, eps=1e-3), got {short_repr(norm)}"
        )


def _call(name: str, args: tuple, kwargs: dict[str, Any], defaults: dict[str, Any]) -> Call:
    def differs(key, value):
        plain = isinstance(value, str | int | float)
        return key not in defaults or not (value is defaults[key] or (plain and value == defaults[key]))

    keywords = ((f"{key}=", _argument(value)) for key, value in kwargs.items() if differs(key, value))
    return Call(name, (*(("", _argument(value)) for value in args), *keywords))


def _argument(value: Any) -> Call | str:
    """The text of an argument: the call for a layer, the name for a function or class."""
    if isinstance(value, Layer):
        return _call_of(value)
    if isinstance(value, functools.partial):
        return _call("partial", (value.func, *value.args), value.keywords, {})
    return _name(value) if callable(value) else short_repr(value)


def _call_of(layer: Layer) -> Call:
    return layer._call or Call("Layer", (("init=", _name(layer.init)), ("apply=", _name(layer.apply))))


def _name(fn: Any) -> str:
    name = getattr(fn, "__qualname__", None) or getattr(fn, "__name__", None) or type(fn).__qualname__
    return name.replace("<locals>.", "")


@constructor
def stateless(init: Callable[[jax.Array, Any], Params], fn: Callable[[Params, Any], Any]) -> Layer:
    """A layer with parameters, but without state or randomness.

    Args:
        init: `(key, x) -> params`.
        fn: `(params, x) -> y`.

    Example:
        >>> shift = jaxcnn.stateless(lambda key, x: {"bias": jnp.ones(2)}, lambda params, x: x + params["bias"])
        >>> params, state = shift.init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> shift.apply(params, state, jnp.zeros((1, 2)), train=True)[0]
        Array([[1., 1.]], dtype=float32)
    """

    def apply(params, state, x, *, train, key=None):
        return fn(params, x), state

    return Layer(lambda key, x: (init(key, x), {}), apply)


def as_layer(layer: Layer | Callable[[Any], Any]) -> Layer:
    """Turn a function `x -> y` into a layer without parameters; return a Layer unchanged.

    Raises:
        TypeError: for anything else, or for a layer constructor that was not called, such as `jaxcnn.conv`.

    Example:
        >>> jaxcnn.as_layer(jax.nn.relu).apply({}, {}, jnp.array([-1.0, 2.0]), train=False)
        (Array([0., 2.], dtype=float32), {})
    """
    if isinstance(layer, Layer):
        return layer
    if not is_function(layer):
        hint = "; unpack it: serial(*layers)" if isinstance(layer, list | tuple) else ""
        if isinstance(layer, str):
            hint = ", which is a str; activation functions are in jax.nn, such as jax.nn.relu"
        raise TypeError(f"expected a Layer or a function x -> y, got {short_repr(layer)}{hint}")
    name = getattr(layer, "__name__", repr(layer))
    uncalled = f"{name} creates layers and is not a function x -> y: call it, as in {name}(...)"
    if getattr(layer, "__annotations__", {}).get("return") is Layer:
        raise TypeError(uncalled)
    if not accepts(layer, None):
        raise TypeError(f"expected a Layer or a function x -> y, got {name}, which cannot be called with x alone")

    def checked(x):
        y = layer(jax.tree.map(readable, x))
        if isinstance(y, Layer):
            raise TypeError(uncalled)
        return y

    fn = keeping_input(checked)
    result = stateless(lambda key, x: {}, lambda params, x: fn(x))
    result._call = _call("as_layer", (layer,), {}, {})
    return result


def from_input_shape(build: Callable[[Any], Layer], name: str = "") -> Layer:
    """The layer `build(input shape)`, for options that depend on the input. For a dict, build({key: shape}).

    `name` is that of a layer whose input must be an array, for errors.
    """

    @functools.lru_cache
    def built(structure, *shapes):
        return build(jax.tree.unflatten(structure, shapes))

    def layer_for(x):
        if name:
            check_array(x, name)
        leaves, structure = jax.tree.flatten(x)
        return built(structure, *(leaf.shape for leaf in leaves))

    def apply(params, state, x, *, train, key=None):
        return layer_for(x).apply(params, state, x, train=train, key=key)

    return Layer(lambda key, x: layer_for(x).init(key, x), apply)


def check_initializers(layer: str, **initializers: Any) -> None:
    """Raise TypeError if an initializer is not a function: without this check, the error would come from init."""
    for name, initializer in initializers.items():
        if not is_function(initializer):
            raise TypeError(
                f"{layer}: {name} must be a function (key, shape, dtype) -> array, such as "
                f"jax.nn.initializers.he_normal(), got {short_repr(initializer)}"
            )


def _missing(x: Any) -> str:
    """What may be wrong with the dimensions of an input whose channels do not fit."""
    if len(x.shape) == 4 and x.shape[1] in (1, 3):
        return "it (N, C, H, W), so that it needs x.transpose(0, 2, 3, 1)"
    return "the dimension of the batch (x[None]) or of the channels (x[..., None]) missing"


def get_param(layer: str, tree: dict[str, Any], name: str, shape: tuple[int, ...], x: Any) -> jax.Array:
    """Return `tree[name]` after checking that it exists and has the shape that input `x` needs."""
    if not isinstance(tree, dict):
        raise TypeError(f"{layer}: params and state must be the dicts that init returned, got {short_repr(tree)}")
    if name not in tree:
        raise ValueError(
            f"{layer}: {name!r} is missing, got {sorted(tree)}; pass the params and the state that init returned"
        )
    if not has_spec(tree[name]):
        raise TypeError(f"{layer}: {name} must be an array, got {short_repr(tree[name])}")
    if tree[name].shape != shape:
        raise ValueError(
            f"{layer}: {name} has shape {tree[name].shape}, but input {x.shape}, read as channels-last (N, ..., C), "
            f"needs {shape}; was the network initialized for another input shape, or is {_missing(x)}?"
        )
    return tree[name]


@contextlib.contextmanager
def in_layer(name: str) -> Iterator[None]:
    """Add the layer's name to the profiler scope, and its path to every exception raised in the block."""
    try:
        with jax.named_scope(name):
            yield
    except Exception as error:
        start = "in layer '"
        notes = getattr(error, "__notes__", [])
        for i, note in enumerate(notes):
            if note.startswith(start):
                notes[i] = f"{start}{name}/{note[len(start) :]}"
                break
        else:
            error.add_note(f"{start}{name}'")
        raise


def checked_init(result: Any) -> tuple[Params, State]:
    """Return what `init` of a layer has returned. TypeError if it is not (params, state), such as only params."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"init must return (params, state), where state may be {{}}, got {short_repr(result)}")
    return result


def checked_result(result: Any) -> tuple[Any, State]:
    """Return what `apply` of a layer has returned. TypeError if it is not (y, state), such as only y."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise TypeError(f"apply must return (y, state), where state is a dict, got {short_repr(result)}")
    return result


def check_returned(y: Any, name: str) -> None:
    """Raise TypeError if the output of a layer inside the layer `name` is not an array."""
    if not has_spec(y):
        raise TypeError(f"{name} needs a layer that returns an array, got {short_repr(y)}")
