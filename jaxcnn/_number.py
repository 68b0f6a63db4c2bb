"""Numbers that may be traced, as in a sweep over learning rates or dropout rates."""

from typing import Any

from jaxcnn._jax import Tracer


def is_traced_number(value: Any) -> bool:
    """Whether the value is known only when the compiled function runs, as in a sweep over it."""
    return isinstance(value, Tracer) and value.ndim == 0


def is_zero(value: Any) -> bool:
    """Whether a number is 0, so that what it scales can be left out. False for a traced one: its value is unknown."""
    return not is_traced_number(value) and value == 0
