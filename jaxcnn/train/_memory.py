"""Memory that the next training step finds ready."""

import ctypes

# Names of parameters in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def reuse_memory() -> bool:
    """Have this process keep the memory it frees, so that the next step on a CPU finds it ready.

    XLA takes the memory of a whole program at once and gives it back at the end. glibc gives such large pieces back
    to Linux, which clears each page before it lends it out again: 0.3 ms for each MB on a virtual machine, half of the
    time of a step of a small network (`python -m experiments.benchmarks.nets --fresh`). It concerns the whole
    process, PyTorch as well, which then stays as large as it ever was; so the program decides, and
    jaxcnn never calls this by itself. Call it first, before JAX has started its threads.

    Returns:
        whether it worked: not without glibc (macOS, Windows, Alpine), where nothing changes.

    Example:
        >>> from jaxcnn import train
        >>> train.reuse_memory() in (True, False)
        True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # One heap for all threads, from which nothing is taken by mmap, and whose end is not handed back.
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1)])
