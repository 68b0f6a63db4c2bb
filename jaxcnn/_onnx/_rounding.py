"""Arithmetic on constants that changes the results of a model only by rounding; None where it would change more."""

import numpy as np


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """a * b, for (x * a) * b."""
    with np.errstate(all="ignore"):
        result = np.asarray(a * b)
    return result if moderate(a) and moderate(b) and _normal(result, (a == 0) | (b == 0)) else None


def reciprocal(a: np.ndarray) -> np.ndarray | None:
    """1 / a, for x / a."""
    with np.errstate(all="ignore"):
        result = np.asarray(1 / a)
    return result if _normal(result, np.isinf(a)) else None


def finite_product(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """a * b for an offset, (x + a) * b = x * b + a * b, where a small one may underflow."""
    with np.errstate(all="ignore"):
        result = np.asarray(a * b)
    return result if np.isfinite(result).all() else None


def offset_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """a + b, for (x + a) + b.

    Arrays with several elements are taken to be trained parameters: only a finite sum is required. A sum of scalars
    must be exact, and no smaller than either of them: x + 2**23 - 2**23 rounds x to an integer.
    """
    with np.errstate(all="ignore"):
        total = np.asarray(a + b)
        exact = (total - a == b) & (total - b == a)
    larger = np.abs(total) >= np.maximum(np.abs(a), np.abs(b))
    trained = a.size > 1 and b.size > 1 and np.isfinite(total).all()
    return total if trained or np.all(exact & larger) else None


def moderate(factor: np.ndarray) -> bool:
    """Whether x * factor neither overflows nor underflows for ordinary x.

    True for arrays with several elements, which are taken to be trained parameters.
    """
    limits = np.finfo(factor.dtype)
    size = np.abs(factor)
    return factor.size > 1 or bool(np.all((size == 0) | ((size >= limits.tiny**0.5) & (size <= limits.max**0.5))))


def _normal(result: np.ndarray, zero: np.ndarray) -> bool:
    """Whether no element overflows, or underflows except to a true zero."""
    return bool(np.all(np.isfinite(result) & (zero | (np.abs(result) >= np.finfo(result.dtype).tiny))))
