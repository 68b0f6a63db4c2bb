"""Being told to stop: training saves what it has before it goes."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator


class Interrupted(SystemExit):
    """Training was told to stop, and has saved where it was; the program ends with 128 + the number of the signal."""


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], int]]:
    """In its block, SIGTERM, SIGINT and SIGHUP only set what the function returns, from 0 to the signal's number.

    The second one ends the program at once. Outside of the main thread, where Python gets no signals, it stays 0.

    Raises:
        Interrupted: at the end of the block, if a signal came after the block last asked for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    told = 0

    def handle(number, frame):
        nonlocal told
        if told:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        told = number

    before = {}
    try:
        for number in _signals():
            before[number] = signal.signal(number, handle)
        yield lambda: told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: not set by Python
    if told:
        raise Interrupted(128 + told)


def _signals() -> list[signal.Signals]:
    """Those to deal with: not those that are ignored, as SIGHUP is by `nohup`, and SIGINT by a shell's `&`."""
    names = ("SIGTERM", "SIGINT", "SIGHUP")  # a terminal that closes sends the last one; Windows does not have it
    there = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in there if signal.getsignal(number) != signal.SIG_IGN]
