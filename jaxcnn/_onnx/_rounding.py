"""Arithmetic on constants that changes the results of a model only by rounding; None where it would change more."""

import numpy as np


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """a * b, for (x * a) * b."""
    with np.errstate(all="ignore"):
        return _if_normal(np.asarray(a * b), (a == 0) | (b == 0))


def reciprocal(a: np.ndarray) -> np.ndarray | None:
    """1 / a, for x / a."""
    with np.errstate(all="ignore"):
        return _if_normal(np.asarray(1 / a), np.isinf(a))


def offset_product(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """a * b, for (x + a) * b = x * b + a * b, which may underflow as (x + a) * b does."""
    with np.errstate(all="ignore"):
        result = np.asarray(a * b)
    return result if np.isfinite(result).all() else None


def offset_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """a + b, for (x + a) + b.

    Vectors are trained. The sum of other numbers must be exact and no smaller than them: x + 2**23 - 2**23 rounds x to
    integers.
    """
    with np.errstate(all="ignore"):
        total = np.asarray(a + b)
        exact = (total - a == b) & (total - b == a)
    larger = np.abs(total) >= np.maximum(np.abs(a), np.abs(b))
    trained = a.size > 1 and b.size > 1 and np.isfinite(total).all()
    return total if trained or np.all(exact & larger) else None


def _if_normal(result: np.ndarray, zero: np.ndarray) -> np.ndarray | None:
    """The result if none of it overflows, or underflows except to a true zero."""
    normal = np.isfinite(result) & (zero | (np.abs(result) >= np.finfo(result.dtype).tiny))
    return result if normal.all() else None
