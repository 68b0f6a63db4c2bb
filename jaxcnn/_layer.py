"""The pair: a layer is two pure functions, and nothing else.

`init` makes the arrays of a layer from a key and an input (or only its shape); `apply` computes the
output. All arrays travel through arguments and results, so every transformation of jax works on them.
"""

import contextlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Params = dict[str, Any]
State = dict[str, Any]
Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array, as in jax.nn.initializers


class InitFn(Protocol):
    """`(key, x) -> (params, state)`; `x` is an array or a `jax.ShapeDtypeStruct`: only its shape is read."""

    def __call__(self, key: jax.Array, x: Any, /) -> tuple[Params, State]: ...


class ApplyFn(Protocol):
    """`(params, state, x, *, train, key=None) -> (y, state)`.

    `train` is a Python bool without a default. `train=False` returns `state` as it came and ignores
    `key`; `train=True` draws all randomness from `key`.
    """

    def __call__(
        self, params: Params, state: State, x: Any, /, *, train: bool, key: jax.Array | None = None
    ) -> tuple[Any, State]: ...


class Layer(NamedTuple):
    """A layer, a block or a whole network: a pair of pure functions.

    `params` is a nested dict of float32 arrays, all differentiable, with leaves named `kernel`, `bias`
    and `scale`. `state` is a second nested dict, which no optimiser sees, with leaves such as `mean`
    and `var`. Empty dicts are dropped from both.

    A layer of your own needs no base class:

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
    """

    init: InitFn
    apply: ApplyFn


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
    """A plain function `x -> y` as a layer without parameters; a layer is returned as it is.

    Raises:
        TypeError: for anything else, or if the function turns out to be a constructor that was not called.

    Example:
        >>> jaxcnn.as_layer(jax.nn.relu).apply({}, {}, jnp.array([-1.0, 2.0]), train=False)
        (Array([0., 2.], dtype=float32), {})
    """
    if isinstance(layer, Layer):
        return layer
    if not callable(layer):
        hint = "; unpack it: serial(*layers)" if isinstance(layer, list | tuple) else ""
        raise TypeError(f"expected a Layer or a function x -> y, got {layer!r}{hint}")
    name = getattr(layer, "__name__", repr(layer))

    def fn(params, x):
        try:
            y = layer(x)
        except Exception as error:
            if getattr(layer, "__module__", "").startswith("jaxcnn."):
                error.add_note(f"{name} was given as a layer: if it is a constructor, call it, as in {name}(...)")
            raise
        if isinstance(y, Layer):
            raise TypeError(f"{name} is a constructor of layers, not a function x -> y: call it, as in {name}(...)")
        return y

    return stateless(lambda key, x: {}, fn)


def by_shape(build: Callable[[tuple[int, ...]], Layer]) -> Layer:
    """A layer whose options follow from the shape of its input."""

    def apply(params, state, x, *, train, key=None):
        return build(x.shape).apply(params, state, x, train=train, key=key)

    return Layer(lambda key, x: build(x.shape).init(key, x), apply)


def child_key(key: jax.Array | None, name: str) -> jax.Array | None:
    """The key of the part called `name`: it depends on the name alone, so new siblings change nothing."""
    if key is None:
        return None
    try:
        return jax.random.fold_in(key, zlib.crc32(name.encode()))
    except TypeError as error:
        raise TypeError(f"key must be a random key such as jax.random.key(0), got {key!r}") from error


@contextlib.contextmanager
def in_layer(name: str) -> Iterator[None]:
    """Name the operations in here for the profiler, and the layer in every error that passes through."""
    try:
        with jax.named_scope(name):
            yield
    except Exception as error:
        notes = getattr(error, "__notes__", [])
        start = "in layer '"
        if notes and notes[-1].startswith(start):
            notes[-1] = f"{start}{name}/{notes[-1][len(start) :]}"
        else:
            if isinstance(error, KeyError):
                error.add_note("params and state must have the structure that init returned")
            error.add_note(f"{start}{name}'")
        raise


def floating(x: Any, layer: str) -> Any:
    """`x` itself, if `layer` can compute with it: a floating-point array, or the shape of one."""
    if not isinstance(x, jax.ShapeDtypeStruct):
        x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{layer} needs floating-point input, got {x.dtype} of shape {x.shape}: convert and scale it first, "
            "as in x.astype(jnp.float32) / 255"
        )
    return x


def widened(x: jax.Array) -> jax.Array:
    """`x` in float32, or in float64 if it is: sums and statistics need more digits than bfloat16 has."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def spatial_rank(x: Any, layer: str) -> int:
    """The number of spatial dimensions, 1 to 3, of data (N, *spatial, C)."""
    rank = len(x.shape) - 2
    if not 1 <= rank <= 3:
        raise ValueError(
            f"{layer} needs (N, *spatial, C) with 1 to 3 spatial dimensions, such as pictures (N, H, W, C), "
            f"got shape {x.shape}"
        )
    return rank


def fraction(name: str, value: float) -> float:
    """A probability of dropping, at least 0 and below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} is the probability of dropping and must be in [0, 1), got {value}")
    return value


def require_key(key: jax.Array | None, layer: str) -> jax.Array:
    """The key of a random layer in training, or an error that says how to give one."""
    if key is None:
        raise ValueError(f"{layer} is random in training: call apply(..., train=True, key=jax.random.key(...))")
    return key
