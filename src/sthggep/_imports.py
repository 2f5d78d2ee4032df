"""Imports of large libraries, which an interrupt (Ctrl-C) must not stop in the middle."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def import_whole(*libraries: str) -> None:
    """Import libraries, and let an interrupt wait until they are there: a half-imported torch fails at every later import."""
    absent = [name for name in libraries if name not in sys.modules]
    if absent:
        with interrupt_waits():
            for name in absent:
                importlib.import_module(name)


@contextmanager
def interrupt_waits() -> Iterator[None]:
    """Hold an interrupt back until the block ends; only the main thread receives any."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[object] = []
    signal.signal(signal.SIGINT, lambda *_: waiting.append(None))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if waiting:
        signal.raise_signal(signal.SIGINT)
