"""Checks of arguments: each returns the value to use, or raises an error that names the layer and the argument."""

import inspect
import math
import numbers
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from jaxcnn._number import is_traced_number
from jaxcnn._path import expected_one_of

FLOAT32_LIMIT = 2.0**128  # numbers from here on are infinite in float32


def accepts(f: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether f can be called with these arguments, as far as its signature tells."""
    try:
        inspect.signature(f).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # some functions of C have no signature
        return True
    return True


def check_number(
    layer: str,
    name: str,
    value: Any,
    least: float = 0.0,
    below: float = FLOAT32_LIMIT,
    *,
    closed: bool = False,
    static: bool = False,
) -> Any:
    """Return the value as a Python number, if least <= value < below (<= below if `closed`). Otherwise raise.

    A traced number is returned unchanged, or raises TypeError if the value must be `static`. Use the returned number: a
    NumPy scalar has a dtype of its own, which would change that of results.
    """
    if is_traced_number(value):
        if static:
            raise TypeError(f"{layer}: {name} must be known at compilation, got a traced number")
        return value
    if isinstance(value, jax.Array) and value.ndim == 0:  # a traced number, outside of the compiled function
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):  # Python counts True as 1
        raise TypeError(f"{layer}: {name} must be a number, got {short_repr(value)}")
    number = int(value) if isinstance(value, numbers.Integral) else float(value)
    if not least <= number < below and not (closed and number == below):
        most = "finite" if below >= FLOAT32_LIMIT else f"{'at most' if closed else 'below'} {below:g}"
        raise ValueError(f"{layer}: {name} must be at least {least:g} and {most}, got {value}")
    return number


def check_positive(layer: str, name: str, value: Any, *, static: bool = False) -> Any:
    """As `check_number`, for a finite number above 0."""
    number = check_number(layer, name, value, static=static)
    if not is_traced_number(number) and number <= 0:
        raise ValueError(f"{layer}: {name} must be above 0, got {value}")
    return number


def check_integer(
    layer: str, name: str, value: Any, least: int = 1, expected: str = "an int", *, below: int = 2**31
) -> int:
    """Return `value` as an int, or raise an error that names the argument unless least <= value < below."""
    message = f"{layer}: {name} must be {expected}, got "
    if isinstance(value, bool):  # Python counts True as 1
        raise TypeError(message + short_repr(value))
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(message + short_repr(value)) from error
    if number < least:
        raise ValueError(f"{layer}: {name} must be at least {least}, got {value!r}")
    if number >= below:
        raise ValueError(f"{layer}: {name} must be below {below}, got {short_repr(value)}")
    return number


def check_bool(layer: str, name: str, value: Any) -> bool:
    """Return the value as a bool; other values than bools, such as "no", would count as True or False unnoticed."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{layer}: {name} must be True or False, got {short_repr(value)}")
    return bool(value)


def check_train(train: Any) -> bool:
    """Return `train` if it is a bool: any other value, such as "no", would count as True or False unnoticed."""
    if not isinstance(train, bool):
        raise TypeError(f"train must be True or False (under jit, list it in static_argnames), got {short_repr(train)}")
    return train


def check_choice(layer: str, name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ValueError if `value` is not one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{layer}: unknown {name} {short_repr(value)}; {expected_one_of(value, choices)}")


def check_bounds(name: str, bounds: Any) -> tuple[float, float] | None:
    """Return the smallest and largest value of an image as Python numbers, or None for no bounds; else raise."""
    if bounds is None:
        return None
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"{name}: bounds must be (smallest, largest value) or None, got {short_repr(bounds)}")
    low, high = (check_number(name, "bounds", bound, -math.inf, math.inf, closed=True, static=True) for bound in bounds)
    if not low < high:
        raise ValueError(f"{name}: bounds must be (smallest, largest value) or None, got {short_repr(bounds)}")
    return low, high


def is_function(value: Any) -> bool:
    """Whether a value is a function. A call of a Layer, which is a pair of functions, only raises an error."""
    return callable(value) and not isinstance(value, tuple)


def short_repr(value: Any) -> str:
    """A short text for error messages: dtype and shape of an array, the first 80 characters of anything else."""
    if has_spec(value):
        return f"{value.dtype} of shape {value.shape}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def has_spec(x: Any) -> bool:
    """True for an array, a tracer or a `jax.ShapeDtypeStruct`."""
    return hasattr(x, "shape") and hasattr(x, "dtype")
