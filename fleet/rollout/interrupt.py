"""Ctrl-C: once to settle and stop, twice to stop at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts(once: Callable[[], None], twice: Callable[[], None]) -> Iterator[None]:
    """Call ``once`` at the first SIGINT or SIGTERM and ``twice`` at each one after it.

    Elsewhere than in the main thread signals cannot be taken over, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, count = asyncio.get_running_loop(), 0

    def came() -> None:
        nonlocal count
        count += 1
        (once if count == 1 else twice)()

    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    for number in SIGNALS:
        loop.add_signal_handler(number, came)
    try:
        yield
    finally:
        for number, handler in before:
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
