"""Who does the work: processes of this machine, or workers of a Dask cluster, behind one ``submit``.

A task is a function of what the crew holds, which is sent once, and of its arguments. It returns its
future at once. A task that raises is not tried again; one whose worker is lost is, elsewhere.
"""

from __future__ import annotations

import math
import pickle
import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import torch

from identity_props.errors import InputError, MissingError
from identity_props.stack.processes import Leash, Unnamed, workers

PACKAGES = {"identity_props": "identity-props", "torch": "torch", "numpy": "numpy"}
WAIT = 10.0  # seconds for a scheduler to answer
LOOK_EVERY = 2.0  # seconds, for workers that came or went: of a thousand it is a long answer


class Crew(Protocol):
    """Workers that are given tasks."""

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Do ``task(held, *arguments)``."""

    def room(self) -> int:
        """Tasks that it should be given at a time, so that nobody waits for one."""

    def alive(self) -> None:
        """Raise MissingError where it is gone."""

    def stop(self) -> None:
        """Let all of it be."""

    def close(self) -> None:
        """No more tasks."""


def versions() -> dict[str, str]:
    """Of what decides the bits of a result, here."""
    return {name: _version(package) for name, package in PACKAGES.items()} | {
        "python": platform.python_version()
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@contextmanager
def crew(held: Any, jobs: int, threads: int, scheduler: str | None = None) -> Iterator[Crew]:
    """``jobs`` processes with as many ``threads`` each, this one if it is 1, or the workers of a scheduler."""
    made: Crew
    if scheduler is not None:
        made = Cluster(held, scheduler, threads)
    else:
        made = Here(held, threads) if jobs == 1 else Processes(held, jobs, threads)
    try:
        yield made
    except BaseException:
        made.stop()
        raise
    finally:
        made.close()


# This machine ---------------------------------------------------------------------------------------


class Here:
    """Does each task as it is given, in this thread: Ctrl-C ends it at once."""

    def __init__(self, held: Any, threads: int) -> None:
        self.held, self.threads = held, threads

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with _alone(self.threads):
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
    with _alone(threads):
        return task(held, *arguments)


_one_at_a_time = threading.Lock()


@contextmanager
def _alone(threads: int) -> Iterator[None]:
    """One task a process: they draw from generators of the process. Denormals count as 0, as in ``train``."""
    with _one_at_a_time:
        before, flushed = torch.get_num_threads(), float(torch.tensor(1e-40) * 1) == 0
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(flushed)
            torch.set_num_threads(before)


# A cluster ------------------------------------------------------------------------------------------


class Cluster:
    """Workers of a Dask scheduler, any number, that come and go.

    What tasks share is a task of its own: a worker that joins fetches it from one that has it, and where all
    that had it are lost the scheduler makes it again.
    """

    def __init__(self, held: Any, scheduler: str, threads: int) -> None:
        self.address, self.threads = scheduler, threads
        self.workers, self.looked = 0, -math.inf  # how many there were, and when that was seen
        self.client = _client(scheduler)
        try:
            _check(self.client)
        except BaseException:
            self.client.close()
            raise
        self.held = self.client.submit(pickle.loads, pickle.dumps(held), pure=True)
        self.pool = self.client.get_executor(pure=False, retries=0)

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self.alive()
        told: Future[Any] = Future()
        done = self.pool.submit(_remote, task, self.held, self.threads, versions(), *arguments)
        done.add_done_callback(partial(self._tell, told))
        return told

    def _tell(self, told: Future[Any], done: Future[Any]) -> None:
        """Pass on what came of a task, what happened to the cluster in our words."""
        if done.cancelled():
            told.set_exception(self._gone())
            return
        error = done.exception()
        if type(error).__name__ == "KilledWorker":
            told.set_exception(MissingError(f"scheduler {self.address}: a task was given up: {error}"))
        elif error is not None:
            told.set_exception(error)
        else:
            told.set_result(done.result())

    def room(self) -> int:
        self.alive()
        if time.monotonic() - self.looked > LOOK_EVERY:
            try:
                self.workers, self.looked = len(self.client.nthreads()), time.monotonic()
            except OSError as error:  # a closed connection, or no answer in time
                raise self._gone() from error
        return 2 * max(1, self.workers)

    def alive(self) -> None:
        if self.client.status != "running":
            raise self._gone()

    def _gone(self) -> MissingError:
        told = "expected one that answers, and it went away; what is finished is kept"
        return MissingError(f"scheduler {self.address}: {told}")

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.pool.shutdown(wait=False)  # which cancels what is not done
        self.client.close(timeout=WAIT)


def _remote(
    task: Callable[..., Any], held: Any, threads: int, wanted: dict[str, str], *arguments: Any
) -> Any:
    from distributed import get_worker

    _same(get_worker().address, wanted, versions())  # it may have joined since
    with _alone(threads):
        return task(held, *arguments)


def _same(worker: str, wanted: dict[str, str], found: dict[str, str]) -> None:
    differ = [
        f"{name} {found[name]} in place of {wanted[name]}" for name in wanted if found[name] != wanted[name]
    ]
    if differ:
        raise InputError(f"worker {worker}: expected the versions of here, got {', '.join(differ)}")


def _client(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingError(
            "scheduler: expected dask.distributed, got none: pip install 'identity-props[cluster]'"
        ) from error
    try:
        return Client(scheduler, timeout=WAIT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # TimeoutError is one of the first
        told = str(error).splitlines()[0] if str(error) else "no answer"
        raise MissingError(f"scheduler {scheduler}: expected one that answers, got: {told}") from error


def _check(client: Any) -> None:
    """Raise InputError, naming them, for workers of other versions or of several threads."""
    here = versions()
    for worker, there in sorted(client.run(versions, on_error="return").items()):
        if not isinstance(there, dict):
            raise InputError(
                f"worker {worker}: expected identity-props {here['identity_props']}, got: {there}"
            )
        _same(worker, here, there)
    for worker, told in client.scheduler_info(n_workers=-1)["workers"].items():
        if told["nthreads"] != 1:
            raise InputError(
                f"worker {worker}: expected --nthreads 1, a task a process, got {told['nthreads']}"
            )
