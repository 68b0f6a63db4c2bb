"""Signals that stop training: SIGTERM, SIGINT and SIGHUP are deferred until a checkpoint is saved."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator


class Interrupted(SystemExit):
    """A signal stopped training after it saved a checkpoint. The exit status is 128 + the signal's number."""


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], int]]:
    """A context that defers SIGTERM, SIGINT and SIGHUP. It yields a function that returns the received signal, or 0.

    A second signal ends the program at once. Outside of the main thread, where Python receives no signals, the function
    always returns 0.

    Raises:
        Interrupted: at the end of the context, if a signal was received and the body did not raise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received = 0

    def handle(number, frame):
        nonlocal received
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        received = number

    old_handlers = {}
    try:
        for number in _signals():
            old_handlers[number] = signal.signal(number, handle)
        yield lambda: received
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: the handler was not set from Python
    if received:
        raise Interrupted(128 + received)


def _signals() -> list[signal.Signals]:
    """The signals to defer, without ignored ones: `nohup` ignores SIGHUP, and a shell's `&` ignores SIGINT."""
    names = ("SIGTERM", "SIGINT", "SIGHUP")  # SIGHUP: the terminal closed; Windows does not have it
    available = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in available if signal.getsignal(number) != signal.SIG_IGN]
