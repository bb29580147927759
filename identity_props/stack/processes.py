"""Processes that this package starts: they end with the one that started them, or at its word."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib import import_module
from mmap import ACCESS_READ, mmap
from multiprocessing import get_context, parent_process, set_start_method
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import DupFd
from shutil import rmtree
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Thread
from typing import IO, Any

import psutil

SPAWN = get_context("spawn")  # a forked process inherits torch's threads, broken
FOLDERS: list[str] = []  # to remove where this worker ends with its parent
LOOK_EVERY = 1.0  # seconds, for a parent whose end of a pipe lives on in a process that it forked


class Leash:
    """What workers are given the ``end`` of: they end at once when it is let go."""

    def __init__(self) -> None:
        self.end, self._held = SPAWN.Pipe(duplex=False)

    def let_go(self) -> None:
        self._held.send_bytes(b"end")  # closing would not do where a forked process holds it as well


def workers(
    jobs: int, start: Callable[..., None], *arguments: Any, leash: Leash | None = None
) -> ProcessPoolExecutor:
    """Processes that begin with ``start(*arguments)``, tied to this one and to the leash before they import it."""
    named = f"{start.__module__}:{start.__qualname__}"
    ends = () if leash is None else (leash.end,)
    return ProcessPoolExecutor(jobs, SPAWN, _begin, (ends, named, *arguments))


def _begin(leashes: tuple[Connection, ...], start: str, *arguments: Any) -> None:
    tie_to_parent(*leashes)
    module, _, name = start.partition(":")
    getattr(import_module(module), name)(*arguments)


def tie_to_parent(*leashes: Connection, at_end: Callable[[], None] = lambda: None) -> None:
    """Let this worker end within a second, after ``at_end``, when its parent is gone or lets go.

    Ctrl-C and a closed terminal reach the whole group of processes: here they are left to the parent.
    """
    for name in ("SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    Thread(target=_watch, args=(leashes, at_end), name="watch", daemon=True).start()


def _watch(leashes: tuple[Connection, ...], at_end: Callable[[], None]) -> None:
    parent = parent_process()
    assert parent is not None, "this is no worker"
    while not wait([parent.sentinel, *leashes], LOOK_EVERY) and os.getppid() == parent.pid:
        pass
    for folder in FOLDERS:
        rmtree(folder, ignore_errors=True)
    at_end()
    os._exit(1)


def temporary_folder() -> TemporaryDirectory[str]:
    """A folder inside the one that is removed with this worker, if it has one."""
    within = FOLDERS[-1] if FOLDERS else None
    return TemporaryDirectory(prefix="identity-props-", dir=within, ignore_cleanup_errors=True)


def as_started_by_the_user() -> None:
    """Let what is tried here start its own processes as it does at home, a loader its workers: by fork, where that is.

    A process that was spawned spawns in its turn, which takes seconds, and what cannot be pickled does not arrive.
    """
    set_start_method(None, force=True)


def end_descendants(pid: int) -> None:
    """Kill all that a process has started and that has started those, in whatever group or session."""
    with suppress(psutil.Error):
        for one in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                one.kill()


class Unnamed:
    """Bytes in a file without a name: workers can be given it, and whoever is killed leaves nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of(cls, write: Callable[[IO[bytes]], Any]) -> Unnamed:
        """A file that holds what ``write`` writes."""
        with TemporaryFile(prefix="identity-props-") as file:
            write(file)
            file.flush()
            return cls(os.dup(file.fileno()))

    def read_bytes(self) -> bytes:
        with mmap(self._descriptor, 0, access=ACCESS_READ) as whole:
            return whole[:]

    def close(self) -> None:
        os.close(self._descriptor)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (DupFd(self._descriptor),)  # of a process that starts


def _reopened(handle: Any) -> Unnamed:
    return Unnamed(handle.detach())
