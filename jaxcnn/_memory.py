"""Reuse of freed memory between calls of compiled functions on a CPU."""

import ctypes
import functools
import os

# Parameters of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
# The heaps of all threads but the first have at most 64 MB. Larger blocks are not kept. `jit` limits XLA's temporary
# blocks to this size, so that two of them fit into a heap.
BLOCK = 30 * 2**20


def reuse_memory() -> bool:
    """Make this process keep freed memory, which makes training steps on a CPU faster.

    XLA allocates the temporary memory of a program at its start and frees it at the end. glibc returns large blocks to
    Linux, which clears each page before the next use: up to 40 % of the time of a step
    (`python -m experiments.benchmarks.nets --fresh`). The setting affects the whole process, including NumPy and
    PyTorch: its memory no longer shrinks.

    `jaxcnn.jit` on a CPU, `train.fit` and `train.sweep` call this function at their first call, unless the environment
    variable JAXCNN_REUSE_MEMORY is 0. By then, JAX may have started its threads, which do not keep single arrays above
    64 MB. More of these are kept if you call it before the first use of JAX, even before `jax.random.key(0)`.

    Returns:
        True if the setting was applied; False without glibc (macOS, Windows, Alpine), where nothing changes.

    Example:
        >>> from jaxcnn import train
        >>> train.reuse_memory() in (True, False)
        True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # No allocation by mmap, no trimming of the first heap, and no end of further heaps, which is checked against the
    # padding. Two sets of heaps instead of one per thread: with a single one, threads wait for each other.
    settings = {_ARENA_MAX: 2, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}
    applied = [mallopt(*setting) for setting in settings.items()]  # all of them, even if one fails
    return all(applied)


@functools.cache
def reuse_memory_by_default() -> None:
    """Call `reuse_memory` once, unless the environment variable JAXCNN_REUSE_MEMORY is 0."""
    if os.environ.get("JAXCNN_REUSE_MEMORY") != "0":
        reuse_memory()
