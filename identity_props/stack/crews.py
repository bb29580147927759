"""Who does the work: processes of this machine, or workers of a Dask cluster, behind one ``submit``.

A task is a function of what the crew holds, which is sent once, and of its arguments. It returns its
future at once. A task that raises is not tried again; one whose worker is lost is, elsewhere.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from identity_props.stack.alone import alone
from identity_props.stack.cluster import Cluster, Say
from identity_props.stack.processes import Leash, Unnamed, workers

__all__ = ["Cluster", "Crew", "Say", "crew", "each"]


class Crew(Protocol):
    """Workers that are given tasks."""

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Do ``task(held, *arguments)``."""

    def room(self) -> int:
        """Tasks that it should be given at a time, so that nobody waits for one."""

    def alive(self) -> None:
        """Raise MissingError where it is gone, and say it where nobody is there to work; to be called each second."""

    def stop(self) -> None:
        """Let all of it be."""

    def close(self) -> None:
        """No more tasks."""


@contextmanager
def crew(
    held: Any,
    jobs: int,
    threads: int,
    scheduler: str | None = None,
    say: Say = lambda line: None,
    apart: bool = False,
) -> Iterator[Crew]:
    """``jobs`` processes with as many ``threads`` each, this one if it is 1, or the workers of a scheduler.

    Tasks that are to be ``apart`` have the main thread of a process to themselves, where alarms ring, and never this one.
    ``say`` is told where there is no worker, and when one has come.
    """
    made: Crew
    if scheduler is not None:
        made = Cluster(held, scheduler, threads, say, apart)
    else:
        made = Here(held, threads) if jobs == 1 and not apart else Processes(held, jobs, threads)
    try:
        yield made
    except BaseException:
        made.stop()
        raise
    finally:
        made.close()


def each(
    crew: Crew, task: Callable[..., Any], given: Iterable[tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Arguments of tasks, and what came of them, as they end; raises what one raised.

    At any time as many tasks are with the crew as it has room for, and those that are done are forgotten.
    """
    left, pending = iter(given), dict[Future[Any], tuple[Any, ...]]()
    more = True
    while more or pending:
        while more and len(pending) < crew.room():
            arguments = next(left, None)
            if arguments is None:
                more = False
                break
            pending[crew.submit(task, *arguments)] = arguments
            if all(one.done() for one in pending):
                break
        ended, _ = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
        if not ended:
            crew.alive()
        for future in ended:
            yield pending.pop(future), future.result()


# This machine ---------------------------------------------------------------------------------------


class Here:
    """Does each task as it is given, in this thread: Ctrl-C ends it at once."""

    def __init__(self, held: Any, threads: int) -> None:
        self.held, self.threads = held, threads

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with alone(self.threads):
            try:
                future.set_result(task(self.held, *arguments))
            except Exception as error:
                future.set_exception(error)
        return future

    def room(self) -> int:
        return 1

    def alive(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


class Processes:
    """Processes that end with this one; what they are given lies in a file without a name."""

    def __init__(self, held: Any, jobs: int, threads: int) -> None:
        self.jobs, self.leash, self.held = jobs, Leash(), Unnamed.of(partial(pickle.dump, held))
        self.pool = workers(jobs, _start, self.held, threads, leash=self.leash)

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        return self.pool.submit(_done, task, *arguments)

    def room(self) -> int:
        return 2 * self.jobs

    def alive(self) -> None:
        pass

    def stop(self) -> None:
        self.leash.let_go()

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.held.close()


_held: tuple[Any, int]  # of this process


def _start(held: Unnamed, threads: int) -> None:
    global _held
    _held = pickle.loads(held.read_bytes()), threads


def _done(task: Callable[..., Any], *arguments: Any) -> Any:
    held, threads = _held
    with alone(threads):
        return task(held, *arguments)
