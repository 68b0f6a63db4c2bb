"""Lines on standard output: permanent ones, and progress, which is updated in place where the output allows it."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

_WAITS: dict[str, tuple[float, ...]] = {  # seconds between progress lines by the kind of output; the last one repeats
    "terminal": (0.0,),
    "notebook": (0.25,),  # each update is a message to the browser
    "other": (10, 30, 60, 120, 300),  # a file keeps every line
}


class Output:
    """Prints to `sys.stdout`, from any thread.

    On a terminal and in a notebook, a progress line replaces the one before. Elsewhere progress lines are separate, at
    growing intervals that start anew after each permanent line.

    Args:
        enabled: whether anything is printed.
    """

    def __init__(self, enabled: bool):
        self._enabled = enabled
        self._kind = _kind(sys.stdout)
        self._lock = threading.Lock()
        self._shown = 0  # length of the visible progress line of a notebook
        self._waits: Iterator[float]
        self._wait: float
        self._last_line: float
        self._restart()

    def progress(self, line: str) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._last_line < self._wait:
                return
            if self._kind == "other":
                self._print(line)
            else:
                self._print(self._replacing(line), end="")
                self._shown = len(line)
            self._last_line = now
            self._wait = next(self._waits, self._wait)

    def say(self, line: str) -> None:
        """Print a permanent line."""
        with self._lock:
            self._print(self._replacing(line))
            self._shown = 0
            self._restart()

    def _restart(self) -> None:
        self._last_line = time.monotonic()
        self._waits = iter(_WAITS[self._kind])
        self._wait = next(self._waits)

    def _replacing(self, line: str) -> str:
        """The line with the characters that replace the visible progress line by it."""
        if self._kind == "terminal":
            return f"\r\x1b[K{line}"
        # Spaces, because a notebook does not interpret the escape sequence.
        return f"\r{line.ljust(self._shown)}" if self._shown else line

    def _print(self, line: str, end: str = "\n") -> None:
        if not self._enabled or sys.stdout is None:
            return
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        with contextlib.suppress(OSError, ValueError):  # a closed output must not end training
            print(line.encode(encoding, "replace").decode(encoding), end=end, flush=True)


def _kind(stream: Any) -> str:
    """The kind of a stream, a key of `_WAITS`. The stream may also be None, closed, or any object with `write`."""
    if type(stream).__module__.partition(".")[0] == "ipykernel":  # its isatty() is False
        return "notebook"
    try:
        return "terminal" if stream.isatty() else "other"
    except (AttributeError, ValueError):
        return "other"
