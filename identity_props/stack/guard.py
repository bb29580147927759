"""What keeps a part under test from taking the suite along: a limit in seconds on every step, and no forks.

A part that hangs, or that forks, is a result.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from mmap import mmap
from types import FrameType
from typing import Any

PACKAGE = __name__.partition(".")[0] + "."
_seconds = 0.0  # of the limit in force, 0 where there is none
_shared: Any = None  # the limit in force as another process reads it, see told_to
_block = 0  # number of the block that looks for forks, 0 where there is none
_blocks = count(1)
_forked = mmap(-1, 8)  # number of the block whose fork came back last: shared with all forks


class HangError(BaseException):
    """A step did not end in time. No Exception, so that nothing that forgives those forgives this."""


class ForkError(BaseException):
    """A process that a part forked came back from the part, as a second suite."""


RAISED = (Exception, SystemExit)  # what a part may raise and the suite goes on; Ctrl-C is not among it


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise HangError where ``seconds`` pass between two calls of ``alive``; 0 sets no limit.

    An alarm of the operating system, so it works in the main thread and where there are such alarms,
    and not while compiled code keeps Python from running: that is for another process to see, see ``told_to``.
    """
    global _seconds
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, handler = _seconds, signal.signal(signal.SIGALRM, _expire)
    left, interval = _count(seconds)
    _seconds, started = seconds, time.monotonic()
    try:
        yield
    finally:
        _seconds = outer
        _count(0.0)
        signal.signal(signal.SIGALRM, handler)
        if outer:
            _count(outer)
        elif left:  # a timer of the caller's goes on, and rings at once where it should have rung before
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), interval)


def limit_in_force() -> float:
    """Seconds, 0 where there is no limit."""
    return _seconds


def alive() -> None:
    """Count the limit in force from now on; raise ForkError where a fork has come back."""
    _see_forks()
    go_on()


def go_on() -> None:
    """Count the limit in force from now on."""
    if _seconds:
        _count(_seconds)


def told_to(shared: Any) -> None:
    """Keep two numbers that another process reads: the time at which the limit in force is over, and its seconds.

    The time is that of ``time.monotonic``, which all processes share; 0 where there is no limit.
    """
    global _shared
    _shared = shared


def _count(seconds: float) -> tuple[float, float]:
    """Set the alarm, 0 for none, and tell of it; what was left of the one before, and its interval."""
    if _shared is not None:
        _shared[:] = (time.monotonic() + seconds if seconds else 0.0, seconds)
    return signal.setitimer(signal.ITIMER_REAL, seconds)


def _expire(*_: Any) -> None:
    raise HangError(f"no step ended within {_seconds:g} s")


# Forks ----------------------------------------------------------------------------------------------


@contextmanager
def no_forks() -> Iterator[None]:
    """Raise ForkError, at the next call of ``alive`` or at the end, where a process forked here came back.

    One that does its own work and ends, as a loader's, is none of our business.
    """
    global _block
    outer, _block = _block, next(_blocks)
    try:
        yield
        _see_forks()
    finally:
        _block = outer


def _see_forks() -> None:
    if _block and int.from_bytes(_forked[:], "little") == _block:
        raise ForkError("a process that it forked came back into training, and was ended")


def _in_forked_process() -> None:
    """Let a process that a part forked end where the part would return to this package."""
    frame: FrameType | None = sys._getframe(1)
    ours = []
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(PACKAGE):
            ours.append(frame)
        frame = frame.f_back
    if ours:
        sys.setprofile(partial(_end, ours))


def _end(ours: list[FrameType], frame: FrameType, event: str, _: Any) -> None:
    if event == "return" and frame.f_back in ours:  # by an exception as well
        _forked[:] = _block.to_bytes(len(_forked), "little")
        os._exit(0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)
