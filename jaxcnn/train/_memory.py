"""Reuse of freed memory between training steps on a CPU."""

import ctypes

# Parameters of mallopt in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def reuse_memory() -> bool:
    """Make this process keep freed memory, which makes training steps on a CPU faster.

    XLA allocates the memory of a whole program at once and frees it at the end. glibc returns such large blocks to
    Linux, which clears each page before the next use. On a virtual machine this takes 0.3 ms per MB, half of the step
    time of a small network (`python -m experiments.benchmarks.nets --fresh`). The setting affects the whole process,
    including PyTorch: its memory no longer shrinks. jaxcnn therefore only sets it in `train.command`. Call it first,
    before JAX starts its threads.

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
    # One heap for all threads, no allocation by mmap, and no trimming of the heap.
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1)])
