"""Reuse of freed memory between calls of compiled functions on a CPU."""

import ctypes
import functools
import os

# Parameters of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def reuse_memory() -> bool:
    """Make this process keep freed memory, which makes training steps on a CPU faster.

    XLA allocates the memory of a whole program at once and frees it at the end. glibc returns such large blocks to
    Linux, which clears each page before the next use: up to half of the time of a step
    (`python -m experiments.benchmarks.nets --fresh`). The setting affects the whole process, including NumPy and
    PyTorch: its memory no longer shrinks.

    `jaxcnn.jit` on a CPU, `train.fit` and `train.sweep` call this function at their first call, unless the environment
    variable JAXCNN_REUSE_MEMORY is 0. By then, JAX may have started its threads, which keep the old setting for blocks
    above 64 MB. Call it yourself before the first use of JAX, even before `jax.random.key(0)`, to include these.

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
    # No allocation by mmap, no trimming of the heap, and two heaps instead of one per thread: those of other threads
    # have at most 64 MB. With a single heap, threads wait for each other.
    return all([mallopt(_ARENA_MAX, 2), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1)])


@functools.cache
def reuse_memory_by_default() -> None:
    """Call `reuse_memory` once, unless the environment variable JAXCNN_REUSE_MEMORY is 0."""
    if os.environ.get("JAXCNN_REUSE_MEMORY") != "0":
        reuse_memory()
