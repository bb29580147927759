"""Workers of a Dask cluster, behind the ``submit`` of a crew; see ``stack.crews``."""

from __future__ import annotations

import logging
import math
import pickle
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import current_process
from typing import Any

from identity_props.errors import InputError, MissingError
from identity_props.stack.alone import alone, versions
from identity_props.stack.importing import import_all
from identity_props.stack.processes import workers

WAIT = 10.0  # seconds for a scheduler to answer
LOOK_EVERY = 2.0  # seconds, for workers that came or went: of a thousand it is a long answer
PATIENCE = 4.0  # seconds without any worker, before that is said
Say = Callable[[str], None]


class Cluster:
    """Workers of a Dask scheduler, any number, that come and go.

    What tasks share is a task of its own: a worker that joins fetches it from one that has it, and where all
    that had it are lost the scheduler makes it again.
    """

    def __init__(
        self, held: Any, scheduler: str, threads: int, say: Say = lambda line: None, apart: bool = False
    ) -> None:
        self.address, self.threads, self.say, self.apart = scheduler, threads, say, apart
        self.workers, self.looked = 0, -math.inf  # how many there were, and when that was seen
        self.deserted: float | None = None  # since when there is none
        self.said = False
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
        how = _apart if self.apart else _here
        done = self.pool.submit(_remote, how, task, self.held, self.threads, versions(), *arguments)
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
        return 2 * max(1, self.workers)

    def alive(self) -> None:
        if self.client.status != "running":
            raise self._gone()
        if time.monotonic() - self.looked <= LOOK_EVERY:
            return
        try:
            self.workers, self.looked = len(self.client.nthreads()), time.monotonic()
        except OSError as error:  # a closed connection, or no answer in time
            raise self._gone() from error
        self._tell_of_workers()

    def _tell_of_workers(self) -> None:
        if self.workers:
            if self.said:
                self.say(f"a worker of {self.address} has come")
            self.deserted, self.said = None, False
        elif self.deserted is None:
            self.deserted = self.looked
        elif not self.said and self.looked - self.deserted > PATIENCE:
            self.said = True
            self.say(f"waiting for a worker of {self.address}")

    def _gone(self) -> MissingError:
        told = "expected one that answers, and it went away; what is finished is kept"
        return MissingError(f"scheduler {self.address}: {told}")

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.pool.shutdown(wait=False)  # which cancels what is not done
        self.client.close(timeout=WAIT)


def _remote(
    how: Callable[..., Any],
    task: Callable[..., Any],
    held: Any,
    threads: int,
    wanted: dict[str, str],
    *arguments: Any,
) -> Any:
    from distributed import get_worker

    _same(get_worker().address, wanted, versions())  # it may have joined since
    current_process().daemon = False  # one that a nanny started, which could start none
    return how(task, held, threads, *arguments)


def _here(task: Callable[..., Any], held: Any, threads: int, *arguments: Any) -> Any:
    with alone(threads):
        return task(held, *arguments)


# of this worker, whose tasks have a thread that is not its main one
_beside: ProcessPoolExecutor | None = None


def _apart(task: Callable[..., Any], held: Any, threads: int, *arguments: Any) -> Any:
    global _beside
    _beside = _beside or workers(1, import_all)
    try:
        return _beside.submit(_here, task, held, threads, *arguments).result()
    except BrokenProcessPool:
        _beside = None
        raise


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
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what happens is told in our words
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
