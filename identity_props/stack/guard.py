"""A limit in seconds on every step of a part under test, so that one that hangs is a result."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_seconds = 0.0  # of the limit in force, 0 where there is none


class HangError(BaseException):
    """A step did not end in time. No Exception, so that nothing that forgives those forgives this."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise HangError where ``seconds`` pass between two calls of ``alive``; 0 sets no limit.

    An alarm of the operating system, so it works in the main thread and where there are such alarms,
    and not while compiled code keeps Python from running.
    """
    global _seconds
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, handler = _seconds, signal.signal(signal.SIGALRM, _expire)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    _seconds, started = seconds, time.monotonic()
    try:
        yield
    finally:
        _seconds = outer
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, outer)
        elif left:  # a timer of the caller's goes on, and rings at once where it should have rung before
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), interval)


def limit_in_force() -> float:
    """Seconds, 0 where there is no limit."""
    return _seconds


def alive() -> None:
    """Count the limit in force from now on."""
    if _seconds:
        signal.setitimer(signal.ITIMER_REAL, _seconds)


def _expire(*_: Any) -> None:
    raise HangError(f"no step ended within {_seconds:g} s")
